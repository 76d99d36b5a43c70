/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_QUANT_H
#define TND_KERNELS_QUANT_H

/* GGML's block formats, in C that CUDA compiles too. Layouts: ggml-common.h, meanings: ggml-quants.c, both of
 * ggml-org/llama.cpp, and quants.py of its Python package gguf.
 *
 * A block is a row of groups; the elements of a group share a scale and an offset. In every format
 *
 *     value = scale * quant + offset        two operations of F32, each rounded
 *
 * with an integer quant of at most 8 bits and a sign, so a format is two functions: tnd_<format>_affine(block, group)
 * and tnd_<format>_quant(block, element). Both read byte by byte: a block may lie at any address. */

#include "kernels/float.h"
#include "kernels/quant_grids.h"

/* X(type, format, elements of a block, its bytes, elements of a group) */
#define TND_QUANT_FORMATS(X)                                                                                           \
    X(TND_Q4_0, q4_0, 32, 18, 32)                                                                                      \
    X(TND_Q4_1, q4_1, 32, 20, 32)                                                                                      \
    X(TND_Q5_0, q5_0, 32, 22, 32)                                                                                      \
    X(TND_Q5_1, q5_1, 32, 24, 32)                                                                                      \
    X(TND_Q8_0, q8_0, 32, 34, 32)                                                                                      \
    X(TND_Q8_1, q8_1, 32, 36, 32)                                                                                      \
    X(TND_Q2_K, q2_k, 256, 84, 16)                                                                                     \
    X(TND_Q3_K, q3_k, 256, 110, 16)                                                                                    \
    X(TND_Q4_K, q4_k, 256, 144, 32)                                                                                    \
    X(TND_Q5_K, q5_k, 256, 176, 32)                                                                                    \
    X(TND_Q6_K, q6_k, 256, 210, 16)                                                                                    \
    X(TND_Q8_K, q8_k, 256, 292, 256)                                                                                   \
    X(TND_IQ1_S, iq1_s, 256, 50, 32)                                                                                   \
    X(TND_IQ1_M, iq1_m, 256, 56, 16)                                                                                   \
    X(TND_IQ2_XXS, iq2_xxs, 256, 66, 32)                                                                               \
    X(TND_IQ2_XS, iq2_xs, 256, 74, 16)                                                                                 \
    X(TND_IQ2_S, iq2_s, 256, 82, 16)                                                                                   \
    X(TND_IQ3_XXS, iq3_xxs, 256, 98, 32)                                                                               \
    X(TND_IQ3_S, iq3_s, 256, 110, 32)                                                                                  \
    X(TND_IQ4_NL, iq4_nl, 32, 18, 32)                                                                                  \
    X(TND_IQ4_XS, iq4_xs, 256, 136, 32)                                                                                \
    X(TND_TQ1_0, tq1_0, 256, 54, 256)                                                                                  \
    X(TND_TQ2_0, tq2_0, 256, 66, 256)                                                                                  \
    X(TND_MXFP4, mxfp4, 32, 17, 32)                                                                                    \
    X(TND_NVFP4, nvfp4, 64, 36, 16)                                                                                    \
    X(TND_Q1_0, q1_0, 128, 18, 128)                                                                                    \
    X(TND_Q2_0, q2_0, 64, 18, 64)

/* tnd_<format>_elements and tnd_<format>_bytes, of a block. */
#define TND_QUANT_SIZES(type, format, block_elements, block_bytes, group_elements)                                     \
    tnd_##format##_elements = block_elements, tnd_##format##_bytes = block_bytes,
enum {
    TND_QUANT_FORMATS(TND_QUANT_SIZES) TND_QUANT_ELEMENTS_MAX = 256
};

struct tnd_affine {
    float scale, offset;
};

/* What the formats are made of. */

TND_KERNEL_FN float tnd_quant_f16(const uint8_t *at)
{
    return tnd_f32_of_f16(tnd_le16_at(at));
}

