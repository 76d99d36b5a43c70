/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pipeline.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "device/device.h"
#include "pipeline/hang.h"

#define POLL_COUNT 32
#define WORKING_A_WORKER 2 /* one it copies, one it finds when it is done */

/* ---- Life -------------------------------------------------------------------------------------------------- */

int tnd_pipeline_init(struct tnd_pipeline *pipeline, const struct tnd_pipeline_options *options, struct tnd_err *err)
{
    int r;

    memset(pipeline, 0, sizeof(*pipeline));
    pipeline->options = *options;
    if (!pipeline->options.now_ns)
        pipeline->options.now_ns = tnd_now_ns;
    r = tnd_waker_init(&pipeline->waker);
    if (r < 0)
        return tnd_fail(err, -ENOMEM, "no descriptor for an eventfd: %s", strerror(-r));
    pthread_mutex_init(&pipeline->mutex, NULL);
    pipeline->worked_tail = &pipeline->worked;
    pipeline->ready_tail = &pipeline->ready;
    pipeline->copying_tail = &pipeline->copying;
    pipeline->turn = &pipeline->active;
    return 0;
}

int tnd_pipeline_start(struct tnd_pipeline *pipeline, struct tnd_err *err)
{
    struct tnd_pipeline_options *options = &pipeline->options;
    uint32_t count_max = (uint32_t)tnd_max(1, options->pool_bytes_max / options->chunk_bytes);
    int r;

    options->io.waker = &pipeline->waker;
    options->io.now_ns = options->now_ns;
    options->io.alignment = TND_PLAN_ALIGNMENT;
    options->io.buffer_count = count_max;
    options->io.depth = options->depth_max;
    tnd_depth_init(&pipeline->depth, options->depth, options->depth_max);
    r = tnd_io_create(&pipeline->io, &options->io, err);
    if (r < 0)
        return r;
    r = tnd_pool_init(&pipeline->pool, &options->io.allocator, pipeline->io, options->device, options->chunk_bytes,
                      options->depth + TND_SPARE_BUFFERS, count_max, err);
    if (r < 0) {
        tnd_io_destroy(&pipeline->io);
        return r;
    }
    pipeline->started = true;
    return 0;
}

void tnd_pipeline_stop(struct tnd_pipeline *pipeline)
{
    if (!pipeline->started)
        return;
    assert(!pipeline->active && !pipeline->reading);
    if (pipeline->pool.counts[TND_CHUNK_FAILED])
        tnd_io_abandon(&pipeline->io);
    else
        tnd_io_destroy(&pipeline->io); /* lets go of the buffers before they are unmapped */
    tnd_pool_finish(&pipeline->pool);
    pipeline->started = false;
}

void tnd_pipeline_finish(struct tnd_pipeline *pipeline)
{
    pthread_mutex_destroy(&pipeline->mutex);
    tnd_waker_finish(&pipeline->waker);
}

void tnd_pipeline_add(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer)
{
    pthread_mutex_lock(&pipeline->mutex);
    transfer->next = pipeline->added;
    pipeline->added = transfer;
    pthread_mutex_unlock(&pipeline->mutex);
    tnd_pipeline_kick(pipeline);
}

void tnd_pipeline_reject(struct tnd_pipeline *pipeline, const struct tnd_err *err)
{
    struct tnd_transfer *transfer;

    pthread_mutex_lock(&pipeline->mutex);
    transfer = pipeline->added;
    pipeline->added = NULL;
    pthread_mutex_unlock(&pipeline->mutex);
    while (transfer) {
        struct tnd_transfer *next = transfer->next;

        tnd_readiness_end(&transfer->readiness, err);
        transfer = next;
    }
}

void tnd_pipeline_kick(struct tnd_pipeline *pipeline)
{
    atomic_store(&pipeline->mail, true);
    tnd_waker_signal(&pipeline->waker);
}

bool tnd_pipeline_idle(struct tnd_pipeline *pipeline)
{
    return !pipeline->active && !atomic_load(&pipeline->mail);
}

/* ---- Chunks, downstream first ------------------------------------------------------------------------------ */

