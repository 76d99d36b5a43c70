# SPDX-License-Identifier: Apache-2.0
"""What run.py measures: groups of contenders that take turns, and what their figures should be.

A further contender is one line in a group: a command whose last line of output is JSON with wall_ns and cpu_ns, or
timed="process". A further group is one function and one line in SUITES."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from contender import Contender, best, each, pairs, rates

HERE = Path(__file__).resolve().parent
LIMIT = "disk (bare probe)"
LIMITS_MODEL = "qwen2.5-0.5b-f16.safetensors"


@dataclass
class Setting:
    """Where things are on this machine."""
    build: Path
    models: Path  # of models.py
    smollm2: Path
    python: Path  # that has the peers; None: without them
    probe_shape: list = None  # the best of this disk: block and depth


@dataclass
class Aim:
    what: str
    values: list  # a figure per round
    at_least: float = None
    at_most: float = None

    def holds(self):
        middle = median(self.values)
        return (self.at_least is None or middle >= self.at_least) and (self.at_most is None or middle <= self.at_most)


@dataclass
class Group:
    name: str
    title: str
    contenders: list
    aims: list = field(default_factory=list)  # functions without arguments that return Aims, once all has run
    unit: str = "s"  # or ms
    times: int = 1  # as many rounds: short runs scatter more, and cost little
    held_share: float = 2.1  # of the model: what the hungriest of them takes, page cache and copies; the same for all

    def __post_init__(self):
        for contender in self.contenders:
            contender.held_share = self.held_share


# ---- Contenders ---------------------------------------------------------------------------------------------------

def probe(setting, model):
    command = [setting.build / "bench/bench-probe", "--json", "--rounds", "1", *setting.probe_shape, model]
    return Contender(LIMIT, "cold", command, model)


def load(setting, name, state, model, *options, beside=None, **more):
    """One load through the library."""
    command = [setting.build / "bench/bench-load", "--json", *options, model]
    if "--dtype" not in options:
        check = command + ["--check"]
    elif setting.python:
        check = [setting.python, HERE / "peers/converted.py", "--dtype", "f16", setting.build / "tools/tundish", model]
    else:
        check = None
    return Contender(name, state, command, model, check, beside=beside, **more)


def tundish(setting, name, state, model, *words, **more):
    return Contender(name, state, [setting.build / "tools/tundish", *words, model], model, **more)


def versions():
    lines = (HERE / "peers/requirements.txt").read_text().split()
    return dict(line.split("==") for line in lines if "==" in line)


def peer(setting, package, how, words, state, model, dtype="native", maps=False):
    """A list of one, or of none where the peers are not installed."""
    if not setting.python:
        return []
    script = {"runai-model-streamer": "runai"}.get(package, package)
    name = {"runai-model-streamer": "Run:ai streamer"}.get(package, package)
    files = Contender("", state, [], model).files()
    command = [setting.python, HERE / f"peers/load_{script}.py", "--how", how, "--dtype", dtype, *files]
    return [Contender(f"{name} {versions()[package]}: {words}", state, command, model, command + ["--check"],
                      ready=True, peer=True, maps=maps)]


def plain_peers(setting, state, model):
    """As they load what is in the file; the fastest settings that their documentation or code has for the state."""
    def one(*words, **more):
        return peer(setting, *words, state, model, **more)

    if model.suffix == ".gguf":
        return one("gguf", "copy", "GGUFReader, copied by numpy")
    mapped = one("safetensors", "mmap-touch", "mapped, touched, no copy", maps=True)
    copied = one("safetensors", "mmap-clone", "mapped + clone()") + one("safetensors", "pread", 'backend="pread"')
    cache = one("fastsafetensors", "cache", "nogds, FASTSAFETENSORS_ODIRECT=0")
    if state == "cold":
        return (mapped + copied + one("fastsafetensors", "direct", "nogds, O_DIRECT (default)") + cache +
                one("runai-model-streamer", "io_uring_direct", "io_uring_direct (default)"))
    return (mapped + copied + cache +
            one("runai-model-streamer", "io_uring_buffered", "io_uring_buffered") +
            one("runai-model-streamer", "sync_buffered", "sync_buffered"))


def converting_peers(setting, state, model):
    """To F16: within the load where there is such an option, else tensor by tensor as they come, by torch."""
    def one(*words):
        return peer(setting, *words, state, model, dtype="f16")

    way = "io_uring_direct" if state == "cold" else "io_uring_buffered"
    return (one("safetensors", "mmap-clone", "mapped, half()") +
            one("fastsafetensors", "cache", "nogds, FASTSAFETENSORS_ODIRECT=0, dtype=F16") +
            one("runai-model-streamer", way, f"{way}, half()"))


# ---- Aims ---------------------------------------------------------------------------------------------------------

def of_disk(contender, disk, share):
    return lambda: Aim(f"{contender.name} ÷ disk", rates(contender, disk), at_least=share)


def of_other(contender, other, share):
    return lambda: Aim(f"{contender.name} ÷ {other.name}, {contender.state}", rates(contender, other), at_least=share)


def cpu_per_gb(contender, most):
    return lambda: Aim(f"{contender.name}, {contender.state}: CPU s/GB",
                       each(contender, lambda run: run["cpu_s"] / contender.bytes() * 1e9), at_most=most)


def beyond(contender, most):
    """Memory that is neither destination nor pool."""
    def share(run):
        return max(0, run["beyond_bytes"] - run["report"]["pool_bytes"]) / contender.bytes()

    return lambda: Aim(f"{contender.name}: memory beyond destination and pool ÷ model", each(contender, share),
                       at_most=most)


def ahead(ours, peers):
    """Ours ÷ the best of the peers, whoever that is: time, CPU, memory."""
    def aim(key, word, most):
        rival = best([each_ for each_ in peers if each_.peer and each_.maps == ours.maps], key)
        if not rival:
            return None
        return Aim(f"{ours.name}, {ours.state}: {word} ÷ the best peer's ({rival.name})",
                   pairs(ours, rival, lambda run: run[key]), at_most=most)

    return [lambda: aim("wall_s", "time", 1), lambda: aim("cpu_s", "CPU", 1), lambda: aim("memory_bytes", "memory", 1)]


def set_up(contender):
    def share(run):
        report = run["report"]
        return (report["open_ns"] + report["plan_ns"] + report["setup_ns"]) / report["wall_ns"]

    return lambda: Aim(f"{contender.name}: set-up ÷ load", each(contender, share), at_most=0.05)


def set_up_again(contender):
    """Model and loader are there already: only the plan is made anew."""
    return lambda: Aim(f"{contender.name}: set-up ÷ load",
                       each(contender, lambda run: run["report"]["plan_ns"] / run["report"]["wall_ns"]), at_most=0.005)


def first_layer(setting, contender):
    """What a layer 0 needs, ÷ all, × 1.5 for what is in flight beside it, and what stands before the first read."""
    def aim():
        command = [setting.build / "tools/tundish", "info", "--json", contender.model]
        tensors = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["tensors"]
        needed = sum(each_["bytes"] for each_ in tensors if each_["layer"] == 0 or "embd" in each_["name"] or
                     "embed" in each_["name"])
        share = needed / sum(each_["bytes"] for each_ in tensors)
        return Aim(f"{contender.name}: first layer ÷ ready, {share:.3f} of the bytes",
                   each(contender, lambda run: run["report"]["first_layer_ns"] / run["report"]["ready_ns"]),
                   at_most=1.5 * share + 0.01)

    return aim


# ---- Groups -------------------------------------------------------------------------------------------------------

def model(setting, name):
    return setting.models / name


def f16_cold(setting, path=None, gguf=None):
    path, gguf = path or model(setting, "qwen2.5-0.5b-f16.safetensors"), gguf or model(setting, "qwen2.5-0.5b-f16.gguf")
    disk = probe(setting, path)
    touched = load(setting, "load, touched memory", "cold", path, "--touched")
    fresh = load(setting, "load, fresh memory", "cold", path)
    again = tundish(setting, "tundish load --repeat 2, the second", "cold", path, "load", "--json", "--repeat", "2")
    ours = [touched, fresh,
            load(setting, "load, in place, touched memory", "cold", path, "--touched", "--in-place", "on"),
            load(setting, "load, threads engine, touched memory", "cold", path, "--touched", "--engine", "threads"),
            load(setting, "load, mmap engine", "cold", path, "--engine", "mmap", maps=True), again]
    peers = plain_peers(setting, "cold", path)
    if gguf != path:
        ours.append(load(setting, "load, fresh memory, GGUF", "cold", gguf))
        peers += plain_peers(setting, "cold", gguf)
    aims = [of_disk(touched, disk, 0.95), of_disk(fresh, disk, 0.90), cpu_per_gb(touched, 0.15),
            cpu_per_gb(fresh, 0.32), beyond(fresh, 0.03), set_up(fresh), set_up_again(again),
            first_layer(setting, touched), *ahead(fresh, peers)]
    return Group("f16-cold", f"{path.name}, cold", [disk, *ours, *peers], aims)


def f16_warm(setting, path=None, gguf=None):
    path, gguf = path or model(setting, "qwen2.5-0.5b-f16.safetensors"), gguf or model(setting, "qwen2.5-0.5b-f16.gguf")
    fresh = load(setting, "load, fresh memory", "warm", path)
    mapped = load(setting, "load, mmap engine", "warm", path, "--engine", "mmap", maps=True)
    ours = [load(setting, "load, touched memory", "warm", path, "--touched"), fresh, mapped,
            tundish(setting, "tundish load", "warm", path, "load", "--json")]
    peers = plain_peers(setting, "warm", path)
    if gguf != path:
        peers += plain_peers(setting, "warm", gguf)
    return Group("f16-warm", f"{path.name}, warm", [*ours, *peers], [*ahead(fresh, peers), *ahead(mapped, peers)],
                 held_share=1.2)


def convert(setting, form, state):
    path = model(setting, f"qwen2.5-0.5b-{form}.safetensors")
    word = form.upper()
    ours, aims = [], []
    for memory in ("touched", "fresh"):
        plain = load(setting, f"load as it is, {memory} memory", state, path, f"--{memory}")
        converted = load(setting, f"load {word}→F16, {memory} memory", state, path, f"--{memory}", "--dtype", "f16",
                         beside=plain)
        ours += [plain, converted]
        aims.append(of_other(converted, plain, 0.95))
    fresh_adds = 0.17 / (2 if form == "f32" else 1)  # of the destination, which is half of an F32 file
    aims += [cpu_per_gb(ours[1], 0.15), cpu_per_gb(ours[3], 0.15 + fresh_adds)]
    peers = converting_peers(setting, state, path)
    disk = [probe(setting, path)] if state == "cold" else []
    return Group(f"{form}-f16-{state}", f"{path.name} → F16, {state}", [*disk, *ours, *peers],
                 [*aims, *ahead(ours[3], peers)], held_share=1.6 if form == "f32" else 2.1)


def digest(setting):
    path = model(setting, "qwen2.5-0.5b-f16.safetensors")
    all_, aims = [], []
    for state in ("cold", "warm"):
        off = load(setting, "load, touched memory", state, path, "--touched")
        on = load(setting, "load, touched memory, XXH3 of each tensor", state, path, "--touched", "--digest", "xxh3",
                  beside=off)
        all_ += [off, on]
        aims.append(of_other(on, off, 0.97))
    return Group("digest", f"{path.name}, digests on ÷ off", [probe(setting, path), *all_], aims, held_share=1.1)


def shards(setting):
    one, folder = model(setting, "qwen2.5-0.5b-f16.safetensors"), model(setting, "qwen2.5-0.5b-f16-shards")
    single = load(setting, "load, fresh memory, one file", "cold", one)
    sharded = load(setting, "load, fresh memory, 8 shards", "cold", folder, beside=single)
    disk = probe(setting, one)
    peers = (peer(setting, "safetensors", "mmap-clone", "mapped + clone()", "cold", folder) +
             peer(setting, "fastsafetensors", "cache", "nogds, FASTSAFETENSORS_ODIRECT=0", "cold", folder) +
             peer(setting, "runai-model-streamer", "io_uring_direct", "io_uring_direct (default)", "cold", folder))
    return Group("shards", "The F16 model in 8 shards, cold", [disk, single, sharded, *peers],
                 [of_disk(sharded, disk, 0.90), *ahead(sharded, peers)])


def smollm2(setting):
    path = setting.smollm2
    disk = probe(setting, path)
    fresh = load(setting, "load, fresh memory", "cold", path)

    def over():
        return Aim("load, fresh memory: ms beyond 1.05 × bytes ÷ disk",
                   [(run["wall_s"] - 1.05 * limit["wall_s"]) * 1e3
                    for run, limit in zip(fresh.runs, disk.runs) if run and limit], at_most=5)

    ours = [load(setting, "load, touched memory", "cold", path, "--touched"), fresh,
            tundish(setting, "tundish load, exec to exit", "cold", path, "load", "--json", timed="process")]
    peers = plain_peers(setting, "cold", path)
    return Group("smollm2", f"{path.name}, cold", [disk, *ours, *peers], [over, *ahead(fresh, peers)],
                 unit="ms", times=2)


def commands(setting):
    """Whole processes; `true` tells what starting and reaping one costs in itself."""
    tiny, gguf = model(setting, "tiny-f16.gguf"), model(setting, "qwen2.5-0.5b-f16.gguf")
    process = dict(timed="process", rate=False)
    whole = tundish(setting, "tundish load, 1 MB model", "warm", tiny, "load", "--json", **process)
    all_ = [Contender("true", "warm", ["true"], tiny, **process), whole,
            tundish(setting, "tundish info, 151,936 tokens to print", "warm", gguf, "info", "--json", **process)]
    return Group("commands", "Exec to exit, warm", all_,
                 [lambda: Aim(f"{whole.name}: ms", each(whole, lambda run: run["wall_s"] * 1e3), at_most=5)],
                 unit="ms", times=3, held_share=0)


def many(setting):
    path = model(setting, "many-f16.safetensors")
    disk, all_, aims = probe(setting, path), [], []
    for state in ("cold", "warm"):
        fresh = load(setting, "load, fresh memory", state, path)
        peers = [each_ for each_ in plain_peers(setting, state, path) if not each_.maps]
        all_ += [fresh, *peers]
        aims += ahead(fresh, peers)
    return Group("many", "20,000 tensors of 8 KiB", [disk, *all_], aims, unit="ms")


SUITES = {"host": [
    f16_cold,
    f16_warm,
    lambda setting: convert(setting, "f32", "cold"),
    lambda setting: convert(setting, "f32", "warm"),
    lambda setting: convert(setting, "bf16", "cold"),
    lambda setting: convert(setting, "bf16", "warm"),
    digest,
    shards,
    smollm2,
    commands,
    many,
]}


def chosen(setting, names, path):
    """Groups by the name of their suite or their own; with a model of the user's the plain ones, on that."""
    if path:
        return [f16_cold(setting, path, path), f16_warm(setting, path, path)]
    groups = {suite: [make(setting) for make in makes] for suite, makes in SUITES.items()}
    known = {group.name: [group] for suite in groups.values() for group in suite}
    known.update(groups)
    for name in names:
        if name not in known:
            raise ValueError(f"no {name}: one of {', '.join(known)}")
    return [group for name in names for group in known[name]]
