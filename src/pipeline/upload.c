/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/upload.h"

#include <errno.h>

#include "base/bytes.h"
#include "device/device.h"
#include "model/model.h"
#include "pipeline/pipeline.h"

/* A device cannot wake the driver: it is looked at, soon after something moved and ever less often while nothing does.
 * A chunk is copied in a few hundred microseconds; what waits for a consumer's stream may take as long as a layer is
 * computed with. */
#define LOOK_NS_MIN ((uint64_t)20000)
#define LOOK_NS_MAX ((uint64_t)1000000)

/* ---- Life -------------------------------------------------------------------------------------------------- */

static int make_events(struct tnd_device *device, struct tnd_device_event **events, uint32_t count,
                       struct tnd_err *err)
{
    int r = 0;

    for (uint32_t i = 0; i < count && r >= 0; i++)
        r = device->ops->event_create(device, &events[i], err);
    return r;
}

int tnd_upload_init(struct tnd_transfer *transfer, struct tnd_device *device, struct tnd_device_block *block,
                    uint64_t block_bytes, uint32_t slot_count, struct tnd_err *err)
{
    struct tnd_plan *plan = transfer->plan;
    struct tnd_upload *upload = &transfer->upload;

    *upload = (struct tnd_upload){
        .device = device,
        .block = block,
        .block_bytes = block_bytes,
        .unplaced = tnd_arena_alloc(&plan->arena, plan->stage_count, sizeof(*upload->unplaced)),
        .marks = tnd_arena_alloc(&plan->arena, plan->stage_count, sizeof(*upload->marks)),
        .slot_free = tnd_arena_alloc(&plan->arena, slot_count + 1u, sizeof(*upload->slot_free)),
        .slot_count = slot_count,
    };
    if (!upload->unplaced || !upload->marks || !upload->slot_free) {
        upload->device = NULL;
        return tnd_fail(err, -ENOMEM, "no memory to keep count of %u layers", plan->stage_count);
    }
    for (uint32_t i = 0; i < plan->piece_count; i++)
        upload->unplaced[tnd_plan_stage(plan, plan->pieces[i].tensor)]++;
    return 0;
}

/* Where an address of a block that was to come is now. Others are the caller's. */
static uint8_t *now_at(const struct tnd_upload *upload, uint8_t *place)
{
    uint64_t offset = (uintptr_t)place - (uintptr_t)TND_UPLOAD_LATER;

    return offset <= upload->block_bytes ? upload->block->data + offset : place;
}

static void make_places_real(struct tnd_transfer *transfer)
{
    const struct tnd_plan *plan = transfer->plan;

    for (uint32_t i = 0; i < plan->piece_count; i++)
        transfer->spans[i].destination = now_at(&transfer->upload, transfer->spans[i].destination);
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        uint8_t **place = &transfer->places[plan->tensors[i]], *now = now_at(&transfer->upload, *place);

        if (*place != now) /* that of a tensor without bytes stays: somebody may be looking at it */
            *place = now;
    }
}

int tnd_upload_begin(struct tnd_transfer *transfer, struct tnd_err *err)
{
    struct tnd_upload *upload = &transfer->upload;
    const struct tnd_device_ops *ops = upload->device->ops;
    int r = ops->ready ? ops->ready(upload->device, false, err) : 1;

    if (r <= 0)
        return r;
    r = upload->block_bytes ? ops->block_alloc(upload->device, upload->block, upload->block_bytes, err) : 0;
    if (r >= 0)
        r = make_events(upload->device, upload->marks, transfer->plan->stage_count, err);
    if (r >= 0)
        r = make_events(upload->device, upload->slot_free, upload->slot_count, err);
    if (r < 0)
        return r;
    if (upload->block_bytes)
        make_places_real(transfer);
    upload->begun = true;
    return 1;
}

void tnd_upload_finish(struct tnd_transfer *transfer)
{
    struct tnd_upload *upload = &transfer->upload;

    for (uint32_t i = 0; upload->device && i < transfer->plan->stage_count; i++)
        if (upload->marks[i])
            upload->device->ops->event_destroy(upload->device, upload->marks[i]);
    for (uint32_t i = 0; upload->device && i < upload->slot_count; i++)
        if (upload->slot_free[i])
            upload->device->ops->event_destroy(upload->device, upload->slot_free[i]);
    upload->device = NULL;
}

void tnd_upload_tell(struct tnd_transfer *transfer)
{
    struct tnd_device *device = transfer->upload.device;
    const char *complaint = device && device->ops->complaint ? device->ops->complaint(device) : NULL;

    if (complaint)
        tnd_reasons_add(&transfer->reasons, "%s", complaint);
}

void tnd_upload_restart(struct tnd_transfer *transfer, uint32_t stage, uint32_t slot)
{
    const struct tnd_stage *planned = &transfer->plan->stages[stage];
    struct tnd_upload *upload = &transfer->upload;
    struct tnd_err err = {0};

    upload->unplaced[stage] = 0;
    for (uint32_t i = planned->window_first; i < planned->window_first + planned->window_count; i++)
        upload->unplaced[stage] += transfer->arrived[i] ? 0 : transfer->plan->windows[i].piece_count;
    if (!upload->begun) /* nobody has read a slot yet */
        return;
    if (slot < upload->slot_count && upload->device->ops->hold(upload->device, upload->slot_free[slot], &err) < 0)
        tnd_transfer_keep_error(transfer, &err);
}

