#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the shim's test of CUDA's kernels sees what it is there to see.

Method: as test_mutants.py, for the kernels as C++ under AddressSanitizer and UBSan; the rest is linked as it was built.
The test must fail, and say what the table says.

    test_cuda_mutants.py ROOT CC CXX LIBTUNDISH [PATTERN]"""
import concurrent.futures
import fnmatch
import os
import re
import shutil
import sys
import tempfile

from mutants import CUDA_MUTANTS
from test_mutants import AT_ONCE, Missing, flags, run

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TEST = ("cuda/test_cuda_kernels.c", "support/blocks.c")
SECONDS_MAX = 120
# So that the kernels can be built with a mutant in any of them.
COPIED = ("cuda", "src/kernels")


class Tests:
    def __init__(self, root, cc, cxx, library, folder):
        self.root, self.cc, self.cxx, self.library, self.folder = root, cc, cxx, library, folder
        self.libraries = flags("check") + flags("liburing")
        self.objects = [self.compile(name, []) for name in (*TEST, "cuda/shim.cc")]

    def compile(self, name, folders):
        """A file of tests/; folders come before those of the tree."""
        target = os.path.join(folders[0] if folders else self.folder, os.path.basename(name) + ".o")
        includes = [f"-I{folder}" for path in (*folders, self.root)
                    for folder in (path, os.path.join(path, "src"))]
        compiler = [*self.cxx, "-std=c++17"] if name.endswith(".cc") else [*self.cc, "-std=c11"]
        code, text = run([*compiler, *SANITIZE, "-O1", "-D_GNU_SOURCE", "-w", "-ffp-contract=off",
                          "-fno-strict-aliasing", *includes, f"-I{self.root}/include", f"-I{self.root}/tests",
                          f"-I{self.root}/tests/cuda/shim", "-c", f"{self.root}/tests/{name}", "-o", target],
                         SECONDS_MAX)
        if code:
            raise RuntimeError(f"{name} does not build:\n{text}")
        return target

    def run(self, title, mutate):
        """(exit code or None when it found no end, what it printed), with the sources as mutate leaves them"""
        folder = os.path.join(self.folder, re.sub(r"\W", "-", title))
        for name in COPIED:
            shutil.copytree(os.path.join(self.root, name), os.path.join(folder, name))
        mutate(folder)
        kernels = self.compile("cuda/kernels.cc", [folder])
        program = os.path.join(folder, "test")
        code, text = run([*self.cxx, *SANITIZE, *self.objects, kernels, self.library, *self.libraries, "-lpthread",
                          "-ldl", "-o", program])
        if code:
            raise RuntimeError(f"the test does not link:\n{text}")
        return run([program], SECONDS_MAX)

    def judge(self, mutant):
        """What is wrong, or None."""
        title, name, old, new, words = mutant

        def mutate(folder):
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as file:
                text = file.read()
            if old not in text:
                raise LookupError(f"{name} has no {old.strip()!r} any more: mend the table")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text.replace(old, new, 1))

        try:
            code, said = self.run(title, mutate)
        except LookupError as what:
            return str(what)
        if code == 0:
            return "not seen"
        return None if re.search(words, said) else f"fails, but does not say {words}: {said[-1500:]}"


def main():
    root, cc, cxx, library = os.path.abspath(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split(), sys.argv[4]
    pattern = sys.argv[5] if len(sys.argv) > 5 else "*"
    chosen = [mutant for mutant in CUDA_MUTANTS if fnmatch.fnmatch(mutant[0], pattern)]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tundish-cuda-mutants-") as folder:
        try:
            tests = Tests(root, cc, cxx, library, folder)
        except Missing as what:
            print(f"skipped: {what}")
            return 77
        code, said = tests.run("clean", lambda _: None)
        if code != 0:
            print(f"the test fails without any mutant: exit {code}: {said[-1500:]}\n0 passed, 1 failed, 0 skipped")
            return 1
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for mutant, problem in zip(chosen, pool.map(tests.judge, chosen)):
                failed += problem is not None
                print(f"{mutant[0]}: {'failed' if problem else 'passed'}: {problem or mutant[4]}")
    print(f"{len(chosen) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