TND_KERNEL_FN uint32_t tnd_quant_u32(const uint8_t *at)
{
    return tnd_le16_at(at) | (uint32_t)tnd_le16_at(at + 2) << 16;
}

TND_KERNEL_FN int tnd_quant_i8(const uint8_t *at)
{
    return *at < 128 ? *at : *at - 256;
}

TND_KERNEL_FN struct tnd_affine tnd_scale_offset(float scale, float offset)
{
    struct tnd_affine affine;

    affine.scale = scale;
    affine.offset = offset;
    return affine;
}

/* No offset: adding -0 changes nothing, not even the sign of a zero. */
TND_KERNEL_FN struct tnd_affine tnd_scale_only(float scale)
{
    return tnd_scale_offset(scale, -0.0f);
}

/* The index-th field of so many bits. The first run fields are the lowest bits of the first run bytes, the next run
 * fields the next bits of the same bytes, and so on until the bytes are used up and the next run bytes begin. With
 * run = 1 the fields simply follow one another, lowest bits first. */
TND_KERNEL_FN unsigned tnd_quant_field(const uint8_t *bytes, unsigned index, unsigned run, unsigned bits)
{
    unsigned per_byte = 8 / bits;
    unsigned byte = index / (run * per_byte) * run + index % run;
    unsigned shift = index / run % per_byte * bits;

    return (unsigned)bytes[byte] >> shift & ((1u << bits) - 1);
}

/* The plain formats: F16 scale d, for _1 an F16 offset, high bits, low bits. */

TND_KERNEL_FN struct tnd_affine tnd_q4_0_affine(const uint8_t *block, unsigned group)
{
    (void)group;
    return tnd_scale_only(tnd_quant_f16(block));
}

TND_KERNEL_FN int tnd_q4_0_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_field(block + 2, element, 16, 4) - 8;
}

TND_KERNEL_FN struct tnd_affine tnd_q4_1_affine(const uint8_t *block, unsigned group)
{
    (void)group;
    return tnd_scale_offset(tnd_quant_f16(block), tnd_quant_f16(block + 2));
}

TND_KERNEL_FN int tnd_q4_1_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_field(block + 4, element, 16, 4);
}

/* bytes: 32 high bits, one after the other, then 32 times the low four. */
TND_KERNEL_FN unsigned tnd_quant_five(const uint8_t *bytes, unsigned element)
{
    return tnd_quant_field(bytes, element, 1, 1) << 4 | tnd_quant_field(bytes + 4, element, 16, 4);
}

TND_KERNEL_FN struct tnd_affine tnd_q5_0_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_0_affine(block, group);
}

TND_KERNEL_FN int tnd_q5_0_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_five(block + 2, element) - 16;
}

TND_KERNEL_FN struct tnd_affine tnd_q5_1_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_1_affine(block, group);
}

TND_KERNEL_FN int tnd_q5_1_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_five(block + 4, element);
}

TND_KERNEL_FN struct tnd_affine tnd_q8_0_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_0_affine(block, group);
}

TND_KERNEL_FN int tnd_q8_0_quant(const uint8_t *block, unsigned element)
{
    return tnd_quant_i8(block + 2 + element);
}

/* d, d times the sum of the quants (for dot products), quants. */
TND_KERNEL_FN struct tnd_affine tnd_q8_1_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_0_affine(block, group);
}

TND_KERNEL_FN int tnd_q8_1_quant(const uint8_t *block, unsigned element)
{
    return tnd_quant_i8(block + 4 + element);
}

/* The K formats: 256 elements, groups with integer scales of their own. */

/* Group scales and minima of four bits each [16], low two bits [64], d, dmin. */
TND_KERNEL_FN struct tnd_affine tnd_q2_k_affine(const uint8_t *block, unsigned group)
{
    float scale = tnd_quant_f16(block + 80) * (float)(block[group] & 15);
    float least = tnd_quant_f16(block + 82) * (float)(block[group] >> 4);

    return tnd_scale_offset(scale, -least);
}

