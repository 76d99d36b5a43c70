#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Proves and measures loads to a GPU, beside what its link and the disk can do, in one run; see gpu.sh, which builds.
What this machine refuses is listed and left out. Prints Markdown and writes bench/results/*-gpu.json.

    bench/gpu.py BUILD [--gpu N] [--rounds N] [--folder FOLDER] [--small]"""

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests/oracle"), str(HERE.parent / "tests/cli")]

from contender import spread  # noqa: E402
from run import machine, print_table, shown  # noqa: E402
from state import make_cold  # noqa: E402

GB = 1e9
MIB = 1 << 20
TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ1_S",
         "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4",
         "NVFP4", "Q1_0", "Q2_0", "F64", "F32", "F16", "BF16", "I8")


class Bench:
    def __init__(self, options):
        self.build, self.gpu, self.rounds = options.build.resolve(), options.gpu, options.rounds
        self.folder, self.small = options.folder, options.small
        self.refused, self.proofs, self.groups, self.aims = [], [], [], []

    def tool(self, name):
        return self.build / name

    def load(self, model, *words, env=None):
        """One process: what the command says of its load, and how long the whole process took."""
        command = [self.tool("tools/tundish"), "load", "--json", "--device", f"cuda:{self.gpu}", *words, model]
        start = time.monotonic_ns()
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, env=env)
        process_ns = time.monotonic_ns() - start
        if done.returncode:
            raise RuntimeError(f"{shlex.join(map(str, command[1:]))}: exit {done.returncode}: {done.stderr.strip()}")
        return {**json.loads(done.stdout), "process_ns": process_ns}

    def group(self, title, once):
        runs = []
        for number in range(self.rounds):
            print(f"{title}: round {number + 1} of {self.rounds} …", file=sys.stderr)
            runs.append(once())
        self.groups.append({"title": title, "runs": runs})
        return runs

    def aim(self, what, bound, values, holds):
        self.aims.append([what, bound, spread(values, 3), "yes" if holds(median(values)) else "no"])


# ---- Models -------------------------------------------------------------------------------------------------------

def layered(layers, width, rows, kind):
    """A transformer's shape as far as a loader cares."""
    tensors = [("token_embd.weight", kind, (8 * width, width))]
    for layer in range(layers):
        tensors += [(f"blk.{layer}.attn.weight", kind, (rows, width)),
                    (f"blk.{layer}.ffn.weight", kind, (2 * rows, width)),
                    (f"blk.{layer}.attn_norm.weight", "F32", (width,))]
    return tensors + [("output_norm.weight", "F32", (width,))]


def make_models(bench):
    """Written once, of random bits: a tensor of every type in each layer; 1.26 GB; some more than 8 GB."""
    import make_models as oracle

    def gguf(name, tensors):
        path = bench.folder / name
        if not path.exists():
            print(f"writing {name} …", file=sys.stderr)
            oracle.write_gguf(str(path), tensors)
        return path

    types = [(f"blk.{layer}.{kind}.weight", kind, (5 + layer, 1024)) for layer in range(8) for kind in TYPES]
    scale = 16 if bench.small else 1
    return {
        "types": gguf("types.gguf", types),
        "F16": gguf("f16.gguf", layered(24, 1024, 8440 // scale, "F16")),
        "large": gguf("large-q8_0.gguf", layered(32, 4096, 20672 // scale, "Q8_0")),
    }


# ---- Proof --------------------------------------------------------------------------------------------------------

def prove(bench, models):
    def run(title, *command):
        if not Path(str(command[0])).exists() and not shutil.which(str(command[0])):
            bench.refused.append([title, "not built here"])
            return False
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                              env=dict(os.environ, CK_FORK="no"))
        last = ((done.stdout + done.stderr).strip().splitlines() or [""])[-1]
        if done.returncode == 77:
            bench.refused.append([title, last])
            return False
        bench.proofs.append([title, "passed" if done.returncode == 0 else f"FAILED: exit {done.returncode}", last])
        return done.returncode == 0

    kernels, compare = bench.tool("tests/test_cuda_kernels"), bench.tool("tests/compare_gpu")
    run("kernels against plain C, every pair of types", kernels)
    run("loads and windows against the host, every type", compare, models["types"], bench.gpu)
    for tool in ("memcheck", "initcheck"):
        sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        run(f"compute-sanitizer {tool}: loads and windows", sanitizer, "--tool", tool, "--error-exitcode", "1", compare,
            models["types"], bench.gpu)
    digests = [subprocess.run([str(bench.tool("tools/tundish")), "digest", "--json", "--device", device, "--dtype",
                               "f16", str(models["F16"])], capture_output=True, text=True, check=False)
               for device in ("host", f"cuda:{bench.gpu}")]
    same = all(one.returncode == 0 for one in digests) and digests[0].stdout == digests[1].stdout
    bench.proofs.append(["digests of 1.26 GB, GPU and host", "passed" if same else "FAILED",
                         "" if same else digests[1].stderr.strip()])


# ---- Speed --------------------------------------------------------------------------------------------------------

def limits(bench):
    done = subprocess.run([str(bench.tool("bench/bench-gpu-limits")), str(bench.gpu)], capture_output=True, text=True,
                          check=True)
    found = json.loads(done.stdout)
    bench.groups.append({"title": "limits", "runs": [found]})
    print(f"\n### The GPU's own limits\n\n{found['device']}, {found['memory_bytes'] / GB:.0f} GB, driver "
          f"{found['driver']}, runtime {found['runtime']}; context {found['context_ns'] / 1e6:.0f} ms\n")
    sizes = [str(1 << i) for i in range(7)]
    print_table(["128 MiB", "touch ms", "pin ms", "unpin ms", *(f"{size} MiB" for size in sizes),
                 "4 MiB beside a memset"],
                [[way["way"], f"{way['touch_ns'] / 1e6:.1f}",
                  *([way["refused"], *[""] * (len(sizes) + 2)] if "refused" in way else
                    [f"{way['pin_ns'] / 1e6:.1f}", f"{way['unpin_ns'] / 1e6:.1f}",
                     *(f"{way['gb_per_s'][size]:.1f}" for size in sizes), f"{way['gb_per_s_beside_memset']:.1f}"])]
                 for way in found["ways"]])
    link = max(max(way["gb_per_s"].values()) for way in found["ways"] if "gb_per_s" in way and way["way"] != "pageable")
    return found, link * GB


def disk_rate(bench, model):
    make_cold(model)
    done = subprocess.run([str(bench.tool("bench/bench-probe")), "--json", "--rounds", "1", str(model)], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)["best"]["gb_per_s"] * GB


def warm(model):
    with open(model, "rb") as file:
        while file.read(64 * MIB):
            pass


def rate(runs):
    return [run["model_bytes"] / run["ready_ns"] * 1e9 for run in runs]


def measure(bench, models):
    found, link = limits(bench)
    cores = len(os.sched_getaffinity(0))
    lines = []

    def row(title, runs, beside, of):
        values = [value / beside for value in rate(runs)]
        lines.append([title, spread([run["ready_ns"] / 1e6 for run in runs], 0),
                      spread([value / GB for value in rate(runs)], 2), spread(values, 3), of,
                      spread([run["process_ns"] / 1e6 for run in runs], 0), f"{runs[0]['device_bytes'] / GB:.2f}",
                      f"{runs[0]['peak_pinned_bytes'] / MIB:.0f}"])
        return values

    for name in ("F16", "large"):
        model = models[name]
        warm(model)
        threads, best = 1, 0
        while threads <= cores:
            runs = bench.group(f"{model.name}, warm, {threads} threads",
                               lambda threads=threads: bench.load(model, "--threads", threads))
            values = row(f"{model.name}, warm, {threads} threads", runs, link, "link")
            best = max(best, median(values))
            threads *= 2
        if name == "large":
            bench.aim(f"{model.name}, warm ÷ pinned copies, best number of threads", "≥ 0.95", [best],
                      lambda v: v >= 0.95)
        plain = bench.group(f"{model.name}, warm", lambda: bench.load(model))
        row(f"{model.name}, warm, as it is", plain, link, "link")
        other = "f16" if name == "large" else "bf16"
        converted = bench.group(f"{model.name}, warm, to {other}", lambda: bench.load(model, "--dtype", other))
        row(f"{model.name}, warm, to {other}", converted, link, "link")
        bench.aim(f"{model.name}: to {other} ÷ as it is", "≥ 0.95",
                  [a / b for a, b in zip(rate(converted), rate(plain))], lambda v: v >= 0.95)
        bench.aim(f"{model.name}: device bytes ÷ weights", "≤ 1.01",
                  [run["device_bytes"] / run["model_bytes"] for run in plain], lambda v: v <= 1.01)
        bench.aim(f"{model.name}: pinned MiB", "≤ 256", [run["peak_pinned_bytes"] / MIB for run in plain],
                  lambda v: v <= 256)
        if name == "F16":
            bench.aim("1.26 GB warm: process start to the end, s", "≤ 0.6", [run["process_ns"] / 1e9 for run in plain],
                      lambda v: v <= 0.6)
            bench.aim("1.26 GB warm: ready less the context, ms", "≤ 60",
                      [(run["ready_ns"] - found["context_ns"]) / 1e6 for run in plain], lambda v: v <= 60)

        def cold(model=model):
            disk = disk_rate(bench, model)
            make_cold(model)
            return {**bench.load(model, "--direct", "on"), "disk": disk}

        runs = bench.group(f"{model.name}, cold", cold)
        values = [value / run["disk"] for value, run in zip(rate(runs), runs)]
        row(f"{model.name}, cold", runs, median(run["disk"] for run in runs), "disk")
        bench.aim(f"{model.name}, cold ÷ disk", "≥ 0.95", values, lambda v: v >= 0.95)
    print("\n### Loads\n")
    print_table(["load", "ready ms", "GB/s", "÷ limit", "limit", "process ms", "device GB", "pinned MiB"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="Meson's folder, with CUDA")
    parser.add_argument("--gpu", type=int, default=0, metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tundish-gpu"), help="where the models go: 10 GB")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes (bench/results)")
    parser.add_argument("--small", action="store_true", help="models of a sixteenth: to try the script")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    bench, host = Bench(options), machine()

    print(f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, {date[:10]}. Median (min–max) of "
          f"{options.rounds}.")
    models = make_models(bench)
    prove(bench, models)
    print("\n### Proof\n")
    print_table(["what", "outcome", "last line"], bench.proofs)
    try:
        measure(bench, models)
    except (RuntimeError, subprocess.CalledProcessError) as problem:
        bench.refused.append(["speed", f"{problem} {getattr(problem, 'stderr', '') or ''}".strip()])
    print("\n### Refused here, or not built\n")
    print_table(["what", "why"], bench.refused)
    print("\n### Aims\n")
    print_table(["what", "aim", "measured", "holds"], bench.aims)
    result = {"date": date, "command": shlex.join(sys.argv), "machine": host, "rounds": options.rounds,
              "proofs": bench.proofs, "refused": bench.refused, "groups": bench.groups, "aims": bench.aims}
    options.results.mkdir(parents=True, exist_ok=True)
    name = date.replace(":", "").replace("+0000", "Z") + "-gpu.json"
    (options.results / name).write_text(shown(json.dumps(result, indent=1)) + "\n")
    return any(outcome != "passed" for _, outcome, _ in bench.proofs)


if __name__ == "__main__":
    sys.exit(main())
