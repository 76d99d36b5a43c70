#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures layers as a consumer takes them, whole models and through windows, beside the disk alone in the same minute.
Prints Markdown and writes bench/results/*-walk.json. Cold is made as in run.py. Reads go past the page cache unless a
row says otherwise, so that a second token finds what the first one did.

    bench/walk.py [--build FOLDER] [--rounds N] [MODEL …]"""

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

from contender import spread
from run import CACHE, HERE, machine, print_table, processor_ticks, shown, steal_share
from state import HeldMemory, make_cold

MODELS = ("bench/qwen2.5-0.5b-f16.gguf", "bench/llama2-7b-q4_0.gguf", "models/SmolLM2-135M-Instruct.Q4_1.gguf")
SHARES = (100, 50, 25, 10)  # per cent of the layers' bytes
TOKENS = 4
WARM_TOKENS = 101  # the first one loads, the others find all there
WARM_COMPUTE_NS = 20000  # a layer: little beside what inference takes, so that what is lost beside it shows
LARGE_BYTES = 1e9  # from here on the aims hold


class Model:
    """One model, with what its load is made of."""

    def __init__(self, path, build):
        self.path, self.build = path, build
        sizes = self.run("--tokens", 1, "--direct", "on")
        self.layers = sizes["layers"]
        self.shared_bytes = sizes["shared_bytes"]
        self.layer_bytes = sizes["model_bytes"] - self.shared_bytes
        plan = json.loads(subprocess.run([build / "tools/tundish", "info", "--json", path], stdout=subprocess.PIPE,
                                         check=True).stdout)
        first = [each["bytes"] for each in plan["tensors"]
                 if each["layer"] == 0 or (each["layer"] < 0 and "output" not in each["name"])]
        self.first_bytes = sum(first)

    def cold(self):
        HeldMemory(int(2.1 * self.path.stat().st_size + 0.4e9)).free()
        make_cold(self.path)

    def run(self, *words):
        self.cold()
        command = [self.build / "bench/bench-layers", *words, self.path]
        answer = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
        return {"command": shlex.join(map(str, command[1:])), **json.loads(answer.stdout)}

    def window(self, share):
        return [] if share == 100 else ["--resident", self.layer_bytes * share // 100]

    def disk_rate(self):
        """Bytes a second of the bare probe."""
        self.cold()
        answer = subprocess.run([self.build / "bench/bench-probe", "--json", "--rounds", "1", self.path],
                                stdout=subprocess.PIPE, check=True)
        return json.loads(answer.stdout)["best"]["gb_per_s"] * 1e9

    def read_ns(self, share):
        """What a layer takes to read, by a first token that does not compute."""
        run = self.run("--direct", "on", "--tokens", 1, *self.window(share))
        return (run["last_layer_ns"] - run["first_layer_ns"]) / (self.layers - 1)


class Bench:
    def __init__(self, rounds):
        self.round_count, self.groups, self.aims = rounds, [], []

    def rounds(self, title, once, count=None):
        runs, count = [], count or self.round_count
        for number in range(count):
            print(f"{title}: round {number + 1} of {count} …", file=sys.stderr)
            runs.append(once())
        self.groups.append({"title": title, "runs": runs})
        return runs

    def aim(self, model, what, values, bound, holds):
        if model.path.stat().st_size >= LARGE_BYTES:
            self.aims.append([f"{model.path.name}: {what}", bound, spread(values, 3),
                              "yes" if holds(median(values)) else "no"])


def each(runs, key, scale=1):
    return [run[key] / scale for run in runs]


def paced(bench, model, factor):
    lines = []
    for share in SHARES:
        def once(*more, share=share):
            compute = int(factor * model.read_ns(share))
            return model.run("--direct", "on", "--tokens", TOKENS, "--compute-ns", compute, *model.window(share), *more)

        title = f"{model.path.name}, {share} %, computing {factor} × reading"
        runs = bench.rounds(title, once)
        alone = bench.rounds(f"{title}, no prefetch", lambda: once("--ahead", 0), count=1)
        lines.append([f"{share} %", str(runs[0]["resident_layers"]), spread(each(runs, "sync_loads"), 0),
                      spread(each(runs, "late_hits"), 0), spread(each(runs, "hits"), 0),
                      spread(each(runs, "stalled_ns", 1e6), 1), spread(each(alone, "stalled_ns", 1e6), 0),
                      spread(each(runs, "bytes_reread", 1e6 * (TOKENS - 1)), 0)])
        if factor == 1.25:
            late = [max(0, run["late_hits"] + run["sync_loads"] - 1) for run in runs]
            bench.aim(model, f"{share} %, computing 1.25 × reading: stalls beyond the first layer's", late, "0",
                      lambda value: value == 0)
    print(f"\n### {model.path.name}: computing {factor} × reading, {TOKENS} tokens of {model.layers} layers, cold\n")
    print_table(["window", "layers in it", "synchronous", "late hits", "hits", "stalled ms", "without prefetch",
                 "read again MB a token"], lines)


def read_bound(bench, model):
    lines = []
    for share in SHARES[1:]:
        def once(share=share):
            rate = model.disk_rate()
            run = model.run("--direct", "on", "--tokens", TOKENS, *model.window(share))
            run["pure_ns"] = run["bytes_fetched"] / rate * 1e9
            return run

        runs = bench.rounds(f"{model.path.name}, {share} %, not computing", once)
        over = [sum(run["tokens_ns"]) / run["pure_ns"] for run in runs]
        lines.append([f"{share} %", spread([sum(run["tokens_ns"]) / 1e9 for run in runs], 2),
                      spread(each(runs, "bytes_fetched", 1e9), 2), spread(over, 3)])
        bench.aim(model, f"{share} %, not computing: time ÷ pure reading time", over, "≤ 1.05",
                  lambda value: value <= 1.05)
    print(f"\n### {model.path.name}: not computing, {TOKENS} tokens, cold\n")
    print_table(["window", "s", "read GB", "÷ pure reading time"], lines)


def hand_over(bench, model):
    """How soon the first layer is there, and what lies between a load and its consumer: taken and ready are of one
    process, whose consumer takes shared-in, all layers and shared-out as they come."""
    def once():
        rate = model.disk_rate()
        run = model.run("--direct", "on", "--tokens", WARM_TOKENS)
        lazy = model.run("--direct", "on", "--tokens", WARM_TOKENS, "--lazy")
        warm = [model.run("--direct", "on", "--tokens", WARM_TOKENS, "--compute-ns", WARM_COMPUTE_NS, *words)
                for words in ([], ["--lazy"])]
        return {"eager": run, "lazy": lazy, "eager_computing": warm[0], "lazy_computing": warm[1],
                "first_disk_ns": model.first_bytes / rate * 1e9}

    def later_ns(run):
        """A token once all is there: the first one is the load's."""
        return median(run["tokens_ns"][1:])

    runs = bench.rounds(f"{model.path.name}, hand-over", once)
    eager, lazy = [run["eager"] for run in runs], [run["lazy"] for run in runs]
    first = [(run["eager"]["first_layer_ns"] - run["eager"]["setup_ns"]) / run["first_disk_ns"] for run in runs]
    beyond = [run["taken_ns"] / run["ready_ns"] for run in eager]
    speed = [later_ns(run["eager_computing"]) / later_ns(run["lazy_computing"]) for run in runs]
    print(f"\n### {model.path.name}: from disk to consumer, cold\n")
    print_table(["what", "measured"],
                [["first layer acquired, ms", spread(each(eager, "first_layer_ns", 1e6), 1)],
                 ["the same, lazy", spread(each(lazy, "first_layer_ns", 1e6), 1)],
                 ["set-up: until the load's start has returned, ms", spread(each(eager, "setup_ns", 1e6), 2)],
                 ["first layer less set-up, ÷ (shared-in + layer 0) ÷ disk", spread(first, 2)],
                 ["all taken ÷ load ready, in the same process", spread(beyond, 3)],
                 ["tokens/s after a lazy load ÷ after an eager one", spread(speed, 3)],
                 ["acquire and release of a layer that is there, ns", spread(each(eager, "acquire_ns"), 0)],
                 ["the same after a lazy load", spread(each(lazy, "acquire_ns"), 0)]])
    bench.aim(model, "first layer less set-up, ÷ (shared-in + layer 0) ÷ disk", first, "≤ 1.5",
              lambda value: value <= 1.5)
    bench.aim(model, "all taken ÷ load ready", beyond, "≤ 1.01", lambda value: value <= 1.01)
    bench.aim(model, "tokens/s, lazy ÷ eager", speed, "≥ 0.99", lambda value: value >= 0.99)
    bench.aim(model, "acquire and release, ns", each(eager, "acquire_ns"), "≤ 1000", lambda value: value <= 1000)


def ways(bench, model):
    lines = []
    for name, words in (("auto", []), ("the disk", ["--direct", "on"]), ("the page cache", ["--direct", "off"]),
                        ("the mapped file", ["--engine", "mmap"])):
        runs = bench.rounds(f"{model.path.name}, 50 %, {name}",
                            lambda words=words: model.run(*words, "--tokens", 8, *model.window(50)))
        lines.append([name, spread([run["tokens_ns"][0] / 1e6 for run in runs], 0),
                      spread([median(run["tokens_ns"][1:]) / 1e6 for run in runs], 0),
                      spread([sum(run["tokens_ns"]) / 1e6 for run in runs], 0)])
    print(f"\n### {model.path.name}: where a window of 50 % reads from, cold, not computing, 8 tokens, ms\n")
    print_table(["from", "first token", "a later one", "all"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--build", type=Path, default=HERE.parent / "build", help="Meson's folder (build)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes (bench/results)")
    options = parser.parse_args()
    paths = options.models or [CACHE / name for name in MODELS]
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    bench, ticks, host = Bench(options.rounds), processor_ticks(), machine()

    print(f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, {date[:10]}. Median (min–max) of "
          f"{options.rounds}.")
    for path in paths:
        model = Model(path, options.build.resolve())
        for factor in (1.25, 1.05):
            paced(bench, model, factor)
        read_bound(bench, model)
        hand_over(bench, model)
        ways(bench, model)
    print("\n### Aims\n")
    print_table(["what", "aim", "measured", "holds"], bench.aims)
    result = {"date": date, "command": shlex.join(sys.argv), "machine": host, "rounds": options.rounds,
              "steal_share": steal_share(ticks, processor_ticks()), "groups": bench.groups, "aims": bench.aims}
    print(f"\nSteal {result['steal_share'] * 100:.1f} %.")
    options.results.mkdir(parents=True, exist_ok=True)
    name = date.replace(":", "").replace("+0000", "Z") + "-walk.json"
    (options.results / name).write_text(shown(json.dumps(result, indent=1)) + "\n")


if __name__ == "__main__":
    main()
