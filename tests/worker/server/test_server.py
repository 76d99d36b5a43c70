#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the server does over HTTP what its clients rely on, and what they should not do does it no harm.

Method: run it with an engine whose behaviour each test chooses (fake_engine.c), ask it as clients do, well and badly,
and look at answers, log, counters and exit code.

    test_server.py WORKER [NAME …]"""
import errno
import json
import os
import random
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

import harness
from harness import (Receiver, SANITIZED, SLOWER, Skipped, Worker, chunks, command, equal, events, is_closed,
                     log_fields, run_all, wait_for)

WORKER = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ""
ONLY = sys.argv[2:]
REQUESTS = 1500 if SANITIZED else 10000
CONNECTIONS = 32
PIECES = ["Hé", "llo ", "wörld", " 日本", "語 ", "😀", "\n", '"quoted" ', "\\ ", "tab\t", "e\u0301", "."]
EXECUTE_KEYS = {"job_id", "text", "tokens", "finish_reason", "load_ns", "first_token_ns", "tokens_per_s"}


def text_of(tokens, seed=0):
    return "".join(PIECES[(index + seed) % len(PIECES)] for index in range(tokens))


def job(name, **more):
    return {"job_id": name, "prompt": "Once", "seed": 0, **more}


def run(*arguments, **more):
    return Worker(WORKER, *arguments, **more)


def raw_post(path, body):
    """The bytes of a request."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)


# ---- The command ----

def test_bad_options():
    given = ["--worker-id", "w", "--model", "m"]
    for arguments, words in (
            ([], "--worker-id"), (["--worker-id", "w"], "--model"), (given + ["--nothing"], "--nothing"),
            (given + ["--port"], "--port"), (given + ["--port", "65536"], "65536"), (given + ["--port", "-1"], "-1"),
            (given + ["--port", "1x"], "1x"), (given + ["--gpu-device", "-2"], "-2"),
            (given + ["--gpu-device", "some"], "some"), (given + ["--ready", "never"], "never"),
            (given + ["--resident", "0"], "--resident"), (given + ["--resident", "9Z"], "9Z"),
            (given + ["--callback-url", "file:///etc/passwd"], "--callback-url"), (given + ["--model="], "--model"),
            (given + ["--host", "localhost"], "localhost"), (given + ["--help=1"], "--help"),
            (["--worker-id", "a b", "--model", "m"], "--worker-id"),
            (["--worker-id", "x" * 129, "--model", "m"], "--worker-id")):
        code, out, problem = command(WORKER, *arguments)
        equal(arguments, (code, out, problem.count("\n")), (2, "", 1))
        assert words in problem, problem


def test_help_and_version():
    code, out, _ = command(WORKER, "--help")
    equal("--help", code, 0)
    for word in "--worker-id", "--model", "--port", "--gpu-device", "--callback-url", "--host", "--ready", "--resident":
        assert word in out, word
    code, out, _ = command(WORKER, "--version")
    assert code == 0 and out.startswith("tundish-worker "), out


def test_gpu():
    code, _, problem = command(WORKER, "--worker-id", "w", "--model", "m", "--gpu-device", "0")
    equal("exit code", code, 6)
    assert "CPU" in problem, problem
    for device in "-1", "auto":
        with run("--gpu-device", device) as worker:
            worker.wait_ready()


def test_port_in_use():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, _, problem = command(WORKER, "--worker-id", "w", "--model", "m", "--port", other.getsockname()[1])
    equal("exit code", code, 6)
    assert "port" in problem and problem.count("\n") == 1, problem


def test_hosts():
    with run() as worker:
        equal("stdout", worker.greeting, f"tundish-worker w-1 listens on http://127.0.0.1:{worker.port}\n")
    if not os.path.exists("/proc/net/if_inet6"):
        raise Skipped("no IPv6 here")
    with run("--host", "::1") as worker:
        assert "http://[::1]:" in worker.greeting, worker.greeting
        with socket.create_connection(("::1", worker.port)) as connection:
            connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert b" 200 " in connection.recv(1000)


def test_failed_open():
    for error, code in ((errno.EBADMSG, 3), (errno.EFBIG, 3), (errno.ENOTSUP, 5), (errno.ENOMEM, 6), (errno.ENODEV, 6),
                        (errno.ENOENT, 7), (errno.EACCES, 7), (errno.EIO, 1)):
        with run(exit_code=code, FAKE_FAIL_OPEN=error) as worker:
            worker.wait_exit()
            assert "the model: FAKE_FAIL_OPEN says so" in worker.log(), worker.log()


def test_failed_open_answers_who_waits():
    with Receiver() as receiver, run("--callback-url", receiver.url, exit_code=3, FAKE_OPEN_MS=400 * SLOWER,
                                     FAKE_FAIL_OPEN=errno.EBADMSG) as worker:
        answer = worker.post("/execute", job("early"))
        equal("status", answer.status, 500)
        assert "FAKE_FAIL_OPEN" in answer.json()["error"], answer.body
        worker.wait_exit()
    told = {event["event"]: event for event in receiver.events}
    equal("failed", (told["failed"]["worker_id"], told["failed"]["port"]), ("w-1", worker.port))
    assert told["failed"]["load_ns"] > 0 and "FAKE_FAIL_OPEN" in told["failed"]["error"], told
    assert "FAKE_FAIL_OPEN" in told["result"]["error"], told


def test_failed_load_is_no_retry():
    """What a load failed with says nothing of the requests: it is not tried again."""
    for error in errno.ENOMEM, errno.EAGAIN, errno.ECANCELED:
        code = 1 if error == errno.ECANCELED else 6
        with run(exit_code=code, FAKE_OPEN_MS=300 * SLOWER, FAKE_FAIL_OPEN=error) as worker:
            answer = worker.post("/execute", job("early"))
            equal("early", (answer.status, answer.headers["Retry-After"]), (500, None))
            worker.wait_exit()


