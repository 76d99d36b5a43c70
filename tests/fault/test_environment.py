#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what an environment lacks costs speed or gives one clear sentence, never wrong bytes, a hang or a crash.

Method: the built command under `deny`, which takes one thing away; its digests against those of an ordinary run.
Usage: test_environment.py TUNDISH DENY MODEL"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TUNDISH, DENY = (str(Path(p).resolve()) for p in sys.argv[1:3])
SANITIZED = os.environ.get("TUNDISH_SANITIZE", "none") != "none"
counts = {"passed": 0, "failed": 0, "skipped": 0}


def report(what, outcome, why=""):
    counts[outcome] += 1
    if outcome != "passed":
        print(f"{what}: {outcome}: {why}")


def evict(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def run(model, *arguments, without=None, timeout=120):
    evict(model)
    command = [TUNDISH, *arguments]
    if without:
        command = [DENY, without, *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def one_sentence(done):
    lines = done.stderr.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("tundish: ")


def check_same(what, model, expected, without, engine=None, direct=None, reason=None):
    done = run(model, "digest", model, "--json", without=without)
    if done.returncode == 77:
        return report(what, "skipped", done.stderr.strip())
    if done.returncode:
        return report(what, "failed", f"exit {done.returncode}: {done.stderr}")
    if json.loads(done.stdout) != expected:
        return report(what, "failed", "other digests")
    loaded = json.loads(run(model, "load", model, "--json", without=without).stdout)
    for key, value in (("engine", engine), ("direct", direct)):
        if value is not None and loaded[key] != value:
            return report(what, "failed", f"{key} is {loaded[key]}, not {value}")
    if reason and not any(reason in r for r in loaded["reasons"]):
        return report(what, "failed", f"no reason has '{reason}': {loaded['reasons']}")
    report(what, "passed")


def check_refused(what, model, without, exit_code, *arguments):
    if SANITIZED and without and without.startswith(("threads", "memory=")):
        return report(what, "skipped", "the sanitizer in this build needs what is taken away")
    done = run(model, *arguments, without=without)
    if done.returncode == 77:
        return report(what, "skipped", done.stderr.strip())
    if done.returncode != exit_code or not one_sentence(done):
        return report(what, "failed", f"exit {done.returncode}, not {exit_code}: {done.stderr}")
    report(what, "passed")


class Cgroup:
    """A memory cgroup of our own below the one of this process, of either version."""

    FORMS = (("/sys/fs/cgroup", "0::", "memory.max"), ("/sys/fs/cgroup/memory", ":memory:", "memory.limit_in_bytes"))

    def __init__(self, limit_bytes):
        self.folder, self.why = None, "no memory controller can be written to here"
        with open("/proc/self/cgroup", encoding="ascii") as file:
            lines = file.read().splitlines()
        for root, marker, limit in self.FORMS:
            for path in [line.split(marker, 1)[1] for line in lines if marker in line]:
                folder = f"{root}{path.rstrip('/')}/tundish-test-{os.getpid()}"
                try:
                    os.mkdir(folder)
                except OSError as error:
                    self.why = f"{folder}: {error.strerror}"
                    continue
                try:
                    with open(os.path.join(folder, limit), "r+", encoding="ascii") as file:  # the kernel made it
                        file.write(str(limit_bytes))
                    self.folder = folder
                    return
                except OSError as error:
                    self.why = f"{error.filename}: {error.strerror}"
                    os.rmdir(folder)

    def run(self, *arguments):
        def enter():
            Path(self.folder, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

        return subprocess.run([TUNDISH, *arguments], capture_output=True, text=True, timeout=120, preexec_fn=enter)

    def remove(self):
        os.rmdir(self.folder)


def check_cgroup(model, limit_bytes, exit_code, words):
    what = f"a cgroup of {limit_bytes >> 20} MiB"
    if SANITIZED:
        return report(what, "skipped", "the sanitizer in this build needs more")
    cgroup = Cgroup(limit_bytes)
    if not cgroup.folder:
        return report(what, "skipped", cgroup.why)
    evict(model)
    done = cgroup.run("load", model)
    cgroup.remove()
    if done.returncode != exit_code or words not in done.stderr:
        return report(what, "failed", f"exit {done.returncode}, not {exit_code}: {done.stderr}")
    report(what, "passed")


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # for a child that is nobody
        model = str(Path(folder) / "model.gguf")
        shutil.copyfile(sys.argv[3], model)
        os.chmod(model, 0o644)
        ordinary = run(model, "digest", model, "--json")
        expected = json.loads(ordinary.stdout)
        usual = json.loads(run(model, "load", model, "--json").stdout)
        uring, direct = usual["engine"] == "uring", usual["direct"]

        check_same("io_uring refused at set-up", model, expected, "uring-setup", "threads", None,
                   "io_uring is refused" if uring else None)
        check_same("io_uring missing", model, expected, "uring-missing", "threads")
        check_same("io_uring refused at enter", model, expected, "uring-enter", "threads", None,
                   "io_uring is refused" if uring else None)
        check_same("O_DIRECT refused at open", model, expected, "direct-open", None, False,
                   "refuses direct I/O at open" if direct else None)
        check_same("no cachestat", model, expected, "cachestat", None, direct)
        check_same("no madvise", model, expected, "madvise")
        check_same("64 KiB of memlock", model, expected, "memlock")
        check_refused("the ring demanded, refused at set-up", model, "uring-setup", 6,
                      "load", model, "--engine", "uring")
        check_refused("the ring demanded, refused at enter", model, "uring-enter", 6,
                      "load", model, "--engine", "uring")
        check_refused("direct I/O demanded, refused", model, "direct-open", 6, "load", model, "--direct", "on")
        check_refused("no eventfd", model, "eventfd", 6, "load", model)
        check_refused("no threads", model, "threads", 6, "load", model)
        check_refused("no memory for the pool", model, "memory=120000000", 6, "load", model)
        check_cgroup(model, os.path.getsize(model) // 2, 6, "are available")
        check_cgroup(model, os.path.getsize(model) + (64 << 20), 0, "")
        check_refused("a budget that is too small", model, None, 6, "load", model, "--memory", "1M")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
