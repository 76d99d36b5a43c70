/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_LOAD_H
#define TND_LOAD_H

#include "device/device.h"
#include "pipeline/transfer.h"
#include "plan/layout.h"
#include "plan/plan.h"
#include "tundish.h"

struct tnd_load {
    struct tnd_allocator allocator;
    struct tnd_loader *loader;
    const struct tnd_model *model;
    struct tnd_plan plan; /* its arena holds all the arrays below */
    struct tnd_layout layout;
    struct tnd_device_block block;
    uint8_t **tensors; /* [model tensor_count] where each tensor of the plan lies */
    struct tnd_transfer transfer;
    struct tnd_digests digests;
    uint64_t plan_ns;
    struct tnd_load *next; /* in the loader's list */

    /* Of tnd_load_file(): the load's own. */
    struct tnd_loader *own_loader;
    struct tnd_model *own_model;
};

/* destination.c: gives each tensor of the plan its place, the caller's or one in the load's block, within the budget,
 * and each piece and window theirs. -EINVAL, -ENOMEM. */
int tnd_load_take_destination(struct tnd_load *load, const struct tnd_load_options *options, struct tnd_err *err);

/* destination.c: which tensors of a plan an engine leaves where they are mapped, [model tensor_count] in the plan's
 * arena; NULL without memory. */
bool *tnd_load_mapped_tensors(struct tnd_plan *plan, enum tnd_engine engine);

#endif
