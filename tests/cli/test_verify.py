#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: verify finds what differs and nothing else; a manifest is whole or not there, and names survive it.

Method: the command on small files written here, with one byte, tensor or line changed; exit code and sentence.

    test_verify.py TUNDISH MEASURE"""
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import models
from test_cli import (Skipped, TUNDISH, TENSORS, default_signals, done, done_json, equal, refused, run, run_all,
                      sha256)

MEASURE = os.path.abspath(sys.argv[2])
SANITIZED = os.environ.get("TUNDISH_SANITIZE", "none") != "none"
MIB = 1 << 20

NAMES = ["plain", "two\nlines", " ends ", "back\\slash \\x0a", "tab\t", "nul\0inside", "ä€𝄞", "c1\x85", "\x7f", " ",
         "\u2028", "quote\"", "", "trailing\\"]


def manifest_of(case, name="model.manifest"):
    path = case.path(name)
    done("digest", case.gguf, "--manifest-out", path)
    return path


def lines_of(path):
    with open(path, "rb") as file:
        return file.read().split(b"\n")


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def change_byte(case, name, tensor):
    offset = case.placed[tensor][0]
    return case.copy(name, lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1:])


# ---- writing ----

def test_manifest(case):
    path = manifest_of(case)
    total = sum(models.ggml_bytes(kind, shape) for _, kind, shape in TENSORS)
    names = {models.GGML_F32: "F32", models.GGML_F16: "F16", models.GGML_Q8_0: "Q8_0"}
    expected = ["tundish-manifest 1 sha256", f"tensors {len(TENSORS)} bytes {total}"] + [
        f"{sha256(case.placed[name][1])}  {names[kind]}  {models.ggml_bytes(kind, shape)}  {name}"
        for name, kind, shape in TENSORS] + [""]
    equal("manifest", [line.decode() for line in lines_of(path)], expected)
    equal("what else is there", [name for name in os.listdir(case.folder) if "tmp" in name], [])
    equal("stdout", done("digest", case.gguf, "--manifest-out", path).stdout, done("digest", case.gguf).stdout)
    equal("permissions", os.stat(path).st_mode & 0o777, 0o666 & ~umask())


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_names(case):
    path = case.path("names.safetensors")
    models.write_safetensors(path, [(name, "U8", [i + 1], bytes([i]) * (i + 1)) for i, name in enumerate(NAMES)])
    manifest = case.path("names.manifest")
    done("digest", path, "--manifest-out", manifest)
    lines = lines_of(manifest)
    equal("lines", len(lines), len(NAMES) + 3)
    for line in lines:
        assert all(byte >= 0x20 and byte != 0x7F for byte in line), line
    verdict = done_json("verify", path, "--manifest", manifest)
    equal("checked", (verdict["checked"], verdict["good"], verdict["differences"]), ("manifest", True, []))
    other = case.path("other.safetensors")
    models.write_safetensors(other, [(name, "U8", [i + 1], b"\xff" * (i + 1)) for i, name in enumerate(NAMES)])
    answer = run("verify", other, "--manifest", manifest, "--json")
    equal("exit", answer.returncode, 4)
    found = json.loads(answer.stdout)["differences"]
    equal("names", [difference["name"] for difference in found], NAMES)


def test_place(case):
    cut = case.copy("cut.gguf", lambda data: data[:-40])  # exit 3, were the model looked at first
    for path in (case.path("none/x"), case.path("model.gguf/x"), "", case.folder, case.path("new/"), "/dev/null",
                 "/dev/full", case.path("x" * 256), "/".join([case.folder] + ["."] * 4096 + ["x"])):
        refused(7, "digest", cut, "--manifest-out", path, words=["manifest"])
    old = write(case.path("old"), b"tundish-manifest old")
    os.symlink("old", case.path("link"))
    manifest_of(case, "link")
    assert os.path.islink(case.path("link")) and lines_of(old)[0] == b"tundish-manifest 1 sha256"
    write(old, b"tundish-manifest old")
    refused(3, "digest", cut, "--manifest-out", old)
    equal("after a failure", lines_of(old), [b"tundish-manifest old"])


def test_long_names(case):
    """A name as long as the file system takes, new and there already, and in a folder of a long path."""
    folder = case.folder
    for _ in range(10):
        folder = os.path.join(folder, "f" * 200)
        os.mkdir(folder)
    for name in ("x" * 255, os.path.join(folder, "y" * 255)):
        manifest_of(case, name)
        manifest_of(case, name)
        done("verify", case.gguf, "--manifest", case.path(name))


def test_links(case):
    """A link stays one, also when nothing is yet where it leads."""
    os.mkdir(case.path("below"))
    for link, leads in (("dangling", "below/a"), ("absolute", case.path("below/b")), ("first", "below/second")):
        os.symlink(leads, case.path(link))
    os.symlink("third", case.path("below/second"))
    for link, target in (("dangling", "a"), ("absolute", "b"), ("first", "third")):
        for _ in range(2):
            manifest_of(case, link)
            assert os.path.islink(case.path(link)) and not os.path.islink(case.path("below/" + target)), link
            equal(link, lines_of(case.path("below/" + target))[0], b"tundish-manifest 1 sha256")
    assert os.path.islink(case.path("below/second"))
    equal("what is there", sorted(os.listdir(case.path("below"))), ["a", "b", "second", "third"])
    os.symlink("loop", case.path("loop"))
    os.symlink("none/x", case.path("astray"))
    os.symlink("/dev/full", case.path("device"))
    for link in ("loop", "astray", "device"):
        refused(7, "digest", case.gguf, "--manifest-out", case.path(link), words=[link])
        assert os.path.islink(case.path(link))


def test_killed(case):
    """Killed while it writes: where files without a name are to be had, nothing is left."""
    path, folder = case.path("many.safetensors"), case.path("out")
    models.write_safetensors(path, [(f"tensor {i:100}", "U8", [1], b"x") for i in range(50000)])
    os.mkdir(folder)
    try:
        os.close(os.open(folder, os.O_WRONLY | os.O_TMPFILE))
    except OSError as problem:
        raise Skipped(f"{folder}: no files without a name: {problem}") from problem
    child = subprocess.Popen([TUNDISH, "digest", path, "--algo", "xxh3", "--manifest-out", os.path.join(folder, "x")],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    descriptors, writing = f"/proc/{child.pid}/fd", False
    try:
        while not writing and child.poll() is None:
            links = [os.path.join(descriptors, name) for name in os.listdir(descriptors)]
            writing = any(os.path.islink(link) and os.readlink(link).startswith(folder + "/") and
                          os.stat(link).st_size > 0 for link in links)
            time.sleep(0.0005)
    except FileNotFoundError:  # one was closed, or the child has ended
        pass
    child.kill()
    child.wait()
    if not writing:
        raise Skipped("it was too fast to be seen at it")
    equal("what is left", os.listdir(folder), [])


def test_full_disk(case):
    """A limit on the size of files stands for the disk."""
    path = write(case.path("kept"), b"tundish-manifest kept")

    def little():
        default_signals()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    answer = subprocess.run([TUNDISH, "digest", case.gguf, "--manifest-out", path], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=little, check=False)
    equal("exit", (answer.returncode, answer.stderr.count(b"\n")), (1, 1))
    equal("after a failure", lines_of(path), [b"tundish-manifest kept"])
    equal("what else is there", [name for name in os.listdir(case.folder) if "tmp" in name], [])


def test_model_kept(case):
    """A model named as the manifest's place by mistake stays."""
    with open(case.gguf, "rb") as file:
        before = file.read()
    answer = subprocess.run([TUNDISH, "digest", case.gguf, "--manifest-out", case.gguf], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, check=False)
    equal("exit", (answer.returncode, answer.stderr.count(b"\n")), (2, 1))
    with open(case.gguf, "rb") as file:
        equal("the model", file.read() == before, True)


