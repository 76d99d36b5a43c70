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
    struct tnd_device *device;
    struct tnd_device_block block;
    uint64_t host_bytes; /* of block, that are of the host's memory */
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

/* What somebody waits for. */
struct tnd_awaited {
    uint32_t stage; /* that it is part of; TND_STAGE_NONE: all */
    const atomic_uint *left; /* the counter; NULL: the end of the load */
    bool acquire;   /* instead: the stage, for use … */
    bool marked;    /* … by a device's queue, which waits by itself for what is on its way there */
};

/* wait.c: 0, -EAGAIN, -ETIMEDOUT, or a failure, told to tnd_last_error(). A load by layer is asked for it. */
int tnd_load_await(struct tnd_load *load, const struct tnd_awaited *awaited, int64_t timeout_ns);
/* wait.c: lets the driver look at what a consumer has changed. Under the readiness's mutex. */
void tnd_load_tell_driver(struct tnd_load *load);
/* wait.c: the stage of a layer of this load; -EINVAL, told. */
int tnd_load_stage_of(const struct tnd_load *load, int32_t layer, uint32_t *ret_stage);
/* wait.c: tells the caller's mistake; -EINVAL. */
int tnd_load_fail_argument(const char *sentence);

/* layers.c: the same as tnd_layer_acquire() and tnd_layer_release() for a consumer's stream of the load's device, which
 * waits for the layer, and is waited for before the layer's place is used again, by itself: the host does not. The
 * acquire is -EAGAIN, or waits, until all of the layer is in the device's queues. */
int tnd_layer_acquire_on(struct tnd_load *load, int32_t layer, void *stream, int64_t timeout_ns);
int tnd_layer_release_on(struct tnd_load *load, int32_t layer, void *stream);

#endif
