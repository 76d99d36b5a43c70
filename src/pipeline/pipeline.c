/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pipeline.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "kernels/copy.h"
#include "model/model.h"

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
    r = tnd_pool_init(&pipeline->pool, &options->io.allocator, pipeline->io, options->chunk_bytes,
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

/* ---- One transfer ------------------------------------------------------------------------------------------ */

/* Adds the time since the last change to what was going on in it; called before each change. */
static void account(const struct tnd_pipeline *pipeline, struct tnd_transfer *transfer)
{
    uint64_t now = pipeline->options.now_ns();
    uint64_t ns = now - transfer->accounted_ns;

    if (transfer->reading)
        transfer->stats.read_busy_ns += ns;
    if (transfer->reading && transfer->working)
        transfer->stats.overlap_ns += ns;
    transfer->accounted_ns = now;
}

static bool stopped(const struct tnd_transfer *transfer)
{
    return transfer->first_error.result || atomic_load(&transfer->canceled);
}

static void keep_error(struct tnd_transfer *transfer, const struct tnd_err *err)
{
    if (!transfer->first_error.result)
        transfer->first_error = *err;
}

/* The tensor that has the byte at a file's offset, by the pieces of the window that was read. */
static const char *tensor_at(const struct tnd_transfer *transfer, const struct tnd_window *window, uint64_t offset)
{
    const struct tnd_piece *pieces = &transfer->plan->pieces[window->piece_first];
    uint32_t tensor = pieces[0].tensor;

    for (uint32_t i = 0; i < window->piece_count; i++)
        if (window->offset + pieces[i].window_offset <= offset)
            tensor = pieces[i].tensor;
    return transfer->plan->model->tensors[tensor].name;
}

static void fail_read(struct tnd_transfer *transfer, const struct tnd_chunk *chunk)
{
    const struct tnd_io_read *read = &chunk->read;
    const char *tensor = tensor_at(transfer, &transfer->plan->windows[chunk->window], read->error_offset);
    struct tnd_err err = {0};

    if (read->result == -EBADMSG)
        tnd_fail(&err, -EBADMSG,
                 "%s: cut while it was loaded: tensor %s, expected bytes up to %llu, found the end at %llu",
                 read->file->path, tensor, (unsigned long long)(read->offset + read->bytes_wanted),
                 (unsigned long long)read->error_offset);
    else
        tnd_fail(&err, read->result, "%s: read of tensor %s at offset %llu failed: %s", read->file->path, tensor,
                 (unsigned long long)read->error_offset, strerror(-read->result));
    keep_error(transfer, &err);
}

/* Opens the way to a file when its first window is due: a model of hundreds of shards would else wait for all of them.
 * False, with the error kept, when there is none. */
static bool attach(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer, struct tnd_io_file *file)
{
    struct tnd_err err = {0};

    if (tnd_io_attach(pipeline->io, file, &err) < 0) {
        tnd_io_detach(pipeline->io, file);
        keep_error(transfer, &err);
        return false;
    }
    if (!transfer->attached) /* from now on the destination is needed */
        tnd_transfer_touch(transfer, pipeline->options.workers);
    transfer->attached = true;
    return true;
}

/* Lets go of the files that were read, and sees whether they are still what they were. A load that failed anyway has
 * its reason. */
static void detach(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer)
{
    struct tnd_err err = {0};

    for (uint32_t i = 0; i < transfer->file_count; i++) {
        struct tnd_io_file *file = &transfer->files[i];

        if (!file->engine)
            continue;
        tnd_io_detach(pipeline->io, file);
        if (!transfer->first_error.result && file->source && tnd_file_check_identity(file->source, &err) < 0)
            keep_error(transfer, &err);
    }
}

/* All is in, or nothing more will come: out of the pipeline, which does not look at it again. */
static void end(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer)
{
    struct tnd_err err = {0};

    uint64_t bytes = atomic_load(&transfer->readiness.bytes_ready);

    if (atomic_load(&transfer->canceled) && bytes < transfer->plan->sizes.tensor_bytes) {
        tnd_fail(&err, -ECANCELED, "canceled after %llu of %llu bytes", (unsigned long long)bytes,
                 (unsigned long long)transfer->plan->sizes.tensor_bytes);
        keep_error(transfer, &err);
    }
    if (transfer->in_place == TND_ON && transfer->stats.pool_bytes_read)
        tnd_reasons_add(&transfer->reasons, "%llu bytes went through the pool: their place does not suit their offset",
                        (unsigned long long)transfer->stats.pool_bytes_read);
    detach(pipeline, transfer);
    atomic_store(&transfer->touch_stop, true);
    if (transfer->fresh)
        tnd_hide_from_children(transfer->fresh, transfer->fresh_bytes, false);
    tnd_readiness_end(&transfer->readiness, &transfer->first_error);
}

/* ---- Chunks, downstream first ------------------------------------------------------------------------------ */

static void arrived(struct tnd_transfer *transfer, uint32_t window_index)
{
    const struct tnd_window *window = &transfer->plan->windows[window_index];
    const struct tnd_piece *pieces = &transfer->plan->pieces[window->piece_first];

    for (uint32_t i = 0; i < window->piece_count; i++)
        tnd_readiness_piece(&transfer->readiness, pieces[i].tensor, pieces[i].bytes);
}

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

        account(pipeline, transfer);
        transfer->working--;
        transfer->stats.work_busy_ns += chunk->work_ns;
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        arrived(transfer, window);
        chunk = next;
    }
    return true;
}

