#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what `tundish digest` and `tundish info` say of a model is what independent readers say of it.

Method: the packages gguf and safetensors read the same file; where they lack a type or refuse a file, what its writer
noted. Each model is loaded in each mode: engine, direct or buffered, in place or through the pool, long and short
reads, order. Names, types, shapes, bytes, offsets, metadata and the SHA-256 of each tensor must agree.

    test_digest.py TUNDISH [--models FOLDER] [--stories FOLDER]

FOLDER: where SmolLM2-135M-Instruct.Q4_1.gguf lies (else TUNDISH_MODELS, else the cache of ./demo), and the set
stories260K (else TUNDISH_STORIES, else beside the repository). What is not there is skipped."""
import argparse
import base64
import ctypes
import fnmatch
import glob
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile

try:
    import gguf
    import numpy as np
    import safetensors
except ImportError as problem:
    print(f"skipped: {problem}; ./check brings the packages gguf, numpy and safetensors")
    sys.exit(77)

import make_models
from outcome import finish, report

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODES = [
    [],
    ["--engine", "uring", "--direct", "on"],
    ["--engine", "uring", "--direct", "off"],
    ["--engine", "threads", "--direct", "on"],
    ["--engine", "threads", "--direct", "off"],
    ["--in-place", "on"],
    ["--in-place", "off"],
    ["--in-place", "on", "--direct", "on", "--chunk", "64K"],
    ["--in-place", "off", "--chunk", "64K", "--depth", "1", "--threads", "1"],
    ["--order", "file"],
    ["--order", "file", "--chunk", "64K", "--engine", "threads", "--pool", "256K"],
]
EXIT_RESOURCE = 6


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read_gguf(path):
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: {"dtype": tensor.tensor_type.name,
                             "shape": [int(n) for n in reversed(tensor.shape)],
                             "bytes": int(tensor.n_bytes), "offset": int(tensor.data_offset),
                             "sha256": sha256(tensor.data.tobytes())} for tensor in reader.tensors}
    metadata = {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        try:
            metadata[key] = field.contents()
        except (UnicodeDecodeError, ValueError, KeyError):
            pass  # what the package cannot give is compared with the writer's note alone
        if gguf.GGUFValueType.ARRAY in field.types[1:]:
            metadata.pop(key, None)
    return tensors, metadata


def read_safetensors(path):
    with open(path, "rb") as file:
        raw = file.read()
    header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    base = 8 + int.from_bytes(raw[:8], "little")
    tensors = {name: {"dtype": item["dtype"], "shape": list(item["shape"]), "bytes": len(item["data"]),
                      "offset": base + header[name]["data_offsets"][0], "sha256": sha256(bytes(item["data"]))}
               for name, item in safetensors.deserialize(raw)}
    return tensors, header.get("__metadata__", {})


def read_note(path):
    with open(path + ".expect.json", encoding="utf-8") as file:
        note = json.load(file)
    inside_out = note["format"] == "gguf" and note.get("shapes") != "outermost first"
    tensors = {tensor["name"]: {"dtype": tensor["type"],
                                "shape": tensor["shape"][::-1] if inside_out else tensor["shape"],
                                "bytes": tensor["nbytes"], "offset": tensor["file_offset"],
                                "sha256": tensor["raw_sha256"]} for tensor in note["tensors"]}
    return tensors, note.get("metadata")


def references(path):
    """[(who, tensors, metadata or None)], and why the package is not among them."""
    found, why = [], None
    if os.path.exists(path + ".expect.json"):
        found.append(("note", *read_note(path)))
    try:
        found.append(("package", *(read_gguf if path.endswith(".gguf") else read_safetensors)(path)))
    except (ValueError, safetensors.SafetensorError) as problem:
        why = str(problem)
    return found, why


def same_value(ours, theirs):
    if isinstance(theirs, dict) and "bytes" in theirs:
        return isinstance(ours, dict) and base64.b64decode(ours.get("base64", "")) == bytes(theirs["bytes"])
    if isinstance(theirs, (list, tuple, np.ndarray)):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same_value, ours, theirs))
    if isinstance(theirs, (bool, np.bool_)) or isinstance(ours, bool):
        return isinstance(ours, (bool, int)) and bool(ours) == bool(theirs)
    if isinstance(theirs, (float, np.floating)):
        if not isinstance(ours, (int, float)) or isinstance(ours, bool):
            return not math.isfinite(theirs)
        return float(ours) == float(theirs) or np.float32(ours) == np.float32(theirs)
    return type(ours) in (int, str) and ours == theirs


def compare(ours, theirs, keys):
    problems = []
    names = [tensor["name"] for tensor in ours]
    if len(set(names)) != len(names):
        problems.append("a name comes twice")
    problems += [f"{name} is missing" for name in theirs if name not in set(names)]
    for tensor in ours:
        expected = theirs.get(tensor["name"])
        if expected is None:
            problems.append(f"{tensor['name']} is unknown to the reference")
            continue
        problems += [f"{tensor['name']}: {key} is {tensor.get(key)!r}, not {expected[key]!r}"
                     for key in keys if tensor.get(key) != expected[key]]
    return problems


def run(tundish, arguments, timeout=300):
    answer = subprocess.run([tundish] + arguments, capture_output=True, timeout=timeout, check=False)
    sentence = answer.stderr.decode(errors="replace").strip()
    if answer.returncode != 0:
        return answer.returncode, None, sentence
    try:
        return 0, json.loads(answer.stdout), sentence
    except ValueError as problem:
        return 0, None, f"stdout is no JSON: {problem}"


def ring_possible():
    """Whether this kernel gives a ring, asked without any library."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    descriptor = libc.syscall(425, 1, parameters)
    if descriptor < 0:
        return f"io_uring: {os.strerror(ctypes.get_errno())}"
    os.close(descriptor)
    return None


