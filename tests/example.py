#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: each example does what it says of itself. Method: run it as a reader would: example.py PROGRAM … MODEL"""
import os
import re
import subprocess
import sys

MODEL = sys.argv[-1]
PROGRAMS = {os.path.basename(path): path for path in sys.argv[1:-1]}
# What a good run prints.
OUTPUTS = {
    "events": r"(\d+ of \d+ layers, \d+ %\n)*ready: \d+ tensors in [\d.]+ ms\n",
    "layers": r"(layer \d+ after [\d.]+ ms, \d+ % of the bytes\n)+",
    "minimal": r"\d+ tensors at [\d.]+ GB/s\n[\w.]+: .*\n",
    "window": r"room for \d+ of \d+ layers: \d+ hits, \d+ bytes read again\n",
}


def run(name, *arguments):
    return subprocess.run([PROGRAMS[name], *arguments], capture_output=True, text=True, timeout=60, check=False)


def cases():
    yield "all are known", set(PROGRAMS) == set(OUTPUTS)
    for name, output in OUTPUTS.items():
        good, missing, empty = run(name, MODEL), run(name, MODEL + ".missing"), run(name)
        yield f"{name} does its work", good.returncode == 0 and re.fullmatch(output, good.stdout) and not good.stderr
        yield f"{name} says what is wrong", missing.returncode == 1 and MODEL + ".missing" in missing.stderr
        yield f"{name} asks for a model", empty.returncode == 1 and empty.stderr == f"{name}: which model?\n"
    named = run("minimal", MODEL, "output_norm.weight")
    yield "minimal shows a tensor by name", named.returncode == 0 and "\noutput_norm.weight: " in named.stdout
    layers = re.findall(r"^layer (\d+) ", run("layers", MODEL).stdout, re.M)
    yield "layers come in order", layers == [str(i) for i in range(len(layers))]


def main():
    failed = [name for name, good in cases() if not good]
    for name in failed:
        print(f"FAILED: {name}")
    print(f"{len(list(OUTPUTS)) * 3 + 3 - len(failed)} passed, {len(failed)} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
