/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_MATRIX_H
#define WORKER_KERNELS_MATRIX_H

/* Products of weights as they lie in the file with activations in F32. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/team.h"
#include "tundish.h"

/* Rows of weights, each of whole blocks, one behind the other. */
struct matrix {
    enum tnd_dtype dtype;
    const void *data; /* any address; the caller's */
    uint32_t rows, columns;
};

/* Whether rows of that type can be used at all. */
bool matrix_supports(enum tnd_dtype dtype);
/* Whether that type has a dot product of its own; else its rows are decoded to F32 time and again. */
bool matrix_has_dot(enum tnd_dtype dtype);

/* Bytes of memory that matrix_multiply() needs for so many rows of activations: at most count × columns × 4 + some, and
 * some for each member. */
size_t matrix_scratch_bytes(const struct team *team, uint32_t columns, uint32_t count);

/* y[t][r] = sum over c of weights[r][c] * x[t][c] for t in [0, count); x: [count][columns], y: [count][rows], F32.
 * scratch: on 64 bytes, matrix_scratch_bytes(). The same bits for every count and number of threads, and on every
 * processor: a row of activations is worked alike alone or among others. With block formats that have a dot product of
 * their own, activations are rounded to integers of eight bits, 32 neighbours to a scale; a row of them of which one is
 * not finite comes to NaN. */
void matrix_multiply(struct team *team, const struct matrix *weights, const float *x, uint32_t count, float *y,
                     void *scratch);

/* One row, decoded: [columns]. */
void matrix_row(const struct matrix *weights, uint32_t row, float *ret_values);

#endif
