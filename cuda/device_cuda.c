/* SPDX-License-Identifier: Apache-2.0 */
#include "device_cuda.h"

#include <errno.h>

#include "base/bytes.h"
#include "io/io.h"
#include "model/dtype.h"

/* ---- Blocks ------------------------------------------------------------------------------------------------ */

struct block_call {
    struct tnd_cuda_call call;
    struct tnd_device_block *block;
    uint64_t bytes;
};

static int run_block_alloc(struct tnd_cuda_call *call, struct tnd_err *err)
{
    struct block_call *wanted = (struct block_call *)call;
    struct tnd_cuda *cuda = call->cuda;
    size_t free_bytes, all_bytes;
    struct tnd_err why = {0};
    int r = tnd_cuda_check(cuda, cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo", err);

    if (r < 0)
        return r;
    if (wanted->bytes > free_bytes)
        return tnd_fail(err, -ENOMEM, "%s: needs %llu bytes for tensors, %llu of %llu are free", cuda->name,
                        (unsigned long long)wanted->bytes, (unsigned long long)free_bytes,
                        (unsigned long long)all_bytes);
    r = tnd_cuda_check(cuda, cudaMalloc((void **)&wanted->block->data, wanted->bytes), "cudaMalloc", &why);
    if (r < 0)
        return tnd_fail(err, r, "%s: %llu bytes for tensors, %llu of %llu were free", why.text,
                        (unsigned long long)wanted->bytes, (unsigned long long)free_bytes,
                        (unsigned long long)all_bytes);
    return 0;
}

static int cuda_block_alloc(struct tnd_device *device, struct tnd_device_block *block, uint64_t bytes,
                            struct tnd_err *err)
{
    struct block_call wanted = {.call.run = run_block_alloc, .block = block, .bytes = bytes};

    return tnd_cuda_call(tnd_cuda_of(device), &wanted.call, err);
}

static int run_block_free(struct tnd_cuda_call *call, struct tnd_err *err)
{
    return tnd_cuda_check(call->cuda, cudaFree(((struct block_call *)call)->block->data), "cudaFree", err);
}

static void cuda_block_free(struct tnd_device *device, struct tnd_device_block *block)
{
    struct block_call given = {.call.run = run_block_free, .block = block};

    if (block->data)
        tnd_cuda_call(tnd_cuda_of(device), &given.call, NULL);
    block->data = NULL;
}

struct read_call {
    struct tnd_cuda_call call;
    void *buffer;
    const uint8_t *from;
    size_t bytes;
};

static int run_read(struct tnd_cuda_call *call, struct tnd_err *err)
{
    const struct read_call *wanted = (struct read_call *)call;
    struct tnd_cuda *cuda = call->cuda;
    int r = tnd_cuda_check(cuda, cudaMemcpyAsync(wanted->buffer, wanted->from, wanted->bytes, cudaMemcpyDeviceToHost,
                                                 cuda->back),
                           "cudaMemcpyAsync", err);

    return r < 0 ? r : tnd_cuda_check(cuda, cudaStreamSynchronize(cuda->back), "cudaStreamSynchronize", err);
}

static int cuda_read(struct tnd_device *device, void *buffer, const uint8_t *from, size_t bytes, struct tnd_err *err)
{
    struct read_call wanted = {.call.run = run_read, .buffer = buffer, .from = from, .bytes = bytes};

    return bytes ? tnd_cuda_call(tnd_cuda_of(device), &wanted.call, err) : 0;
}

/* ---- Placing ----------------------------------------------------------------------------------------------- */

/* Until nothing is under way: of what went wrong nobody knows how far it got. */
static void drain(struct tnd_cuda *cuda)
{
    tnd_cuda_check(cuda, cudaStreamSynchronize(cuda->copy), "cudaStreamSynchronize", NULL);
    for (uint32_t i = 0; i < cuda->options.stream_count; i++)
        tnd_cuda_check(cuda, cudaStreamSynchronize(cuda->compute[i]), "cudaStreamSynchronize", NULL);
}

static int queue_copy(struct tnd_cuda *cuda, uint8_t *to, const uint8_t *from, size_t bytes, struct tnd_err *err)
{
    return tnd_cuda_check(cuda, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda->copy),
                          "cudaMemcpyAsync", err);
}

static int record(struct tnd_cuda *cuda, cudaEvent_t event, cudaStream_t stream, struct tnd_err *err)
{
    return tnd_cuda_check(cuda, cudaEventRecord(event, stream), "cudaEventRecord", err);
}

