#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: no input that a fuzzer finds in a short while crashes, hangs or takes much memory.

Method: each target of libFuzzer from its corpus, two at a time; new inputs go to a folder that is thrown away, one that
fails is kept and printed.

    run.py SECONDS CORPUS TARGET…"""
import concurrent.futures
import os
import subprocess
import sys
import tempfile

AT_ONCE = 2
SHOWN_BYTES = 2000


def fuzz(seconds, corpus, target):
    """(what is wrong or None, the last line of its statistics)"""
    name = os.path.basename(target)
    seeds = os.path.join(corpus, name.removeprefix("fuzz_"))
    with tempfile.TemporaryDirectory(prefix="tundish-fuzz-") as found:
        done = subprocess.run([target, f"-max_total_time={seconds}", "-rss_limit_mb=512", "-timeout=5", "-max_len=4096",
                               f"-artifact_prefix={os.getcwd()}/{name}-", found, seeds],
                              capture_output=True, check=False,
                              env=dict(os.environ, UBSAN_OPTIONS="halt_on_error=1:abort_on_error=1:print_stacktrace=1"))
    text = done.stderr.decode(errors="replace")
    last = [line for line in text.splitlines() if line.startswith("Done ")]
    if done.returncode == 0:
        return None, last[-1] if last else ""
    return f"exit {done.returncode}, from {os.getcwd()}:\n{text[-SHOWN_BYTES:]}", ""


def main():
    seconds, corpus, targets = sys.argv[1], os.path.abspath(sys.argv[2]), list(map(os.path.abspath, sys.argv[3:]))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for target, (problem, words) in zip(targets, pool.map(lambda one: fuzz(seconds, corpus, one), targets)):
            failed += bool(problem)
            print(f"{os.path.basename(target)}: {problem or words}")
    print(f"{len(targets) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
