#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the tests see what they are there to see.

Method: src/ is copied and built once, and each test below passes there. Then one line after the other is replaced by a
bug that somebody could write; the named test must fail or crash where the table says so, or find no end where it says
that. Some are built a second time with ThreadSanitizer, which must see a race. A table that no longer fits the sources
fails too, so that it is kept.

    test_mutants.py ROOT [CC [PATTERN]]"""
import concurrent.futures
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from mutants import MUTANTS

CLEAN_SECONDS_MAX = 300
# A mutant finds no end when it takes so many times as long as the same test without one, and this besides.
ENDLESS, ENDLESS_SECONDS = 4, 10
TSAN = "-fsanitize=thread"
LINK = {"unit/test_cache.c": ["-Wl,--wrap=tnd_memory_available"]}
AT_ONCE = 2
SUPPORT = ("support/devices.c", "support/gguf_file.c", "support/known_file.c", "support/late.c",
           "support/layers_file.c", "support/streams.c", "sim/sim.c")
# On the tests' own CUDA, where its headers are; else what stands in for all of it.
CUDA = ("cuda/buffers.c", "cuda/device_cuda.c", "cuda/service.c")
FAKE_CUDA = ("support/fake_cuda.c", "support/fake_nvtx.c")
NO_CUDA = ("cuda/stub.c",)


class Missing(Exception):
    pass


def flags(package):
    done = subprocess.run(["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"pkg-config knows no {package}")
    return done.stdout.split()


def cuda_include():
    """Where CUDA's headers are, as cuda/meson.build looks for them; None."""
    nvcc = shutil.which("nvcc")
    for home in (os.environ.get("CUDA_HOME"), nvcc and os.path.join(os.path.dirname(os.path.realpath(nvcc)), ".."),
                 "/usr/local/cuda"):
        if home and os.path.exists(os.path.join(home, "include/cuda_runtime_api.h")):
            return os.path.join(home, "include")
    return None


def run(command, seconds=120):
    """(exit code or None when it found no end, what it printed)"""
    environment = dict(os.environ, CK_FORK="no", TSAN_OPTIONS="halt_on_error=1")
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
                              env=environment)
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace")


class Tree:
    """A copy of the sources, built by one command a file."""

    def __init__(self, root, cc, folder, races=False):
        os.makedirs(folder)
        self.root, self.cc, self.folder, self.races = root, cc + [TSAN] * races, folder, races
        self.libraries = flags("liburing") + ["-lpthread"]
        self.check = flags("check")
        self.source = os.path.join(folder, "src")
        shutil.copytree(os.path.join(root, "src"), self.source)
        with open(os.path.join(self.source, "meson.build"), encoding="utf-8") as file:
            listed = re.search(r"tundish_sources = files\((.*?)\n\)", file.read(), re.S).group(1)
        self.names = re.findall(r"'([\w/]+\.c)'", listed)
        self.cuda = cuda_include()
        self.flags = ["-DTND_TEST_CUDA", f"-I{root}/cuda", "-isystem", self.cuda] if self.cuda else []
        self.outside = SUPPORT + (CUDA + FAKE_CUDA if self.cuda else NO_CUDA)
        self.objects = {name: self.object(name) for name in (*self.names, *self.outside)}
        self.lock = threading.Lock()
        self.clean = {}

    def object(self, name):
        return os.path.join(self.folder, name.replace("/", "_") + ".o")

    def path(self, name):
        """Of the library, of its device, or of what tests share."""
        if name in CUDA + NO_CUDA:
            return os.path.join(self.root, name)
        return os.path.join(self.root, "tests", name) if name in self.outside else os.path.join(self.source, name)

    def compile(self, source, target, include):
        code, text = run([*self.cc, "-std=c11", "-O1", "-D_GNU_SOURCE", "-DTND_BUILD", "-DTND_POISON", "-w",
                          f"-I{include}", f"-I{self.root}/include", f"-I{self.root}/tests", *self.flags,
                          *self.libraries, "-c", source, "-o", target])
        if code:
            raise RuntimeError(f"{source} does not build:\n{text}")

    def run(self, target, arguments, seconds):
        # TSan's shadow memory has a fixed place, which an address space laid out at random may be in.
        return run([*["setarch", "-R"] * self.races, target, *arguments], seconds)

    def why_not(self):
        """Why nothing that is built like this runs here, or None."""
        source, target = os.path.join(self.folder, "nothing.c"), os.path.join(self.folder, "nothing")
        with open(source, "w", encoding="utf-8") as file:
            file.write("int main(void) { return 0; }\n")
        code, text = run([*self.cc, source, "-o", target])
        if code == 0:
            code, text = self.run(target, [], CLEAN_SECONDS_MAX)
        return None if code == 0 else f"ThreadSanitizer does not run here: {' '.join(text.split())[:200]}"

    def build(self):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.compile(self.path(name), self.objects[name], self.source), self.objects))

    def test_object(self, test):
        """Built once: a mutant is another object behind the same headers."""
        with self.lock:
            target = self.object(test)
            if not os.path.exists(target):
                self.compile(os.path.join(self.root, "tests", test), target, self.source)
            return target

    def link(self, test, objects, target):
        code, text = run([*self.cc, self.test_object(test), *objects, *self.check, *self.libraries,
                          *LINK.get(test, []), "-ldl", "-o", target])
        if code:
            raise RuntimeError(f"{test} does not link:\n{text}")

    def try_clean(self, seen):
        """Keeps whether the test passes without any mutant, what it said, and how many seconds a mutant may take."""
        target = os.path.join(self.folder, "clean-" + os.path.basename(seen.test)[:-2])
        self.link(seen.test, self.objects.values(), target)
        start = time.monotonic()
        code, said = self.run(target, seen.arguments, CLEAN_SECONDS_MAX)
        self.clean[seen.test] = code, said, ENDLESS_SECONDS + ENDLESS * (time.monotonic() - start)