static int wait_for(struct tnd_cuda *cuda, cudaStream_t stream, cudaEvent_t event, struct tnd_err *err)
{
    return tnd_cuda_check(cuda, cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent", err);
}

/* Fills the next tile, when the last who converted from it is done, and lets the ticket's stream wait for that. */
static int fill_tile(struct tnd_cuda *cuda, struct tnd_cuda_ticket *ticket, const uint8_t *from, size_t bytes,
                     struct tnd_cuda_tile **ret_tile, struct tnd_err *err)
{
    struct tnd_cuda_tile *tile = &cuda->tiles[cuda->tile_next++ % cuda->tile_count];
    int r = wait_for(cuda, cuda->copy, tile->converted, err);

    if (r >= 0)
        r = queue_copy(cuda, tile->data, from, bytes, err);
    if (r >= 0)
        r = record(cuda, tile->copied, cuda->copy, err);
    if (r >= 0)
        r = wait_for(cuda, cuda->compute[ticket->stream], tile->copied, err);
    ticket->converts = true;
    *ret_tile = tile;
    return r;
}

static int convert(struct tnd_cuda *cuda, const struct tnd_cuda_ticket *ticket, const struct tnd_kernel *kernel,
                   uint8_t *to, const uint8_t *from, uint64_t elements, struct tnd_err *err)
{
    return tnd_cuda_check(cuda,
                          (cudaError_t)tnd_cuda_convert(kernel->from, kernel->to, to, from, elements,
                                                        &cuda->counts[ticket->stream], cuda->compute[ticket->stream]),
                          "tnd_cuda_convert", err);
}

/* A span that no tile holds, by tiles of whole blocks. */
static int convert_long(struct tnd_cuda *cuda, struct tnd_cuda_ticket *ticket, const uint8_t *chunk,
                        const struct tnd_span *span, struct tnd_err *err)
{
    const struct tnd_dtype_info *from = tnd_dtype_info(span->kernel->from), *to = tnd_dtype_info(span->kernel->to);
    uint32_t blocks = span->bytes / from->block_bytes, blocks_max = cuda->options.tile_bytes / from->block_bytes;
    int r = 0;

    for (uint32_t first = 0, count; first < blocks && r >= 0; first += count) {
        struct tnd_cuda_tile *tile;

        count = (uint32_t)tnd_min(blocks - first, blocks_max);
        r = fill_tile(cuda, ticket, chunk + span->window_offset + (size_t)first * from->block_bytes,
                      (size_t)count * from->block_bytes, &tile, err);
        if (r >= 0)
            r = convert(cuda, ticket, span->kernel,
                        span->destination + (size_t)first * from->block_elements * to->block_bytes, tile->data,
                        (uint64_t)count * from->block_elements, err);
        if (r >= 0)
            r = record(cuda, tile->converted, cuda->compute[ticket->stream], err);
    }
    return r;
}

/* Neighbours that one tile holds together: one copy for all of them. */
static int convert_together(struct tnd_cuda *cuda, struct tnd_cuda_ticket *ticket, const uint8_t *chunk,
                            const struct tnd_span *spans, uint32_t count, struct tnd_err *err)
{
    uint32_t start = spans[0].window_offset, end = spans[count - 1].window_offset + spans[count - 1].bytes;
    struct tnd_cuda_tile *tile;
    int r = fill_tile(cuda, ticket, chunk + start, end - start, &tile, err);

    for (uint32_t i = 0; i < count && r >= 0; i++) {
        const struct tnd_dtype_info *from = tnd_dtype_info(spans[i].kernel->from);

        r = convert(cuda, ticket, spans[i].kernel, spans[i].destination, tile->data + (spans[i].window_offset - start),
                    (uint64_t)spans[i].bytes / from->block_bytes * from->block_elements, err);
    }
    return r < 0 ? r : record(cuda, tile->converted, cuda->compute[ticket->stream], err);
}

/* How many spans from the first on are converted and lie within a tile; 0 when the first alone does not. */
static uint32_t count_together(const struct tnd_span *spans, uint32_t count, uint32_t tile_bytes)
{
    uint32_t i = 0;

    while (i < count && spans[i].kernel &&
           spans[i].window_offset + spans[i].bytes - spans[0].window_offset <= tile_bytes)
        i++;
    return i;
}

/* Whether a span goes on where the bytes from first on end, there and here. */
static bool continues(const struct tnd_span *span, const struct tnd_span *first, uint64_t bytes)
{
    return !span->kernel && span->in_block && first->in_block && span->destination == first->destination + bytes &&
           span->window_offset == first->window_offset + bytes;
}

static int place_spans(struct tnd_cuda *cuda, struct tnd_cuda_ticket *ticket, const uint8_t *chunk,
                       const struct tnd_span *spans, uint32_t count, struct tnd_err *err)
{
    int r = 0;

    for (uint32_t i = 0, taken; i < count && r >= 0; i += taken) {
        uint64_t bytes = spans[i].bytes;

        taken = count_together(&spans[i], count - i, cuda->options.tile_bytes);
        if (taken) {
            r = convert_together(cuda, ticket, chunk, &spans[i], taken, err);
            continue;
        }
        taken = 1;
        if (spans[i].kernel) {
            r = convert_long(cuda, ticket, chunk, &spans[i], err);
            continue;
        }
        while (i + taken < count && continues(&spans[i + taken], &spans[i], bytes))
            bytes += spans[i + taken++].bytes;
        r = queue_copy(cuda, spans[i].destination, chunk + spans[i].window_offset, bytes, err);
    }
    return r;
}

/* What the stream has counted up to here comes to the host behind the conversions. */
static int finish_conversions(struct tnd_cuda *cuda, struct tnd_cuda_ticket *ticket, struct tnd_err *err)
{
    cudaStream_t stream = cuda->compute[ticket->stream];
    int r;

    if (!ticket->converts)
        return 0;
    r = tnd_cuda_check(cuda, cudaMemcpyAsync(&cuda->snapshots[ticket - cuda->tickets], &cuda->counts[ticket->stream],
                                             sizeof(*cuda->counts), cudaMemcpyDeviceToHost, stream),
                       "cudaMemcpyAsync", err);
    return r < 0 ? r : record(cuda, ticket->converted, stream, err);
}

static int cuda_wait(struct tnd_device *device, uint64_t ticket, struct tnd_err *err);

static int cuda_place(struct tnd_device *device, const uint8_t *chunk, const struct tnd_span *spans,
                      uint32_t span_count, uint64_t *ret_ticket, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    struct tnd_cuda_ticket *ticket = &cuda->tickets[(cuda->given + 1) % TND_CUDA_TICKETS];
    int r = tnd_cuda_use(cuda, err);

    if (r >= 0 && cuda->given - cuda->over == TND_CUDA_TICKETS)
        r = cuda_wait(device, cuda->over + 1, err);
    if (r < 0)
        return r;
    ticket->converts = false;
    ticket->stream = (uint32_t)(cuda->given % cuda->options.stream_count);
    r = place_spans(cuda, ticket, chunk, spans, span_count, err);
    if (r >= 0)
        r = finish_conversions(cuda, ticket, err);
    if (r >= 0)
        r = record(cuda, ticket->copied, cuda->copy, err);
    if (r < 0) {
        drain(cuda);
        return r;
    }
    *ret_ticket = ++cuda->given;
    return 0;
}

/* ---- Tickets ----------------------------------------------------------------------------------------------- */

/* The oldest one is over. */
static void close_ticket(struct tnd_cuda *cuda)
{
    struct tnd_cuda_ticket *ticket = &cuda->tickets[++cuda->over % TND_CUDA_TICKETS];
    struct tnd_cuda_counts *before = &cuda->before[ticket->stream];
    struct tnd_cuda_counts now = ticket->converts ? cuda->snapshots[ticket - cuda->tickets] : *before;

    ticket->range = (struct tnd_range_counts){
        .overflowed = now.overflowed - before->overflowed,
        .underflowed = now.underflowed - before->underflowed,
    };
    *before = now;
}

static int is_over(struct tnd_cuda *cuda, const struct tnd_cuda_ticket *ticket, struct tnd_err *err)
{
    cudaError_t error = cudaEventQuery(ticket->copied);
    int r;

    if (error == cudaSuccess && ticket->converts)
        error = cudaEventQuery(ticket->converted);
    if (error == cudaErrorNotReady) {
        cudaGetLastError(); /* a foreground loader's driver is the caller's thread: no error of its kernels */
        return 0;
    }
    r = tnd_cuda_check(cuda, error, "cudaEventQuery", err);
    return r < 0 ? r : 1;
}

static int cuda_done(struct tnd_device *device, uint64_t ticket, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    int r = cuda->over < ticket ? tnd_cuda_use(cuda, err) : 1;

    while (cuda->over < ticket && r >= 0) {
        r = is_over(cuda, &cuda->tickets[(cuda->over + 1) % TND_CUDA_TICKETS], err);
        if (r == 0)
            return 0;
        if (r > 0)
            close_ticket(cuda);
    }
    if (r < 0)
        drain(cuda);
    return r < 0 ? r : 1;
}

static int cuda_wait(struct tnd_device *device, uint64_t ticket, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    int r = tnd_cuda_use(cuda, err);

    while (cuda->over < ticket && r >= 0) {
        const struct tnd_cuda_ticket *oldest = &cuda->tickets[(cuda->over + 1) % TND_CUDA_TICKETS];

        r = tnd_cuda_check(cuda, cudaEventSynchronize(oldest->copied), "cudaEventSynchronize", err);
        if (r >= 0 && oldest->converts)
            r = tnd_cuda_check(cuda, cudaEventSynchronize(oldest->converted), "cudaEventSynchronize", err);
        if (r >= 0)
            close_ticket(cuda);
    }
    return r;
}

static void cuda_range(struct tnd_device *device, uint64_t ticket, struct tnd_range_counts *ret_range)
{
    *ret_range = tnd_cuda_of(device)->tickets[ticket % TND_CUDA_TICKETS].range;
}

/* ---- Events ------------------------------------------------------------------------------------------------ */

struct event_call {
    struct tnd_cuda_call call;
    struct tnd_device_event *event;
};

static int run_event_create(struct tnd_cuda_call *call, struct tnd_err *err)
{
    return tnd_cuda_check(call->cuda, cudaEventCreateWithFlags(&((struct event_call *)call)->event->event,
                                                               cudaEventDisableTiming),
                          "cudaEventCreateWithFlags", err);
}

static int run_event_destroy(struct tnd_cuda_call *call, struct tnd_err *err)
{
    return tnd_cuda_check(call->cuda, cudaEventDestroy(((struct event_call *)call)->event->event), "cudaEventDestroy",
                          err);
}

static int cuda_event_create(struct tnd_device *device, struct tnd_device_event **ret_event, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    struct event_call wanted = {.call.run = run_event_create,
                                .event = tnd_zalloc(&cuda->options.allocator, 1, sizeof(*wanted.event))};
    int r;

    if (!wanted.event)
        return tnd_fail(err, -ENOMEM, "%s: no memory for an event", cuda->name);
    r = tnd_cuda_call(cuda, &wanted.call, err);
    if (r < 0)
        tnd_free(&cuda->options.allocator, wanted.event);
    else
        *ret_event = wanted.event;
    return r;
}

static void cuda_event_destroy(struct tnd_device *device, struct tnd_device_event *event)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    struct event_call given = {.call.run = run_event_destroy, .event = event};

    tnd_cuda_call(cuda, &given.call, NULL);
    tnd_free(&cuda->options.allocator, event);
}

