/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/layout.h"

#include <errno.h>

#include "base/bytes.h"
#include "model/dtype.h"
#include "model/model.h"

/* What a layout is made with. */
struct making {
    struct tnd_plan *plan;
    const bool *taken;
    enum tnd_switch in_place;
    bool *in_stretch; /* [model tensor_count] */
};

/* Tensors [first, end) of the plan's order that can be laid out as the file has them. */
struct stretch {
    uint32_t first, end;
    uint64_t start, stop; /* aligned file offsets around them */
};

static bool suits(const struct tnd_plan *plan, uint32_t tensor_index, enum tnd_switch in_place)
{
    const struct tnd_tensor *tensor = &plan->model->tensors[tensor_index];
    uint64_t alignment = TND_TENSOR_ALIGNMENT;

    if (plan->on_device || in_place == TND_OFF || tnd_plan_kernel(plan, tensor_index))
        return false;
    if (in_place == TND_ON)
        alignment = tnd_dtype_info(tensor->dtype)->element_alignment;
    return tensor->offset % alignment == 0;
}

static bool is_taken(const struct making *making, uint32_t tensor_index)
{
    return making->taken && making->taken[tensor_index];
}

/* The longest stretch of [first, limit); holes of up to an aligned block are part of it, as they are of windows. */
static struct stretch stretch_from(const struct making *making, uint32_t first, uint32_t limit)
{
    const struct tnd_plan *plan = making->plan;
    const struct tnd_tensor *tensors = plan->model->tensors;
    const struct tnd_tensor *head = &tensors[plan->tensors[first]];
    uint64_t end = head->offset;
    struct stretch stretch = {.first = first, .end = first};

    for (uint32_t i = first; i < limit; i++) {
        const struct tnd_tensor *tensor = &tensors[plan->tensors[i]];

        if (is_taken(making, plan->tensors[i]) || !suits(plan, plan->tensors[i], making->in_place) ||
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

static void mirror(struct tnd_layout *layout, const struct making *making, const struct stretch *stretch)
{
    const struct tnd_plan *plan = making->plan;
    uint64_t base = tnd_round_up(layout->bytes, plan->alignment);

    for (uint32_t i = stretch->first; i < stretch->end; i++) {
        uint32_t tensor = plan->tensors[i];

        layout->offsets[tensor] = base + (plan->model->tensors[tensor].offset - stretch->start);
        making->in_stretch[tensor] = true;
    }
    layout->bytes = base + (stretch->stop - stretch->start);
}

static void pack(struct tnd_layout *layout, const struct tnd_plan *plan, uint32_t tensor)
{
    layout->offsets[tensor] =
        tnd_round_up(layout->bytes, plan->on_device ? TND_DEVICE_ALIGNMENT : TND_TENSOR_ALIGNMENT);
    layout->bytes = layout->offsets[tensor] + tnd_plan_bytes(plan, tensor);
}

/* The tensors [i, end) of the plan's order, behind what is laid out already. */
static void lay_out(struct tnd_layout *layout, const struct making *making, uint32_t i, uint32_t end)
{
    const struct tnd_plan *plan = making->plan;

    while (i < end) {
        struct stretch stretch = stretch_from(making, i, end);

        if (stretch.stop - stretch.start >= TND_MIRROR_BYTES_MIN)
            mirror(layout, making, &stretch);
        else if (stretch.end == i)
            stretch.end = i + 1; /* does not suit: alone */
        for (; i < stretch.end; i++)
            if (!making->in_stretch[plan->tensors[i]] && !is_taken(making, plan->tensors[i]))
                pack(layout, plan, plan->tensors[i]);
    }
}

/* A stage shares no aligned block of memory with another: what was read of one is not written to by reads of the
 * next. */
static void lay_out_stage(struct tnd_layout *layout, const struct making *making, uint32_t index)
{
    const struct tnd_stage *stage = &making->plan->stages[index];

    layout->bytes = tnd_round_up(layout->bytes, making->plan->alignment);
    lay_out(layout, making, stage->tensor_first, stage->tensor_first + stage->tensor_count);
}

/* The shared stages, then slots for as many layers as the window holds. */
static int lay_out_window(struct tnd_layout *layout, const struct making *making, uint64_t resident_bytes,
                          struct tnd_err *err)
{
    struct tnd_plan *plan = making->plan;
    uint32_t out = plan->stage_count - 1;
    uint64_t first, end, layer_bytes;

    lay_out_stage(layout, making, 0);
    lay_out_stage(layout, making, out);
    first = end = tnd_round_up(layout->bytes, plan->alignment);
    for (uint32_t i = 1; i < out; i++) {
        layout->bytes = first;
        lay_out_stage(layout, making, i);
        end = tnd_max(end, tnd_round_up(layout->bytes, plan->alignment));
    }
    layer_bytes = tnd_max(end - first, plan->sizes.layer_bytes_max); /* more where layers stay in the file's mapping */
    if (resident_bytes < layer_bytes + plan->chunk_bytes)
        return tnd_fail(err, -ENOMEM,
                        "%s: a window of %llu bytes is too small: the largest layer needs %llu, and the bytes of one "
                        "read, %u, are asked for beside it",
                        plan->model->files[0].file.path, (unsigned long long)resident_bytes,
                        (unsigned long long)layer_bytes, plan->chunk_bytes);
    layout->slot_bytes = end - first;
    layout->slot_count = (uint32_t)(resident_bytes / layer_bytes);
    layout->bytes = first + layout->slot_count * layout->slot_bytes;
    plan->sizes.layer_bytes_max = layer_bytes;
    plan->sizes.resident_bytes = layout->slot_count * layer_bytes;
    plan->sizes.resident_layers = layout->slot_count;
    return 0;
}

static int lay_out_all(struct tnd_layout *layout, const struct making *making, uint64_t resident_bytes,
                       struct tnd_err *err)
{
    struct tnd_plan *plan = making->plan;

    if (resident_bytes && resident_bytes < plan->sizes.loaded_bytes - plan->sizes.shared_bytes)
        return lay_out_window(layout, making, resident_bytes, err);
    for (uint32_t i = 0; i < plan->stage_count && plan->by_layer; i++)
        lay_out_stage(layout, making, i);
    if (!plan->by_layer)
        lay_out(layout, making, 0, plan->tensor_count);
    plan->sizes.resident_layers = plan->sizes.layer_count;
    return 0;
}

int tnd_layout_init(struct tnd_layout *layout, struct tnd_plan *plan, const bool *taken, enum tnd_switch in_place,
                    uint64_t resident_bytes, struct tnd_err *err)
{
    uint32_t tensor_count = plan->model->tensor_count;
    struct tnd_layout made = {
        .offsets = tnd_arena_alloc(&plan->arena, tensor_count, sizeof(*made.offsets)),
        .mirrored = tnd_arena_alloc(&plan->arena, plan->window_count, sizeof(*made.mirrored)),
    };
    struct making making = {
        .plan = plan,
        .taken = taken,
        .in_place = in_place,
        .in_stretch = tnd_zalloc(&plan->arena.allocator, tensor_count, sizeof(*making.in_stretch)),
    };
    int r = 0;

    if (!made.offsets || !made.mirrored || !making.in_stretch)
        r = tnd_fail(err, -ENOMEM, "no memory to lay out %u tensors", plan->tensor_count);
    if (r >= 0)
        r = lay_out_all(&made, &making, resident_bytes, err);
    if (r >= 0) {
        mark_windows(&made, plan, making.in_stretch);
        *layout = made;
    }
    tnd_free(&plan->arena.allocator, making.in_stretch);
    return r;
}
