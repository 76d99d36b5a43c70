/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_PLACES_H
#define TOOLS_PLACES_H

/* Memory for tensors that are looked at once, when they arrive. Addresses for all of them are taken at the start, pages
 * come with the bytes and go back when a tensor is done with: what is held at once is what lies between. */

#include <stddef.h>

#include "tundish.h"

struct places_region {
    char *base; /* NULL: none */
    size_t bytes, used;
    size_t alignment; /* of a tensor's own pages; no two share one */
};

struct places {
    struct places_region large, small; /* on huge pages, and not */
};

/* For all tensors of a model, as a plan has them. Where addresses are not to be had, the loader takes memory of its
 * own, and keeps it. */
void places_init(struct places *places, const struct tnd_model *model, const struct tnd_plan *plan);
/* Takes {0} too. */
void places_finish(struct places *places);

/* As tnd_place_fn has it, each tensor once. */
void *places_take(struct places *places, const struct tnd_tensor *tensor);

/* Gives the pages of a tensor's bytes back but for its first kept_bytes; the others read as zeros from then on, and
 * nothing may be on its way to them any more. data of a tensor that lies elsewhere stays. Threads: any. */
void places_give_back(const struct places *places, const void *data, size_t bytes, size_t kept_bytes);

#endif
