# SPDX-License-Identifier: Apache-2.0
"""A worker that runs, its clients, and who is called back. 127.0.0.1 only."""
import http.client
import http.server
import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import traceback

SANITIZED = os.environ.get("TUNDISH_SANITIZE", "none") != "none"
SLOWER = 5 if SANITIZED else 1
DEADLINE_S = 20 * SLOWER


def equal(what, got, expected):
    assert got == expected, f"{what}: {got!r}, expected {expected!r}"


def wait_for(what, condition, seconds=DEADLINE_S):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not after {seconds} s"
        time.sleep(0.005)


def command(program, *arguments, **settings):
    """One that ends of itself: (exit code, stdout, stderr)."""
    environment = dict(os.environ, **{name: str(value) for name, value in settings.items()})
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, env=environment, timeout=DEADLINE_S,
                          check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body.decode("utf-8"))


class Worker:
    """Use it in a with: it then ends by SIGTERM, and is to end with the exit code that is expected."""

    def __init__(self, program, *arguments, exit_code=0, **settings):
        environment = dict(os.environ, **{name: str(value) for name, value in settings.items()})
        self.exit_code = exit_code
        self.log_file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [program, "--worker-id", "w-1", "--model", "/nowhere/model.gguf", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=self.log_file, env=environment)
        self.greeting = self.process.stdout.readline().decode()
        self.port = int(self.greeting.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if not kind else signal.SIGKILL)
        try:
            code = self.process.wait(timeout=30 + DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        if not kind:
            assert code == self.exit_code, f"exit code {code}, expected {self.exit_code}:\n{self.log()[-3000:]}"
        else:
            print(self.log()[-3000:])

    def log(self):
        self.log_file.seek(0)
        return self.log_file.read().decode()

    def wait_exit(self, seconds=DEADLINE_S):
        return self.process.wait(timeout=seconds)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """body: bytes, or what becomes JSON."""
        own = connection or self.connect()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        try:
            own.request(method, path, body, headers or {})
            return Answer(own.getresponse())
        finally:
            if not connection:
                own.close()

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, body, **more):
        return self.ask("POST", path, body, **more)

    def wait_ready(self):
        wait_for("ready", lambda: self.get("/health").status == 200)

    def metrics(self):
        """{"name{labels}": value}"""
        lines = self.get("/metrics").body.decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def switches(self):
        """How often its threads went to sleep by now."""
        count = 0
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/status", encoding="ascii") as file:
                count += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M).group(1))
        return count


def events(body):
    """The events of a stream: [(name or None, data)]."""
    found = []
    for block in body.decode("utf-8").split("\n\n"):
        name = data = None
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
        if data is not None:
            found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


def chunks(stream):
    """The pieces of a chunked body, as they were cut on their way. stream: a file at its beginning."""
    found = []
    while True:
        count = int(stream.readline(), 16)
        found.append(stream.read(count))
        assert stream.readline() == b"\r\n"
        if count == 0:
            return found[:-1]


def is_closed(connection, seconds):
    """Whether the other side ends the connection within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if select.select([connection], [], [], 0.1)[0]:
            try:
                if not connection.recv(65536):
                    return True
            except ConnectionError:
                return True
    return False


class Receiver:
    """Who is called back: says 500 as often as is wanted, then 200. delay_s: before it says anything."""

    def __init__(self, failures=0, delay_s=0):
        self.events, self.times = [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.times.append(time.monotonic())
                time.sleep(delay_s)
                failing = len(outer.times) <= failures
                if not failing:
                    outer.events.append(json.loads(body))
                self.send_response(500 if failing else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/told"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self.server.shutdown()
        self.server.server_close()


def log_fields(line):
    return dict(re.findall(r"(\w+)=(\S+)", line))


class Skipped(Exception):
    pass


def run_all(namespace, only):
    """The tests of a file, one after the other; only: names, all without any. Returns the exit code."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, test in [(name, test) for name, test in namespace.items() if name.startswith("test_")]:
        if only and name not in only:
            continue
        try:
            test()
            outcome = "passed"
        except Skipped as why:
            outcome = "skipped"
            print(f"{name}: skipped: {why}")
        except Exception as problem:  # pylint: disable=broad-except
            outcome = "failed"
            print(f"{name}: failed: {problem}")
            if not isinstance(problem, AssertionError):
                traceback.print_exc()
        counts[outcome] += 1
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0
