# SPDX-License-Identifier: Apache-2.0
"""Small model files, written here so that what the command says of them is known."""
import json
import struct

U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 4, 5, 6, 7, 8, 9, 10, 12
GGML_F32, GGML_F16, GGML_Q8_0 = 0, 1, 8
SCALARS = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", F64: "<d"}
ALIGNMENT = 32


def gguf_string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(kind, value):
    if kind == STRING:
        return gguf_string(value)
    if kind == ARRAY:
        item_kind, items = value
        return struct.pack("<IQ", item_kind, len(items)) + b"".join(gguf_value(item_kind, item) for item in items)
    return struct.pack(SCALARS[kind], value)


def ggml_bytes(kind, shape):
    count = 1
    for size in shape:
        count *= size
    return {GGML_F32: count * 4, GGML_F16: count * 2, GGML_Q8_0: count // 32 * 34}[kind]


def filler(name, count):
    """Bytes that differ from tensor to tensor and from offset to offset, none of them a NaN of F32."""
    seed = sum(name.encode()) % 97
    return (bytes((seed + i * 7) % 101 for i in range(4096)) * (count // 4096 + 1))[:count]


def write_gguf(path, tensors, metadata, sparse=False):
    """tensors: [(name, kind, shape outermost first)]. Returns {name: (offset, data)}; sparse: no data is written."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        head += gguf_string(key) + struct.pack("<I", kind) + gguf_value(kind, value)
    at, table = 0, []
    for name, kind, shape in tensors:
        head += gguf_string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", size) for size in reversed(shape)) + struct.pack("<IQ", kind, at)
        table.append((name, at, ggml_bytes(kind, shape)))
        at += -(-table[-1][2] // ALIGNMENT) * ALIGNMENT
    start = -(-len(head) // ALIGNMENT) * ALIGNMENT
    placed = {}
    with open(path, "wb") as file:
        file.write(head)
        for name, offset, count in table:
            placed[name] = (start + offset, None if sparse else filler(name, count))
            if not sparse:
                file.seek(start + offset)
                file.write(placed[name][1])
        file.truncate(start + at)
    return placed


def write_safetensors(path, tensors, metadata=None):
    """tensors: [(name, dtype, shape, data)]. Returns {name: (offset, data)}."""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, _, data in tensors))
    placed, at = {}, 8 + len(text)
    for name, _, _, data in tensors:
        placed[name] = (at, data)
        at += len(data)
    return placed
