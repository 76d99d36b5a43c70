#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: doctor says what is refused, by whom and what to do, and is right about it.

Method: the command as it is, and under `deny`, which takes one thing away; what it says of a file against what the
system says and against what a load then does.

    test_doctor.py TUNDISH DENY"""
import glob
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

import models
from test_cli import Skipped, TUNDISH, done, done_json, equal, keys, refused, run_all

SANITIZED = os.environ.get("TUNDISH_SANITIZE", "none") != "none"  # they need threads of their own
DENY = os.path.abspath(sys.argv[2])
KEYS = set("""version kernel cores cpu page_bytes huge_pages huge_page_bytes memory_system_bytes memory_cgroup_bytes
    memlock_bytes io_uring gpu model items""".split())
URING_KEYS = set("""works refused_at errno reason sysctl_disabled registers_buffers registered_bytes
    registered_bytes_tried registered_reason""".split())
MODEL_KEYS = set("""path files largest_file largest_file_bytes file_system cached_percent direct direct_open
    direct_alignment_bytes direct_reason load_engine load_direct load_reason""".split())
GPU_KEYS = {"build_has_cuda", "usable", "cuda_runtime_version", "cuda_driver_version", "cuda_reason", "cards", "driver",
            "driver_version", "libcuda", "reason"}
ITEMS = ["kernel", "cpu", "pages", "memory", "io_uring", "memlock", "gpu"]
FILE_ITEMS = ["file_system", "cache", "direct", "load"]


def without(what, *arguments):
    answer = subprocess.run([DENY, what, TUNDISH, "doctor", *arguments, "--json"], capture_output=True, check=False)
    if answer.returncode == 77:
        raise Skipped(answer.stderr.decode().strip())
    equal(f"exit without {what}", (answer.returncode, answer.stderr), (0, b""))
    return json.loads(answer.stdout)


def item(found, name):
    return next(one for one in found["items"] if one["item"] == name)


def works(what):
    found = done_json("doctor")
    if not found["io_uring"]["works"]:
        raise Skipped(f"{what}: {found['io_uring']['reason']}")
    return found


def evict(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_machine(case):
    found = done_json("doctor")
    equal("keys", set(found), KEYS)
    equal("keys of io_uring", set(found["io_uring"]), URING_KEYS)
    equal("keys of gpu", set(found["gpu"]), GPU_KEYS)
    equal("model", found["model"], None)
    equal("items", [one["item"] for one in found["items"]], ITEMS)
    equal("kernel", found["kernel"], platform.release())
    equal("cores", found["cores"], len(os.sched_getaffinity(0)))
    equal("pages", found["page_bytes"], os.sysconf("SC_PAGESIZE"))
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = re.search(r"^flags\s*:(.*)$", file.read(), re.M)
    words = flags.group(1).split() if flags else []
    equal("cpu", found["cpu"], {name: name in words for name in ("f16c", "avx2", "avx512f")})
    for one in found["items"]:
        assert one["found"] and one["follows"], one
    assert (found["gpu"]["cuda_reason"] or "can be used") in item(found, "gpu")["follows"]
    equal("usable", found["gpu"]["usable"] > 0, found["gpu"]["cuda_reason"] is None)


def test_gpu(_):
    gpu = done_json("doctor")["gpu"]
    equal("driver", gpu["driver"], os.path.exists("/proc/driver/nvidia"))
    cards = 0
    for device in glob.glob("/sys/bus/pci/devices/*"):
        with open(device + "/vendor", encoding="ascii") as vendor, open(device + "/class", encoding="ascii") as kind:
            cards += vendor.read().strip() == "0x10de" and kind.read().startswith("0x03")
    equal("cards", gpu["cards"], cards)
    if gpu["driver_version"] not in (None, "?"):
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            assert gpu["driver_version"] in file.readline().split(), gpu


def test_file(case):
    found = done_json("doctor", case.gguf)
    equal("keys", set(found), KEYS)
    equal("keys of the model", set(found["model"]), MODEL_KEYS)
    equal("items", [one["item"] for one in found["items"]], ITEMS + FILE_ITEMS)
    equal("path", (found["model"]["path"], found["model"]["largest_file"]), (case.gguf, case.gguf))
    equal("bytes", (found["model"]["files"], found["model"]["largest_file_bytes"]), (1, os.path.getsize(case.gguf)))
    mount = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", case.gguf], capture_output=True, text=True, check=False)
    if mount.returncode == 0:
        equal("file system", found["model"]["file_system"], mount.stdout.split()[-1])


def test_load_agrees(case):
    for cold in (True, False):
        if cold:
            evict(case.gguf)
        found = done_json("doctor", case.gguf)["model"]
        if cold:
            evict(case.gguf)
        load = done_json("load", case.gguf)
        equal("what a load does", (load["engine"], load["direct"]), (found["load_engine"], found["load_direct"]))
        with open(case.gguf, "rb") as file:
            file.read()
    equal("cached", found["cached_percent"], 100)


def test_text(case):
    text = done("doctor", case.gguf).stdout.decode()
    for word in ("io_uring", "memlock", "huge pages", "kernel", "GPU", "file system", "direct I/O", "cached"):
        assert word in text, f"no '{word}'"
    equal("lines", len([line for line in text.split("\n") if line[:2] in ("  ", "! ")]), 1 + len(ITEMS + FILE_ITEMS))


def test_no_model(_):
    assert "with a MODEL" in done("doctor").stdout.decode()


def test_in_memory(_):
    """A file on tmpfs costs nothing that a mark would have to tell of."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".gguf") as file:
        models.write_gguf(file.name, [("a", models.GGML_F32, [8])], [])
        found = done_json("doctor", file.name)
    if found["model"]["file_system"] != "tmpfs":
        raise Skipped(f"/dev/shm is {found['model']['file_system']}")
    assert item(found, "file_system")["good"] and "memory" in item(found, "file_system")["follows"], found["items"]


