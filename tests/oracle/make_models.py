#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes small models whose every byte is known: make_models.py FOLDER

A GGUF or safetensors file is written here field by field, so that it can be what no package writes: version 2, data in
another order than the list, holes, types that the packages lack. Beside each lies NAME.expect.json with what was
written; test_digest.py also reads the files with the packages. The same bytes come out each time (seed 20240)."""
import hashlib
import json
import os
import struct
import sys

import numpy as np

# Name, number, elements and bytes of a block, whether the gguf package knows it (it has 40 bytes for Q8_1).
GGML_TYPES = [
    ("F32", 0, 1, 4, True), ("F16", 1, 1, 2, True), ("Q4_0", 2, 32, 18, True), ("Q4_1", 3, 32, 20, True),
    ("Q5_0", 6, 32, 22, True), ("Q5_1", 7, 32, 24, True), ("Q8_0", 8, 32, 34, True), ("Q8_1", 9, 32, 36, False),
    ("Q2_K", 10, 256, 84, True), ("Q3_K", 11, 256, 110, True), ("Q4_K", 12, 256, 144, True),
    ("Q5_K", 13, 256, 176, True), ("Q6_K", 14, 256, 210, True), ("Q8_K", 15, 256, 292, True),
    ("IQ2_XXS", 16, 256, 66, True), ("IQ2_XS", 17, 256, 74, True), ("IQ3_XXS", 18, 256, 98, True),
    ("IQ1_S", 19, 256, 50, True), ("IQ4_NL", 20, 32, 18, True), ("IQ3_S", 21, 256, 110, True),
    ("IQ2_S", 22, 256, 82, True), ("IQ4_XS", 23, 256, 136, True), ("I8", 24, 1, 1, True), ("I16", 25, 1, 2, True),
    ("I32", 26, 1, 4, True), ("I64", 27, 1, 8, True), ("F64", 28, 1, 8, True), ("IQ1_M", 29, 256, 56, True),
    ("BF16", 30, 1, 2, True), ("TQ1_0", 34, 256, 54, True), ("TQ2_0", 35, 256, 66, True),
    ("MXFP4", 39, 32, 17, True), ("NVFP4", 40, 64, 36, True), ("Q1_0", 41, 128, 18, True), ("Q2_0", 42, 64, 18, False),
]
TYPES = {name: (number, block, block_bytes) for name, number, block, block_bytes, _ in GGML_TYPES}
# Name and bits of an element.
SAFETENSORS_DTYPES = [
    ("BOOL", 8), ("U8", 8), ("I8", 8), ("F8_E5M2", 8), ("F8_E4M3", 8), ("I16", 16), ("U16", 16), ("F16", 16),
    ("BF16", 16), ("I32", 32), ("U32", 32), ("F32", 32), ("F64", 64), ("I64", 64), ("U64", 64), ("F4", 4),
    ("F6_E2M3", 6), ("F6_E3M2", 6), ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("C64", 64),
]
BITS = dict(SAFETENSORS_DTYPES)

# GGUF value types: number and struct format.
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALARS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q",
           F64: "<d"}

random = np.random.default_rng(20240)


def noise(count):
    return random.integers(0, 256, count, dtype=np.uint8).tobytes()


def elements(shape):
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def gguf_string(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def gguf_value(kind, value):
    """An array's value is (kind of the items, items)."""
    if kind == STRING:
        return gguf_string(value)
    if kind == ARRAY:
        return struct.pack("<IQ", value[0], len(value[1])) + b"".join(gguf_value(value[0], item) for item in value[1])
    return struct.pack(SCALARS[kind], value)


def plain(kind, value):
    """The same as JSON has it."""
    if kind == ARRAY:
        return [plain(value[0], item) for item in value[1]]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"bytes": list(value)}
    return value


def write_expect(path, file_format, tensors, metadata):
    with open(path + ".expect.json", "w", encoding="utf-8") as file:
        json.dump({"file": os.path.basename(path), "format": file_format, "shapes": "outermost first",
                   "tensors": tensors, "metadata": metadata}, file, indent=1)


