# SPDX-License-Identifier: Apache-2.0
"""Who runs, one run of it in a proven state, and what runs say when they are compared."""

import json
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import state

COLD_SHARE_MIN = 0.99  # of the file, drawn from the disk
WARM_SHARE_MAX = 0.01
TRIES = 5
HELD_BYTES = int(0.4e9)  # beside its share of the model


@dataclass(eq=False)
class Contender:
    name: str
    state: str  # of the page cache at the start: cold, warm
    command: list
    model: Path  # a file, or a folder of shards
    check: list = None  # a command that compares every byte, run once beforehand in the same state
    timed: str = "report"  # by wall_ns of the last line it prints, which is JSON; or "process": from spawn to exit
    ready: bool = False  # it says READY when it has imported all, and starts when it is given a line
    peer: bool = False
    maps: bool = False  # its tensors are pages of the file: nothing is copied
    rate: bool = True  # the time is one of moving the whole model
    held_share: float = 0  # of the model: memory made ready for the run
    beside: "Contender" = None  # whose rate its own is told against
    runs: list = field(default_factory=list)  # None where a run could not be proven
    failed: str = None  # why it does not run

    def files(self):
        return sorted(self.model.glob("*.safetensors")) if self.model.is_dir() else [self.model]

    def bytes(self):
        return sum(path.stat().st_size for path in self.files())


# ---- One run ------------------------------------------------------------------------------------------------------

def prepare(contender):
    """Page cache and free memory as they have to be at the start."""
    held = state.HeldMemory(int(contender.held_share * contender.bytes()) + HELD_BYTES)
    try:
        for path in contender.files():
            {"cold": state.make_cold, "warm": state.make_warm}[contender.state](path)
    finally:
        held.free()


def start(contender, command):
    """Pipes without buffers: whatever comes after READY is communicate()'s."""
    keep = subprocess.DEVNULL if contender.timed == "process" else subprocess.PIPE
    return subprocess.Popen(command, stdout=keep, stderr=subprocess.PIPE, bufsize=0,
                            stdin=subprocess.PIPE if contender.ready else subprocess.DEVNULL)


def wait_ready(process):
    while line := process.stdout.readline():
        if line.strip() == b"READY":
            return


def cpu_s():
    """Of processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def figures(contender, report, process_s, process_cpu_s):
    """One run in seconds and bytes, whoever it was."""
    size = contender.bytes()
    if "best" in report:  # the probe
        best = report["best"]
        return {"wall_s": size / best["gb_per_s"] / 1e9, "cpu_s": best["cpu_s_per_gb"] * size / 1e9,
                "memory_bytes": best["pool_bytes"]}
    if contender.timed == "process":
        return {"wall_s": process_s, "cpu_s": process_cpu_s}
    run = {"wall_s": report["wall_ns"] / 1e9, "cpu_s": report["cpu_ns"] / 1e9}
    memory = report.get("peak_growth_bytes", report.get("peak_host_bytes"))
    if memory is not None:
        run["memory_bytes"] = memory
        if not contender.maps:  # memory that the caller had touched before is not in the growth
            own = report["destination_bytes"] if report.get("destination") != "touched" else 0
            run["beyond_bytes"] = max(0, memory - own)
    return run


def execute(contender, command):
    """Prepares and runs; returns the report (the last line, JSON), seconds, and bytes read by the process and off the
    disk (None where it does not count)."""
    command = [str(word) for word in command]
    read_before = state.children_bytes_read()
    process = None
    try:
        if contender.ready:
            process = start(contender, command)
            wait_ready(process)
            read_before += state.process_bytes_read(process.pid)  # its imports
        prepare(contender)
        disk, cpu, begin = state.disk_bytes_read(contender.files()[0]), cpu_s(), time.monotonic()
        process = process or start(contender, command)
        output, errors = process.communicate(b"\n" if contender.ready else None)
        process_s = time.monotonic() - begin
    finally:
        if process and process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}: exit {process.returncode}: {errors.decode().strip()}")
    return {
        "report": {} if contender.timed == "process" else json.loads(output.decode().strip().rsplit("\n", 1)[-1]),
        "process_s": process_s,
        "process_cpu_s": cpu_s() - cpu,
        "read_bytes": state.children_bytes_read() - read_before,
        # others' reads among them
        "disk_bytes": None if disk is None else state.disk_bytes_read(contender.files()[0]) - disk,
    }


def proven(contender, run):
    """Whether it read what the state says it must read; None if unknown."""
    size = contender.bytes()
    if contender.state == "warm":
        return run["read_bytes"] <= WARM_SHARE_MAX * size
    if run["disk_bytes"] is None:
        return None
    return min(run["read_bytes"], run["disk_bytes"]) >= COLD_SHARE_MIN * size


def run_once(contender):
    run = execute(contender, contender.command)
    run["proven"] = proven(contender, run)
    run.update(figures(contender, run["report"], run["process_s"], run["process_cpu_s"]))
    if run["proven"] is False:
        raise state.StateError(f"read {run['read_bytes']} bytes, not a {contender.state} run")
    return run


def check(contender):
    return execute(contender, contender.check)


def attempt(action, contender):
    """Idle pages are dropped, others read the same file: without its proof a run is repeated, then left out (None). A
    contender that fails is told so in its row; the others go on."""
    for _ in range(TRIES):
        try:
            return action(contender)
        except state.StateError as error:
            print(f"  {contender.name}: {error}; again", file=sys.stderr)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            print(f"  {contender.name}: {error}", file=sys.stderr)
            contender.failed = str(error)
            break
    return None


# ---- What runs say ------------------------------------------------------------------------------------------------

def spread(values, digits):
    """Median, smallest and largest."""
    if not values:
        return ""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def each(contender, function):
    """function(run) of every proven run."""
    return [function(run) for run in contender.runs if run]


def pairs(contender, other, function):
    """function(run) ÷ function(the other's run) within each round."""
    return [function(run) / function(against) for run, against in zip(contender.runs, other.runs) if run and against]


def rates(contender, other):
    """Bytes per second ÷ the other's, within each round: 1 is as fast, more is faster."""
    share = contender.bytes() / other.bytes()
    return [share / ratio for ratio in pairs(contender, other, lambda run: run["wall_s"])]


def best(contenders, key):
    """Who has the smallest median of a figure; None where nobody has it."""
    def middle(contender):
        return median(run[key] for run in contender.runs if run and key in run)

    able = [each_ for each_ in contenders if any(run and key in run for run in each_.runs)]
    return min(able, key=middle, default=None)
