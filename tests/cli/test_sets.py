#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a model in several files loads as one; a set that is not whole or not consistent is refused in one sentence.

Method: split GGUF, sharded safetensors, folders, snapshots of links and a hub cache, written here, so that every byte
is known; digests by every engine against hashlib; each fault against its exit code and the file that is named.
Usage: test_sets.py TUNDISH [STORIES]     STORIES: a folder with real sets, whose parts .expect.json files describe"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import models

TUNDISH = str(Path(sys.argv[1]).resolve())
U16 = 2
models.SCALARS[U16] = "<H"
counts = {"passed": 0, "failed": 0, "skipped": 0}


def report(what, problem=None, skipped=None):
    counts["failed" if problem else "skipped" if skipped else "passed"] += 1
    if problem or skipped:
        print(f"{what}: {'failed' if problem else 'skipped'}: {problem or skipped}")


def run(*arguments, env=None):
    return subprocess.run([TUNDISH, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **(env or {})})


def check_digests(what, model, expected, files, env=None):
    """expected: {tensor: sha256}; files: the names of the files that info must list."""
    for mode in ((), ("--engine", "threads"), ("--chunk", "64K", "--in-place", "on"), ("--order", "file")):
        done = run("digest", model, "--json", *mode, env=env)
        if done.returncode:
            return report(what, f"{mode}: exit {done.returncode}: {done.stderr.strip()}")
        found = {t["name"]: t["sha256"] for t in json.loads(done.stdout)["tensors"]}
        if found != expected:
            return report(what, f"{mode}: other digests")
    listed = [os.path.basename(f["path"]) for f in json.loads(run("info", model, "--json", env=env).stdout)["files"]]
    return report(what, None if listed == files else f"info lists {listed}, not {files}")


def check_refused(what, model, exit_code, *words, env=None):
    done = run("info", model, env=env)
    lines = done.stderr.strip().splitlines()
    if done.returncode != exit_code or len(lines) != 1:
        return report(what, f"exit {done.returncode}, not {exit_code}: {done.stderr.strip()}")
    missing = [word for word in words if word not in lines[0]]
    return report(what, f"no {missing} in: {lines[0]}" if missing else None)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# ---- Split GGUF ----------------------------------------------------------------------------------------------------

TENSORS = [(f"blk.{i}.w", models.GGML_F32, (100 + i, 3)) for i in range(9)]


def split(folder, count=3, total=None, change=lambda part, keys: keys, tensors=None):
    """Writes model-00001-of-….gguf and so on; returns {tensor: sha256}."""
    tensors = tensors or [TENSORS[i::count] for i in range(count)]
    expected = {}
    for part in range(count):
        keys = [("split.no", U16, part), ("split.count", U16, count),
                ("split.tensors.count", models.I32, len(TENSORS) if total is None else total)]
        if part == 0:
            keys.insert(0, ("general.name", models.STRING, "in parts"))
        placed = models.write_gguf(folder / f"model-{part + 1:05d}-of-{count:05d}.gguf", tensors[part],
                                   change(part, keys))
        expected.update({name: sha256(data) for name, (_, data) in placed.items()})
    return expected


def without(key):
    return lambda part, keys: [k for k in keys if part != 1 or k[0] != key]


def instead(key, kind, value):
    return lambda part, keys: [(key, kind, value) if part == 1 and k[0] == key else k for k in keys]


