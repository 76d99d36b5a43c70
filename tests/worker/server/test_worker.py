#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the worker with its real engine answers with a model's own words, many clients at once as well.

Method: a model of random weights whose words are bytes, made here, is asked by many connections at once, well and
badly, and each answer compared with what `tundish-generate` says to the same prompt alone. SmolLM2 and Qwen, where they
lie, say what llama.cpp says, and write a haiku.

    test_worker.py WORKER GENERATE [NAME …]"""
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from harness import Receiver, SANITIZED, Skipped, Worker, chunks, equal, events, run_all, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
WORKER, GENERATE = (os.path.abspath(name) for name in sys.argv[1:3]) if len(sys.argv) > 2 else ("", "")
ONLY = sys.argv[3:]
MODELS = os.environ.get("TUNDISH_MODELS") or os.path.expanduser("~/.cache/tundish/models")
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN = "qwen2.5-coder-0.5b-q4_k_m.gguf"
# llama.cpp (llama-cpp-python 0.3.36), temperature 0, of the Q4_1 file. From the 33rd token on the text is another: two
# words are about as likely there.
PROMPT = "Once upon a time"
REFERENCE = (", the city of Nova Haven was a thriving metropolis, with towering skyscrapers and bustling streets. But "
             "as the years went by, the city began to lose its original")
REQUESTS = 1500 if SANITIZED else 10000
CONNECTIONS = 32
WORDS = ("lantern", "river", "copper", "winter", "window", "garden", "harbor", "candle", "silver", "mountain")


# ---- A model whose words are bytes ----

def byte_words():
    """The characters that stand for bytes in a vocabulary of GPT-2's kind."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]


def make_model(folder, **sizes):
    sys.path.insert(0, os.path.join(HERE, "../decoder"))
    try:
        import made  # pylint: disable=import-outside-toplevel
    except ImportError as missing:
        raise Skipped(f"no Python package {missing.name}") from missing
    words = [*byte_words(), "th", "<|end|>"]
    config = dict(made.SIZES, vocab_size=len(words), model_type="qwen2", num_hidden_layers=4, **sizes)
    keys = made.gguf_keys(config) + [
        ("tokenizer.ggml.model", "string", "gpt2"), ("tokenizer.ggml.pre", "string", "gpt-2"),
        ("tokenizer.ggml.tokens", "array", words), ("tokenizer.ggml.merges", "array", ["t h"]),
        ("tokenizer.ggml.token_type", "array", [1] * (len(words) - 1) + [3]),
        ("tokenizer.ggml.eos_token_id", "uint32", len(words) - 1)]
    return made.write_gguf(os.path.join(folder, "bytes.gguf"), "qwen2", keys,
                           made.gguf_tensors(config, made.weights(config)))


def alone(model, prompt, tokens, seed, *more):
    done = subprocess.run([GENERATE, model, "-p", prompt, "-n", str(tokens), "--seed", str(seed), "--temp", "0.8",
                           "--json", *more], capture_output=True, check=True, timeout=120)
    return json.loads(done.stdout)["text"]


def job(name, prompt, seed, tokens=8, **more):
    return {"job_id": name, "prompt": prompt, "seed": seed, "temperature": 0.8, "max_tokens": tokens, **more}


def run(model, *arguments, **more):
    return Worker(WORKER, "--model", model, *arguments, **more)


# ---- One client ----

def test_same_text():
    """At each size of the window, streamed or not, as on the command line; of bytes that are mostly no UTF-8."""
    with tempfile.TemporaryDirectory(prefix="tundish-worker-") as folder:
        model = make_model(folder, hidden_size=256, intermediate_size=640)  # a window holds a layer and a read
        expected = {seed: alone(model, "a b", 40, seed) for seed in range(3)}
        assert len(set(expected.values())) == 3, expected
        assert any("\ufffd" in text for text in expected.values()), expected
        equal("in a window", alone(model, "a b", 40, 1, "--resident", "75%"), expected[1])
        for words in ((), ("--resident", "7M"), ("--ready", "all")):
            with run(model, *words) as worker:
                worker.wait_ready()
                for seed, text in expected.items():
                    answer = worker.post("/execute", job(f"plain {seed}", "a b", seed, 40)).json()
                    equal((words, seed), answer["text"], text)
                    assert 0 < answer["tokens"] <= 40, answer
                    stream = worker.post("/execute", job(f"stream {seed}", "a b", seed, 40, stream=True))
                    found = events(stream.body)
                    equal("streamed", "".join(data["delta"] for name, data in found if name is None), text)
                    equal("at its end", found[-1][1]["text"], text)
                chat = worker.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
                equal("a model without a template", chat.status, 400)
                long = worker.post("/execute", job("long", "a" * 600, 0))
                equal("a prompt beyond the context", long.status, 400)


def test_callback():
    with tempfile.TemporaryDirectory(prefix="tundish-worker-") as folder, Receiver(failures=2) as receiver:
        model = make_model(folder)
        with run(model, "--callback-url", receiver.url) as worker:
            answer = worker.post("/execute", job("told", "a b", 1, 20)).json()
            wait_for("both", lambda: len(receiver.events) == 2)
            ready, result = sorted(receiver.events, key=lambda event: "job_id" in event)
            equal("ready", (ready["event"], ready["worker_id"], ready["port"]), ("ready", "w-1", worker.port))
            assert ready["load_ns"] > 0, ready
            equal("text", result["text"], answer["text"])


