/* SPDX-License-Identifier: Apache-2.0 */

/* Weights and activations into the spans of dot.h. A format is a function that unpacks 256 quants to bytes, in order,
 * and finds their scales; taking both to their lanes is the same for all. */

#include <immintrin.h>
#include <string.h>

#include "kernels/dot.h"

#define TARGET __attribute__((target("avx2,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

#define GROUPS 8 /* of 32 columns, a register of bytes each, in a span */

/* ---- Lanes ------------------------------------------------------------------------------------------------ */

/* Four groups, every other one of a span, to eight lanes. */
INLINE void store_half(__m256i first, __m256i second, __m256i third, __m256i fourth, void *quants)
{
    uint8_t(*to)[DOT_LANES][4] = quants;
    __m256i steps01 = _mm256_unpacklo_epi32(first, second), steps23 = _mm256_unpackhi_epi32(first, second);
    __m256i more01 = _mm256_unpacklo_epi32(third, fourth), more23 = _mm256_unpackhi_epi32(third, fourth);

    _mm256_store_si256((__m256i *)to[0], _mm256_unpacklo_epi64(steps01, more01));
    _mm256_store_si256((__m256i *)to[1], _mm256_unpackhi_epi64(steps01, more01));
    _mm256_store_si256((__m256i *)to[2], _mm256_unpacklo_epi64(steps23, more23));
    _mm256_store_si256((__m256i *)to[3], _mm256_unpackhi_epi64(steps23, more23));
}

/* quants: [DOT_STEPS][DOT_LANES][4] */
INLINE void store_quants(const __m256i groups[GROUPS], void *quants)
{
    store_half(groups[0], groups[2], groups[4], groups[6], quants);
    store_half(groups[1], groups[3], groups[5], groups[7], (uint8_t *)quants + sizeof(int32_t[DOT_LANES / 2]));
}

/* One number for each group: those of the even ones, then those of the odd ones. */
INLINE void store_of_groups(__m256 numbers, float lanes[DOT_LANES])
{
    _mm256_store_ps(lanes, _mm256_permute2f128_ps(numbers, numbers, 0x00));
    _mm256_store_ps(lanes + DOT_LANES / 2, _mm256_permute2f128_ps(numbers, numbers, 0x11));
}

/* A number times sixteen factors, one for every sixteen columns, so for each lane. */
INLINE void store_of_sixteens(__m256 number, __m128i factors, float lanes[DOT_LANES])
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m128i low = _mm_shuffle_epi8(factors, order), high = _mm_srli_si128(low, DOT_LANES / 2);

    _mm256_store_ps(lanes, _mm256_mul_ps(number, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low))));
    _mm256_store_ps(lanes + DOT_LANES / 2, _mm256_mul_ps(number, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high))));
}

/* Eight bytes, one for each group, in the order that store_of_groups() wants. */
INLINE __m256 bytes_of_groups(uint64_t bytes)
{
    const __m128i evens_first = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    __m128i ordered = _mm_shuffle_epi8(_mm_cvtsi64_si128((long long)bytes), evens_first);

    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(ordered));
}

/* ---- Bytes, bits, halves ----------------------------------------------------------------------------------- */

INLINE uint16_t u16_at(const uint8_t *at)
{
    uint16_t bits;

    memcpy(&bits, at, sizeof(bits));
    return bits;
}

INLINE uint32_t u32_at(const uint8_t *at)
{
    uint32_t bits;

    memcpy(&bits, at, sizeof(bits));
    return bits;
}

INLINE __m256i bytes_of(int value)
{
    return _mm256_set1_epi8((char)value);
}

INLINE __m256i load32(const uint8_t *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE __m256i low_bits(__m256i bytes, int bits)
{
    return _mm256_and_si256(bytes, bytes_of((1 << bits) - 1));
}

INLINE __m256i low_nibbles(__m256i bytes)
{
    return low_bits(bytes, 4);
}

INLINE __m256i high_nibbles(__m256i bytes)
{
    return low_bits(_mm256_srli_epi16(bytes, 4), 4);
}

/* The low halves of sixteen bytes, then the high halves. */
INLINE __m256i nibbles_at(const uint8_t *at)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)at);

    return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes));
}

/* A byte of sixteen for each of 32 bits that is set. */
INLINE __m256i sixteens_at(const uint8_t *at)
{
    const __m256i byte_of_bit = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)u32_at(at)), byte_of_bit);

    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), bytes_of(16));
}

