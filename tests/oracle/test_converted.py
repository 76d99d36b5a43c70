#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what `tundish digest --dtype` says of a model is what independent readers make of the same file, bit for bit.

Method: the packages gguf and numpy decode each tensor in F32 (F64 for F64 tensors) and round once; a NaN becomes the
canonical one. Types that are not converted must keep their bytes. Each model is loaded as F16, BF16 and F32 on every
engine, with long and short reads.

    test_converted.py TUNDISH [--models FOLDER] [--stories FOLDER]     as test_digest.py; every GGUF in FOLDER"""
import argparse
import glob
import os
import sys
import tempfile

import test_digest as digest  # says what is missing, and skips

import gguf
import make_models
import numpy as np
from outcome import finish, report

MODES = [
    [],
    ["--engine", "uring", "--direct", "on"],
    ["--engine", "threads", "--direct", "off", "--chunk", "64K"],
    ["--engine", "mmap"],
]
TARGETS = {"f16": "F16", "bf16": "BF16", "f32": "F32"}
SAFETENSORS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
# The package lacks these decoders; tests/oracle/test_dequant.py compares them with others.
WITHOUT = {"Q1_0", "Q2_0", "Q8_1", "Q8_K"}


def bits_of_bf16(values):
    """From F32 or F64 to the nearest, ties to even, in one step."""
    single = values.astype(np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    if values.dtype == np.float64:
        # Where F32 has landed on the middle between two results, the F64 says on which side of it the value was.
        middle = (bits & 0xFFFF) == 0x8000
        further = np.abs(values) > np.abs(single.astype(np.float64))
        nearer = np.abs(values) < np.abs(single.astype(np.float64))
        rounded = np.where(middle & further, (bits >> 16) + 1, rounded)
        rounded = np.where(middle & nearer, bits >> 16, rounded)
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def packed(values, target):
    """Decoded values as the bytes of the type asked for."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if target == "BF16":
            return bits_of_bf16(values).tobytes()
        if target == "F16":
            return np.where(np.isnan(values), 0x7E00, values.astype(np.float16).view(np.uint16)).astype(
                np.uint16).tobytes()
        return np.where(np.isnan(values), 0x7FC00000, values.astype(np.float32).view(np.uint32)).astype(
            np.uint32).tobytes()


def decode_e4m3(raw):
    """OCP E4M3: bias 7, no infinity, NaN where all of exponent and mantissa are ones."""
    byte = np.frombuffer(raw, np.uint8).astype(np.int32)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    value = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0**(exponent - 10.0))
    value = np.where((byte & 127) == 127, np.nan, value)
    return np.where(byte >> 7, -value, value).astype(np.float32)


def decode(dtype, raw):
    """A tensor's values, or None where its type is not converted."""
    if dtype == "BF16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return decode_e4m3(raw)
    if dtype == "F8_E5M2":
        return (np.frombuffer(raw, np.uint8).astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype in SAFETENSORS:
        values = np.frombuffer(raw, SAFETENSORS[dtype])
        return values.astype(np.float32) if dtype == "F16" else values
    kind = getattr(gguf.GGMLQuantizationType, dtype, None)
    if kind is None or dtype in WITHOUT or dtype.startswith("I") and dtype[1:].isdigit():
        return None
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(np.frombuffer(raw, np.uint8), kind).reshape(-1)


def element_bytes(target):
    return 4 if target == "F32" else 2


def expected(path, tensors):
    """{target: {name: what the digest must say}} and the names left out."""
    answers, skipped = {target: {} for target in TARGETS.values()}, set()
    with open(path, "rb") as file:
        for name, tensor in tensors.items():
            file.seek(tensor["offset"])
            raw = file.read(tensor["bytes"])
            if tensor["dtype"] in WITHOUT:
                skipped.add(name)
                continue
            values = decode(tensor["dtype"], raw) if raw else np.zeros(0, np.float32)
            for target, answer in answers.items():
                keeps = values is None or tensor["dtype"] == target
                data = raw if keeps else packed(values, target)
                answer[name] = {"dtype": tensor["dtype"] if keeps else target, "shape": tensor["shape"],
                                "bytes": len(data), "sha256": digest.sha256(data)}
    return answers, skipped


def empty_keeps_nothing(answers, tensors):
    """A tensor without bytes has a type all the same, which only the command knows to be convertible or not."""
    for answer in answers.values():
        for name in [name for name, tensor in tensors.items() if not tensor["bytes"] and name in answer]:
            del answer[name]


def test_model(tundish, path):
    found, _ = digest.references(path)
    if not found:
        return
    tensors = found[0][1]
    answers, skipped = expected(path, tensors)
    empty_keeps_nothing(answers, tensors)
    for word, target in TARGETS.items():
        for mode in MODES:
            title = " ".join([os.path.basename(path), "digest --dtype", word] + mode)
            code, ours, sentence = digest.run(tundish, ["digest", path, "--json", "--dtype", word] + mode)
            if ours is None:
                reason = digest.excuse(path, mode) if code == digest.EXIT_RESOURCE else None
                report(title, [f"exit {code}: {sentence}"], reason)
                continue
            known = [tensor for tensor in ours["tensors"] if tensor["name"] in answers[target]]
            report(title, digest.compare(known, answers[target], ["dtype", "shape", "bytes", "sha256"]))
    if skipped:
        print(f"{os.path.basename(path)}: {len(skipped)} tensors of types that the package cannot decode are left out")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tundish")
    parser.add_argument("--models")
    parser.add_argument("--stories")
    arguments = parser.parse_args()
    models, stories = digest.folders(arguments)

    with tempfile.TemporaryDirectory(prefix="tundish-oracle-") as folder:
        make_models.make(folder)
        for path in sorted(glob.glob(os.path.join(folder, "*.gguf")) +
                           glob.glob(os.path.join(folder, "*.safetensors"))):
            test_model(arguments.tundish, path)

    for path in digest.stories260k(stories):
        test_model(arguments.tundish, path)
    real = glob.glob(os.path.join(models, "*.gguf")) + glob.glob(os.path.join(models, "*.safetensors"))
    for path in sorted(real):
        test_model(arguments.tundish, path)
    if not real:
        report("SmolLM2-135M-Instruct", [], f"not in {models}; ./demo brings it")

    return finish()


if __name__ == "__main__":
    sys.exit(main())