TND_KERNEL_FN int tnd_q2_k_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_field(block + 16, element, 32, 2);
}

/* High bits, 0 for minus four [32], low two bits [64], group scales of six bits [12], d. */
TND_KERNEL_FN struct tnd_affine tnd_q3_k_affine(const uint8_t *block, unsigned group)
{
    unsigned low = tnd_quant_field(block + 96, group, 8, 4), high = tnd_quant_field(block + 104, group, 4, 2);

    return tnd_scale_only(tnd_quant_f16(block + 108) * (float)((int)(high << 4 | low) - 32));
}

TND_KERNEL_FN int tnd_q3_k_quant(const uint8_t *block, unsigned element)
{
    unsigned low = tnd_quant_field(block + 32, element, 32, 2), high = tnd_quant_field(block, element, 32, 1);

    return (int)(high << 2 | low) - 4;
}

/* d, dmin, group scales and minima of six bits each [12]: bytes 0 to 3 have the first four scales and the two high bits
 * of the last four, bytes 4 to 7 the same of the minima, bytes 8 to 11 the low four bits of the last four of both. */
TND_KERNEL_FN struct tnd_affine tnd_q4_k_affine(const uint8_t *block, unsigned group)
{
    const uint8_t *packed = block + 4;
    unsigned scale, least;

    if (group < 4) {
        scale = packed[group] & 63u;
        least = packed[group + 4] & 63u;
    } else {
        scale = (unsigned)packed[group - 4] >> 6 << 4 | (packed[group + 4] & 15u);
        least = (unsigned)packed[group] >> 6 << 4 | (unsigned)packed[group + 4] >> 4;
    }
    return tnd_scale_offset(tnd_quant_f16(block) * (float)scale, -(tnd_quant_f16(block + 2) * (float)least));
}

/* … low four bits [128]. */
TND_KERNEL_FN int tnd_q4_k_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_field(block + 16, element, 32, 4);
}

TND_KERNEL_FN struct tnd_affine tnd_q5_k_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_k_affine(block, group);
}

/* … high bits [32], low four bits [128]. */
TND_KERNEL_FN int tnd_q5_k_quant(const uint8_t *block, unsigned element)
{
    return (int)(tnd_quant_field(block + 16, element, 32, 1) << 4 | tnd_quant_field(block + 48, element, 32, 4));
}

/* Low four bits [128], high two bits [64], group scales [16], d. */
TND_KERNEL_FN struct tnd_affine tnd_q6_k_affine(const uint8_t *block, unsigned group)
{
    return tnd_scale_only(tnd_quant_f16(block + 208) * (float)tnd_quant_i8(block + 192 + group));
}

TND_KERNEL_FN int tnd_q6_k_quant(const uint8_t *block, unsigned element)
{
    return (int)(tnd_quant_field(block + 128, element, 32, 2) << 4 | tnd_quant_field(block, element, 64, 4)) - 32;
}

/* d as F32, quants [256], sums of 16 quants each (for dot products). */
TND_KERNEL_FN struct tnd_affine tnd_q8_k_affine(const uint8_t *block, unsigned group)
{
    (void)group;
    return tnd_scale_only(tnd_f32_of_bits(tnd_quant_u32(block)));
}

TND_KERNEL_FN int tnd_q8_k_quant(const uint8_t *block, unsigned element)
{
    return tnd_quant_i8(block + 4 + element);
}

/* The IQ formats: rows of a codebook. */

TND_KERNEL_FN int tnd_quant_signed(int magnitude, unsigned negative)
{
    return negative ? -magnitude : magnitude;
}

/* Of eight signs, seven are stored; the eighth makes the number of minus signs even. */
TND_KERNEL_FN unsigned tnd_quant_sign(unsigned seven, unsigned index)
{
    unsigned parity = seven ^ seven >> 4;

    if (index < 7)
        return seven >> index & 1;
    parity ^= parity >> 2;
    return (parity ^ parity >> 1) & 1;
}