/* The halves at the same place in eight blocks, in the order that store_of_groups() wants. */
INLINE __m256 halves_of(const uint8_t *at, size_t block_bytes)
{
    uint16_t halves[GROUPS];

    for (int i = 0; i < GROUPS / 2; i++) {
        halves[i] = u16_at(at + (size_t)(2 * i) * block_bytes);
        halves[i + GROUPS / 2] = u16_at(at + (size_t)(2 * i + 1) * block_bytes);
    }
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

INLINE __m256 minus(__m256 number)
{
    return _mm256_xor_ps(number, _mm256_set1_ps(-0.0f));
}

INLINE __m256 half_at(const uint8_t *at)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)u16_at(at)));
}

/* ---- Formats, as the library's quant.h tells them ---------------------------------------------------------- */

/* What a span of blocks comes to. quants: less the bias, each no less than zero. */
typedef void (*format_fn)(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span);

INLINE void q4_0(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS; i++)
        quants[i] = nibbles_at(blocks + 18 * i + 2);
    store_of_groups(halves_of(blocks, 18), span->scales);
}

INLINE void q4_1(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS; i++)
        quants[i] = nibbles_at(blocks + 20 * i + 4);
    store_of_groups(halves_of(blocks, 20), span->scales);
    store_of_groups(halves_of(blocks + 2, 20), span->offsets);
}

INLINE void q5_0(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS; i++)
        quants[i] = _mm256_or_si256(nibbles_at(blocks + 22 * i + 6), sixteens_at(blocks + 22 * i + 2));
    store_of_groups(halves_of(blocks, 22), span->scales);
}

INLINE void q5_1(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS; i++)
        quants[i] = _mm256_or_si256(nibbles_at(blocks + 24 * i + 8), sixteens_at(blocks + 24 * i + 4));
    store_of_groups(halves_of(blocks, 24), span->scales);
    store_of_groups(halves_of(blocks + 2, 24), span->offsets);
}

INLINE void q8_0(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS; i++)
        quants[i] = _mm256_xor_si256(load32(blocks + 34 * i + 2), bytes_of(DOT_BIAS_WIDE));
    store_of_groups(halves_of(blocks, 34), span->scales);
}

/* d and dmin, eight scales and eight minima in twelve bytes. */
INLINE void store_k_scales(const uint8_t *block, struct dot_weights *span)
{
    uint32_t scales = u32_at(block + 4), minima = u32_at(block + 8), low = u32_at(block + 12);
    uint32_t last_scales = (low & 0x0F0F0F0F) | (scales >> 2 & 0x30303030);
    uint32_t last_minima = (low >> 4 & 0x0F0F0F0F) | (minima >> 2 & 0x30303030);
    __m256 d = half_at(block), minus_dmin = minus(half_at(block + 2));

    store_of_groups(_mm256_mul_ps(d, bytes_of_groups((uint64_t)last_scales << 32 | (scales & 0x3F3F3F3F))),
                    span->scales);
    store_of_groups(_mm256_mul_ps(minus_dmin, bytes_of_groups((uint64_t)last_minima << 32 | (minima & 0x3F3F3F3F))),
                    span->offsets);
}

INLINE void q4_k(const uint8_t *block, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS / 2; i++) {
        __m256i bytes = load32(block + 16 + 32 * i);

        quants[2 * i] = low_nibbles(bytes);
        quants[2 * i + 1] = high_nibbles(bytes);
    }
    store_k_scales(block, span);
}

INLINE void q5_k(const uint8_t *block, __m256i quants[GROUPS], struct dot_weights *span)
{
    __m256i high = load32(block + 16);

    for (int i = 0; i < GROUPS / 2; i++) {
        __m256i bytes = load32(block + 48 + 32 * i);

        quants[2 * i] = _mm256_or_si256(low_nibbles(bytes), _mm256_slli_epi16(low_bits(high, 1), 4));
        high = _mm256_srli_epi16(high, 1);
        quants[2 * i + 1] = _mm256_or_si256(high_nibbles(bytes), _mm256_slli_epi16(low_bits(high, 1), 4));
        high = _mm256_srli_epi16(high, 1);
    }
    store_k_scales(block, span);
}

INLINE __m256i q6_k_group(__m256i nibbles, __m256i high)
{
    return _mm256_or_si256(nibbles, _mm256_slli_epi16(low_bits(high, 2), 4));
}

