/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/plan.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "model/dtype.h"
#include "model/model.h"

#define BYTES_MAX ((uint64_t)1 << 56) /* of a load; times what a block of any type grows by it still fits 64 bits */

/* What a tensor is sorted by. */
struct order_key {
    uint32_t stage; /* 0 for all in file order */
    uint32_t file;
    uint64_t offset;
    uint32_t tensor;
};

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_keys(const void *left, const void *right)
{
    const struct order_key *a = left, *b = right;
    int by = compare_u64(a->stage, b->stage);

    if (!by)
        by = compare_u64(a->file, b->file);
    if (!by)
        by = compare_u64(a->offset, b->offset);
    /* Empty tensors share offsets: the plan stays one and the same. */
    return by ? by : compare_u64(a->tensor, b->tensor);
}

static bool selected(const struct tnd_tensor *tensor, const struct tnd_plan_options *options)
{
    if (options->layer_count &&
        (tensor->layer < 0 || (uint32_t)tensor->layer < options->layer_first ||
         (uint32_t)tensor->layer - options->layer_first >= options->layer_count))
        return false;
    return !options->only || !fnmatch(options->only, tensor->name, 0);
}

uint32_t tnd_plan_stage_of_layer(const struct tnd_plan *plan, int32_t layer)
{
    return layer == TND_LAYER_SHARED_OUT ? plan->stage_count - 1 : (uint32_t)(layer + 1);
}

uint32_t tnd_plan_stage(const struct tnd_plan *plan, uint32_t tensor_index)
{
    const struct tnd_tensor *tensor = &plan->model->tensors[tensor_index];

    if (tensor->role == TND_IN_LAYER)
        return 1 + (uint32_t)tensor->layer;
    return tensor->role == TND_SHARED_OUT ? plan->stage_count - 1 : 0;
}

static int select_tensors(struct tnd_plan *plan, const struct tnd_plan_options *options, struct tnd_err *err)
{
    const struct tnd_model *model = plan->model;
    struct order_key *keys = tnd_zalloc(&plan->arena.allocator, model->tensor_count, sizeof(*keys));
    uint32_t count = 0;

    if (!keys)
        return tnd_fail(err, -ENOMEM, "no memory to plan %u tensors", model->tensor_count);
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const struct tnd_tensor *tensor = &model->tensors[i];

        if (selected(tensor, options))
            keys[count++] = (struct order_key){
                .stage = options->order == TND_ORDER_FILE ? 0 : tnd_plan_stage(plan, i),
                .file = tensor->file,
                .offset = tensor->offset,
                .tensor = i,
            };
    }
    qsort(keys, count, sizeof(*keys), compare_keys);
    plan->tensors = tnd_arena_alloc(&plan->arena, count, sizeof(*plan->tensors));
    if (plan->tensors)
        for (uint32_t i = 0; i < count; i++)
            plan->tensors[i] = keys[i].tensor;
    plan->tensor_count = count;
    tnd_free(&plan->arena.allocator, keys);
    if (!plan->tensors)
        return tnd_fail(err, -ENOMEM, "no memory to plan %u tensors", count);
    if (!count)
        return tnd_fail(err, -ENOENT, "%s: none of the %u tensors is selected", model->files[0].file.path,
                        model->tensor_count);
    return 0;
}

/* ---- What tensors become ----------------------------------------------------------------------------------- */

uint64_t tnd_plan_bytes_out(const struct tnd_kernel *kernel, uint64_t bytes)
{
    const struct tnd_dtype_info *from, *to;

    if (!kernel)
        return bytes;
    from = tnd_dtype_info(kernel->from);
    to = tnd_dtype_info(kernel->to);
    return bytes / from->block_bytes * from->block_elements * to->block_bytes;
}

const struct tnd_kernel *tnd_plan_kernel(const struct tnd_plan *plan, uint32_t tensor_index)
{
    return plan->kernels ? plan->kernels[tensor_index] : NULL;
}

enum tnd_dtype tnd_plan_dtype(const struct tnd_plan *plan, uint32_t tensor_index)
{
    const struct tnd_kernel *kernel = tnd_plan_kernel(plan, tensor_index);

    return kernel ? kernel->to : plan->model->tensors[tensor_index].dtype;
}

uint64_t tnd_plan_bytes(const struct tnd_plan *plan, uint32_t tensor_index)
{
    return tnd_plan_bytes_out(tnd_plan_kernel(plan, tensor_index), plan->model->tensors[tensor_index].bytes);
}

static enum tnd_dtype dtype_wanted(const struct tnd_plan_options *options, const char *name)
{
    for (uint32_t i = 0; i < options->rule_count; i++)
        if (!fnmatch(options->rules[i].pattern, name, 0))
            return options->rules[i].dtype;
    return options->dtype;
}