def test_split(root):
    names = [f"model-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    folder = root / "split"
    folder.mkdir()
    expected = split(folder)
    for name in names:
        check_digests(f"split GGUF by {name}", folder / name, expected, names)
    check_digests("split GGUF by its folder", folder, expected, names)

    lone = root / "renamed.gguf"
    shutil.copy(folder / names[1], lone)
    check_refused("a part under another name", lone, 3, "renamed.gguf", "part 2 of 3")

    for what, exit_code, words, make in (
            ("a part missing", 7, [names[1]], lambda f: (split(f), os.unlink(f / names[1]))),
            ("a part cut", 3, [names[2]], lambda f: (split(f), os.truncate(f / names[2], 60))),
            ("a part twice", 3, [names[1], "part 1 of 3, expected 2 of 3"],
             lambda f: (split(f), shutil.copy(f / names[0], f / names[1]))),
            ("a tensor twice", 3, [names[1], "blk.0.w", "twice"],
             lambda f: split(f, tensors=[TENSORS[:3], TENSORS[:3], TENSORS[6:]])),
            ("too few tensors in all", 3, [names[2], "split.tensors.count of 10"], lambda f: split(f, total=10)),
            ("another number of tensors in all", 3, [names[1], "split.tensors.count of 8, expected 9 as in part 1"],
             lambda f: split(f, change=instead("split.tensors.count", models.I32, 8))),
            ("no split.tensors.count", 3, [names[1], "split.tensors.count"],
             lambda f: split(f, change=without("split.tensors.count"))),
            ("no split.no", 3, [names[1], "split.no"], lambda f: split(f, change=without("split.no"))),
            ("no split.count", 3, [names[1], "split.count"], lambda f: split(f, change=without("split.count"))),
            ("split.count of another set", 3, [names[1], "of 4"],
             lambda f: split(f, change=instead("split.count", U16, 4))),
            ("split.count of 1", 3, [names[1], "of 1"], lambda f: split(f, change=instead("split.count", U16, 1))),
            ("split.no of another type", 3, [names[1], "split.no of value type 4, expected 2"],
             lambda f: split(f, change=instead("split.no", models.U32, 1))),
            ("split.tensors.count of another type", 3, [names[1], "split.tensors.count"],
             lambda f: split(f, change=instead("split.tensors.count", models.U32, 9)))):
        with tempfile.TemporaryDirectory(dir=root) as bad:
            make(Path(bad))
            check_refused(f"split GGUF, {what}", Path(bad) / names[0], exit_code, *words)


# ---- Sharded safetensors -------------------------------------------------------------------------------------------

def shards(folder, index=None):
    """Writes three shards and their index; returns {tensor: sha256} and the names of the files."""
    expected, weight_map, files = {}, {}, []
    for shard in range(3):
        name = f"model-{shard + 1:05d}-of-00003.safetensors"
        tensors = [(f"model.layers.{i}.w", "F16", [37, 1 + i], models.filler(f"s{i}", 74 * (1 + i)))
                   for i in range(shard, 12, 3)]
        models.write_safetensors(folder / name, tensors, {"format": "pt"})
        files.append(name)
        for tensor, _, _, data in tensors:
            expected[tensor] = sha256(data)
            weight_map[tensor] = name
    text = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(text) if index is None else index(text))
    return expected, files


def changed(tensor, file):
    return lambda text: json.dumps({**text, "weight_map": {**text["weight_map"], tensor: file}})


def test_shards(root):
    folder = root / "shards"
    folder.mkdir()
    expected, files = shards(folder)
    check_digests("shards by their index", folder / "model.safetensors.index.json", expected, files)
    check_digests("shards by their folder", folder, expected, files)

    first, index = "model.layers.0.w", "index.json"
    for what, exit_code, words, change in (
            ("not JSON", 3, [index, "byte 1"], lambda t: "{oops"),
            ("an array", 3, [index, "byte 0"], lambda t: "[]"),
            ("cut", 3, [index], lambda t: json.dumps(t)[:-5]),
            ("empty", 3, [index, "empty"], lambda t: ""),
            ("no weight_map", 3, [index, "weight_map"], lambda t: "{}"),
            ("an empty weight_map", 3, [index], lambda t: '{"weight_map": {}}'),
            ("weight_map twice", 3, [index, "twice"], lambda t: '{"weight_map": {}, "weight_map": {}}'),
            ("weight_map no object", 3, [index], lambda t: '{"weight_map": 7}'),
            ("a file that is no string", 3, [index], changed(first, 7)),
            ("a file above", 3, [index, "byte"], changed(first, "../x.safetensors")),
            ("an absolute file", 3, [index], changed(first, "/etc/passwd")),
            ("a file below", 3, [index], changed(first, "a/b.safetensors")),
            ("a file ..", 3, [index], changed(first, "..")),
            ("a file without a name", 3, [index], changed(first, "")),
            ("a shard missing", 7, ["gone.safetensors"], changed(first, "gone.safetensors")),
            ("a tensor in another shard", 3, [index, first], changed(first, files[1])),
            ("a tensor that is nowhere", 3, [index, "phantom"], changed("phantom", files[0])),
            ("a tensor twice", 3, [index, first, "twice"],
             lambda t: json.dumps(t).replace('"weight_map": {', f'"weight_map": {{"{first}": "{files[0]}", '))):
        with tempfile.TemporaryDirectory(dir=root) as bad:
            shards(Path(bad), change)
            check_refused(f"index, {what}", bad, exit_code, *words)
    with tempfile.TemporaryDirectory(dir=root) as bad:
        shards(Path(bad), changed("w", "b.gguf"))
        models.write_gguf(Path(bad) / "b.gguf", [("w", models.GGML_F32, (4,))], [])
        check_refused("index, a shard that is a GGUF", bad, 3, "b.gguf", "byte 0")
    with tempfile.TemporaryDirectory(dir=root) as bad:
        shards(Path(bad))
        os.unlink(Path(bad) / files[1])
        os.mkfifo(Path(bad) / files[1])
        check_refused("a shard that is a FIFO", bad, 7, files[1], "FIFO")