def direct_possible(path):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as problem:
        return f"O_DIRECT: {problem.strerror}"
    return None


def excuse(path, mode):
    """Why this machine may refuse the mode, or None."""
    if "uring" in mode:
        reason = ring_possible()
        if reason:
            return reason
    if "--direct" in mode and mode[mode.index("--direct") + 1] == "on":
        return direct_possible(path)
    return None


def test_info(tundish, path, found):
    title = f"{os.path.basename(path)} info"
    code, ours, sentence = run(tundish, ["info", path, "--json"])
    if ours is None:
        report(title, [f"exit {code}: {sentence}"])
        return
    problems = []
    if [os.path.realpath(file["path"]) for file in ours["files"]] != [os.path.realpath(path)]:
        problems.append(f"files is {ours['files']!r}")
    elif ours["files"][0]["bytes"] != os.path.getsize(path):
        problems.append("the file has another size")
    for who, tensors, metadata in found:
        problems += [f"{who}: {line}" for line in
                     compare(ours["tensors"], tensors, ["dtype", "shape", "bytes", "offset"])]
        if [tensor["name"] for tensor in ours["tensors"]] != list(tensors) and path.endswith(".gguf"):
            problems.append(f"{who}: the tensors come in another order")
        if metadata is None:
            continue
        problems += [f"{who}: metadata {key} is {str(ours['metadata'].get(key))[:80]}, not {str(value)[:80]}"
                     for key, value in metadata.items()
                     if key not in ours["metadata"] or not same_value(ours["metadata"][key], value)]
        if who == "note":
            problems += [f"metadata {key} is unknown" for key in ours["metadata"] if key not in metadata]
    report(title, problems)


def test_digest(tundish, path, found, mode, chosen=None):
    """chosen: which names the mode selects, by default all."""
    title = " ".join([os.path.basename(path), "digest"] + mode)
    code, ours, sentence = run(tundish, ["digest", path, "--json"] + mode)
    if ours is None:
        reason = excuse(path, mode) if code == EXIT_RESOURCE else None
        report(title, [f"exit {code}: {sentence}"], reason)
        return
    problems = []
    for who, tensors, _ in found:
        wanted = {name: tensor for name, tensor in tensors.items() if chosen is None or chosen(name)}
        problems += [f"{who}: {line}" for line in
                     compare(ours["tensors"], wanted, ["dtype", "shape", "bytes", "sha256"])]
    report(title, problems)


def test_model(tundish, path, package_must=True):
    found, why = references(path)
    if why and package_must:
        report(f"{os.path.basename(path)}", [f"the package refuses it: {why}"])
    if not found:
        return
    test_info(tundish, path, found)
    for mode in MODES:
        test_digest(tundish, path, found, mode)
    names = list(found[0][1])
    for pattern in ("blk.*", "model.layers.1.*", "*[aq]*"):
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            test_digest(tundish, path, found, ["--only", pattern], lambda name: fnmatch.fnmatchcase(name, pattern))
    layer_of = {name: part for name in names for part in [name.split(".")]}
    chosen = {name for name, part in layer_of.items() if part[0] == "blk" and part[1] in ("1", "2")}
    if chosen and len(names) < 1000:
        test_digest(tundish, path, found, ["--layers", "1-2"], lambda name: name in chosen)


def folders(arguments):
    """Where the models of ./demo and the set stories260K lie."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tundish", "models")
    return (arguments.models or os.environ.get("TUNDISH_MODELS") or cache,
            arguments.stories or os.environ.get("TUNDISH_STORIES") or
            os.path.join(os.path.dirname(ROOT), "shared", "models", "stories260K"))


def stories260k(folder):
    """The models of that set; says so when there are none."""
    found = glob.glob(os.path.join(folder, "*.gguf")) + glob.glob(os.path.join(folder, "*", "model.safetensors"))
    if not found:
        report("stories260K", [], f"not in {folder}")
    return sorted(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tundish")
    parser.add_argument("--models")
    parser.add_argument("--stories")
    arguments = parser.parse_args()
    models, stories = folders(arguments)

    with tempfile.TemporaryDirectory(prefix="tundish-oracle-") as folder:
        make_models.make(folder)
        generated = glob.glob(os.path.join(folder, "*.gguf")) + glob.glob(os.path.join(folder, "*.safetensors"))
        for path in sorted(generated):
            # Types that the package lacks; an alignment that the specification allows and the package does not.
            test_model(arguments.tundish, path, os.path.basename(path) not in ("types-rest.gguf", "align24.gguf"))

    for path in stories260k(stories):
        test_model(arguments.tundish, path)

    real = os.path.join(models, SMOLLM2)
    if os.path.isfile(real):
        test_model(arguments.tundish, real)
    else:
        report("SmolLM2-135M-Instruct", [], f"not in {models}; ./demo brings it")

    return finish()


if __name__ == "__main__":
    sys.exit(main())
