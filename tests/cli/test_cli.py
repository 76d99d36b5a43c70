#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the command does what its users and their scripts rely on.

Method: run it as they would, on small files written here (models.py) and on the models given, and look at exit code,
stdout and stderr. stdout with --json is one JSON object with the promised keys; a failure is one line on stderr.

    test_cli.py TUNDISH [MODEL …]"""
import errno
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback

import models

TUNDISH = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ""
MODELS = sys.argv[2:]
NOBODY = 65534
INFO_KEYS = {"format", "files", "tensors", "metadata", "layers"}
INFO_TENSOR_KEYS = {"name", "dtype", "shape", "bytes", "file", "offset", "layer"}
PLAN_KEYS = {"tensor_bytes", "read_bytes", "destination_bytes", "pool_bytes", "available_bytes", "tensors", "layers",
             "reads", "pieces", "predicted", "windows"}
LOAD_KEYS = set("""model_bytes bytes_read wall_ns cpu_ns open_ns plan_ns setup_ns first_layer_ns ready_ns bytes_per_s
    tensors tensors_per_s layers engine direct device reasons peak_host_bytes peak_pinned_bytes device_bytes tile_bytes
    converted_bytes overflowed underflowed retries limit read_busy_ns convert_busy_ns copy_busy_ns alloc_ns read_count
    pool_bytes_read overlap_ns depth_max destination_bytes pool_bytes runs""".split())
DIGEST_TENSOR_KEYS = {"name", "dtype", "shape", "bytes", "sha256"}

METADATA = [
    ("general.architecture", models.STRING, "llama"),
    ("general.raw", models.STRING, b"\xff\x00\xfe"),
    ("general.control", models.STRING, "line\nfeed \x1b[31m \"quoted\" back\\slash \x7f"),
    ("test.u64", models.U64, 2**64 - 1),
    ("test.i32", models.I32, -2**31),
    ("test.f32", models.F32, 0.1),
    ("test.infinite", models.F32, float("inf")),
    ("test.f64", models.F64, 0.1),
    ("test.bool", models.BOOL, True),
    ("test.empty", models.ARRAY, (models.U32, [])),
    ("test.tokens", models.ARRAY, (models.STRING, ["<s>", "ä", b"\xe4", "\n"] * 500)),
    ("test.scores", models.ARRAY, (models.F32, [0.5, -1.0, 1e30])),
]
LAYERS = 4
TENSORS = [("token_embd.weight", models.GGML_F16, [512, 64])] + [
    (f"blk.{layer}.{name}", kind, shape) for layer in range(LAYERS)
    for name, kind, shape in (("attn_norm.weight", models.GGML_F32, [64]),
                              ("attn_q.weight", models.GGML_Q8_0, [64, 64]),
                              ("ffn_up.weight", models.GGML_F32, [300, 64]))
] + [("output_norm.weight", models.GGML_F32, [64])]


class Skipped(Exception):
    pass


class Case:
    """Files of one run of the tests, and the command."""

    def __init__(self, folder):
        self.folder = folder
        self.gguf = self.path("model.gguf")
        self.placed = models.write_gguf(self.gguf, TENSORS, METADATA)
        self.safetensors = self.path("model.safetensors")
        # 1.0, 0.5, -2.0 and NaN
        floats = struct.pack("<4f", 1, 0.5, -2, float("nan"))
        self.safe_placed = models.write_safetensors(self.safetensors, [
            ("f32", "F32", [4], floats), ("f16", "F16", [2], struct.pack("<2e", 1.5, -0.25)),
            ("bf16", "BF16", [2], floats[2:4] + floats[6:8]), ("i64", "I64", [1], struct.pack("<q", -2**63)),
            ("e5m2", "F8_E5M2", [2], b"\x3c\x7c"), ("e4m3", "F8_E4M3", [3], b"\x38\x7e\x01"),
            ("empty", "U8", [0, 3], b""), ("scalar", "BOOL", [], b"\x01"), ("odd", "I8", [2], b"\xff\x7f"),
        ], {"format": "pt"})

    def path(self, name):
        return os.path.join(self.folder, name)

    def copy(self, name, change):
        """A changed copy of the GGUF file."""
        with open(self.gguf, "rb") as file:
            data = bytearray(file.read())
        with open(self.path(name), "wb") as file:
            file.write(change(data))
        return self.path(name)


def default_signals():
    for number in (signal.SIGINT, signal.SIGPIPE):  # a test run in the background may have them ignored
        signal.signal(number, signal.SIG_DFL)


def run(*arguments, program=None, **options):
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("timeout", 60)
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment.update(options.pop("environment", {}))
    return subprocess.run([program or TUNDISH, *arguments], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                          env=environment, preexec_fn=default_signals, check=False, **options)


def done(*arguments, **options):
    answer = run(*arguments, **options)
    assert answer.returncode == 0, f"{arguments}: exit {answer.returncode}: {answer.stderr.decode()}"
    return answer


def done_json(*arguments, **options):
    answer = done(*arguments, "--json", **options)
    assert answer.stdout.endswith(b"}\n") and answer.stdout.count(b"\n") == 1, "not one line of JSON"

    def constant(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(answer.stdout.decode(), parse_constant=constant)


def refused(code, *arguments, words=(), **options):
    answer = run(*arguments, **options)
    text = answer.stderr.decode()
    assert answer.returncode == code, f"{arguments}: exit {answer.returncode}, not {code}: {text}"
    assert text.startswith("tundish: ") and text.count("\n") == 1 and text.endswith("\n"), f"{arguments}: {text!r}"
    assert len(text) > len("tundish: x\n") and not re.search(r"[\x00-\x09\x0b-\x1f]", text), f"{arguments}: {text!r}"
    for word in words:
        assert word in text, f"{arguments}: no '{word}' in {text!r}"
    return text


def equal(what, got, expected):
    assert got == expected, f"{what} is {str(got)[:200]}, not {str(expected)[:200]}"


def keys(what, got, expected):
    assert expected <= set(got), f"{what} lacks {sorted(expected - set(got))}"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---- info ----

def test_info_json(case):
    info = done_json("info", case.gguf)
    equal("keys", set(info), INFO_KEYS)
    equal("format", info["format"], "GGUF v3")
    equal("files", info["files"], [{"path": case.gguf, "bytes": os.path.getsize(case.gguf)}])
    equal("layers", info["layers"], LAYERS)
    equal("names", [tensor["name"] for tensor in info["tensors"]], [name for name, _, _ in TENSORS])
    for tensor, (name, kind, shape) in zip(info["tensors"], TENSORS):
        equal("keys of a tensor", set(tensor), INFO_TENSOR_KEYS)
        equal("shape", tensor["shape"], shape)
        equal("bytes", tensor["bytes"], models.ggml_bytes(kind, shape))
        equal("offset", tensor["offset"], case.placed[name][0])
        equal("file", tensor["file"], case.gguf)
        equal("layer", tensor["layer"], int(name.split(".")[1]) if name.startswith("blk.") else -1)


def test_info_metadata(case):
    metadata = done_json("info", case.gguf)["metadata"]
    equal("keys", list(metadata), [key for key, _, _ in METADATA])
    equal("no UTF-8", metadata["general.raw"], {"base64": "/wD+"})
    equal("control characters", metadata["general.control"], METADATA[2][2])
    equal("u64", metadata["test.u64"], 2**64 - 1)
    equal("i32", metadata["test.i32"], -2**31)
    equal("f32", metadata["test.f32"], 0.1)
    equal("infinite", metadata["test.infinite"], None)
    equal("f64", metadata["test.f64"], 0.1)
    equal("bool", metadata["test.bool"], True)
    equal("empty", metadata["test.empty"], [])
    equal("tokens", metadata["test.tokens"], ["<s>", "ä", {"base64": "5A=="}, "\n"] * 500)
    equal("scores", metadata["test.scores"], [0.5, -1, 1e30])


def test_info_text(case):
    text = done("info", case.gguf).stdout.decode()
    for word in ("GGUF v3", "14 tensors", "4 layers", "2000 items", "blk.3.ffn_up.weight", "[300, 64]", "F16"):
        assert word in text, f"no '{word}'"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), "a control character of the file reaches the terminal"
    assert max(map(len, text.split("\n"))) < 200, "a long value is not shortened"


def test_info_safetensors(case):
    info = done_json("info", case.safetensors)
    equal("format", info["format"], "safetensors")
    equal("metadata", info["metadata"], {"format": "pt"})
    equal("offsets", {tensor["name"]: tensor["offset"] for tensor in info["tensors"]},
          {name: offset for name, (offset, _) in case.safe_placed.items()})
    equal("scalar", [tensor["shape"] for tensor in info["tensors"] if tensor["name"] == "scalar"], [[]])
    done("info", case.safetensors)


# ---- plan ----

def test_plan(case):
    plan = done_json("plan", case.gguf)
    keys("plan", plan, PLAN_KEYS)
    equal("predicted", plan["predicted"], None)
    equal("reads", plan["reads"], len(plan["windows"]))
    held = {}
    for window in plan["windows"]:
        equal("alignment", (window["offset"] % 4096, window["bytes"] % 4096), (0, 0))
        for piece in window["pieces"]:
            held[piece["tensor"]] = held.get(piece["tensor"], 0) + piece["bytes"]
            equal("where", window["offset"] + piece["window_offset"],
                  case.placed[piece["tensor"]][0] + piece["tensor_offset"])
    equal("bytes", held, {name: models.ggml_bytes(kind, shape) for name, kind, shape in TENSORS})
    equal("the same again", done_json("plan", case.gguf)["windows"], plan["windows"])
    done("plan", case.gguf, "-v")


def test_plan_predicts(case):
    plan = done_json("plan", case.gguf, "--disk-gbs", "0.001")
    predicted = plan["predicted"]
    equal("disk", predicted["disk_ns"] // 1000, plan["read_bytes"])
    equal("light", predicted["light_ns"],
          max(predicted["disk_ns"], predicted["first_touch_ns"]) + predicted["first_chunk_ns"])
    equal("nothing is converted, nor copied to a GPU", (predicted["convert_ns"], predicted["h2d_ns"]), (0, 0))
    predicted = done_json("plan", case.gguf, "--disk-gbs", "1000", "--dtype", "f16", "--threads", "1")["predicted"]
    plan = done_json("plan", case.gguf, "--dtype", "f16")
    written = plan["loaded_bytes"] - (plan["tensor_bytes"] - plan["converted_bytes"])
    assert written > 0 and abs(predicted["convert_ns"] - written / 25) <= 1, predicted
    plan = done_json("plan", case.gguf, "--disk-gbs", "3", "--h2d-gbs", "0.001", "--device", "cuda:0")
    predicted = plan["predicted"]
    equal("H2D", predicted["h2d_ns"] // 1000, plan["tensor_bytes"])
    equal("light of a GPU", predicted["light_ns"], predicted["h2d_ns"] + predicted["first_chunk_ns"])
    equal("no memory is touched", predicted["first_touch_ns"], 0)
    refused(2, "plan", case.gguf, "--disk-gbs", "3", "--h2d-gbs", "3", words=["--device cuda"])
    assert b"at least" in done("plan", case.gguf, "--disk-gbs", "2.5").stdout


# ---- load ----

def test_load_json(case):
    load = done_json("load", case.gguf)
    keys("load", load, LOAD_KEYS)
    equal("tensors", load["tensors"], len(TENSORS))
    equal("layers", load["layers"], LAYERS)
    equal("model_bytes", load["model_bytes"], sum(models.ggml_bytes(kind, shape) for _, kind, shape in TENSORS))
    equal("device", load["device"], "host")
    equal("runs", load["runs"], [load["wall_ns"]])
    assert load["limit"] in ("disk", "convert", "copy", "memory", "h2d"), load["limit"]
    assert 0 < load["ready_ns"] <= load["wall_ns"] and load["cpu_ns"] > 0, load
    for key in ("peak_pinned_bytes", "device_bytes", "tile_bytes", "converted_bytes", "overflowed", "underflowed"):
        equal(key, load[key], 0)


def test_load_repeat(case):
    load = done_json("load", case.gguf, "--repeat", "5")
    equal("runs", len(load["runs"]), 5)
    equal("the last run", load["runs"][-1], load["wall_ns"])
    assert b"runs     3" in done("load", case.gguf, "--repeat", "3").stdout


def test_load_nothing(case):
    path = case.path("empty.safetensors")
    models.write_safetensors(path, [("a", "F32", [0], b""), ("b", "F32", [2, 0], b"")])
    equal("tensors", done_json("load", path)["tensors"], 2)
    equal("digests", {tensor["sha256"] for tensor in done_json("digest", path)["tensors"]}, {sha256(b"")})
    done("load", path)
    done("plan", path)


def test_load_text(case):
    answer = done("load", case.gguf)
    for word in (b"model.gguf", b"GGUF v3", b"14 tensors", b"4 layers", b"GB/s", b"tensors/s", b"layer 0", b"engine",
                 b"limit", b"per GB", b"memory"):
        assert word in answer.stdout, f"no {word}"
    equal("stderr", answer.stderr, b"")


def test_load_modes(case):
    for arguments in (["--engine", "threads"], ["--engine", "nil"], ["--direct", "off"], ["--in-place", "on"],
                      ["--in-place", "off"], ["--order", "file"], ["--chunk", "64K", "--depth", "2"],
                      ["--pool", "1M", "--chunk", "64k"], ["--threads", "1"], ["--memory", "1G"], ["--device", "host"],
                      ["--device=auto", "--engine=auto"]):
        load = done_json("load", case.gguf, *arguments)
        equal(f"tensors with {arguments}", load["tensors"], len(TENSORS))
        if arguments[0] == "--engine":
            equal("engine", load["engine"], arguments[1])


def test_filters(case):
    def names(*arguments):
        return [tensor["name"] for tensor in done_json("digest", case.gguf, *arguments)["tensors"]]

    equal("--only", names("--only", "*norm*"), [name for name, _, _ in TENSORS if "norm" in name])
    equal("--layers 1-2", names("--layers", "1-2"), [n for n, _, _ in TENSORS if n.startswith(("blk.1.", "blk.2."))])
    equal("--layers 3", names("--layers", "3"), [n for n, _, _ in TENSORS if n.startswith("blk.3.")])
    equal("both", names("--layers=0-1", "--only=*.attn_q.*"), ["blk.0.attn_q.weight", "blk.1.attn_q.weight"])
    equal("plan", done_json("plan", case.gguf, "--layers", "0-0")["tensors"], 3)
    equal("load", done_json("load", case.gguf, "--layers", "0-3")["tensors"], 3 * LAYERS)
    refused(7, "load", case.gguf, "--only", "nothing*")
    refused(7, "load", case.gguf, "--layers", "99")


# ---- digest ----

def test_digest(case):
    expected = {name: sha256(data) for name, (_, data) in case.placed.items()}
    digest = done_json("digest", case.gguf)
    equal("keys", set(digest), {"tensors"})
    for tensor, (name, _, shape) in zip(digest["tensors"], TENSORS):
        equal("keys of a tensor", set(tensor), DIGEST_TENSOR_KEYS)
        equal("shape", (tensor["name"], tensor["shape"]), (name, shape))
    equal("digests", {tensor["name"]: tensor["sha256"] for tensor in digest["tensors"]}, expected)
    lines = done("digest", case.gguf).stdout.decode().splitlines()
    equal("text", lines, [f"{expected[name]}  {name}" for name, _, _ in TENSORS])
    for threads in ("1", "7"):
        equal("threads", done_json("digest", case.gguf, "--threads", threads), digest)


# From Python's xxhash 3.5.0, and the same from xxhsum 0.8.1: XXH3 of so many bytes of filler.
XXH3 = {0: "2d06800538d394c2", 1: "4c5cca45d0f4811f", 100: "319164356d281f38", 241: "72da0c361362a562",
        9 << 20: "a6b5e331e5b60665"}


def test_digest_xxh3(case):
    path = case.path("xxh3.safetensors")
    models.write_safetensors(path, [(str(count), "U8", [count], models.filler("xxh3", count)) for count in XXH3])
    tensors = done_json("digest", path, "--algo", "xxh3")["tensors"]
    equal("digests", {int(tensor["name"]): tensor["xxh3"] for tensor in tensors}, XXH3)
    keys("a tensor", tensors[0], DIGEST_TENSOR_KEYS - {"sha256"} | {"xxh3"})
    equal("text", done("digest", path, "--algo=xxh3").stdout.decode().splitlines(),
          [f"{digest}  {count}" for count, digest in XXH3.items()])
    equal("the default", done("digest", path, "--algo", "sha256").stdout, done("digest", path).stdout)


def test_digest_in_little_memory(case):
    """More tensors than fit: each gives its memory back before others come, and all are right."""
    path = case.path("many.safetensors")
    tensors = [(f"model.layers.{i}.w", "U8", [1 << 20], models.filler(f"layer {i}", 1 << 20)) for i in range(24)]
    models.write_safetensors(path, tensors + [("head", "U8", [3 << 20], models.filler("head", 3 << 20))])
    expected = [sha256(data) for _, _, _, data in tensors] + [sha256(models.filler("head", 3 << 20))]
    buffers = ("--chunk", "64K", "--depth", "4", "--pool", "1M")
    for arguments in (["--memory", "5M"], ["--memory", "5M", "--threads", "1"], ["--memory", "8M", "--direct", "off"],
                      ["--memory", "5M", "--order", "file"], ["--engine", "mmap"],
                      ["--memory", "5M", "--values", "300000"]):
        found = done_json("digest", path, *buffers, *arguments)["tensors"]
        equal(f"digests with {arguments}", [tensor["sha256"] for tensor in found], expected)
        for tensor, (_, _, _, data) in zip(found, tensors):
            equal("values", bytes(tensor.get("values", [])), data[:300000] if "values" in tensor else b"")
    refused(6, "digest", path, *buffers, "--memory", "3M", words=["3145728 for its largest tensor", "are available"])


def test_digest_values(case):
    tensors = done_json("digest", case.safetensors, "--values", "3")["tensors"]
    equal("values", {tensor["name"]: tensor["values"] for tensor in tensors}, {
        "f32": [1, 0.5, -2], "f16": [1.5, -0.25], "bf16": [1, 0.5], "i64": [-2**63], "e5m2": [1, None],
        "e4m3": [1, 448, 2**-9], "empty": [], "scalar": [True], "odd": [-1, 127]})
    equal("NaN", done_json("digest", case.safetensors, "--values", "9")["tensors"][0]["values"], [1, 0.5, -2, None])
    equal("digests", {tensor["name"]: tensor["sha256"] for tensor in tensors},
          {name: sha256(data) for name, (_, data) in case.safe_placed.items()})
    blocks = done_json("digest", case.gguf, "--values", "1", "--only", "*attn_q*")["tensors"]
    equal("values of blocks", [tensor["values"] for tensor in blocks], [None] * LAYERS)
    assert b"[1.5,-0.25]" in done("digest", case.safetensors, "--values", "2").stdout


def test_digest_without_libcrypto(case):
    os.mkdir(case.path("lib"))
    with open(case.path("lib/libcrypto.so.3"), "wb") as file:
        file.write(b"no library")
    environment = {"LD_LIBRARY_PATH": case.path("lib")}
    refused(6, "digest", case.gguf, words=["libssl3"], environment=environment)
    done("digest", case.gguf, "--algo", "xxh3", environment=environment)
    done("load", case.gguf, environment=environment)


# ---- usage ----

def test_usage(case):
    for arguments in ([], ["frobnicate"], ["verify"], ["load"], ["load", case.gguf, case.gguf], ["--json"],
                      ["load", case.gguf, "--nonsense"], ["load", case.gguf, "-x"], ["load", case.gguf, "--engine"],
                      ["load", case.gguf, "--engine", "map"], ["load", case.gguf, "--engine", ""],
                      ["load", case.gguf, "--engine", "uring|nil"], ["load", case.gguf, "--direct", "yes"],
                      ["load", case.gguf, "--in-place", "2"], ["load", case.gguf, "--device", "cuda"],
                      ["load", case.gguf, "--device", "cuda:x"], ["load", case.gguf, "--order", "random"],
                      ["load", case.gguf, "--json=yes"], ["load", case.gguf, "--values", "3"],
                      ["digest", case.gguf, "--repeat", "3"], ["info", case.gguf, "--engine", "nil"],
                      ["load", case.gguf, "--disk-gbs", "3"], ["load", case.gguf, "--dtype", "q4_0"],
                      ["load", case.gguf, "--streams", "9"], ["load", case.gguf, "--convert-on", "host"],
                      ["load", case.gguf, "--resident", "1G"], ["digest", case.gguf, "--algo", "md5"],
                      ["load", case.gguf, "--algo", "xxh3"], ["verify", case.gguf, "--algo", "xxh3"],
                      ["digest", case.gguf, "--engine", "nil"], ["verify", case.gguf, "--engine", "nil"],
                      ["verify", case.gguf, "--only", "*"], ["verify", case.gguf, "--manifest"],
                      ["digest", case.gguf, "--manifest-out", "x", "--only", "*"],
                      ["digest", case.gguf, "--manifest-out", "x", "--layers", "0"],
                      ["load", case.gguf, "--manifest-out", "x"], ["doctor", case.gguf, case.gguf],
                      ["doctor", "--engine", "uring"]):
        answer = refused(2, *arguments)
        assert len(answer) < 400, answer


def test_usage_numbers(case):
    for option, values in {
            "--pool": ["0", "-1", "x", "1X", "1KK", "", " 1", "99999999999999999999", "9999999999G", "1.5G"],
            "--chunk": ["100000", "32K", "128M", "4G"], "--depth": ["0", "257", "2K", "1e3"], "--threads": ["0", "+3"],
            "--memory": ["0", "12KB"], "--repeat": ["0", "1000001"],
            "--layers": ["", "-", "1-", "-1", "2-1", "1-2-3", "a", "0-4294967295", "99999999999999999999"]}.items():
        for value in values:
            refused(2, "load", case.gguf, option, value, words=[option])
    for value in ("0", "-1", "inf", "nan", "0x1p3", "", "1.2.3", "1e3"):
        refused(2, "plan", case.gguf, "--disk-gbs", value, words=["--disk-gbs"])


def test_usage_texts(case):
    for command in ("info", "plan", "load", "walk", "digest", "verify", "doctor"):
        text = done(command, "--help").stdout.decode()
        assert f"usage: tundish {command}" in text and "--json" in text
        equal("--engine", "--engine" in text, command not in ("info", "doctor"))
        equal("--repeat", "--repeat" in text, command == "load")
        assert max(map(len, text.split("\n"))) <= 120
    for arguments in (["--help"], ["-h"]):
        assert b"usage: tundish COMMAND" in done(*arguments).stdout
    assert re.fullmatch(rb"tundish \d+\.\d+\.\d+\n", done("--version").stdout)
    done("info", "--", case.gguf)


def test_no_device(case):
    for command in ("load", "walk", "digest"):
        refused(6, command, case.gguf, "--device", "cuda:1023", words=["cuda:1023"])
    done("plan", case.gguf, "--device", "cuda:0")
    found = done_json("load", case.gguf, "--device", "auto")
    if found["device"] == "host":
        assert any(reason.startswith("to the host: ") for reason in found["reasons"]), found["reasons"]
        equal("device", [found[key] for key in ("device_bytes", "tile_bytes", "peak_pinned_bytes")], [0, 0, 0])
    found = done_json("load", case.gguf, "--device", "host", "--streams", "2")
    equal("reasons", [reason for reason in found["reasons"] if "to the host" in reason], [])


# ---- files that are not there, or not to be had ----

def test_not_found(case):
    os.mkdir(case.path("folder"))
    os.mkfifo(case.path("fifo.gguf"))
    os.symlink("loop.gguf", case.path("loop.gguf"))
    os.symlink("gone.gguf", case.path("dangling.gguf"))
    for path in ("missing.gguf", "folder", "fifo.gguf", "loop.gguf", "dangling.gguf", "model.gguf/below.gguf"):
        for command in ("info", "load"):
            refused(7, command, case.path(path), words=[path], timeout=10)
    refused(7, "load", "/dev/zero", words=["/dev/zero"])
    refused(7, "load", "", timeout=10)


def test_no_permission(case):
    closed = case.copy("closed.gguf", bytes)
    program = case.path("tundish")
    shutil.copy(TUNDISH, program)
    os.chmod(closed, 0)
    try:
        if os.geteuid() != 0:
            refused(7, "load", closed, words=["closed.gguf"])
            return
        as_nobody = {"program": program, "user": NOBODY, "group": NOBODY, "extra_groups": []}
        try:
            done("--version", **as_nobody)
        except (PermissionError, OSError) as problem:
            raise Skipped(f"no child can be started as nobody: {problem}") from problem
        refused(7, "load", closed, words=["closed.gguf"], **as_nobody)
    finally:
        os.chmod(closed, stat.S_IRUSR | stat.S_IWUSR)


def test_link(case):
    os.symlink("model.gguf", case.path("link.gguf"))
    equal("tensors", done_json("load", case.path("link.gguf"))["tensors"], len(TENSORS))


def test_name_with_escapes(case):
    refused(7, "load", case.path("two\nlines\x1b[31m.gguf"), words=["two"])  # refused() sees to the rest


# ---- files that are wrong ----

def test_malformed(case):
    end = case.placed["output_norm.weight"][0] + 64 * 4
    for name, code, change in (
            ("cut-data.gguf", 3, lambda data: data[:end - 8]), ("cut-head.gguf", 3, lambda data: data[:200]),
            ("cut-magic.gguf", 3, lambda data: data[:2]), ("magic.gguf", 3, lambda data: b"GUFG" + data[4:]),
            ("count.gguf", 3, lambda data: data[:8] + b"\xff" * 8 + data[16:]),
            ("key.gguf", 3, lambda data: data[:24] + b"\xff" * 8 + data[32:]), ("empty.gguf", 3, lambda data: b""),
            ("big-endian.gguf", 5, lambda data: data[:4] + b"\0\0\0\3" + data[8:]),
            ("v1.gguf", 5, lambda data: data[:4] + b"\1\0\0\0" + data[8:])):
        path = case.copy(name, change)
        for command in ("info", "plan", "load", "digest"):
            refused(code, command, path, words=[name])
        refused(code, "load", path, "--json", words=[name])
    for name in ("cut-data.gguf", "cut-head.gguf", "count.gguf", "key.gguf"):
        text = refused(3, "load", case.path(name))
        assert re.search(r"offset|\d", text.replace(name, "")), f"no offset: {text}"


def test_malformed_safetensors(case):
    with open(case.safetensors, "rb") as file:
        data = file.read()
    for name, wrong in (("cut.safetensors", data[:-1]), ("long.safetensors", data + b"\0"),
                        ("header.safetensors", struct.pack("<Q", 2**63) + data[8:]),
                        ("json.safetensors", data[:8] + b"x" + data[9:])):
        with open(case.path(name), "wb") as file:
            file.write(wrong)
        refused(3, "info", case.path(name), words=[name])


# ---- output and interruption ----

def test_full_output(case):
    if not os.path.exists("/dev/full"):
        raise Skipped("no /dev/full")
    with open("/dev/full", "wb") as full:
        for arguments in (["info", case.gguf], ["info", case.gguf, "--json"], ["plan", case.gguf], ["load", case.gguf],
                          ["walk", case.gguf], ["digest", case.gguf], ["digest", case.gguf, "--json"],
                          ["verify", case.gguf], ["doctor"], ["--help"], ["--version"]):
            refused(1, *arguments, stdout=full, words=["cannot write", os.strerror(errno.ENOSPC)])


def test_closed_output(case):
    """A reader that has left: silence, as from any command in a pipe; a sentence where SIGPIPE is ignored."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        for arguments in (["info", case.gguf], ["info", case.gguf, "--json"], ["digest", case.gguf], ["doctor"]):
            answer = run(*arguments, stdout=write_end)
            equal(f"{arguments}", (answer.returncode, answer.stderr), (-signal.SIGPIPE, b""))
        refused(1, "-c", 'trap "" PIPE; exec "$0" info "$1"', TUNDISH, case.gguf, program="sh", stdout=write_end,
                words=["cannot write", os.strerror(errno.EPIPE)])
    finally:
        os.close(write_end)
    answer = subprocess.run(["bash", "-c", '"$0" info "$1" --json | head -c 5; echo "$?"', TUNDISH, case.gguf],
                            capture_output=True, check=False, preexec_fn=default_signals)
    equal("info | head", (answer.stdout, answer.stderr), (b'{"for0\n', b""))
    for closed, code, lines in (">&-", 1, 1), ("2>&-", 0, 0):
        answer = subprocess.run(["sh", "-c", f'exec "$0" load "$1" {closed}', TUNDISH, case.gguf],
                                capture_output=True, check=False)
        equal(f"exit with {closed}", (answer.returncode, answer.stderr.count(b"\n")), (code, lines))


