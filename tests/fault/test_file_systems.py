#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the same bytes from every file system, by the engine that suits it, and the reason for each step down.

Method: ext4, xfs and btrfs on loop devices, tmpfs, and overlayfs over ext4, in a mount namespace of the test's own;
the command's digests there, in every mode, against those of the same file where it lay before. What cannot be mounted
here is skipped with the reason.
Usage: test_file_systems.py TUNDISH MODEL"""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TUNDISH = str(Path(sys.argv[1]).resolve())
IMAGE_BYTES = 320 << 20  # the least that xfs takes
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
counts = {"passed": 0, "failed": 0, "skipped": 0}

# name: how the file system is made on an image, and what auto must choose there for a file that is not cached
BLOCK = {
    "ext4": (["mkfs.ext4", "-q", "-F"], "uring", None),
    "xfs": (["mkfs.xfs", "-q", "-f"], "uring", None),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], "threads", "btrfs"),
}


def report(what, problem=None, skipped=None):
    counts["failed" if problem else "skipped" if skipped else "passed"] += 1
    if problem or skipped:
        print(f"{what}: {'failed' if problem else 'skipped'}: {problem or skipped}")


def command(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1] if done.stderr else "failed"


def run(*arguments):
    return subprocess.run([TUNDISH, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def evict(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def digests(model, *mode):
    evict(model)
    done = run("digest", model, "--json", *mode)
    if done.returncode:
        return done.stderr.strip()
    return {t["name"]: t["sha256"] for t in json.loads(done.stdout)["tensors"]}


def usual_engine(model):
    evict(model)
    return json.loads(run("load", model, "--json").stdout)["engine"]


def check(name, folder, source, expected, engine, reason):
    model = folder / source.name
    if not model.exists():
        shutil.copy(source, model)
    for mode in ((), ("--engine", "threads"), ("--engine", "uring"), ("--direct", "off"), ("--in-place", "on"),
                 ("--engine", "threads", "--direct", "on"), ("--chunk", "64K")):
        what, found = f"{name} {' '.join(mode)}", digests(model, *mode)
        if isinstance(found, str) and "refuse" in found:  # demanded by the mode, and not to be had here
            report(what, skipped=found)
        else:
            report(what, None if found == expected else found if isinstance(found, str) else "other digests")
    evict(model)
    loaded = json.loads(run("load", model, "--json").stdout)
    if engine and loaded["engine"] != engine:
        return report(f"{name}, engine", f"{loaded['engine']}, not {engine}: {loaded['reasons']}")
    if reason and not any(reason in text for text in loaded["reasons"]):
        return report(f"{name}, reason", f"nothing of {reason} in {loaded['reasons']}")
    return report(f"{name}, engine and reason")


def check_full(folder, source):
    """A manifest that does not fit: one sentence, and what was there stays, alone."""
    name, kept = folder / "manifest", b"tundish-manifest old"
    name.write_bytes(kept)
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    done = run("digest", source, "--manifest-out", name)
    found = (done.returncode, done.stderr.count("\n"), name.read_bytes(), sorted(os.listdir(folder)))
    expected = (1, 1, kept, ["filler", "manifest"])
    report("a manifest on a full disk", None if found == expected else f"{found}, not {expected}: {done.stderr}")


def on_image(root, name, make, use):
    """Makes a file system on an image file, mounts it, uses it."""
    image, folder = root / f"{name}.image", root / name
    folder.mkdir()
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    if not shutil.which(make[0]):
        return report(name, skipped=f"no {make[0]}")
    problem = command(*make, image) or command("mount", "-o", "loop", image, folder)
    if problem:
        return report(name, skipped=problem)
    try:
        return use(folder)
    finally:
        command("umount", folder)


def on_overlay(root, source, expected, uring):
    def use(below):
        for part in ("lower", "upper", "work", "merged"):
            (below / part).mkdir()
        shutil.copy(source, below / "lower" / source.name)
        problem = command("mount", "-t", "overlay", "overlay", "-o",
                          f"lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work", below / "merged")
        if problem:
            return report("overlayfs", skipped=problem)
        try:
            return check("overlayfs", below / "merged", source, expected, "threads", "overlayfs" if uring else None)
        finally:
            command("umount", below / "merged")

    on_image(root, "overlay-below", BLOCK["ext4"][0], use)


def main():
    source = Path(sys.argv[2]).resolve()
    expected = digests(source)
    if os.geteuid() != 0:
        report("file systems", skipped="only root may mount")
    elif ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        report("file systems", skipped=f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    else:
        ctypes.CDLL(None).mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        uring = usual_engine(source) == "uring"
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name, (make, engine, reason) in BLOCK.items():
                on_image(root, name, make, lambda mounted, n=name, e=engine, r=reason: check(
                    n, mounted, source, expected, e if uring or e == "threads" else None, r))
            (root / "tmpfs").mkdir()
            problem = command("mount", "-t", "tmpfs", "tmpfs", root / "tmpfs")
            if problem:
                report("tmpfs", skipped=problem)
            else:
                check("tmpfs", root / "tmpfs", source, expected, "threads", None)
                command("umount", root / "tmpfs")
            on_overlay(root, source, expected, uring)
            (root / "full").mkdir()
            problem = command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", root / "full")
            if problem:
                report("a full disk", skipped=problem)
            else:
                check_full(root / "full", source)
                command("umount", root / "full")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
