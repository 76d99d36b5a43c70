/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/layout.h"

#include <errno.h>

#include "base/bytes.h"
#include "model/dtype.h"
#include "model/model.h"

/* Tensors [first, end) of the plan's order that can be laid out as the file has them. */
struct stretch {
    uint32_t first, end;
    uint64_t start, stop; /* aligned file offsets around them */
};

static bool suits(const struct tnd_plan *plan, uint32_t tensor_index, enum tnd_switch in_place)
{
    const struct tnd_tensor *tensor = &plan->model->tensors[tensor_index];
    uint64_t alignment = TND_TENSOR_ALIGNMENT;

    if (in_place == TND_OFF || tnd_plan_kernel(plan, tensor_index))
        return false;
    if (in_place == TND_ON)
        alignment = tnd_dtype_info(tensor->dtype)->element_alignment;
    return tensor->offset % alignment == 0;
}

/* The longest stretch that starts at first; holes of up to an aligned block are part of it, as they are of windows. */
static struct stretch stretch_from(const struct tnd_plan *plan, const bool *taken, enum tnd_switch in_place,
                                   uint32_t first)
{
    const struct tnd_tensor *tensors = plan->model->tensors;
    const struct tnd_tensor *head = &tensors[plan->tensors[first]];
    uint64_t end = head->offset;
    struct stretch stretch = {.first = first, .end = first};

    for (uint32_t i = first; i < plan->tensor_count; i++) {
        const struct tnd_tensor *tensor = &tensors[plan->tensors[i]];

        if ((taken && taken[plan->tensors[i]]) || !suits(plan, plan->tensors[i], in_place) ||
            tensor->file != head->file || tensor->offset < end || tensor->offset - end > plan->alignment)
            break;
        end = tensor->offset + tensor->bytes;
        stretch.end = i + 1;
    }
    stretch.start = tnd_round_down(head->offset, plan->alignment);
    stretch.stop = tnd_round_up(end, plan->alignment);
    return stretch;
}

static void mark_windows(struct tnd_layout *layout, const struct tnd_plan *plan, const bool *in_stretch)
{
    for (uint32_t w = 0; w < plan->window_count; w++) {
        const struct tnd_window *window = &plan->windows[w];
        bool all = true;

        for (uint32_t p = 0; p < window->piece_count; p++) {
            uint32_t tensor = plan->pieces[window->piece_first + p].tensor;
            uint32_t head = plan->pieces[window->piece_first].tensor;

            /* One stretch: the same distance between file and block all along. */
            all = all && in_stretch[tensor] &&
                  layout->offsets[tensor] - plan->model->tensors[tensor].offset ==
                      layout->offsets[head] - plan->model->tensors[head].offset;
        }
        layout->mirrored[w] = all;
    }
}

static void mirror(struct tnd_layout *layout, const struct tnd_plan *plan, const struct stretch *stretch,
                   bool *in_stretch)
{
    uint64_t base = tnd_round_up(layout->bytes, plan->alignment);

    for (uint32_t i = stretch->first; i < stretch->end; i++) {
        uint32_t tensor = plan->tensors[i];

        layout->offsets[tensor] = base + (plan->model->tensors[tensor].offset - stretch->start);
        in_stretch[tensor] = true;
    }
    layout->bytes = base + (stretch->stop - stretch->start);
}

static void pack(struct tnd_layout *layout, const struct tnd_plan *plan, uint32_t tensor)
{
    layout->offsets[tensor] = tnd_round_up(layout->bytes, TND_TENSOR_ALIGNMENT);
    layout->bytes = layout->offsets[tensor] + tnd_plan_bytes(plan, tensor);
}

int tnd_layout_init(struct tnd_layout *layout, struct tnd_plan *plan, const bool *taken, enum tnd_switch in_place,
                    struct tnd_err *err)
{
    uint32_t tensor_count = plan->model->tensor_count;
    struct tnd_layout made = {
        .offsets = tnd_arena_alloc(&plan->arena, tensor_count, sizeof(*made.offsets)),
        .mirrored = tnd_arena_alloc(&plan->arena, plan->window_count, sizeof(*made.mirrored)),
    };
    bool *in_stretch = tnd_zalloc(&plan->arena.allocator, tensor_count, sizeof(*in_stretch));
    uint32_t i = 0;

    if (!made.offsets || !made.mirrored || !in_stretch) {
        tnd_free(&plan->arena.allocator, in_stretch);
        return tnd_fail(err, -ENOMEM, "no memory to lay out %u tensors", plan->tensor_count);
    }
    while (i < plan->tensor_count) {
        struct stretch stretch = stretch_from(plan, taken, in_place, i);

        if (stretch.stop - stretch.start >= TND_MIRROR_BYTES_MIN)
            mirror(&made, plan, &stretch, in_stretch);
        else if (stretch.end == i)
            stretch.end = i + 1; /* does not suit: alone */
        for (; i < stretch.end; i++)
            if (!in_stretch[plan->tensors[i]] && !(taken && taken[plan->tensors[i]]))
                pack(&made, plan, plan->tensors[i]);
    }
    mark_windows(&made, plan, in_stretch);
    tnd_free(&plan->arena.allocator, in_stretch);
    *layout = made;
    return 0;
}
