#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what the fuzzers begin with: make_corpus.py FOLDER

A few dozen small files for each target, one or two of each class of ../bad/make_bad.py: good ones, and bad ones that
get far into a parser. Files with other names in the folders, which a fuzzer has found, stay."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bad"))
sys.dont_write_bytecode = True
import make_bad  # noqa: E402

BYTES_MAX = 4000
COUNT_MAX = 48
A_CLASS = 1


def group(name):
    """The name without what counts it."""
    return re.sub(r"-[0-9a-f]+(-[0-9]+)?$", "", os.path.splitext(name)[0])


INDEXES = [
    b'{"metadata":{"total_size":1},"weight_map":{"a":"x.safetensors","b":"y.safetensors","c":"x.safetensors"}}',
    b'{"weight_map":{"a":"../x","a":"y"}}', b'{"weight_map":{"a":".."}}', b'{"weight_map":{"a":""}}',
    b'{"weight_map":{"\\u0061":"\\u002e\\u002e"},"weight_map":{}}', b'{"weight_map":{"a":7}}', b'{"weight_map":[]}',
    b'[]',
    b'{"a":{"b":[1,2,{"c":null}]},"weight_map":{"\xc3\xa4":"\xf0\x9f\x98\x80"}}', b'{"weight_map":{"a":"b',
]


def choose(ending):
    seen, chosen = {}, []
    cases = [case for case in make_bad.cases() if case.name.endswith(ending) and not case.make]
    for case in sorted(cases, key=lambda case: (case.code != make_bad.GOOD, -len(case.data))):
        kind = group(case.name)
        if 0 < len(case.data) <= BYTES_MAX and seen.get(kind, 0) < A_CLASS:
            seen[kind] = seen.get(kind, 0) + 1
            chosen.append(case)
    step = max(1, len(chosen) / COUNT_MAX)
    return [chosen[int(index * step)] for index in range(min(COUNT_MAX, len(chosen)))]


def save(folder, name, data):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def main():
    for case in choose(".gguf"):
        save(os.path.join(sys.argv[1], "gguf"), case.name, case.data)
    for case in choose(".safetensors"):
        name = os.path.splitext(case.name)[0]
        save(os.path.join(sys.argv[1], "safetensors"), case.name, case.data)
        save(os.path.join(sys.argv[1], "json"), name + ".json",
             case.data[8:8 + int.from_bytes(case.data[:8], "little")])
    for number, text in enumerate(INDEXES):
        save(os.path.join(sys.argv[1], "index"), f"index-{number}.json", text)


if __name__ == "__main__":
    main()