/* ---- There ------------------------------------------------------------------------------------------------- */

/* All pieces of a stage are queued: what a consumer's stream waits for is known now. */
static void mark(struct tnd_transfer *transfer, uint32_t stage)
{
    struct tnd_upload *upload = &transfer->upload;
    struct tnd_err err = {0};

    if (transfer->fetches && tnd_fetch_check(transfer, stage) < 0)
        return;
    if (upload->device->ops->mark(upload->device, upload->marks[stage], &err) < 0) {
        tnd_transfer_keep_error(transfer, &err);
        return;
    }
    tnd_readiness_mark(&transfer->readiness, stage);
}

bool tnd_upload_may_submit(struct tnd_transfer *transfer)
{
    struct tnd_err err = {0};
    int r = !transfer->upload.device || transfer->upload.begun ? 1 : tnd_upload_begin(transfer, &err);

    if (r < 0)
        tnd_transfer_keep_error(transfer, &err);
    return r != 0;
}

bool tnd_upload_may_begin(const struct tnd_transfer *transfer)
{
    const struct tnd_upload *upload = &transfer->upload;

    return upload->device && !upload->begun && upload->device->ops->ready(upload->device, false, NULL) != 0;
}

/* Bytes of a chunk that the device converts. */
static uint64_t count_converted(const struct tnd_chunk *chunk)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < chunk->read.span_count; i++)
        bytes += chunk->read.spans[i].kernel ? chunk->read.spans[i].bytes : 0;
    return bytes;
}

void tnd_upload_submit(struct tnd_pipeline *pipeline, struct tnd_chunk *chunk)
{
    struct tnd_transfer *transfer = chunk->transfer;
    struct tnd_device *device = transfer->upload.device;
    const struct tnd_plan *plan = transfer->plan;
    const struct tnd_window *window = &plan->windows[chunk->window];
    struct tnd_err why = {0}, err = {0};

    tnd_transfer_account(transfer, pipeline->options.now_ns());
    tnd_chunk_begin(chunk, TND_TRACE_UPLOAD, transfer->accounted_ns);
    if (device->ops->place(device, chunk->buffer, chunk->read.spans, chunk->read.span_count, &chunk->ticket,
                           &why) < 0) {
        tnd_fail(&err, -EIO, "%s: tensor %s at offset %llu, buffer %u: %s", transfer->files[window->file].path,
                 plan->model->tensors[plan->pieces[window->piece_first].tensor].name,
                 (unsigned long long)window->offset, (uint32_t)(chunk - pipeline->pool.chunks), why.text);
        tnd_transfer_keep_error(transfer, &err);
        tnd_chunk_drop(chunk);
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        return;
    }
    transfer->working++;
    tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_COPYING);
    chunk->next = NULL;
    *pipeline->copying_tail = chunk;
    pipeline->copying_tail = &chunk->next;
    pipeline->look_ns = LOOK_NS_MIN;
    for (uint32_t i = 0; i < window->piece_count; i++) {
        uint32_t stage = tnd_plan_stage(plan, plan->pieces[window->piece_first + i].tensor);

        if (--transfer->upload.unplaced[stage] == 0)
            mark(transfer, stage);
    }
}

/* ---- And back ---------------------------------------------------------------------------------------------- */

bool tnd_upload_collect(struct tnd_pipeline *pipeline)
{
    bool moved = false;

    while (pipeline->copying) {
        struct tnd_chunk *chunk = pipeline->copying;
        struct tnd_transfer *transfer = chunk->transfer;
        struct tnd_device *device = transfer->upload.device;
        uint32_t window = chunk->window;
        struct tnd_chunk_work work = {0};
        struct tnd_err err = {0};
        int r = device->ops->done(device, chunk->ticket, &err);

        if (r == 0)
            break;
        pipeline->copying = chunk->next;
        if (!pipeline->copying)
            pipeline->copying_tail = &pipeline->copying;
        tnd_transfer_account(transfer, pipeline->options.now_ns());
        tnd_chunk_end(chunk, TND_TRACE_UPLOAD, transfer->accounted_ns);
        if (r > 0) {
            work.converted_bytes = count_converted(chunk);
            device->ops->range(device, chunk->ticket, &work.range);
        }
        tnd_transfer_worked(transfer, &work);
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        if (r < 0)
            tnd_transfer_keep_error(transfer, &err);
        else
            tnd_transfer_arrived(transfer, window);
        moved = true;
    }
    if (moved)
        pipeline->look_ns = LOOK_NS_MIN;
    return moved;
}

int64_t tnd_upload_due(struct tnd_pipeline *pipeline, int64_t timeout_ns)
{
    int64_t due = (int64_t)pipeline->look_ns;

    if (!pipeline->copying)
        return timeout_ns;
    pipeline->look_ns = tnd_min(2 * pipeline->look_ns, LOOK_NS_MAX);
    return timeout_ns < 0 || timeout_ns > due ? due : timeout_ns;
}
