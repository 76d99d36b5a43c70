#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: products with weights as they lie in the file are what independent readers make of them.

Method: weights that the package gguf has quantised, and random blocks, are multiplied in each variant; the same package
decodes them, numpy multiplies in F64. First with the activations rounded as worker/kernels/dot.h says, which leaves
what sums in F32 lose; then as they are, with what rounding them to eight bits may cost at most, and does cost on
average.

    test_matrix.py RUN_MATRIX"""
import subprocess
import sys

try:
    import gguf
    import numpy as np
    from gguf import quants
except ImportError as problem:
    print(f"skipped: {problem}; ./check brings the packages gguf and numpy")
    sys.exit(77)

from outcome import finish, report

BLOCKS = {  # columns and bytes of a block
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "MXFP4": (32, 17),
    "TQ2_0": (256, 66), "IQ3_S": (256, 110),
}
WITH_F32 = {"F32", "F16", "BF16", "TQ2_0", "IQ3_S"}  # activations as they are; all others: rounded
VARIANTS = ["c", "avx2", "avxvnni", "avx512"]
ROWS, COUNT, GROUP = 23, 6, 32
EPSILON = np.finfo(np.float32).eps


def weights_of(name, columns, random):
    """(blocks, their values in F64) [rows][columns], twice: of normals, and of bits at random with tame scales."""
    kind = gguf.GGMLQuantizationType[name]
    normal = (random.standard_normal((ROWS, columns)) * 0.02).astype(np.float32)
    try:
        yield quants.quantize(normal, kind)
    except NotImplementedError:
        pass  # a format that the package only reads
    if name in ("F32", "F16", "BF16"):
        return
    blocks = random.integers(0, 256, (ROWS, columns // BLOCKS[name][0] * BLOCKS[name][1]), dtype=np.uint8)
    if name == "MXFP4":
        blocks = (blocks & 0x0F) | 0x70
    yield blocks & np.uint8(0xBB)  # no half has all bits of its exponent


def rounded(x):
    """Activations as integers of eight bits and a scale for each 32 of them."""
    groups = x.reshape(COUNT, -1, GROUP)
    largest = np.abs(groups).max(axis=2, keepdims=True)
    quant = np.rint(groups * (np.float32(127) / largest))
    return (quant.astype(np.float64) * (largest / np.float32(127)).astype(np.float64)).reshape(x.shape)


def compare(title, got, x, values, bound):
    """bound: for each activation, how far off it may be."""
    exact = x.astype(np.float64) @ values.T
    allowed = bound @ np.abs(values).T + np.abs(x.astype(np.float64)) @ np.abs(values).T * 40 * EPSILON
    wrong = np.argwhere(~(np.abs(got - exact) <= allowed))
    report(title, [f"[{t}][{row}] is {got[t, row]}, not {exact[t, row]}" for t, row in wrong])


def test_blocks(run_matrix, name, columns, blocks, x):
    values = quants.dequantize(blocks, gguf.GGMLQuantizationType[name]).astype(np.float64).reshape(ROWS, columns)
    largest = np.abs(x).reshape(COUNT, -1, GROUP).max(axis=2).repeat(GROUP, axis=1).astype(np.float64)
    for variant in VARIANTS:
        title = f"{name}, {columns} columns ({variant})"
        answer = subprocess.run([run_matrix, name, str(ROWS), str(columns), str(COUNT), variant],
                                input=blocks.tobytes() + x.tobytes(), capture_output=True, check=False)
        if answer.returncode == 77 and variant != "c":
            continue  # not on this processor
        if answer.returncode != 0 or len(answer.stdout) != COUNT * ROWS * 4:
            report(title, [f"exit {answer.returncode}: {answer.stderr.decode(errors='replace').strip()}"])
            continue
        got = np.frombuffer(answer.stdout, np.float32).reshape(COUNT, ROWS).astype(np.float64)
        if name in WITH_F32:
            compare(title, got, x, values, np.zeros_like(largest))
            continue
        compare(title + " of rounded activations", got, rounded(x), values, np.zeros_like(largest))
        compare(title, got, x, values, largest * (0.5001 / 127))
        off = np.linalg.norm(got - x.astype(np.float64) @ values.T) / np.linalg.norm(np.abs(x) @ np.abs(values).T)
        report(title + " on average", [] if off < 2e-3 else [f"off by {off:.2g} of the sum of magnitudes"])


def main():
    random = np.random.default_rng(11)
    for name, (elements, _) in BLOCKS.items():
        for columns in (elements, 7 * elements, 9 * elements, 2048 + elements) if elements > 1 else (32, 800, 2080):
            x = random.standard_normal((COUNT, columns)).astype(np.float32)
            for blocks in weights_of(name, columns, random):
                test_blocks(sys.argv[1], name, columns, blocks, x)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