# ---- comparing ----

def test_same(case):
    path = manifest_of(case)
    assert b"all tensors have the SHA-256" in done("verify", case.gguf, "--manifest", path).stdout
    for arguments in (["--engine", "threads"], ["--direct", "off"], ["--threads", "1"], ["--order", "file"]):
        verdict = done_json("verify", case.gguf, "--manifest", path, *arguments)
        equal("good", (verdict["good"], verdict["tensors"]), (True, len(TENSORS)))
    lines = lines_of(path)  # the order of its lines is of no account
    write(path, b"\n".join(lines[:2] + lines[-2:1:-1] + [b""]))
    done("verify", case.gguf, "--manifest", path)
    write(path, b"\n".join([line[:64].upper() + line[64:] if i > 1 else line for i, line in enumerate(lines)]))
    done("verify", case.gguf, "--manifest", path)


def test_each_tensor(case):
    path = manifest_of(case)
    for name, _, _ in TENSORS:
        refused(4, "verify", change_byte(case, "changed.gguf", name), "--manifest", path,
                words=[f"tensor '{name}'", "SHA-256", f"1 of {len(TENSORS)} tensors differs"])


def test_several(case):
    path = manifest_of(case)
    changed = change_byte(case, "a.gguf", "blk.1.attn_q.weight")
    with open(changed, "r+b") as file:
        file.seek(case.placed["output_norm.weight"][0])
        file.write(b"\xff\xff")
    refused(4, "verify", changed, "--manifest", path, words=["'blk.1.attn_q.weight'", "2 of 14 tensors differ"])
    answer = run("verify", changed, "--manifest", path, "--json")
    verdict = json.loads(answer.stdout)
    equal("good", (answer.returncode, verdict["good"]), (4, False))
    equal("differences", [(one["name"], one["fault"]) for one in verdict["differences"]],
          [("blk.1.attn_q.weight", "sha256"), ("output_norm.weight", "sha256")])


