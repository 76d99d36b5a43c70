#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the model of the tests that need any model of some size: write_model.py PATH"""
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
sys.dont_write_bytecode = True
import models  # noqa: E402

LAYERS = 6


def main():
    models.filler = lambda name, count: random.Random(name).randbytes(count)  # no block like another
    tensors = [("token_embd.weight", models.GGML_F16, (4096, 1024))]
    for layer in range(LAYERS):
        tensors += [(f"blk.{layer}.attn_norm.weight", models.GGML_F32, (1024,)),
                    (f"blk.{layer}.attn_q.weight", models.GGML_F32, (1024, 1024)),
                    (f"blk.{layer}.ffn_up.weight", models.GGML_Q8_0, (2048, 1024))]
    tensors += [("output_norm.weight", models.GGML_F32, (1024,))]
    models.write_gguf(sys.argv[1], tensors, [("general.architecture", models.STRING, "llama")])


if __name__ == "__main__":
    main()