def test_failed_late():
    with run(exit_code=3, FAKE_LOAD_MS=300 * SLOWER, FAKE_FAIL_LOAD=errno.EBADMSG) as worker:
        worker.wait_ready()
        equal("before", worker.post("/execute", job("before")).status, 200)
        wait_for("503", lambda: worker.get("/health").status == 503)
        health = worker.get("/health").json()
        equal("status", health["status"], "failed")
        assert "FAKE_FAIL_LOAD" in health["error"], health
        answer = worker.post("/execute", job("after"))
        equal("after", answer.status, 500)
        assert "FAKE_FAIL_LOAD" in answer.json()["error"], answer.body
        answer = worker.post("/v1/completions", {"prompt": "x"})
        equal("OpenAI's", (answer.status, answer.json()["error"]["type"]), (500, "server_error"))
        worker.wait_exit()
        assert "FAKE_FAIL_LOAD" in worker.log()


def test_failed_in_stream():
    with run(exit_code=3, FAKE_LOAD_MS=300 * SLOWER, FAKE_FAIL_LOAD=errno.EBADMSG, FAKE_TOKENS=100,
             FAKE_TOKEN_MS=10 * SLOWER) as worker:
        worker.wait_ready()
        found = events(worker.post("/execute", job("a", stream=True)).body)
        assert found[-1][0] == "error" and "FAKE_FAIL_LOAD" in found[-1][1]["error"], found[-1]
        worker.wait_exit()


# ---- What it says of itself ----

def test_while_loading():
    with run(FAKE_OPEN_MS=300 * SLOWER, FAKE_FIRST_MS=300 * SLOWER) as worker:
        equal("livez", worker.get("/livez").status, 200)
        for path in "/health", "/readyz":
            answer = worker.get(path)
            equal(path, answer.status, 503)
            assert int(answer.headers["Retry-After"]) >= 1
            equal(path, (answer.json()["status"], answer.json()["worker_id"]), ("loading", "w-1"))
            assert set(answer.json()["progress"]) >= {"bytes_ready", "bytes"}, answer.body
        equal("load", worker.get("/load").status, 200)
        assert worker.get("/load").json()["phase"] in ("opening", "loading")
        equal("ready", worker.metrics()["tundish_ready"], 0)
        began = time.monotonic()
        answer = worker.post("/execute", job("early"))  # waits, and is served
        equal("early", (answer.status, answer.json()["text"]), (200, text_of(12)))
        assert time.monotonic() - began < harness.DEADLINE_S
        worker.wait_ready()
        for path in "/health", "/readyz":
            equal(path, (worker.get(path).status, worker.get(path).json()["status"]), (200, "ready"))
        equal("ready", worker.metrics()["tundish_ready"], 1)
        assert worker.metrics()["tundish_load_ns"] > 0 and worker.get("/load").json()["load_ns"] > 0


def test_ready_all():
    with run("--ready", "all", FAKE_LOAD_MS=500 * SLOWER) as worker:
        wait_for("first layer", lambda: worker.get("/load").json()["first_layer"])
        equal("health", worker.get("/health").status, 503)
        for path, body in ("/execute", job("a")), ("/v1/completions", {"prompt": "x"}):
            answer = worker.post(path, body)
            equal(path, answer.status, 503)
            assert int(answer.headers["Retry-After"]) >= 1
        worker.wait_ready()
        equal("after", worker.post("/execute", job("a")).status, 200)


def test_ready_first_layer():
    with run(FAKE_LOAD_MS=60000) as worker:
        worker.wait_ready()
        health = worker.get("/health").json()
        equal("health", (health["phase"], health["first_layer"], health["load_ns"]), ("loading", True, 0))
        equal("execute", worker.post("/execute", job("a")).json()["load_ns"], 0)


def test_paths():
    with run() as worker:
        worker.wait_ready()
        for path, allow in (("/livez", "GET"), ("/health", "GET"), ("/metrics", "GET"), ("/v1/models", "GET"),
                            ("/execute", "POST"), ("/v1/completions", "POST"), ("/v1/chat/completions", "POST")):
            answer = worker.ask("DELETE", path)
            equal(path, answer.status, 405)
            assert allow in answer.headers["Allow"], path
        for path in "/", "/nothing", "/livez/", "/../etc/passwd", "/v1/nothing", "/%2e%2e/etc/passwd", "//livez":
            equal(path, worker.get(path).status, 404)
        assert "message" in worker.get("/v1/nothing").json()["error"]
        answer = worker.ask("HEAD", "/livez")
        equal("HEAD", (answer.status, answer.body), (200, b""))
        equal("arguments", worker.get("/livez?a=b").status, 200)
        models = worker.get("/v1/models").json()
        equal("models", (models["object"], [model["id"] for model in models["data"]]), ("list", ["model.gguf"]))
        equal("model", worker.get("/v1/models/model.gguf").json(), models["data"][0])
        for path in "/v1/models/", "/v1/models/model.ggu", "/v1/models/model.gguf2", "/v1/models/a/model.gguf":
            answer = worker.get(path)
            equal(path, (answer.status, answer.json()["error"]["type"]), (404, "invalid_request_error"))
        equal("DELETE", worker.ask("DELETE", "/v1/models/model.gguf").status, 405)


def test_model_name_is_plain():
    with run("--model", os.fsdecode(b"/nowhere/e\nv\x1bi\xffl \"\xc3\xa9\".gguf/x\xe2\x82\n\xc3\xa9\"")) as worker:
        worker.wait_ready()
        name = 'x???é"'
        equal("models", [model["id"] for model in worker.get("/v1/models").json()["data"]], [name])
        equal("health", worker.get("/health").json()["model"], name)
        equal("completion", worker.post("/v1/completions", {"prompt": "x"}).json()["model"], name)
        equal("model", worker.get("/v1/models/x%3f%3F?%C3%A9%22").status, 404)  # an argument begins at the third
        equal("model", worker.get("/v1/models/x%3f%3F%3f%C3%A9%22").json()["id"], name)
        equal("info", worker.metrics()['tundish_worker_info{worker_id="w-1",model="x???é\\""}'], 1)


def test_metrics_text():
    with run() as worker:
        worker.wait_ready()
        worker.post("/execute", job("a"))
        worker.post("/execute", b"{")
        text = worker.get("/metrics").body.decode()
        for line in text.splitlines():
            assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"\n]*"(,\w+="[^"\n]*")*\})? \S+', line), line
        metrics = worker.metrics()
        equal("info", metrics['tundish_worker_info{worker_id="w-1",model="model.gguf"}'], 1)
        equal("200", metrics['tundish_requests_total{path="/execute",status="200"}'], 1)
        equal("400", metrics['tundish_requests_total{path="/execute",status="400"}'], 1)
        equal("tokens", metrics['tundish_tokens_total{kind="generated"}'], 12)
        equal("histogram", (metrics["tundish_first_token_seconds_count"],
                            metrics['tundish_first_token_seconds_bucket{le="+Inf"}']), (1, 1))
        equal("in flight", metrics["tundish_requests_in_flight"], 1)
        equal("queue", (metrics["tundish_queue_length"], metrics["tundish_generating"]), (0, 0))


