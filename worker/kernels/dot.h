/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_DOT_H
#define WORKER_KERNELS_DOT_H

/* How matrix.c multiplies. A few rows of weights are unpacked, some columns at a time, to a panel that stays in the
 * cache nearest to the core; every row of activations meets it there. There are two kinds of panels: of F32, and of
 * integers of eight bits for the formats below, whose activations are rounded to such integers as well.
 *
 * Each product of a row of weights and one of activations has sixteen sums, one for each lane; dot_totals() adds them
 * up at the very end. What a lane sums, and in which order, is told below and is the same in all variants, so that they
 * give the same bits: nothing of it depends on how many rows of activations there are. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xmmintrin.h>

#include "kernels/matrix.h"
#include "tundish.h"

#define DOT_ROWS 4 /* of weights, in a panel */
#define DOT_LANES 16

/* ---- Panels of F32 ---------------------------------------------------------------------------------------- */

/* Lane c % 16 takes column c: sum = fma(weight, activation, sum). Columns are padded with zeros to a multiple of 16. */

/* ---- Panels of integers ----------------------------------------------------------------------------------- */

/* A span: 256 columns of a row. A lane takes 16 neighbouring columns, four at a time. Which ones is a matter of how
 * cheaply they get there: counted in sixteens, the lanes' columns are 0, 4, 8, 12, 1, 5, 9, 13, 2 … 15.
 *
 *     dot = start + sum of weight quants * activation quants           in integers, exact
 *     sum = fma(weight scale * activation scale, dot, sum)
 *     sum = fma(weight offset, activation sum, sum)                    if the format has offsets */
#define DOT_SPAN 256
#define DOT_STEPS 4 /* four columns each */
#define DOT_SPAN_BYTES_MAX 272 /* of the blocks of a span */

/* value = scale * (quant - bias) + offset */
struct dot_weights {
    _Alignas(64) uint8_t quants[DOT_STEPS][DOT_LANES][4];
    float scales[DOT_LANES];
    float offsets[DOT_LANES]; /* left as they are when the format has none */
};

/* value = scale * quant; 32 neighbouring columns share a scale, the 127th part of the largest of them. All of them
 * below 2^-100: all are 0. One of them infinite or not a number: the scale is not a number. */
struct dot_values {
    _Alignas(64) int8_t quants[DOT_STEPS][DOT_LANES][4];
    int32_t start[DOT_LANES]; /* -bias * sum of quants */
    float scales[DOT_LANES];
    float sums[DOT_LANES]; /* scale * sum of quants */
};

#define DOT_VALUES_GROUP 32
#define DOT_VALUES_LEAST 0x1p-100f

/* Whole spans, at any address. */
typedef void (*dot_unpack_fn)(const uint8_t *blocks, uint32_t span_count, struct dot_weights *spans);

/* X(type, format as in the library, columns of a block, its bytes, columns that share a scale, bias, has offsets) */
#define DOT_FORMATS(X)                                                                                                 \
    X(TND_Q4_0, q4_0, 32, 18, 32, 8, false)                                                                            \
    X(TND_Q4_1, q4_1, 32, 20, 32, 0, true)                                                                             \
    X(TND_Q5_0, q5_0, 32, 22, 32, 16, false)                                                                           \
    X(TND_Q5_1, q5_1, 32, 24, 32, 0, true)                                                                             \
    X(TND_Q8_0, q8_0, 32, 34, 32, DOT_BIAS_WIDE, false)                                                                \
    X(TND_Q4_K, q4_k, 256, 144, 32, 0, true)                                                                           \
    X(TND_Q5_K, q5_k, 256, 176, 32, 0, true)                                                                           \
    X(TND_Q6_K, q6_k, 256, 210, 16, 32, false)                                                                         \
    X(TND_Q2_K, q2_k, 256, 84, 16, 0, true)                                                                            \
    X(TND_Q3_K, q3_k, 256, 110, 16, 4, false)                                                                          \
    X(TND_IQ4_NL, iq4_nl, 32, 18, 32, DOT_BIAS_WIDE, false)                                                            \
    X(TND_IQ4_XS, iq4_xs, 256, 136, 32, DOT_BIAS_WIDE, false)                                                          \
    X(TND_MXFP4, mxfp4, 32, 17, 32, 12, false)
#define DOT_BIAS_WIDE 128 /* quants have all eight bits; else at most seven */

enum {
#define DOT_FORMAT_NAME(type, name, columns, bytes, group, bias, offsets) DOT_##type,
    DOT_FORMATS(DOT_FORMAT_NAME)
#undef DOT_FORMAT_NAME
    DOT_FORMAT_COUNT
};

struct dot_format {
    enum tnd_dtype dtype;
    uint32_t span_bytes;
    int32_t bias;
    bool has_offsets;
};

extern const struct dot_format dot_formats[DOT_FORMAT_COUNT];

/* ---- Variants --------------------------------------------------------------------------------------------- */

struct dot_variant {
    const char *name;
    /* These two add to sums, [count][DOT_ROWS][DOT_LANES]. weights: [DOT_ROWS][weights_stride], on 64 bytes. x:
     * [count][x_stride]. Strides are counted in elements, or in spans. */
    void (*floats)(const float *weights, size_t weights_stride, const float *x, size_t x_stride, uint32_t columns,
                   uint32_t count, float *sums); /* columns: a multiple of DOT_LANES */
    void (*spans)(const struct dot_format *format, const struct dot_weights *weights, size_t weights_stride,
                  const struct dot_values *x, size_t x_stride, uint32_t span_count, uint32_t count, float *sums);
    /* x: [span_count * DOT_SPAN]. */
    void (*quantise)(const float *x, uint32_t span_count, int32_t bias, struct dot_values *ret_spans);
    const dot_unpack_fn *unpack; /* [DOT_FORMAT_COUNT] */
};

/* Variants that this processor can run, the best one first, plain C last; NULL beyond. */
const struct dot_variant *dot_variant_at(uint32_t index);

extern const struct dot_variant dot_c, dot_avx2, dot_avxvnni, dot_avx512;
extern const dot_unpack_fn dot_unpack_c[DOT_FORMAT_COUNT], dot_unpack_avx2[DOT_FORMAT_COUNT];

/* matrix_multiply() by any of them. */
void matrix_multiply_by(const struct dot_variant *variant, struct team *team, const struct matrix *weights,
                        const float *x, uint32_t count, float *y, void *scratch);

void dot_quantise_avx2(const float *x, uint32_t span_count, int32_t bias, struct dot_values *ret_spans);

/* Adds up the lanes of sums, [DOT_ROWS][DOT_LANES], in this order: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
static inline void dot_totals(const float *sums, float totals[DOT_ROWS])
{
    __m128 rows[DOT_ROWS];

    for (int row = 0; row < DOT_ROWS; row++, sums += DOT_LANES)
        rows[row] = _mm_add_ps(_mm_add_ps(_mm_loadu_ps(sums), _mm_loadu_ps(sums + 8)),
                               _mm_add_ps(_mm_loadu_ps(sums + 4), _mm_loadu_ps(sums + 12)));
    _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
    _mm_storeu_ps(totals, _mm_add_ps(_mm_add_ps(rows[0], rows[2]), _mm_add_ps(rows[1], rows[3])));
}

/* The lane of a column of a span. */
static inline uint32_t dot_lane(uint32_t column)
{
    uint32_t sixteen = column / 16;

    return sixteen % 4 * 4 + sixteen / 4;
}

#endif
