/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PLAN_LAYOUT_H
#define TND_PLAN_LAYOUT_H

/* Where in one block of destination memory each tensor lies.
 *
 * A stretch of at least TND_MIRROR_BYTES_MIN whose tensors suit it is laid out as it lies in the file, at the same
 * offset modulo the alignment and with the aligned blocks at both ends its own: a read of a whole window can land in
 * it. Everything else is packed on TND_TENSOR_ALIGNMENT and can only be copied, or converted, to its place.
 *
 * With a window the shared tensors come first, then slots of one size. Each layer is laid out as if it lay in slot 0;
 * when it is fetched into another, all of it moves by a whole number of slots. */

#include <stdint.h>

#include "plan/plan.h"

#define TND_TENSOR_ALIGNMENT 64
#define TND_DEVICE_ALIGNMENT 256 /* no read lands on a device: all is packed there, on what its kernels like best */
#define TND_MIRROR_BYTES_MIN ((uint64_t)1 << 20)

struct tnd_layout {
    uint64_t *offsets; /* [model tensor_count], from the start of the block; meaningless for tensors not in the plan */
    bool *mirrored;    /* [plan window_count] all of the window, its ends included, is free for it in the block */
    uint64_t bytes;
    uint64_t slot_bytes; /* a multiple of the plan's alignment */
    uint32_t slot_count; /* 0: no window */
};

/* taken: [model tensor_count] tensors that lie elsewhere, or NULL. in_place TND_ON lets a tensor lie on its element's
 * alignment, as the file has it; TND_AUTO mirrors only what is on TND_TENSOR_ALIGNMENT there; TND_OFF nothing.
 * resident_bytes: of the window; 0: none, as when all layers fit it. Fills in the plan's sizes that depend on it.
 * The arrays live in the plan's arena. -ENOMEM, also when the largest layer and a chunk do not fit the window. */
int tnd_layout_init(struct tnd_layout *layout, struct tnd_plan *plan, const bool *taken, enum tnd_switch in_place,
                    uint64_t resident_bytes, struct tnd_err *err);

#endif
