#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: each kernel between float formats gives what numpy gives.

Method: all values of the types of 8 and 16 bits, and millions of F32 and F64: random bits, sizes that weights have,
extremes and their neighbours. numpy has F64, F32 and F16; the values of BF16 and the F8 types are written out here as
numbers, and a BF16 is found between its neighbours among them. NaNs are made canonical on numpy's side.

    test_convert.py RUN_KERNEL [ELEMENTS]"""
import subprocess
import sys

try:
    import numpy as np
except ImportError as problem:
    print(f"skipped: {problem}; ./check brings numpy")
    sys.exit(77)

SOURCES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
BITS = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16, "F8_E4M3": np.uint8,
        "F8_E5M2": np.uint8}
NAN = {"F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}
EXTREMES = [0.0, 2.0**-14, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 1.5 * 2.0**-25, 65504.0, 65519.0, 65520.0, 65536.0,
            2.0**-126, 2.0**-133, 2.0**-134, 2.0**-149, 2.0**-150, 3.4028234663852886e38, 3.3961775292304957e38,
            2.0**127, 2.0**-1022, 5e-324, 1.7976931348623157e308, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8,
            1 + 2.0**-24, np.inf, np.nan]


def table(exponent_bits, mantissa_bits, has_infinity):
    """The numbers of all bits of a narrow format."""
    bits = np.arange(1 << (1 + exponent_bits + mantissa_bits), dtype=np.int64)
    exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    numbers = np.where(exponent == 0, np.ldexp(mantissa.astype(np.float64), 1 - bias - mantissa_bits),
                       np.ldexp((mantissa + (1 << mantissa_bits)).astype(np.float64), exponent - bias - mantissa_bits))
    last = exponent == (1 << exponent_bits) - 1
    if has_infinity:
        numbers[last] = np.where(mantissa[last] == 0, np.inf, np.nan)
    else:
        numbers[last & (mantissa == (1 << mantissa_bits) - 1)] = np.nan
    return np.where(bits >> (exponent_bits + mantissa_bits) == 1, -numbers, numbers)


TABLES = {"F16": table(5, 10, True), "BF16": table(8, 7, True), "F8_E4M3": table(4, 3, False),
          "F8_E5M2": table(5, 2, True)}


def numbers_of(name, bits):
    """Exact, as F64."""
    if name == "F64":
        return bits.view(np.float64)
    if name == "F32":
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return bits.view(np.float32).astype(np.float64)
    return TABLES[name][bits]


def bf16_of(numbers):
    """Between which two of the positive BF16 a number lies, and which is nearer; infinity stands for 2^128."""
    steps = np.append(TABLES["BF16"][:0x7F80], 2.0**128)
    sizes = np.where(np.isnan(numbers), 0, np.minimum(np.abs(numbers), 2.0**128))
    below = np.minimum(np.searchsorted(steps, sizes, side="right") - 1, 0x7F7F)
    middle = (steps[below] + steps[below + 1]) / 2
    nearest = below + ((sizes > middle) | ((sizes == middle) & (below % 2 == 1)))
    return (nearest + np.where(np.signbit(numbers), 0x8000, 0)).astype(np.uint16)


def expected_of(name, numbers):
    with np.errstate(all="ignore"):
        if name == "BF16":
            bits = bf16_of(numbers)
        elif name == "F16":
            bits = numbers.astype(np.float16).view(np.uint16)
        else:
            bits = numbers.astype(np.float32).view(np.uint32)
    return np.where(np.isnan(numbers), NAN[name], bits).astype(BITS[name])


def count(name, numbers, bits):
    results = np.abs(numbers_of(name, bits))
    finite = np.isfinite(numbers)
    return int(np.sum(finite & np.isinf(results))), int(np.sum((numbers != 0) & ~np.isnan(numbers) & (results == 0)))


def source_bits(name, elements):
    kind = BITS[name]
    width = 8 * np.dtype(kind).itemsize
    if width <= 16:
        return np.arange(1 << width, dtype=np.uint32).astype(kind)
    real = np.float32 if name == "F32" else np.float64
    random = np.random.default_rng(20)
    with np.errstate(all="ignore"):
        sizes = np.ldexp(random.standard_normal(elements), random.integers(-40, 20, elements)).astype(real)
        extremes = np.array(EXTREMES).astype(real)
        extremes = np.concatenate([extremes, np.nextafter(extremes, real(0)), np.nextafter(extremes, real(np.inf))])
    anything = random.integers(0, (1 << width) - 1, elements, dtype=kind, endpoint=True)
    return np.concatenate([anything, sizes.view(kind), extremes.view(kind), (-extremes).view(kind)])


def check(run_kernel, names, bits, expected, counts):
    """None, or what is wrong."""
    answer = subprocess.run([run_kernel, *names], input=bits.tobytes(), capture_output=True, timeout=300, check=False)
    if answer.returncode != 0:
        return f"exit {answer.returncode}: {answer.stderr.decode(errors='replace').strip()}"
    got = np.frombuffer(answer.stdout, BITS[names[1]])
    if len(got) != len(expected):
        return f"{len(got)} elements, not {len(expected)}"
    wrong = np.flatnonzero(got != expected)
    if len(wrong):
        at = wrong[0]
        return f"{len(wrong)} differ: {int(bits[at]):#x} became {int(got[at]):#x}, not {int(expected[at]):#x}"
    if tuple(map(int, answer.stderr.split())) != counts:
        return f"counts {answer.stderr.decode().strip()}, not {counts[0]} {counts[1]}"
    return None


def main():
    run_kernel = sys.argv[1]
    elements = int(sys.argv[2]) if len(sys.argv) > 2 else 2000000
    listing = subprocess.run([run_kernel], capture_output=True, text=True, check=True).stdout.split("\n")
    kernels = [tuple(line.split()) for line in listing if line]
    passed = failed = 0
    for source in SOURCES:
        bits = source_bits(source, elements)
        numbers = numbers_of(source, bits)
        for target in NAN:
            if target == source:
                continue
            expected = expected_of(target, numbers)
            counts = count(target, numbers, expected)
            ours = [names for names in kernels if names[:2] == (source, target)]
            problems = [] if ours else ["no kernel"]
            for names in ours:
                problem = check(run_kernel, names, bits, expected, counts)
                problems += [f"{names[2]}: {problem}"] if problem else []
            passed += not problems
            failed += bool(problems)
            for problem in problems:
                print(f"FAILED: {source} to {target}: {problem}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
