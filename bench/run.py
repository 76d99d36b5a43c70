#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures loads beside the disk's own limit and beside other loaders, all in one run: A B C, A B C, … Writes
bench/results/*.json and prints Markdown. Every run is a fresh process; README.md tells how the state before it is made
and proven. WHAT is a suite or some of its groups."""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

import suites
from contender import attempt, check, rates, run_once, spread
from state import HeldMemory

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tundish"


def shown(text):
    """As somebody else would write it: without this machine's folders."""
    for folder, name in ((f"{Path(__file__).resolve().parent.parent}/", ""), (str(Path.home()), "~")):
        text = text.replace(folder, name)
    return text


# ---- The machine --------------------------------------------------------------------------------------------------

def machine():
    def first(path, key):
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
        return "?"

    return {
        "cpu": first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "virtual": "hypervisor" in first("/proc/cpuinfo", "flags").split(),
        "load_average": os.getloadavg()[0],
    }


def steal_share(before, after):
    """Of the cores' time: what the hypervisor gave to others."""
    spent = [b - a for a, b in zip(before, after)]
    return spent[7] / max(1, sum(spent[:8]))


def processor_ticks():
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def measure_limits(build, model, rounds):
    """Which shape of reads this disk likes best, and what memory can do."""
    HeldMemory(int(2.1 * model.stat().st_size + 0.4e9)).free()
    command = [build / "bench/bench-probe", "--json", "--rounds", str(rounds), "--place", "--memcpy", "--touch", model]
    return json.loads(subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True).stdout)


# ---- One group ----------------------------------------------------------------------------------------------------

def measure(group, rounds, checked):
    """checked: what has been compared already; None to compare nothing."""
    for contender in group.contenders:
        # Ours goes other ways out of a warm cache; a peer goes the way that its settings say.
        key = (shlex.join(map(str, contender.command)), "" if contender.peer else contender.state)
        if contender.check and checked is not None and key not in checked:
            checked.add(key)
            print(f"{group.name}: checking {contender.name}, {contender.state} …", file=sys.stderr)
            attempt(check, contender)
    for number in range(rounds * group.times):
        print(f"{group.name}: round {number + 1} of {rounds * group.times} …", file=sys.stderr)
        for contender in group.contenders:
            contender.runs.append(None if contender.failed else attempt(run_once, contender))


def summary(contender, limit):
    """Medians with their extremes; ratios are taken within each round first."""
    runs = [run for run in contender.runs if run]
    row = {"wall_s": [run["wall_s"] for run in runs], "cpu_s": [run["cpu_s"] for run in runs if "cpu_s" in run]}
    if not runs:
        return row
    row["median_s"] = median(row["wall_s"])
    if contender.rate:
        row["gb_per_s"] = [contender.bytes() / wall / 1e9 for wall in row["wall_s"]]
        row["cpu_s_per_gb"] = median(row["cpu_s"]) / contender.bytes() * 1e9
        if limit and contender.state == "cold":
            row["of_disk"] = rates(contender, limit)
        if contender.beside:
            row["of_beside"] = rates(contender, contender.beside)
    for key in ("memory_bytes", "beyond_bytes"):
        values = [run[key] for run in runs if run.get(key) is not None]
        if values:
            row[key] = max(values)
    return row


def columns(group):
    scale, digits = (1e3, 1) if group.unit == "ms" else (1, 3)

    def megabytes(row, key):
        return format(row[key] / 1e6, ".0f") if key in row else ""

    return [
        (group.unit, lambda row: spread([wall * scale for wall in row["wall_s"]], digits)),
        ("GB/s", lambda row: spread(row.get("gb_per_s"), 2)),
        ("÷ disk, pair by pair", lambda row: spread(row.get("of_disk"), 2)),
        ("÷ the row above, pair by pair", lambda row: spread(row.get("of_beside"), 2)),
        ("CPU s/GB", lambda row: format(row["cpu_s_per_gb"], ".3f") if "cpu_s_per_gb" in row else ""),
        ("memory MB", lambda row: megabytes(row, "memory_bytes")),
        ("beyond the tensors MB", lambda row: megabytes(row, "beyond_bytes")),
    ]


def print_table(head, lines):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for line in lines:
        print("| " + " | ".join(line) + " |")


def print_group(group, rows):
    print(f"\n### {group.title}\n")
    filled = [(name, function) for name, function in columns(group) if any(function(row) for row in rows)]
    lines = [[contender.name, contender.state, *(function(row) for _, function in filled)]
             for contender, row in zip(group.contenders, rows)]
    print_table(["contender", "cache", *(name for name, _ in filled)], lines)
    for contender in group.contenders:
        lost = sum(run is None for run in contender.runs)
        parsing = [run["report"]["parsing_ns"] for run in contender.runs if run and "parsing_ns" in run["report"]]
        if parsing:
            print(f"\n{contender.name}, {contender.state}: {median(parsing) / 1e9:.2f} s of it is reading metadata.")
        if contender.failed:
            print(f"\n{contender.name}, {contender.state}, does not run: {contender.failed.splitlines()[-1]}")
        elif lost:
            print(f"\n{contender.name}, {contender.state}: {lost} runs left out, their state could not be proven.")
    if any(run and run["proven"] is None for contender in group.contenders for run in contender.runs):
        print("\nNot proven: this disk has no statistics.")
    sys.stdout.flush()


def aims_of(group):
    """Those that have figures."""
    aims = [aim() for aim in group.aims]
    return [aim for aim in aims if aim and aim.values]


def print_aims(measured):
    lines = []
    for group, aims in measured:
        for aim in aims:
            bound = f"≥ {aim.at_least:.3g}" if aim.at_least is not None else f"≤ {aim.at_most:.3g}"
            lines.append([group.name, aim.what, bound, spread(aim.values, 3), "yes" if aim.holds() else "no"])
    if lines:
        print("\n### Aims\n")
        print_table(["group", "what", "aim", "measured", "holds"], lines)


# ---- The whole ----------------------------------------------------------------------------------------------------

def print_head(result):
    limits, host = result["limits"], result["machine"]
    best, place = limits["best"], next(each for each in limits["all"] if each["place"])
    copy, touch = limits["copy"], limits["touch"]
    print(f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, {result['date'][:10]}. "
          f"Median (min–max) of {result['rounds']}, interleaved.\n")
    print(f"Probe: {best['block_bytes'] >> 10} KiB × {best['depth']}, pool {best['pool_bytes'] / (1 << 20):.0f} MiB. "
          f"Limits, GB/s: each block to its place {place['gb_per_s']:.2f}; copy of a cached block "
          f"({copy['nontemporal']}, non-temporal) {copy['cached_nontemporal_gb_per_s']:.1f}, memcpy "
          f"{copy['cached_memcpy_gb_per_s']:.1f}, memory to memory {copy['memory_memcpy_gb_per_s']:.1f}; first touch, "
          f"1 / 2 threads {touch['threads_1_gb_per_s']:.1f} / {touch['threads_2_gb_per_s']:.1f}.")
    sys.stdout.flush()


def group_json(group, rows, aims):
    return {"name": group.name, "title": group.title,
            "contenders": [{"name": contender.name, "state": contender.state, "timed": contender.timed,
                            "bytes": contender.bytes(), "command": shlex.join(map(str, contender.command)),
                            "failed": contender.failed, **row, "runs": contender.runs}
                           for contender, row in zip(group.contenders, rows)],
            "aims": [{"what": aim.what, "values": aim.values, "at_least": aim.at_least, "at_most": aim.at_most,
                      "holds": aim.holds()} for aim in aims]}


def find_peers(options):
    """The python that has them; None, and a word about it, where they are not."""
    python = CACHE / "peers/bin/python3"
    if options.no_peers or python.exists():
        return None if options.no_peers else python
    print("without peers: bench/peers/setup.sh installs them", file=sys.stderr)
    return None


def choose(setting, options):
    groups = suites.chosen(setting, options.what, options.model and options.model.resolve())
    for group in groups:
        group.contenders = [each for each in group.contenders if each.name == suites.LIMIT or options.only in each.name]
        group.aims = group.aims if not options.only else []
        for path in (path for contender in group.contenders for path in contender.files()):
            if not path.exists():
                sys.exit(f"no {path}: bench/models.py, and scripts/fetch_model.py for SmolLM2, bring the models")
    return groups


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["host"], metavar="WHAT", help="suites or groups (host)")
    parser.add_argument("--model", type=Path, help="the plain loads, cold and warm, of this file instead")
    parser.add_argument("--build", type=Path, default=HERE.parent / "build", help="Meson's folder (build)")
    parser.add_argument("--models", type=Path, default=CACHE / "bench", help="where models.py has put its models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only contenders whose name has this in it, and the disk; no aims")
    parser.add_argument("--no-peers", action="store_true", help="only our own")
    parser.add_argument("--no-check", action="store_true", help="do not compare every byte before the rounds")
    parser.add_argument("--list", action="store_true", help="say which groups there are, with who is in them")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes (bench/results)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return options


def main():
    options = parse()
    setting = suites.Setting(build=options.build.resolve(), models=options.models.resolve(),
                             smollm2=CACHE / "models/SmolLM2-135M-Instruct.Q4_1.gguf", python=find_peers(options),
                             probe_shape=[])
    groups = choose(setting, options)
    if options.list:
        for group in groups:
            print(f"{group.name}: {group.title}")
            for contender in group.contenders:
                print(f"    {contender.state}  {contender.name}")
        return
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "command": shlex.join(sys.argv), "machine": machine(), "rounds": options.rounds, "groups": []}
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / (result["date"].replace(":", "").replace("+0000", "Z") + ".json")
    ticks = processor_ticks()

    print("limits …", file=sys.stderr)
    result["limits"] = measure_limits(setting.build, options.model or suites.model(setting, suites.LIMITS_MODEL), 3)
    best = result["limits"]["best"]
    setting.probe_shape += ["--block", str(best["block_bytes"]), "--depth", str(best["depth"])]
    groups = choose(setting, options)  # now that the probe's shape is known
    print_head(result)
    measured, checked = [], None if options.no_check else set()
    for group in groups:
        measure(group, options.rounds, checked)
        limit = next((each for each in group.contenders if each.name == suites.LIMIT), None)
        rows = [summary(contender, limit) for contender in group.contenders]
        measured.append((group, aims_of(group)))
        print_group(group, rows)
        result["groups"].append(group_json(group, rows, measured[-1][1]))
        result["steal_share"] = steal_share(ticks, processor_ticks())
        path.write_text(shown(json.dumps(result, indent=1)) + "\n")  # after each group: a long run may be cut short
    print_aims(measured)
    print(f"\nSteal {result['steal_share'] * 100:.1f} %.")
    print(f"\n{path}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"run.py: {error}")
