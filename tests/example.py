#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the example does what the README says of it. Method: run it as a reader would: example.py MINIMAL MODEL"""
import re
import subprocess
import sys


def run(*arguments):
    return subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, timeout=60, check=False)


def main():
    model = sys.argv[2]
    good, named = run(model), run(model, "output_norm.weight")
    missing, empty = run(model + ".missing"), run()
    cases = [
        ("loads", good.returncode == 0 and re.match(r"\d+ tensors at [\d.]+ GB/s\n[\w.]+: ", good.stdout)),
        ("shows a tensor by name", named.returncode == 0 and "\noutput_norm.weight: " in named.stdout),
        ("says what is wrong", missing.returncode == 1 and model + ".missing" in missing.stderr),
        ("asks for a model", empty.returncode == 1 and empty.stderr.count("\n") == 1),
    ]
    for name, good in cases:
        if not good:
            print(f"FAILED: the example {name}")
    failed = sum(not good for _, good in cases)
    print(f"{len(cases) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
