# SPDX-License-Identifier: Apache-2.0
"""A plain forward pass in numpy, of what the packages gguf and safetensors read: F64 throughout, one token sequence,
no cache, written from the papers' formulas. What the decoder is held against."""
import glob
import json
import os
import re

import gguf
import numpy as np
import safetensors

# Hugging Face's names after "model.layers.N.", and GGUF's after "blk.N.".
IN_LAYER = {
    "input_layernorm.weight": "attn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight", "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias", "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias", "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight", "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight", "mlp.down_proj.weight": "ffn_down.weight",
}
SHARED = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
          "lm_head.weight": "output.weight"}


class Model:
    """weights: {GGUF's name: F32}, halves: how pairs turn, frequencies: [head_dim / 2]."""

    def __init__(self, weights, heads, kv_heads, head_dim, layers, epsilon, halves, frequencies):
        self.weights, self.heads, self.kv_heads, self.head_dim = weights, heads, kv_heads, head_dim
        self.layers, self.epsilon, self.halves, self.frequencies = layers, epsilon, halves, frequencies


# ---- files ----

def parts_of(path):
    match = re.match(r"(.*)-\d{5}-of-(\d{5})\.gguf$", path)
    return sorted(glob.glob(f"{match.group(1)}-*-of-{match.group(2)}.gguf")) if match else [path]


def read_gguf(path):
    readers = [gguf.GGUFReader(part) for part in parts_of(path)]
    weights = {}
    for reader in readers:
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            weights[tensor.name] = values.reshape([int(n) for n in reversed(tensor.shape)])
    fields = readers[0].fields

    def value(key, otherwise=None):
        full = f"{arch}.{key}"
        return fields[full].contents() if full in fields else otherwise

    arch = fields["general.architecture"].contents()
    heads = value("attention.head_count")
    head_dim = value("attention.key_length", value("embedding_length") // heads)
    frequencies = value("rope.freq_base", 10000.0) ** (-np.arange(0, head_dim, 2) / head_dim)
    frequencies /= weights.pop("rope_freqs.weight", np.ones(head_dim // 2))
    if value("rope.scaling.type") == "linear":
        frequencies /= value("rope.scaling.factor")
    return Model(weights, heads, value("attention.head_count_kv", heads), head_dim, value("block_count"),
                 value("attention.layer_norm_rms_epsilon"), arch != "llama", frequencies)


def common_name(name):
    match = re.match(r"model\.layers\.(\d+)\.(.*)", name)
    return f"blk.{match.group(1)}.{IN_LAYER[match.group(2)]}" if match else SHARED[name]


def to_f32(tensor):
    data = tensor["data"]
    if tensor["dtype"] == "BF16":
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[tensor["dtype"]]).astype(np.float32)
    return values.reshape(tensor["shape"])


def llama3(frequencies, rope):
    """As Meta's reference code has it, by wavelengths."""
    wavelengths = 2 * np.pi / frequencies
    old, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (old / wavelengths - low) / (high - low)
    between = (1 - smooth) * frequencies / rope["factor"] + smooth * frequencies
    scaled = np.where(wavelengths > old / low, frequencies / rope["factor"], between)
    return np.where(wavelengths < old / high, frequencies, scaled)


def read_folder(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    weights = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        with open(path, "rb") as file:
            for name, tensor in safetensors.deserialize(file.read()):
                weights[common_name(name)] = to_f32(tensor)
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = rope.get("rope_theta") or config["rope_theta"]
    frequencies = base ** (-np.arange(0, head_dim, 2) / head_dim)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear":
        frequencies = frequencies / rope["factor"]
    elif kind == "llama3":
        frequencies = llama3(frequencies, rope)
    return Model(weights, heads, config["num_key_value_heads"], head_dim, config["num_hidden_layers"],
                 config["rms_norm_eps"], True, frequencies)


def read(path):
    return read_folder(path) if os.path.isdir(path) else read_gguf(path)


# ---- the pass ----

def norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, frequencies, halves):
    """x: [token][head][head_dim]."""
    angles = np.arange(len(x))[:, None, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    out = np.empty_like(x)
    half = x.shape[-1] // 2
    first, second = (slice(0, half), slice(half, None)) if halves else (slice(0, None, 2), slice(1, None, 2))
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def attend(model, query, key, value):
    """Each [token][head][head_dim]."""
    group = model.heads // model.kv_heads
    causal = np.triu(np.full((len(query), len(query)), -np.inf), 1)
    out = np.empty_like(query)
    for head in range(model.heads):
        scores = query[:, head] @ key[:, head // group].T / np.sqrt(model.head_dim) + causal
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ value[:, head // group]
    return out.reshape(len(query), -1)


def forward(model, tokens):
    """Logits after each token: [token][vocabulary]."""
    w = model.weights
    x = w["token_embd.weight"][tokens].astype(np.float64)
    for layer in range(model.layers):
        def times(name, values):
            full = f"blk.{layer}.{name}"
            product = values @ w[f"{full}.weight"].T.astype(np.float64)
            return product + w[f"{full}.bias"] if f"{full}.bias" in w else product

        def heads(name, values, count):
            return times(name, values).reshape(len(tokens), count, model.head_dim)

        normed = norm(x, w[f"blk.{layer}.attn_norm.weight"], model.epsilon)
        query = rotate(heads("attn_q", normed, model.heads), model.frequencies, model.halves)
        key = rotate(heads("attn_k", normed, model.kv_heads), model.frequencies, model.halves)
        x = x + times("attn_output", attend(model, query, key, heads("attn_v", normed, model.kv_heads)))
        normed = norm(x, w[f"blk.{layer}.ffn_norm.weight"], model.epsilon)
        gate = times("ffn_gate", normed)
        x = x + times("ffn_down", gate / (1 + np.exp(-gate)) * times("ffn_up", normed))
    x = norm(x, w["output_norm.weight"], model.epsilon)
    return x @ w.get("output.weight", w["token_embd.weight"]).T.astype(np.float64)


def greedy(model, tokens, count):
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(forward(model, tokens)[-1].argmax()))
    return tokens


# ---- how far apart ----

def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(expected, found):
    """Kullback-Leibler, of each row."""
    expected, found = log_softmax(expected), log_softmax(found.astype(np.float64))
    return (np.exp(expected) * (expected - found)).sum(axis=-1)
