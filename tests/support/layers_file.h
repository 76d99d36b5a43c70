/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_LAYERS_FILE_H
#define TND_TEST_LAYERS_FILE_H

/* A model of a few layers, each a tensor of F32 between shared-in and shared-out, and an empty one, for tests of
 * devices. */

#include <stdatomic.h>

#include "tundish.h"

#define LAYERS 6
#define TENSORS (LAYERS + 2)
#define ELEMENTS 50000 /* of a tensor: several chunks of 64 KiB */
#define TENSOR_BYTES (ELEMENTS * 4)

struct layers_file {
    char path[256];
    struct tnd_model *model;
    float *values; /* [TENSORS][ELEMENTS] as the file has them; every 997th does not fit F16 */
};

void layers_file_open(struct layers_file *file);
void layers_file_close(struct layers_file *file);

/* Of a tensor by its place in the order of use. */
uint32_t layers_file_tensor(const struct layers_file *file, uint32_t tensor);
int32_t layers_file_layer(uint32_t tensor);

/* Its bytes as they are to lie somewhere: as they are, or as F16. To be freed. */
uint8_t *layers_file_expect(const struct layers_file *file, uint32_t tensor, enum tnd_dtype dtype, uint64_t *ret_bytes);

/* Bytes that a consumer's stream looks at, some time later; wrong counts up when they are others. */
struct layers_file_comparison {
    const uint8_t *found, *expected;
    uint64_t bytes;
    atomic_uint *wrong;
};
void layers_file_compare(void *comparison);

/* A window for so many layers, with a chunk beside them and what their alignment takes. */
uint64_t layers_file_window(uint32_t layers, enum tnd_dtype dtype);

#endif
