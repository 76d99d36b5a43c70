/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_DOT_AVX2_H
#define WORKER_KERNELS_DOT_AVX2_H

/* What the variants with AVX2 have in common: eight lanes of dot.h are a register, first the lower ones, then the upper
 * ones. Included once by each of them, which has defined TARGET and INLINE, and defines dot(). */

#include <immintrin.h>

#include "kernels/dot.h"

#define TILE 2 /* rows of activations whose sums are in registers */
#define HALF (DOT_LANES / 2)

INLINE void load_sums(__m256 sum[TILE][DOT_ROWS], const uint32_t count, const float *sums)
{
    for (uint32_t i = 0; i < count * DOT_ROWS; i++)
        sum[i / DOT_ROWS][i % DOT_ROWS] = _mm256_loadu_ps(sums + i * DOT_LANES);
}

INLINE void store_sums(__m256 sum[TILE][DOT_ROWS], const uint32_t count, float *sums)
{
    for (uint32_t i = 0; i < count * DOT_ROWS; i++)
        _mm256_storeu_ps(sums + i * DOT_LANES, sum[i / DOT_ROWS][i % DOT_ROWS]);
}

/* ---- F32 --------------------------------------------------------------------------------------------------- */

/* Half of the lanes: pointers are to the first of them. */
INLINE void floats_tile(const float *weights, size_t weights_stride, const float *x, size_t x_stride, uint32_t columns,
                        const uint32_t count, float *sums)
{
    __m256 sum[TILE][DOT_ROWS];

    load_sums(sum, count, sums);
    for (uint32_t column = 0; column < columns; column += DOT_LANES) {
        __m256 values[TILE];

        for (uint32_t t = 0; t < count; t++)
            values[t] = _mm256_loadu_ps(x + t * x_stride + column);
        for (uint32_t row = 0; row < DOT_ROWS; row++) {
            __m256 weight = _mm256_load_ps(weights + row * weights_stride + column);

            for (uint32_t t = 0; t < count; t++)
                sum[t][row] = _mm256_fmadd_ps(weight, values[t], sum[t][row]);
        }
    }
    store_sums(sum, count, sums);
}

TARGET static void floats(const float *weights, size_t weights_stride, const float *x, size_t x_stride,
                          uint32_t columns, uint32_t count, float *sums)
{
    for (uint32_t half = 0; half < DOT_LANES; half += HALF) {
        uint32_t t = 0;

        for (; t + TILE <= count; t += TILE)
            floats_tile(weights + half, weights_stride, x + half + t * x_stride, x_stride, columns, TILE,
                        sums + half + t * DOT_ROWS * DOT_LANES);
        for (; t < count; t++)
            floats_tile(weights + half, weights_stride, x + half + t * x_stride, x_stride, columns, 1,
                        sums + half + t * DOT_ROWS * DOT_LANES);
    }
}

/* ---- Integers ---------------------------------------------------------------------------------------------- */

/* start and all steps of eight lanes. wide: the bias is DOT_BIAS_WIDE. */
INLINE __m256i dot(const bool wide, const struct dot_weights *weights, const struct dot_values *x, uint32_t half);

INLINE void spans_tile(const bool wide, const bool has_offsets, const struct dot_weights *weights,
                       size_t weights_stride, const struct dot_values *x, size_t x_stride, uint32_t span_count,
                       const uint32_t count, uint32_t half, float *sums)
{
    __m256 sum[TILE][DOT_ROWS];

    load_sums(sum, count, sums);
    for (uint32_t i = 0; i < span_count; i++) {
        for (uint32_t t = 0; t < count; t++) {
            const struct dot_values *values = &x[t * x_stride + i];

            for (uint32_t row = 0; row < DOT_ROWS; row++) {
                const struct dot_weights *quants = &weights[row * weights_stride + i];
                __m256 scale = _mm256_mul_ps(_mm256_load_ps(quants->scales + half),
                                             _mm256_load_ps(values->scales + half));

                sum[t][row] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot(wide, quants, values, half)), sum[t][row]);
                if (has_offsets)
                    sum[t][row] = _mm256_fmadd_ps(_mm256_load_ps(quants->offsets + half),
                                                  _mm256_load_ps(values->sums + half), sum[t][row]);
            }
        }
    }
    store_sums(sum, count, sums);
}

INLINE void spans_of(const bool wide, const bool has_offsets, const struct dot_weights *weights, size_t weights_stride,
                     const struct dot_values *x, size_t x_stride, uint32_t span_count, uint32_t count, float *sums)
{
    for (uint32_t half = 0; half < DOT_LANES; half += HALF) {
        uint32_t t = 0;

        for (; t + TILE <= count; t += TILE)
            spans_tile(wide, has_offsets, weights, weights_stride, x + t * x_stride, x_stride, span_count, TILE, half,
                       sums + half + t * DOT_ROWS * DOT_LANES);
        for (; t < count; t++)
            spans_tile(wide, has_offsets, weights, weights_stride, x + t * x_stride, x_stride, span_count, 1, half,
                       sums + half + t * DOT_ROWS * DOT_LANES);
    }
}

TARGET static void spans(const struct dot_format *format, const struct dot_weights *weights,
                         size_t weights_stride, const struct dot_values *x, size_t x_stride, uint32_t span_count,
                         uint32_t count, float *sums)
{
    if (format->bias == DOT_BIAS_WIDE)
        spans_of(true, false, weights, weights_stride, x, x_stride, span_count, count, sums);
    else if (format->has_offsets)
        spans_of(false, true, weights, weights_stride, x, x_stride, span_count, count, sums);
    else
        spans_of(false, false, weights, weights_stride, x, x_stride, span_count, count, sums);
}

#endif
