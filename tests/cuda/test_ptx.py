#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the compiler leaves the kernels' arithmetic and their access to memory as they are written.

Method: PTX for the oldest architecture, with the flags of the library, is read line by line: a product and a sum are
never one operation, nothing flushes subnormals, and device memory is read in whole words of 16 bytes, which are staged
from aligned addresses, or byte by byte; two bytes and more at a time come from tables only.

    test_ptx.py NVCC SOURCE FLAG…"""
import re
import subprocess
import sys
import tempfile

LOAD = re.compile(r"\bld\.(?:volatile\.)?global(?:\.nc)?((?:\.\w+)+)\s")
ENTRY = re.compile(r"\.entry\s+(\w+)")
TABLES = re.compile(r"^\s*\.(?:visible\s+)?(?:global|const)\b.*\b(\w+)\[", re.M)


def problems_of(text):
    entry, problems, seen = "?", [], {"entries": 0, "words": 0, "bytes": 0}
    table_registers = set()
    for line in text.splitlines():
        code = line.split("//")[0]
        if found := ENTRY.search(code):
            entry, table_registers = found.group(1), set()
            seen["entries"] += 1
        if re.search(r"\bfma\.", code):
            problems.append(f"{entry}: one rounding for two operations: {code.strip()}")
        if ".ftz" in code:
            problems.append(f"{entry}: subnormals are flushed: {code.strip()}")
        # An address that comes from the name of a table, directly or by adding to it.
        if found := re.search(r"mov\.u64\s+(%\w+),\s*([A-Za-z_]\w*);", code):
            table_registers.add(found.group(1))
        elif found := re.search(r"(?:add|cvta|cvta\.to)[\w.]*\s+(%\w+),\s*(%\w+)(?:,\s*(%?\w+))?;", code):
            if table_registers & {found.group(2), found.group(3)}:
                table_registers.add(found.group(1))
        if found := LOAD.search(code):
            kind = found.group(1)
            base = re.search(r"\[(%\w+)", code)
            if kind.startswith(".v4.") and kind.endswith("32"):
                seen["words"] += 1
            elif kind.endswith("8") and ".v" not in kind:
                seen["bytes"] += 1
            elif not base or base.group(1) not in table_registers:
                problems.append(f"{entry}: device memory is read as {kind}: {code.strip()}")
    return problems, seen


def main():
    nvcc, source, *flags = sys.argv[1:]
    with tempfile.NamedTemporaryFile(suffix=".ptx") as ptx:
        subprocess.run([nvcc, *flags, "-arch=compute_75", "-ptx", source, "-o", ptx.name], check=True)
        with open(ptx.name, encoding="utf-8") as file:
            text = file.read()
    problems, seen = problems_of(text)
    # What it looks for is there to be found.
    planted = ".entry planted(\nfma.rn.f32 %f1, %f2, %f3, %f4;\nadd.ftz.f32 %f1, %f2, %f3;\nld.global.u32 %r1, [%rd1];"
    if len(problems_of(planted)[0]) != 3:
        problems.append("what was planted is not seen")
    if not all(seen.values()):
        problems.append(f"nothing to look at: {seen}")
    for problem in problems[:20]:
        print(problem)
    print(f"{seen['entries']} kernels, {seen['words']} loads of 16 bytes, {seen['bytes']} of one")
    print(f"{int(not problems)} passed, {int(bool(problems))} failed, 0 skipped")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
