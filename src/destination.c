/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/bytes.h"
#include "load.h"
#include "loader.h"
#include "model/dtype.h"
#include "model/model.h"
#include "options.h"

/* ---- Files ------------------------------------------------------------------------------------------------- */

static int make_files(struct tnd_load *load, struct tnd_err *err)
{
    struct tnd_transfer *transfer = &load->transfer;
    uint32_t count = load->model->file_count;

    transfer->files = tnd_arena_alloc(&load->plan.arena, count, sizeof(*transfer->files));
    transfer->windows_left = tnd_arena_alloc(&load->plan.arena, count, sizeof(*transfer->windows_left));
    if (!transfer->files || !transfer->windows_left)
        return tnd_fail(err, -ENOMEM, "no memory for %u files", count);
    transfer->file_count = count;
    for (uint32_t i = 0; i < count; i++)
        transfer->files[i] = (struct tnd_io_file){
            .source = &load->model->files[i],
            .path = load->model->files[i].file.path,
            .bytes = load->model->files[i].file.bytes,
            .reasons = &transfer->reasons,
            .fd_direct = -1,
        };
    for (uint32_t i = 0; i < load->plan.window_count; i++)
        transfer->windows_left[load->plan.windows[i].file]++;
    /* Nothing of a device lies in a mapping: there the engine reads what is cached into the pool. */
    for (uint32_t i = 0; i < count && load->loader->options.engine == TND_ENGINE_MMAP && !load->plan.on_device; i++) {
        int r = tnd_file_map(&transfer->files[i], err);

        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- Tensors ----------------------------------------------------------------------------------------------- */

bool *tnd_load_mapped_tensors(struct tnd_plan *plan, enum tnd_engine engine)
{
    bool *mapped = tnd_arena_alloc(&plan->arena, plan->model->tensor_count, sizeof(*mapped));

    for (uint32_t i = 0; i < plan->tensor_count && mapped && engine == TND_ENGINE_MMAP && !plan->on_device; i++) {
        const struct tnd_tensor *tensor = &plan->model->tensors[plan->tensors[i]];

        mapped[plan->tensors[i]] = !tnd_plan_kernel(plan, plan->tensors[i]) &&
                                   tensor->offset % tnd_dtype_info(tensor->dtype)->element_alignment == 0;
    }
    return mapped;
}

/* The tensors that stay in the mapping; the others are told of, since they cost a copy. */
static void place_mapped(struct tnd_load *load, const bool *mapped)
{
    uint32_t copied = 0;

    for (uint32_t i = 0; i < load->plan.tensor_count; i++) {
        uint32_t index = load->plan.tensors[i];
        const struct tnd_tensor *tensor = &load->model->tensors[index];

        if (mapped[index] && !load->transfer.places[index])
            load->transfer.places[index] = load->transfer.files[tensor->file].map + tensor->offset;
        copied += !mapped[index] && !tnd_plan_kernel(&load->plan, index);
    }
    if (copied && load->loader->options.engine == TND_ENGINE_MMAP && !load->plan.on_device)
        tnd_reasons_add(&load->transfer.reasons,
                        "%u of %u tensors are copied: their offset in the file does not suit their element", copied,
                        load->plan.tensor_count);
}

/* Asks for the caller's own memory. */
static int ask_for_places(struct tnd_load *load, const struct tnd_load_options *options, struct tnd_err *err)
{
    for (uint32_t i = 0; i < load->plan.tensor_count && options->place; i++) {
        uint32_t index = load->plan.tensors[i];
        const struct tnd_tensor *tensor = &load->model->tensors[index];
        struct tnd_tensor loaded = *tensor;
        uint32_t alignment;
        uint8_t *place;

        loaded.dtype = tnd_plan_dtype(&load->plan, index);
        loaded.bytes = tnd_plan_bytes(&load->plan, index);
        alignment = tnd_dtype_info(loaded.dtype)->element_alignment;
        place = options->place(options->place_cookie, &loaded);
        if ((uintptr_t)place % alignment)
            return tnd_fail(err, -EINVAL, "place() gave %p for tensor %s, which is not aligned to %u bytes",
                            (void *)place, tensor->name, alignment);
        load->transfer.places[index] = place;
    }
    return 0;
}

/* What the loader's other loads have taken of the host's memory, and what of it the system does not know of yet: pages
 * not yet touched. Under loads_mutex. */
static void sum_loads(const struct tnd_loader *loader, uint64_t *ret_taken, uint64_t *ret_untouched)
{
    *ret_taken = loader->leaked_bytes;
    *ret_untouched = 0;
    for (struct tnd_load *load = loader->loads; load; load = load->next) {
        *ret_taken += load->host_bytes;
        if (load->host_bytes && !atomic_load(&load->transfer.readiness.ended))
            *ret_untouched += tnd_transfer_untouched(&load->transfer);
    }
}

/* Puts the load on the loader's list when the budget holds it beside the others, or refuses with the sums. */
static int enter_budget(struct tnd_load *load, struct tnd_err *err)
{
    struct tnd_loader *loader = load->loader;
    uint64_t pool_has = atomic_load(&loader->pipeline.pool.bytes);
    uint64_t pool = load->plan.sizes.pool_bytes - tnd_min(load->plan.sizes.pool_bytes, pool_has);
    uint64_t need = load->host_bytes + pool, given = loader->options.memory_bytes_max;
    uint64_t taken, untouched, available = tnd_memory_available();

    pthread_mutex_lock(&loader->loads_mutex);
    sum_loads(loader, &taken, &untouched);
    available -= tnd_min(available, untouched);
    if (given)
        available = tnd_min(available, given - tnd_min(given, taken + pool_has));
    if (need <= available) {
        load->next = loader->loads;
        loader->loads = load;
    }
    pthread_mutex_unlock(&loader->loads_mutex);
    if (need <= available)
        return 0;
    return tnd_fail(err, -ENOMEM, "%s: needs %llu bytes (%llu for tensors, %llu for buffers), %llu are available",
                    load->model->files[0].file.path, (unsigned long long)need, (unsigned long long)load->host_bytes,
                    (unsigned long long)pool, (unsigned long long)available);
}

static int take_places(struct tnd_load *load, const struct tnd_load_options *options, struct tnd_err *err)
{
    struct tnd_plan *plan = &load->plan;
    bool *taken = tnd_load_mapped_tensors(plan, load->loader->options.engine);
    uint8_t *base;
    int r;

    load->transfer.places = tnd_arena_alloc(&plan->arena, load->model->tensor_count, sizeof(*load->transfer.places));
    if (!taken || !load->transfer.places)
        return tnd_fail(err, -ENOMEM, "no memory to place %u tensors", plan->tensor_count);
    r = ask_for_places(load, options, err);
    if (r < 0)
        return r;
    place_mapped(load, taken);
    for (uint32_t i = 0; i < load->model->tensor_count; i++)
        taken[i] = load->transfer.places[i] != NULL;
    r = tnd_layout_init(&load->layout, plan, taken, options->in_place, options->resident_bytes, err);
    if (r < 0)
        return r;
    base = TND_UPLOAD_LATER;
    plan->sizes.destination_bytes = load->layout.bytes;
    load->host_bytes = load->device == &tnd_device_host ? load->layout.bytes : 0;
    load->transfer.fresh_bytes = load->host_bytes; /* others look at it from now on */
    r = enter_budget(load, err);
    if (r >= 0 && load->device == &tnd_device_host) {
        r = load->device->ops->block_alloc(load->device, &load->block, load->layout.bytes, err);
        base = load->block.data;
        if (r >= 0)
            tnd_hide_from_children(base, load->layout.bytes, true); /* until the load has ended */
    }
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        uint32_t tensor = plan->tensors[i];

        if (!taken[tensor] && (base != TND_UPLOAD_LATER || tnd_plan_bytes(plan, tensor)))
            load->transfer.places[tensor] = base + load->layout.offsets[tensor];
    }
    return 0;
}

/* Where the window's first byte would lie if all of it were read in place; NULL when its bytes do not lie together,
 * some are nobody's, or the address does not suit direct I/O. */
static uint8_t *window_home(const struct tnd_load *load, uint32_t window_index)
{
    const struct tnd_window *window = &load->plan.windows[window_index];
    const struct tnd_span *spans = &load->transfer.spans[window->piece_first];
    uintptr_t home = (uintptr_t)spans[0].destination - spans[0].window_offset;
    uint64_t covered = 0;

    if (load->device != &tnd_device_host || home % load->plan.alignment)
        return NULL;
    for (uint32_t i = 0; i < window->piece_count; i++) {
        if (spans[i].kernel || (uintptr_t)spans[i].destination != home + spans[i].window_offset)
            return NULL;
        covered += spans[i].bytes;
    }
    return covered == window->bytes || load->layout.mirrored[window_index] ? (uint8_t *)home : NULL;
}

static int make_spans(struct tnd_load *load, struct tnd_err *err)
{
    struct tnd_transfer *transfer = &load->transfer;
    struct tnd_plan *plan = &load->plan;
    uintptr_t block = (uintptr_t)(load->device == &tnd_device_host ? load->block.data : TND_UPLOAD_LATER);

    transfer->spans = tnd_arena_alloc(&plan->arena, plan->piece_count, sizeof(*transfer->spans));
    transfer->homes = tnd_arena_alloc(&plan->arena, plan->window_count, sizeof(*transfer->homes));
    if (!transfer->spans || !transfer->homes)
        return tnd_fail(err, -ENOMEM, "no memory to place %u pieces", plan->piece_count);
    for (uint32_t i = 0; i < plan->piece_count; i++) {
        const struct tnd_piece *piece = &plan->pieces[i];
        const struct tnd_kernel *kernel = tnd_plan_kernel(plan, piece->tensor);

        transfer->spans[i] = (struct tnd_span){
            .destination = load->transfer.places[piece->tensor] + tnd_plan_bytes_out(kernel, piece->tensor_offset),
            .window_offset = piece->window_offset,
            .bytes = piece->bytes,
            .kernel = kernel,
            .in_block = (uintptr_t)load->transfer.places[piece->tensor] - block < load->layout.bytes,
        };
    }
    for (uint32_t i = 0; i < plan->window_count; i++)
        transfer->homes[i] = window_home(load, i);
    return 0;
}

/* What a load that goes by layer has more. */
static int make_fetches(struct tnd_load *load, struct tnd_err *err)
{
    struct tnd_transfer *transfer = &load->transfer;
    struct tnd_residency *residency = &transfer->readiness.residency;
    struct tnd_plan *plan = &load->plan;

    transfer->fetches = tnd_arena_alloc(&plan->arena, plan->stage_count, sizeof(*transfer->fetches));
    transfer->arrived = tnd_arena_alloc(&plan->arena, plan->window_count, sizeof(*transfer->arrived));
    if (!transfer->fetches || !transfer->arrived)
        return tnd_fail(err, -ENOMEM, "no memory to fetch %u layers", plan->stage_count);
    transfer->slot_bytes = load->layout.slot_bytes;
    if (load->device == &tnd_device_host)
        transfer->slots = load->block.data + load->layout.bytes - load->layout.slot_bytes * load->layout.slot_count;
    if (load->layout.slot_count == 1)
        tnd_reasons_add(&transfer->reasons, "the window has room for one layer: none is fetched ahead");
    return load->layout.slot_count ? tnd_residency_set_slots(residency, plan, load->layout.slot_count, err) : 0;
}

int tnd_load_take_destination(struct tnd_load *load, const struct tnd_load_options *options, struct tnd_err *err)
{
    int r = make_files(load, err);

    if (r >= 0)
        r = take_places(load, options, err);
    if (r >= 0)
        r = make_spans(load, err);
    if (r >= 0 && load->plan.by_layer)
        r = make_fetches(load, err);
    return r;
}
