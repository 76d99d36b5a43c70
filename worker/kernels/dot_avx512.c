/* SPDX-License-Identifier: Apache-2.0 */

/* A lane of dot.h is a lane of a register. */

#include "kernels/dot.h"

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

#define TILE 4 /* rows of activations whose sums are in registers */

/* ---- F32 --------------------------------------------------------------------------------------------------- */

INLINE void floats_tile(const float *weights, size_t weights_stride, const float *x, size_t x_stride, uint32_t columns,
                        const uint32_t count, float *sums)
{
    __m512 sum[TILE][DOT_ROWS];

    for (uint32_t i = 0; i < count * DOT_ROWS; i++)
        sum[i / DOT_ROWS][i % DOT_ROWS] = _mm512_loadu_ps(sums + i * DOT_LANES);
    for (uint32_t column = 0; column < columns; column += DOT_LANES) {
        __m512 rows[DOT_ROWS];

        for (uint32_t row = 0; row < DOT_ROWS; row++)
            rows[row] = _mm512_load_ps(weights + row * weights_stride + column);
        for (uint32_t t = 0; t < count; t++) {
            __m512 values = _mm512_loadu_ps(x + t * x_stride + column);

            for (uint32_t row = 0; row < DOT_ROWS; row++)
                sum[t][row] = _mm512_fmadd_ps(rows[row], values, sum[t][row]);
        }
    }
    for (uint32_t i = 0; i < count * DOT_ROWS; i++)
        _mm512_storeu_ps(sums + i * DOT_LANES, sum[i / DOT_ROWS][i % DOT_ROWS]);
}

TARGET static void floats(const float *weights, size_t weights_stride, const float *x, size_t x_stride,
                          uint32_t columns, uint32_t count, float *sums)
{
    uint32_t t = 0;

    for (; t + TILE <= count; t += TILE)
        floats_tile(weights, weights_stride, x + t * x_stride, x_stride, columns, TILE,
                    sums + t * DOT_ROWS * DOT_LANES);
    for (; t < count; t++)
        floats_tile(weights, weights_stride, x + t * x_stride, x_stride, columns, 1, sums + t * DOT_ROWS * DOT_LANES);
}

/* ---- Integers ---------------------------------------------------------------------------------------------- */

INLINE void spans_tile(const bool has_offsets, const struct dot_weights *weights, size_t weights_stride,
                       const struct dot_values *x, size_t x_stride, uint32_t span_count, const uint32_t count,
                       float *sums)
{
    __m512 sum[TILE][DOT_ROWS];

    for (uint32_t i = 0; i < count * DOT_ROWS; i++)
        sum[i / DOT_ROWS][i % DOT_ROWS] = _mm512_loadu_ps(sums + i * DOT_LANES);
    for (uint32_t i = 0; i < span_count; i++) {
        for (uint32_t t = 0; t < count; t++) {
            const struct dot_values *values = &x[t * x_stride + i];

            for (uint32_t row = 0; row < DOT_ROWS; row++) {
                const struct dot_weights *quants = &weights[row * weights_stride + i];
                __m512i dot = _mm512_load_si512(values->start);
                __m512 scale = _mm512_mul_ps(_mm512_load_ps(quants->scales), _mm512_load_ps(values->scales));

                for (int step = 0; step < DOT_STEPS; step++)
                    dot = _mm512_dpbusd_epi32(dot, _mm512_load_si512(quants->quants[step]),
                                              _mm512_load_si512(values->quants[step]));
                sum[t][row] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot), sum[t][row]);
                if (has_offsets)
                    sum[t][row] = _mm512_fmadd_ps(_mm512_load_ps(quants->offsets), _mm512_load_ps(values->sums),
                                                  sum[t][row]);
            }
        }
    }
    for (uint32_t i = 0; i < count * DOT_ROWS; i++)
        _mm512_storeu_ps(sums + i * DOT_LANES, sum[i / DOT_ROWS][i % DOT_ROWS]);
}

INLINE void spans_of(const bool has_offsets, const struct dot_weights *weights, size_t weights_stride,
                     const struct dot_values *x, size_t x_stride, uint32_t span_count, uint32_t count, float *sums)
{
    uint32_t t = 0;

    for (; t + TILE <= count; t += TILE)
        spans_tile(has_offsets, weights, weights_stride, x + t * x_stride, x_stride, span_count, TILE,
                   sums + t * DOT_ROWS * DOT_LANES);
    for (; t < count; t++)
        spans_tile(has_offsets, weights, weights_stride, x + t * x_stride, x_stride, span_count, 1,
                   sums + t * DOT_ROWS * DOT_LANES);
}

TARGET static void spans(const struct dot_format *format, const struct dot_weights *weights,
                         size_t weights_stride, const struct dot_values *x, size_t x_stride, uint32_t span_count,
                         uint32_t count, float *sums)
{
    if (format->has_offsets)
        spans_of(true, weights, weights_stride, x, x_stride, span_count, count, sums);
    else
        spans_of(false, weights, weights_stride, x, x_stride, span_count, count, sums);
}

const struct dot_variant dot_avx512 = {"avx512", floats, spans, dot_quantise_avx2, dot_unpack_avx2};