static bool collect_worked(struct tnd_pipeline *pipeline)
{
    struct tnd_chunk *chunk;

    pthread_mutex_lock(&pipeline->mutex);
    chunk = pipeline->worked;
    pipeline->worked = NULL;
    pipeline->worked_tail = &pipeline->worked;
    pthread_mutex_unlock(&pipeline->mutex);
    if (!chunk)
        return false;
    while (chunk) {
        struct tnd_chunk *next = chunk->next;
        struct tnd_transfer *transfer = chunk->transfer;
        uint32_t window = chunk->window;

        tnd_transfer_account(transfer, pipeline->options.now_ns());
        tnd_transfer_worked(transfer, &chunk->work);
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        tnd_transfer_arrived(transfer, window);
        chunk = next;
    }
    return true;
}

/* What a read teaches about landing and depth. */
static void learn(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer, const struct tnd_chunk *chunk)
{
    if (chunk->tried && tnd_trial_finished(&pipeline->trial, chunk->landing == TND_LAND_PLACE, chunk->read.bytes,
                                           transfer->accounted_ns))
        tnd_reasons_add(&transfer->reasons, "measured: %.2f GB/s through the pool, %.2f in place",
                        pipeline->trial.pool_rate, pipeline->trial.place_rate);
    /* One thing is tried at a time. */
    if ((chunk->landing == TND_LAND_POOL || chunk->landing == TND_LAND_PLACE) && !tnd_trial_running(&pipeline->trial))
        tnd_depth_finished(&pipeline->depth, chunk->read.bytes, transfer->accounted_ns);
}

static void read_done(struct tnd_pipeline *pipeline, struct tnd_chunk *chunk)
{
    struct tnd_transfer *transfer = chunk->transfer;
    uint32_t window = chunk->window;

    if (chunk->state == TND_CHUNK_FAILED) { /* after all; its transfer has ended */
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        return;
    }
    tnd_transfer_account(transfer, pipeline->options.now_ns());
    transfer->progress_ns = transfer->accounted_ns;
    transfer->suspected_ns = 0;
    transfer->reading--;
    pipeline->reading--;
    tnd_chunk_end(chunk, TND_TRACE_READ, transfer->accounted_ns);
    tnd_transfer_read_done(transfer, pipeline->io, &chunk->read, chunk->landing == TND_LAND_POOL);
    learn(pipeline, transfer, chunk);
    if (chunk->read.result < 0) {
        tnd_transfer_fail_read(transfer, window, &chunk->read);
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        return;
    }
    if (chunk->landing == TND_LAND_POOL || transfer->digests) {
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_READY);
        chunk->next = NULL;
        transfer->ready++;
        *pipeline->ready_tail = chunk;
        pipeline->ready_tail = &chunk->next;
        return;
    }
    tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
    tnd_transfer_arrived(transfer, window);
}

static bool reap_reads(struct tnd_pipeline *pipeline, int64_t timeout_ns)
{
    struct tnd_io_read *reads[POLL_COUNT];
    uint32_t count = tnd_io_poll(pipeline->io, timeout_ns, reads, POLL_COUNT);

    for (uint32_t i = 0; i < count; i++)
        read_done(pipeline, (struct tnd_chunk *)((char *)reads[i] - offsetof(struct tnd_chunk, read)));
    return count > 0;
}

static bool dispatch_ready(struct tnd_pipeline *pipeline)
{
    uint32_t working_max = (uint32_t)tnd_max(1, tnd_workers_count(pipeline->options.workers)) * WORKING_A_WORKER;
    bool moved = false;

    while (pipeline->ready && pipeline->pool.counts[TND_CHUNK_WORKING] < working_max) {
        struct tnd_chunk *chunk = pipeline->ready;
        struct tnd_transfer *transfer = chunk->transfer;

        if (!tnd_transfer_stopped(transfer) &&
            (pipeline->pool.counts[TND_CHUNK_COPYING] == TND_DEVICE_TICKETS || !tnd_upload_may_submit(transfer)))
            break;
        moved = true;
        pipeline->ready = chunk->next;
        transfer->ready--;
        if (tnd_transfer_stopped(transfer)) {
            tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
            continue;
        }
        if (transfer->upload.device) {
            tnd_upload_submit(pipeline, chunk);
            continue;
        }
        tnd_transfer_account(transfer, pipeline->options.now_ns());
        transfer->working++;
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_WORKING);
        chunk->job.run = tnd_chunk_work;
        tnd_workers_submit(pipeline->options.workers, &chunk->job, true);
    }
    if (!pipeline->ready)
        pipeline->ready_tail = &pipeline->ready;
    return moved;
}