def judge(tree, number, mutant):
    """(what is wrong or None, why it was skipped or None)"""
    _, name, old, new, seen = mutant
    test, words = seen.test, seen.words
    if name in CUDA and not tree.cuda:
        return None, "the headers of CUDA are not here"
    with open(tree.path(name), encoding="utf-8") as file:
        text = file.read()
    if text.count(old) < 1:
        return f"{name} has no {old.strip()!r} any more: mend the table", None
    code, said, seconds = tree.clean[test]
    if code == 77 or (code == 0 and re.search(rf"{words.strip(':')}.*skipped: |skipped: .*{words.strip(':')}", said)):
        return None, said.strip().splitlines()[-1]
    if code != 0:
        return f"{test} fails without it: exit {code}: {said[-500:]}", None
    source = os.path.join(tree.folder, f"mutant-{number}-{os.path.basename(name)}")
    with open(source, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new, 1))
    target = os.path.join(tree.folder, f"mutant-{number}")
    tree.compile(source, target + ".o", tree.source)
    tree.link(test, [one for which, one in tree.objects.items() if which != name] + [target + ".o"], target)
    code, said = tree.run(target, seen.arguments, seconds)
    if code == 0:
        return f"{test} does not see it", None
    if code is None and not seen.hangs:
        return f"{test} finds no end, and the table does not say so", None
    if code is not None and code > 0 and words not in said:
        return f"{test} fails, but not at {words}: {said[-500:]}", None
    return None, None


def judge_all(tree, chosen):
    """Yields a mutant, what is wrong or None, why it was skipped or None."""
    why = tree.why_not()
    if why:
        yield from ((mutant, None, why) for mutant in chosen)
        return
    tree.build()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(tree.try_clean, {mutant[4].test: mutant[4] for mutant in chosen}.values()))
        answers = pool.map(lambda pair: judge(tree, *pair), enumerate(chosen))
        for mutant, (problem, skipped) in zip(chosen, answers):
            yield mutant, problem, skipped


def main():
    root = os.path.abspath(sys.argv[1])
    cc = sys.argv[2].split() if len(sys.argv) > 2 else ["cc"]
    chosen = [mutant for mutant in MUTANTS if fnmatch.fnmatch(mutant[0], sys.argv[3] if len(sys.argv) > 3 else "*")]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory(prefix="tundish-mutants-") as folder:
        for races in (False, True):
            some = [mutant for mutant in chosen if mutant[4].races == races]
            try:
                tree = Tree(root, cc, os.path.join(folder, "races" if races else "plain"), races) if some else None
            except Missing as what:
                print(f"skipped: {what}")
                return 77
            for mutant, problem, skipped in judge_all(tree, some) if some else ():
                outcome = "failed" if problem else "skipped" if skipped else "passed"
                counts[outcome] += 1
                how = ", which finds no end" if mutant[4].hangs else ", by ThreadSanitizer" if races else ""
                print(f"{mutant[0]}: {outcome}: {problem or skipped or 'seen by ' + mutant[4].test + how}", flush=True)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
