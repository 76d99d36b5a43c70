#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the decoder's logits are those of the model.

Method: run_decoder on tokens that are given, against a forward pass in numpy of what other packages read from the same
files (reference.py): stories260K in every form, SmolLM2 whose Q4_1 became F16, tiny models of random weights for
biases, head sizes, tied embeddings and the ways to scale rotary positions. And against itself: the same bits for every
size of pieces, number of threads, engine, window and laziness.

    test_decoder.py RUN_DECODER [--models FOLDER]

FOLDER: where stories260K and SmolLM2-135M-Instruct.Q4_1.gguf lie (else TUNDISH_MODELS, else ../shared/models beside the
project, and the cache of ./demo)."""
import argparse
import os
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
import reference

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from cases import Skipped, case, finish, models_folder, skip  # noqa: E402

STORIES = "stories260K"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN = "qwen2.5-coder-0.5b-q4_k_m.gguf"
CLOSE = 0.05  # two logits nearer than this may change places
ALIKE = 0.01  # of the same sums in another order
KL_MAX = 1e-3
KL_MEAN_QUANTISED = 0.02  # activations are rounded to 8 bits too
QUANTISED_AGREE_MIN = 0.9
CHUNK = 128  # of the decoder
# SmolLM2's template with "What is the capital of France?", and some French: 64 tokens. To Qwen they
# mean something else, as good.
CHAT = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2,
        198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198, 60, 23, 39614, 1141, 552,
        28, 2618, 2828, 313, 7712, 769, 28, 2618, 2849, 1558, 28, 2618, 2849, 1558, 26261, 11708, 46767, 28, 2618,
        2849, 1558, 26261]
EXACT = ("stories260K-f32.gguf", "stories260K-f16.gguf", "stories260K-bf16.gguf",
         "split/stories260K-f32-00001-of-00003.gguf", "hf-f32", "hf-bf16", "hf-bf16-sharded")
QUANTISED = ("stories260K-q8_0.gguf", "stories260K-q4_0.gguf")

runner = None


def run(model, tokens, *options):
    """run_decoder's F32 values, a row a piece."""
    done = subprocess.run([runner, model, *options, *map(str, tokens)], capture_output=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr.decode().strip()[:300]}"
    return np.frombuffer(done.stdout, np.float32)


# ---- against numpy ----

def compare(model, tokens, quantised=False):
    expected = reference.forward(reference.read(model), tokens)
    found = run(model, tokens).reshape(len(tokens), -1)
    assert found.shape == expected.shape, f"{found.shape} logits, expected {expected.shape}"
    best = np.sort(expected, axis=-1)
    clear = best[:, -1] - best[:, -2] > CLOSE
    agree = (found.argmax(-1) == expected.argmax(-1))[clear].mean()
    kl = reference.divergence(expected, found)
    assert clear.sum() > len(tokens) // 2, f"only {clear.sum()} of {len(tokens)} tokens are clear"
    least = QUANTISED_AGREE_MIN if quantised else 1
    assert agree >= least, f"the likeliest token is the same for {agree:.3f}, expected {least}"
    assert quantised or kl.max() <= KL_MAX, f"KL up to {kl.max():.2e}, expected {KL_MAX}"
    assert kl.mean() <= KL_MEAN_QUANTISED, f"KL of {kl.mean():.2e}, expected {KL_MEAN_QUANTISED}"
    return f"top-1 {agree:.3f} of {clear.sum()} clear ones, KL mean {kl.mean():.1e}, max {kl.max():.1e}"


