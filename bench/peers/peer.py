# SPDX-License-Identifier: Apache-2.0
"""What the peers share: one load in one process, under the contract of bench-load. The last line is JSON with wall_ns,
cpu_ns and the growth of memory.

A script here imports everything first and says READY; then whoever started it prepares the page cache and writes a
line. What the clock sees is the load call alone, until every byte of every tensor is in memory."""

import argparse
import json
import struct
import sys
import time
from pathlib import Path


remarks = {}


def parse(hows, dtypes=("native", "f16")):
    """hows: the ways of this peer to load, the first is the default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--how", choices=hows, default=hows[0])
    parser.add_argument("--dtype", choices=dtypes, default="native", help="what tensors become on their way")
    parser.add_argument("--check", action="store_true", help="afterwards: every byte beside a plain read of the file")
    return parser.parse_args()


def status_bytes(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def run(options, load, spans=None):
    """load() returns names and tensors, and puts what else it has to say into `remarks`. spans(files) returns where
    they lie in the files, by default what safetensors' headers say."""
    print("READY", flush=True)
    sys.stdin.readline()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    resident, anon = status_bytes("VmRSS"), status_bytes("RssAnon")
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    tensors = load()
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    report = {
        "wall_ns": wall,
        "cpu_ns": cpu,
        "peak_growth_bytes": status_bytes("VmHWM") - resident,
        "anon_growth_bytes": status_bytes("RssAnon") - anon,
        "destination_bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "tensors": len(tensors),
        **remarks,
    }
    if options.check:
        report["wrong_tensors"] = wrong(tensors, (spans or safetensors_spans)(options.files), options.dtype)
    print(json.dumps(report), flush=True)
    sys.exit(1 if report.get("wrong_tensors") else 0)


def touch(data):
    """Reads a byte of each page: what is only mapped has to be there too."""
    return int(data[::4096].sum()) + int(data[-1:].sum())


# ---- Checking -------------------------------------------------------------------------------------------------------

def safetensors_spans(files):
    """name -> (file, offset, bytes, type), read from the headers without anybody's library."""
    spans = {}
    for path in files:
        with open(path, "rb") as file:
            length, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                spans[name] = (path, 8 + length + first, end - first, entry["dtype"])
    return spans


def wrong(tensors, spans, dtype):
    """How many tensors differ from the file, are missing, or nobody asked for."""
    count = len(tensors.keys() ^ spans.keys())
    for name in tensors.keys() & spans.keys():
        count += not equal(as_bytes(tensors[name]), plain(*spans[name], dtype))
    return count


def equal(left, right):
    import numpy

    return numpy.array_equal(left, right)


def plain(path, offset, length, type_, dtype):
    """A tensor's bytes by a plain read, converted by numpy."""
    import numpy

    data = numpy.fromfile(path, dtype=numpy.uint8, count=length, offset=offset)
    if dtype == "native" or type_ == "F16":
        return data
    if type_ == "BF16":
        data = (data.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.uint8)
    return data.view(numpy.float32).astype(numpy.float16).view(numpy.uint8)


def as_bytes(tensor):
    """A flat view of the bytes of a numpy array or a torch tensor."""
    import numpy

    if isinstance(tensor, numpy.ndarray):
        return numpy.ascontiguousarray(tensor).reshape(-1).view(numpy.uint8)
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
