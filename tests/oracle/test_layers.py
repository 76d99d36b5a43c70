#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what a consumer acquires of a lazy load or a window is what a whole load of the same model has there.

Method: compare_layers over small models made here: layers whose tensors are of all types that are converted, in a
shuffled file, with holes, in safetensors, in shards; and over SmolLM2 where it lies.

    test_layers.py COMPARE_LAYERS [--models FOLDER]

FOLDER: where SmolLM2-135M-Instruct.Q4_1.gguf lies (else TUNDISH_MODELS, else the cache of ./demo)."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

try:
    import numpy as np  # make_models needs it
except ImportError as problem:
    print(f"skipped: {problem}; ./check brings numpy")
    sys.exit(77)

import make_models
from outcome import finish, report

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS = 5
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
# What compare_layers does with a model: 4 types, 3 engines, 6 ways, in order and by threads.
WALKS = 4 * 3 * 6 * 2
QUANTS = ("Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "BF16",
          "F16", "F32", "I8")


def layered(kinds, name):
    """Layers that have something of each kind, no two of the same size; name: how a tensor of a layer is called."""
    tensors = []
    for layer in range(LAYERS):
        for number, kind in enumerate(kinds):
            tensors.append((name.format(layer, number), kind, (3 + layer + number, 4096)))
    return tensors


def make(folder):
    """The models to look at."""
    def at(file_name):
        return os.path.join(folder, file_name)

    def shuffled(tensors):
        return np.random.default_rng(7).permutation(len(tensors)).tolist()

    blocks = layered(QUANTS, "blk.{}.t{}.weight")
    whole = [("token_embd.weight", "Q6_K", (64, 4096))] + blocks + [("output_norm.weight", "F32", (4096,)),
                                                                   ("output.weight", "Q4_1", (65, 4096))]
    make_models.write_gguf(at("quants.gguf"), whole)
    make_models.write_gguf(at("shuffled.gguf"), whole, order=shuffled(whole), hole=5000)
    make_models.write_gguf(at("only-layers.gguf"), blocks)
    plain = layered(("F32", "BF16", "F16", "U8", "F8_E4M3"), "model.layers.{}.t{}")
    ends = [("model.embed_tokens.weight", "BF16", (64, 4096)), ("lm_head.weight", "F32", (33, 4096))]
    make_models.write_safetensors(at("shuffled.safetensors"), plain + ends, order=shuffled(plain + ends), pad=3)
    paths = [at(name) for name in ("quants.gguf", "shuffled.gguf", "only-layers.gguf", "shuffled.safetensors")]

    shards = os.path.join(folder, "shards")
    os.mkdir(shards)
    weight_map = {}
    for number, part in enumerate((plain[0::2] + ends[:1], plain[1::2] + ends[1:]), 1):  # each layer is in both
        name = f"model-0000{number}-of-00002.safetensors"
        make_models.write_safetensors(os.path.join(shards, name), part)
        weight_map.update({tensor[0]: name for tensor in part})
    with open(os.path.join(shards, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)
    return paths + [os.path.join(shards, "model.safetensors.index.json")]


def test_model(compare_layers, path, tokens, walks):
    done = subprocess.run([compare_layers, path, str(tokens)], capture_output=True, text=True, check=False)
    found = SUMMARY.search(done.stdout)
    title = os.path.basename(path)
    if done.returncode or not found:
        report(title, [f"exit {done.returncode}: {(done.stdout + done.stderr).strip()[:1000]}"])
        return
    passed, failed, skipped = map(int, found.groups())
    refused = {line for line in done.stdout.splitlines() if line.startswith("skipped: ")}
    # An engine that is refused takes its walks with it.
    if failed or passed + skipped * 5 * 2 != walks or not passed:
        report(title, [f"{passed} walks of {walks}: {done.stdout.strip()[:1000]}"])
    else:
        report(title, [])
    for line in sorted(refused):
        report(title, [], line.removeprefix("skipped: "))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("compare_layers")
    parser.add_argument("--models", default=os.environ.get("TUNDISH_MODELS") or
                        os.path.expanduser("~/.cache/tundish/models"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tundish-layers-") as folder:
        for path in make(folder):
            test_model(arguments.compare_layers, path, 2, WALKS)
    smollm2 = os.path.join(arguments.models, SMOLLM2)
    if os.path.exists(smollm2):
        test_model(arguments.compare_layers, smollm2, 1, WALKS)
    else:
        report(SMOLLM2, [], f"not in {arguments.models}; ./demo brings it")
    return finish()


if __name__ == "__main__":
    sys.exit(main())
