/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_DECODE_H
#define WORKER_KERNELS_DECODE_H

/* Elements of any type to F32, and back to F16, by the library's kernels. */

#include <stddef.h>

#include "tundish.h"

/* Of one call: longer results would be stored past the cache. A multiple of every block. */
#define DECODE_ELEMENTS_MAX 768

struct tnd_kernel;

/* NULL: elements of that type cannot be decoded. */
const struct tnd_kernel *decode_find(enum tnd_dtype dtype);

/* source: whole blocks at any address. values: [elements], at most DECODE_ELEMENTS_MAX. */
void decode(const struct tnd_kernel *kernel, const void *source, size_t elements, float *values);

/* Rounded to nearest even. */
void encode_f16(const float *values, size_t elements, uint16_t *destination);

#endif
