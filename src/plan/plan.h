/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PLAN_PLAN_H
#define TND_PLAN_PLAN_H

/* Which tensors, as what, in which order, by which reads. Pure: no file is touched, nothing is measured.
 *
 * The selected tensors are sorted by use (shared-in, layers, shared-out; inside each by file and offset) or by file and
 * offset alone. Neighbours in that order which are neighbours in the file too form a run. A run is cut into windows of
 * at most chunk_bytes, whose ends lie on the alignment; what a window holds of a tensor is a piece. A piece that is
 * converted holds whole units (elements or blocks): where a window would cut one, the next window begins before it.
 *
 * A stage is what is used at a time: shared-in, a layer, shared-out. By layer no window holds pieces of two. */

#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "kernels/kernel.h"
#include "tundish.h"

#define TND_PIECES_MAX ((uint32_t)4 << 20) /* 8 TiB in chunks of 2 MiB */
#define TND_PLAN_ALIGNMENT 4096 /* a page: what direct I/O takes on nearly all devices */

struct tnd_plan_options {
    enum tnd_order order;
    const char *only;
    uint32_t layer_first, layer_count;
    enum tnd_dtype dtype; /* what tensors become, TND_DTYPE_NONE: what they are */
    const struct tnd_dtype_rule *rules; /* the first that fits a name comes before dtype */
    uint32_t rule_count;
    bool by_layer; /* cut the windows at the ends of the stages, which are in order of use then */
    uint32_t chunk_bytes;
    uint32_t alignment; /* a power of two, at most chunk_bytes */
    bool on_device; /* what the tensors will lie in is not the host's */
};

struct tnd_stage {
    uint32_t tensor_count; /* 0: no tensor of it is selected */
    uint64_t bytes, loaded_bytes; /* in the files, in memory */
    /* By layer only: its tensors in the plan's order, and its windows. */
    uint32_t tensor_first;
    uint32_t window_first, window_count;
};

struct tnd_plan {
    struct tnd_arena arena;
    const struct tnd_model *model;
    uint32_t *tensors; /* [tensor_count] the selected ones, in order */
    uint32_t tensor_count;
    const struct tnd_kernel **kernels; /* [model tensor_count] NULL: copied. The array is NULL when all are */
    struct tnd_stage *stages; /* [stage_count] shared-in, layer 0, 1, …, shared-out */
    uint32_t stage_count;
    struct tnd_window *windows;
    struct tnd_piece *pieces;
    uint32_t window_count, piece_count;
    bool by_layer, on_device;
    uint32_t chunk_bytes;
    uint32_t alignment;
    struct tnd_plan_sizes sizes;
};

/* plan is written in full on success only. -ENOENT when no tensor is selected, -ENOMEM, -EFBIG. */
int tnd_plan_init(struct tnd_plan *plan, const struct tnd_model *model, const struct tnd_plan_options *options,
                  struct tnd_err *err);
void tnd_plan_finish(struct tnd_plan *plan);

/* The stage of a tensor; of a layer's number, or TND_LAYER_SHARED_IN or _OUT. */
uint32_t tnd_plan_stage(const struct tnd_plan *plan, uint32_t tensor_index);
uint32_t tnd_plan_stage_of_layer(const struct tnd_plan *plan, int32_t layer);

/* What converts a tensor; NULL when it is copied. */
const struct tnd_kernel *tnd_plan_kernel(const struct tnd_plan *plan, uint32_t tensor_index);
/* A tensor's type and bytes as it will lie. */
enum tnd_dtype tnd_plan_dtype(const struct tnd_plan *plan, uint32_t tensor_index);
uint64_t tnd_plan_bytes(const struct tnd_plan *plan, uint32_t tensor_index);
/* Bytes at the destination of so many bytes, whole units, in the file. kernel: NULL when they are copied. */
uint64_t tnd_plan_bytes_out(const struct tnd_kernel *kernel, uint64_t bytes);

#endif
