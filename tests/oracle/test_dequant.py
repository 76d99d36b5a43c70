#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: every GGML block format decodes to what independent readers make of it, bit for bit, in each variant.

Method: random blocks, blocks with extreme scales, and quantised normals go through each kernel; the packages gguf and,
for what it lacks, libgguf decode the same to F32, which numpy rounds to F16 and BF16. NaNs are made canonical. Formats
that no package has are told here in numpy. The codebooks in the sources are what scripts/quant_grids.py writes.

    test_dequant.py RUN_KERNEL"""
import os
import subprocess
import sys

try:
    import gguf
    import numpy as np
    from gguf import quants
except ImportError as problem:
    print(f"skipped: {problem}; ./check brings the packages gguf and numpy")
    sys.exit(77)

try:
    import libgguf
except ImportError:
    libgguf = None

from outcome import finish, report

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Elements and bytes of a block.
FORMATS = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q8_1": (32, 36),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "Q8_K": (256, 292), "IQ1_S": (256, 50), "IQ1_M": (256, 56), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82), "IQ3_XXS": (256, 98), "IQ3_S": (256, 110), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17), "NVFP4": (64, 36), "Q1_0": (128, 18), "Q2_0": (64, 18),
}
ISAS = ["c", "avx2", "avx512"]
BLOCKS = 2000
EXTREME_HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0xFE00]


def q8_1(blocks):
    """d, d times the sum of the quants, quants."""
    return blocks[:, :2].copy().view(np.float16).astype(np.float32) * blocks[:, 4:].view(np.int8).astype(np.float32)


def q8_k(blocks):
    """d in F32, quants, sums of them."""
    return blocks[:, :4].copy().view(np.float32) * blocks[:, 4:260].view(np.int8).astype(np.float32)


def q2_0(blocks):
    """d, four quants a byte, lowest bits first; less one (dequantize_row_q2_0 in ggml)."""
    quant = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return scale * (quant.reshape(len(blocks), 64).astype(np.float32) - np.float32(1))


TOLD_HERE = {"Q8_1": q8_1, "Q8_K": q8_k, "Q2_0": q2_0}


def reference(name, blocks):
    """The values in F32, or why there are none."""
    if name in TOLD_HERE:
        return TOLD_HERE[name](blocks), None
    try:
        return quants.dequantize(blocks, gguf.GGMLQuantizationType[name]), None
    except (KeyError, NotImplementedError):
        pass
    if libgguf is None:
        return None, "the package gguf lacks it, and libgguf is not there"
    return libgguf.dequantize_rows(blocks, libgguf.GGMLQuantizationType[name]), None


def blocks_of(name):
    """Random bits; then halves on even bytes, where F16 scales lie, replaced by extreme ones; then weights."""
    elements, block_bytes = FORMATS[name]
    random = np.random.default_rng(sum(name.encode()))
    plain = random.integers(0, 256, (BLOCKS, block_bytes), dtype=np.uint8)
    extreme = random.integers(0, 256, BLOCKS * block_bytes // 2 * 2, dtype=np.uint8)
    halves = extreme.view(np.uint16)
    chosen = random.random(halves.size) < 0.25
    halves[chosen] = random.choice(np.array(EXTREME_HALVES, np.uint16), chosen.sum())
    parts = [plain, extreme[:BLOCKS * block_bytes].reshape(BLOCKS, block_bytes)]
    try:
        weights = random.standard_normal((BLOCKS, elements)).astype(np.float32) * np.float32(0.02)
        parts.append(quants.quantize(weights, gguf.GGMLQuantizationType[name]))
    except (KeyError, NotImplementedError):
        pass  # a format that the package only reads
    return np.concatenate(parts)


def with_canonical(bits, nan, is_nan):
    return np.where(is_nan, bits.dtype.type(nan), bits)


def rounded(values, target):
    """The bits in the target type, and how many overflowed and vanished."""
    is_nan, bits = np.isnan(values), values.view(np.uint32)
    if target == "F32":
        return with_canonical(bits, 0x7FC00000, is_nan), (0, 0)
    if target == "F16":
        halves, infinity = with_canonical(values.astype(np.float16).view(np.uint16), 0x7E00, is_nan), 0x7C00
    else:
        upper = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
        halves, infinity = with_canonical(upper.astype(np.uint16), 0x7FC0, is_nan), 0x7F80
    return halves, (int(np.sum(np.isfinite(values) & (halves & 0x7FFF == infinity))),
                    int(np.sum((values != 0) & (halves & 0x7FFF == 0))))


def compare(answer, expected, counts):
    if len(answer.stdout) != expected.nbytes:
        return [f"{len(answer.stdout)} bytes, not {expected.nbytes}"]
    problems = []
    got = np.frombuffer(answer.stdout, expected.dtype)
    different = np.flatnonzero(got != expected)
    if different.size:
        first = different[0]
        problems.append(f"{different.size} of {expected.size} differ; element {first} is {got[first]:#x}, "
                        f"not {expected[first]:#x}")
    if tuple(map(int, answer.stderr.split())) != counts:
        problems.append(f"counts are {answer.stderr.decode().strip()}, not {counts[0]} {counts[1]}")
    return problems


def test_format(run_kernel, name):
    blocks = blocks_of(name)
    values, why = reference(name, blocks)
    if values is None:
        report(name, [], why)
        return
    values = np.ascontiguousarray(values, np.float32).ravel()
    for target in ("F32", "F16", "BF16"):
        expected, counts = rounded(values, target)
        for isa in ISAS:
            title = f"{name} to {target} ({isa})"
            answer = subprocess.run([run_kernel, name, target, isa], input=blocks.tobytes(), capture_output=True,
                                    check=False)
            if answer.returncode == 77 and isa != "c":
                continue  # no such variant, or not on this processor: the tests in C tell how many
            if answer.returncode != 0:
                report(title, [f"exit {answer.returncode}: {answer.stderr.decode(errors='replace').strip()}"])
            else:
                report(title, compare(answer, expected, counts))


def test_grids():
    answer = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "quant_grids.py")], capture_output=True,
                            check=False)
    with open(os.path.join(ROOT, "src", "kernels", "quant_grids.h"), "rb") as file:
        same = file.read() == answer.stdout
    report("codebooks", [] if same else ["src/kernels/quant_grids.h is not what scripts/quant_grids.py writes"])


def main():
    test_grids()
    with np.errstate(all="ignore"):
        for name in FORMATS:
            test_format(sys.argv[1], name)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