# ---- Folders and the hub's cache -----------------------------------------------------------------------------------

def test_folders(root):
    empty = root / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("nothing")
    check_refused("a folder without a model", empty, 7, "empty")

    one = root / "one"
    one.mkdir()
    placed = models.write_gguf(one / "some.gguf", TENSORS, [])
    expected = {name: sha256(data) for name, (_, data) in placed.items()}
    check_digests("a folder with one GGUF", one, expected, ["some.gguf"])
    (one / "._some.gguf").write_bytes(b"not a model")
    (one / "folder.gguf").mkdir()
    check_digests("a folder with one GGUF and what only looks like one", one, expected, ["some.gguf"])
    shutil.copy(one / "some.gguf", one / "other.gguf")
    check_refused("a folder with two", one, 7, "several models")
    models.write_safetensors(one / "model.safetensors", [("w", "F32", [1], b"\0\0\0\0")])
    check_digests("a folder with the usual name among others", one, {"w": sha256(b"\0\0\0\0")}, ["model.safetensors"])


def test_hub(root):
    cache = root / "hub"
    repo = cache / "models--some--model"
    snapshot = repo / "snapshots" / "0123abcd"
    blobs = repo / "blobs"
    for folder in (snapshot, blobs, repo / "refs"):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abcd")
    expected, files = shards(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):  # as the hub keeps them: links to blobs
        path.rename(blobs / f"blob{number}")
        path.symlink_to(f"../../blobs/blob{number}")
    env = {"HF_HUB_CACHE": str(cache)}
    check_digests("a snapshot of links", snapshot, expected, files)
    check_digests("org/repo in the cache", "some/model", expected, files, env)
    check_digests("org/repo by HF_HOME", "some/model", expected, files, {"HF_HUB_CACHE": "", "HF_HOME": str(root)})
    done = run("info", f"some/model:{files[0]}", "--json", env=env)
    report("org/repo:file", None if done.returncode == 0 and len(json.loads(done.stdout)["tensors"]) == 4
           else done.stderr)
    check_refused("org/repo that is not there", "no/such", 7, "no/such", "hf download no/such", env=env)
    check_refused("org/repo:file that is not there", "some/model:gone.gguf", 7, "hf download some/model gone.gguf",
                  env=env)
    (repo / "refs" / "main").unlink()
    os.mkfifo(repo / "refs" / "main")
    check_refused("a reference that is a FIFO", "some/model", 7, "some/model", env=env)
    (repo / "refs" / "main").unlink()
    (repo / "refs" / "main").write_text("0123abcd/../../..")
    check_refused("a reference that leads elsewhere", "some/model", 7, "some/model", env=env)
    (repo / "refs" / "main").write_text("0123abcd\n")
    (snapshot / files[2]).unlink()
    (snapshot / files[2]).symlink_to(files[2])
    check_refused("a link to itself", "some/model", 7, files[2], env=env)


def test_stories(folder):
    if not folder.is_dir():
        return report("real sets", skipped=f"not in {folder}")
    for name in ("split", "hf-bf16-sharded"):
        expected, files = {}, []
        for path in sorted((folder / name).glob("*.expect.json")):
            described = json.loads(path.read_text())
            tensors = described["tensors"]
            for tensor in tensors if isinstance(tensors, list) else [{"name": k, **v} for k, v in tensors.items()]:
                expected[tensor["name"]] = next(v for k, v in tensor.items() if k == "raw_sha256")
            files.append(path.name[:-len(".expect.json")])
        check_digests(f"stories260K, {name}", folder / name, expected, files)
    return None


def main():
    beside = Path(__file__).resolve().parents[3] / "shared/models/stories260K"
    stories = Path(sys.argv[2]) if len(sys.argv) > 2 else beside
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        test_split(root)
        test_shards(root)
        test_folders(root)
        test_hub(root)
    test_stories(stories)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