static void count_read(const struct tnd_pipeline *pipeline, struct tnd_transfer *transfer,
                       const struct tnd_chunk *chunk)
{
    const struct tnd_io_read *read = &chunk->read;
    struct tnd_transfer_stats *stats = &transfer->stats;
    uint64_t bytes = read->bytes_done;

    stats->bytes_read += bytes;
    stats->read_count++;
    stats->retries += read->retries;
    stats->direct_bytes_read += read->was_direct ? bytes : 0;
    stats->pool_bytes_read += chunk->landing == TND_LAND_POOL ? bytes : 0;
    stats->engine_bytes[tnd_io_engine_of(pipeline->io, read)] += bytes;
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

    account(pipeline, transfer);
    transfer->reading--;
    pipeline->reading--;
    count_read(pipeline, transfer, chunk);
    learn(pipeline, transfer, chunk);
    if (chunk->read.result < 0) {
        fail_read(transfer, chunk);
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
        return;
    }
    if (chunk->landing == TND_LAND_POOL) {
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_READY);
        chunk->next = NULL;
        transfer->ready++;
        *pipeline->ready_tail = chunk;
        pipeline->ready_tail = &chunk->next;
        return;
    }
    tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
    arrived(transfer, window);
}

static bool reap_reads(struct tnd_pipeline *pipeline, int64_t timeout_ns)
{
    struct tnd_io_read *reads[POLL_COUNT];
    uint32_t count = tnd_io_poll(pipeline->io, timeout_ns, reads, POLL_COUNT);

    for (uint32_t i = 0; i < count; i++)
        read_done(pipeline, (struct tnd_chunk *)((char *)reads[i] - offsetof(struct tnd_chunk, read)));
    return count > 0;
}

/* On a worker: the pieces of one buffer to their places. */
static void chunk_work(struct tnd_job *job)
{
    struct tnd_chunk *chunk = (struct tnd_chunk *)((char *)job - offsetof(struct tnd_chunk, job));
    struct tnd_pipeline *pipeline = chunk->pipeline;
    uint64_t start = tnd_now_ns();

    for (uint32_t i = 0; i < chunk->read.span_count; i++) {
        const struct tnd_span *span = &chunk->read.spans[i];

        tnd_copy_stream(span->destination, chunk->buffer + span->window_offset, span->bytes);
    }
    chunk->work_ns = tnd_now_ns() - start;

    pthread_mutex_lock(&pipeline->mutex);
    chunk->next = NULL;
    *pipeline->worked_tail = chunk;
    pipeline->worked_tail = &chunk->next;
    pthread_mutex_unlock(&pipeline->mutex);
    tnd_pipeline_kick(pipeline);
}

static bool dispatch_ready(struct tnd_pipeline *pipeline)
{
    uint32_t working_max = (uint32_t)tnd_max(1, tnd_workers_count(pipeline->options.workers)) * WORKING_A_WORKER;
    bool moved = false;

    while (pipeline->ready && pipeline->pool.counts[TND_CHUNK_WORKING] < working_max) {
        struct tnd_chunk *chunk = pipeline->ready;
        struct tnd_transfer *transfer = chunk->transfer;

        moved = true;
        pipeline->ready = chunk->next;
        transfer->ready--;
        if (stopped(transfer)) {
            tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_FREE);
            continue;
        }
        account(pipeline, transfer);
        transfer->working++;
        tnd_pool_move(&pipeline->pool, chunk, TND_CHUNK_WORKING);
        chunk->job.run = chunk_work;
        tnd_workers_submit(pipeline->options.workers, &chunk->job, true);
    }
    if (!pipeline->ready)
        pipeline->ready_tail = &pipeline->ready;
    return moved;
}

