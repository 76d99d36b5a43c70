/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_VECTOR_H
#define WORKER_KERNELS_VECTOR_H

/* What a transformer does with vectors besides products with weights. Any address that suits the element; n may be any,
 * also 0. F16 as its bits. */

#include <stdbool.h>
#include <stdint.h>

/* y = x / sqrt(mean(x²) + epsilon) * weight; y may be x. */
void vector_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *y);
/* x = exp(x - max(x)), divided by its sum. */
void vector_softmax(float *x, uint32_t n);
/* y = gate / (1 + exp(-gate)) * up; y may be either. */
void vector_silu_multiply(const float *gate, const float *up, uint32_t n, float *y);
/* y += x */
void vector_add(const float *x, uint32_t n, float *y);
/* Turns n / 2 pairs, n even, by the angles whose cosines and sines stand in tables, [n / 2]. The i-th pair is x[i] and
 * x[i + n / 2] with halves, else x[2 * i] and x[2 * i + 1]. */
void vector_rope(float *x, uint32_t n, const float *cosines, const float *sines, bool halves);
/* What a head of attention does, with rows of F16 that lie one behind the other, [count][n].
 * y[i] = sum of x * row i, i below count. */
void vector_dots_f16(const float *x, const uint16_t *rows, uint32_t count, uint32_t n, float *y);
/* y = sum of weights[i] * row i, [n]. */
void vector_weighted_sum_f16(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y);
/* Rounded to nearest even. */
void vector_to_f16(const float *x, uint32_t n, uint16_t *y);

#endif
