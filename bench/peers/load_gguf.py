# SPDX-License-Identifier: Apache-2.0
"""gguf + numpy: GGUFReader maps the file, each tensor is copied out."""

import time

import peer

options = peer.parse(["copy"], dtypes=["native"])

from gguf import GGUFReader  # noqa: E402


def load():
    start = time.perf_counter_ns()
    readers = [GGUFReader(path) for path in options.files]
    peer.remarks["parsing_ns"] = time.perf_counter_ns() - start  # a large vocabulary takes it seconds
    return {tensor.name: tensor.data.copy() for reader in readers for tensor in reader.tensors}


def spans(files):
    return {tensor.name: (path, int(tensor.data_offset), int(tensor.n_bytes), None)
            for path in files for tensor in GGUFReader(path).tensors}


peer.run(options, load, spans)