def test_log():
    with run() as worker:
        worker.wait_ready()
        worker.post("/execute", job("evil\n\x1b[31m\t\"id\"" + "x" * 100))
        worker.get("/a%0ab%1b" + "y" * 300)
        wait_for("two lines", lambda: "status=404" in worker.log())
        lines = worker.log().splitlines()
    assert all(line.startswith("tundish-worker w-1: ") and len(line) < 700 for line in lines), lines
    assert all(" " <= c <= "~" for line in lines for c in line), lines
    fields = [log_fields(line) for line in lines if "path=/execute" in line]
    equal("requests", len(fields), 1)
    equal("fields", (fields[0]["method"], fields[0]["status"]), ("POST", "200"))
    assert int(fields[0]["ns"]) > 0 and fields[0]["job"].startswith("evil\\x0a\\x1b[31m\\x09\\x22id\\x22"), fields


def test_log_tells_whose_job_was_refused():
    with run(FAKE_TOKEN_MS=60000) as worker:
        worker.wait_ready()
        equal("400", worker.post("/execute", job("mine", max_tokens=0)).status, 400)
        equal("400", worker.post("/execute", b'{"job_id":').status, 400)
        connections = []
        for index in range(65):
            connections.append(worker.socket())
            connections[-1].sendall(raw_post("/execute", job(f"job {index}")))
            if index == 0:
                wait_for("the first runs", lambda: worker.metrics()["tundish_generating"] == 1)
        wait_for("all wait", lambda: worker.metrics()["tundish_queue_length"] == 64)
        equal("429", worker.post("/execute", job("more")).status, 429)
        for connection in connections:
            connection.close()
        wait_for("none is left", lambda: worker.log().count("status=499") == 65)
        fields = [log_fields(line) for line in worker.log().splitlines() if "path=/execute" in line]
        equal("jobs", [line.get("job") for line in fields if line["status"] != "499"], ["mine", None, "more"])
        assert all("job" in line for line in fields if line["status"] == "499"), fields


def test_what_is_no_http():
    """MHD answers that itself: it is counted as a request without our answer."""
    with run() as worker, worker.socket() as connection:
        worker.wait_ready()
        connection.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n")
        assert b" 400 " in connection.recv(1000)
        wait_for("499", lambda: 'tundish_requests_total{path="/execute",status="499"}' in worker.metrics())
        equal("400", worker.metrics().get('tundish_requests_total{path="/execute",status="400"}'), None)
        assert "499: ended without our whole answer" in worker.get("/metrics").body.decode()
        with worker.socket() as hostless:
            hostless.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            assert b" 400 " in hostless.recv(1000), "no Host"


# ---- Prompts ----

def test_execute():
    with run() as worker:
        worker.wait_ready()
        answer = worker.post("/execute", job("one"))
        equal("type", answer.headers["Content-Type"], "application/json")
        got = answer.json()
        equal("keys", set(got), EXECUTE_KEYS)
        equal("values", (got["job_id"], got["text"], got["tokens"], got["finish_reason"]),
              ("one", text_of(12), 12, "stop"))
        assert got["load_ns"] > 0 and got["first_token_ns"] > 0, got
        got = worker.post("/execute", job("two", max_tokens=3, temperature=0.5)).json()
        equal("three tokens", (got["text"], got["finish_reason"]), (text_of(3), "length"))


def test_execute_stream():
    with run(FAKE_TOKEN_MS=2, FAKE_TOKENS=100) as worker:
        worker.wait_ready()
        answer = worker.post("/execute", job("one", stream=True))
        equal("type", answer.headers["Content-Type"], "text/event-stream; charset=utf-8")
        found = events(answer.body)
        equal("last", found[-1][0], "result")
        equal("keys", set(found[-1][1]), EXECUTE_KEYS)
        equal("text", "".join(data["delta"] for _, data in found[:-1]), text_of(100))
        whole = worker.post("/execute", job("two")).json()
        equal("as without", found[-1][1]["text"], whole["text"])
        assert len(found) > 10, "it came in one piece"


def test_idempotence():
    with run(FAKE_TOKEN_MS=20, FAKE_TOKENS=20) as worker:
        worker.wait_ready()
        answers = [None] * 6

        def ask(index):
            answers[index] = worker.post("/execute", job("same", stream=index % 2 == 1, seed=index))

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results = [events(answer.body)[-1][1] if index % 2 else answer.json() for index, answer in enumerate(answers)]
        results.append(worker.post("/execute", job("same", max_tokens=1)).json())
        for result in results:
            equal("the same", result, results[0])
        equal("once", worker.metrics()["tundish_generations_total"], 1)
        streamed = events(worker.post("/execute", job("same", stream=True)).body)
        equal("stored, as a stream", (streamed[0][1]["delta"], streamed[1][1]), (results[0]["text"], results[0]))
        equal("once", worker.metrics()["tundish_generations_total"], 1)


def test_store_is_bounded():
    with run(FAKE_TOKENS=1) as worker:
        worker.wait_ready()
        connection = worker.connect()
        for index in range(1100):
            equal("status", worker.post("/execute", job(f"job {index}"), connection=connection).status, 200)
        for index in 1099, 0:
            worker.post("/execute", job(f"job {index}"), connection=connection)
        equal("the first was forgotten", worker.metrics()["tundish_generations_total"], 1101)
        connection.close()


def test_failed_jobs_are_not_stored():
    with run(FAKE_PROMPT_MAX=10) as worker:
        worker.wait_ready()
        for _ in range(2):
            answer = worker.post("/execute", job("long", prompt="x" * 11))
            equal("too long", answer.status, 400)
            assert "context" in answer.json()["error"]
        equal("short", worker.post("/execute", job("long")).status, 200)
        answer = worker.post("/execute", job("long too", prompt="x" * 11, stream=True))
        equal("streamed", answer.status, 400)