/* IQ2: 8, 25, 43. */
TND_KERNEL_FN int tnd_iq2_level(unsigned row, unsigned index)
{
    int code = row >> 2 * index & 3;

    return 8 + 17 * code + (code >> 1);
}

TND_KERNEL_FN struct tnd_affine tnd_iq2_affine(const uint8_t *block, unsigned scale)
{
    return tnd_scale_only(tnd_quant_f16(block) * (0.5f + (float)scale) * 0.25f);
}

/* d; for each group eight bytes: four rows, then 32 bits with four times seven signs and, on top, the scale. */
TND_KERNEL_FN struct tnd_affine tnd_iq2_xxs_affine(const uint8_t *block, unsigned group)
{
    return tnd_iq2_affine(block, block[2 + 8 * group + 7] >> 4);
}

TND_KERNEL_FN int tnd_iq2_xxs_quant(const uint8_t *block, unsigned element)
{
    const uint8_t *group = block + 2 + element / 32 * 8;
    unsigned of_group = element / 8 % 4, index = element % 8;
    unsigned signs = tnd_quant_u32(group + 4) >> 7 * of_group & 127;

    return tnd_quant_signed(tnd_iq2_level(tnd_iq2_xxs_grid(group[of_group]), index), tnd_quant_sign(signs, index));
}

/* d, row and seven signs in 16 bits [32], scales of four bits. */
TND_KERNEL_FN struct tnd_affine tnd_iq2_xs_affine(const uint8_t *block, unsigned group)
{
    return tnd_iq2_affine(block, tnd_quant_field(block + 66, group, 1, 4));
}

TND_KERNEL_FN int tnd_iq2_xs_quant(const uint8_t *block, unsigned element)
{
    unsigned word = tnd_le16_at(block + 2 + element / 8 * 2), index = element % 8;

    return tnd_quant_signed(tnd_iq2_level(tnd_iq2_xs_grid(word & 511), index), tnd_quant_sign(word >> 9, index));
}

/* d, low eight bits of the rows [32], signs [32], high two bits of the rows [8], scales of four bits. */
TND_KERNEL_FN struct tnd_affine tnd_iq2_s_affine(const uint8_t *block, unsigned group)
{
    return tnd_iq2_affine(block, tnd_quant_field(block + 74, group, 1, 4));
}

TND_KERNEL_FN int tnd_iq2_s_quant(const uint8_t *block, unsigned element)
{
    unsigned row = tnd_quant_field(block + 66, element / 8, 1, 2) << 8 | block[2 + element / 8];

    return tnd_quant_signed(tnd_iq2_level(tnd_iq2_s_grid(row), element % 8),
                            tnd_quant_field(block + 34, element, 1, 1));
}

/* d, rows of four [64]; for each group 32 bits with four times seven signs and, on top, the scale. */
TND_KERNEL_FN struct tnd_affine tnd_iq3_xxs_affine(const uint8_t *block, unsigned group)
{
    unsigned scale = block[66 + 4 * group + 3] >> 4;

    return tnd_scale_only(tnd_quant_f16(block) * (0.5f + (float)scale) * 0.5f);
}

/* Levels 4, 12, 20 … 52, and 62. */
TND_KERNEL_FN int tnd_iq3_xxs_quant(const uint8_t *block, unsigned element)
{
    unsigned signs = tnd_quant_u32(block + 66 + element / 32 * 4) >> element / 8 % 4 * 7 & 127;
    int code = tnd_iq3_xxs_grid(block[2 + element / 4]) >> 3 * (element % 4) & 7;

    return tnd_quant_signed(4 + 8 * code + (code == 7 ? 2 : 0), tnd_quant_sign(signs, element % 8));
}

/* d, low eight bits of the rows of four [64], high bits of the rows [8], signs [32], scales of four bits. */
TND_KERNEL_FN struct tnd_affine tnd_iq3_s_affine(const uint8_t *block, unsigned group)
{
    return tnd_scale_only(tnd_quant_f16(block) * (float)(1 + 2 * tnd_quant_field(block + 106, group, 1, 4)));
}

