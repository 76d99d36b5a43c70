# SPDX-License-Identifier: Apache-2.0
"""safetensors: its file mapped and each tensor touched, or copied out; or read tensor by tensor with pread."""

import peer

options = peer.parse(["mmap-touch", "mmap-clone", "pread"])

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

BACKEND = {"mmap-touch": "mmap", "mmap-clone": "mmap", "pread": "pread"}[options.how]


def load():
    tensors = {}
    for path in options.files:
        for name, tensor in load_file(path, backend=BACKEND).items():
            if options.dtype == "f16" and tensor.dtype != torch.float16:
                tensor = tensor.half()
            elif options.how == "mmap-clone":
                tensor = tensor.clone()
            elif options.how == "mmap-touch":
                peer.touch(tensor.reshape(-1).view(torch.uint8))
            tensors[name] = tensor
    return tensors


peer.run(options, load)