def test_cut_file():
    with tempfile.TemporaryDirectory(prefix="tundish-worker-") as folder:
        model = make_model(folder)
        os.truncate(model, os.path.getsize(model) // 2)
        done = subprocess.run([WORKER, "--worker-id", "w", "--model", model, "--port", "0"], capture_output=True,
                              timeout=60, check=False)
        equal("exit code", done.returncode, 3)
        assert model in done.stderr.decode(), done.stderr


# ---- Many ----

def break_off(worker, kind):
    with worker.socket() as connection:
        if kind == 0:
            connection.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"job_id\":")
        elif kind == 1:
            connection.sendall(random.randbytes(200) + b"\r\n\r\n")
        else:
            body = json.dumps(job(f"broken {random.random()}", "a b", 0, 400, stream=True)).encode()
            connection.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            connection.recv(200)


def client(worker, index, count, expected, counted):
    connection = worker.connect()
    for turn in range(count):
        seed = (index + turn) % len(expected)
        kind = turn % 4
        if kind == 0:
            answer = worker.get("/health", connection=connection)
            equal("health", answer.status, 200)
        else:
            answer = worker.post("/execute", job(f"{index} {turn}", "a b", seed, stream=kind == 1),
                                 connection=connection)
            equal("status", answer.status, 200)
            found = events(answer.body)[-1][1] if kind == 1 else answer.json()
            equal(f"seed {seed}", found["text"], expected[seed])
        counted.append(kind)
        if turn % 50 == 49:
            break_off(worker, random.randrange(3))
    connection.close()


def test_many():
    """10,000 requests of 32 connections, with some that break off; each gets its own text. ASan looks for leaks."""
    with tempfile.TemporaryDirectory(prefix="tundish-worker-") as folder:
        model = make_model(folder)
        expected = [alone(model, "a b", 8, seed) for seed in range(7)]
        with run(model) as worker:
            worker.wait_ready()
            counted, problems, times = [], [], []

            def one(index):
                try:
                    client(worker, index, -(-REQUESTS // CONNECTIONS), expected, counted)
                except Exception as problem:  # pylint: disable=broad-except
                    problems.append(repr(problem))

            def watch():
                while not done.wait(0.01):
                    began = time.perf_counter()
                    worker.post("/execute", job(f"watch {len(times)}", "a b", 0))
                    times.append(time.perf_counter() - began)

            done = threading.Event()
            watcher = threading.Thread(target=watch)
            threads = [threading.Thread(target=one, args=(index,)) for index in range(CONNECTIONS)]
            began = time.monotonic()
            for thread in [*threads, watcher]:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - began
            done.set()
            watcher.join()
            equal("problems", problems, [])
            assert len(counted) >= REQUESTS, len(counted)
            metrics = worker.metrics()
            asked = sum(kind > 0 for kind in counted) + len(times)
            answered = metrics['tundish_requests_total{path="/execute",status="200"}']
            assert asked <= answered <= asked + REQUESTS // 50, (asked, answered)
            times.sort()
            print(f"{len(counted)} requests of {CONNECTIONS} connections in {seconds:.1f} s; one more beside them "
                  f"waited {statistics.median(times) * 1e3:.0f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.0f} ms")
            wait_for("nothing is left", lambda: worker.metrics()["tundish_requests_in_flight"] == 1)


# ---- Real models ----

def real(name):
    path = os.path.join(MODELS, name)
    if SANITIZED:
        raise Skipped(f"{name}: with a sanitizer it takes minutes")
    if not os.path.exists(path):
        raise Skipped(f"{name}: not in {MODELS}")
    return path


def test_smollm2():
    model = real(SMOLLM2)
    with run(model) as worker:
        answer = worker.post("/execute", {"job_id": "1", "prompt": PROMPT, "max_tokens": 32, "temperature": 0}).json()
        equal("the text", answer["text"], REFERENCE)
        with worker.socket() as connection:
            body = json.dumps({"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 12,
                               "temperature": 0, "stream": True}).encode()
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" %
                               (len(body), body))
            stream = connection.makefile("rb")
            equal("status", stream.readline(), b"HTTP/1.1 200 OK\r\n")
            while stream.readline() != b"\r\n":
                pass
            found = events(b"".join(chunks(stream)))
        equal("the end", found[-1], (None, "[DONE]"))
        text = "".join(data["choices"][0]["delta"].get("content") or "" for _, data in found[:-1] if data["choices"])
        assert len(re.findall(r"[A-Za-z']+", text)) >= 4, text
        plain = worker.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Say hello."}],
                                                     "max_tokens": 12, "temperature": 0}).json()
        equal("the same at once", plain["choices"][0]["message"]["content"], text)


def haiku(model, word):
    """Which of five has the word; looked for in what was generated, not in the prompt."""
    with run(model) as worker:
        worker.wait_ready()
        texts = []
        for seed in range(1, 6):
            body = {"job_id": str(seed), "max_tokens": 40, "temperature": 0.7, "seed": seed,
                    "prompt": f"A haiku about a {word} in the rain, with the word {word} in it:\n\n"}
            texts.append(worker.post("/execute", body).json()["text"])
    found = [text for text in texts if word in text.lower()]
    print(f"{os.path.basename(model)}: {word} in {len(found)} of 5, such as {(found or texts)[0]!r}")
    assert found, texts
    assert all(len(re.findall(r"[A-Za-z]{2,}", text)) >= 5 for text in texts), texts


def test_haiku_of_smollm2():
    haiku(real(SMOLLM2), "river")  # the same text each time: it is a small model, and not every word comes


def test_haiku_of_qwen():
    haiku(real(QWEN), random.SystemRandom().choice(WORDS))  # which nobody knew before


def main():
    if not GENERATE:
        print(__doc__)
        return 2
    return run_all(globals(), ONLY)


if __name__ == "__main__":
    sys.exit(main())
