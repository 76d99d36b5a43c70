/* SPDX-License-Identifier: Apache-2.0 */

/* One float format into another with AVX2 and F16C: load sixteen elements as F32, round, store. */

#include "kernels/lists.h"

#if defined(__x86_64__)
#include <string.h>

#include "kernels/avx2.h"
#include "kernels/convert_x86.h"

INLINE struct floats floats_of_halves(__m256i halves)
{
    return (struct floats){_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                           _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}

INLINE struct floats load_f32(const uint8_t *from)
{
    return (struct floats){_mm256_loadu_ps((const float *)(const void *)from),
                           _mm256_loadu_ps((const float *)(const void *)(from + VECTOR_BYTES))};
}

INLINE struct floats load_bf16(const uint8_t *from)
{
    __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from + 16)));

    return (struct floats){_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)),
                           _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
}

/* By way of F16, whose exponent counts 8 more: the bits in its place mean the value / 2^8. */
INLINE struct floats load_e4m3(const uint8_t *from)
{
    __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
    __m256i rest = _mm256_and_si256(words, _mm256_set1_epi16(0x7F));
    __m256i nan = _mm256_cmpeq_epi16(rest, _mm256_set1_epi16(0x7F));
    __m256i sign = _mm256_and_si256(words, _mm256_set1_epi16((short)0x8000));
    __m256i halves = _mm256_or_si256(sign, _mm256_slli_epi16(rest, 7));
    struct floats values;

    values = floats_of_halves(_mm256_or_si256(halves, _mm256_and_si256(nan, _mm256_set1_epi16(TND_F16_INF))));
    values.low = _mm256_mul_ps(values.low, _mm256_set1_ps(256));
    values.high = _mm256_mul_ps(values.high, _mm256_set1_ps(256));
    return values;
}

INLINE struct floats load(enum tnd_dtype from, const uint8_t *at)
{
    switch (from) {
    case TND_F16:
        return floats_of_halves(_mm256_loadu_si256((const __m256i *)at));
    case TND_BF16:
        return load_bf16(at);
    case TND_F8_E4M3:
        return load_e4m3(at);
    case TND_F8_E5M2:
        return floats_of_halves(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)at)), 8));
    default:
        return load_f32(at);
    }
}

/* Where both are the numbers compared with: one mask of 16 bits an element, of two of 32 bits. */
INLINE __m256i both(__m256i low, __m256i high)
{
    return in_order(_mm256_packs_epi32(low, high));
}

INLINE uint32_t ones(__m256i mask)
{
    return (uint32_t)__builtin_popcount((uint32_t)_mm256_movemask_epi8(mask)) / 2;
}

/* Whether a result is zero, infinite or NaN. Less one, zero is the largest of all. */
INLINE bool any_rare(enum tnd_dtype to, __m256i low, __m256i high)
{
    __m256i least = _mm256_set1_epi16((short)(infinity_of(to) - 1));
    __m256i unsign = _mm256_set1_epi16(0x7FFF), one = _mm256_set1_epi16(1);
    __m256i rest = _mm256_max_epu16(_mm256_sub_epi16(_mm256_and_si256(low, unsign), one),
                                    _mm256_sub_epi16(_mm256_and_si256(high, unsign), one));

    return _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(rest, least), rest)) != 0;
}

INLINE __m256i magnitude(__m256 value)
{
    return _mm256_and_si256(_mm256_castps_si256(value), _mm256_set1_epi32(0x7FFFFFFF));
}

/* The results with their NaNs made canonical; counts the others. */
INLINE __m256i mended(enum tnd_dtype to, struct floats values, __m256i halves, struct tnd_range_counts *counts)
{
    __m256i infinity32 = _mm256_set1_epi32(TND_F32_INF), zero = _mm256_setzero_si256();
    __m256i infinity = _mm256_set1_epi16((short)infinity_of(to)), nan = _mm256_set1_epi16((short)nan_of(to));
    __m256i low = magnitude(values.low), high = magnitude(values.high);
    __m256i was_nan = both(_mm256_cmpgt_epi32(low, infinity32), _mm256_cmpgt_epi32(high, infinity32));
    __m256i was_finite = both(_mm256_cmpgt_epi32(infinity32, low), _mm256_cmpgt_epi32(infinity32, high));
    __m256i was_zero = both(_mm256_cmpeq_epi32(low, zero), _mm256_cmpeq_epi32(high, zero));
    __m256i rest;

    halves = _mm256_blendv_epi8(halves, nan, was_nan);
    rest = _mm256_and_si256(halves, _mm256_set1_epi16(0x7FFF));
    counts->overflowed += ones(_mm256_and_si256(_mm256_cmpeq_epi16(rest, infinity), was_finite));
    counts->underflowed += ones(_mm256_andnot_si256(was_zero, _mm256_cmpeq_epi16(rest, zero)));
    return halves;
}

