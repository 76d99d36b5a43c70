#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a disk that fails, cuts short or refuses direct reads gives right bytes or one sentence with file, tensor and
offset, never a hang or wrong bytes.

Method: the built command over a file system of our own that misbehaves on purpose, on every engine.
Usage: test_faulty_disk.py TUNDISH FAULTFS MODEL COMPARE_LAYERS"""
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TUNDISH, FAULTFS = (str(Path(p).resolve()) for p in sys.argv[1:3])
SOURCE = Path(sys.argv[3]).resolve()
COMPARE_LAYERS = str(Path(sys.argv[4]).resolve())
ENGINES = ("auto", "uring", "threads", "mmap")
counts = {"passed": 0, "failed": 0, "skipped": 0}


def report(what, problem=None, skipped=None):
    counts["failed" if problem else "skipped" if skipped else "passed"] += 1
    if problem or skipped:
        print(f"{what}: {'failed' if problem else 'skipped'}: {problem or skipped}")


def run(*arguments):
    return subprocess.run([TUNDISH, *map(str, arguments)], capture_output=True, text=True, timeout=120)


class Mounted:
    """The model behind a fault."""

    def __init__(self, folder, fault):
        self.folder, self.fault = folder, fault

    def __enter__(self):
        self.server = subprocess.Popen([FAULTFS, str(SOURCE), self.fault, self.folder], stderr=subprocess.PIPE)
        for _ in range(200):
            if os.path.ismount(self.folder):
                return os.path.join(self.folder, SOURCE.name)
            if self.server.poll() is not None:
                break
            time.sleep(0.02)
        self.server.kill()
        return None

    def __exit__(self, *_):
        subprocess.run(["umount", self.folder], capture_output=True)
        try:
            self.server.wait(10)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()


def digests(done):
    return {t["name"]: t["sha256"] for t in json.loads(done.stdout)["tensors"]}


def check_same(folder, fault, expected):
    for engine in ENGINES:
        with Mounted(folder, fault) as model:
            done = run("digest", model, "--json", "--engine", engine)
            if done.returncode == 6 and engine == "mmap":  # a file system may refuse to be mapped
                report(f"{fault}, {engine}", skipped=done.stderr.strip())
            elif done.returncode or digests(done) != expected:
                report(f"{fault}, {engine}", f"exit {done.returncode}: {done.stderr.strip() or 'other digests'}")
            else:
                report(f"{fault}, {engine}")


def check_refused(folder, fault, exit_code, tensors, offsets):
    """offsets: where the sentence may put it: some reads are under way at once, and the first to fail is told. tensors:
    those that have such offsets."""
    for engine in ENGINES:
        with Mounted(folder, fault) as model:
            done = run("load", model, "--engine", engine)
            lines = [line for line in done.stderr.splitlines() if line.startswith("tundish: ")]
            what = f"{fault}, {engine}"
            if engine == "mmap" and exit_code == 3 and done.returncode == 1:
                report(what)  # a mapping only knows that the page is not to be had
            elif done.returncode != exit_code or len(lines) != 1:
                report(what, f"exit {done.returncode}, not {exit_code}: {done.stderr.strip()}")
            elif SOURCE.name not in lines[0] or not any(tensor in lines[0] for tensor in tensors):
                report(what, f"file or tensor is missing: {lines[0]}")
            elif not any(int(n) in offsets for n in re.findall(r"\d+", lines[0])):
                report(what, f"no offset in {offsets}: {lines[0]}")
            else:
                report(what)


def check_hung(folder, at):
    """The sentence must come while the disk hangs; only then does the disk go, and the process with it. It tells of the
    oldest read under way: one before the hung byte may be waiting for the kernel's read-ahead of that byte."""
    for engine in ENGINES:
        what = f"hang={at}, {engine}"
        mounted = Mounted(folder, f"hang={at}")
        model = mounted.__enter__()
        command = [TUNDISH, "load", model, "--engine", engine, "--read-timeout", "1"]
        child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                 env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))  # it leaks on purpose
        alarm = threading.Timer(60, mounted.server.kill)
        alarm.start()
        line = next((line for line in child.stderr if line.startswith("tundish: ")), "")
        late = not alarm.is_alive()
        alarm.cancel()
        mounted.server.kill()
        code = child.wait(60)
        mounted.__exit__()
        if engine == "mmap" and "cannot be mapped" in line:
            report(what, skipped=line.strip())
        elif (late or code != 1 or "has not come back" not in line or SOURCE.name not in line or
              not any(at - (16 << 20) <= int(n) <= at for n in re.findall(r" at offset (\d+)", line))):
            report(what, f"exit {code}{' after the disk was gone' if late else ''}: {line.strip()}")
        else:
            report(what)


def check_failing_once(folder, tensor):
    """In a window, a read that fails is told by the acquire of its layer alone; another try succeeds."""
    at = tensor["offset"] + tensor["bytes"] // 2
    for engine in ("uring", "threads"):
        with Mounted(folder, f"eio-once={at}") as model:
            done = subprocess.run([COMPARE_LAYERS, "--again", model, str(SOURCE), engine], capture_output=True,
                                  text=True, timeout=120)
        lines = done.stdout.splitlines()
        what = f"eio-once={at}, {engine}, a window"
        if done.returncode:
            report(what, f"exit {done.returncode}: {done.stderr.strip()}")
        elif len(lines) != 1 or not lines[0].startswith(f"layer {tensor['layer']}: "):
            report(what, f"one failure of layer {tensor['layer']} is due: {lines}")
        elif SOURCE.name not in lines[0] or tensor["name"] not in lines[0]:
            report(what, f"file or tensor is missing: {lines[0]}")
        elif not any(at - (1 << 18) < int(n) <= at for n in re.findall(r" at offset (\d+)", lines[0])):
            report(what, f"no offset of a read of {at}: {lines[0]}")
        else:
            report(what)


def main():
    info = json.loads(run("info", SOURCE, "--json").stdout)
    expected = digests(run("digest", SOURCE, "--json"))
    middle = max(info["tensors"], key=lambda t: (t["layer"], t["bytes"]))
    at = middle["offset"] + middle["bytes"] // 2
    with tempfile.TemporaryDirectory() as folder:
        with Mounted(folder, "none") as model:
            possible = model is not None and run("info", model).returncode == 0
        if not possible:
            report("a faulty disk", skipped="FUSE cannot be mounted here")
        else:
            for fault in ("none", "short", "no-direct", "no-direct-read"):
                check_same(folder, fault, expected)
            def near(offsets):
                return [t["name"] for t in info["tensors"]
                        if t["offset"] < offsets.stop and t["offset"] + t["bytes"] > offsets.start]

            before, behind = range(at - (8 << 20), at + 1), range(at - 4096, at + (8 << 20))
            check_refused(folder, f"eio={at}", 1, near(before), before)
            check_hung(folder, at)
            layer = max(t["layer"] for t in info["tensors"]) // 2
            check_failing_once(folder, max((t for t in info["tensors"] if t["layer"] == layer),
                                           key=lambda t: t["bytes"]))
            check_refused(folder, f"end={at}", 3, near(behind), behind)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
