#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures loads beside the disk's own limit, all in one run: A B C, A B C, … Writes bench/results/*.json and prints
Markdown. Every run is a fresh process; how the state before it is made and proven stands in README.md."""

import argparse
import ctypes
import datetime
import json
import mmap
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
PAGE = resource.getpagesize()
CACHESTAT = 451  # the same number on every architecture
MADV_POPULATE_WRITE = 23
COLD_SHARE_MIN = 0.99  # of the file, drawn from the disk
WARM_SHARE_MAX = 0.01
WARM_MISSING_MAX = 0.001  # of the file's pages
WARM_S_MAX = 15  # a kernel that drops idle pages (DAMON) drops some while they are read
TRIES = 5
LIMIT = "disk (bare probe)"


def shown(text):
    """As somebody else would write it: without this machine's folders."""
    for folder, name in ((f"{Path(__file__).resolve().parent.parent}/", ""), (str(Path.home()), "~")):
        text = text.replace(folder, name)
    return text


# ---- Who runs -----------------------------------------------------------------------------------------------------

@dataclass
class Contender:
    name: str
    state: str  # of the page cache at the start: cold, warm
    command: list
    file: Path
    check: list = None  # more arguments for one run beforehand that compares every byte
    timed: str = "report"  # by wall_ns of the last line it prints, which is JSON; or "process": from spawn to exit
    rate: bool = True  # the time is one of moving the whole file
    runs: list = field(default_factory=list)


def contenders(build, probe_shape, model, gguf):
    """A peer is one more line: a command whose last line is JSON with wall_ns and cpu_ns, or timed="process"."""
    probe = [build / "bench/bench-probe", "--json", "--rounds", "1", *probe_shape, model]
    load = [build / "bench/bench-load", "--json", model]
    tundish = build / "tools/tundish"
    check = ["--check"]
    return [
        Contender(LIMIT, "cold", probe, model),
        Contender("load, touched memory", "cold", load + ["--touched"], model, check),
        Contender("load, fresh memory", "cold", load + ["--fresh"], model, check),
        Contender("load, in place, touched memory", "cold", load + ["--touched", "--in-place", "on"], model, check),
        Contender("load, threads engine, touched memory", "cold", load + ["--touched", "--engine", "threads"], model,
                  check),
        Contender("load, touched memory", "warm", load + ["--touched"], model, check),
        Contender("tundish load", "warm", [tundish, "load", "--json", model], model),
        Contender("tundish info, exec to exit", "warm", [tundish, "info", "--json", gguf], gguf, timed="process",
                  rate=False),
    ]


# ---- The state before a run ---------------------------------------------------------------------------------------

class StateError(RuntimeError):
    """The page cache could not be brought to the state that a run needs."""


class CachestatRange(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("bytes", ctypes.c_uint64)]


class Cachestat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")]


libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def cached_pages(path):
    """Pages of the file in the page cache, by cachestat(2), before Linux 6.5 by mincore(2)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        whole, answer = CachestatRange(0, 0), Cachestat()
        if libc.syscall(CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(answer), 0) == 0:
            return answer.cached
        with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
            pages = -(-len(mapped) // PAGE)
            resident = (ctypes.c_ubyte * pages)()
            anchor = ctypes.c_char.from_buffer(mapped)
            address = ctypes.c_void_p(ctypes.addressof(anchor))
            result = libc.mincore(address, ctypes.c_size_t(len(mapped)), resident)
            del anchor
            if result != 0:
                raise OSError(ctypes.get_errno(), "mincore")
            return sum(page & 1 for page in resident)
    finally:
        os.close(fd)


def make_cold(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)  # dirty pages are not dropped
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    left = cached_pages(path)
    if left > 0:
        raise StateError(f"{left} pages stay in the page cache; who has it mapped?")


def make_warm(path):
    buffer, pages = bytearray(4 << 20), -(-path.stat().st_size // PAGE)
    give_up = time.monotonic() + WARM_S_MAX
    while time.monotonic() < give_up:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        missing = pages - cached_pages(path)
        if missing <= WARM_MISSING_MAX * pages:
            return
    raise StateError(f"{missing} of {pages} pages do not stay in the page cache")


def disk_bytes_read(path):
    """What the file's disk has given since the machine started; None where there is no such disk."""
    device = os.stat(path).st_dev
    try:
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return int(stat.split()[2]) * 512  # sectors of 512 bytes, whatever the disk's are


