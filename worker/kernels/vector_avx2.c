/* SPDX-License-Identifier: Apache-2.0 */
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

#include <immintrin.h>

#include "kernels/vector_loops.h"

#define WIDTH 8
#define REGISTERS (LANES / WIDTH)

INLINE __m256 floats_at(const uint16_t *halves)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
}

/* LANES elements each. */
INLINE void add_products(const float *x, const float *y, __m256 sums[REGISTERS])
{
    for (int i = 0; i < REGISTERS; i++)
        sums[i] = _mm256_fmadd_ps(_mm256_loadu_ps(x + WIDTH * i), _mm256_loadu_ps(y + WIDTH * i), sums[i]);
}

INLINE void add_products_f16(const float *x, const uint16_t *y, __m256 sums[REGISTERS])
{
    for (int i = 0; i < REGISTERS; i++)
        sums[i] = _mm256_fmadd_ps(_mm256_loadu_ps(x + WIDTH * i), floats_at(y + WIDTH * i), sums[i]);
}

INLINE float sums_added(__m256 sums[REGISTERS])
{
    __m256 eight = _mm256_add_ps(_mm256_add_ps(sums[0], sums[2]), _mm256_add_ps(sums[1], sums[3]));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

TARGET static float dot(const float *x, const float *y, uint32_t n)
{
    __m256 sums[REGISTERS] = {0};
    uint32_t i = 0;

    for (; n - i >= LANES; i += LANES)
        add_products(x + i, y + i, sums);
    if (i < n) {
        float last_x[LANES] = {0}, last_y[LANES] = {0};

        memcpy(last_x, x + i, (n - i) * sizeof(*x));
        memcpy(last_y, y + i, (n - i) * sizeof(*y));
        add_products(last_x, last_y, sums);
    }
    return sums_added(sums);
}

INLINE float dot_f16(const float *x, const uint16_t *y, uint32_t n)
{
    __m256 sums[REGISTERS] = {0};
    uint32_t i = 0;

    for (; n - i >= LANES; i += LANES)
        add_products_f16(x + i, y + i, sums);
    if (i < n) {
        float last_x[LANES] = {0};
        uint16_t last_y[LANES] = {0};

        memcpy(last_x, x + i, (n - i) * sizeof(*x));
        memcpy(last_y, y + i, (n - i) * sizeof(*y));
        add_products_f16(last_x, last_y, sums);
    }
    return sums_added(sums);
}

TARGET static void dots_f16(const float *x, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    for (uint32_t row = 0; row < count; row++)
        y[row] = dot_f16(x, rows + (size_t)row * n, n);
}

/* Of LANES columns, whose sums stay in registers. */
INLINE void sum_strip(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    __m256 sums[REGISTERS] = {0};

    for (uint32_t row = 0; row < count; row++)
        for (int k = 0; k < REGISTERS; k++)
            sums[k] = _mm256_fmadd_ps(_mm256_set1_ps(weights[row]), floats_at(rows + (size_t)row * n + WIDTH * k),
                                      sums[k]);
    for (int k = 0; k < REGISTERS; k++)
        _mm256_storeu_ps(y + WIDTH * k, sums[k]);
}

TARGET static void weighted_sum_f16(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    uint32_t i = 0;

    for (; n - i >= LANES; i += LANES)
        sum_strip(weights, rows + i, count, n, y + i);
    for (; i < n; i++) {
        y[i] = 0;
        for (uint32_t row = 0; row < count; row++)
            y[i] = fmaf(weights[row], _cvtsh_ss(rows[(size_t)row * n + i]), y[i]);
    }
}

const struct vector_variant vector_avx2 = {"avx2", dot, dots_f16, weighted_sum_f16, scale_by, softmax, silu_multiply};
