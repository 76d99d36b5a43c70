#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: whatever lies in a file, the command accepts or refuses it rightly, soon, in little memory, and says where.

Method: the built command on each file of make_bad.py: exit code, exactly one line on stderr that names the file and
the offset of what is wrong, time and peak memory. Then the same files are shown to the packages gguf and safetensors;
where they judge otherwise, a decision of ours must say why.

    test_bad.py TUNDISH MEASURE [PATTERN]"""
import concurrent.futures
import fnmatch
import os
import resource
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import make_bad  # noqa: E402

SANITIZED = os.environ.get("TUNDISH_SANITIZE", "none") != "none"
SECONDS_MAX = 60 if SANITIZED else 5
PEAK_KIB_MAX = 256 << 10
SMALL_BYTES = 1024
SMALL_PEAK_KIB_MAX = 8 << 10
REFERENCE_SECONDS = 0.5  # a good file of this size takes it a hundredth
REFERENCE_BYTES_MAX = 1 << 20  # it reads every element in Python

# Where the packages judge otherwise: files, whether we accept them, why. docs/formats.md has the decisions.
DIFFERENCES = [
    ("gguf-key-utf8-bad-*", False, "keys are UTF-8"),
    ("gguf-big-endian.gguf", False, "big-endian files are recognised, and not handled"),
    ("gguf-alignment-24.gguf", True, "an alignment is a power of two or a multiple of 8"),
    ("gguf-alignment-40.gguf", True, "an alignment is a power of two or a multiple of 8"),
    ("gguf-alignment-4104.gguf", True, "an alignment is a power of two or a multiple of 8"),
    ("gguf-alignment-64-offset-32.gguf", False, "offsets are multiples of the alignment; the package trusts them"),
    ("gguf-offset-*-crooked.gguf", False, "offsets are multiples of the alignment; the package trusts them"),
    ("gguf-offset-*-wraps.gguf", False, "the package adds offsets modulo 2^64"),
    ("gguf-overlap-*", False, "tensors that overlap are malformed"),
    ("gguf-empty-beyond.gguf", False, "an empty tensor lies in the data, or at its end"),
    ("gguf-dims-*", False, "at most four dimensions"),
    ("gguf-name-65.gguf", False, "names of at most 64 bytes"),
    ("gguf-nested-*", False, "arrays are nested to a named depth"),
    ("gguf-key-empty.gguf", False, "a key has at least one byte"),
    ("gguf-bool-*", False, "truth is 0 or 1"),
    ("gguf-meta-one-too-many.gguf", False, "what is not there is not read; the package takes it for empty"),
    ("gguf-string-*length-*", False, "what is not there is not read; the package takes what there is"),
    ("gguf-array-*-one-too-many.gguf", False, "what is not there is not read; the package takes what there is"),
    ("gguf-type-9.gguf", True, "the package has 40 bytes for a block of Q8_1, GGML 36"),
    ("gguf-type-42.gguf", True, "the package is older than Q2_0"),
    ("st-json-space-first.safetensors", False, "the header begins with a brace, says its description"),
    ("st-json-feed-first.safetensors", False, "the header begins with a brace, says its description"),
    ("st-json-unknown-3145343030.safetensors", True, "1E400 is JSON, and no one asks for its value"),
    ("st-metadata-key-twice.safetensors", False, "keys that come twice are malformed"),
    ("st-dims-too-many.safetensors", False, "at most as many dimensions as the limit that has a name"),
]

counts = {"passed": 0, "failed": 0, "skipped": 0}


def report(what, outcome, why=""):
    counts[outcome] += 1
    if outcome != "passed":
        print(f"{what}: {outcome}: {why}")


def wrong(case, path, command, code, ns, peak_kib, stderr):
    """What is wrong with an answer, or None."""
    expected = case.code if command == "info" or case.load_code is None else case.load_code
    lines = stderr.splitlines()
    if code != expected:
        return f"exit {code}, expected {expected}: {stderr.strip()}"
    if ns > SECONDS_MAX * 10**9:
        return f"{ns / 1e9:.1f} s, expected at most {SECONDS_MAX}"
    if not SANITIZED and peak_kib > PEAK_KIB_MAX:
        return f"{peak_kib} KiB, expected at most {PEAK_KIB_MAX}"
    if expected == make_bad.GOOD:
        return f"stderr: {stderr.strip()}" if lines else None
    if not SANITIZED and os.path.lexists(path) and not case.make and len(case.data) <= SMALL_BYTES \
            and peak_kib > SMALL_PEAK_KIB_MAX:
        return f"{peak_kib} KiB for a file of {len(case.data)} bytes, expected at most {SMALL_PEAK_KIB_MAX}"
    if len(lines) != 1 or not lines[0].startswith("tundish: "):
        return f"expected one line on stderr, found: {stderr.strip()}"
    if case.name not in lines[0]:
        return f"the file is not named: {lines[0]}"
    if case.offset == -1 and ": byte " not in lines[0]:
        return f"no byte is named: {lines[0]}"
    if case.code == expected and case.offset not in (None, -1) and f": byte {case.offset}: " not in lines[0]:
        return f"expected byte {case.offset}: {lines[0]}"
    return None


def judge(tundish, measure, case, path):
    answers = []
    for command in ("info", "load"):
        done = subprocess.run([measure, str(SECONDS_MAX + 5), tundish, command, path], capture_output=True, check=False)
        code, ns, peak_kib = map(int, done.stdout.split())
        answers.append((command, wrong(case, path, command, code, ns, peak_kib, done.stderr.decode(errors="replace")),
                        peak_kib))
    return answers


# ---- The packages ----------------------------------------------------------------------------------------------


def read_gguf(path):
    from gguf import GGUFReader
    for tensor in GGUFReader(path).tensors:
        tensor.data.tobytes()


def read_safetensors(path):
    from safetensors import deserialize
    with open(path, "rb") as file:
        deserialize(file.read())


def accepts(read, path):
    """In a child: a reader may take all memory, or for ever."""
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            signal.setitimer(signal.ITIMER_REAL, REFERENCE_SECONDS)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            read(path)
        except BaseException:  # Rust's panics are no Exception
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def compare(cases, folder, ending, package, read):
    try:
        __import__(package)
    except ImportError as problem:
        return report(f"the package {package}", "skipped", f"{problem}")
    for case in cases:
        if not case.name.endswith(ending) or case.make or len(case.data) > REFERENCE_BYTES_MAX:
            continue
        ours, theirs = case.code == make_bad.GOOD, accepts(read, os.path.join(folder, case.name))
        known = [why for pattern, good, why in DIFFERENCES if good == ours and fnmatch.fnmatch(case.name, pattern)]
        if ours == theirs or known:
            report(f"{case.name}, {package}", "passed")
        else:
            report(f"{case.name}, {package}", "failed",
                   f"{'accepted' if ours else 'refused'} here, not by the package, and no decision says why")


def main():
    tundish, measure = map(os.path.abspath, sys.argv[1:3])
    pattern = sys.argv[3] if len(sys.argv) > 3 else "*"
    cases = [case for case in make_bad.cases() if fnmatch.fnmatch(case.name, pattern)]
    peaks = [0]
    with tempfile.TemporaryDirectory(prefix="tundish-bad-") as folder:
        paths = [make_bad.write(case, folder) for case in cases]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for case, answers in zip(cases, pool.map(lambda pair: judge(tundish, measure, *pair), zip(cases, paths))):
                for command, problem, peak_kib in answers:
                    peaks.append(peak_kib)
                    report(f"{command} {case.name}", "failed" if problem else "passed", problem)
        if not SANITIZED:
            compare(cases, folder, ".gguf", "gguf", read_gguf)
            compare(cases, folder, ".safetensors", "safetensors", read_safetensors)
    print(f"{len(cases)} files, the highest peak {max(peaks) / 1024:.1f} MiB")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