/* The others meet on a compute stream, which waits for copies anyway: the copy stream goes on. */
static int cuda_mark(struct tnd_device *device, struct tnd_device_event *event, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    cudaStream_t meeting = cuda->compute[0];
    int r = tnd_cuda_use(cuda, err);

    for (uint32_t i = 0; i < cuda->options.stream_count && r >= 0; i++) {
        r = record(cuda, cuda->so_far[i], i ? cuda->compute[i] : cuda->copy, err);
        if (r >= 0)
            r = wait_for(cuda, meeting, cuda->so_far[i], err);
    }
    return r < 0 ? r : record(cuda, event->event, meeting, err);
}

/* Whatever is placed comes through the copy stream first. */
static int cuda_hold(struct tnd_device *device, struct tnd_device_event *event, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    int r = tnd_cuda_use(cuda, err);

    return r < 0 ? r : wait_for(cuda, cuda->copy, event->event, err);
}

static int cuda_stream_wait(struct tnd_device *device, void *stream, struct tnd_device_event *event,
                            struct tnd_err *err)
{
    return wait_for(tnd_cuda_of(device), stream, event->event, err);
}

static int cuda_stream_mark(struct tnd_device *device, void *stream, struct tnd_device_event *event,
                            struct tnd_err *err)
{
    return record(tnd_cuda_of(device), event->event, stream, err);
}

