#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes worker/text/nfc_table.h, what composes and decomposes in Unicode: nfc_table.py >worker/text/nfc_table.h

Of the package unicodedata2 where it is there, else of Python's own unicodedata, which is as old as that Python is."""
import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

COLUMNS_MAX = 120
CHARACTERS = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
VOWELS_AND_TAILS = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # of Hangul: they compose by a sum


def decomposed(code):
    """One step, as (first, second or 0); None where the character stands for itself, or is a sum: Hangul."""
    mapping = "" if 0xAC00 <= code < 0xD7A4 else unicodedata.decomposition(chr(code))
    if not mapping or mapping.startswith("<"):
        return None
    parts = [int(part, 16) for part in mapping.split()]
    assert len(parts) <= 2 and (len(parts) == 1 or not unicodedata.decomposition(chr(parts[1])))
    return parts[0], parts[1] if len(parts) == 2 else 0


def ranges(numbers):
    """[(first, last, what)] of {code: what}."""
    found = []
    for code in sorted(numbers):
        if found and found[-1][1] == code - 1 and found[-1][2] == numbers[code]:
            found[-1] = (found[-1][0], code, numbers[code])
        else:
            found.append((code, code, numbers[code]))
    return found


def rows(cells):
    line = "   "
    for cell in cells:
        if len(line) + len(cell) + 1 > COLUMNS_MAX:
            print(line)
            line = "   "
        line += " " + cell
    print(line)


def main():
    pairs = {code: decomposed(code) for code in CHARACTERS if decomposed(code)}
    composes = {code for code, (first, second) in pairs.items()
                if second and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code)}
    order = sorted(pairs)
    by_pair = sorted((index for index, code in enumerate(order) if code in composes),
                     key=lambda index: pairs[order[index]])
    unsettled = {code: unicodedata.combining(chr(code)) for code in CHARACTERS
                 if unicodedata.combining(chr(code)) or unicodedata.normalize("NFC", chr(code)) != chr(code)
                 or code in VOWELS_AND_TAILS}
    unsettled.update({pairs[code][1]: unicodedata.combining(chr(pairs[code][1])) for code in composes})
    print("/* SPDX-License-Identifier: Apache-2.0 */")
    print("#ifndef WORKER_TEXT_NFC_TABLE_H\n#define WORKER_TEXT_NFC_TABLE_H\n")
    print(f"/* Unicode {unicodedata.unidata_version}, written by scripts/nfc_table.py. */\n")
    print("#include <stdint.h>\n")
    print("/* A character and the one or two that it is made of, by the character. Hangul's syllables are sums. */")
    print("static const struct nfc_pair {\n    uint32_t character, first, second;\n} nfc_pairs[] = {")
    rows(f"{{0x{code:X}, 0x{pairs[code][0]:X}, 0x{pairs[code][1]:X}}}," for code in order)
    print("};\n\n/* Those of nfc_pairs that two characters compose to, by the two. */")
    print("static const uint16_t nfc_composed[] = {")
    rows(f"{index}," for index in by_pair)
    print("};\n\n/* Characters that join the one before them, that move among such, or that never stay as they are,"
          " with\n * their combining class. */")
    print("static const struct nfc_range {\n    uint32_t first, last;\n    uint8_t combining_class;\n"
          "} nfc_unsettled[] = {")
    rows(f"{{0x{first:X}, 0x{last:X}, {what}}}," for first, last, what in ranges(unsettled))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