/* What cannot be converted to what is wanted stays as it is. */
static int choose_kernels(struct tnd_plan *plan, const struct tnd_plan_options *options, struct tnd_err *err)
{
    enum tnd_isa isa = tnd_isa_best();

    if (!options->dtype && !options->rule_count)
        return 0;
    plan->kernels = tnd_arena_alloc(&plan->arena, plan->model->tensor_count, sizeof(*plan->kernels));
    if (!plan->kernels)
        return tnd_fail(err, -ENOMEM, "no memory to plan %u tensors", plan->tensor_count);
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        uint32_t tensor = plan->tensors[i];
        enum tnd_dtype from = plan->model->tensors[tensor].dtype;
        enum tnd_dtype to = dtype_wanted(options, plan->model->tensors[tensor].name);

        if (to && to != from)
            plan->kernels[tensor] = tnd_kernel_find(from, to, isa);
    }
    return 0;
}

/* ---- Windows ----------------------------------------------------------------------------------------------- */

/* A walk over the runs; with no arrays it only counts. */
struct cutter {
    const struct tnd_plan *plan;
    uint32_t chunk_bytes;
    struct tnd_window *windows;
    struct tnd_piece *pieces;
    uint64_t window_count, piece_count;
    struct tnd_window window; /* the open one */
};

static int compare_pieces(const void *left, const void *right)
{
    const struct tnd_piece *a = left, *b = right;

    return compare_u64(a->window_offset, b->window_offset);
}

static void window_close(struct cutter *cutter)
{
    if (!cutter->window.bytes)
        return;
    if (cutter->windows) {
        cutter->windows[cutter->window_count] = cutter->window;
        /* The order of use may step back inside a window. */
        qsort(cutter->pieces + cutter->window.piece_first, cutter->window.piece_count, sizeof(*cutter->pieces),
              compare_pieces);
    }
    cutter->window_count++;
    cutter->window.bytes = 0;
}

static void window_open(struct cutter *cutter, uint32_t file, uint64_t offset)
{
    cutter->window = (struct tnd_window){
        .file = file,
        .offset = tnd_round_down(offset, cutter->plan->alignment),
        .piece_first = (uint32_t)cutter->piece_count,
    };
}

/* Whether the byte at offset can still go into the open window without more than an aligned block in between. */
static bool window_takes(const struct cutter *cutter, uint32_t file, uint64_t offset)
{
    const struct tnd_window *window = &cutter->window;

    return window->bytes && window->file == file && offset >= window->offset &&
           offset - window->offset < cutter->chunk_bytes &&
           offset <= window->offset + window->bytes + cutter->plan->alignment;
}

static void cut_tensor(struct cutter *cutter, uint32_t tensor_index)
{
    const struct tnd_tensor *tensor = &cutter->plan->model->tensors[tensor_index];
    uint64_t unit = tnd_plan_kernel(cutter->plan, tensor_index) ? tnd_dtype_info(tensor->dtype)->block_bytes : 1;
    uint64_t at = 0;

    while (at < tensor->bytes && cutter->piece_count <= TND_PIECES_MAX) {
        uint64_t offset = tensor->offset + at;
        uint64_t skip, bytes;

        if (!window_takes(cutter, tensor->file, offset)) {
            window_close(cutter);
            window_open(cutter, tensor->file, offset);
        }
        skip = offset - cutter->window.offset;
        bytes = tnd_min(tensor->bytes - at, cutter->chunk_bytes - skip);
        bytes -= bytes % unit;
        if (!bytes) { /* not one whole unit has room: it is the next window's */
            window_close(cutter);
            continue;
        }
        if (cutter->pieces)
            cutter->pieces[cutter->piece_count] = (struct tnd_piece){
                .tensor = tensor_index,
                .window_offset = (uint32_t)skip,
                .tensor_offset = at,
                .bytes = (uint32_t)bytes,
            };
        cutter->piece_count++;
        cutter->window.piece_count++;
        cutter->window.bytes =
            (uint32_t)tnd_max(cutter->window.bytes, tnd_round_up(skip + bytes, cutter->plan->alignment));
        at += bytes;
    }
}

static void cut_stage(struct cutter *cutter, struct tnd_stage *stage)
{
    stage->window_first = (uint32_t)cutter->window_count;
    for (uint32_t i = 0; i < stage->tensor_count; i++)
        cut_tensor(cutter, cutter->plan->tensors[stage->tensor_first + i]);
    window_close(cutter);
    stage->window_count = (uint32_t)cutter->window_count - stage->window_first;
}

static struct cutter cut_all(const struct tnd_plan *plan, struct tnd_window *windows, struct tnd_piece *pieces)
{
    struct cutter cutter = {.plan = plan, .chunk_bytes = plan->chunk_bytes, .windows = windows, .pieces = pieces};

    for (uint32_t i = 0; i < plan->stage_count && plan->by_layer; i++)
        cut_stage(&cutter, &plan->stages[i]);
    for (uint32_t i = 0; i < plan->tensor_count && !plan->by_layer; i++)
        cut_tensor(&cutter, plan->tensors[i]);
    window_close(&cutter);
    return cutter;
}