def test_missing_and_extra(case):
    path = manifest_of(case)
    fewer = case.path("fewer.gguf")
    models.write_gguf(fewer, TENSORS[:-1], [])
    refused(4, "verify", fewer, "--manifest", path, words=["'output_norm.weight' is missing", "line 16", "1 of 13"])
    more = case.path("more.gguf")
    models.write_gguf(more, TENSORS + [("extra", models.GGML_F32, [8])], [])
    refused(4, "verify", more, "--manifest", path, words=["'extra' is not in the manifest"])
    other = case.path("type.gguf")
    models.write_gguf(other, [(name, models.GGML_F32 if name == "token_embd.weight" else kind, shape)
                              for name, kind, shape in TENSORS], [])
    refused(4, "verify", other, "--manifest", path, words=["'token_embd.weight' is F32, expected F16"])
    models.write_gguf(other, [(name, kind, [511, 64] if name == "token_embd.weight" else shape)
                              for name, kind, shape in TENSORS], [])
    refused(4, "verify", other, "--manifest", path, words=["'token_embd.weight' has 65408 bytes, expected 65536"])


def test_malformed_manifest(case):
    good = lines_of(manifest_of(case))
    path = case.path("bad.manifest")

    def with_line(number, line):
        return b"\n".join(good[:number - 1] + [line] + good[number:])

    digest, rest = good[4][:64], good[4][64:]
    for number, data in (
            (1, b""), (1, b"tundish-manifest"), (1, b"tundish-manifest\n"), (1, b"\0"), (1, with_line(1, b"sha256sum")),
            (1, with_line(1, b"tundish-manifest  sha256")), (2, good[0] + b"\n"),
            (2, with_line(2, b"tensors x bytes 1")),
            (2, with_line(2, good[1] + b" ")), (2, with_line(2, b"tensors 1000001 bytes 1")),
            (2, with_line(2, b"tensors 99999999999999999999 bytes 1")), (2, with_line(2, good[1] + b"1")),
            (5, with_line(5, b"")), (5, with_line(5, digest[:63] + rest)), (5, with_line(5, b"g" + digest[1:] + rest)),
            (5, with_line(5, digest)), (5, with_line(5, digest + b"  F32")), (5, with_line(5, digest + b"  F32  ")),
            (5, with_line(5, digest + b" F32  4  x")), (5, with_line(5, digest + b"  F32 4  x")),
            (5, with_line(5, digest + b"  F32  4 x")), (5, with_line(5, digest + b"  F32  -4  x")),
            (5, with_line(5, digest + b"  F32  99999999999999999999  x")), (5, with_line(5, good[4] + b"\\")),
            (5, with_line(5, good[4] + b"\\n")), (5, with_line(5, good[4] + b"\\xg0")),
            (5, with_line(5, good[4] + b"\\x0")), (5, with_line(5, good[4] + b"\r\r")),
            (5, with_line(5, good[4] + b"\t")), (5, with_line(5, good[4] + b"\0x")),
            (7, with_line(7, good[3])), (16, b"\n".join(good[:15]) + b"\n"), (16, b"\n".join(good)[:-1]),
            (17, b"\n".join(good) + b"\n"), (17, b"\n".join(good) + b"x")):
        write(path, data)
        refused(3, "verify", case.gguf, "--manifest", path, words=[f"line {number}:"])
    write(path, with_line(1, b"tundish-manifest 1 md5"))
    refused(5, "verify", case.gguf, "--manifest", path, words=["md5", "digest --help"])
    write(path, with_line(1, b"tundish-manifest 1 xxh3"))
    refused(3, "verify", case.gguf, "--manifest", path, words=["line 3:"])
    write(path, with_line(1, b"tundish-manifest 2 sha256"))
    refused(5, "verify", case.gguf, "--manifest", path, words=["version 2"])
    for cut in range(0, sum(len(line) + 1 for line in good) - 1, 7):
        write(path, b"\n".join(good)[:cut])
        refused(3, "verify", case.gguf, "--manifest", path, words=["line "])


def test_carriage_returns(case):
    path = manifest_of(case)
    lines = lines_of(path)
    for separator in (b"\r\n", b"\n"):
        write(path, separator.join(lines))
        done("verify", case.gguf, "--manifest", path)
    write(path, b"\r".join(lines))
    refused(3, "verify", case.gguf, "--manifest", path, words=["line 1:"])