def write_gguf(path, tensors, metas=(), version=3, alignment=None, order=None, hole=0, trailing=b"", pad_last=True):
    """tensors: (name, type, shape outermost first). order: in which the data lie. hole: bytes left out before each."""
    metas = [("general.architecture", STRING, "llama")] + list(metas)
    if alignment:
        metas.append(("general.alignment", U32, alignment))
    alignment = alignment or 32
    order = list(order) if order is not None else list(range(len(tensors)))
    placed = {}
    data = bytearray()
    for position, index in enumerate(order):
        _, kind, shape = tensors[index]
        _, block, block_bytes = TYPES[kind]
        count = elements(shape)
        assert count == 0 or not shape or shape[-1] % block == 0, tensors[index]
        if hole and position:
            data += b"\xee" * hole
        data += bytes(-len(data) % alignment)
        raw = noise(count // block * block_bytes)
        placed[index] = (len(data), raw)
        data += raw
    if pad_last:
        data += bytes(-len(data) % alignment)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metas))
    for key, kind, value in metas:
        head += gguf_string(key) + struct.pack("<I", kind) + gguf_value(kind, value)
    for index, (name, kind, shape) in enumerate(tensors):
        head += gguf_string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", dimension) for dimension in reversed(shape))
        head += struct.pack("<IQ", TYPES[kind][0], placed[index][0])
    head += bytes(-len(head) % alignment)
    with open(path, "wb") as file:
        file.write(head + bytes(data) + trailing)
    write_expect(path, f"GGUF v{version}", [
        {"name": name, "type": kind, "shape": list(shape), "nbytes": len(placed[index][1]),
         "file_offset": len(head) + placed[index][0], "raw_sha256": hashlib.sha256(placed[index][1]).hexdigest()}
        for index, (name, kind, shape) in enumerate(tensors)],
        {key: plain(kind, value) for key, kind, value in metas})


def write_safetensors(path, tensors, metadata=None, order=None, pad=0):
    """tensors: (name, dtype, shape). order: in which the data lie; the header keeps the list's."""
    placed, data = {}, bytearray()
    for index in order if order is not None else range(len(tensors)):
        _, dtype, shape = tensors[index]
        bits = elements(shape) * BITS[dtype]
        assert bits % 8 == 0, tensors[index]
        raw = noise(bits // 8)
        if dtype == "BOOL":
            raw = bytes(byte & 1 for byte in raw)
        placed[index] = (len(data), raw)
        data += raw
    header = {"__metadata__": metadata} if metadata is not None else {}
    for index, (name, dtype, shape) in enumerate(tensors):
        start, raw = placed[index]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(raw)]}
    head = json.dumps(header, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8 + pad)
    head = struct.pack("<Q", len(head)) + head
    with open(path, "wb") as file:
        file.write(head + bytes(data))
    write_expect(path, "safetensors", [
        {"name": name, "type": dtype, "shape": list(shape), "nbytes": len(placed[index][1]),
         "file_offset": len(head) + placed[index][0], "raw_sha256": hashlib.sha256(placed[index][1]).hexdigest()}
        for index, (name, dtype, shape) in enumerate(tensors)], metadata or {})


def of_each_type(names):
    tensors = []
    for name in names:
        block = TYPES[name][1]
        tensors.append((f"{name.lower()}.row", name, (7 * block,)))
        tensors.append((f"{name.lower()}.matrix", name, (3, 5 * block)))
        tensors.append((f"{name.lower()}.one", name, (block,)))
        tensors.append((f"{name.lower()}.deep", name, (2, 3, 1, block * 2)))
    return tensors


METAS = [
    ("test.u8", U8, 255), ("test.i8", I8, -128), ("test.u16", U16, 65535), ("test.i16", I16, -32768),
    ("test.u32", U32, 2**32 - 1), ("test.i32", I32, -(2**31)), ("test.f32", F32, 0.1), ("test.f32.tiny", F32, 1e-45),
    ("test.yes", BOOL, True), ("test.no", BOOL, False), ("test.u64", U64, 2**64 - 1), ("test.i64", I64, -(2**63)),
    ("test.f64", F64, 0.1), ("test.f64.huge", F64, 1.7976931348623157e308),
    ("test.string", STRING, "a \"b\"\n\\ é 漢 😀"),
    ("test.string.empty", STRING, ""), ("test.string.bytes", STRING, b"\xff\xfe\x00a"),
    ("test.string.nul", STRING, "a\0b"),
    ("test.array.i32", ARRAY, (I32, [1, -2, 3])), ("test.array.empty", ARRAY, (U8, [])),
    ("test.array.string", ARRAY, (STRING, ["", "x", "yy"])), ("test.array.bool", ARRAY, (BOOL, [True, False])),
    ("test.array.f32", ARRAY, (F32, [0.5, -1.25])), ("test.array.f64", ARRAY, (F64, [0.1, -1e300])),
    ("test.array.u64", ARRAY, (U64, [2**64 - 1, 0])), ("test.array.i64", ARRAY, (I64, [-(2**63)])),
    ("test.array.i8", ARRAY, (I8, [-1])), ("test.array.u16", ARRAY, (U16, [1])), ("test.array.i16", ARRAY, (I16, [-1])),
    ("test.array.u32", ARRAY, (U32, list(range(1000)))),
]
NESTED = [("test.nested", ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["a"]), (I32, [])]))]


