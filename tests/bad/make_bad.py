#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that nobody should have written, and what is to be said of each: make_bad.py FOLDER [PATTERN]

Each is built here field by field, apart from any writer of ours or of others, so that the offset of what is wrong with
it is known. cases() lists them; run as a script this writes them, and prints name, exit code and offset of each."""
import fnmatch
import os
import struct
import sys
from dataclasses import dataclass
from typing import Callable, Optional

GOOD, MALFORMED, UNSUPPORTED, NOT_FOUND = 0, 3, 5, 7
ALIGNMENT = 32
# GGML type: elements and bytes of a block.
GGML = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}
GGML_REMOVED = (4, 5, 31, 32, 33, 36, 37, 38)
F32, Q4_0, I8_TENSOR = 0, 2, 24
# GGUF value types and the bytes of the scalars.
U8, I8, U16, I16, U32, I32, FLOAT, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALARS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?", U64: "<Q",
           I64: "<q", F64: "<d"}
HUGE = [2**32, 2**63 - 1, 2**63, 2**64 - 1]
BAD_UTF8 = [b"\x80", b"\xbf", b"\xc3", b"a\xc3", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
            b"\xe2\x82", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"a\xe2b\xac"]
GOOD_UTF8 = ["ä", "€", "𝄞", "\U0010ffff", "\uffff", "\ue000", "\ud7ff", "\u0800", "\u0080"]


@dataclass
class Case:
    name: str  # of the file, with its ending
    code: int  # of tundish info
    offset: Optional[int] = None  # which the sentence names; None: no byte is to blame
    data: bytes = b""
    make: Optional[Callable[[str], None]] = None  # instead of data: makes something at that path
    load_code: Optional[int] = None  # of tundish load, where it is another


# ---- GGUF ------------------------------------------------------------------------------------------------------


class Gguf:
    """A file as it grows, and what a reader needs to be there: (offset it would name, bytes the file must have)."""

    def __init__(self, tensors, metas, version=3, magic=b"GGUF"):
        self.data = bytearray()
        self.fields, self.needs, self.spans = [], [], []
        self.put(magic)
        self.put(struct.pack("<I", version))
        self.count(tensors, 24)
        self.count(metas, 14)

    def __len__(self):
        return len(self.data)

    def put(self, data, at=None):
        """A field; at: what a reader calls its offset."""
        self.fields.append((len(self.data), len(self.data) + len(data)))
        self.needs.append((len(self.data) if at is None else at, len(self.data) + len(data)))
        self.data += data

    def u32(self, value):
        self.put(struct.pack("<I", value))

    def u64(self, value):
        self.put(struct.pack("<Q", value))

    def count(self, value, bytes_min):
        at = len(self)
        self.u64(value)
        self.needs.append((at, len(self) + value * bytes_min))

    def text(self, text, claimed=None):
        data = text if isinstance(text, bytes) else text.encode()
        self.u64(len(data) if claimed is None else claimed)
        self.put(data)

    def value(self, kind, value):
        if kind == STRING:
            self.text(value)
        elif kind == ARRAY:
            item, items = value
            self.u32(item)
            self.count(len(items), {STRING: 8, ARRAY: 12}.get(item) or struct.calcsize(SCALARS[item]))
            if item in SCALARS:
                self.put(b"".join(struct.pack(SCALARS[item], one) for one in items))
            else:
                for one in items:
                    self.value(item, one)
        else:
            self.put(struct.pack(SCALARS[kind], value))

    def meta(self, key, kind, value):
        """Returns the offset of the value."""
        self.text(key)
        self.u32(kind)
        at = len(self)
        self.value(kind, value)
        return at

    def tensor(self, name, ne=(8,), kind=F32, offset=0, dims=None):
        """Returns the offset of its entry."""
        at = len(self)
        self.text(name)
        self.u32(len(ne) if dims is None else dims)
        for size in ne:
            self.u64(size)
        self.u32(kind)
        self.u64(offset)
        return at

    def start(self, alignment=ALIGNMENT):
        """Pads; returns where the data start."""
        self.data += bytes(-len(self.data) % alignment)
        return len(self.data)

    def done(self, rest=0):
        return bytes(self.data) + bytes(rest)


def one_tensor(ne=(8,), kind=F32, offset=0, rest=32, name="t", dims=None, alignment=ALIGNMENT):
    """A file of one tensor: (bytes, where its data start). Its entry is at 24, its dimensions at 33, ne from 37."""
    file = Gguf(1, 0)
    file.tensor(name, ne, kind, offset, dims)
    start = file.start(alignment)
    return file.done(rest), start


def whole(version=3):
    """Something of everything; two tensors, of which the second of the list comes first in the data."""
    file = Gguf(3, 10, version)
    for key, kind, value in [("general.architecture", STRING, "llama"), ("u8", U8, 200), ("i16", I16, -2),
                             ("general.alignment", U32, ALIGNMENT), ("f64", F64, 0.1), ("bool", BOOL, True),
                             ("scores", ARRAY, (FLOAT, [1, 2, 3])), ("raw", STRING, b"\xff\x00"),
                             ("tokens", ARRAY, (STRING, ["a", "", "\U0001f600"])),
                             ("deep", ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["x"])]))]:
        file.meta(key, kind, value)
    file.tensor("token_embd.weight", (32, 2), Q4_0, 64)
    file.tensor("blk.0.attn_norm.weight", (9,), F32, 0)
    file.tensor("blk.1.w", (), F32, 128)
    start = file.start()
    file.needs += [(start, start + 36), (start + 64, start + 100), (start + 128, start + 132)]
    file.data += bytes(132)
    return file


def gguf_cuts():
    for version in (2, 3):
        file = whole(version)
        yield Case(f"gguf-whole-v{version}.gguf", GOOD, data=file.done())
        places = {0, len(file) - 1}
        for first, end in file.fields:
            places |= {first, first + 1, (first + end) // 2, end - 1}
        for _, end in file.needs:
            places.add(end - 1)
        for cut in sorted(places if version == 3 else set(range(24))):
            offset = next((offset for offset, need in file.needs if need > cut), None)
            yield Case(f"gguf-v{version}-cut-{cut:04}.gguf", GOOD if offset is None else MALFORMED, offset,
                       file.done()[:cut])
    file, start = one_tensor()
    yield Case("gguf-padding-missing.gguf", GOOD, data=one_tensor((7,), rest=28)[0])
    yield Case("gguf-data-missing.gguf", MALFORMED, start, file[:start])


def gguf_heads():
    for index in range(4):
        for bit in (0, 5, 7):
            magic = bytearray(b"GGUF")
            magic[index] ^= 1 << bit
            yield Case(f"gguf-magic-{index}-{bit}.gguf", MALFORMED, 0, Gguf(0, 0, magic=bytes(magic)).done(40))
    for magic in (b"GGML", b"GGJT", b"gguf", b"FUGG", bytes(4), b"\xff" * 4, b"PK\3\4", b"\x80\2}q"):
        yield Case(f"gguf-magic-{magic.hex()}.gguf", MALFORMED, 0, Gguf(0, 0, magic=magic).done(40))
        yield Case(f"no-magic-{magic.hex()}.bin", MALFORMED, 0, Gguf(0, 0, magic=magic).done(40))
    yield Case("gguf-without-ending.bin", GOOD, data=one_tensor()[0])
    yield Case("gguf-empty.gguf", MALFORMED, 0)
    for version, code in [(0, MALFORMED), (1, UNSUPPORTED), (2, GOOD), (3, GOOD), (4, UNSUPPORTED), (5, UNSUPPORTED),
                          (0xFFFF, UNSUPPORTED), (1 << 24, UNSUPPORTED), (2 << 24, UNSUPPORTED),
                          (3 << 24, UNSUPPORTED), (0x10001, MALFORMED), (2**32 - 1, MALFORMED)]:
        file = Gguf(1, 0, version)
        file.tensor("t")
        file.start()
        yield Case(f"gguf-version-{version:08x}.gguf", code, 4 if code else None, file.done(32))
    big = struct.pack(">4sIQQ", b"GGUF", 3, 1, 0) + struct.pack(">Q1sIQIQ", 1, b"t", 1, 8, 0, 0)
    yield Case("gguf-big-endian.gguf", UNSUPPORTED, 4, big + bytes(-len(big) % 32 + 32))
    yield Case("gguf-nothing-in-it.gguf", GOOD, data=Gguf(0, 0).done(), load_code=NOT_FOUND)
    for value in HUGE + [1, 1000001, 2**64 // 24 + 1, 2**61]:
        yield Case(f"gguf-tensor-count-{value:x}.gguf", MALFORMED, 8, Gguf(value, 0).done())
    for value in HUGE + [1, 1000001, 2**64 // 14 + 1, 2**61]:
        yield Case(f"gguf-meta-count-{value:x}.gguf", MALFORMED, 16, Gguf(0, value).done())
    file = Gguf(2, 0)
    file.tensor("t")
    yield Case("gguf-tensor-one-too-many.gguf", MALFORMED, len(file) + 8, file.done(11))  # behind an empty name
    file = Gguf(0, 2)
    file.meta("k", U32, 1)
    yield Case("gguf-meta-one-too-many.gguf", MALFORMED, len(file), file.done(12))
    file = Gguf(1, 0)
    file.tensor("a")
    file.tensor("b", offset=32)
    file.start()
    yield Case("gguf-tensor-one-too-few.gguf", GOOD, data=file.done(64))


def gguf_keys():
    for claimed in HUGE + [65536, 2**64 - 8, 2**64 - 32]:
        file = Gguf(0, 1)
        file.text("", claimed)
        yield Case(f"gguf-key-length-{claimed:x}.gguf", MALFORMED, 24, file.done(100))
    file = Gguf(0, 1)
    file.text("", 101)
    yield Case("gguf-key-length-one-too-many.gguf", MALFORMED, 32, file.done(100))
    file = Gguf(0, 1)
    file.meta("", U32, 1)
    yield Case("gguf-key-empty.gguf", MALFORMED, 24, file.done(8))
    file = Gguf(0, 1)
    file.meta("k" * 65535, U32, 1)
    yield Case("gguf-key-longest.gguf", GOOD, data=file.done(), load_code=NOT_FOUND)
    for index, text in enumerate(BAD_UTF8):
        file = Gguf(0, 1)
        file.meta(text, U32, 1)
        yield Case(f"gguf-key-utf8-bad-{index}.gguf", MALFORMED, 32, file.done(32))
        file = Gguf(1, 1)
        file.meta("k", STRING, text)
        file.tensor("t")
        file.start()
        yield Case(f"gguf-string-utf8-bad-{index}.gguf", GOOD, data=file.done(32))
        yield Case(f"gguf-name-utf8-bad-{index}.gguf", MALFORMED, 32, one_tensor(name=text)[0])
    file = Gguf(1, len(GOOD_UTF8))
    for text in GOOD_UTF8:
        file.meta(text, U32, 1)
    file.tensor("".join(GOOD_UTF8))
    file.start()
    yield Case("gguf-utf8-good.gguf", GOOD, data=file.done(32))
    for title, first, second in [("same", ("k", U32, 1), ("k", U32, 1)), ("types", ("k", U32, 1), ("k", STRING, "")),
                                 ("alignment", ("general.alignment", U32, 32), ("general.alignment", U32, 32))]:
        file = Gguf(0, 3)
        file.meta(*first)
        file.meta("other", U8, 0)
        at = len(file)
        file.meta(*second)
        yield Case(f"gguf-key-twice-{title}.gguf", MALFORMED, at, file.done(32))
    file = Gguf(1, 5)
    for key in ("k", "kk", "K", "k\0", "k "):
        file.meta(key, U32, 1)
    file.tensor("t")
    file.start()
    yield Case("gguf-keys-alike.gguf", GOOD, data=file.done(32))
    file = Gguf(1, 1)
    file.meta("general.alignment\0", U32, 7)
    file.tensor("t")
    file.start()
    yield Case("gguf-key-alignment-and-nul.gguf", GOOD, data=file.done(32))


def value_start(kind):
    """The key "k" and a type: the type stands at 33, its value starts at 37."""
    file = Gguf(0, 1)
    file.text("k")
    file.u32(kind)
    return file


def gguf_values():
    for kind in (13, 14, 255, 256, 1 << 24, 2**31, 2**32 - 1):
        yield Case(f"gguf-value-type-{kind:x}.gguf", MALFORMED, 33, value_start(kind).done(100))
        file = value_start(ARRAY)
        file.u32(kind)
        file.u64(1)
        yield Case(f"gguf-element-type-{kind:x}.gguf", MALFORMED, 37, file.done(100))
    for truth in (2, 3, 128, 255):
        yield Case(f"gguf-bool-{truth}.gguf", MALFORMED, 37, value_start(BOOL).done() + bytes([truth]) + bytes(32))
        file = value_start(ARRAY)
        file.u32(BOOL)
        file.u64(4)
        yield Case(f"gguf-bool-array-{truth}.gguf", MALFORMED, 51, file.done() + bytes([0, 1, truth, 1]) + bytes(32))
    for claimed in HUGE + [101, 2**64 - 45, 2**64 - 37]:
        file = value_start(STRING)
        file.u64(claimed)
        yield Case(f"gguf-string-length-{claimed:x}.gguf", MALFORMED, 45, file.done(100))
        file = value_start(ARRAY)
        file.u32(STRING)
        file.u64(2)
        file.text("one")
        file.u64(claimed)
        yield Case(f"gguf-string-in-array-length-{claimed:x}.gguf", MALFORMED, 68, file.done(100))
    for kind in list(SCALARS) + [STRING, ARRAY]:
        size = {STRING: 8, ARRAY: 12}.get(kind) or struct.calcsize(SCALARS[kind])
        for title, claimed in [("one-too-many", 96 // size + 1), ("2-63", 2**63), ("most", 2**64 - 1),
                               ("wraps", 2**64 // size + 1 if size > 1 else 2**64 - 49)]:
            file = value_start(ARRAY)
            file.u32(kind)
            file.u64(claimed)
            yield Case(f"gguf-array-{kind}-{title}.gguf", MALFORMED, 41, file.done(96))
    for depth in (4, 5, 1000, 200000):
        head = value_start(ARRAY).done()
        data = head + struct.pack("<IQ", ARRAY, 1) * (depth - 1) + struct.pack("<IQB", U8, 1, 7)
        yield Case(f"gguf-nested-{depth}.gguf", GOOD if depth == 4 else MALFORMED, None if depth == 4 else 85, data,
                   load_code=NOT_FOUND if depth == 4 else None)
    file = value_start(ARRAY)
    file.u32(ARRAY)
    file.u64(20000)
    yield Case("gguf-many-empty-arrays.gguf", GOOD, data=file.done() + struct.pack("<IQ", U8, 0) * 20000,
               load_code=NOT_FOUND)


def gguf_alignments():
    for alignment, good in [(0, 0), (1, 1), (2, 1), (3, 0), (4, 1), (5, 0), (7, 0), (8, 1), (9, 0), (12, 0), (16, 1),
                            (20, 0), (24, 1), (31, 0), (32, 1), (33, 0), (40, 1), (64, 1), (100, 0), (4096, 1),
                            (4104, 1), (2**31, 1), (2**31 + 4, 0), (2**32 - 1, 0)]:
        file = Gguf(1 if alignment < 2**31 else 0, 1)
        at = file.meta("general.alignment", U32, alignment)
        if alignment < 2**31:
            file.tensor("t")
        if good and alignment < 2**31:
            file.start(alignment)
        yield Case(f"gguf-alignment-{alignment}.gguf", GOOD if good else MALFORMED, None if good else at,
                   file.done(32), load_code=NOT_FOUND if alignment == 2**31 else None)
    for kind in list(SCALARS) + [STRING, ARRAY]:
        if kind == U32:
            continue
        file = Gguf(1, 1)
        value = {STRING: "32", ARRAY: (U32, [32]), BOOL: 1}.get(kind, 32)
        at = file.meta("general.alignment", kind, value)
        file.tensor("t")
        file.start()
        yield Case(f"gguf-alignment-type-{kind}.gguf", MALFORMED, at, file.done(32))
    file = Gguf(2, 1)
    file.meta("general.alignment", U32, 64)
    file.tensor("a", (8,), F32, 0)
    at = len(file) + 8 + 1 + 4 + 8 + 4
    file.tensor("b", (8,), F32, 32)
    file.start(64)
    yield Case("gguf-alignment-64-offset-32.gguf", MALFORMED, at, file.done(128))


def gguf_shapes():
    for dims in (5, 6, 255, 2**31, 2**32 - 1):
        yield Case(f"gguf-dims-{dims}.gguf", MALFORMED, 33, one_tensor((1,) * min(dims, 6), dims=dims)[0])
    for title, ne, kind in [("scalar", (), F32), ("four", (2, 2, 2, 1), F32), ("ones", (1, 1, 1, 1), F32),
                            ("empty", (0,), F32), ("empty-rows", (8, 0), F32), ("empty-block", (0, 3), Q4_0)]:
        yield Case(f"gguf-shape-{title}.gguf", GOOD, data=one_tensor(ne, kind)[0])
    for title, ne, kind in [("2-64", (2**62, 4), F32), ("2-64-of-squares", (2**32, 2**32), I8_TENSOR),
                            ("wraps-to-small", (2**32 + 1, 2**32 - 1, 2**32), F32),
                            ("wraps-to-zero", (2**16, 2**16, 2**16, 2**16), F32),
                            ("most", (2**63 - 1, 2**63 - 1), F32), ("bytes", (2**62,), F32), ("bytes-8", (2**61,), 27),
                            ("bytes-wrap-to-small", (2**62 + 2,), F32)]:
        yield Case(f"gguf-overflow-{title}.gguf", MALFORMED, 24, one_tensor(ne, kind)[0])
    for value in (2**63, 2**63 + 8, 2**64 - 1):
        yield Case(f"gguf-dimension-{value:x}.gguf", MALFORMED, 37, one_tensor((value,), I8_TENSOR)[0])
        yield Case(f"gguf-dimension-second-{value:x}.gguf", MALFORMED, 45, one_tensor((0, value), I8_TENSOR)[0])
    for kind, (block, size) in GGML.items():
        yield Case(f"gguf-type-{kind}.gguf", GOOD, data=one_tensor((block, 2), kind, rest=2 * size)[0])
        data, start = one_tensor((block, 2), kind, rest=2 * size - 1)
        yield Case(f"gguf-type-{kind}-cut.gguf", MALFORMED, start, data)
        for part in ((1, block // 2, block - 1, block + 1) if block > 1 else ()):
            yield Case(f"gguf-type-{kind}-row-{part}.gguf", MALFORMED, 24,
                       one_tensor((part, block), kind, rest=90000)[0])
    yield Case("gguf-scalar-of-blocks.gguf", MALFORMED, 24, one_tensor((), Q4_0)[0])
    for kind in GGML_REMOVED:
        yield Case(f"gguf-type-{kind}-removed.gguf", MALFORMED, 45, one_tensor((256,), kind, rest=4096)[0])
    for kind in (43, 64, 255, 65536, 2**31, 2**32 - 1):
        yield Case(f"gguf-type-{kind}-newer.gguf", UNSUPPORTED, 45, one_tensor((256,), kind, rest=4096)[0])


def gguf_names():
    yield Case("gguf-name-64.gguf", GOOD, data=one_tensor(name="n" * 64)[0])
    yield Case("gguf-name-65.gguf", MALFORMED, 24, one_tensor(name="n" * 65)[0])
    for claimed in HUGE + [2**64 - 8, 2**64 - 32]:
        file = Gguf(1, 0)
        file.text("", claimed)
        yield Case(f"gguf-name-length-{claimed:x}.gguf", MALFORMED, 24, file.done(100))
    file = Gguf(1, 0)
    file.text("", 41)
    yield Case("gguf-name-length-one-too-many.gguf", MALFORMED, 32, file.done(40))
    file = Gguf(3, 0)
    file.tensor("same", offset=0)
    file.tensor("other", offset=32)
    at = file.tensor("same", offset=64)
    file.start()
    yield Case("gguf-name-twice.gguf", MALFORMED, at, file.done(96))
    file = Gguf(3, 0)
    for index, name in enumerate(("n", "n\0", "N")):
        file.tensor(name, offset=32 * index)
    file.start()
    yield Case("gguf-names-alike.gguf", GOOD, data=file.done(96))


def placed(*tensors, rest):
    """A file of F32 tensors (elements, offset): (bytes, where the data start)."""
    file = Gguf(len(tensors), 0)
    for index, (count, offset) in enumerate(tensors):
        file.tensor(f"t{index}", (count,), F32, offset)
    start = file.start()
    return file.done(rest), start


def gguf_places():
    for offset in (1, 4, 16, 31, 33, 2**64 - 1, 2**63 + 1):
        yield Case(f"gguf-offset-{offset}-crooked.gguf", MALFORMED, 49, one_tensor(offset=offset, rest=128)[0])
    for offset in (32, 64, 4096, 2**32, 2**40, 2**62, 2**63, 2**64 - 96):
        data, start = one_tensor(offset=offset)
        yield Case(f"gguf-offset-{offset:x}-beyond.gguf", MALFORMED, start + offset, data)
    for offset in (2**64 - 32, 2**64 - 64):
        data, start = one_tensor(offset=offset)
        yield Case(f"gguf-offset-{offset:x}-wraps.gguf", MALFORMED, start, data)
    data, start = one_tensor((2**40,))
    yield Case("gguf-data-far-too-short.gguf", MALFORMED, start, data)
    data, start = one_tensor((2**61 - 1,), 27, 32)
    yield Case("gguf-end-wraps.gguf", MALFORMED, start + 32, data)
    for title, tensors, rest, offset in [
            ("same", ((8, 0), (8, 0)), 32, 0), ("by-a-block", ((9, 0), (8, 32)), 64, 32),
            ("inside", ((64, 0), (8, 64)), 256, 64), ("backwards", ((8, 32), (9, 0)), 64, 32),
            ("third", ((8, 0), (17, 32), (8, 96)), 128, 96), ("over-empty", ((9, 0), (0, 32), (8, 32)), 64, 32)]:
        data, start = placed(*tensors, rest=rest)
        yield Case(f"gguf-overlap-{title}.gguf", MALFORMED, start + offset, data)
    for title, tensors, rest in [
            ("reverse", ((8, 64), (8, 32), (8, 0)), 96), ("hole", ((8, 0), (8, 4096)), 4128),
            ("hole-at-start", ((8, 320),), 352), ("behind", ((8, 0),), 5000), ("empty-inside", ((16, 0), (0, 32)), 64),
            ("empty-at-end", ((8, 0), (0, 32)), 32), ("short-last", ((8, 0), (1, 32)), 36)]:
        yield Case(f"gguf-odd-{title}.gguf", GOOD, data=placed(*tensors, rest=rest)[0])
    data, start = one_tensor((0,), offset=1024)
    yield Case("gguf-empty-beyond.gguf", MALFORMED, start, data)


# ---- safetensors -----------------------------------------------------------------------------------------------


def safe(json, data=b"", length=None):
    json = json if isinstance(json, bytes) else json.encode()
    return struct.pack("<Q", len(json) if length is None else length) + json + data


def marked(name, json, data=bytes(4), code=MALFORMED):
    """'@' in the text stands before what is wrong, and is taken out."""
    json = json if isinstance(json, bytes) else json.encode()
    at = json.find(b"@")
    return Case(f"st-{name}.safetensors", code, 8 + at if at >= 0 else None, safe(json.replace(b"@", b""), data))


def entry(dtype="F32", shape="[1]", offsets="[0,4]"):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def good_safe(name, json, data=bytes(4), load_code=None):
    return Case(f"st-{name}.safetensors", GOOD, data=safe(json, data), load_code=load_code)


def safe_lengths():
    json = '{"__metadata__":{"format":"pt","\\u00e4":"\\ud83d\\ude00"},"a b":' + entry() + ', "c":' + \
        entry("BF16", "[2,0]", "[4,4]") + "}"
    yield good_safe("whole", json)
    data = safe(json, bytes(4))
    for cut in list(range(9)) + [len(data) // 2, len(data) - 5]:
        yield Case(f"st-cut-{cut:04}.safetensors", MALFORMED, 0, data[:cut])
    for cut in range(1, 5):
        yield Case(f"st-data-cut-{cut}.safetensors", MALFORMED, json.find('"a b"') + 8, data[:len(data) - cut])
    for cut in range(len(json)):
        if cut % 3 and json[cut] not in '"{}[],:\\':
            continue
        yield Case(f"st-json-cut-{cut:04}.safetensors", MALFORMED, 0 if cut < 2 else 8 + cut,
                   safe(json[:cut], bytes(300)))
    for length in HUGE + [len(json) + 5, 2**64 - 8, 2**64 - 7, 100000001]:
        yield Case(f"st-length-{length:x}.safetensors", MALFORMED, 0, safe(json, bytes(4), length))
        yield Case(f"length-{length:x}.bin", MALFORMED, 0, safe(json, bytes(4), length))
    for length in (0, 1):
        yield Case(f"st-length-{length}.safetensors", MALFORMED, 0, safe(json, bytes(4), length))
    yield Case("st-length-too-short.safetensors", MALFORMED, 8 + len(json) - 1, safe(json, bytes(4), len(json) - 1))
    yield Case("st-length-too-long.safetensors", MALFORMED, 8 + json.find('"a b"'), safe(json, bytes(4), len(json) + 1))
    yield good_safe("padded", json + "   ")
    yield Case("safetensors-without-ending.bin", GOOD, data=data)
    yield Case("st-empty.safetensors", MALFORMED, 0)
    yield good_safe("nothing-in-it", "{}", b"", NOT_FOUND)
    yield good_safe("only-metadata", '{"__metadata__":{"a":"b"}}', b"", NOT_FOUND)
    yield Case("st-over-the-limit.safetensors", MALFORMED, 0,
               make=lambda path: sparse(path, 200 << 20, struct.pack("<Q", 100000001) + b"{"))


def safe_syntax():
    good = '{"t":' + entry() + "}"
    for name, json in [
            ("array-on-top", "@[]"), ("space-first", "@ " + good), ("feed-first", "@\n" + good),
            ("text-on-top", '@"x"'),
            ("mark-first", b"@\xef\xbb\xbf" + good.encode()), ("two-objects", good + "@{}"),
            ("letter-behind", good + "@x"),
            ("nul-behind", good + "@\0"), ("nul-inside", '{"t":@\0' + entry() + "}"), ("comma-last", good[:-1] + ",@}"),
            ("comma-first", '{@,"t":' + entry() + "}"),
            ("two-commas", good[:-1] + ',@,"u":' + entry("U8", "[0]") + "}"),
            ("no-comma", good[:-1] + '@"u":1}'), ("no-colon", '{"t"@' + entry() + "}"),
            ("semicolon", good[:-1] + "@;}"),
            ("no-quotes", "{@t:" + entry() + "}"), ("single-quotes", "{@'t':" + entry() + "}"),
            ("comment", "{@/*x*/" + good[1:]), ("bracket-of-the-other-kind", '{"t":' + entry(shape="[1@}")),
            ("number-as-key", "{@1:" + entry() + "}"), ("no-end", good[:-1] + "@"), ("no-ends", good[:-2] + "@"),
            ("feed-in-string", '{"a@\nb":' + entry() + "}"), ("tab-in-string", '{"a@\tb":' + entry() + "}"),
            ("nul-in-string", '{"a@\0b":' + entry() + "}"), ("no-quote", '{"t@'),
            ("escape-x", '{"a@\\x41":' + entry() + "}"),
            ("escape-u", '{"a@\\u12":' + entry() + "}"), ("escape-u-g", '{"a@\\u123g":' + entry() + "}"),
            ("escape-U", '{"a@\\U0041":' + entry() + "}"), ("escape-zero", '{"a@\\0":' + entry() + "}"),
            ("surrogate-high", '{"a@\\ud800":' + entry() + "}"), ("surrogate-low", '{"a@\\udc00":' + entry() + "}"),
            ("surrogate-two-highs", '{"a@\\ud800\\ud800":' + entry() + "}"),
            ("surrogate-and-letter", '{"a@\\ud800b":' + entry() + "}")]:
        yield marked("json-" + name, json)
    for word in ("tru", "nul", "True", "NaN", "Infinity", "undefined", "fals", "TRUE", "nulL", "+1", ".5", "'x'"):
        yield marked(f"json-word-{word.encode().hex()}", '{"t":{"x":@' + word + "," + entry()[1:] + "}")
    for number in ("01", "-@", "1.@", "1e@", "1e+@", "1.e@1", "00", "0x1", "-@a", "1.5.5", "1,@"):
        stop = 1 if number[0] == "0" else 3
        text = number if "@" in number else number[:stop] + "@" + number[stop:]
        text = "1.@e1" if number == "1.e@1" else text
        name = number.replace("@", "").encode().hex()
        yield marked(f"json-number-{name}", '{"t":{"x":' + text + "," + entry()[1:] + "}")
    for word in ("true", "null", "-0", "-1.5e-7", "1E400", '"\\b\\f\\/"', "[]", "{}", '[{"a":[1,2,{}]},"x"]', "0e0"):
        yield good_safe(f"json-unknown-{word.encode().hex()}", '{"t":{"x":' + word + "," + entry()[1:] + "}")
    yield good_safe("json-spaces", '{ "t" :\n{ "dtype":\t"F32" , "shape" : [ 1 ] ,\r\n"data_offsets":[ 0 , 4 ] } } ')
    for index, text in enumerate(BAD_UTF8):
        yield marked(f"name-utf8-bad-{index}", b'{@"' + text + b'":' + entry().encode() + b"}")
        yield marked(f"value-utf8-bad-{index}", b'{"__metadata__":{"k":@"' + text + b'"},"t":' +
                     entry().encode() + b"}")
    yield good_safe("name-utf8-good", '{"' + "".join(GOOD_UTF8) + '\\u0000\\ud834\\udd1e":' + entry() + "}")
    for depth in (125, 126, 1000, 200000):
        good_depth = depth <= 125
        json = '{"t":{"x":' + "[" * min(depth, 125) + "@" * (not good_depth) + "[" * (depth - min(depth, 125)) + \
            "]" * depth + "," + entry()[1:] + "}"
        yield marked(f"depth-{depth}", json, code=GOOD if good_depth else MALFORMED)
        json = '{"t":{"x":' + '{"a":' * min(depth, 125) + "@" * (not good_depth) + \
            '{"a":' * (depth - min(depth, 125)) + "1" + "}" * depth + "," + entry()[1:] + "}"
        yield marked(f"depth-objects-{depth}", json, code=GOOD if good_depth else MALFORMED)
    yield marked("depth-unclosed", '{"t":' + "@" + "[" * 200000)


def safe_entries():
    one = entry()
    for name, json in [
            ("twice", '{"t":' + one + ',@"t":' + entry("U8", "[0]", "[4,4]") + "}"),
            ("twice-by-escape", '{"t":' + one + ',@"\\u0074":' + entry("U8", "[0]", "[4,4]") + "}"),
            ("metadata-twice", '{"__metadata__":{},"t":' + one + ',@"__metadata__":{}}'),
            ("metadata-by-escape", '{"__metadata__":{},"t":' + one + ',@"\\u005f_metadata__":{}}'),
            ("metadata-key-twice", '{"__metadata__":{"a":"1",@"a":"2"},"t":' + one + "}"),
            ("metadata-number", '{"__metadata__":{"a":@1},"t":' + one + "}"),
            ("metadata-null-value", '{"__metadata__":{"a":@null},"t":' + one + "}"),
            ("metadata-object-value", '{"__metadata__":{"a":@{}},"t":' + one + "}"),
            ("metadata-array", '{"__metadata__":@[],"t":' + one + "}"),
            ("metadata-string", '{"__metadata__":@"x","t":' + one + "}"),
            ("metadata-tensor", '{"__metadata__":{"dtype":"F32","shape":@[1],"data_offsets":[0,4]}}'),
            ("dtype-twice", '{"t":{"dtype":"F32",@"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
            ("shape-twice", '{"t":{"dtype":"F32","shape":[1],@"shape":[1],"data_offsets":[0,4]}}'),
            ("offsets-twice", '{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],@"data_offsets":[0,4]}}'),
            ("dtype-missing", '{"t":{"shape":[1],"data_offsets":[0,4]@}}'),
            ("shape-missing", '{"t":{"dtype":"F32","data_offsets":[0,4]@}}'),
            ("offsets-missing", '{"t":{"dtype":"F32","shape":[1]@}}'), ("all-missing", '{"t":{@}}'),
            ("dtype-other-case", '{"t":{"Dtype":"F32","shape":[1],"data_offsets":[0,4]@}}')]:
        yield marked(name, json)
    for index, other in enumerate(("null", "true", "1", '"x"', "[]", "1.5")):
        yield marked(f"tensor-is-{index}", '{"t":@' + other + "}")
    for index, other in enumerate(("null", "true", "1", "[]", "{}")):
        yield marked(f"dtype-is-{index}", '{"t":{"dtype":@' + other + ',"shape":[1],"data_offsets":[0,4]}}')
    for index, other in enumerate(("null", "true", "1", '"[1]"', "{}")):
        yield marked(f"shape-is-{index}", '{"t":{"dtype":"F32","shape":@' + other + ',"data_offsets":[0,4]}}')
        yield marked(f"offsets-is-{index}", '{"t":{"dtype":"F32","shape":[1],"data_offsets":@' + other + "}}")
    for index, other in enumerate(("-1", "-0", "1.0", "1e0", "18446744073709551616", "99999999999999999999999", '"1"',
                                   "null", "true", "[1]", "{}")):
        yield marked(f"dimension-is-{index}", '{"t":' + entry(shape=f"[@{other}]") + "}")
        yield marked(f"offset-is-{index}", '{"t":' + entry(offsets=f"[0,@{other}]") + "}")
    for name in ("", "f32", "F33", "FLOAT", "F32 ", "F", "F3", "F320", "Q4_0", "F8", "BF8", "float32", "U128",
                 "F32\\u0000"):
        yield marked(f"dtype-{name.encode().hex() or 'empty'}",
                     '{"t":{"dtype":@"' + name + '","shape":[1],"data_offsets":[0,4]}}')
    for name, bits in [("BOOL", 8), ("U8", 8), ("I8", 8), ("F8_E5M2", 8), ("F8_E4M3", 8), ("I16", 16), ("U16", 16),
                       ("F16", 16), ("BF16", 16), ("I32", 32), ("U32", 32), ("F32", 32), ("F64", 64), ("I64", 64),
                       ("U64", 64), ("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8),
                       ("F8_E5M2FNUZ", 8), ("C64", 64)]:
        count = bits // 2
        yield good_safe(f"dtype-{name}", '{"t":' + entry(name, "[4,2]", f"[0,{bits}]") + "}", bytes(bits))
        yield marked(f"size-{name}", '{@"t":' + entry(name, f"[{count}]", f"[0,{bits * count // 8 + 1}]") + "}",
                     bytes(bits * count // 8 + 1))
    for name, shape, size in [("F4", "[3]", 2), ("F4", "[1]", 1), ("F6_E2M3", "[5]", 4), ("F6_E3M2", "[1,1]", 1)]:
        yield marked(f"part-{name}-{size}", '{@"t":' + entry(name, shape, f"[0,{size}]") + "}", bytes(size))


def safe_places():
    for title, shape in [("2-64", "[4294967296,4294967296]"), ("most", "[18446744073709551615,18446744073709551615]"),
                         ("wraps", "[4294967297,4294967295,4294967296]"), ("bytes", "[4611686018427387904]"),
                         ("bytes-wrap", "[4611686018427387905]")]:
        yield marked(f"overflow-{title}", '{@"t":' + entry(shape=shape) + "}")
    for title, offsets, size in [("short", "[0,3]", 3), ("long", "[0,5]", 5), ("backwards", "[4,0]", 4),
                                 ("beyond", "[4,8]", 4), ("far-beyond", "[0,18446744073709551615]", 4),
                                 ("wraps", "[18446744073709551612,18446744073709551615]", 4), ("none", "[0,0]", 0)]:
        yield marked(f"offsets-{title}", '{@"t":' + entry(offsets=offsets) + "}", bytes(size))
    for title, offsets in [("zero", "@[]"), ("one", "@[0]"), ("three", "[0,4,@4]"), ("nested", "[@[0,4]]")]:
        yield marked(f"offsets-count-{title}", '{"t":' + entry(offsets=offsets) + "}")

    def two(name, first, second, rest, offset):
        json = '{"a":' + entry(offsets=first) + ',"b":' + entry(offsets=second) + "}"
        return Case(f"st-{name}.safetensors", GOOD if offset is None else MALFORMED,
                    None if offset is None else 8 + len(json) + offset, safe(json, bytes(rest)))

    yield two("reverse", "[4,8]", "[0,4]", 8, None)
    yield two("overlap-same", "[0,4]", "[0,4]", 4, 0)
    yield two("overlap-part", "[0,4]", "[2,6]", 6, 2)
    yield two("hole", "[0,4]", "[5,9]", 9, 5)
    yield two("hole-at-start", "[1,5]", "[5,9]", 9, 1)
    yield two("trailing-one", "[0,4]", "[4,8]", 9, 8)
    yield two("trailing-much", "[0,4]", "[4,8]", 70000, 8)
    json = '{"t":' + entry() + "}"
    yield good_safe("scalar", '{"t":' + entry(shape="[]") + "}")
    yield good_safe("empty-tensors", '{"e":' + entry(shape="[0]", offsets="[0,0]") + ',"t":' + entry() + ',"f":' +
                    entry(shape="[3,0]", offsets="[4,4]") + "}")
    yield good_safe("empty-key", '{"":' + entry() + "}")
    yield good_safe("name-long", '{"' + "n" * 100000 + '":' + entry() + "}")
    yield good_safe("dims-many", '{"t":' + entry(shape="[" + ",".join(["1"] * 1000) + "]") + "}")
    yield good_safe("metadata-null", '{"__metadata__":null,' + json[1:])
    yield good_safe("metadata-last", json[:-1] + ',"__metadata__":{"a":""}}')
    yield good_safe("metadata-inside", '{"t":{"__metadata__":1,' + entry()[1:] + "}")
    yield Case("st-dims-too-many.safetensors", MALFORMED, 8 + len('{"t":{"dtype":"F32","shape":[') + 2 * 1024,
               safe('{"t":' + entry(shape="[" + ",".join(["1"] * 1025) + "]") + "}", bytes(4)))


# ---- What is no file, or too large to be written ---------------------------------------------------------------


def sparse(path, size, head=b""):
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)


def specials():
    for ending in ("gguf", "safetensors"):
        yield Case(f"fifo.{ending}", NOT_FOUND, make=os.mkfifo)
        yield Case(f"folder.{ending}", NOT_FOUND, make=os.mkdir)
        yield Case(f"device.{ending}", NOT_FOUND, make=lambda path: os.symlink("/dev/zero", path))
        yield Case(f"terminal.{ending}", NOT_FOUND, make=lambda path: os.symlink("/dev/tty", path))
        yield Case(f"loop.{ending}", NOT_FOUND, make=lambda path: os.symlink(os.path.basename(path), path))
        yield Case(f"dangling.{ending}", NOT_FOUND, make=lambda path: os.symlink("nothing-there", path))
        yield Case(f"missing.{ending}", NOT_FOUND, make=lambda path: None)
        yield Case(f"through-a-file.{ending}", NOT_FOUND, make=lambda path: os.symlink("/etc/passwd/model", path))
        yield Case(f"zeros.{ending}", MALFORMED, 0, make=lambda path: sparse(path, 64 << 30))
    yield Case("zeros.bin", MALFORMED, 0, make=lambda path: sparse(path, 64 << 30))
    yield Case("gguf-zeros-behind.gguf", GOOD, make=lambda path: sparse(path, 64 << 30, one_tensor()[0]))
    yield Case("gguf-tensors-of-zeros.gguf", MALFORMED, 24 + 24,  # the second has the name of the first, none
               make=lambda path: sparse(path, 64 << 30, Gguf(1000000, 0).done()))
    yield Case("gguf-tensors-over-the-limit.gguf", MALFORMED, 8,
               make=lambda path: sparse(path, 64 << 30, Gguf(1000001, 0).done()))
    yield Case("gguf-metas-of-zeros.gguf", MALFORMED, 24,
               make=lambda path: sparse(path, 64 << 30, Gguf(0, 1000000).done()))
    yield Case("gguf-metas-over-the-limit.gguf", MALFORMED, 16,
               make=lambda path: sparse(path, 64 << 30, Gguf(0, 1000001).done()))
    file = value_start(ARRAY)
    file.u32(U8)
    file.u64(32 << 30)
    yield Case("gguf-array-over-the-limit.gguf", MALFORMED, -1, make=lambda path: sparse(path, 64 << 30, file.done()))
    text = value_start(STRING)
    text.u64(32 << 30)
    yield Case("gguf-string-over-the-limit.gguf", MALFORMED, -1, make=lambda path: sparse(path, 64 << 30, text.done()))


def cases():
    """All of them; an offset of -1 is any."""
    for group in (gguf_cuts, gguf_heads, gguf_keys, gguf_values, gguf_alignments, gguf_shapes, gguf_names, gguf_places,
                  safe_lengths, safe_syntax, safe_entries, safe_places, specials):
        yield from group()


def write(case, folder):
    path = os.path.join(folder, case.name)
    if case.make:
        case.make(path)
    else:
        with open(path, "wb") as file:
            file.write(case.data)
    return path


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    for case in cases():
        if len(sys.argv) < 3 or fnmatch.fnmatch(case.name, sys.argv[2]):
            write(case, sys.argv[1])
            print(case.name, case.code, "-" if case.offset is None else case.offset)


if __name__ == "__main__":
    main()
