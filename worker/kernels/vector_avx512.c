/* SPDX-License-Identifier: Apache-2.0 */
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")))
#define INLINE TARGET static inline __attribute__((always_inline))

#include <immintrin.h>

#include "kernels/vector_loops.h"

#define WIDTH 16
#define STRIP 64

#define ALL 0xFFFF

/* What is left of a vector, at most WIDTH. */
INLINE __mmask16 first(uint32_t count)
{
    return (__mmask16)_bzhi_u32(ALL, count < WIDTH ? count : WIDTH);
}

INLINE __m512 halves_at(const uint16_t *halves, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves));
}

INLINE __m512 floats_at(const float *floats, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, floats);
}

INLINE float sums_added(__m512 low, __m512 high)
{
    __m512 sixteen = _mm512_add_ps(low, high);
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps(sixteen, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

TARGET static float dot(const float *x, const float *y, uint32_t n)
{
    __m512 low = _mm512_setzero_ps(), high = low;
    uint32_t i = 0;

    for (; n - i >= LANES; i += LANES) {
        low = _mm512_fmadd_ps(floats_at(x + i, ALL), floats_at(y + i, ALL), low);
        high = _mm512_fmadd_ps(floats_at(x + i + WIDTH, ALL), floats_at(y + i + WIDTH, ALL), high);
    }
    if (i < n) {
        __mmask32 left = _bzhi_u32(UINT32_MAX, n - i);
        __mmask16 mask = (__mmask16)left, rest = (__mmask16)(left >> WIDTH);

        low = _mm512_fmadd_ps(floats_at(x + i, mask), floats_at(y + i, mask), low);
        high = _mm512_fmadd_ps(floats_at(x + i + WIDTH, rest), floats_at(y + i + WIDTH, rest), high);
    }
    return sums_added(low, high);
}

INLINE float dot_f16(const float *x, const uint16_t *y, uint32_t n)
{
    __m512 low = _mm512_setzero_ps(), high = low;
    uint32_t i = 0;

    for (; n - i >= LANES; i += LANES) {
        low = _mm512_fmadd_ps(floats_at(x + i, ALL), halves_at(y + i, ALL), low);
        high = _mm512_fmadd_ps(floats_at(x + i + WIDTH, ALL), halves_at(y + i + WIDTH, ALL), high);
    }
    if (i < n) {
        __mmask32 left = _bzhi_u32(UINT32_MAX, n - i);
        __mmask16 mask = (__mmask16)left, rest = (__mmask16)(left >> WIDTH);

        low = _mm512_fmadd_ps(floats_at(x + i, mask), halves_at(y + i, mask), low);
        high = _mm512_fmadd_ps(floats_at(x + i + WIDTH, rest), halves_at(y + i + WIDTH, rest), high);
    }
    return sums_added(low, high);
}

TARGET static void dots_f16(const float *x, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    for (uint32_t row = 0; row < count; row++)
        y[row] = dot_f16(x, rows + (size_t)row * n, n);
}

/* Of STRIP columns at a time, whose sums stay in registers. */
INLINE void sum_strip(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, uint32_t left, float *y)
{
    __m512 sums[STRIP / WIDTH] = {0};
    __mmask16 masks[STRIP / WIDTH];

    for (uint32_t k = 0; k < STRIP / WIDTH; k++)
        masks[k] = left > k * WIDTH ? first(left - k * WIDTH) : 0;
    for (uint32_t row = 0; row < count; row++) {
        __m512 weight = _mm512_set1_ps(weights[row]);
        const uint16_t *at = rows + (size_t)row * n;

        for (uint32_t k = 0; k < STRIP / WIDTH; k++)
            sums[k] = _mm512_fmadd_ps(weight, halves_at(at + k * WIDTH, masks[k]), sums[k]);
    }
    for (uint32_t k = 0; k < STRIP / WIDTH; k++)
        _mm512_mask_storeu_ps(y + k * WIDTH, masks[k], sums[k]);
}

TARGET static void weighted_sum_f16(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i += STRIP)
        sum_strip(weights, rows + i, count, n, n - i, y + i);
}

const struct vector_variant vector_avx512 = {"avx512", dot,     dots_f16,     weighted_sum_f16,
                                             scale_by, softmax, silu_multiply};
