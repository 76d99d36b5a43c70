/* SPDX-License-Identifier: Apache-2.0 */

/* Plain C: what dot.h says, word for word. */

#include "kernels/dot.h"

#include <math.h>

#include "kernels/cpu.h"

#define FITS(type, name, columns, bytes, group, bias, offsets)                                                         \
    _Static_assert(DOT_SPAN / columns * bytes <= DOT_SPAN_BYTES_MAX, "a span of blocks fits its buffer");
DOT_FORMATS(FITS)
#undef FITS

const struct dot_format dot_formats[DOT_FORMAT_COUNT] = {
#define FORMAT(type, name, columns, bytes, group, bias, offsets) {type, DOT_SPAN / columns * bytes, bias, offsets},
    DOT_FORMATS(FORMAT)
#undef FORMAT
};

static void floats(const float *weights, size_t weights_stride, const float *x, size_t x_stride, uint32_t columns,
                   uint32_t count, float *sums)
{
    for (uint32_t t = 0; t < count; t++, x += x_stride) {
        for (uint32_t row = 0; row < DOT_ROWS; row++, sums += DOT_LANES)
            for (uint32_t column = 0; column < columns; column++)
                sums[column % DOT_LANES] =
                    fmaf(weights[row * weights_stride + column], x[column], sums[column % DOT_LANES]);
    }
}

static void span(const struct dot_format *format, const struct dot_weights *weights, const struct dot_values *x,
                 float *sums)
{
    for (uint32_t lane = 0; lane < DOT_LANES; lane++) {
        int32_t dot = x->start[lane];

        for (uint32_t step = 0; step < DOT_STEPS; step++)
            for (uint32_t i = 0; i < 4; i++)
                dot += weights->quants[step][lane][i] * x->quants[step][lane][i];
        sums[lane] = fmaf(weights->scales[lane] * x->scales[lane], (float)dot, sums[lane]);
        if (format->has_offsets)
            sums[lane] = fmaf(weights->offsets[lane], x->sums[lane], sums[lane]);
    }
}

static void spans(const struct dot_format *format, const struct dot_weights *weights, size_t weights_stride,
                  const struct dot_values *x, size_t x_stride, uint32_t span_count, uint32_t count, float *sums)
{
    for (uint32_t t = 0; t < count; t++, x += x_stride)
        for (uint32_t row = 0; row < DOT_ROWS; row++, sums += DOT_LANES)
            for (uint32_t i = 0; i < span_count; i++)
                span(format, &weights[row * weights_stride + i], &x[i], sums);
}

/* Of DOT_VALUES_GROUP values. inverse: what to multiply them with. */
static float group_scale(const float *x, float *ret_inverse)
{
    float largest = 0;

    *ret_inverse = 0;
    for (uint32_t i = 0; i < DOT_VALUES_GROUP; i++) {
        if (!isfinite(x[i]))
            return NAN;
        largest = fmaxf(largest, fabsf(x[i]));
    }
    if (largest < DOT_VALUES_LEAST)
        return 0;
    *ret_inverse = 127 / largest;
    return largest / 127;
}

static void quantise_span(const float *x, int32_t bias, struct dot_values *span)
{
    int32_t sums[DOT_LANES] = {0};
    float inverse = 0;

    for (uint32_t column = 0; column < DOT_SPAN; column++) {
        uint32_t lane = dot_lane(column);
        int8_t quant;

        if (column % DOT_VALUES_GROUP == 0)
            span->scales[lane] = span->scales[dot_lane(column + 16)] = group_scale(x + column, &inverse);
        quant = (int8_t)(inverse == 0 ? 0 : rintf(x[column] * inverse));
        span->quants[column / 4 % DOT_STEPS][lane][column % 4] = quant;
        sums[lane] += quant;
    }
    for (uint32_t lane = 0; lane < DOT_LANES; lane++) {
        span->start[lane] = -bias * sums[lane];
        span->sums[lane] = span->scales[lane] * (float)sums[lane];
    }
}

static void quantise(const float *x, uint32_t span_count, int32_t bias, struct dot_values *ret_spans)
{
    for (uint32_t i = 0; i < span_count; i++)
        quantise_span(x + (size_t)i * DOT_SPAN, bias, &ret_spans[i]);
}

const struct dot_variant dot_c = {"c", floats, spans, quantise, dot_unpack_c};

const struct dot_variant *dot_variant_at(uint32_t index)
{
    static const struct {
        enum cpu_level level;
        const struct dot_variant *variant;
    } variants[] = {{CPU_AVX512, &dot_avx512}, {CPU_AVXVNNI, &dot_avxvnni}, {CPU_AVX2, &dot_avx2}, {CPU_C, &dot_c}};

    for (uint32_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
        if (cpu_has(variants[i].level) && index-- == 0)
            return variants[i].variant;
    return NULL;
}