static int cut_windows(struct tnd_plan *plan, struct tnd_err *err)
{
    struct cutter count = cut_all(plan, NULL, NULL);

    if (count.piece_count > TND_PIECES_MAX)
        return tnd_fail(err, -EFBIG, "%s: reads of %u bytes cut the tensors into more than the %u pieces of a plan",
                        plan->model->files[0].file.path, plan->chunk_bytes, TND_PIECES_MAX);
    plan->windows = tnd_arena_alloc(&plan->arena, count.window_count, sizeof(*plan->windows));
    plan->pieces = tnd_arena_alloc(&plan->arena, count.piece_count, sizeof(*plan->pieces));
    if (!plan->windows || !plan->pieces)
        return tnd_fail(err, -ENOMEM, "no memory to plan %llu reads", (unsigned long long)count.window_count);
    plan->window_count = (uint32_t)count.window_count;
    plan->piece_count = (uint32_t)count.piece_count;
    cut_all(plan, plan->windows, plan->pieces);
    return 0;
}

/* What will lie at the destination, by stage; a sparse file may claim more than there are addresses. */
static int sum_stages(struct tnd_plan *plan, struct tnd_err *err)
{
    plan->stages = tnd_arena_alloc(&plan->arena, plan->stage_count, sizeof(*plan->stages));
    if (!plan->stages)
        return tnd_fail(err, -ENOMEM, "no memory to plan %u layers", plan->stage_count);
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        const struct tnd_tensor *tensor = &plan->model->tensors[plan->tensors[i]];
        struct tnd_stage *stage = &plan->stages[tnd_plan_stage(plan, plan->tensors[i])];
        uint64_t bytes = tnd_plan_bytes(plan, plan->tensors[i]);

        if (tensor->bytes > BYTES_MAX || bytes > BYTES_MAX - plan->sizes.loaded_bytes)
            return tnd_fail(err, -ENOMEM, "%s: with tensor %s the tensors are more than the %llu bytes of a load",
                            plan->model->files[tensor->file].file.path, tensor->name, (unsigned long long)BYTES_MAX);
        plan->sizes.loaded_bytes += bytes;
        if (!stage->tensor_count++)
            stage->tensor_first = i;
        stage->bytes += tensor->bytes;
        stage->loaded_bytes += bytes;
    }
    return 0;
}

static void count_sizes(struct tnd_plan *plan)
{
    struct tnd_plan_sizes *sizes = &plan->sizes;

    sizes->window_count = plan->window_count;
    sizes->piece_count = plan->piece_count;
    sizes->tensor_count = plan->tensor_count;
    for (uint32_t i = 0; i < plan->window_count; i++)
        sizes->read_bytes += plan->windows[i].bytes;
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        const struct tnd_tensor *tensor = &plan->model->tensors[plan->tensors[i]];

        sizes->tensor_bytes += tensor->bytes;
        sizes->converted_bytes += tnd_plan_kernel(plan, plan->tensors[i]) ? tensor->bytes : 0;
    }
    for (uint32_t i = 1; i + 1 < plan->stage_count; i++) {
        sizes->layer_count += plan->stages[i].tensor_count > 0;
        sizes->layer_bytes_max = tnd_max(sizes->layer_bytes_max, plan->stages[i].loaded_bytes);
    }
    sizes->shared_bytes = plan->stages[0].loaded_bytes + plan->stages[plan->stage_count - 1].loaded_bytes;
}

int tnd_plan_init(struct tnd_plan *plan, const struct tnd_model *model, const struct tnd_plan_options *options,
                  struct tnd_err *err)
{
    struct tnd_plan made = {
        .model = model,
        .stage_count = model->layer_count + 2,
        .by_layer = options->by_layer,
        .chunk_bytes = options->chunk_bytes,
        .alignment = options->alignment,
        .on_device = options->on_device,
    };
    int r;

    made.arena.allocator = model->arena.allocator;
    r = select_tensors(&made, options, err);
    if (r >= 0)
        r = choose_kernels(&made, options, err);
    if (r >= 0)
        r = sum_stages(&made, err);
    if (r >= 0)
        r = cut_windows(&made, err);
    if (r < 0) {
        tnd_plan_finish(&made);
        return r;
    }
    count_sizes(&made);
    *plan = made;
    return 0;
}

void tnd_plan_finish(struct tnd_plan *plan)
{
    tnd_arena_finish(&plan->arena);
}

void tnd_plan_sizes(const struct tnd_plan *plan, struct tnd_plan_sizes *ret_sizes)
{
    *ret_sizes = plan->sizes;
}

int tnd_plan_tensor_type(const struct tnd_plan *plan, uint32_t tensor_index, enum tnd_dtype *ret_dtype,
                         uint64_t *ret_bytes)
{
    if (tensor_index >= plan->model->tensor_count)
        return -EINVAL;
    *ret_dtype = tnd_plan_dtype(plan, tensor_index);
    *ret_bytes = tnd_plan_bytes(plan, tensor_index);
    return 0;
}

const struct tnd_window *tnd_plan_window(const struct tnd_plan *plan, uint32_t window_index)
{
    return window_index < plan->window_count ? &plan->windows[window_index] : NULL;
}

const struct tnd_piece *tnd_plan_piece(const struct tnd_plan *plan, uint32_t piece_index)
{
    return piece_index < plan->piece_count ? &plan->pieces[piece_index] : NULL;
}