/* ---- New reads --------------------------------------------------------------------------------------------- */

static bool converts(const struct tnd_transfer *transfer, const struct tnd_window *window)
{
    for (uint32_t i = 0; i < window->piece_count; i++)
        if (transfer->spans[window->piece_first + i].kernel)
            return true;
    return false;
}

/* What the trial takes a load for: one that waits for its consumer would have it measure the consumer. */
static uint64_t trial_bytes(const struct tnd_transfer *transfer)
{
    return transfer->fetches ? 0 : transfer->plan->sizes.tensor_bytes;
}

static enum tnd_landing choose_landing(struct tnd_pipeline *pipeline, const struct tnd_transfer *transfer,
                                       uint32_t window_index)
{
    const struct tnd_window *window = &transfer->plan->windows[window_index];

    if (transfer->upload.device || converts(transfer, window))
        return TND_LAND_POOL;
    if (transfer->files[window->file].map)
        return TND_LAND_MAP;
    if (tnd_io_can_scatter(&transfer->files[window->file]))
        return TND_LAND_SPANS;
    if (!transfer->homes[window_index] || transfer->in_place == TND_OFF)
        return TND_LAND_POOL;
    if (transfer->in_place == TND_ON || tnd_trial_places(&pipeline->trial, trial_bytes(transfer)))
        return TND_LAND_PLACE;
    return TND_LAND_POOL;
}

/* Whether the window's landing was the trial's to choose. */
static bool is_tried(const struct tnd_transfer *transfer, uint32_t window_index, enum tnd_landing landing)
{
    return (landing == TND_LAND_POOL || landing == TND_LAND_PLACE) && transfer->in_place == TND_AUTO &&
           transfer->homes[window_index] && trial_bytes(transfer);
}

/* Starts the read of a transfer's window; false when there is no chunk for it. */
static bool issue_one(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer, uint32_t index)
{
    const struct tnd_window *window = &transfer->plan->windows[index];
    const struct tnd_piece *pieces = &transfer->plan->pieces[window->piece_first];
    const struct tnd_piece *last = &pieces[window->piece_count - 1];
    struct tnd_io_file *file = &transfer->files[window->file];
    enum tnd_landing landing;
    struct tnd_chunk *chunk;

    if (!file->engine && !tnd_transfer_attach(transfer, file, pipeline->io, pipeline->options.workers))
        return true; /* an error to go on from */
    if (transfer->fits_cache)
        tnd_io_through_cache(pipeline->io, file);
    landing = choose_landing(pipeline, transfer, index);
    chunk = tnd_pool_take(&pipeline->pool, landing != TND_LAND_POOL);
    if (!chunk && pipeline->pool.counts[TND_CHUNK_FAILED] == pipeline->pool.chunk_count) {
        tnd_transfer_starve(transfer, index);
        return true;
    }
    if (!chunk)
        return false;
    tnd_transfer_account(transfer, pipeline->options.now_ns());
    chunk->tried = is_tried(transfer, index, landing);
    if (chunk->tried)
        tnd_trial_issued(&pipeline->trial, trial_bytes(transfer), landing == TND_LAND_PLACE,
                         window->bytes);
    tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_READING);
    chunk->pipeline = pipeline;
    chunk->transfer = transfer;
    chunk->window = index;
    chunk->landing = landing;
    chunk->read = (struct tnd_io_read){
        .file = file,
        .offset = window->offset,
        .bytes = window->bytes,
        .bytes_wanted = last->window_offset + last->bytes,
        .buffer_index = -1,
        .spans = &transfer->spans[window->piece_first],
        .span_count = window->piece_count,
    };
    if (landing == TND_LAND_POOL) {
        chunk->read.buffer = chunk->buffer;
        chunk->read.buffer_index = chunk->buffer_index;
    } else if (landing == TND_LAND_PLACE) {
        chunk->read.buffer = transfer->homes[index];
    } else if (landing == TND_LAND_MAP) {
        chunk->read.buffer = file->map + window->offset;
    }
    tnd_transfer_issued(transfer, index);
    if (!transfer->reading)
        transfer->progress_ns = transfer->accounted_ns;
    if (!pipeline->reading)
        tnd_depth_interrupted(&pipeline->depth);
    transfer->reading++;
    transfer->stats.depth_max = (uint32_t)tnd_max(transfer->stats.depth_max, transfer->reading);
    pipeline->reading++;
    tnd_chunk_begin(chunk, TND_TRACE_READ, transfer->accounted_ns);
    tnd_io_submit(pipeline->io, &chunk->read);
    return true;
}

