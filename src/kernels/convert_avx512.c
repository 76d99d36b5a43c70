/* SPDX-License-Identifier: Apache-2.0 */

/* One float format into another with AVX-512, where that is faster than AVX2: into types of 16 bits. Those into F32 are
 * as fast as memory takes them already. */

#include "kernels/lists.h"

#if defined(__x86_64__)
/* Not a flag of the file, lest inline functions of headers become code that a linker might hand to everybody. */
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define INLINE TARGET static inline __attribute__((always_inline))
#include "kernels/convert_x86.h"

/* By way of F16, whose exponent counts 8 more: the bits in its place mean the value / 2^8. */
INLINE __m512 floats_of_e4m3(__m128i bytes)
{
    __m256i words = _mm256_cvtepi8_epi16(bytes);
    __m256i rest = _mm256_and_si256(words, _mm256_set1_epi16(0x7F));
    __m256i sign = _mm256_and_si256(words, _mm256_set1_epi16((short)0x8000));
    __m256i halves = _mm256_or_si256(sign, _mm256_slli_epi16(rest, 7));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(rest, _mm256_set1_epi16(0x7F));

    halves = _mm256_mask_mov_epi16(halves, nan, _mm256_set1_epi16(TND_F16_NAN));
    return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256));
}

INLINE __m512 floats_of_bf16(__m256i halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* Up to sixteen elements; those outside the mask are not touched, and zero. */
INLINE __m512 load(enum tnd_dtype from, const uint8_t *at, __mmask16 mask)
{
    switch (from) {
    case TND_F16:
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at));
    case TND_BF16:
        return floats_of_bf16(_mm256_maskz_loadu_epi16(mask, at));
    case TND_F8_E4M3:
        return floats_of_e4m3(_mm_maskz_loadu_epi8(mask, at));
    case TND_F8_E5M2:
        return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(mask, at)), 8));
    default:
        return _mm512_maskz_loadu_ps(mask, at);
    }
}

/* BF16 in the upper halves, whatever in the lower ones. A NaN may carry over, as far as zero. */
INLINE __m512i rounded_in_place(__m512 value)
{
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));

    return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
}

INLINE __m512i upper_halves(__m512i low, __m512i high)
{
    static const uint16_t odd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                     33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};

    return _mm512_permutex2var_epi16(low, _mm512_loadu_si512(odd), high);
}

/* With a mask of all: gcc's plain intrinsic is a macro that -Wconversion sees through where nothing is optimised. */
INLINE __m256i f16_rounded(__m512 value)
{
    return _mm512_maskz_cvtps_ph(0xFFFF, value, _MM_FROUND_TO_NEAREST_INT);
}

INLINE __m512i round_to(enum tnd_dtype to, __m512 low, __m512 high)
{
    if (to == TND_BF16)
        return upper_halves(rounded_in_place(low), rounded_in_place(high));
    return _mm512_maskz_inserti64x4(0xFF, _mm512_castsi256_si512(f16_rounded(low)), f16_rounded(high), 1);
}

/* Whether a result is zero, infinite or NaN. Less one, zero is the largest of all. */
INLINE bool any_rare(enum tnd_dtype to, __m512i halves)
{
    __m512i least = _mm512_set1_epi16((short)(infinity_of(to) - 1));
    __m512i rest = _mm512_and_si512(halves, _mm512_set1_epi16(0x7FFF));

    return _mm512_cmpge_epu16_mask(_mm512_sub_epi16(rest, _mm512_set1_epi16(1)), least) != 0;
}

INLINE __m512i magnitude(__m512 value)
{
    return _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(0x7FFFFFFF));
}

INLINE __mmask32 both(__mmask16 low, __mmask16 high)
{
    return (__mmask32)high << 16 | low;
}

INLINE uint32_t ones(__mmask32 mask)
{
    return (uint32_t)__builtin_popcount(mask);
}

