/* SPDX-License-Identifier: Apache-2.0 */

/* GGML's IQ formats with AVX2 and F16C: 32 elements at a time, four rows of eight or eight rows of four. The rows are
 * collected as quant_grids.h packs them and unpacked together, in a handful of instructions. */

#include "kernels/lists.h"

#if defined(__x86_64__)
#include "kernels/dequant_avx2.h"

/* Signs. */

INLINE __m256i with_signs(__m256i magnitudes, __m256i negative)
{
    return _mm256_sub_epi8(_mm256_xor_si256(magnitudes, negative), negative);
}

/* Four times seven bits, one after the other, each into a byte of its own. */
INLINE uint32_t sevens_apart(uint32_t bits)
{
    bits = (bits & 0x00003FFF) | (bits << 2 & 0x3FFF0000);
    return (bits & 0x007F007F) | (bits << 1 & 0x7F007F00);
}

/* The eighth sign of each byte, as seven make it: the number of minus signs is even. */
INLINE uint32_t with_eighth(uint32_t sevens)
{
    uint32_t parity = sevens ^ sevens << 4; /* of the bits up to each byte's highest, which is what counts */

    parity ^= parity << 2;
    parity ^= parity << 1;
    return sevens | (parity & 0x80808080);
}

/* Scales: d times an odd number, 2 * scale + 1. */
INLINE struct group odd_times(__m256 d, unsigned scale)
{
    return scale_only(_mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_set1_epi32((int)(2 * scale + 1)))));
}

INLINE __m256 part_of(__m256 d, float factor)
{
    return _mm256_mul_ps(d, _mm256_set1_ps(factor));
}

/* The formats, as quant.h tells them. False, and nothing put: a scale out of range. */

/* IQ1: values go down to an eighth of d, and F16 must hold that: d is zero or at least 2^-21. */
INLINE bool iq1_in_range(const struct sink *sink, uint16_t d)
{
    bool small = (d & 0x7FFFu) - 1 < 7;

    return half_in_range(sink, d, 5) && !(sink->to == TND_F16 && small);
}