def test_completions():
    with run() as worker:
        worker.wait_ready()
        body = {"model": "any", "prompt": "Once", "seed": 0, "max_tokens": 100, "top_p": 0.9, "temperature": 1, "n": 1,
                "user": "somebody"}
        got = worker.post("/v1/completions", body).json()
        equal("object", got["object"], "text_completion")
        equal("model", got["model"], "model.gguf")
        equal("choices", got["choices"], [{"index": 0, "logprobs": None, "finish_reason": "stop", "text": text_of(12)}])
        equal("usage", got["usage"], {"prompt_tokens": 2, "completion_tokens": 12, "total_tokens": 14})
        assert got["id"].startswith("cmpl-") and got["created"] > 0
        equal("16 tokens", worker.post("/v1/completions", {"prompt": "x"}).status, 200)
        for stop in "語", ["nothing", "語"]:
            got = worker.post("/v1/completions", {**body, "stop": stop}).json()
            equal("stop", (got["choices"][0]["text"], got["choices"][0]["finish_reason"]), (text_of(4), "stop"))
        found = events(worker.post("/v1/completions", {**body, "stream": True}).body)
        equal("last", found[-1], (None, "[DONE]"))
        equal("text", "".join(data["choices"][0]["text"] for _, data in found[:-1]), text_of(12))
        equal("finish", found[-2][1]["choices"][0]["finish_reason"], "stop")


def test_chat():
    with run() as worker:
        worker.wait_ready()
        body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [
            {"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]}], "seed": 0}
        got = worker.post("/v1/chat/completions", body).json()
        equal("object", got["object"], "chat.completion")
        equal("message", got["choices"][0]["message"], {"role": "assistant", "content": text_of(12)})
        for name in "max_tokens", "max_completion_tokens":
            got = worker.post("/v1/chat/completions", {**body, name: 2}).json()
            equal(name, (got["choices"][0]["finish_reason"], got["usage"]["completion_tokens"]), ("length", 2))
        answer = worker.post("/v1/chat/completions", {**body, "stream": True,
                                                      "stream_options": {"include_usage": True}})
        equal("type", answer.headers["Content-Type"].split(";")[0], "text/event-stream")
        found = events(answer.body)
        equal("last", found[-1], (None, "[DONE]"))
        equal("usage", (found[-2][1]["choices"], found[-2][1]["usage"]["completion_tokens"]), ([], 12))
        equal("finish", found[-3][1]["choices"][0], {"index": 0, "logprobs": None, "finish_reason": "stop",
                                                     "delta": {}})
        equal("role", found[0][1]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        equal("text", "".join(data["choices"][0]["delta"]["content"] for _, data in found[1:-3]), text_of(12))
        assert all(data["object"] == "chat.completion.chunk" for _, data in found[:-1])
        answer = worker.post("/v1/chat/completions", {"messages": [{"role": "robot", "content": "x"}]})
        equal("role", answer.status, 400)


def test_what_is_asked_reaches_the_engine():
    with run(FAKE_ECHO=1, FAKE_TOKENS=0) as worker:
        worker.wait_ready()

        def asked(path, body):
            answer = worker.post(path, body)
            equal((path, body), answer.status, 200)
            choice = answer.json()["choices"][0]
            return choice["text"] if path == "/v1/completions" else choice["message"]["content"]

        for top_p, words in (0, "one"), (1e-300, "one"), (-0.0, "one"), (0.5, "some"), (1, "all"), (None, "all"):
            got = asked("/v1/completions", {"prompt": "x", "top_p": top_p, "seed": 1})
            equal("top_p", got, f"temperature=1 top_p={words} seed=1 prompt=x")
        for seed, number in ((-1, 2**64 - 1), (2**60, 2**60), (2**63, 2**63), (2**64, 2**64 - 1), (-2**63, 2**63),
                             (7.0, 7)):
            equal("seed", asked("/v1/completions", {"prompt": "x", "seed": seed}).split()[2], f"seed={number}")
        assert asked("/v1/completions", {"prompt": ["one text"]}).endswith("prompt=one text")
        got = asked("/v1/chat/completions", {"messages": [
            {"role": "developer", "content": "a"}, {"role": "user", "content": "b"},
            {"role": "assistant", "content": None}, {"role": "assistant"}, {"role": "user", "content": "c"}]})
        assert got.endswith("prompt= system:a user:b assistant: assistant: user:c"), got


def test_what_is_not_done_is_refused():
    with run() as worker:
        worker.wait_ready()
        for path, rest in (("/v1/completions", {"prompt": "x"}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
            for name, value in (("tools", [{"type": "function"}]), ("functions", [{"name": "f"}]), ("logprobs", True),
                                ("logprobs", 1), ("echo", True), ("presence_penalty", 0.1),
                                ("frequency_penalty", -2), ("response_format", {"type": "json_object"}),
                                ("response_format", "text"), ("response_format", [])):
                answer = worker.post(path, {**rest, name: value})
                equal((path, name, value), (answer.status, answer.json().get("error", {}).get("param")), (400, name))
                assert name in answer.json()["error"]["message"], answer.body
            for name, value in (("tools", []), ("tools", None), ("logprobs", False), ("logprobs", 0), ("echo", False),
                                ("presence_penalty", 0), ("frequency_penalty", 0.0), ("response_format", None),
                                ("response_format", {"type": "text"})):
                equal((path, name, value), worker.post(path, {**rest, name: value}).status, 200)


def test_too_long_for_the_context():
    with run(FAKE_PROMPT_MAX=10) as worker:
        worker.wait_ready()
        for path, body in (("/v1/completions", {"prompt": "x" * 11}),
                           ("/v1/completions", {"prompt": "x" * 11, "stream": True}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 11}]})):
            answer = worker.post(path, body)
            equal(path, (answer.status, answer.json()["error"]["code"]), (400, "context_length_exceeded"))
        equal("any other", worker.post("/v1/completions", {}).json()["error"]["code"], None)


def test_names_are_of_one_process():
    names = set()
    for _ in range(3):
        with run() as worker:
            worker.wait_ready()
            for path, body, kind in (("/v1/completions", {"prompt": "x"}, "cmpl"),
                                     ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]},
                                      "chatcmpl")):
                for _ in range(3):
                    name = worker.post(path, body).json()["id"]
                    assert re.fullmatch(kind + "-[0-9a-f]{16}", name), name
                    names.add(name.split("-")[1])
    equal("names", len(names), 18)