/* The results with their NaNs made canonical; counts the others. low, high: the values' magnitudes. */
INLINE __m512i mended(enum tnd_dtype to, __m512i low, __m512i high, __m512i halves, struct tnd_range_counts *counts)
{
    __m512i infinity32 = _mm512_set1_epi32(TND_F32_INF), zero = _mm512_setzero_si512();
    __m512i infinity = _mm512_set1_epi16((short)infinity_of(to)), nan = _mm512_set1_epi16((short)nan_of(to));
    __mmask32 was_nan = both(_mm512_cmpgt_epi32_mask(low, infinity32), _mm512_cmpgt_epi32_mask(high, infinity32));
    __mmask32 was_finite = both(_mm512_cmplt_epi32_mask(low, infinity32), _mm512_cmplt_epi32_mask(high, infinity32));
    __mmask32 was_zero = both(_mm512_cmpeq_epi32_mask(low, zero), _mm512_cmpeq_epi32_mask(high, zero));
    __m512i rest;

    halves = _mm512_mask_mov_epi16(halves, was_nan, nan);
    rest = _mm512_and_si512(halves, _mm512_set1_epi16(0x7FFF));
    counts->overflowed += ones(_mm512_cmpeq_epi16_mask(rest, infinity) & was_finite);
    counts->underflowed += ones(_mm512_cmpeq_epi16_mask(rest, zero) & ~was_zero);
    return halves;
}

/* Up to a line; zeros outside the mask count as nothing. */
INLINE __m512i converted(enum tnd_dtype from, enum tnd_dtype to, const uint8_t *source, __mmask32 mask,
                         struct tnd_range_counts *counts)
{
    __m512 low = load(from, source, (__mmask16)(mask & 0xFFFF));
    __m512 high = load(from, source + 16 * element_bytes(from), (__mmask16)(mask >> 16));
    __m512i halves = round_to(to, low, high);

    if (__builtin_expect(any_rare(to, halves), 0))
        halves = mended(to, magnitude(low), magnitude(high), halves, counts);
    return halves;
}

INLINE void step(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source, bool stream,
                 struct tnd_range_counts *counts)
{
    __m512i halves = converted(from, to, source, UINT32_MAX, counts);

    if (stream)
        _mm512_stream_si512((__m512i *)destination, halves);
    else
        _mm512_storeu_si512(destination, halves);
}

INLINE void part(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source, size_t elements,
                 struct tnd_range_counts *counts)
{
    __mmask32 mask = (1U << elements) - 1;

    if (elements > 0)
        _mm512_mask_storeu_epi16(destination, mask, converted(from, to, source, mask, counts));
}

CONVERT_FUNCTION(F32, F16)
CONVERT_FUNCTION(F32, BF16)
CONVERT_FUNCTION(F16, BF16)
CONVERT_FUNCTION(BF16, F16)
CONVERT_FUNCTION(F8_E4M3, F16)
CONVERT_FUNCTION(F8_E4M3, BF16)
CONVERT_FUNCTION(F8_E5M2, F16)
CONVERT_FUNCTION(F8_E5M2, BF16)

const struct tnd_kernel tnd_kernels_convert_avx512[] = {
    CONVERT_ENTRY(TND_ISA_AVX512, F32, F16),
    CONVERT_ENTRY(TND_ISA_AVX512, F32, BF16),
    CONVERT_ENTRY(TND_ISA_AVX512, F16, BF16),
    CONVERT_ENTRY(TND_ISA_AVX512, BF16, F16),
    CONVERT_ENTRY(TND_ISA_AVX512, F8_E4M3, F16),
    CONVERT_ENTRY(TND_ISA_AVX512, F8_E4M3, BF16),
    CONVERT_ENTRY(TND_ISA_AVX512, F8_E5M2, F16),
    CONVERT_ENTRY(TND_ISA_AVX512, F8_E5M2, BF16),
    {0},
};

#endif
