/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/chunk.h"

#include "base/clock.h"
#include "device/device.h"
#include "kernels/copy.h"
#include "model/dtype.h"
#include "model/model.h"
#include "pipeline/pipeline.h"

/* On the thread that took the chunk through it: the engine of a read is the driver's to ask for. */
static void trace(const struct tnd_chunk *chunk, enum tnd_trace_kind kind, uint32_t worker, uint64_t start_ns,
                  uint64_t end_ns)
{
    const struct tnd_transfer *transfer = chunk->transfer;
    const struct tnd_plan *plan = transfer->plan;
    const struct tnd_piece *first = &plan->pieces[plan->windows[chunk->window].piece_first];

    if (transfer->trace.write)
        tnd_trace_tell(&transfer->trace, &(struct tnd_trace_event){
            .kind = kind,
            .engine = kind == TND_TRACE_READ ? tnd_io_engine_of(chunk->pipeline->io, &chunk->read) : TND_ENGINE_AUTO,
            .slot = (uint32_t)(chunk - chunk->pipeline->pool.chunks),
            .worker = worker,
            .start_ns = start_ns,
            .end_ns = end_ns,
            .offset = chunk->read.offset,
            .bytes = chunk->read.bytes,
            .tensor = &plan->model->tensors[first->tensor],
        });
}

void tnd_chunk_begin(struct tnd_chunk *chunk, enum tnd_trace_kind kind, uint64_t now_ns)
{
    struct tnd_device *device = chunk->transfer->upload.device;

    chunk->begun_ns = now_ns;
    if (device && device->ops->profile_begin)
        chunk->range = device->ops->profile_begin(device, kind == TND_TRACE_READ ? "read" : "upload",
                                                  chunk->read.bytes);
}

void tnd_chunk_drop(const struct tnd_chunk *chunk)
{
    struct tnd_device *device = chunk->transfer->upload.device;

    if (device && device->ops->profile_end)
        device->ops->profile_end(device, chunk->range);
}

void tnd_chunk_end(const struct tnd_chunk *chunk, enum tnd_trace_kind kind, uint64_t now_ns)
{
    tnd_chunk_drop(chunk);
    trace(chunk, kind, UINT32_MAX, chunk->begun_ns, now_ns);
}

/* The element counts of a span that a kernel takes. */
static size_t span_elements(const struct tnd_span *span)
{
    const struct tnd_dtype_info *from = tnd_dtype_info(span->kernel->from);

    return (size_t)span->bytes / from->block_bytes * from->block_elements;
}

static void place_span(const struct tnd_span *span, const uint8_t *source, struct tnd_chunk_work *work)
{
    if (span->kernel) {
        span->kernel->run(span->destination, source, span_elements(span), &work->range);
        work->converted_bytes += span->bytes;
    } else {
        tnd_copy_stream(span->destination, source, span->bytes);
    }
}

static enum tnd_trace_kind kind_of(const struct tnd_chunk *chunk, const struct tnd_chunk_work *work)
{
    if (chunk->landing != TND_LAND_POOL)
        return TND_TRACE_DIGEST;
    return work->converted_bytes ? TND_TRACE_CONVERT : TND_TRACE_COPY;
}

void tnd_chunk_work(struct tnd_job *job, uint32_t worker)
{
    struct tnd_chunk *chunk = (struct tnd_chunk *)((char *)job - offsetof(struct tnd_chunk, job));
    struct tnd_pipeline *pipeline = chunk->pipeline;
    struct tnd_transfer *transfer = chunk->transfer;
    uint32_t piece_first = transfer->plan->windows[chunk->window].piece_first;
    struct tnd_chunk_work work = {0};
    uint64_t start = tnd_now_ns(), end;

    for (uint32_t i = 0; i < chunk->read.span_count; i++) {
        const struct tnd_span *span = &chunk->read.spans[i];
        const uint8_t *source = chunk->landing == TND_LAND_POOL ? chunk->buffer + span->window_offset : NULL;

        if (source && !tnd_span_is_mapped(&chunk->read, span)) /* beside one that is converted */
            place_span(span, source, &work);
        if (transfer->digests) {
            uint64_t placed = tnd_now_ns();

            tnd_digests_placed(transfer->digests, piece_first + i, span->kernel ? NULL : source);
            work.digest_ns += tnd_now_ns() - placed;
        }
    }
    end = tnd_now_ns();
    *(work.converted_bytes ? &work.convert_ns : &work.copy_ns) = end - start - work.digest_ns;
    chunk->work = work;
    trace(chunk, kind_of(chunk, &work), worker, start, end);

    pthread_mutex_lock(&pipeline->mutex);
    chunk->next = NULL;
    *pipeline->worked_tail = chunk;
    pipeline->worked_tail = &chunk->next;
    pthread_mutex_unlock(&pipeline->mutex);
    tnd_pipeline_kick(pipeline);
}