/* ---- Profilers --------------------------------------------------------------------------------------------- */

static uint64_t cuda_profile_begin(struct tnd_device *device, const char *name, uint64_t bytes)
{
    return tnd_cuda_range_start(tnd_cuda_of(device)->profile, name, bytes);
}

static void cuda_profile_end(struct tnd_device *device, uint64_t range)
{
    tnd_cuda_range_end(tnd_cuda_of(device)->profile, range);
}

/* ---- The device -------------------------------------------------------------------------------------------- */

static const char *cuda_complaint(struct tnd_device *device)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    bool is;

    pthread_mutex_lock(&cuda->mutex);
    is = cuda->complaint[0] != '\0';
    pthread_mutex_unlock(&cuda->mutex);
    return is ? cuda->complaint : NULL;
}

const struct tnd_device_ops tnd_cuda_ops = {
    .name = "cuda",
    .block_alloc = cuda_block_alloc,
    .block_free = cuda_block_free,
    .ready = tnd_cuda_ready,
    .destroy = tnd_cuda_destroy,
    .complaint = cuda_complaint,
    .buffer_take = tnd_cuda_buffer_take,
    .buffer_give = tnd_cuda_buffer_give,
    .place = cuda_place,
    .done = cuda_done,
    .range = cuda_range,
    .wait = cuda_wait,
    .read = cuda_read,
    .profile_begin = cuda_profile_begin,
    .profile_end = cuda_profile_end,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .mark = cuda_mark,
    .hold = cuda_hold,
    .stream_wait = cuda_stream_wait,
    .stream_mark = cuda_stream_mark,
};