INLINE void q6_k(const uint8_t *block, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < 2; i++) {
        __m256i first = load32(block + 64 * i), second = load32(block + 64 * i + 32);
        __m256i high = load32(block + 128 + 32 * i);

        quants[4 * i] = q6_k_group(low_nibbles(first), high);
        quants[4 * i + 1] = q6_k_group(low_nibbles(second), _mm256_srli_epi16(high, 2));
        quants[4 * i + 2] = q6_k_group(high_nibbles(first), _mm256_srli_epi16(high, 4));
        quants[4 * i + 3] = q6_k_group(high_nibbles(second), _mm256_srli_epi16(high, 6));
    }
    store_of_sixteens(half_at(block + 208), _mm_loadu_si128((const __m128i *)(block + 192)), span->scales);
}

INLINE void q2_k(const uint8_t *block, __m256i quants[GROUPS], struct dot_weights *span)
{
    __m128i packed = _mm_loadu_si128((const __m128i *)block), nibble = _mm_set1_epi8(15);

    for (int i = 0; i < GROUPS; i++)
        quants[i] = low_bits(_mm256_srli_epi16(load32(block + 16 + 32 * (i / 4)), i % 4 * 2), 2);
    store_of_sixteens(half_at(block + 80), _mm_and_si128(packed, nibble), span->scales);
    store_of_sixteens(minus(half_at(block + 82)), _mm_and_si128(_mm_srli_epi16(packed, 4), nibble), span->offsets);
}

/* Sixteen times six bits: eight bytes have the low four bits of two each, four bytes the high two bits of four each. */
INLINE __m128i q3_k_factors(const uint8_t *at)
{
    uint64_t low = (uint64_t)u32_at(at + 4) << 32 | u32_at(at);
    __m128i nibbles = _mm_and_si128(_mm_set_epi64x((long long)(low >> 4), (long long)low), _mm_set1_epi8(15));
    __m128i high = _mm_srlv_epi32(_mm_set1_epi32((int)u32_at(at + 8)), _mm_set_epi32(6, 4, 2, 0));

    high = _mm_slli_epi16(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    return _mm_sub_epi8(_mm_or_si128(nibbles, high), _mm_set1_epi8(32));
}

INLINE void q3_k(const uint8_t *block, __m256i quants[GROUPS], struct dot_weights *span)
{
    __m256i high = load32(block);

    for (int i = 0; i < GROUPS; i++) {
        __m256i low = low_bits(_mm256_srli_epi16(load32(block + 32 + 32 * (i / 4)), i % 4 * 2), 2);

        quants[i] = _mm256_or_si256(low, _mm256_slli_epi16(low_bits(high, 1), 2));
        high = _mm256_srli_epi16(high, 1);
    }
    store_of_sixteens(half_at(block + 108), q3_k_factors(block + 96), span->scales);
}

/* Sixteen codes' levels, which with the bias are bytes. */
INLINE __m256i levels(__m128i table, int bias, __m256i codes)
{
    __m128i biased = _mm_add_epi8(table, _mm_set1_epi8((char)bias));

    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(biased), codes);
}

INLINE __m256i iq4_levels(__m256i codes)
{
    return levels(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
                  DOT_BIAS_WIDE, codes);
}

INLINE void iq4_nl(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    for (int i = 0; i < GROUPS; i++)
        quants[i] = iq4_levels(nibbles_at(blocks + 18 * i + 2));
    store_of_groups(halves_of(blocks, 18), span->scales);
}

/* Scales of six bits: two high ones each in two bytes, four low ones in four. */
INLINE void iq4_xs(const uint8_t *block, __m256i quants[GROUPS], struct dot_weights *span)
{
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(u16_at(block + 2)),
                                     _mm256_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14));
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)u32_at(block + 4)),
                                    _mm256_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28));
    __m256i factors = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4),
                                      _mm256_and_si256(low, _mm256_set1_epi32(15)));

    for (int i = 0; i < GROUPS; i++)
        quants[i] = iq4_levels(nibbles_at(block + 8 + 16 * i));
    factors = _mm256_sub_epi32(factors, _mm256_set1_epi32(32));
    store_of_groups(_mm256_mul_ps(half_at(block), _mm256_cvtepi32_ps(factors)), span->scales);
}

/* Scales are powers of two, of which the two smallest are subnormal. */
INLINE void mxfp4(const uint8_t *blocks, __m256i quants[GROUPS], struct dot_weights *span)
{
    __m256i exponents = _mm256_setr_epi32(blocks[0], blocks[2 * 17], blocks[4 * 17], blocks[6 * 17], blocks[17],
                                          blocks[3 * 17], blocks[5 * 17], blocks[7 * 17]);
    __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), exponents);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)), 23);
    __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);

    for (int i = 0; i < GROUPS; i++)
        quants[i] = levels(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), 12,
                           nibbles_at(blocks + 17 * i + 1));
    store_of_groups(_mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, is_subnormal)), span->scales);
}

