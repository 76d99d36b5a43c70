#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: whatever a model says of itself, the decoder computes with it or refuses it in one sentence that names the key
or the tensor.

Method: run_decoder on a tiny model with one thing wrong, as a GGUF and as a folder with config.json: a table of what is
wrong, the result and words of the sentence; then seeded changes of keys, values, shapes and names, several at once.

    test_hostile.py RUN_DECODER [SEEDS]"""
import errno
import json
import os
import random
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
try:
    import gguf
    import numpy as np
    import safetensors.numpy  # noqa: F401
except ImportError as problem:
    print(f"skipped: {problem}; ./check brings gguf, numpy and safetensors")
    sys.exit(77)

import made

MALFORMED, UNSUPPORTED, TOO_BIG, NONE = errno.EBADMSG, errno.ENOTSUP, errno.EFBIG, errno.ENOENT
SENTENCE_BYTES_MAX = 512
SECONDS_MAX = 60
ACCEPTED = {0, MALFORMED, UNSUPPORTED, TOO_BIG, errno.ENOMEM, errno.EINVAL}

counts = {"passed": 0, "failed": 0, "skipped": 0}
runner = None


def judge(title, model, codes, words=()):
    done = subprocess.run([runner, model, "1", "2", "3", "piece=2"], capture_output=True, timeout=SECONDS_MAX,
                          check=False)
    sentence = done.stderr.decode(errors="replace")
    problems = []
    if done.returncode not in codes:
        problems.append(f"exit {done.returncode}, expected {sorted(codes)}")
    if done.returncode and (sentence.count("\n") != 1 or not 1 < len(sentence) <= SENTENCE_BYTES_MAX):
        problems.append("no single sentence")
    if not done.returncode and sentence:  # of a sanitizer
        problems.append("it goes well, and says something")
    problems += [f"no '{word}' in the sentence" for word in words if word not in sentence]
    counts["failed" if problems else "passed"] += 1
    if problems:
        print(f"FAILED: {title}: {'; '.join(problems)}: {sentence.strip()[:400]}")


# ---- GGUF: [(what, changes of keys, changes of tensors, result, words)] ----

def key(name, kind, value):
    return {f"llama.{name}": (kind, value)}


Q = "blk.1.attn_q.weight"
GGUF_TABLE = [
    ("nothing", {}, {}, 0, ()),
    ("no architecture", {"general.architecture": None}, {}, MALFORMED, ("general.architecture",)),
    ("another architecture", {"general.architecture": ("string", "gpt2")}, {}, UNSUPPORTED, ("gpt2",)),
    ("an architecture that is a number", {"general.architecture": ("uint32", 1)}, {}, MALFORMED,
     ("general.architecture",)),
    ("no layers", key("block_count", "uint32", 0), {}, MALFORMED, ("llama.block_count", "is 0")),
    ("too few layers", key("block_count", "uint32", 2), {}, MALFORMED, ("blk.2.", "2 layers")),
    ("too many layers", key("block_count", "uint32", 4), {}, MALFORMED, ("blk.3.", "missing")),
    ("a billion layers", key("block_count", "uint32", 10**9), {}, TOO_BIG, ("llama.block_count", "1000000000")),
    ("layers, a string", key("block_count", "string", "3"), {}, MALFORMED, ("llama.block_count",)),
    ("layers, an array", key("block_count", "array", [3, 3]), {}, UNSUPPORTED, ("llama.block_count", "array")),
    ("layers, negative", key("block_count", "int32", -3), {}, MALFORMED, ("llama.block_count", "-3")),
    ("layers, not whole", key("block_count", "float32", 3.5), {}, MALFORMED, ("llama.block_count", "3.5")),
    ("layers, no number", key("block_count", "float32", float("nan")), {}, MALFORMED, ("llama.block_count",)),
    ("no key of layers", {"llama.block_count": None}, {}, MALFORMED, ("llama.block_count", "missing")),
    ("no width", key("embedding_length", "uint32", 0), {}, MALFORMED, ("llama.embedding_length",)),
    ("another width", key("embedding_length", "uint32", 64), {}, MALFORMED,
     ("token_embd.weight", "[67, 32]", "[67, 64]")),
    ("a width that wraps", key("embedding_length", "uint64", 2**32 + 32), {}, TOO_BIG, ("llama.embedding_length",)),
    ("zero heads", key("attention.head_count", "uint32", 0), {}, MALFORMED, ("llama.attention.head_count",)),
    ("heads that do not divide", key("attention.head_count", "uint32", 5), {}, MALFORMED, ("head_count", "5")),
    ("heads of one element", key("attention.head_count", "uint32", 32), {}, MALFORMED, ("even",)),
    ("zero heads of key and value", key("attention.head_count_kv", "uint32", 0), {}, MALFORMED, ("head_count_kv",)),
    ("heads of key and value, three", key("attention.head_count_kv", "uint32", 3), {}, MALFORMED,
     ("head_count", "multiple of the 3")),
    ("heads of key and value, left out", {"llama.attention.head_count_kv": None}, {}, MALFORMED, ("attn_k",)),
    ("heads, different by layer", key("attention.head_count_kv", "array", [2, 2, 1]), {}, UNSUPPORTED, ("array",)),
    ("wide heads", key("attention.key_length", "uint32", 16), {}, MALFORMED, ("attn_q.weight",)),
    ("heads as wide as 2^31", key("attention.key_length", "uint32", 2**31), {}, TOO_BIG, ("key_length",)),
    ("values of another size", key("attention.value_length", "uint32", 4), {}, UNSUPPORTED, ("value_length",)),
    ("an odd rotation", key("rope.dimension_count", "uint32", 7), {}, MALFORMED, ("7",)),
    ("a rotation beyond the head", key("rope.dimension_count", "uint32", 16), {}, MALFORMED, ("16",)),
    ("no context", key("context_length", "uint32", 0), {}, MALFORMED, ("llama.context_length",)),
    ("an absurd context", key("context_length", "uint64", 2**40), {}, TOO_BIG, ("llama.context_length",)),
    ("no feed-forward", key("feed_forward_length", "uint32", 0), {}, MALFORMED, ("feed_forward_length",)),
    ("another feed-forward", key("feed_forward_length", "uint32", 47), {}, MALFORMED, ("ffn_gate.weight", "[48, 32]")),
    ("another vocabulary", key("vocab_size", "uint32", 66), {}, MALFORMED, ("token_embd.weight", "[66, 32]")),
    ("no epsilon", {"llama.attention.layer_norm_rms_epsilon": None}, {}, MALFORMED, ("epsilon", "missing")),
    ("epsilon zero", key("attention.layer_norm_rms_epsilon", "float32", 0.0), {}, MALFORMED, ("epsilon",)),
    ("epsilon, no number", key("attention.layer_norm_rms_epsilon", "float32", float("nan")), {}, MALFORMED,
     ("epsilon",)),
    ("a base of zero", key("rope.freq_base", "float32", 0.0), {}, MALFORMED, ("freq_base",)),
    ("an endless base", key("rope.freq_base", "float32", float("inf")), {}, MALFORMED, ("freq_base",)),
    ("yarn", key("rope.scaling.type", "string", "yarn"), {}, UNSUPPORTED, ("yarn",)),
    ("a factor of zero", {**key("rope.scaling.type", "string", "linear"), **key("rope.scaling.factor", "float32", 0.0)},
     {}, MALFORMED, ("factor",)),
    ("no embedding", {}, {"token_embd.weight": None}, MALFORMED, ("token_embd.weight", "missing")),
    ("no final norm", {}, {"output_norm.weight": None}, MALFORMED, ("output_norm.weight", "missing")),
    ("no query", {}, {Q: None}, MALFORMED, (Q, "missing")),
    ("a query of another shape", {}, {Q: np.zeros((32, 64), np.float32)}, MALFORMED, (Q, "[32, 64]", "[32, 32]")),
    ("a query of one dimension", {}, {Q: np.zeros(1024, np.float32)}, MALFORMED, (Q, "dimensions")),
    ("a query of three dimensions", {}, {Q: np.zeros((4, 8, 32), np.float32)}, MALFORMED, (Q, "dimensions")),
    ("an empty query", {}, {Q: np.zeros((0, 32), np.float32)}, MALFORMED, (Q,)),
    ("a query of integers", {}, {Q: np.zeros((32, 32), np.int32)}, UNSUPPORTED, (Q, "I32")),
    ("a norm of two dimensions", {}, {"output_norm.weight": np.zeros((1, 32), np.float32)}, MALFORMED,
     ("output_norm.weight",)),
    ("a norm that is too short", {}, {"blk.0.ffn_norm.weight": np.zeros(31, np.float32)}, MALFORMED, ("31", "32")),
    ("an embedding without rows", {}, {"token_embd.weight": np.zeros((0, 32), np.float32)}, MALFORMED,
     ("token_embd.weight",)),
    ("a head of another vocabulary", {}, {"output.weight": np.zeros((68, 32), np.float32)}, MALFORMED,
     ("output.weight", "[68, 32]")),
    ("rotation factors, too few", {}, {"rope_freqs.weight": np.ones(3, np.float32)}, MALFORMED, ("rope_freqs.weight",)),
    ("rotation factors of zero", {}, {"rope_freqs.weight": np.zeros(4, np.float32)}, 0, ()),
    ("weights that are no numbers", {}, {Q: np.full((32, 32), np.nan, np.float32)}, 0, ()),
    ("a norm nobody knows", {}, {"blk.0.attn_q_norm.weight": np.ones(8, np.float32)}, UNSUPPORTED, ("attn_q_norm",)),
    ("a bias of a llama", {}, {"blk.0.attn_q.bias": np.ones(32, np.float32)}, UNSUPPORTED, ("attn_q.bias",)),
    ("experts", {}, {"blk.0.ffn_gate_exps.weight": np.ones((2, 48, 32), np.float32)}, UNSUPPORTED, ("ffn_gate_exps",)),
    ("a layer far away", {}, {"blk.65535.attn_q.weight": np.ones((32, 32), np.float32)}, MALFORMED, ("65535",)),
]


def changed(pairs, changes):
    """A dictionary with other values, and without those whose new one is None."""
    return {name: value for name, value in {**pairs, **changes}.items() if value is not None}


class Writer(gguf.GGUFWriter):
    """Without the architecture, which the package writes by itself."""

    def add_architecture(self):
        pass


def write_gguf(path, keys, tensors):
    made.write_gguf(path, "llama", [(name, *value) for name, value in keys.items()], tensors, writer_class=Writer)


def base_gguf():
    tensors = made.gguf_tensors(made.SIZES, made.weights(made.SIZES))
    keys = {name: (kind, value) for name, kind, value in made.gguf_keys(made.SIZES)}
    return {"general.architecture": ("string", "llama"), **keys}, tensors


def test_gguf_table(folder):
    keys, tensors = base_gguf()
    for number, (title, of_keys, of_tensors, result, words) in enumerate(GGUF_TABLE):
        path = os.path.join(folder, f"{number}.gguf")
        write_gguf(path, changed(keys, of_keys), changed(tensors, of_tensors))
        judge(f"GGUF, {title}", path, {result}, words)


# ---- config.json: [(what, changes, result, words)] ----

ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}
JSON_TABLE = [
    ("nothing", {}, 0, ()),
    ("no type", {"model_type": None}, MALFORMED, ("model_type",)),
    ("another type", {"model_type": "mixtral"}, UNSUPPORTED, ("mixtral",)),
    ("a type that is a number", {"model_type": 3}, MALFORMED, ("model_type",)),
    ("a qwen2 without biases", {"model_type": "qwen2"}, MALFORMED, ("bias", "missing")),
    ("heads, a string", {"num_attention_heads": "4"}, MALFORMED, ("num_attention_heads",)),
    ("heads, an object", {"num_attention_heads": {}}, MALFORMED, ("num_attention_heads",)),
    ("heads, zero", {"num_attention_heads": 0}, MALFORMED, ("num_attention_heads",)),
    ("heads, endless", {"num_attention_heads": 1e300}, TOO_BIG, ("num_attention_heads",)),
    ("heads, half", {"num_attention_heads": 4.5}, MALFORMED, ("num_attention_heads", "4.5")),
    ("width, missing", {"hidden_size": None}, MALFORMED, ("hidden_size", "missing")),
    ("width, other", {"hidden_size": 40}, MALFORMED, ("model.embed_tokens.weight", "[67, 40]")),
    ("layers, too many", {"num_hidden_layers": 4096}, MALFORMED, ("model.layers.3.", "missing")),
    ("heads of another size", {"head_dim": 6}, MALFORMED, ("q_proj.weight", "[24, 32]")),
    ("gelu", {"hidden_act": "gelu"}, UNSUPPORTED, ("gelu",)),
    ("a sliding window", {"use_sliding_window": True}, UNSUPPORTED, ("use_sliding_window",)),
    ("half a rotation", {"partial_rotary_factor": 0.5}, UNSUPPORTED, ("partial_rotary_factor",)),
    ("half a rotation among the parameters", {"rope_parameters": {"rope_type": "default",
                                                                  "partial_rotary_factor": 0.5}}, UNSUPPORTED,
     ("partial_rotary_factor",)),
    ("parameters that are null beside a scaling that is unknown", {"rope_parameters": None,
                                                                   "rope_scaling": {"type": "yarn", "factor": 2}},
     UNSUPPORTED, ("yarn",)),
    ("rope, a number", {"rope_scaling": 4}, MALFORMED, ("rope_scaling",)),
    ("rope, no type", {"rope_scaling": {"factor": 2}}, MALFORMED, ("rope_type",)),
    ("rope, yarn", {"rope_scaling": {"rope_type": "yarn", "factor": 2}}, UNSUPPORTED, ("yarn",)),
    ("rope, dynamic", {"rope_scaling": {"type": "dynamic", "factor": 2}}, UNSUPPORTED, ("dynamic",)),
    ("rope, linear without factor", {"rope_scaling": {"type": "linear"}}, MALFORMED, ("factor", "missing")),
    ("rope, factor of zero", {"rope_scaling": {"type": "linear", "factor": 0}}, MALFORMED, ("factor",)),
    ("rope, llama3", {"rope_scaling": ROPE}, 0, ()),
    ("rope, llama3 without a context", {"rope_scaling": {**ROPE, "original_max_position_embeddings": None}}, MALFORMED,
     ("original_max_position_embeddings",)),
    ("rope, llama3 with equal factors", {"rope_scaling": {**ROPE, "high_freq_factor": 1}}, MALFORMED,
     ("high_freq_factor",)),
    ("a base that is no number", {"rope_theta": "x"}, MALFORMED, ("rope_theta",)),
]
TEXTS = [
    ("no JSON", "{", MALFORMED), ("an array", "[]", MALFORMED), ("nothing", "", MALFORMED),
    ("text behind", "{} x", MALFORMED), ("deep", "[" * 100000, MALFORMED), ("NUL", "\0", MALFORMED),
    ("too long", " " * (1 << 20) + "{}", TOO_BIG), ("not UTF-8", '{"model_type": "\udcff"}', UNSUPPORTED),
]


def test_json_table(folder):
    tensors = made.weights(made.SIZES)
    for title, changes, result, words in JSON_TABLE:
        made.write_folder(folder, changed(made.SIZES, changes), tensors)
        judge(f"config.json, {title}", folder, {result}, words)
    path = os.path.join(folder, "config.json")
    for title, text, result in TEXTS:
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        judge(f"config.json, {title}", folder, {result}, ("config.json",))
    os.remove(path)
    judge("no config.json", folder, {NONE}, ("config.json",))
    os.mkfifo(path)
    judge("a FIFO for config.json", folder, {NONE}, ("config.json",))
    os.remove(path)


# ---- seeds ----

NASTY = (0, 1, 2, 3, 5, 7, 8, 31, 33, 64, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def random_value(rng):
    kind = rng.choice(("uint32", "uint32", "int32", "uint64", "float32", "string", "bool", "array"))
    value = rng.choice(NASTY)
    return kind, {"int32": -(value % 2**31), "uint64": value << rng.choice((0, 1, 32)), "bool": True,
                  "float32": rng.choice((0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"), value / 2)),
                  "string": str(value), "array": [value % 256] * 3}.get(kind, value)


def change_gguf(rng, keys, tensors):
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.6:
            name = rng.choice(sorted(keys)[1:] + ["llama.rope.dimension_count", "llama.attention.key_length",
                                                  "llama.vocab_size", "llama.rope.scaling.factor"])
            keys[name] = random_value(rng) if rng.random() < 0.9 else None
            continue
        name = rng.choice(sorted(tensors))
        values = tensors.pop(name)
        if rng.random() < 0.3:
            name = name.replace(rng.choice(("attn", "ffn", "blk", "weight", "0")), rng.choice(("x", "1", "output")))
        if rng.random() < 0.7:
            shape = [rng.choice((0, 1, 2, 8, 31, 32, 48, 67)) for _ in range(rng.randint(1, 3))]
            values = np.zeros(shape, rng.choice((np.float32, np.float16, np.int8)))
        tensors[name] = values


def test_gguf_seeds(folder, seeds):
    for seed in range(seeds):
        rng = random.Random(seed)
        keys, tensors = base_gguf()
        change_gguf(rng, keys, tensors)
        path = os.path.join(folder, "seed.gguf")
        write_gguf(path, changed(keys, {}), tensors)
        judge(f"GGUF, seed {seed}", path, ACCEPTED)


def test_json_seeds(folder, seeds):
    tensors = made.weights(made.SIZES)
    for seed in range(seeds):
        rng = random.Random(seed)
        config = {**made.SIZES, "rope_scaling": dict(ROPE)}
        for _ in range(rng.randint(1, 3)):
            rope = config["rope_scaling"]
            place = rope if rng.random() < 0.3 and isinstance(rope, dict) else config
            place[rng.choice(sorted(place))] = rng.choice(NASTY + (-1, 0.5, 1e308, None, "x", [], {}, True))
        made.write_folder(folder, config, tensors)
        text = json.dumps(config)
        if rng.random() < 0.2:
            at = rng.randrange(len(text))
            with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
                file.write(text[:at] + rng.choice('{}[]",:0') + text[at + rng.randint(0, 3):])
        judge(f"config.json, seed {seed}", folder, ACCEPTED)


def main():
    global runner
    runner = sys.argv[1]
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory(prefix="tundish-hostile-") as folder:
        test_gguf_table(folder)
        test_gguf_seeds(folder, seeds)
        folder = os.path.join(folder, "folder")
        test_json_table(folder)
        test_json_seeds(folder, seeds)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
