/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_MODEL_LAYERS_H
#define TND_MODEL_LAYERS_H

#include <stdint.h>

#include "tundish.h"

#define TND_LAYERS_MAX 65536 /* a higher number in a name is no layer's: the tensor counts as shared */

/* The layer that a tensor's name puts it in ("blk.3.attn_q.weight": 3), or -1 and its role among the shared ones. */
int32_t tnd_layer_of_name(const char *name, enum tnd_role *ret_role);

#endif
