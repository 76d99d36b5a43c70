#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: load --trace and --svg tell what happened, all of it, in forms that others can open.

Method: load small models written here in many ways; hold the JSON against what Chrome needs, against itself (lanes do
not overlap, counters add up) and against report and plan; read the picture as XML.

    test_trace.py TUNDISH"""
import json
import math
import os
import sys
import xml.etree.ElementTree

import models
from test_cli import Skipped, TENSORS, TUNDISH, done, done_json, equal, refused, run, run_all

BYTES = sum(models.ggml_bytes(kind, shape) for _, kind, shape in TENSORS)
SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["two\nlines", "<tag> & \"quote\" 'x'", "back\\slash", "nul\0inside", "ä€𝄞", "c1\x85", "\ufffe\uffff", "]]>",
         "\x1b[31m", "x" * 5000, "", "\u2028"]


def large(case, layers=12):
    """Many windows, so that slots are used again and workers have something to do: 12 MB."""
    path = case.path("large.gguf")
    models.write_gguf(path, [("token_embd.weight", models.GGML_F32, [256, 1024])] + [
        (f"blk.{layer}.w", models.GGML_F32, [256, 1024]) for layer in range(layers)], [])
    return path


def uncached(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(case, model, *arguments):
    """The report, the trace as JSON, and the picture as XML."""
    trace, svg = case.path("out.json"), case.path("out.svg")
    report = done_json("load", model, "--trace", trace, "--svg", svg, *arguments)

    def constant(name):
        raise AssertionError(f"{name} is no JSON")

    with open(trace, encoding="utf-8") as file:
        events = json.load(file, parse_constant=constant)
    return report, events, xml.etree.ElementTree.parse(svg).getroot()


def ns(microseconds):
    return round(microseconds * 1000)


class Lanes:
    """What a trace says, by the names of its lanes."""

    def __init__(self, trace):
        self.other = trace["otherData"]
        self.names, self.groups, self.spans = {}, {}, {}
        self.rates, self.depths, self.marks = [], [], {}
        for event in trace["traceEvents"]:
            for key in ("ph", "name", "pid", "tid", "ts"):
                assert key in event, f"no {key} in {event}"
            assert isinstance(event["name"], str) and event["pid"] > 0 and event["tid"] > 0 and event["ts"] >= 0, event
            getattr(self, {"M": "meta", "X": "span", "C": "counter", "i": "mark"}[event["ph"]])(event)
        for tid, spans in self.spans.items():
            spans.sort(key=lambda span: (ns(span["ts"]), ns(span["dur"])))
            assert tid in self.names, f"lane {tid} has no name"
        self.lanes = {name: self.spans.get(tid, []) for tid, name in self.names.items()}
        equal("names of lanes", len(self.lanes), len(self.names))

    def meta(self, event):
        if event["name"] == "thread_name":
            assert event["tid"] not in self.names, "a lane has two names"
            self.names[event["tid"]] = event["args"]["name"]
        elif event["name"] == "process_name":
            self.groups[event["pid"]] = event["args"]["name"]
        else:
            assert event["name"] in ("thread_sort_index", "process_sort_index"), event
            assert event["args"]["sort_index"] >= 0, event

    def span(self, event):
        assert event["dur"] >= 0 and event["pid"] in self.groups, event
        self.spans.setdefault(event["tid"], []).append(event)

    def counter(self, event):
        (value,) = event["args"].values()
        assert math.isfinite(value) and value >= 0, event
        (self.rates if event["name"] == "GB/s" else self.depths).append((ns(event["ts"]), value))

    def mark(self, event):
        equal("scope", event["s"], "g")
        self.marks[event["name"]] = ns(event["ts"])

    def of(self, group):
        return {name: spans for name, spans in self.lanes.items() if name.split(" ")[0] == group}

    def kind(self, *kinds):
        return [span for group in ("slot", "worker") for spans in self.of(group).values() for span in spans
                if span["cat"] in kinds and (group == "slot") == (span["cat"] in ("read", "wait"))]


def check(report, trace, plan_reads=None):
    """What holds of every load. Returns the lanes."""
    lanes = Lanes(trace)
    reads = lanes.kind("read")
    equal("dropped", lanes.other["dropped_events"], 0)
    equal("wall", lanes.other["wall_ns"], report["wall_ns"])
    for name, spans in lanes.lanes.items():
        for before, after in zip(spans, spans[1:]):
            assert ns(before["ts"]) + ns(before["dur"]) <= ns(after["ts"]) + 1, f"{name}: {before} and {after}"
    assert sum(span["args"]["bytes"] for span in reads) >= report["model_bytes"]
    if plan_reads:
        equal("reads", len(reads), plan_reads)
    for span in reads + lanes.kind("copy", "convert"):
        assert "tensor" in span["args"] and span["args"]["offset"] % 4096 == 0, span
    ends = [ns(span["ts"]) + ns(span["dur"]) for spans in lanes.lanes.values() for span in spans]
    assert max(ends) <= report["wall_ns"] + 2 * 10**9
    check_engines(lanes, report, reads)
    check_counters(lanes, report, reads)
    check_phases(lanes, report)
    return lanes


def check_engines(lanes, report, reads):
    engines = {name: spans for name, spans in lanes.lanes.items() if name in ("uring", "threads", "mmap", "nil")}
    assert report["engine"] in engines, f"no lane {report['engine']} in {sorted(lanes.lanes)}"
    equal("reads of the engines", sum(span["args"]["reads"] for spans in engines.values() for span in spans),
          len(reads))
    equal("their bytes", sum(span["args"]["bytes"] for spans in engines.values() for span in spans),
          sum(span["args"]["bytes"] for span in reads))
    for read in reads:
        assert any(ns(busy["ts"]) <= ns(read["ts"]) and
                   ns(read["ts"]) + ns(read["dur"]) <= ns(busy["ts"]) + ns(busy["dur"]) + 1
                   for spans in engines.values() for busy in spans), f"no engine was busy with {read}"


def check_counters(lanes, report, reads):
    total = sum(span["args"]["bytes"] for span in reads)
    held = sum(value * (after - at) for (at, value), (after, _) in zip(lanes.rates, lanes.rates[1:]))
    assert abs(held - total) <= 1e-6 * total, f"the counter adds up to {held} bytes, not {total}"
    equal("the counters' end", (lanes.rates[-1][1], lanes.depths[-1][1]), (0, 0))
    equal("order", lanes.depths, sorted(lanes.depths, key=lambda depth: depth[0]))
    assert 1 <= max(value for _, value in lanes.depths) <= max(report["depth_max"], 1)


def check_phases(lanes, report):
    phases = {span["name"]: span for span in lanes.lanes["phases"]}
    equal("open", (ns(phases["open"]["ts"]), ns(phases["open"]["dur"])), (0, report["open_ns"]))
    equal("plan", ns(phases["plan"]["dur"]), report["plan_ns"])
    equal("ready", lanes.marks["ready"] - ns(phases["plan"]["ts"]), report["ready_ns"])
    if report["first_layer_ns"]:
        equal("first layer", lanes.marks["first layer"] - ns(phases["plan"]["ts"]), report["first_layer_ns"])


def check_picture(root, lanes):
    equal("root", root.tag, SVG + "svg")
    equal("size", root.get("viewBox"), f"0 0 {root.get('width')} {root.get('height')}")
    drawn = [group.find(SVG + "text").text for group in root.iter(SVG + "g") if group.get("class") == "lane"]
    equal("lanes", drawn, [name for name, spans in lanes.lanes.items() if spans])
    parts = {group.get("id") for group in root.iter(SVG + "g")}
    assert {"legend", "time", "rate", "depth", "marks"} <= parts, parts
    legend = [text.text for group in root.iter(SVG + "g") if group.get("id") == "legend"
              for text in group.iter(SVG + "text")]
    equal("legend", len(legend), len({span["cat"] for spans in lanes.lanes.values() for span in spans}))
    bars = [rect for rect in root.iter(SVG + "rect") if rect.find(SVG + "title") is not None]
    spans = sum(map(len, lanes.lanes.values()))
    assert len(drawn) <= len(bars) <= min(spans, 5000), len(bars)
    for rect in root.iter(SVG + "rect"):
        assert 0 <= float(rect.get("x")) and float(rect.get("x")) + float(rect.get("width")) <= 1000, rect.attrib
    for element in root.iter():
        assert "script" not in element.tag and "href" not in element.attrib, element.tag


# ---- tests ----

def test_engines(case):
    path = large(case)
    reads = done_json("plan", path, "--chunk", "256K")["reads"]
    for engine in ("auto", "uring", "threads", "nil", "mmap"):
        if run("load", path, "--engine", engine).returncode == 6:
            print(f"test_engines: {engine} is not to be had here")
            continue
        uncached(path)
        report, trace, svg = load(case, path, "--engine", engine, "--chunk", "256K", "--threads", "2")
        lanes = check(report, trace, reads if engine != "mmap" else None)
        check_picture(svg, lanes)
        assert engine in ("auto", report["engine"]), report["engine"]


def test_pool(case):
    """Through the pool: each read is followed by its copy, on a slot and on a worker."""
    path = large(case)
    uncached(path)
    report, trace, svg = load(case, path, "--direct", "on", "--in-place", "off", "--chunk", "256K", "--pool", "1M",
                              "--threads", "3")
    lanes = check(report, trace)
    check_picture(svg, lanes)
    slots, copies = lanes.of("slot"), lanes.kind("copy")
    equal("copies", len(copies), len(lanes.kind("read")))
    assert 1 <= len(slots) <= 4, sorted(slots)
    for name, spans in slots.items():
        kinds = [span["cat"] for span in spans if span["cat"] != "wait"]
        equal(name, kinds, ["read", "copy"] * (len(kinds) // 2))
        for span, after in zip(spans, spans[1:]):
            if span["cat"] == "wait":
                equal("what waits", (span["args"], after["cat"]), (after["args"], "copy"))
    equal("on workers", sorted(span["args"]["offset"] for span in copies),
          sorted(span["args"]["offset"] for spans in slots.values() for span in spans if span["cat"] == "copy"))
    touched = sum(span["args"]["bytes"] for span in lanes.kind("touch"))
    assert touched <= report["destination_bytes"] + (8 << 20), touched


def test_place(case):
    path = large(case)
    uncached(path)
    report, trace, svg = load(case, path, "--direct", "on", "--in-place", "on")
    lanes = check(report, trace)
    check_picture(svg, lanes)
    assert report["pool_bytes_read"] < report["bytes_read"], "nothing came in place"


def test_dtype(case):
    for dtype, kinds in ("f16", {"convert"}), ("native", {"copy"}):
        report, trace, svg = load(case, large(case), "--dtype", dtype, "--in-place", "off", "--direct", "on")
        lanes = check(report, trace)
        check_picture(svg, lanes)
        equal(dtype, {span["cat"] for span in lanes.kind("copy", "convert")}, kinds)
        equal("in the legend", "convert" in [text.text for text in svg.iter(SVG + "text")], dtype == "f16")


def test_repeat(case):
    """The last run, without what the first one set up."""
    path = large(case)
    report, trace, svg = load(case, path, "--repeat", "5", "--chunk", "256K")
    lanes = check(report, trace, done_json("plan", path, "--chunk", "256K")["reads"])
    check_picture(svg, lanes)
    equal("phases", [span["name"] for span in lanes.lanes["phases"]], ["open", "plan", "load"])
    report, trace, _ = load(case, path)
    equal("phases", [span["name"] for span in Lanes(trace).lanes["phases"]], ["open", "set up", "plan", "load"])


def test_small(case):
    """Models of a read or none, parts, digests."""
    for arguments in ((), ("--only", "output_norm*"), ("--layers", "1"), ("--digest", "xxh3"), ("--threads", "1")):
        report, trace, svg = load(case, case.gguf, *arguments)
        check_picture(svg, check(report, trace))
    assert report["model_bytes"] == BYTES
    path = case.path("empty.safetensors")
    models.write_safetensors(path, [("empty", "U8", [0], b"")])
    report, trace, svg = load(case, path)
    lanes = Lanes(trace)
    equal("lanes", list(lanes.lanes), ["phases"])
    check_picture(svg, lanes)


def test_names(case):
    """What a file says of its tensors harms neither form."""
    folder = case.path("<&\"'\x01ä")
    os.mkdir(folder)
    path = os.path.join(os.fsencode(folder), b"a\xff<b>&.safetensors")
    models.write_safetensors(path, [(name, "U8", [8192], bytes(8192)) for name in NAMES])
    report, trace, svg = load(case, path, "--chunk", "64K")
    lanes = check(report, trace)
    check_picture(svg, lanes)
    assert {span["args"]["tensor"] for span in lanes.kind("read")} <= set(NAMES)
    text = "".join(svg.itertext())
    assert "a\\xff<b>&.safetensors" in text and not any(ord(c) < 32 and c != "\n" or c in "\ufffe\uffff" for c in text)


def test_shards(case):
    names = []
    for part in range(3):
        names.append(case.path(f"model-0000{part + 1}-of-00003.safetensors"))
        models.write_safetensors(names[-1], [(f"model.layers.{part}.w", "F32", [4096], bytes(16384))])
    with open(case.path("model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"weight_map": {f"model.layers.{part}.w": os.path.basename(name)
                                  for part, name in enumerate(names)}}, file)
    report, trace, _ = load(case, case.path("model.safetensors.index.json"))
    lanes = check(report, trace)
    equal("files", sorted(os.path.realpath(span["args"]["file"]) for span in lanes.kind("read")),
          sorted(os.path.realpath(name) for name in names))


def test_many(case):
    """Thousands of reads give a picture of a sane size."""
    path = case.path("sparse.gguf")
    models.write_gguf(path, [(f"blk.{i}.w", models.GGML_F32, [1 << 10, 1 << 12]) for i in range(16)], [], sparse=True)
    report, trace, svg = load(case, path, "--chunk", "64K", "--engine", "threads", "--direct", "off", "--depth", "64")
    lanes = check(report, trace, done_json("plan", path, "--chunk", "64K")["reads"])
    assert len(lanes.kind("read")) >= 4096
    assert len(list(svg.iter(SVG + "rect"))) < 6000 and os.path.getsize(case.path("out.svg")) < 2 << 20


def test_places(case):
    """A file is written whole or not at all, and what cannot be written is said before the load."""
    cut = case.copy("cut.gguf", lambda data: data[:-40])  # exit 3, were the model looked at first
    for option, words in (("--trace", "the trace"), ("--svg", "the picture")):
        for path in (case.path("none/x"), case.path("model.gguf/x"), "", case.folder, "/dev/null", "/dev/full"):
            refused(7, "load", cut, option, path, words=[words])
        old = case.path("old")
        with open(old, "w", encoding="utf-8") as file:
            file.write("old")
        refused(3, "load", cut, option, old)
        with open(old, encoding="utf-8") as file:
            equal("after a failure", file.read(), "old")
        done("load", case.gguf, option, old)
        assert os.path.getsize(old) > 3
        refused(2, "load", case.gguf, option, words=[option])
        refused(2, "digest", case.gguf, option, case.path("x"), words=[option])
    refused(2, "load", case.gguf, "--trace", case.path("x"), "--svg", case.path("x"), words=["--trace", "--svg"])
    equal("what else is there", [name for name in os.listdir(case.folder) if "tmp" in name], [])


def test_full_disk(case):
    if run("-c", "ulimit -f 1", program="sh").returncode != 0:
        raise Skipped("no limit on file sizes to be had")
    for option in "--trace", "--svg":
        path = case.path("limited")
        answer = run("-c", 'ulimit -f 1; exec "$0" load "$1" "$2" "$3"', TUNDISH, large(case),
                     option, path, program="sh")
        equal(option, (answer.returncode, answer.stdout, os.path.exists(path)), (1, b"", False))
        assert answer.stderr.decode().splitlines()[-1].startswith("tundish: cannot write the"), answer.stderr


if __name__ == "__main__":
    sys.exit(run_all(globals(), __doc__))