def test_no_memory_for_the_text():
    """No 200 without its text."""
    with run(FAKE_TOKENS=5000, FAKE_JSON_BYTES=16000) as worker:
        worker.wait_ready()
        for path, body in (("/execute", job("a", max_tokens=5000)),
                           ("/v1/completions", {"prompt": "x", "max_tokens": 5000}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
            answer = worker.post(path, body)
            equal(path, answer.status, 503)
            assert "no memory" in str(answer.json()["error"]), answer.body
        with worker.socket() as connection:
            connection.sendall(raw_post("/execute", job("a", stream=True)))  # stored
            wait_for("cut", lambda: is_closed(connection, 1))
        equal("short", worker.post("/execute", job("b", max_tokens=3)).json()["text"], text_of(3))


def test_sequences_are_whole():
    with run(FAKE_TOKENS=5000) as worker:
        worker.wait_ready()
        for index in range(8):  # as it comes, and stored: one event, longer than a chunk
            for path, body in (("/execute", job(f"{index}", stream=True, max_tokens=5000, seed=index)),
                               ("/execute", job(f"{index}", stream=True)),
                               ("/v1/completions", {"prompt": "x", "seed": index, "stream": True, "max_tokens": 5000})):
                with worker.socket() as connection, connection.makefile("rb") as stream:
                    connection.sendall(raw_post(path, body))
                    while stream.readline() != b"\r\n":
                        pass
                    for chunk in chunks(stream):
                        chunk.decode("utf-8")


def test_seed_differs_without_one():
    with run(FAKE_TOKENS=1) as worker:
        worker.wait_ready()
        texts = {worker.post("/v1/completions", {"prompt": "x"}).json()["choices"][0]["text"] for _ in range(40)}
        assert len(texts) > 1, texts


# ---- Hostile bodies ----

def test_bad_fields():
    deep = b'{"job_id":"a","prompt":' + b"[" * 5000
    with run() as worker:
        worker.wait_ready()
        for path, body, word in (
                ("/execute", {"prompt": "x"}, "job_id"), ("/execute", {"job_id": "a"}, "prompt"),
                ("/execute", {"job_id": "", "prompt": "x"}, "job_id"), ("/execute", job("x" * 129), "job_id"),
                ("/execute", job(7), "job_id"), ("/execute", job("a", prompt=["x"]), "prompt"),
                ("/execute", job("a", max_tokens=0), "max_tokens"),
                ("/execute", job("a", max_tokens=1.5), "max_tokens"),
                ("/execute", job("a", max_tokens=1e300), "max_tokens"),
                ("/execute", job("a", max_tokens="1"), "max_tokens"),
                ("/execute", job("a", temperature=-1), "temperature"), ("/execute", job("a", seed=2**66), "seed"),
                ("/execute", job("a", seed=-2**64), "seed"), ("/execute", job("a", seed=0.5), "seed"),
                ("/v1/completions", {"prompt": []}, "prompt"), ("/v1/completions", {"prompt": ["a", "b"]}, "prompt"),
                ("/v1/completions", {"prompt": [7]}, "prompt"), ("/v1/completions", {"prompt": [["a"]]}, "prompt"),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}, "content"),
                ("/v1/chat/completions", {"messages": [{"role": "developer", "content": None}]}, "content"),
                               ("/execute", job("a", stream="yes"), "stream"), ("/v1/completions", {}, "prompt"),
                ("/v1/completions", {"prompt": "x", "n": 2}, "n"),
                ("/v1/completions", {"prompt": "x", "top_p": 2}, "top_p"),
                ("/v1/completions", {"prompt": "x", "stop": 5}, "stop"),
                ("/v1/completions", {"prompt": "x", "stop": ["a"] * 5}, "stop"),
                ("/v1/completions", {"prompt": "x", "stop": [""]}, "stop"),
                ("/v1/completions", {"prompt": "x", "stream_options": 1}, "stream_options"),
                ("/v1/chat/completions", {}, "messages"), ("/v1/chat/completions", {"messages": []}, "messages"),
                ("/v1/chat/completions", {"messages": [1]}, "messages"),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}, {"role": 1}]}, "role"),
                ("/v1/chat/completions", {"messages": [{"role": "user"}]}, "content"),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "content"),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * 1025}, "messages")):
            answer = worker.post(path, body)
            equal((path, body), answer.status, 400)
            error = answer.json()["error"]
            if path == "/execute":
                equal("field", answer.json()["field"], word)
            else:
                equal("param", (error["param"], error["type"]), (word, "invalid_request_error"))
                error = error["message"]
            assert word in error, (body, error)
        for body in (b"", b"{", b"[]", b"5", b'"x"', b"nonsense", b'{"job_id":"a","prompt":"x"} more', deep,
                     b'{"job_id":"a","job_id":"b","prompt":"x"}', b'{"job_id":"a","prompt":"\xff\xfe"}',
                     b'{"job_id":"a","prompt":"\xed\xa0\x80"}', b'{"job_id":"a","prompt":"\xc0\x80"}',
                     b'{"job_id":"a","prompt":"\xe0\x80\x80"}', b'{"job_id":"a","prompt":"\xf4\x90\x80\x80"}',
                     b'{"job_id":"a","prompt":"x\\u0000y"}', b'{"job_id":"a","prompt":"x\0y"}',
                     b'{"job_id":"a","prompt":"\\ud800"}', b'{"job_id":"a","prompt":"x","max_tokens":1e999}',
                     b'{"job_id":"a","prompt":"x","max_tokens":' + b"9" * 400 + b"}", b"\0" * 100):
            answer = worker.post("/execute", body)
            equal(body[:60], answer.status, 400)
            assert answer.json()["error"], body
        equal("escaped", worker.post("/execute", rb'{"job_id":"a","prompt":"x\\u0000y"}').status, 200)
        equal("nothing else ran", worker.metrics()["tundish_generations_total"], 1)


