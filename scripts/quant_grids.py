#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints src/kernels/quant_grids.h: the codebooks of GGML's IQ formats, from the tables of the Python package gguf.

    quant_grids.py > src/kernels/quant_grids.h

A codebook has rows of four or eight levels; a row is packed into 16 bits, its first element lowest."""
import textwrap

from gguf import quants

# Name, class of the package that has the table, bits of a level.
GRIDS = [
    ("iq2_xxs", quants.IQ2_XXS, 2),
    ("iq2_xs", quants.IQ2_XS, 2),
    ("iq2_s", quants.IQ2_S, 2),
    ("iq1", quants.IQ1_S, 2),
    ("iq3_xxs", quants.IQ3_XXS, 3),
    ("iq3_s", quants.IQ3_S, 3),
]

HEAD = """\
/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_QUANT_GRIDS_H
#define TND_KERNELS_QUANT_GRIDS_H

/* Written by scripts/quant_grids.py; do not edit. The codebooks of GGML's IQ formats: data of the format, the same in
 * every reader (iq2xxs_grid and its like in ggml-common.h of ggml-org/llama.cpp). A row is packed into 16 bits, its
 * first element lowest; what level an element's bits stand for is in quant.h. */

#include "kernels/float.h"
"""


def rows(quant, bits):
    quant.init_grid()
    code_of = {float(level): code for code, level in enumerate(quant.grid_map)}
    for row in quant.grid.reshape(quant.grid_shape):
        yield sum(code_of[float(level)] << bits * at for at, level in enumerate(row))


def main():
    print(HEAD, end="")
    for name, quant, bits in GRIDS:
        count, elements = quant.grid_shape
        words = " ".join(f"0x{row:04x}," for row in rows(quant, bits))
        print(f"\n/* {count} rows of {elements} elements of {bits} bits. */")
        print(f"TND_KERNEL_FN uint16_t tnd_{name}_grid(unsigned row)\n{{")
        print(f"    static const uint16_t grid[{count}] = {{")
        print(textwrap.fill(words, 120, initial_indent=" " * 8, subsequent_indent=" " * 8))
        print("    };\n\n    return grid[row];\n}")
    print("\n#endif")


if __name__ == "__main__":
    main()
