/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_MODEL_VALUE_H
#define TND_MODEL_VALUE_H

/* Metadata values as GGUF encodes them: scalars little-endian, a string its u64 length and bytes, an array its u32
 * element type, u64 count and the elements one after the other. */

#include <stdint.h>

#include "tundish.h"

/* Bytes of a scalar; 0 for strings and arrays, which carry their length. */
uint32_t tnd_value_scalar_bytes(enum tnd_value_type type);

/* Reads a scalar from bytes that are there. */
void tnd_value_scalar(enum tnd_value_type type, const uint8_t *bytes, struct tnd_value *ret_value);

#endif