def test_long_bodies():
    with run(FAKE_PROMPT_MAX=1 << 20) as worker:
        worker.wait_ready()
        frame = len(json.dumps(job("a", prompt="")))
        equal("1 MiB", worker.post("/execute", job("a", prompt="x" * ((1 << 20) - frame))).status, 200)
        for path in "/execute", "/v1/completions":
            equal(path, worker.post(path, job("b", prompt="x" * ((1 << 20) - frame + 1))).status, 413)
        many = ((b"x" * 65536) for _ in range(40))
        connection = worker.connect()
        connection.request("POST", "/execute", many, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        equal("chunked", connection.getresponse().status, 413)
        connection.close()
        began = time.monotonic()
        answer = worker.post("/execute", b"{" + b'"a":0,' * 170000 + b'"job_id":"c","prompt":"x"}')
        equal("many members", answer.status, 200)
        assert time.monotonic() - began < 2 * SLOWER


def test_refused_before_the_body():
    with run() as worker:
        worker.wait_ready()
        for line, length, status in ((b"POST /execute", 1 << 30, 413), (b"POST /nothing", 10, 404),
                                     (b"PUT /execute", 10, 405), (b"POST /execute", 10, 100),
                                     (b"POST /execute", 1 << 20, 100)):
            with worker.socket() as connection:
                connection.sendall(b"%s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" %
                                   (line, length))
                equal(line, int(connection.recv(1000).split()[1]), status)
        wait_for("nothing is left", lambda: worker.metrics()["tundish_requests_in_flight"] == 1)


def test_mutated_bodies():
    """Bodies with a few bytes changed, dropped or doubled are answered with 200 or a sentence."""
    source = random.Random(1)
    bodies = [("/execute", {**job("a"), "max_tokens": 3, "temperature": 0.5, "stream": False}),
              ("/v1/completions", {"prompt": "é\U0001f600", "stop": ["x", "y"], "n": 1, "top_p": 0.5}),
              ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
                                        "max_completion_tokens": 3, "stream_options": {"include_usage": True}})]
    with run(FAKE_TOKENS=1) as worker:
        worker.wait_ready()
        connection = worker.connect()
        statuses = set()
        for turn in range(1500):
            path, body = bodies[turn % 3]
            body = bytearray(json.dumps(body, ensure_ascii=turn % 2 == 0).encode())
            for _ in range(source.randrange(1, 4)):
                at = source.randrange(len(body))
                body[at:at + source.randrange(3)] = source.choice([b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b"0",
                                                                   b"-", b"e9", b"null", b"\xff", b"\0", b"\\u0000"])
            answer = worker.post(path, bytes(body), connection=connection)
            statuses.add(answer.status)
            assert answer.status == 200 or answer.json()["error"], bytes(body)
        equal("statuses", statuses, {200, 400})
        connection.close()


# ---- Many at once ----


def test_connections_are_bounded():
    with run() as worker:
        worker.wait_ready()
        many = [worker.socket() for _ in range(256)]
        with worker.socket() as late:
            late.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            late.settimeout(0.3)
            try:
                assert not late.recv(1), "answered"
            except TimeoutError:
                pass
            for connection in many:
                connection.close()
            late.settimeout(harness.DEADLINE_S)
            assert b" 200 " in late.recv(1000)


def test_followers_leave_room():
    """However many follow one job, who asks how things are is answered."""
    with run(FAKE_TOKEN_MS=60000) as worker:
        worker.wait_ready()
        many = []
        for _ in range(256):
            many.append(worker.socket())
            many[-1].sendall(raw_post("/execute", job("same")))
        wait_for("some are refused", lambda: worker.log().count("status=429") >= 16)
        equal("livez", worker.get("/livez").status, 200)
        metrics = worker.metrics()
        equal("one runs", (metrics["tundish_generating"], metrics["tundish_queue_length"]), (1, 0))
        for connection in select.select(many, [], [], 0)[0]:
            answer = connection.recv(1000)
            assert b" 429 " in answer and b"connection: close" in answer.lower(), answer
        for connection in many:
            connection.close()
        wait_for("it stops", lambda: worker.metrics()["tundish_generating"] == 0)


def test_queue_is_bounded():
    with run(FAKE_TOKEN_MS=50, FAKE_TOKENS=1000000) as worker:
        worker.wait_ready()
        waiting = []
        for index in range(65):
            waiting.append(worker.socket())
            waiting[-1].sendall(raw_post("/execute", job(f"job {index}")))
            if index == 0:
                wait_for("the first runs", lambda: worker.metrics()["tundish_generating"] == 1)
        wait_for("all wait", lambda: worker.metrics()["tundish_queue_length"] == 64)
        for path, body in ("/execute", job("more")), ("/v1/completions", {"prompt": "x"}):
            answer = worker.post(path, body)
            equal(path, answer.status, 429)
            assert int(answer.headers["Retry-After"]) >= 1
        equal("type", answer.json()["error"]["type"], "rate_limit_error")
        equal("livez", worker.get("/livez").status, 200)
        for connection in waiting[1:]:
            connection.close()
        wait_for("none wait", lambda: worker.metrics()["tundish_queue_length"] == 0)
        equal("the first goes on", worker.metrics()["tundish_generating"], 1)
        waiting[0].close()
        wait_for("it stops", lambda: worker.metrics()["tundish_generating"] == 0)
        for name in "job 0", "job 1":
            equal("anew", worker.post("/execute", job(name, max_tokens=1)).json()["tokens"], 1)


def test_client_gone():
    with run(FAKE_TOKEN_MS=60000, FAKE_TOKENS=10) as worker:  # no token comes, so nothing is written
        worker.wait_ready()
        for stream, reset in (False, False), (True, False), (False, True), (True, True):
            with worker.socket() as connection:
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(raw_post("/execute", job("gone", stream=stream)))
                wait_for("it runs", lambda: worker.metrics()["tundish_generating"] == 1)
            wait_for("it stops", lambda: worker.metrics()["tundish_generating"] == 0, 2 * SLOWER)
        equal("log", worker.log().count("status=499"), 4)


def test_client_gone_before_it_begins():
    """The job runs, and the engine is not busy with it yet: the stop is not lost."""
    with run(FAKE_BEGIN_MS=300 * SLOWER, FAKE_TOKEN_MS=60000) as worker:
        worker.wait_ready()
        with worker.socket() as connection:
            connection.sendall(raw_post("/execute", job("gone")))
            wait_for("it runs", lambda: worker.metrics()["tundish_generating"] == 1)
        wait_for("it stops", lambda: worker.metrics()["tundish_generating"] == 0, 3 * SLOWER)