def check_rows(model, vocabulary):
    """Rows of the embedding as the oracle has them, bit for bit."""
    tokens = [0, 1, vocabulary // 2, vocabulary - 1]
    expected = reference.read(model).weights["token_embd.weight"][tokens]
    found = run(model, tokens, "embed=1").reshape(expected.shape)
    assert np.array_equal(found, expected), "the rows differ"


def check_start(model, tokens):
    """The known beginning of a story: the likeliest token each time."""
    told = [1]
    while len(told) < 16:
        told.append(int(run(model, told, f"piece={len(told)}").argmax()))
    assert told == tokens[:16], f"{told}, expected {tokens[:16]}"


def test_stories(folder):
    def at(name):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            raise Skipped(f"not in {folder}")
        return path

    if not os.path.isdir(folder):
        case(STORIES, lambda: at(""))
        return
    whole = at("stories260K-f32.gguf")
    greedy = reference.greedy(reference.read(whole), [1], 48)
    case("stories260K, the likeliest tokens", check_start, whole, greedy)
    noise = [1] + np.random.default_rng(5).integers(3, 512, 63).tolist()
    for name in EXACT:
        case(f"{name}, a story", lambda: compare(at(name), greedy))
        case(f"{name}, noise", lambda: compare(at(name), noise))
    for name in QUANTISED:
        case(f"{name}, a story", lambda: compare(at(name), greedy, True))
    for name in EXACT + QUANTISED:
        case(f"{name}, embedding", lambda: check_rows(at(name), 512))
        case(f"{name}, pieces and ways", lambda: check_ways(at(name)))


# ---- against itself ----

def check_ways(model):
    """Long enough for more than one of the decoder's chunks."""
    tokens = [1] + np.random.default_rng(6).integers(3, 60, CHUNK + 70).tolist()
    by_token = run(model, tokens).reshape(len(tokens), -1)
    for piece in 7, CHUNK, len(tokens):
        rows = run(model, tokens, f"piece={piece}", f"threads={1 + piece % 3}").reshape(-1, by_token.shape[1])
        ends = [min(at + piece, len(tokens)) - 1 for at in range(0, len(tokens), piece)]
        assert np.array_equal(rows, by_token[ends]), f"pieces of {piece} give other bits"
    ways = [(f"engine={engine}", f"lazy={lazy}") for engine in (1, 2, 3) for lazy in (0, 1, 2)]
    for way in ways + [("resident=280000", f"engine={engine}", f"lazy={lazy}") for engine in (1, 2, 3)
                       for lazy in (0, 2)]:
        found = run(model, tokens[:40], "piece=16", *way).reshape(-1, by_token.shape[1])
        assert np.array_equal(found, by_token[[15, 31, 39]]), f"{way} gives other bits"


# ---- made ones ----

MADE = {
    "llama": {},
    "llama of all heads": {"num_key_value_heads": 4},
    "llama, wide heads": {"head_dim": 12},
    "llama, llama3": {"rope_scaling": made.LLAMA3},
    "llama, linear": {"rope_scaling": made.LINEAR},
    "qwen2": {"model_type": "qwen2"},
    "qwen2, one key": {"model_type": "qwen2", "num_key_value_heads": 1, "rope_theta": 1e6},
    "newer rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_theta": None},
}


def llama3_factors(config):
    """What a GGUF has instead of the words."""
    head_dim = made.head_dim_of(config)
    plain = config["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
    return plain / reference.llama3(plain, config["rope_scaling"])


def test_made(folder):
    tokens = np.random.default_rng(7).integers(0, 67, 150).tolist()
    for number, (title, changes) in enumerate(MADE.items()):
        for tied in False, True:
            config = {**made.SIZES, **changes}
            tensors = made.weights(config, tied, seed=number)
            name = f"{title}, {'tied' if tied else 'untied'}"
            safe = made.write_folder(os.path.join(folder, f"{number}-{tied}"), config, tensors)
            case(f"{name}, safetensors", compare, safe, tokens)
            if config["rope_theta"] is None:
                continue
            factors = llama3_factors(config) if "llama3" in title else None
            path = made.write_gguf(f"{safe}.gguf", config["model_type"], made.gguf_keys(config),
                                   made.gguf_tensors(config, tensors), factors)
            case(f"{name}, GGUF", compare, path, tokens)
            case(f"{name}, both alike", check_alike, safe, path, tokens)


def check_alike(one, other, tokens):
    """The order in which a GGUF's rows lie changes nothing."""
    one, other = run(one, tokens), run(other, tokens)
    assert np.allclose(one, other, atol=ALIKE), f"the logits are {np.abs(one - other).max()} apart"


# ---- Real models ----

def write_f16(source, arch, path):
    """The same model, its blocks as the package decodes them."""
    reader = gguf.GGUFReader(source)
    keys = []
    for field in reader.fields.values():
        if field.name.startswith(f"{arch}."):
            kind = {gguf.GGUFValueType.UINT32: "uint32", gguf.GGUFValueType.FLOAT32: "float32"}[field.types[0]]
            keys.append((field.name, kind, field.contents()))
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        tensors[tensor.name] = values.astype(np.float16 if values.ndim == 2 else np.float32)
    made.write_gguf(path, arch, keys, tensors)


def test_real(models, name, arch, folder):
    source = os.path.join(models, name)
    if os.environ.get("TUNDISH_SANITIZE", "none") != "none":
        case(name, lambda: skip("with a sanitizer it takes minutes"))
        return
    if not os.path.exists(source):
        case(name, lambda: skip(f"not in {models}"))
        return
    path = os.path.join(folder, "f16.gguf")
    write_f16(source, arch, path)
    case(f"{name} as F16", compare, path, CHAT)
    case(f"{name} as it is", compare, source, CHAT, True)


def main():
    global runner
    parser = argparse.ArgumentParser()
    parser.add_argument("runner")
    parser.add_argument("--models")
    arguments = parser.parse_args()
    runner = arguments.runner
    test_stories(os.path.join(models_folder(arguments.models, STORIES), STORIES))
    with tempfile.TemporaryDirectory(prefix="tundish-decoder-") as folder:
        test_made(folder)
        test_real(models_folder(arguments.models, SMOLLM2), SMOLLM2, "llama", folder)
        test_real(models_folder(arguments.models, QWEN), QWEN, "qwen2", folder)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
