/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_VALUES_H
#define TOOLS_VALUES_H

/* Elements as numbers, to look at. Types of whole bytes without a scale beside them; blocks are not taken apart. */

#include <stdbool.h>
#include <stdint.h>

#include "json.h"
#include "tundish.h"

bool values_readable(enum tnd_dtype dtype);

/* The element_index-th element of data, which need not be aligned. dtype must be readable. */
void values_json(struct json *json, enum tnd_dtype dtype, const void *data, uint64_t element_index);

#endif
