# SPDX-License-Identifier: Apache-2.0
"""Tiny models of random weights, the same one as a GGUF and as a folder of Hugging Face's."""
import json
import os

import gguf
import numpy as np
import safetensors.numpy

from reference import IN_LAYER, SHARED

# What the tests vary; in Hugging Face's words.
SIZES = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 67, "max_position_embeddings": 512,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"type": "linear", "factor": 2.5}


def head_dim_of(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def shapes(config, tied):
    width, inner = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * head_dim_of(config)
    key = config["num_key_value_heads"] * head_dim_of(config)
    result = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    if not tied:
        result["lm_head.weight"] = (config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        sizes = {"input_layernorm.weight": (width,), "self_attn.q_proj.weight": (query, width),
                 "self_attn.k_proj.weight": (key, width), "self_attn.v_proj.weight": (key, width),
                 "self_attn.o_proj.weight": (width, query), "post_attention_layernorm.weight": (width,),
                 "mlp.gate_proj.weight": (inner, width), "mlp.up_proj.weight": (inner, width),
                 "mlp.down_proj.weight": (width, inner)}
        if config["model_type"] == "qwen2":
            sizes.update({"self_attn.q_proj.bias": (query,), "self_attn.k_proj.bias": (key,),
                          "self_attn.v_proj.bias": (key,)})
        result.update({f"model.layers.{layer}.{name}": shape for name, shape in sizes.items()})
    return result


def weights(config, tied=False, seed=1):
    """{Hugging Face's name: F32}: sums of about the same size everywhere."""
    rng = np.random.default_rng(seed)
    result = {}
    for name, shape in shapes(config, tied).items():
        values = rng.standard_normal(shape)
        scale = 1.0 if len(shape) == 1 else 2.0 / np.sqrt(shape[1])
        result[name] = ((1 + 0.1 * values) if "norm" in name else scale * values).astype(np.float32)
    return result


def write_folder(folder, config, tensors):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    safetensors.numpy.save_file(tensors, os.path.join(folder, "model.safetensors"))
    return folder


def into_pairs(values, heads):
    """The order of rows that a GGUF of a llama has: an element beside the one that it turns with."""
    shape = values.shape
    return np.ascontiguousarray(values.reshape(heads, 2, -1, *shape[1:]).swapaxes(1, 2)).reshape(shape)


def gguf_name(name):
    if name in SHARED:
        return SHARED[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{IN_LAYER[rest]}"


def gguf_keys(config):
    """[(key, method of GGUFWriter, value)]."""
    arch = config["model_type"]
    keys = [("context_length", "uint32", config["max_position_embeddings"]),
            ("embedding_length", "uint32", config["hidden_size"]),
            ("block_count", "uint32", config["num_hidden_layers"]),
            ("feed_forward_length", "uint32", config["intermediate_size"]),
            ("attention.head_count", "uint32", config["num_attention_heads"]),
            ("attention.head_count_kv", "uint32", config["num_key_value_heads"]),
            ("attention.layer_norm_rms_epsilon", "float32", config["rms_norm_eps"]),
            ("rope.freq_base", "float32", config["rope_theta"])]
    if "head_dim" in config:
        keys += [("attention.key_length", "uint32", config["head_dim"]),
                 ("attention.value_length", "uint32", config["head_dim"])]
    if config.get("rope_scaling", {}).get("type") == "linear":
        keys += [("rope.scaling.type", "string", "linear"),
                 ("rope.scaling.factor", "float32", config["rope_scaling"]["factor"])]
    return [(f"{arch}.{key}", kind, value) for key, kind, value in keys]


def gguf_tensors(config, tensors):
    result = {}
    for name, values in tensors.items():
        if config["model_type"] == "llama" and ".q_proj." in name:
            values = into_pairs(values, config["num_attention_heads"])
        if config["model_type"] == "llama" and ".k_proj." in name:
            values = into_pairs(values, config["num_key_value_heads"])
        result[gguf_name(name)] = values
    return result


def write_gguf(path, arch, keys, tensors, rope_factors=None, writer_class=gguf.GGUFWriter):
    """tensors: {GGUF's name: values}."""
    writer = writer_class(path, arch)
    for key, kind, value in keys:
        getattr(writer, f"add_{kind}")(key, value)
    if rope_factors is not None:
        tensors = {"rope_freqs.weight": np.asarray(rope_factors, np.float32), **tensors}
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
