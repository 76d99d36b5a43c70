#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures how soon a worker answers: from its exec to /livez, to the first token of a prompt that came while the model
was loading, and tokens a second afterwards; beside the same worker that loads first and then computes, and beside
llama.cpp. Each run is a fresh process, cold as in run.py, the contenders in turns. Prints Markdown and writes
bench/results/*-answer.json.

Predicted is max(the last byte + one layer's computing, the first layer + all layers' computing). Computing is that of
as long a prompt once all is there, less the head's, which is its share of a decoded token's time by the bytes that a
token meets.

    bench/answer.py [--build FOLDER] [--rounds N] [--llama PYTHON] [MODEL …]

PYTHON: one that imports llama_cpp; without it that peer is left out."""

import argparse
import datetime
import http.client
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from contender import spread
from run import CACHE, HERE, machine, print_table, processor_ticks, shown, steal_share
from state import HeldMemory, make_cold

MODELS = ("models/qwen2.5-coder-0.5b-q4_k_m.gguf", "models/SmolLM2-135M-Instruct.Q4_1.gguf")
PROMPT_TOKENS = (8, 64, 512)
DECODED_TOKENS = 64
IDLE_S = 5
LIVEZ_RUNS = 20
PREDICTED_TIMES_MAX = 1.05
PEER_SHARE_MIN = 0.5
LIVEZ_MS_MAX = 5


def prepare(model):
    HeldMemory(int(2.1 * model.stat().st_size + 0.4e9)).free()
    make_cold(model)


def prompt(count, word):
    """Of about so many tokens, however a vocabulary cuts: each of these words is one in all that are measured."""
    return " ".join([word] * count)


class Worker:
    """One process; times are from right before its exec."""

    def __init__(self, build, model, *words):
        self.started = time.monotonic_ns()
        self.process = subprocess.Popen([build / "worker/tundish-worker", "--worker-id", "bench", "--port", "0",
                                         "--model", model, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = self.process.stdout.readline().decode()
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", line)
        if not found:
            self.process.kill()
            raise RuntimeError(f"the worker says {line!r}")
        self.port = int(found.group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()

    def since_ns(self):
        return time.monotonic_ns() - self.started

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body)

    def wait_ready(self):
        while self.get("/readyz")[0] != 200:
            time.sleep(0.001)

    def execute(self, text, tokens):
        """What came at last, and when the first of it did."""
        connection, begun = http.client.HTTPConnection("127.0.0.1", self.port), time.monotonic_ns()
        connection.request("POST", "/v1/completions", json.dumps({
            "prompt": text, "max_tokens": tokens, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(answer.read().decode())
        first_ns, usage, times = None, {}, []
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            times.append(time.monotonic_ns())
            first_ns = first_ns or self.since_ns()
            usage = event.get("usage") or usage
        connection.close()
        return {"first_ns": first_ns, "asked_first_ns": times[0] - begun, "usage": usage}


def livez_ns(build, model):
    with Worker(build, model) as worker:
        worker.get("/livez")
        return worker.since_ns()


def idle_share(worker):
    """Of one core, of a worker that waits."""
    def ticks():
        words = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(words[11]) + int(words[12])

    before = ticks()
    time.sleep(IDLE_S)
    return (ticks() - before) / 100 / IDLE_S


def shape_of(build, model):
    """How many layers, and which share of the bytes that a token meets is the head's: an embedding is looked up."""
    told = json.loads(subprocess.run([build / "tools/tundish", "info", "--json", model], stdout=subprocess.PIPE,
                                     check=True).stdout)
    sizes = {each["name"]: each["bytes"] for each in told["tensors"]}
    layers = sum(each["bytes"] for each in told["tensors"] if each["layer"] >= 0)
    head = next(sizes[name] for name in ("output.weight", "lm_head.weight", "token_embd.weight",
                                         "model.embed_tokens.weight") if name in sizes)
    return told["layers"], head / (head + layers)


def ours(build, model, count, ready):
    prepare(model)
    with Worker(build, model, "--ready", ready) as worker:
        if ready == "all":
            worker.wait_ready()
        run = worker.execute(prompt(count, "one"), 1)
        while (load := worker.get("/load")[1])["load_ns"] == 0:
            time.sleep(0.001)
        run["ready_ns"], run["load_ns"] = load["ready_ns"], load["load_ns"]
        warm = [worker.execute(prompt(count, word), 1)["asked_first_ns"] for word in ("two", "three", "four")]
        run["warm_ns"] = min(warm)
        run["prompt_tokens"] = run["usage"].get("prompt_tokens")
        return run


def theirs(python, model, count, cold=True):
    if cold:
        prepare(model)
    command = [python, HERE / "peers/answer_llama.py", model, str(count), str(DECODED_TOKENS)]
    answer = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def decode(build, model, *words):
    command = [build / "worker/tundish-generate", model, "-p", prompt(8, "five"), "-n", DECODED_TOKENS, "--temp", 0,
               "--json", *words]
    answer = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            check=True)
    return json.loads(answer.stdout)


def idle(build, model):
    with Worker(build, model) as worker:
        worker.execute(prompt(8, "one"), 4)
        return idle_share(worker)


def first_tokens(options, model, aims, groups):
    (layers, head_share), lines = shape_of(options.build, model), []
    head_ns = median(1e9 / decode(options.build, model)["tokens_per_s"] for _ in range(3)) * head_share
    for count in PROMPT_TOKENS:
        runs = []
        for number in range(options.rounds):
            print(f"{model.name}, {count} tokens: round {number + 1} of {options.rounds} …", file=sys.stderr)
            run = {"ours": ours(options.build, model, count, "first-layer"),
                   "load first": ours(options.build, model, count, "all")}
            if options.llama:
                run["llama.cpp"] = theirs(options.llama, model, count)
            mine = run["ours"]
            compute_ns = mine["warm_ns"] - head_ns
            run["head_ns"] = head_ns
            run["predicted_ns"] = max(mine["load_ns"] + compute_ns / layers, mine["ready_ns"] + compute_ns)
            runs.append(run)
        groups.append({"title": f"{model.name}, a prompt of {count} tokens, cold", "runs": runs})
        times = [(run["ours"]["first_ns"] - head_ns) / run["predicted_ns"] for run in runs]
        against = [run["load first"]["first_ns"] / run["ours"]["first_ns"] for run in runs]
        peer = [run["llama.cpp"]["first_ns"] / run["ours"]["first_ns"] for run in runs] if options.llama else []
        lines.append([str(runs[0]["ours"]["prompt_tokens"]),
                      *(spread([run["ours"][key] / 1e6 for run in runs], 0)
                        for key in ("ready_ns", "load_ns", "warm_ns", "first_ns")),
                      spread(times, 3), spread(against, 2), spread(peer, 2) if peer else "–"])
        aims.append([f"{model.name}, {count} tokens: (exec to first token − head) ÷ predicted",
                     f"≤ {PREDICTED_TIMES_MAX}", spread(times, 3),
                     "yes" if median(times) <= PREDICTED_TIMES_MAX else "no"])
    print(f"\n### {model.name}: from exec to the first token, cold, ms\n")
    print_table(["tokens", "first layer there", "all there", "the same prompt once all is there", "first token",
                 "less the head, ÷ predicted", "load first ÷ ours", "llama.cpp ÷ ours"], lines)


def rates(options, model, aims, groups):
    runs = []
    for number in range(options.rounds):
        print(f"{model.name}, decoding: round {number + 1} of {options.rounds} …", file=sys.stderr)
        run = {"ours": decode(options.build, model), "lazy": decode(options.build, model, "--lazy")}
        if options.llama:
            run["llama.cpp"] = theirs(options.llama, model, 8, cold=False)
        runs.append(run)
    groups.append({"title": f"{model.name}, decoding", "runs": runs})
    rest = [idle(options.build, model) for _ in range(options.rounds)]
    lazy = [run["lazy"]["tokens_per_s"] / run["ours"]["tokens_per_s"] for run in runs]
    lines = [["ours, tokens/s", spread([run["ours"]["tokens_per_s"] for run in runs], 1)],
             ["after a lazy load ÷ after an eager one", spread(lazy, 3)],
             ["an idle worker, of one core", spread(rest, 4)]]
    if options.llama:
        peer = [run["ours"]["tokens_per_s"] / run["llama.cpp"]["tokens_per_s"] for run in runs]
        lines.insert(1, ["llama.cpp, tokens/s", spread([run["llama.cpp"]["tokens_per_s"] for run in runs], 1)])
        lines.insert(2, ["ours ÷ llama.cpp", spread(peer, 2)])
        aims.append([f"{model.name}: tokens/s ÷ llama.cpp's", f"≥ {PEER_SHARE_MIN}", spread(peer, 2),
                     "yes" if median(peer) >= PEER_SHARE_MIN else "no"])
    aims.append([f"{model.name}: tokens/s, lazy ÷ eager", "≥ 0.99", spread(lazy, 3),
                 "yes" if median(lazy) >= 0.99 else "no"])
    aims.append([f"{model.name}: an idle worker, of one core", "0", spread(rest, 4),
                 "yes" if median(rest) == 0 else "no"])
    print(f"\n### {model.name}: {DECODED_TOKENS} tokens one after the other\n")
    print_table(["what", "measured"], lines)


def alive(options, model, aims, groups):
    times = [livez_ns(options.build, model) / 1e6 for _ in range(LIVEZ_RUNS)]
    groups.append({"title": "exec to /livez, ms", "runs": times})
    aims.append(["exec to /livez, ms", f"≤ {LIVEZ_MS_MAX}", spread(times, 2),
                 "yes" if median(times) <= LIVEZ_MS_MAX else "no"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--build", type=Path, default=HERE.parent / "build", help="Meson's folder (build)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama", type=Path, metavar="PYTHON", help="a python that imports llama_cpp")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes (bench/results)")
    options = parser.parse_args()
    options.build = options.build.resolve()
    paths = options.models or [path for path in (CACHE / name for name in MODELS) if path.exists()]
    if not paths:
        sys.exit("no model: name one, or have ./demo fetch SmolLM2")
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    ticks, host, aims, groups = processor_ticks(), machine(), [], []

    print(f"{host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, {date[:10]}. Median (min–max) of "
          f"{options.rounds}.")
    alive(options, paths[-1], aims, groups)
    for path in paths:
        first_tokens(options, path, aims, groups)
        rates(options, path, aims, groups)
    print("\n### Aims\n")
    print_table(["what", "aim", "measured", "holds"], aims)
    result = {"date": date, "command": shlex.join(sys.argv), "machine": host, "rounds": options.rounds,
              "steal_share": steal_share(ticks, processor_ticks()), "groups": groups, "aims": aims}
    print(f"\nSteal {result['steal_share'] * 100:.1f} %.")
    options.results.mkdir(parents=True, exist_ok=True)
    name = date.replace(":", "").replace("+0000", "Z") + "-answer.json"
    (options.results / name).write_text(shown(json.dumps(result, indent=1)) + "\n")


if __name__ == "__main__":
    main()