def layers(count, kind, shape):
    return ([("token_embd.weight", "F16", (33, 64))] +
            [(f"blk.{layer}.{part}.weight", kind, shape) for layer in range(count)
             for part in ("attn_q", "attn_k", "ffn_up")] +
            [("output_norm.weight", "F32", (64,)), ("output.weight", "F16", (33, 64))])


def make(folder):
    os.makedirs(folder, exist_ok=True)

    def at(name):
        return os.path.join(folder, name)

    write_gguf(at("types.gguf"), of_each_type([name for name, _, _, _, known in GGML_TYPES if known]))
    write_gguf(at("types-rest.gguf"), of_each_type([name for name, _, _, _, known in GGML_TYPES if not known]))
    write_gguf(at("v2.gguf"), of_each_type(["F32", "F16", "Q4_1", "Q6_K", "I8"]), METAS, version=2)
    write_gguf(at("metadata.gguf"), [("t", "F32", (3,))], METAS)
    write_gguf(at("nested.gguf"), [("t", "F32", (3,))], NESTED)
    for alignment in (8, 24, 64, 4096):
        write_gguf(at(f"align{alignment}.gguf"), of_each_type(["I8", "Q8_0", "MXFP4", "F64", "Q6_K"]),
                   alignment=alignment)
    few = layers(5, "Q4_0", (7, 96))
    write_gguf(at("reversed.gguf"), few, order=reversed(range(len(few))))
    write_gguf(at("holes.gguf"), few, order=random.permutation(len(few)).tolist(), hole=70000)
    write_gguf(at("trailing.gguf"), few, trailing=noise(5000))
    write_gguf(at("unpadded.gguf"), [("a", "F32", (5,)), ("b", "I8", (13,))], pad_last=False)
    big = [("token_embd.weight", "F32", (1601, 1600)), ("blk.0.a", "I8", (1,)), ("blk.0.b", "F16", (1153, 2048)),
           ("blk.1.a", "I8", (4095,)), ("blk.1.b", "Q4_0", (2049, 3200)), ("blk.2.a", "Q6_K", (1025, 4096)),
           ("blk.2.b", "I8", (4097,)), ("output.weight", "BF16", (777, 1333)), ("output_norm.weight", "F32", (1,))]
    write_gguf(at("straddle.gguf"), big)
    write_gguf(at("straddle-shuffled.gguf"), big, order=[8, 4, 0, 6, 2, 7, 5, 3, 1])
    write_gguf(at("many.gguf"), [(f"blk.{index // 20}.t{index % 20}.weight", "F32" if index % 3 else "I8",
                                  (int(random.integers(1, 200)),)) for index in range(2000)])
    write_gguf(at("empty.gguf"), [("first", "F32", (0,)), ("a", "F16", (5,)), ("none", "F16", (3, 0)),
                                  ("quants", "Q4_0", (0, 32)), ("b", "I8", (1,)), ("last", "F32", (0, 0))])
    write_gguf(at("scalar.gguf"), [("scalar", "F32", ()), ("byte", "I8", ()), ("row", "F32", (3,))])

    each = []
    for name, bits in SAFETENSORS_DTYPES:
        step = {4: 2, 6: 4}.get(bits, 1)
        each += [(f"{name}.row", name, (7 * step,)), (f"{name}.matrix", name, (3, 5 * step)),
                 (f"{name}.deep", name, (2, 1, 3, 1, 2 * step)), (f"{name}.one", name, (step,))]
    write_safetensors(at("dtypes.safetensors"), sorted(each, key=lambda tensor: -BITS[tensor[1]]),
                      {"format": "pt", "note": "a \"b\" é 😀"})
    # Data whose offsets suit no element.
    write_safetensors(at("odd-offset.safetensors"), [("a.u8", "U8", (3,)), ("b.f32", "F32", (5, 3)),
                                                     ("c.i64", "I64", (2,)), ("d.u8", "U8", (1,))], pad=3)
    big = [("model.embed_tokens.weight", "F16", (900, 1024)), ("model.layers.0.a", "F32", (1201, 1203)),
           ("model.layers.0.b", "U8", (4095,)), ("model.layers.1.a", "BF16", (1111, 2048)),
           ("model.layers.1.b", "I8", (1,)), ("model.norm.weight", "F64", (77777,)),
           ("lm_head.weight", "F16", (3, 5))]
    write_safetensors(at("straddle.safetensors"), big, order=[6, 2, 0, 4, 1, 3, 5])
    write_safetensors(at("many.safetensors"), [
        (f"model.layers.{index // 20}.t{index % 20}", "F32" if index % 3 else "U8", (int(random.integers(1, 200)),))
        for index in range(2000)])
    write_safetensors(at("empty.safetensors"), [("none", "F32", (0,)), ("a", "F16", (5,)), ("flat", "U8", (3, 0, 2)),
                                                ("scalar", "F32", ()), ("byte", "U8", ()), ("last", "I64", (0,))])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(sys.argv[1])
