#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast one core decodes GGML's block formats: ggml's own C, and our kernels beside it in the same run.

    ggml_dequant.py LIBGGML-BASE.SO [--kernels BENCH-KERNELS] [--types Q4_K,Q6_K] [--rounds N] [--json]

The library: `pip install llama-cpp-python` builds it (llama_cpp/lib/libggml-base.so). Both sides work as in a load: the
source is a block of 1 MiB that lies in the cache, the destination memory that was touched and is walked over. To F16
ggml takes two passes, here over pieces that stay in the cache in between. Rates are GB/s of output by CPU time, which
what else runs does not add to; medians."""
import argparse
import ctypes
import json
import statistics
import subprocess
import time

import numpy as np

# Type, name in ggml's functions, elements and bytes of a block.
TYPES = [
    ("Q4_0", "q4_0", 32, 18), ("Q4_1", "q4_1", 32, 20), ("Q5_0", "q5_0", 32, 22), ("Q5_1", "q5_1", 32, 24),
    ("Q8_0", "q8_0", 32, 34), ("Q2_K", "q2_K", 256, 84), ("Q3_K", "q3_K", 256, 110), ("Q4_K", "q4_K", 256, 144),
    ("Q5_K", "q5_K", 256, 176), ("Q6_K", "q6_K", 256, 210), ("IQ4_NL", "iq4_nl", 32, 18),
    ("IQ4_XS", "iq4_xs", 256, 136), ("MXFP4", "mxfp4", 32, 17), ("NVFP4", "nvfp4", 64, 36),
    ("IQ1_S", "iq1_s", 256, 50), ("IQ1_M", "iq1_m", 256, 56), ("IQ2_XXS", "iq2_xxs", 256, 66),
    ("IQ2_XS", "iq2_xs", 256, 74), ("IQ2_S", "iq2_s", 256, 82), ("IQ3_XXS", "iq3_xxs", 256, 98),
    ("IQ3_S", "iq3_s", 256, 110), ("TQ1_0", "tq1_0", 256, 54), ("TQ2_0", "tq2_0", 256, 66),
    ("Q1_0", "q1_0", 128, 18), ("Q2_0", "q2_0", 64, 18),
]
SOURCE_BYTES = 1 << 20
WALK_BYTES = 256 << 20
PIECE_ELEMENTS = 1 << 16  # of two passes; as F32 they are a quarter of the source
SAMPLE_SECONDS = 0.02


def address(array, offset=0):
    return ctypes.c_void_p(array.ctypes.data + offset)


class Walk:
    """Memory that is written from its beginning to its end, and again."""

    def __init__(self):
        self.memory = np.full(WALK_BYTES, 1, np.uint8)
        self.at = 0

    def next(self, count):
        if self.at + count > WALK_BYTES:
            self.at = 0
        self.at += count
        return address(self.memory, self.at - count)


def rate(function, output_bytes, rounds):
    function()
    rates = []
    for _ in range(rounds):
        start, times = time.process_time(), 0
        while time.process_time() - start < SAMPLE_SECONDS:
            function()
            times += 1
        rates.append(times * output_bytes / (time.process_time() - start) / 1e9)
    return statistics.median(rates)


def source_of(name, block_bytes):
    """Scales below 1, as weights have them."""
    raw = np.random.default_rng(1).integers(0, 256, SOURCE_BYTES // block_bytes * block_bytes, dtype=np.uint8)
    return (raw & 0x0F) | 0x70 if name == "MXFP4" else raw & 0x3B


def ggml_rates(ggml, walk, name, function, elements, block_bytes, rounds):
    decode, source = getattr(ggml, "dequantize_row_" + function), source_of(name, block_bytes)
    count = source.size // block_bytes * elements
    floats = np.ones(PIECE_ELEMENTS, np.float32)

    def to_f32():
        decode(address(source), walk.next(4 * count), ctypes.c_int64(count))

    def to_f16():
        for first in range(0, count, PIECE_ELEMENTS):
            piece = ctypes.c_int64(min(PIECE_ELEMENTS, count - first))
            decode(address(source, first // elements * block_bytes), address(floats), piece)
            ggml.ggml_fp32_to_fp16_row(address(floats), walk.next(2 * piece.value), piece)

    return rate(to_f32, 4 * count, rounds), rate(to_f16, 2 * count, rounds)


def our_rates(kernels, name, rounds):
    """Of the best variant that runs here."""
    command = [kernels, "--from", name, "--rounds", str(rounds), "--json"]
    answer = subprocess.run(command, capture_output=True, check=True)
    best = {line["to"]: line["output_gb_per_s"] for line in json.loads(answer.stdout)}
    return best["F32"], best["F16"]


def narrow_rate(ggml, walk, rounds):
    floats = np.random.default_rng(1).standard_normal(SOURCE_BYTES // 4).astype(np.float32)
    return rate(lambda: ggml.ggml_fp32_to_fp16_row(address(floats), walk.next(2 * floats.size),
                                                   ctypes.c_int64(floats.size)), 4 * floats.size, rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--kernels")
    parser.add_argument("--types")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ggml, walk, lines = ctypes.CDLL(arguments.library), Walk(), []
    wanted = arguments.types.split(",") if arguments.types else [line[0] for line in TYPES]

    if not arguments.json:
        print(f"ggml F32 to F16, a row of 1 MiB: {narrow_rate(ggml, walk, arguments.rounds):.2f} GB/s of input")
        print("             to F32, GB/s           to F16, GB/s")
        print("type        ggml   ours  ratio      ggml   ours  ratio")
    for name, function, elements, block_bytes in TYPES:
        if name not in wanted or not hasattr(ggml, "dequantize_row_" + function):
            continue
        theirs = ggml_rates(ggml, walk, name, function, elements, block_bytes, arguments.rounds)
        ours = our_rates(arguments.kernels, name, arguments.rounds) if arguments.kernels else (float("nan"),) * 2
        lines.append({"type": name, "ggml_f32": theirs[0], "f32": ours[0], "ggml_f16": theirs[1], "f16": ours[1]})
        if not arguments.json:
            print(f"{name:8} {theirs[0]:7.2f} {ours[0]:6.2f} {ours[0] / theirs[0]:6.1f}   "
                  f"{theirs[1]:7.2f} {ours[1]:6.2f} {ours[1] / theirs[1]:6.1f}", flush=True)
    if arguments.json:
        print(json.dumps(lines))


if __name__ == "__main__":
    main()