/* Levels 1, 3, 5 … 15. */
TND_KERNEL_FN int tnd_iq3_s_quant(const uint8_t *block, unsigned element)
{
    unsigned row = tnd_quant_field(block + 66, element / 4, 1, 1) << 8 | block[2 + element / 4];
    int code = tnd_iq3_s_grid(row) >> 3 * (element % 4) & 7;

    return tnd_quant_signed(1 + 2 * code, tnd_quant_field(block + 74, element, 1, 1));
}

/* IQ1: -1, 0, 1, each shifted by an eighth up or down; counted in eighths, which the scale makes up for. */
TND_KERNEL_FN int tnd_iq1_quant(unsigned row, unsigned index, unsigned down)
{
    return 8 * ((int)(tnd_iq1_grid(row) >> 2 * index & 3) - 1) + (down ? -1 : 1);
}

TND_KERNEL_FN struct tnd_affine tnd_iq1_affine(float d, unsigned scale)
{
    return tnd_scale_only(d * (float)(2 * scale + 1) * 0.125f);
}

/* d, low eight bits of the rows [32]; for each group 16 bits: four times three high bits, scale of three, shift. */
TND_KERNEL_FN struct tnd_affine tnd_iq1_s_affine(const uint8_t *block, unsigned group)
{
    return tnd_iq1_affine(tnd_quant_f16(block), tnd_le16_at(block + 34 + 2 * group) >> 12 & 7);
}

TND_KERNEL_FN int tnd_iq1_s_quant(const uint8_t *block, unsigned element)
{
    unsigned word = tnd_le16_at(block + 34 + element / 32 * 2);
    unsigned row = (word >> element / 8 % 4 * 3 & 7) << 8 | block[2 + element / 8];

    return tnd_iq1_quant(row, element % 8, word >> 15);
}

/* Low eight bits of the rows [32], for each row three high bits and its shift [16], four words with four scales of
 * three bits each and, on top, a quarter of d. */
TND_KERNEL_FN struct tnd_affine tnd_iq1_m_affine(const uint8_t *block, unsigned group)
{
    const uint8_t *words = block + 48;
    unsigned d = words[1] >> 4 | (words[3] & 0xF0u) | (words[5] & 0xF0u) << 4 | (words[7] & 0xF0u) << 8;

    return tnd_iq1_affine(tnd_f32_of_f16((uint16_t)d), tnd_le16_at(words + group / 4 * 2) >> group % 4 * 3 & 7);
}

TND_KERNEL_FN int tnd_iq1_m_quant(const uint8_t *block, unsigned element)
{
    unsigned high = tnd_quant_field(block + 32, element / 8, 1, 4);

    return tnd_iq1_quant((high & 7) << 8 | block[element / 8], element % 8, high >> 3);
}

TND_KERNEL_FN int tnd_iq4_level(unsigned code)
{
    static const int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

    return levels[code];
}

TND_KERNEL_FN struct tnd_affine tnd_iq4_nl_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_0_affine(block, group);
}

TND_KERNEL_FN int tnd_iq4_nl_quant(const uint8_t *block, unsigned element)
{
    return tnd_iq4_level(tnd_quant_field(block + 2, element, 16, 4));
}

/* d, high two bits of the scales [2], low four bits of the scales [4], codes [128]. */
TND_KERNEL_FN struct tnd_affine tnd_iq4_xs_affine(const uint8_t *block, unsigned group)
{
    unsigned scale = tnd_quant_field(block + 2, group, 1, 2) << 4 | tnd_quant_field(block + 4, group, 1, 4);

    return tnd_scale_only(tnd_quant_f16(block) * (float)((int)scale - 32));
}

TND_KERNEL_FN int tnd_iq4_xs_quant(const uint8_t *block, unsigned element)
{
    return tnd_iq4_level(tnd_quant_field(block + 8, element, 16, 4));
}

