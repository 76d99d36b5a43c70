/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_DECODER_WEIGHTS_H
#define WORKER_DECODER_WEIGHTS_H

/* Where a model's weights are in its list of tensors. */

#include "decoder/architecture.h"
#include "decoder/decoder.h"

#define WEIGHT_NONE UINT32_MAX

struct weights {
    uint32_t shared[SHARED_WEIGHT_COUNT]; /* no output: the embedding is used; no rope factors: WEIGHT_NONE */
    uint32_t (*layers)[WEIGHT_COUNT];     /* [layer]; WEIGHT_NONE: biases of an architecture without */
};

/* Finds every tensor that the configuration needs, with the shape that follows from it, and no other. Fills in
 * config->vocabulary where no key told it.
 * Returns: 0, -ENOTSUP a tensor that the architecture has not, or of a type that cannot be computed with, -EBADMSG one
 *          is missing or has another shape, -ENOMEM. */
int weights_find(const struct tnd_model *model, struct decoder_config *config, struct weights *weights,
                 struct failure *failure);
void weights_finish(struct weights *weights);

/* The sizes of a weight's matrix; a vector is one row. */
uint32_t weights_extent(const struct decoder_config *config, enum extent extent);

#endif