def test_client_gone_in_stream():
    with run(FAKE_TOKEN_MS=5, FAKE_TOKENS=1000000) as worker:
        worker.wait_ready()
        connection = worker.connect()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "stream": True, "max_tokens": 100000}))
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        response.close()
        connection.close()
        wait_for("it stops", lambda: worker.metrics()["tundish_generating"] == 0, 2 * SLOWER)
        equal("499", worker.metrics()['tundish_requests_total{path="/v1/completions",status="499"}'], 1)


def test_one_of_two_followers_gone():
    with run(FAKE_TOKEN_MS=20, FAKE_TOKENS=40) as worker:
        worker.wait_ready()
        first = worker.socket()
        first.sendall(raw_post("/execute", job("shared")))
        wait_for("it runs", lambda: worker.metrics()["tundish_generating"] == 1)
        threading.Timer(0.2, first.close).start()
        equal("the other", worker.post("/execute", job("shared")).json()["text"], text_of(40))
        equal("once", worker.metrics()["tundish_generations_total"], 1)


def cut_after_seconds(worker, sent, trickle):
    """Sends, then byte by byte, until the server has had enough. Returns how long that was."""
    began = time.monotonic()
    with worker.socket() as connection:
        connection.sendall(sent)
        while not is_closed(connection, 0.5):
            assert time.monotonic() - began < 30, "never cut"
            if trickle:
                try:
                    connection.sendall(b"x")
                except ConnectionError:
                    break
    return time.monotonic() - began


def broken_client(worker, kind):
    with worker.socket() as connection:
        if kind == 0:
            connection.sendall(b"GET /livez HT")
        elif kind == 1:
            connection.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"job_id\":")
        elif kind == 2:
            connection.sendall(random.randbytes(200) + b"\r\n\r\n")
        elif kind == 3:
            connection.sendall(raw_post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                                                 "stream": True}))
            connection.recv(200)
        else:
            connection.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n")


def load_client(worker, index, count, counts, times):
    """A connection that asks in turn for all there is; every 25th time a broken client comes by."""
    connection = worker.connect()
    for turn in range(count):
        kind = (index + turn) % 8
        method, path, body, status = (
            ("GET", "/livez", None, 200), ("GET", "/health", None, 200), ("GET", "/metrics", None, 200),
            ("GET", "/nothing", None, 404), ("POST", "/execute", job(f"{index} {turn}"), 200),
            ("POST", "/execute", b'{"job_id":', 400), ("POST", "/execute", job(f"{index} {turn}", stream=True), 200),
            ("POST", "/v1/completions", {"prompt": "x", "seed": 0}, 200))[kind]
        began = time.perf_counter()
        answer = worker.ask(method, path, body, connection=connection)
        times.append((path, time.perf_counter() - began))
        equal(path, answer.status, status)
        if kind == 4:
            equal("text", answer.json()["text"], text_of(12))
        elif kind == 6:
            equal("text", events(answer.body)[-1][1]["text"], text_of(12))
        key = (path if path != "/nothing" else "...", status)
        counts[key] = counts.get(key, 0) + 1
        if turn % 25 == 24:
            broken_client(worker, random.randrange(5))
    connection.close()