#define UNPACK(type, name, columns, bytes, group, bias, has_offsets)                                                   \
    TARGET static void unpack_##name(const uint8_t *blocks, uint32_t span_count, struct dot_weights *spans)            \
    {                                                                                                                  \
        for (uint32_t i = 0; i < span_count; i++) {                                                                    \
            __m256i quants[GROUPS];                                                                                    \
                                                                                                                       \
            name(blocks + (size_t)i * (DOT_SPAN / columns * bytes), quants, &spans[i]);                                \
            store_quants(quants, spans[i].quants);                                                                     \
        }                                                                                                              \
    }
DOT_FORMATS(UNPACK)

const dot_unpack_fn dot_unpack_avx2[DOT_FORMAT_COUNT] = {
#define ENTRY(type, name, columns, bytes, group, bias, has_offsets) unpack_##name,
    DOT_FORMATS(ENTRY)
#undef ENTRY
};

/* ---- Activations ------------------------------------------------------------------------------------------- */

/* Of 32 values. As integers their magnitudes are ordered alike, and what is no number stands above all. */
INLINE float largest_magnitude(const __m256 x[4])
{
    const __m256i magnitude = _mm256_set1_epi32(INT32_MAX);
    __m256i largest = _mm256_setzero_si256();
    __m128i few;

    for (int i = 0; i < 4; i++)
        largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    few = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    few = _mm_max_epi32(few, _mm_shuffle_epi32(few, _MM_SHUFFLE(1, 0, 3, 2)));
    few = _mm_max_epi32(few, _mm_shuffle_epi32(few, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtss_f32(_mm_castsi128_ps(few));
}

/* 32 values to bytes, in order. */
INLINE __m256i quantise_group(const float *x, float *ret_scale)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 values[4];
    __m256i quants[4];
    float largest, inverse = 0;

    for (int i = 0; i < 4; i++)
        values[i] = _mm256_loadu_ps(x + 8 * i);
    largest = largest_magnitude(values);
    *ret_scale = 0;
    if (!(largest <= 0x1.FFFFFEp127f)) {
        *ret_scale = __builtin_nanf("");
        return _mm256_setzero_si256();
    }
    if (largest < DOT_VALUES_LEAST)
        return _mm256_setzero_si256();
    *ret_scale = largest / 127;
    inverse = 127 / largest;
    for (int i = 0; i < 4; i++)
        quants[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], _mm256_set1_ps(inverse)));
    quants[0] = _mm256_packs_epi16(_mm256_packs_epi32(quants[0], quants[1]), _mm256_packs_epi32(quants[2], quants[3]));
    return _mm256_permutevar8x32_epi32(quants[0], in_order);
}

/* Of half the lanes; quants are at their lanes. */
INLINE void store_quant_sums(struct dot_values *span, uint32_t half, int32_t bias)
{
    __m256i sums = _mm256_setzero_si256();

    for (int step = 0; step < DOT_STEPS; step++) {
        __m256i quants = _mm256_load_si256((const __m256i *)span->quants[step][half]);
        __m256i pairs = _mm256_maddubs_epi16(bytes_of(1), quants);

        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    _mm256_store_si256((__m256i *)(span->start + half), _mm256_mullo_epi32(sums, _mm256_set1_epi32(-bias)));
    _mm256_store_ps(span->sums + half, _mm256_mul_ps(_mm256_load_ps(span->scales + half), _mm256_cvtepi32_ps(sums)));
}

TARGET void dot_quantise_avx2(const float *x, uint32_t span_count, int32_t bias, struct dot_values *ret_spans)
{
    for (uint32_t i = 0; i < span_count; i++) {
        struct dot_values *span = &ret_spans[i];
        __m256i groups[GROUPS];
        float scales[GROUPS];

        for (uint32_t group = 0; group < GROUPS; group++, x += DOT_VALUES_GROUP)
            groups[group] = quantise_group(x, &scales[group / 2 + group % 2 * (GROUPS / 2)]);
        store_quants(groups, span->quants);
        store_of_groups(_mm256_loadu_ps(scales), span->scales);
        store_quant_sums(span, 0, bias);
        store_quant_sums(span, DOT_LANES / 2, bias);
    }
}
