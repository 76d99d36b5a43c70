# SPDX-License-Identifier: Apache-2.0
"""fastsafetensors without GPUDirect Storage: 16 threads with bounce buffers (its defaults), past the page cache (its
default) or through it (FASTSAFETENSORS_ODIRECT=0)."""

import os

import peer

options = peer.parse(["direct", "cache"])
os.environ["FASTSAFETENSORS_ODIRECT"] = "1" if options.how == "direct" else "0"

from fastsafetensors import SafeTensorsFileLoader, SingleGroup  # noqa: E402
from fastsafetensors.frameworks import get_framework_op  # noqa: E402
from fastsafetensors.st_types import DType  # noqa: E402

get_framework_op("pytorch")  # imports torch, which would happen inside the clock otherwise
loader = None  # its memory stays its own, as long as it lives


def load():
    global loader
    loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
    loader.add_filenames({0: options.files})
    buffers = loader.copy_files_to_device(dtype=DType.F16 if options.dtype == "f16" else DType.AUTO)
    return {name: buffers.get_tensor(name) for name in loader.get_keys()}


peer.run(options, load)
