/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_AVX2_H
#define TND_KERNELS_AVX2_H

/* What kernels with AVX2 and F16C end with: sixteen F32 values rounded to the type that is asked for, and stored. */

#include <immintrin.h>
#include <stdbool.h>

#include "tundish.h"

/* Not a flag of the file, lest inline functions of headers become code that a linker might hand to everybody. */
#define TARGET __attribute__((target("avx2,f16c")))
/* Types are constants wherever these are called; inlining leaves one plain loop for each pair. */
#define INLINE TARGET static inline __attribute__((always_inline))

#define VECTOR_BYTES 32

struct floats {
    __m256 low, high;
};

/* A NaN may carry over, as far as zero. */
INLINE __m256i upper_half_rounded(__m256 value)
{
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
}

/* Packing works within 128 bits: this brings the four parts into order. */
INLINE __m256i in_order(__m256i packed)
{
    return _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0));
}

/* To F16 or BF16. */
INLINE __m256i round_to(enum tnd_dtype to, struct floats values)
{
    if (to == TND_BF16)
        return in_order(_mm256_packus_epi32(upper_half_rounded(values.low), upper_half_rounded(values.high)));
    return _mm256_set_m128i(_mm256_cvtps_ph(values.high, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(values.low, _MM_FROUND_TO_NEAREST_INT));
}

/* Streamed: past the cache, on VECTOR_BYTES, and followed by a fence in the end. */
INLINE void store(uint8_t *to, __m256i vector, bool stream)
{
    if (stream)
        _mm256_stream_si256((__m256i *)to, vector);
    else
        _mm256_storeu_si256((__m256i *)to, vector);
}

#endif