/* ---- New reads --------------------------------------------------------------------------------------------- */

static enum tnd_landing choose_landing(struct tnd_pipeline *pipeline, const struct tnd_transfer *transfer,
                                       uint32_t window_index)
{
    const struct tnd_window *window = &transfer->plan->windows[window_index];

    if (transfer->files[window->file].map)
        return TND_LAND_MAP;
    if (tnd_io_can_scatter(&transfer->files[window->file]))
        return TND_LAND_SPANS;
    if (!transfer->homes[window_index] || transfer->in_place == TND_OFF)
        return TND_LAND_POOL;
    if (transfer->in_place == TND_ON || tnd_trial_places(&pipeline->trial, transfer->plan->sizes.tensor_bytes))
        return TND_LAND_PLACE;
    return TND_LAND_POOL;
}

/* Whether the window's landing was the trial's to choose. */
static bool is_tried(const struct tnd_transfer *transfer, uint32_t window_index, enum tnd_landing landing)
{
    return (landing == TND_LAND_POOL || landing == TND_LAND_PLACE) && transfer->in_place == TND_AUTO &&
           transfer->homes[window_index];
}

/* Starts the read of a transfer's next window; false when there is no chunk for it. */
static bool issue_one(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer)
{
    uint32_t index = transfer->window_next;
    const struct tnd_window *window = &transfer->plan->windows[index];
    const struct tnd_piece *pieces = &transfer->plan->pieces[window->piece_first];
    const struct tnd_piece *last = &pieces[window->piece_count - 1];
    struct tnd_io_file *file = &transfer->files[window->file];
    enum tnd_landing landing;
    struct tnd_chunk *chunk;

    if (!file->engine && !attach(pipeline, transfer, file))
        return true; /* an error to go on from */
    landing = choose_landing(pipeline, transfer, index);
    chunk = tnd_pool_take(&pipeline->pool, landing != TND_LAND_POOL);
    if (!chunk)
        return false;
    account(pipeline, transfer);
    chunk->tried = is_tried(transfer, index, landing);
    if (chunk->tried)
        tnd_trial_issued(&pipeline->trial, transfer->plan->sizes.tensor_bytes, landing == TND_LAND_PLACE,
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
    transfer->window_next++;
    transfer->reading++;
    transfer->stats.depth_max = (uint32_t)tnd_max(transfer->stats.depth_max, transfer->reading);
    pipeline->reading++;
    tnd_io_submit(pipeline->io, &chunk->read);
    return true;
}

static bool wants_reads(const struct tnd_transfer *transfer)
{
    return transfer->window_next < transfer->plan->window_count && !stopped(transfer);
}

/* Keeps depth reads in flight, a window of each transfer in turn. */
static bool issue_reads(struct tnd_pipeline *pipeline)
{
    bool moved = false;
    uint32_t idle = 0; /* transfers in a row that want nothing */

    while (pipeline->active && pipeline->reading < pipeline->depth.depth && idle < pipeline->active_count) {
        struct tnd_transfer *transfer;

        if (!*pipeline->turn)
            pipeline->turn = &pipeline->active;
        transfer = *pipeline->turn;
        if (!wants_reads(transfer)) {
            idle++;
        } else if (issue_one(pipeline, transfer)) {
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

        if (transfer->reading || transfer->ready || transfer->working || wants_reads(transfer)) {
            at = &transfer->next;
            continue;
        }
        *at = transfer->next;
        if (pipeline->turn == &transfer->next)
            pipeline->turn = at;
        pipeline->active_count--;
        tnd_depth_interrupted(&pipeline->depth);
        moved = true;
        end(pipeline, transfer);
    }
    return moved;
}

bool tnd_pipeline_tick(struct tnd_pipeline *pipeline)
{
    bool moved;

    atomic_store(&pipeline->mail, false);
    moved = collect_worked(pipeline);
    moved |= dispatch_ready(pipeline);
    moved |= adopt_added(pipeline);
    moved |= issue_reads(pipeline);
    moved |= end_finished(pipeline);
    return moved;
}

bool tnd_pipeline_wait(struct tnd_pipeline *pipeline, int64_t timeout_ns)
{
    tnd_waker_prepare(&pipeline->waker);
    return reap_reads(pipeline, atomic_load(&pipeline->mail) ? 0 : timeout_ns);
}