def test_load():
    """10,000 requests, with broken and slow clients beside them; the answers are those that were counted."""
    with run() as worker:
        worker.wait_ready()
        cuts, counts, times, problems = [], [{} for _ in range(CONNECTIONS)], [], []

        def slow(sent, trickle):
            cuts.append(cut_after_seconds(worker, sent, trickle))

        def client(index):
            try:
                load_client(worker, index, -(-REQUESTS // CONNECTIONS), counts[index], times)
            except Exception as problem:  # pylint: disable=broad-except
                problems.append(repr(problem))

        head = b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        threads = [threading.Thread(target=slow, args=arguments) for arguments in
                   ((b"GET /livez HTTP/1.1\r\nHost: ", False), (b"GET /livez HTTP/1.1\r\nHost: ", True),
                    (head + b"\r\n{", False), (head + b"\r\n{", True), (b"", False),
                    (b"GET /load HTTP/1.1\r\nHost: x\r\n\r\nGET /lo", True))]
        threads += [threading.Thread(target=client, args=(index,)) for index in range(CONNECTIONS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads[6:]:
            thread.join()
        seconds = time.monotonic() - began
        for thread in threads[:6]:
            thread.join()
        equal("problems", problems, [])
        assert len(cuts) == 6 and all(5 < cut < 15 + 5 * SLOWER for cut in cuts), cuts
        metrics = worker.metrics()
        expected = {}
        for mine in counts:
            for key, count in mine.items():
                expected[key] = expected.get(key, 0) + count
        for (path, status), count in expected.items():
            got = metrics[f'tundish_requests_total{{path="{path}",status="{status}"}}']
            equal((path, status), got - (path in ("/health", "/metrics")), count - (path == "/metrics"))
        spent = sorted(spent for _, spent in times)
        print(f"{len(spent)} requests of {CONNECTIONS} connections in {seconds:.1f} s: median "
              f"{statistics.median(spent) * 1e3:.1f} ms, p99 {spent[len(spent) * 99 // 100] * 1e3:.1f} ms, "
              f"max {spent[-1] * 1e3:.1f} ms")
        wait_for("nothing is left", lambda: worker.metrics()["tundish_requests_in_flight"] == 1)


def test_idle_sleeps():
    with run(FAKE_LOAD_MS=60000) as worker, worker.socket():
        worker.wait_ready()
        before = worker.switches()
        time.sleep(1.5)
        wakes = worker.switches() - before
        assert wakes <= (20 if SANITIZED else 3), f"{wakes} wakes in 1.5 s"  # a sanitizer has a thread that ticks


# ---- The end ----

def test_drain():
    for number in signal.SIGTERM, signal.SIGINT:
        with run(FAKE_TOKEN_MS=20, FAKE_TOKENS=20) as worker:
            worker.wait_ready()
            answers = []
            threads = [threading.Thread(target=lambda name=name: answers.append(worker.post("/execute", job(name))))
                       for name in ("runs", "waits")]
            for thread in threads:
                thread.start()
            wait_for("both are there", lambda: worker.metrics()["tundish_queue_length"] == 1)
            kept = worker.connect()
            equal("kept", worker.get("/livez", connection=kept).status, 200)
            worker.process.send_signal(number)
            wait_for("it listens no more", lambda: not can_connect(worker.port))
            answer = worker.post("/execute", job("late"), connection=kept)
            equal("late", (answer.status, answer.headers["Connection"].lower()), (503, "close"))
            kept.close()
            for thread in threads:
                thread.join()
            equal("answers", [(answer.status, answer.json()["text"]) for answer in answers], [(200, text_of(20))] * 2)
            equal("exit", worker.wait_exit(), 0)


def can_connect(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_drain_does_not_wait_for_half_a_request():
    with run() as worker:
        worker.wait_ready()
        with worker.socket() as connection:
            connection.sendall(raw_post("/execute", job("half"))[:-5])
            wait_for("it is there", lambda: worker.metrics()["tundish_requests_in_flight"] == 2)
            worker.process.send_signal(signal.SIGTERM)
            equal("exit", worker.wait_exit(3 * SLOWER), 0)


def test_second_signal():
    with run(FAKE_TOKEN_MS=60000) as worker:
        worker.wait_ready()
        answers = []
        threads = [threading.Thread(target=lambda name=name: answers.append(worker.post("/execute", job(name))))
                   for name in ("runs", "waits")]
        for thread in threads:
            thread.start()
        wait_for("both are there", lambda: worker.metrics()["tundish_queue_length"] == 1)
        worker.process.send_signal(signal.SIGTERM)
        wait_for("it drains", lambda: "ends once" in worker.log())
        worker.process.send_signal(signal.SIGTERM)
        equal("exit", worker.wait_exit(5 * SLOWER), 0)
        for thread in threads:
            thread.join()
        equal("answers", [answer.status for answer in answers], [503, 503])


def test_signal_while_loading():
    with run(FAKE_OPEN_MS=60000) as worker:
        equal("livez", worker.get("/livez").status, 200)
        worker.process.send_signal(signal.SIGTERM)
        equal("exit", worker.wait_exit(5 * SLOWER), 0)


# ---- Callbacks ----

def test_callback():
    with Receiver() as receiver, run("--callback-url", receiver.url) as worker:
        worker.wait_ready()
        results = [worker.post("/execute", job("told")).json() for _ in range(2)]
        worker.post("/execute", job("streamed", stream=True))
        worker.post("/v1/completions", {"prompt": "x"})
        wait_for("three events", lambda: len(receiver.events) >= 3)
    ready, result, streamed = receiver.events  # each once
    equal("ready", (ready["event"], ready["worker_id"], ready["port"]), ("ready", "w-1", worker.port))
    assert ready["load_ns"] > 0
    equal("result", result, {**results[0], "event": "result", "worker_id": "w-1"})
    equal("streamed", (streamed["job_id"], streamed["text"]), ("streamed", text_of(12)))


def test_callback_of_a_job_that_was_canceled_as_it_ended():
    with Receiver() as receiver, run("--callback-url", receiver.url, FAKE_TOKENS=1,
                                     FAKE_END_MS=300 * SLOWER) as worker:
        worker.wait_ready()
        with worker.socket() as connection:
            connection.sendall(raw_post("/execute", job("gone", stream=True)))
            assert b"200" in connection.recv(1000)
        wait_for("it is gone", lambda: "status=499" in worker.log())
        equal("it has not ended", worker.metrics()["tundish_generating"], 1)
        wait_for("it ends", lambda: worker.metrics()["tundish_generating"] == 0)
        equal("anew", worker.post("/execute", job("gone")).status, 200)
        equal("twice", worker.metrics()["tundish_generations_total"], 2)
    equal("events", [event["event"] for event in receiver.events], ["ready", "result"])


def test_callback_takes_no_proxy():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with Receiver() as receiver, run("--callback-url", receiver.url, http_proxy=url, all_proxy=url, ALL_PROXY=url,
                                         no_proxy="", NO_PROXY="") as worker:
            worker.wait_ready()
            wait_for("ready", lambda: receiver.events)


def test_callback_is_retried():
    with Receiver(failures=2) as receiver, run("--callback-url", receiver.url) as worker:
        worker.wait_ready()
        worker.post("/execute", job("told"))
        wait_for("two events", lambda: len(receiver.events) == 2)
        equal("events", [event["event"] for event in receiver.events], ["ready", "result"])
        equal("tries", len(receiver.times), 4)
        pauses = [later - earlier for earlier, later in zip(receiver.times, receiver.times[1:])]
        assert 0.2 < pauses[0] < pauses[1], pauses


def test_callback_without_receiver():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        with run("--callback-url", f"http://127.0.0.1:{nobody.getsockname()[1]}/") as worker:
            worker.wait_ready()
            for index in range(300):
                equal("answer", worker.post("/execute", job(f"{index}")).status, 200)
            began = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            equal("exit", worker.wait_exit(15), 0)
            assert time.monotonic() - began < 8 * SLOWER
            assert "callback: an event was given up" in worker.log() and "is lost" in worker.log()


def test_callback_that_hangs():
    with Receiver(delay_s=60) as receiver, run("--callback-url", receiver.url) as worker:
        worker.wait_ready()
        equal("answer", worker.post("/execute", job("a")).status, 200)
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        equal("exit", worker.wait_exit(15), 0)
        assert time.monotonic() - began < 12


def test_curl_is_opened_late():
    with run() as worker:
        worker.wait_ready()
        with open(f"/proc/{worker.process.pid}/maps", encoding="ascii") as maps:
            assert "curl" not in maps.read()


# ---- Start ----

def test_start():
    times = []
    for _ in range(20):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        began = time.perf_counter()
        process = subprocess.Popen([WORKER, "--worker-id", "w", "--model", "m", "--port", str(port)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        answer = b""
        while not answer:
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
                    answer = connection.recv(1000)
                else:
                    time.sleep(0.0002)
            assert time.perf_counter() - began < harness.DEADLINE_S
        times.append(time.perf_counter() - began)
        process.terminate()
        equal("exit", process.wait(), 0)
        assert b" 200 " in answer
    print(f"exec to /livez: median {statistics.median(times) * 1e3:.1f} ms of {len(times)}, "
          f"{min(times) * 1e3:.1f} to {max(times) * 1e3:.1f} ms")


def main():
    if not WORKER:
        print(__doc__)
        return 2
    return run_all(globals(), ONLY)


if __name__ == "__main__":
    sys.exit(main())