/* Keeps depth reads in flight, a window of each transfer in turn. */
static bool issue_reads(struct tnd_pipeline *pipeline)
{
    bool moved = false;
    uint32_t idle = 0; /* transfers in a row that want nothing */

    while (pipeline->active && pipeline->reading < pipeline->depth.depth && idle < pipeline->active_count) {
        struct tnd_transfer *transfer;
        uint32_t window;

        if (!*pipeline->turn)
            pipeline->turn = &pipeline->active;
        transfer = *pipeline->turn;
        if (!tnd_transfer_next(transfer, &window)) {
            idle++;
        } else if (issue_one(pipeline, transfer, window)) {
            idle = 0;
            moved = true;
        } else {
            break;
        }
        pipeline->turn = &transfer->next;
    }
    return moved;
}

/* ---- The turn ---------------------------------------------------------------------------------------------- */

static bool adopt_added(struct tnd_pipeline *pipeline)
{
    struct tnd_transfer *transfer;
    bool moved;

    pthread_mutex_lock(&pipeline->mutex);
    transfer = pipeline->added;
    pipeline->added = NULL;
    pthread_mutex_unlock(&pipeline->mutex);
    moved = transfer != NULL;
    while (transfer) {
        struct tnd_transfer *next = transfer->next;

        transfer->accounted_ns = pipeline->options.now_ns();
        transfer->next = pipeline->active;
        pipeline->active = transfer;
        pipeline->active_count++;
        transfer = next;
    }
    if (moved)
        tnd_depth_interrupted(&pipeline->depth);
    return moved;
}

static bool end_finished(struct tnd_pipeline *pipeline)
{
    struct tnd_transfer **at = &pipeline->active;
    bool moved = false;

    while (*at) {
        struct tnd_transfer *transfer = *at;

        if (transfer->reading || transfer->ready || transfer->working || tnd_transfer_goes_on(transfer)) {
            at = &transfer->next;
            continue;
        }
        *at = transfer->next;
        if (pipeline->turn == &transfer->next)
            pipeline->turn = at;
        pipeline->active_count--;
        tnd_depth_interrupted(&pipeline->depth);
        moved = true;
        tnd_transfer_end(transfer, pipeline->io);
    }
    return moved;
}

bool tnd_pipeline_tick(struct tnd_pipeline *pipeline)
{
    bool moved;

    atomic_store(&pipeline->mail, false);
    moved = collect_worked(pipeline);
    moved |= tnd_upload_collect(pipeline);
    moved |= dispatch_ready(pipeline);
    moved |= adopt_added(pipeline);
    moved |= issue_reads(pipeline);
    moved |= end_finished(pipeline);
    return moved;
}

/* What others may have brought since the last turn. */
static bool has_news(const struct tnd_pipeline *pipeline)
{
    return atomic_load(&pipeline->mail) || (pipeline->ready && tnd_upload_may_begin(pipeline->ready->transfer));
}

bool tnd_pipeline_wait(struct tnd_pipeline *pipeline, int64_t timeout_ns)
{
    bool moved;

    timeout_ns = tnd_upload_due(pipeline, timeout_ns);
    timeout_ns = tnd_hang_due(pipeline, timeout_ns);
    tnd_waker_prepare(&pipeline->waker);
    moved = reap_reads(pipeline, has_news(pipeline) ? 0 : timeout_ns);
    if (!moved)
        tnd_hang_give_up(pipeline);
    return moved;
}