/* Ternary formats: -1, 0, 1. */

/* A byte is a fraction of 256 with digits in base 3: times three, the first digit stands above the eight bits, and the
 * eight bits are the fraction that is left. 160 elements in 32 bytes, 80 in 16, 16 in four; then d. */
TND_KERNEL_FN struct tnd_affine tnd_tq1_0_affine(const uint8_t *block, unsigned group)
{
    (void)group;
    return tnd_scale_only(tnd_quant_f16(block + 52));
}

TND_KERNEL_FN int tnd_tq1_0_quant(const uint8_t *block, unsigned element)
{
    unsigned start = element < 160 ? 0 : element < 240 ? 160 : 240;
    unsigned run = element < 160 ? 32 : element < 240 ? 16 : 4;
    unsigned bits = block[start / 5 + (element - start) % run];

    for (unsigned digit = (element - start) / run; digit; digit--)
        bits = bits * 3 & 255;
    return (int)(bits * 3 >> 8) - 1;
}

TND_KERNEL_FN struct tnd_affine tnd_tq2_0_affine(const uint8_t *block, unsigned group)
{
    (void)group;
    return tnd_scale_only(tnd_quant_f16(block + 64));
}

TND_KERNEL_FN int tnd_tq2_0_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_field(block, element, 32, 2) - 1;
}

/* FP4: one bit of sign, two of exponent, one of mantissa; twice the value, to be an integer. */
TND_KERNEL_FN int tnd_fp4_level(unsigned code)
{
    unsigned magnitude = code & 7;

    return tnd_quant_signed((int)(magnitude < 4 ? magnitude : (2 | (magnitude & 1)) << (magnitude / 2 - 1)), code & 8);
}

/* Scale of a power of two, in one byte; half of it. 2^(e - 128), which is subnormal for 0 and 1; 255 is no NaN. */
TND_KERNEL_FN struct tnd_affine tnd_mxfp4_affine(const uint8_t *block, unsigned group)
{
    unsigned exponent = block[0];

    (void)group;
    return tnd_scale_only(tnd_f32_of_bits(exponent < 2 ? 0x200000u << exponent : (exponent - 1) << 23));
}

TND_KERNEL_FN int tnd_mxfp4_quant(const uint8_t *block, unsigned element)
{
    return tnd_fp4_level(tnd_quant_field(block + 1, element, 16, 4));
}

/* Scales in four bits of exponent and three of mantissa [4]; half of them. The bit above is ignored, and the code that
 * would be a NaN is zero, but only with that bit clear. */
TND_KERNEL_FN struct tnd_affine tnd_nvfp4_affine(const uint8_t *block, unsigned group)
{
    unsigned code = block[group], exponent = code >> 3 & 15, mantissa = code & 7;

    if (code == 0x7F)
        return tnd_scale_only(0.0f);
    if (exponent == 0)
        return tnd_scale_only((float)mantissa * 0x1p-10f);
    return tnd_scale_only((float)(8 + mantissa) * tnd_f32_of_bits((exponent - 11 + 127) << 23));
}

TND_KERNEL_FN int tnd_nvfp4_quant(const uint8_t *block, unsigned element)
{
    return tnd_fp4_level(tnd_quant_field(block + 4, element, 8, 4));
}

/* d, bits or pairs of bits, one after the other. */

TND_KERNEL_FN struct tnd_affine tnd_q1_0_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_0_affine(block, group);
}

TND_KERNEL_FN int tnd_q1_0_quant(const uint8_t *block, unsigned element)
{
    return 2 * (int)tnd_quant_field(block + 2, element, 1, 1) - 1;
}

TND_KERNEL_FN struct tnd_affine tnd_q2_0_affine(const uint8_t *block, unsigned group)
{
    return tnd_q4_0_affine(block, group);
}

TND_KERNEL_FN int tnd_q2_0_quant(const uint8_t *block, unsigned element)
{
    return (int)tnd_quant_field(block + 2, element, 1, 2) - 1;
}

#endif