def test_refused_files(case):
    refused(7, "doctor", case.path("none.gguf"), words=["none.gguf"])
    os.mkdir(case.path("empty"))
    refused(7, "doctor", case.path("empty"))
    refused(7, "doctor", "/dev/null")
    refused(3, "doctor", case.copy("cut.gguf", lambda data: data[:200]), words=["cut.gguf"])


def test_uring_setup(case):
    works("io_uring refused at set-up")
    for what, error, words in (("uring-setup", 1, "seccomp"), ("uring-missing", 38, "has none")):
        found = without(what, case.gguf)
        uring = found["io_uring"]
        equal(what, (uring["works"], uring["refused_at"], uring["errno"], uring["registers_buffers"]),
              (False, "setup", error, False))
        assert "refused at set-up" in uring["reason"] and words in uring["reason"], uring["reason"]
        one = item(found, "io_uring")
        assert not one["good"] and uring["reason"] in one["follows"] and "io_uring_setup" in one["follows"], one
        equal("engine", found["model"]["load_engine"], "threads")


def test_uring_enter(case):
    works("io_uring refused at enter")
    uring = without("uring-enter")["io_uring"]
    equal("io_uring", (uring["works"], uring["refused_at"], uring["errno"]), (False, "enter", 1))
    assert "can be set up" in uring["reason"] and "seccomp" in uring["reason"], uring["reason"]


def test_memlock(case):
    if not works("memlock")["io_uring"]["registers_buffers"]:
        raise Skipped("this kernel registers no buffers")
    found = without("memlock")
    equal("limit", found["memlock_bytes"], 64 << 10)
    equal("registers", found["io_uring"]["registers_buffers"], False)
    one = item(found, "memlock")
    assert not one["good"], one
    for word in ("64 KiB", "refused", "ulimit -l", "LimitMEMLOCK"):
        assert word in one["found"] + one["follows"], one


def test_direct(case):
    usual = done_json("doctor", case.gguf)["model"]
    if not usual["direct"]:
        raise Skipped(usual["direct_reason"])
    keys("model", usual, {"direct_alignment_bytes"})
    assert usual["direct_alignment_bytes"] in (512, 1024, 2048, 4096), usual
    found = without("direct-open", case.gguf)
    model = found["model"]
    equal("direct", (model["direct"], model["direct_open"], model["direct_alignment_bytes"]), (False, False, 0))
    assert "at open" in model["direct_reason"] and not item(found, "direct")["good"], model


def test_little(case):
    for what in ("cachestat", "madvise", "eventfd") + (() if SANITIZED else ("threads",)):
        without(what, case.gguf)


if __name__ == "__main__":
    sys.exit(run_all(globals(), __doc__))
