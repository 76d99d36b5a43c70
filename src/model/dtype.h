/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_MODEL_DTYPE_H
#define TND_MODEL_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

#include "tundish.h"

struct tnd_dtype_info {
    const char *name;
    uint16_t block_elements;
    uint16_t block_bytes;
    uint16_t element_alignment; /* what a consumer may assume of an address: 1, 2, 4 or 8 */
    int16_t ggml;               /* GGML's number, -1 where GGML has no such type */
    bool safetensors;           /* the name is one of safetensors' */
};

/* NULL outside the list. */
const struct tnd_dtype_info *tnd_dtype_info(enum tnd_dtype dtype);

/* TND_DTYPE_NONE for a number that is no type's: never given, removed, or newer than this table. */
enum tnd_dtype tnd_dtype_from_ggml(uint32_t ggml);
/* Numbers that GGML once had and took back: such a file was always malformed for today's readers. */
bool tnd_ggml_type_removed(uint32_t ggml);
enum tnd_dtype tnd_dtype_from_safetensors(const char *name, size_t name_bytes);

#endif
