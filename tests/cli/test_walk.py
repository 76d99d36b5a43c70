#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: tundish walk drives a load as inference does, and what it says adds up.

Method: walk through small models written here in many ways; hold the JSON against itself (a token's figures, a layer's
and the totals) and its prediction against a disk, a consumer and a window that are stepped through layer by layer; read
the picture as XML. No time is asserted.

    test_walk.py TUNDISH"""
import os
import re
import sys
import xml.etree.ElementTree

import models
from test_cli import Skipped, done, done_json, equal, interrupt, keys, refused, run, run_all

SVG = "{http://www.w3.org/2000/svg}"
LAYERS = 12
LAYER_BYTES = 256 * 1024 * 4
PLACE_BYTES = LAYER_BYTES + 4096  # what its alignment may add
KEYS = set("""layers tokens sync_loads hits late_hits stalls stalled_ns bytes_reread overhead_ns first_layer_ns
    wall_ns resident_bytes shared_bytes""".split())
TOTAL_KEYS = KEYS
WALK_KEYS = TOTAL_KEYS | {"per_token", "per_layer", "compute_ns", "ahead", "resident_layers", "engine", "predicted",
                          "without_prefetch"}
SUMMED = KEYS - {"layers", "first_layer_ns", "resident_bytes", "shared_bytes"}


def layered(case, layers=LAYERS):
    path = case.path("layered.gguf")
    models.write_gguf(path, [("token_embd.weight", models.GGML_F32, [64, 1024])] + [
        (f"blk.{layer}.w", models.GGML_F32, [256, 1024]) for layer in range(layers)
    ] + [("output.weight", models.GGML_F32, [32, 1024])], [])
    return path


def check_counts(counts, layers, tokens, compute_ns):
    equal("layers and tokens", (counts["layers"], counts["tokens"]), (layers, tokens))
    equal("acquires", counts["hits"] + counts["late_hits"] + counts["sync_loads"], tokens * layers)
    equal("stalls", counts["stalls"], counts["late_hits"] + counts["sync_loads"])
    equal("overhead", counts["overhead_ns"], counts["wall_ns"] - tokens * layers * compute_ns)
    assert 0 < counts["first_layer_ns"] <= counts["wall_ns"], counts
    assert (counts["stalls"] > 0) >= (counts["stalled_ns"] > 0), counts


def walk(model, *arguments, layers=LAYERS, tokens=3):
    """The report, once it has been seen to add up."""
    report = done_json("walk", model, "--chunk", "64K", "--tokens", str(tokens), *arguments)
    compute_ns = report["compute_ns"]
    keys("walk", report, WALK_KEYS)
    check_counts(report, layers, tokens, compute_ns)
    equal("tokens told", len(report["per_token"]), tokens)
    for token in report["per_token"]:
        keys("a token", token, KEYS)
        check_counts(token, layers, 1, compute_ns)
    for key in SUMMED:
        equal(f"{key} of all tokens", sum(token[key] for token in report["per_token"]), report[key])
    equal("first layer", report["first_layer_ns"], report["per_token"][0]["first_layer_ns"])
    equal("layers told", len(report["per_layer"]), layers)
    for key in "stalls", "stalled_ns":
        equal(f"{key} of all layers", sum(layer[key] for layer in report["per_layer"]), report[key])
    if report["without_prefetch"]:
        keys("without prefetch", report["without_prefetch"], TOTAL_KEYS)
        check_counts(report["without_prefetch"], layers, tokens, compute_ns)
        equal("without prefetch", report["without_prefetch"]["ahead"], 0)
    check_window(report, layers)
    return report


def check_window(report, layers):
    if report["resident_bytes"] == 0:
        equal("layers that stay", (report["resident_layers"], report["bytes_reread"]), (layers, 0))
    else:
        assert report["ahead"] < report["resident_layers"] <= layers, report


# ---- tests ----

def test_eager(case):
    report = walk(layered(case))
    equal("resident", report["resident_bytes"], 0)
    equal("shared", report["shared_bytes"], 96 * 1024 * 4)
    equal("numbers", [layer["layer"] for layer in report["per_layer"]], list(range(LAYERS)))
    equal("compute", report["compute_ns"], int(1.05 * report["measured"]["read_ns"]))


def test_defaults(case):
    equal("tokens", done_json("walk", layered(case, 2))["tokens"], 8)


def test_resident(case):
    path = layered(case)
    report = walk(path, "--resident", "50%")
    assert report["resident_layers"] * LAYER_BYTES <= report["resident_bytes"] <= LAYERS * LAYER_BYTES // 2, report
    assert LAYERS // 2 - 1 <= report["resident_layers"] <= LAYERS // 2, report
    equal("whole layers", report["bytes_reread"] % LAYER_BYTES, 0)
    misses = LAYERS - report["resident_layers"]  # of a token, at the least; of all, each of its layers
    assert 2 * misses <= report["bytes_reread"] // LAYER_BYTES <= 3 * LAYERS, report
    equal("in bytes", walk(path, "--resident", str(LAYERS * LAYER_BYTES // 2))["resident_layers"],
          report["resident_layers"])
    equal("all", walk(path, "--resident", "100%")["resident_bytes"], 0)
    equal("more than all", walk(path, "--resident", "1G")["resident_bytes"], 0)
    equal("the last one counts", walk(path, "--resident", "1%", "--resident", "1G")["resident_bytes"], 0)
    halved = walk(path, "--resident", "50%", "--dtype", "f16")
    assert halved["resident_bytes"] <= LAYERS * LAYER_BYTES // 4, "the share is not of what lies in memory"
    assert halved["resident_layers"] >= report["resident_layers"], halved


def test_ahead(case):
    path = layered(case)
    for ahead in 1, 3:
        report = walk(path, "--resident", "50%", "--ahead", str(ahead), "--compute-us", "100")
        equal("ahead", report["ahead"], ahead)
        assert report["without_prefetch"]
    report = walk(path, "--resident", "50%", "--ahead", "0", "--compute-us", "100")
    equal("none", (report["ahead"], report["late_hits"], report["without_prefetch"]), (0, 0, None))
    walk(path, "--resident", "50%", "--ahead", "auto", "--compute-us", "auto")


def test_lazy(case):
    path = layered(case)
    report = walk(path, "--lazy")
    equal("resident", (report["resident_bytes"], report["bytes_reread"]), (0, 0))
    report = walk(path, "--lazy", "--ahead", "0", "--compute-us", "0")
    assert LAYERS - 1 <= report["per_token"][0]["sync_loads"] <= LAYERS, report  # the first may be there by then
    equal("later tokens", [token["hits"] for token in report["per_token"][1:]], [LAYERS, LAYERS])
    equal("without computing", report["overhead_ns"], report["wall_ns"])
    walk(path, "--lazy", "--resident", "30%")


def test_engines(case):
    path = layered(case)
    for engine in ("uring", "threads", "nil", "mmap"):
        if run("load", path, "--engine", engine).returncode == 6:
            print(f"test_engines: {engine} is not to be had here")
            continue
        equal("engine", walk(path, "--engine", engine)["engine"], engine)
    for arguments in (["--direct", "off"], ["--chunk", "64K", "--depth", "2", "--pool", "1M"], ["--threads", "1"],
                      ["--in-place", "off"], ["--memory", "2G"], ["--read-timeout", "20"]):
        walk(path, "--resident", "50%", *arguments)


def test_parts(case):
    path = layered(case)
    report = walk(path, "--layers", "3-8", layers=6)
    equal("numbers", [layer["layer"] for layer in report["per_layer"]], list(range(3, 9)))
    equal("shared", report["shared_bytes"], 0)
    walk(path, "--layers", "3-8", "--resident", "50%", layers=6)
    report = walk(path, "--only", "blk.[17]*", layers=4)
    equal("numbers", [layer["layer"] for layer in report["per_layer"]], [1, 7, 10, 11])
    walk(path, "--layers", "5", layers=1)
    walk(case.gguf, layers=4)


def test_no_layers(case):
    refused(7, "walk", case.safetensors, words=[case.safetensors, "layer"])
    refused(7, "walk", case.gguf, "--only", "output_norm*", words=["layer"])
    refused(7, "walk", case.gguf, "--only", "nothing*")


def test_no_memory(case):
    """A window smaller than the largest layer and a read is refused with both, and one that holds them is not."""
    path = layered(case)
    chunk = 64 << 10
    for bytes_given, arguments in ((1, ["--resident", "1"]), (LAYERS * LAYER_BYTES // 100, ["--resident", "1%"]),
                                   (PLACE_BYTES + chunk - 1, ["--resident", str(PLACE_BYTES + chunk - 1)])):
        refused(6, "walk", path, "--chunk", "64K", *arguments,
                words=[path, f"window of {bytes_given} bytes is too small", str(PLACE_BYTES), str(chunk)])
    equal("just enough", walk(path, "--resident", str(PLACE_BYTES + chunk))["resident_layers"], 1)
    for memory, arguments in ((1 << 20, []), (3 << 20, ["--resident", "50%"])):
        text = refused(6, "walk", path, "--memory", str(memory), *arguments, words=[path, str(memory)])
        needed = [int(number) for number in re.findall(r"\d+", text.replace(path, "")) if int(number) > memory]
        assert needed, f"nothing is said to need more than {memory} bytes: {text}"


def test_one_place(case):
    """Room for one layer: nothing is fetched ahead, each layer is waited for, and both reports say why."""
    path = layered(case)
    arguments = ["--resident", str(PLACE_BYTES + (64 << 10)), "--compute-us", "100"]
    report = walk(path, *arguments)
    equal("places and ahead", (report["resident_layers"], report["ahead"], report["late_hits"]), (1, 0, 0))
    equal("without prefetch", report["without_prefetch"], None)
    equal("read again", [token["bytes_reread"] for token in report["per_token"]],
          [0] + 2 * [LAYERS * LAYER_BYTES])
    equal("synchronous loads", [token["sync_loads"] for token in report["per_token"]][1:], 2 * [LAYERS])
    equal("why", len([reason for reason in report["reasons"] if "room for one layer" in reason]), 1)
    text = done("walk", path, "--chunk", "64K", "--tokens", "2", *arguments).stdout.decode()
    equal("why, as text", len(re.findall(r"^because .*room for one layer", text, re.M)), 1)
    report = walk(path, "--resident", "50%", *arguments[2:])
    assert not [reason for reason in report["reasons"] if "room for one layer" in reason], report["reasons"]


# ---- the prediction ----

def stepped(layers, places, ahead, read, compute):
    """Reads, stalls and how many of a token in the long run, by a disk, a consumer and a window that are stepped
    through."""
    period = layers - 1 - ahead
    first, steps = layers + 3 * period, layers + 3 * period + 2 * period * layers
    there, disk, now, reads, stalled, late = {}, 0, 0, 0, 0, 0
    for step in range(steps):
        wanted = [(step + i) % layers for i in range(ahead + 1)]
        for layer in wanted:
            if layer in there:
                continue
            if len(there) == places:
                del there[max(set(there) - set(wanted), key=lambda held: (held - step - 1) % layers)]
            disk = max(disk, now) + read
            there[layer] = disk
            reads += step >= first
        wait = max(0, there[step % layers] - now)
        stalled += wait if step >= first else 0
        late += wait > 0 and step >= first
        now += wait + compute
    return reads / (2 * period), stalled / (2 * period), late / (2 * period)


def check_prediction(report):
    places, layers, ahead = report["resident_layers"], report["layers"], report["ahead"]
    predicted, tokens = report["predicted"], report["tokens"]
    reads, stalled, late = 0, 0, 0
    read_ns, compute_ns = report["measured"]["read_ns"], report["compute_ns"]
    if places < layers:
        reads, stalled, late = stepped(layers, places, ahead, read_ns, compute_ns)
    assert abs(predicted["reads_per_token"] - reads) < 1e-6 * layers, (predicted, reads)
    assert abs(predicted["token_stalled_ns"] - stalled) < 1 + 1e-6 * stalled, (predicted, stalled)
    assert abs(predicted["bytes_reread"] - reads * (tokens - 1) * LAYER_BYTES) < LAYER_BYTES, (predicted, reads)
    total = predicted["first_stalled_ns"] + (tokens - 1) * stalled
    assert abs(predicted["stalled_ns"] - total) < tokens + 1e-6 * total, (predicted, total)
    if ahead or places == layers:  # all that stay are fetched unasked
        equal("synchronous", predicted["sync_loads"], 1)
        late = (tokens - 1) * late + (layers - 1 if read_ns > compute_ns else 0)
        assert abs(predicted["late_hits"] - late) <= 1, (predicted, late)
    else:
        equal("late", predicted["late_hits"], 0)
        assert abs(predicted["sync_loads"] - layers - (tokens - 1) * late) <= 1, (predicted, late)
    equal("acquires", predicted["hits"] + predicted["late_hits"] + predicted["sync_loads"], tokens * layers)


def test_prediction(case):
    path = layered(case)
    for percent in (20, 40, 60, 95, 100):
        for ahead in (0, 1, 2, 4):
            if ahead and percent * LAYERS // 100 < ahead + 2:
                continue
            for compute in ("0", "100", "auto"):
                check_prediction(walk(path, "--resident", f"{percent}%", "--ahead", str(ahead), "--compute-us",
                                      compute, tokens=2))


def test_predicted_of_uneven_layers(case):
    """Which of them are late is not known, and not said."""
    path = case.path("uneven.gguf")
    models.write_gguf(path, [(f"blk.{layer}.w", models.GGML_F32, [256 + layer, 1024]) for layer in range(6)], [])
    report = walk(path, "--resident", "60%", "--compute-us", "100", layers=6)
    equal("hits", (report["predicted"]["hits"], report["predicted"]["late_hits"]), (None, None))
    text = done("walk", path, "--resident", "60%", "--ahead", "0", "--tokens", "2").stdout.decode()
    equal("as text", re.findall(r"^(?:hits|late hits|stalls) +\d+ +(\S+)$", text, re.M), ["-", "-", "-"])


def test_predicted_first_token(case):
    path = layered(case)
    report = walk(path, "--compute-us", "60000", "--layers", "0-2", "--resident", "70%", layers=3, tokens=1)
    read_ns = report["measured"]["read_ns"]
    if read_ns < 60000000:  # the disk keeps up: only the first layer is waited for
        equal("with prefetch", report["predicted"]["stalled_ns"], read_ns)
    equal("without", report["without_prefetch"]["predicted"]["stalled_ns"], 3 * read_ns)


# ---- the picture ----

def check_strip(path, layers, states):
    root = xml.etree.ElementTree.parse(path).getroot()
    equal("size", root.get("viewBox"), f"0 0 {root.get('width')} {root.get('height')}")
    lanes = [group for group in root.iter(SVG + "g") if group.get("class") == "lane"]
    equal("rows", [lane.find(SVG + "text").text for lane in lanes], [f"layer {layer}" for layer in layers])
    legend = [text.text for group in root.iter(SVG + "g") if group.get("id") == "legend"
              for text in group.iter(SVG + "text")]
    assert states <= set(legend) <= {"absent", "fetching", "resident", "acquired"}, legend
    assert [group for group in root.iter(SVG + "g") if group.get("id") == "time"], "no time axis"
    for lane in lanes:
        assert [rect for rect in lane.iter(SVG + "rect") if rect.find(SVG + "title") is not None], "an empty row"
    for rect in root.iter(SVG + "rect"):
        assert 0 <= float(rect.get("x")) and float(rect.get("x")) + float(rect.get("width")) <= 1000, rect.attrib
    assert len(list(root.iter(SVG + "rect"))) < 6000


def test_svg(case):
    path, svg = layered(case), case.path("walk.svg")
    walk(path, "--resident", "50%", "--svg", svg)
    check_strip(svg, range(LAYERS), {"absent", "fetching", "resident", "acquired"})
    walk(path, "--lazy", "--ahead", "1", "--svg", svg)
    check_strip(svg, range(LAYERS), {"absent", "fetching", "acquired"})
    walk(path, "--svg", svg)
    check_strip(svg, range(LAYERS), {"acquired"})
    walk(path, "--layers", "4-6", "--svg", svg, layers=3)
    check_strip(svg, (4, 5, 6), {"acquired"})
    walk(path, "--resident", "50%", "--svg", svg, "--compute-us", "0", tokens=2000)  # far more than can be drawn
    check_strip(svg, range(LAYERS), {"acquired"})
    assert os.path.getsize(svg) < 2 << 20


def test_svg_place(case):
    cut = case.copy("cut.gguf", lambda data: data[:-40])  # exit 3, were the model looked at first
    refused(7, "walk", cut, "--svg", case.path("none/x"), words=["the picture"])
    refused(3, "walk", cut, "--svg", case.path("x"))
    equal("after a failure", os.path.exists(case.path("x")), False)


# ---- the rest ----

def test_text(case):
    path = layered(case)
    text = done("walk", path, "--resident", "50%", "--tokens", "2").stdout.decode()
    for word in ("layered.gguf", "12 layers", "synchronous loads", "late hits", "stalled in all", "read again",
                 "overhead", "predicted", "ahead 0", "1.05 times", "cached", "engine"):
        assert word in text, f"no '{word}' in {text}"
    assert not re.search(r" +$", text, re.M), "blanks at the end of a line"
    text = done("walk", path, "--ahead", "0", "--compute-us", "7", "--tokens", "1").stdout.decode()
    assert "7 us" in text and "1.05" not in text, text
    equal("stderr", done("walk", path, "--json").stderr, b"")


def test_usage(case):
    for option, values in {
            "--tokens": ["0", "-1", "x", "", "100001"], "--ahead": ["-1", "x", "", "1K", "70000"],
            "--compute-us": ["-1", "x", "", "1.5", "60000001"],
            "--resident": ["0", "0%", "101%", "-1", "", "%", "50%%", "1.5%", "1X", "50 %"]}.items():
        for value in values:
            refused(2, "walk", case.gguf, option, value, words=[option])
        refused(2, "load", case.gguf, option, "1", words=[option])
    for arguments in (["--order", "file"], ["--trace", "x"], ["--repeat", "2"], ["--digest", "xxh3"],
                      ["--lazy=yes"], ["--tokens"]):
        refused(2, "walk", case.gguf, *arguments, words=[arguments[0].split("=")[0]])
    refused(2, "walk")


def test_interrupt_computing(case):
    seconds = interrupt(case, "walk", layered(case), "--json", "--tokens", "3", "--compute-us", "60000000")
    assert seconds < 5, f"{seconds} s until it ended"


def test_interrupt_waiting(case):
    """A layer that takes seconds on any disk: nothing but holes, read in small pieces one after the other."""
    path = case.path("sparse.gguf")
    models.write_gguf(path, [(f"blk.{i}.a", models.GGML_F32, [2 << 30 >> 16, 1 << 14]) for i in range(2)], [],
                      sparse=True)
    plan = done_json("plan", path)
    if plan["available_bytes"] < plan["destination_bytes"] + (1 << 30):
        raise Skipped(f"{plan['available_bytes'] >> 20} MiB of memory are left, a walk that lasts takes 5 GiB")
    seconds = interrupt(case, "walk", path, "--json", "--chunk", "64K", "--depth", "1")
    assert seconds < 5, f"{seconds} s until it ended"


if __name__ == "__main__":
    sys.exit(run_all(globals(), __doc__))