def children_bytes_read():
    """What processes that have ended, and only they, have read from storage."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock * 512


class HeldMemory:
    """Touched huge pages in a process of their own. When it ends they are the kernel's to give to the next one, and
    the hypervisor has not had the time to take them."""

    def __init__(self, size):
        ready, self.release_fd = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.release_fd[1])
                memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                memory.madvise(mmap.MADV_HUGEPAGE)
                try:
                    memory.madvise(MADV_POPULATE_WRITE)
                except OSError:  # before Linux 5.14
                    for at in range(0, size, PAGE):
                        memory[at] = 1
                os.write(ready[1], b"1")
                os.read(self.release_fd[0], 1)  # returns when the parent has closed its end
            finally:
                os._exit(0)
        os.close(ready[1])
        os.close(self.release_fd[0])
        if os.read(ready[0], 1) != b"1":
            raise MemoryError(f"no {size} bytes to hold before a run")
        os.close(ready[0])

    def free(self):
        os.close(self.release_fd[1])
        os.waitpid(self.pid, 0)


# ---- One run ------------------------------------------------------------------------------------------------------

def spawn(contender, extra):
    """Returns the last line of output as JSON, if it is that, and seconds from spawn to exit."""
    command = [str(word) for word in contender.command + extra]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}: exit {done.returncode}: {done.stderr.decode().strip()}")
    if contender.timed == "process":
        return {}, seconds
    return json.loads(done.stdout.decode().strip().rsplit("\n", 1)[-1]), seconds


def figures(contender, report, process_s):
    """One run in seconds and bytes, whoever it was."""
    size = contender.file.stat().st_size
    if "best" in report:  # the probe
        best = report["best"]
        return {"wall_s": size / best["gb_per_s"] / 1e9, "cpu_s": best["cpu_s_per_gb"] * size / 1e9,
                "memory_bytes": best["pool_bytes"]}
    if contender.timed == "process":
        return {"wall_s": process_s}
    memory = report.get("peak_growth_bytes", report.get("peak_host_bytes"))
    return {"wall_s": report["wall_ns"] / 1e9, "cpu_s": report["cpu_ns"] / 1e9, "memory_bytes": memory}


def run_once(contender, hold_bytes, extra=()):
    """Returns the run, with "proven" telling whether it read what the state says it must read, None if unknown."""
    size = contender.file.stat().st_size
    held = HeldMemory(hold_bytes)
    try:
        {"cold": make_cold, "warm": make_warm}[contender.state](contender.file)
    finally:
        held.free()
    disk, own = disk_bytes_read(contender.file), children_bytes_read()
    report, process_s = spawn(contender, list(extra))
    own = children_bytes_read() - own
    run = {**figures(contender, report, process_s), "process_s": process_s, "report": report, "read_bytes": own,
           "disk_bytes": None, "proven": own <= WARM_SHARE_MAX * size}
    if disk is not None:
        run["disk_bytes"] = disk_bytes_read(contender.file) - disk  # others' reads among them
    if contender.state == "cold":
        run["proven"] = None if disk is None else min(own, run["disk_bytes"]) >= COLD_SHARE_MIN * size
    return run


def run_proven(contender, hold_bytes):
    """Idle pages are dropped, others read the same file: a run without its proof is repeated, then left out (None)."""
    for _ in range(TRIES):
        try:
            run = run_once(contender, hold_bytes)
        except StateError as error:
            print(f"  {contender.name}: {error}; again", file=sys.stderr)
            continue
        if run["proven"] is not False:
            return run
        print(f"  {contender.name}: read {run['read_bytes']} bytes, not a {contender.state} run; again",
              file=sys.stderr)
    return None


# ---- The whole ----------------------------------------------------------------------------------------------------

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
    command = [build / "bench/bench-probe", "--json", "--rounds", str(rounds), "--place", "--memcpy", "--touch", model]
    return json.loads(subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True).stdout)


def spread(values, digits):
    if not values:
        return ""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def summary(contender, limit):
    """Medians with their extremes; the ratio is taken within each round first."""
    runs = [run for run in contender.runs if run]
    walls = [run["wall_s"] for run in runs]
    cpus = [run["cpu_s"] for run in runs if "cpu_s" in run]
    size = contender.file.stat().st_size
    row = {"wall_s": walls, "cpu_s": cpus}
    if not walls:
        return row
    row["median_s"] = median(walls)
    if contender.rate:
        row["gb_per_s"] = [size / wall / 1e9 for wall in walls]
        if contender.state == "cold":
            row["of_disk"] = [probe["wall_s"] / run["wall_s"]
                              for probe, run in zip(limit.runs, contender.runs) if probe and run]
    if cpus:
        row["cpu_s_per_gb"] = median(cpus) / size * 1e9
    memory = [run["memory_bytes"] for run in runs if run.get("memory_bytes")]
    if memory:
        row["memory_bytes"] = max(memory)
    return row


def print_markdown(result, rows):
    limits, host = result["limits"], result["machine"]
    best, place = limits["best"], next(each for each in limits["all"] if each["place"])
    copy, touch = limits["copy"], limits["touch"]
    print(f"\n{result['model']['name']}, {result['model']['bytes'] / 1e9:.3f} GB. {host['cpu']}, "
          f"{host['cores']} cores, Linux {host['kernel']}, {result['date'][:10]}. "
          f"Median (min–max) of {result['rounds']}, interleaved.\n")
    print("| contender | cache | s | GB/s | ÷ disk, pair by pair | CPU s/GB | memory MB |")
    print("|---|---|---|---|---|---|---|")
    for contender, row in rows:
        print(f"| {contender.name} | {contender.state} | {spread(row['wall_s'], 3)} "
              f"| {spread(row.get('gb_per_s'), 2)} | {spread(row.get('of_disk'), 2)} "
              f"| {format(row['cpu_s_per_gb'], '.3f') if contender.rate and 'cpu_s_per_gb' in row else ''} "
              f"| {format(row['memory_bytes'] / 1e6, '.0f') if 'memory_bytes' in row else ''} |")
    print(f"\nProbe: {best['block_bytes'] >> 10} KiB × {best['depth']}, pool {best['pool_bytes'] / (1 << 20):.0f} MiB. "
          f"Limits, GB/s: each block to its place {place['gb_per_s']:.2f}; copy of a cached block "
          f"({copy['nontemporal']}, non-temporal) {copy['cached_nontemporal_gb_per_s']:.1f}, memcpy "
          f"{copy['cached_memcpy_gb_per_s']:.1f}, memory to memory {copy['memory_memcpy_gb_per_s']:.1f}; first touch, "
          f"1 / 2 threads {touch['threads_1_gb_per_s']:.1f} / {touch['threads_2_gb_per_s']:.1f}. "
          f"Steal {result['steal_share'] * 100:.1f} %.")
    lost = sum(run is None for contender, _ in rows for run in contender.runs)
    if lost:
        print(f"Left out: {lost} runs whose state could not be proven.")
    if any(run and run["proven"] is None for contender, _ in rows for run in contender.runs):
        print("Not proven: this disk has no statistics.")


def model_path(path, form):
    if path:
        return path.resolve()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tundish" / "bench"
    path = folder / f"qwen2.5-0.5b-{form}"
    if not path.exists():
        sys.exit(f"no {path}: bench/models.py writes it, or name a model of your own")
    return path


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, help="the file to load (default: the F16 one of models.py)")
    parser.add_argument("--gguf", type=Path, help="the file for info (default: the F16 one of models.py)")
    parser.add_argument("--build", type=Path, default=HERE.parent / "build", help="Meson's folder (build)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="only contenders whose name has this in it, and the disk")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes (bench/results)")
    return parser.parse_args()


def main():
    options = parse()
    if options.rounds < 1:
        sys.exit("--rounds takes 1 or more")
    model, gguf = model_path(options.model, "f16.safetensors"), model_path(options.gguf, "f16.gguf")
    size = model.stat().st_size
    hold_bytes = int(2.1 * size + 0.4e9)
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "command": shlex.join(sys.argv), "machine": machine(), "rounds": options.rounds,
              "model": {"name": model.name, "bytes": size}, "held_before_each_run_bytes": hold_bytes}
    ticks = processor_ticks()

    print("limits …", file=sys.stderr)
    HeldMemory(hold_bytes).free()
    result["limits"] = measure_limits(options.build, model, 3)
    best = result["limits"]["best"]
    all_ = contenders(options.build, ["--block", str(best["block_bytes"]), "--depth", str(best["depth"])], model, gguf)
    chosen = [each for each in all_ if each.name == LIMIT or options.only in each.name]
    for contender in chosen:
        if contender.check:
            print(f"checking {contender.name}, {contender.state} …", file=sys.stderr)
            run_once(contender, hold_bytes, contender.check)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds} …", file=sys.stderr)
        for contender in chosen:
            contender.runs.append(run_proven(contender, hold_bytes))

    result["steal_share"] = steal_share(ticks, processor_ticks())
    rows = [(contender, summary(contender, chosen[0])) for contender in chosen]
    result["contenders"] = [{"name": contender.name, "state": contender.state, "timed": contender.timed,
                             "command": shlex.join(map(str, contender.command)), **row, "runs": contender.runs}
                            for contender, row in rows]
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / (result["date"].replace(":", "").replace("+0000", "Z") + ".json")
    path.write_text(shown(json.dumps(result, indent=1)) + "\n")
    print_markdown(result, rows)
    print(f"\n{path}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"run.py: {error}")