def interrupt(case, *arguments):
    child = subprocess.Popen([TUNDISH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=default_signals)
    try:
        time.sleep(0.3)
        assert child.poll() is None, f"{arguments} ended on its own: {child.stderr.read().decode()}"
        child.send_signal(signal.SIGINT)
        sent = time.monotonic()
        output, errors = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    equal("exit", child.returncode, 130)
    equal("stdout", output, b"")
    equal("stderr", errors.count(b"\n"), 1)
    assert errors.startswith(b"tundish: interrupted"), errors
    return time.monotonic() - sent


def test_interrupt_between(case):
    seconds = interrupt(case, "load", case.gguf, "--json", "--repeat", "1000000")
    assert seconds < 5, f"{seconds} s until it ended"


def test_interrupt_within(case):
    """A load that takes seconds on any disk: nothing but holes, read in small pieces one after the other."""
    path = case.path("sparse.gguf")
    rows = 4 << 30 >> 16
    models.write_gguf(path, [("blk.0.a", models.GGML_F32, [rows, 1 << 14])], [], sparse=True)
    plan = done_json("plan", path)
    if plan["available_bytes"] < plan["destination_bytes"] + (1 << 30):
        raise Skipped(f"{plan['available_bytes'] >> 20} MiB of memory are left, a load that lasts takes 5 GiB")
    seconds = interrupt(case, "load", path, "--json", "--chunk", "64K", "--depth", "1")
    assert seconds < 5, f"{seconds} s until it ended"


def test_interrupt_digest(case):
    path = case.path("sparse.gguf")
    models.write_gguf(path, [(f"blk.{i}.a", models.GGML_F32, [1 << 8, 1 << 16]) for i in range(256)], [], sparse=True)
    seconds = interrupt(case, "digest", path, "--json")
    assert seconds < 5, f"{seconds} s until it ended"


def test_cut_mapping(case):
    """What the kernel sends to whoever touches a mapping whose file was cut, sent by hand: a cut cannot be timed."""
    path = case.path("mapped.gguf")
    models.write_gguf(path, [(f"blk.{i}.a", models.GGML_F32, [1 << 8, 1 << 16]) for i in range(64)], [], sparse=True)
    for attempt in range(40):
        child = subprocess.Popen([TUNDISH, "digest", path, "--engine", "mmap"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        time.sleep(0.01 + attempt * 0.005)
        child.send_signal(signal.SIGBUS)
        sentence = child.communicate(timeout=60)[1]
        early = (-signal.SIGBUS, -signal.SIGABRT)  # a sanitizer tells of signals that nobody handles
        assert child.returncode in (0, 3, *early), child.returncode
        if child.returncode == 3:
            assert path in sentence and "cut" in sentence and sentence.count("\n") == 1, sentence
            return
    raise AssertionError("40 attempts and no sentence")


# ---- progress ----

def on_terminal(environment, *arguments):
    """What stands on stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([TUNDISH, *arguments], stdout=subprocess.DEVNULL, stderr=theirs,
                             env={**os.environ, **environment}, preexec_fn=default_signals)
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            data = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the other end any more
            break
        if not data:
            break
        text += data
    os.close(ours)
    equal("exit", child.wait(timeout=60), 0)
    return text.decode().replace("\r\n", "\n")


def test_progress_terminal(case):
    text = on_terminal({"TERM": "xterm", "NO_COLOR": ""}, "load", case.gguf)
    assert re.search(r"\r\[14/14\] [\d.]+ s  [\d.]+ GB/s  \d+ tensors/s", text), repr(text)
    for environment in ({"TERM": "dumb", "NO_COLOR": ""}, {"TERM": "xterm", "NO_COLOR": "1"}):
        text = on_terminal(environment, "load", case.gguf)
        assert "\r" not in text and "\x1b" not in text, repr(text)


def test_progress_rate(case):
    """Ten times a second at the most, also where the command looks at the load far more often."""
    path = case.path("sparse.gguf")
    models.write_gguf(path, [(f"blk.{i}.a", models.GGML_F32, [1 << 6, 1 << 16]) for i in range(32)], [], sparse=True)
    for arguments in ("load",), ("digest", "--algo", "xxh3"):
        began = time.monotonic()
        text = on_terminal({"TERM": "xterm", "NO_COLOR": ""}, *arguments, path)
        lines = text.count("\r")
        assert 1 <= lines <= 2 + 10 * (time.monotonic() - began), f"{arguments}: {lines} lines"


def test_progress_lines(case):
    path = case.path("many.gguf")
    models.write_gguf(path, [(f"blk.{i}.w", models.GGML_F32, [8]) for i in range(120)], [])
    lines = done("load", path).stderr.decode().splitlines()
    assert 1 <= len(lines) <= 2 and lines[-1].startswith("[1"), lines
    equal("with --json", done("load", path, "--json").stderr, b"")
    lines = done("load", path, "--json", "-v").stderr.decode().splitlines()
    equal("-v", len([line for line in lines if "blk." in line and "F32" in line]), 120)


# ---- models given ----

def test_models(case):
    if not MODELS:
        raise Skipped("no model was given")
    for path in MODELS:
        info, digest = done_json("info", path), done_json("digest", path)
        equal("tensors", len(digest["tensors"]), len(info["tensors"]))
        for tensor, digested in zip(info["tensors"], digest["tensors"]):
            with open(tensor["file"], "rb") as file:
                file.seek(tensor["offset"])
                equal(tensor["name"], digested["sha256"], sha256(file.read(tensor["bytes"])))
        keys("load", done_json("load", path), LOAD_KEYS)
        done("plan", path)


def run_all(namespace, doc):
    """The tests of a file, one after the other, each with files of its own. Returns the exit code."""
    if not TUNDISH:
        print(doc)
        return 2
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, test in [(name, test) for name, test in namespace.items() if name.startswith("test_")]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                os.chmod(folder, 0o755)  # for a child that is nobody
                test(Case(folder))
            outcome = "passed"
        except Skipped as why:
            outcome = "skipped"
            print(f"{name}: skipped: {why}")
        except Exception as problem:  # pylint: disable=broad-except
            outcome = "failed"
            print(f"{name}: failed: {problem}")
            if not isinstance(problem, AssertionError):
                traceback.print_exc()
        counts[outcome] += 1
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(run_all(globals(), __doc__))
