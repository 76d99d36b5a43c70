/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_VECTOR_LOOPS_H
#define WORKER_KERNELS_VECTOR_LOOPS_H

/* What all variants of vector.h's functions have in common, as plain loops, which the compiler turns into the
 * instructions that it is allowed. Included once by each variant, which has defined TARGET, the attribute of functions
 * that need more than every processor has, and INLINE, which is that and inlining.
 *
 * Sums have LANES lanes: lane i % LANES takes element i, sum = fma(a, b, sum), of vectors padded with zeros to whole
 * LANES. Halves are added up until one is left. A weighted sum is fma(weight, element, sum), row after row, from zero.
 * So all variants give the same bits. */

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES 32

struct vector_variant {
    const char *name;
    float (*dot)(const float *x, const float *y, uint32_t n);
    void (*dots_f16)(const float *x, const uint16_t *rows, uint32_t count, uint32_t n, float *y);
    void (*weighted_sum_f16)(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y);
    void (*scale)(const float *x, const float *weight, uint32_t n, float scale, float *y); /* y = x * scale * weight */
    void (*softmax)(float *x, uint32_t n);
    void (*silu_multiply)(const float *gate, const float *up, uint32_t n, float *y);
};

/* Variants that this processor can run, the best one first, plain C last; NULL beyond. */
const struct vector_variant *vector_variant_at(uint32_t index);

extern const struct vector_variant vector_c, vector_avx2, vector_avx512;

INLINE float lanes_added(float lanes[LANES])
{
    for (uint32_t half = LANES / 2; half; half /= 2)
        for (uint32_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

/* For x <= 0; 0 below -87, where it would soon be subnormal. 2^n * exp(r) with |r| <= log(2) / 2: the first terms of
 * the series are as good as F32. */
INLINE float exp_of(float x)
{
    const float magic = 0x1.8p23f; /* added to a number, this leaves no room for a fraction */
    float bounded = x < -87 ? -87 : x, shifted = bounded * 0x1.715476p0f + magic, n = shifted - magic;
    float r = (bounded - n * 0x1.62E4p-1f) - n * 0x1.7F7D1Cp-20f, series = 1.0f / 5040, power;
    uint32_t bits;

    memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits - 0x4B400000u + 127) << 23;
    memcpy(&power, &bits, sizeof(power));
    series = series * r + 1.0f / 720;
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 1.0f / 2;
    series = series * (r * r) + r;
    return x < -87 ? 0 : power + power * series;
}

TARGET static void scale_by(const float *x, const float *weight, uint32_t n, float scale, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

INLINE float larger(float a, float b)
{
    return b > a ? b : a;
}

INLINE float largest(const float *x, uint32_t n)
{
    uint32_t whole = n / LANES * LANES;
    float lanes[LANES], max = -INFINITY;

    for (uint32_t lane = 0; lane < LANES; lane++)
        lanes[lane] = -INFINITY;
    for (uint32_t i = 0; i < whole; i += LANES)
        for (uint32_t lane = 0; lane < LANES; lane++)
            lanes[lane] = larger(lanes[lane], x[i + lane]);
    for (uint32_t i = whole; i < n; i++)
        max = larger(max, x[i]);
    for (uint32_t lane = 0; lane < LANES; lane++)
        max = larger(max, lanes[lane]);
    return max;
}

INLINE float sum_of(const float *x, uint32_t n)
{
    uint32_t whole = n / LANES * LANES;
    float lanes[LANES] = {0};

    for (uint32_t i = 0; i < whole; i += LANES)
        for (uint32_t lane = 0; lane < LANES; lane++)
            lanes[lane] += x[i + lane];
    for (uint32_t i = whole; i < n; i++)
        lanes[i - whole] += x[i];
    return lanes_added(lanes);
}

TARGET static void softmax(float *x, uint32_t n)
{
    float max = largest(x, n), inverse;

    for (uint32_t i = 0; i < n; i++)
        x[i] = exp_of(x[i] - max);
    inverse = 1 / sum_of(x, n);
    for (uint32_t i = 0; i < n; i++)
        x[i] *= inverse;
}

/* exp() of a negative number only: it cannot overflow. */
TARGET static void silu_multiply(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float power = exp_of(-fabsf(gate[i])), above = gate[i] < 0 ? power : 1;

        y[i] = gate[i] * (above / (1 + power)) * up[i];
    }
}

#endif
