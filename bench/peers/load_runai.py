# SPDX-License-Identifier: Apache-2.0
"""Run:ai model streamer: RUNAI_STREAMER_FS_STRATEGY names how it reads, everything else is as it comes. What it is to
convert is converted as it comes."""

import os

import peer

options = peer.parse(["io_uring_direct", "io_uring_buffered", "sync_buffered"])
os.environ["RUNAI_STREAMER_FS_STRATEGY"] = options.how
os.environ.setdefault("RUNAI_STREAMER_LOG_LEVEL", "WARNING")

from runai_model_streamer import SafetensorsStreamer  # noqa: E402


def load():
    tensors = {}
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(options.files)
        for name, tensor in streamer.get_tensors():
            tensors[name] = tensor.half() if options.dtype == "f16" else tensor
    return tensors


peer.run(options, load)