INLINE __m256i canonical(__m256 value)
{
    __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(TND_F32_NAN));

    return _mm256_castps_si256(_mm256_blendv_ps(value, nan, _mm256_cmp_ps(value, value, _CMP_UNORD_Q)));
}

/* Sixteen elements. */
INLINE void step_to_f32(enum tnd_dtype from, uint8_t *destination, const uint8_t *source, bool stream)
{
    struct floats values = load(from, source);

    store(destination, canonical(values.low), stream);
    store(destination + VECTOR_BYTES, canonical(values.high), stream);
}

/* Thirty-two elements. */
INLINE void step_to_halves(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source,
                           bool stream, struct tnd_range_counts *counts)
{
    struct floats low = load(from, source), high = load(from, source + 16 * element_bytes(from));
    __m256i low_halves = round_to(to, low), high_halves = round_to(to, high);

    if (__builtin_expect(any_rare(to, low_halves, high_halves), 0)) {
        low_halves = mended(to, low, low_halves, counts);
        high_halves = mended(to, high, high_halves, counts);
    }
    store(destination, low_halves, stream);
    store(destination + VECTOR_BYTES, high_halves, stream);
}

INLINE void step(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source, bool stream,
                 struct tnd_range_counts *counts)
{
    if (to == TND_F32)
        step_to_f32(from, destination, source, stream);
    else
        step_to_halves(from, to, destination, source, stream, counts);
}

/* By way of memory that is long enough; zeros stay zeros and count as nothing. */
INLINE void part(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source, size_t elements,
                 struct tnd_range_counts *counts)
{
    uint8_t in[LINE_BYTES / sizeof(uint16_t) * sizeof(float)] = {0}, out[LINE_BYTES];

    if (elements == 0)
        return;
    memcpy(in, source, elements * element_bytes(from));
    step(from, to, out, in, false, counts);
    memcpy(destination, out, elements * element_bytes(to));
}

CONVERT_FUNCTION(F32, F16)
CONVERT_FUNCTION(F32, BF16)
CONVERT_FUNCTION(F16, F32)
CONVERT_FUNCTION(F16, BF16)
CONVERT_FUNCTION(BF16, F32)
CONVERT_FUNCTION(BF16, F16)
CONVERT_FUNCTION(F8_E4M3, F32)
CONVERT_FUNCTION(F8_E4M3, F16)
CONVERT_FUNCTION(F8_E4M3, BF16)
CONVERT_FUNCTION(F8_E5M2, F32)
CONVERT_FUNCTION(F8_E5M2, F16)
CONVERT_FUNCTION(F8_E5M2, BF16)

const struct tnd_kernel tnd_kernels_convert_avx2[] = {
    CONVERT_ENTRY(TND_ISA_AVX2, F32, F16),
    CONVERT_ENTRY(TND_ISA_AVX2, F32, BF16),
    CONVERT_ENTRY(TND_ISA_AVX2, F16, F32),
    CONVERT_ENTRY(TND_ISA_AVX2, F16, BF16),
    CONVERT_ENTRY(TND_ISA_AVX2, BF16, F32),
    CONVERT_ENTRY(TND_ISA_AVX2, BF16, F16),
    CONVERT_ENTRY(TND_ISA_AVX2, F8_E4M3, F32),
    CONVERT_ENTRY(TND_ISA_AVX2, F8_E4M3, F16),
    CONVERT_ENTRY(TND_ISA_AVX2, F8_E4M3, BF16),
    CONVERT_ENTRY(TND_ISA_AVX2, F8_E5M2, F32),
    CONVERT_ENTRY(TND_ISA_AVX2, F8_E5M2, F16),
    CONVERT_ENTRY(TND_ISA_AVX2, F8_E5M2, BF16),
    {0},
};

#endif