def test_xxh3(case):
    path = case.path("xxh3.manifest")
    done("digest", case.gguf, "--algo", "xxh3", "--manifest-out", path)
    equal("first line", lines_of(path)[0], b"tundish-manifest 1 xxh3")
    digests = {tensor["name"]: tensor["xxh3"] for tensor in done_json("digest", case.gguf, "--algo", "xxh3")["tensors"]}
    equal("digests", [line[:18].decode() for line in lines_of(path)[2:-1]],
          [digests[name] + "  " for name, _, _ in TENSORS])
    assert b"all tensors have the XXH3" in done("verify", case.gguf, "--manifest", path).stdout
    changed = change_byte(case, "changed.gguf", "token_embd.weight")
    refused(4, "verify", changed, "--manifest", path, words=["'token_embd.weight' has XXH3", "1 of 14"])
    difference = json.loads(run("verify", changed, "--manifest", path, "--json").stdout)["differences"][0]
    equal("difference", (difference["fault"], difference["expected_xxh3"]), ("xxh3", digests["token_embd.weight"]))
    assert difference["found_xxh3"] != difference["expected_xxh3"], difference


def test_manifest_not_found(case):
    os.mkfifo(case.path("fifo"))
    for path in (case.path("none"), case.folder, case.path("fifo"), "/dev/null"):
        refused(7, "verify", case.gguf, "--manifest", path, timeout=10)
    path = manifest_of(case)
    refused(7, "verify", case.path("none.gguf"), "--manifest", path)
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    refused(3, "verify", case.gguf, "--manifest", path, timeout=10)


# ---- memory ----

def peak_bytes(*arguments):
    answer = subprocess.run([MEASURE, "120", TUNDISH, *arguments], capture_output=True, check=False)
    code, _, peak_kib = map(int, answer.stdout.split())
    equal(f"exit of {arguments}", (code, answer.stderr), (0, b""))
    return peak_kib << 10


def test_memory(case):
    """A model of 1 GiB, all holes, that is read faster than it is hashed: no more of it is held than may be."""
    if SANITIZED:
        raise Skipped("sanitizers need memory of their own")
    path, manifest = case.path("deep.gguf"), case.path("deep.manifest")
    models.write_gguf(path, [(f"blk.{i}.{j}", models.GGML_F32, [1 << 10, 1 << 10]) for i in range(64)
                             for j in range(4)], [], sparse=True)
    peak = peak_bytes("digest", path, "--manifest-out", manifest, "--json")
    assert peak < 340 * MIB, f"digest takes {peak // MIB} MiB"
    peak = peak_bytes("verify", path, "--manifest", manifest, "--json")
    assert peak < 340 * MIB, f"verify takes {peak // MIB} MiB"
    peak = peak_bytes("verify", path, "--manifest", manifest, "--json", "--memory", "48M")
    assert peak < 112 * MIB, f"verify with --memory 48M takes {peak // MIB} MiB"


# ---- without a manifest ----

def test_structure(case):
    assert b"the structure only was checked" in done("verify", case.gguf).stdout
    verdict = done_json("verify", case.gguf)
    equal("verdict", (verdict["checked"], verdict["good"], verdict["blobs"]), ("structure", True, []))
    refused(3, "verify", case.copy("cut.gguf", lambda data: data[:-40]), words=["cut.gguf"])
    refused(7, "verify", case.path("none.gguf"))


def test_blob(case):
    """As a snapshot of the hub: a readable name that links to a blob, which is named by its SHA-256."""
    with open(case.gguf, "rb") as file:
        data = file.read()
    os.makedirs(case.path("blobs"))
    os.makedirs(case.path("snapshots/1"))
    digest = hashlib.sha256(data).hexdigest()
    link = case.path("snapshots/1/model.gguf")
    write(case.path(f"blobs/{digest}"), data)
    os.symlink(f"../../blobs/{digest}", link)
    verdict = done_json("verify", link)
    equal("verdict", (verdict["checked"], verdict["good"]), ("blobs", True))
    equal("blobs", verdict["blobs"], [{"path": link, "found_sha256": digest, "expected_sha256": digest}])
    assert b"its name in the cache" in done("verify", link).stdout
    done("verify", case.path(f"blobs/{digest}"))
    offset = case.placed["output_norm.weight"][0]
    changed = write(case.path(f"blobs/{digest}"), data[:offset] + b"\xff" + data[offset + 1:])
    for path in (link, changed):
        refused(4, "verify", path, words=[digest])
    equal("good", json.loads(run("verify", link, "--json").stdout)["good"], False)
    environment = {"LD_LIBRARY_PATH": case.path("lib")}
    os.mkdir(case.path("lib"))
    write(case.path("lib/libcrypto.so.3"), b"no library")
    refused(6, "verify", link, words=["libssl3"], environment=environment)
    done("verify", case.gguf, environment=environment)


if __name__ == "__main__":
    sys.exit(run_all(globals(), __doc__))