/* down: a byte of ones for each element that is shifted down. */
INLINE __m256i iq1_quants(uint64_t rows, __m256i down)
{
    const __m128i levels = _mm_setr_epi8(-8, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

    return _mm256_add_epi8(look_up(levels, bytes_of_pairs(rows)), _mm256_or_si256(down, bytes_of(1)));
}

INLINE bool iq1_s(const uint8_t *block, struct sink *sink)
{
    __m256 d = part_of(f16_at(block), 0.125f);

    if (!iq1_in_range(sink, tnd_le16(block)))
        return false;
    for (int i = 0; i < 8; i++) {
        unsigned word = tnd_le16(block + 34 + 2 * i);
        struct group group = odd_times(d, word >> 12 & 7);
        uint64_t rows = 0;

        for (int j = 0; j < 4; j++)
            rows |= (uint64_t)tnd_iq1_grid((word >> 3 * j & 7) << 8 | block[2 + 4 * i + j]) << 16 * j;
        put32(sink, iq1_quants(rows, bytes_of(word >> 15 ? -1 : 0)), group, group);
    }
    return true;
}

INLINE bool iq1_m(const uint8_t *block, struct sink *sink)
{
    const __m256i down_of_row = _mm256_set_epi64x(0x8000, 0x0800, 0x0080, 0x0008);
    uint64_t words = tnd_le64(block + 48);
    uint64_t d_bits = (words >> 12 & 0xF) | (words >> 24 & 0xF0) | (words >> 36 & 0xF00) | (words >> 48 & 0xF000);
    __m256 d = part_of(f16_of((uint16_t)d_bits), 0.125f);

    if (!iq1_in_range(sink, (uint16_t)d_bits))
        return false;
    for (int i = 0; i < 8; i++) {
        unsigned scales = (unsigned)(words >> (16 * (i / 2) + 6 * (i % 2))), high = tnd_le16(block + 32 + 2 * i);
        __m256i down = _mm256_and_si256(_mm256_set1_epi64x(high), down_of_row);
        uint64_t rows = 0;

        for (int j = 0; j < 4; j++)
            rows |= (uint64_t)tnd_iq1_grid((high >> 4 * j & 7) << 8 | block[4 * i + j]) << 16 * j;
        put32(sink, iq1_quants(rows, _mm256_cmpeq_epi64(down, down_of_row)), odd_times(d, scales & 7),
              odd_times(d, scales >> 3 & 7));
    }
    return true;
}

INLINE __m256i iq2_magnitudes(uint64_t rows)
{
    return look_up(_mm_setr_epi8(8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), bytes_of_pairs(rows));
}

INLINE bool iq2_xxs(const uint8_t *block, struct sink *sink)
{
    __m256 d = part_of(f16_at(block), 0.125f);

    if (!in_range(sink, block, 8))
        return false;
    for (int i = 0; i < 8; i++) {
        const uint8_t *at = block + 2 + 8 * i;
        uint32_t word = tnd_le32(at + 4);
        struct group group = odd_times(d, word >> 28);
        uint64_t rows = 0;

        for (int j = 0; j < 4; j++)
            rows |= (uint64_t)tnd_iq2_xxs_grid(at[j]) << 16 * j;
        put32(sink, with_signs(iq2_magnitudes(rows), bytes_of_bits(with_eighth(sevens_apart(word)))), group, group);
    }
    return true;
}

INLINE bool iq2_xs(const uint8_t *block, struct sink *sink)
{
    __m256 d = part_of(f16_at(block), 0.125f);

    if (!in_range(sink, block, 8))
        return false;
    for (int i = 0; i < 8; i++) {
        unsigned scales = block[66 + i];
        uint64_t rows = 0;
        uint32_t sevens = 0;

        for (int j = 0; j < 4; j++) {
            unsigned word = tnd_le16(block + 2 + 8 * i + 2 * j);

            rows |= (uint64_t)tnd_iq2_xs_grid(word & 511) << 16 * j;
            sevens |= word >> 9 << 8 * j;
        }
        put32(sink, with_signs(iq2_magnitudes(rows), bytes_of_bits(with_eighth(sevens))), odd_times(d, scales & 15),
              odd_times(d, scales >> 4));
    }
    return true;
}

INLINE bool iq2_s(const uint8_t *block, struct sink *sink)
{
    __m256 d = part_of(f16_at(block), 0.125f);

    if (!in_range(sink, block, 8))
        return false;
    for (int i = 0; i < 8; i++) {
        unsigned high = block[66 + i], scales = block[74 + i];
        uint64_t rows = 0;

        for (int j = 0; j < 4; j++)
            rows |= (uint64_t)tnd_iq2_s_grid((high >> 2 * j & 3) << 8 | block[2 + 4 * i + j]) << 16 * j;
        put32(sink, with_signs(iq2_magnitudes(rows), bits_at(block + 34 + 4 * i)), odd_times(d, scales & 15),
              odd_times(d, scales >> 4));
    }
    return true;
}

/* Of each of eight rows, in 16 bits, four times three bits to bytes. */
INLINE __m256i bytes_of_triples(const uint64_t rows[2])
{
    __m256i fours = _mm256_cvtepu16_epi32(_mm_set_epi64x((long long)rows[1], (long long)rows[0]));

    fours = _mm256_or_si256(fours, _mm256_slli_epi32(fours, 10));
    fours = _mm256_and_si256(fours, _mm256_set1_epi32(0x003F003F));
    return low_bits(_mm256_or_si256(fours, _mm256_slli_epi32(fours, 5)), 3);
}

INLINE bool iq3_xxs(const uint8_t *block, struct sink *sink)
{
    const __m128i levels = _mm_setr_epi8(4, 12, 20, 28, 36, 44, 52, 62, 0, 0, 0, 0, 0, 0, 0, 0);
    __m256 d = part_of(f16_at(block), 0.25f);

    if (!in_range(sink, block, 9))
        return false;
    for (int i = 0; i < 8; i++) {
        uint32_t word = tnd_le32(block + 66 + 4 * i);
        struct group group = odd_times(d, word >> 28);
        uint64_t rows[2] = {0};

        for (int j = 0; j < 8; j++)
            rows[j / 4] |= (uint64_t)tnd_iq3_xxs_grid(block[2 + 8 * i + j]) << 16 * (j % 4);
        put32(sink, with_signs(look_up(levels, bytes_of_triples(rows)), bytes_of_bits(with_eighth(sevens_apart(word)))),
              group, group);
    }
    return true;
}

INLINE bool iq3_s(const uint8_t *block, struct sink *sink)
{
    const __m128i levels = _mm_setr_epi8(1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0);
    __m256 d = f16_at(block);
    uint32_t scales = tnd_le32(block + 106);

    if (!in_range(sink, block, 9))
        return false;
    for (int i = 0; i < 8; i++) {
        struct group group = odd_times(d, scales >> 4 * i & 15);
        unsigned high = block[66 + i];
        uint64_t rows[2] = {0};

        for (int j = 0; j < 8; j++)
            rows[j / 4] |= (uint64_t)tnd_iq3_s_grid((high >> j & 1) << 8 | block[2 + 8 * i + j]) << 16 * (j % 4);
        put32(sink, with_signs(look_up(levels, bytes_of_triples(rows)), bits_at(block + 74 + 4 * i)), group, group);
    }
    return true;
}

INLINE __m128i iq4_levels(void)
{
    return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

INLINE bool iq4_nl(const uint8_t *block, struct sink *sink)
{
    struct group group = scale_only(f16_at(block));

    if (!in_range(sink, block, 7))
        return false;
    put32(sink, look_up(iq4_levels(), nibbles_at(block + 2)), group, group);
    return true;
}

INLINE bool iq4_xs(const uint8_t *block, struct sink *sink)
{
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(tnd_le16(block + 2)), _mm256_slli_epi32(index, 1));
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)tnd_le32(block + 4)), _mm256_slli_epi32(index, 2));
    _Alignas(VECTOR_BYTES) float scales[8];

    if (!in_range(sink, block, 12))
        return false;
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    scale8(scales, f16_at(block), _mm256_sub_epi32(_mm256_or_si256(high, low), _mm256_set1_epi32(32)));
    for (int i = 0; i < 8; i++) {
        struct group group = scale_at(&scales[i]);

        put32(sink, look_up(iq4_levels(), nibbles_at(block + 8 + 16 * i)), group, group);
    }
    return true;
}

#define FORMATS(X)                                                                                                     \
    X(IQ1_S, iq1_s)                                                                                                    \
    X(IQ1_M, iq1_m)                                                                                                    \
    X(IQ2_XXS, iq2_xxs)                                                                                                \
    X(IQ2_XS, iq2_xs)                                                                                                  \
    X(IQ2_S, iq2_s)                                                                                                    \
    X(IQ3_XXS, iq3_xxs)                                                                                                \
    X(IQ3_S, iq3_s)                                                                                                    \
    X(IQ4_NL, iq4_nl)                                                                                                  \
    X(IQ4_XS, iq4_xs)

FORMATS(DEQUANT_FUNCTIONS)

const struct tnd_kernel tnd_kernels_dequant_avx2_iq[] = {FORMATS(DEQUANT_ENTRIES){0}};

#endif
