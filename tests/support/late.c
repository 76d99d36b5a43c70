/* SPDX-License-Identifier: Apache-2.0 */
#include "support/late.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "io/io.h"
#include "kernels/kernel.h"
#include "model/dtype.h"

#define ALIGNMENT 256
#define POISON 0xDB
#define TILE_COUNT 4
#define TILE_BYTES ((uint32_t)16 << 10)
#define TICKET_COUNT 256 /* at once */

/* In the order in which they are waited for: lazy streams compute before they copy, where no event says otherwise. */
enum { COMPUTE_FIRST, COMPUTE_SECOND, COPY, STREAM_COUNT, COMPUTE_COUNT = COPY };

struct tile {
    uint8_t *data;
    struct stream_event copied, converted;
};

/* A place(), over when all its events are. */
struct ticket {
    struct stream_event events[STREAM_COUNT];
    struct tnd_range_counts ranges[COMPUTE_COUNT]; /* each of one stream */
};

struct late {
    struct tnd_device device;
    struct streams *set;
    struct stream *streams[STREAM_COUNT];
    struct tile tiles[TILE_COUNT];
    uint32_t tile_next;
    struct ticket tickets[TICKET_COUNT]; /* by number, modulo */
    uint64_t given, over;                /* tickets */
    uint32_t place_fails;                /* in so many calls; 0: it does not */
    atomic_uint blocks, events;          /* given out */
};

struct tnd_device_event {
    struct stream_event event;
};

struct copy {
    uint8_t *to;
    const uint8_t *from;
    uint64_t bytes;
};

struct conversion {
    const struct tnd_kernel *kernel;
    uint8_t *to;
    const uint8_t *from;
    size_t elements;
    struct tnd_range_counts *range;
};

static struct late *late_of(struct tnd_device *device)
{
    return (struct late *)device;
}

/* ---- What runs on the streams ----------------------------------------------------------------------------------- */

static void run_copy(void *argument)
{
    const struct copy *copy = argument;

    for (uint64_t i = 0; i < copy->bytes; i++)
        copy->to[i] = copy->from[i];
}

static void run_conversion(void *argument)
{
    const struct conversion *conversion = argument;

    conversion->kernel->run(conversion->to, conversion->from, conversion->elements, conversion->range);
}

static void run_kernel_init(void *argument)
{
    (void)argument;
    tnd_kernel_thread_init();
}

static void queue_copy(struct late *late, uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    struct copy copy = {.to = to, .from = from, .bytes = bytes};

    stream_run(late->streams[COPY], run_copy, &copy, sizeof(copy));
}

/* ---- Placing ---------------------------------------------------------------------------------------------------- */

/* Through the next tile: no more than it holds. */
static void convert_part(struct late *late, struct conversion conversion, uint32_t bytes)
{
    uint32_t index = late->tile_next++ % TILE_COUNT;
    struct tile *tile = &late->tiles[index];
    struct stream *compute = late->streams[index % COMPUTE_COUNT];

    stream_wait_event(late->streams[COPY], &tile->converted);
    queue_copy(late, tile->data, conversion.from, bytes);
    stream_event_record(&tile->copied, late->streams[COPY]);

    conversion.from = tile->data;
    conversion.range = &late->tickets[(late->given + 1) % TICKET_COUNT].ranges[index % COMPUTE_COUNT];
    stream_wait_event(compute, &tile->copied);
    stream_run(compute, run_conversion, &conversion, sizeof(conversion));
    stream_event_record(&tile->converted, compute);
}

static void convert_span(struct late *late, const uint8_t *chunk, const struct tnd_span *span)
{
    const struct tnd_dtype_info *from = tnd_dtype_info(span->kernel->from), *to = tnd_dtype_info(span->kernel->to);
    uint32_t blocks = span->bytes / from->block_bytes, blocks_max = TILE_BYTES / from->block_bytes;

    for (uint32_t first = 0, count; first < blocks; first += count) {
        count = (uint32_t)tnd_min(blocks - first, blocks_max);
        convert_part(late,
                     (struct conversion){
                         .kernel = span->kernel,
                         .to = span->destination + (size_t)first * from->block_elements * to->block_bytes,
                         .from = chunk + span->window_offset + (size_t)first * from->block_bytes,
                         .elements = (size_t)count * from->block_elements,
                     },
                     count * from->block_bytes);
    }
}

/* Whether a span goes on where the bytes from first on end, there and here. */
static bool continues(const struct tnd_span *span, const struct tnd_span *first, uint64_t bytes)
{
    return !span->kernel && span->destination == first->destination + bytes &&
           span->window_offset == first->window_offset + bytes;
}

static void place_spans(struct late *late, const uint8_t *chunk, const struct tnd_span *spans, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct tnd_span *span = &spans[i];
        uint64_t bytes = span->bytes;

        if (span->kernel) {
            convert_span(late, chunk, span);
            continue;
        }
        while (i + 1 < count && continues(&spans[i + 1], span, bytes))
            bytes += spans[++i].bytes;
        queue_copy(late, span->destination, chunk + span->window_offset, bytes);
    }
}

static int late_wait(struct tnd_device *device, uint64_t ticket, struct tnd_err *err)
{
    struct late *late = late_of(device);

    (void)err;
    while (late->over < ticket) {
        for (int i = 0; i < STREAM_COUNT; i++)
            stream_event_synchronize(&late->tickets[(late->over + 1) % TICKET_COUNT].events[i]);
        late->over++;
    }
    return 0;
}

static int late_place(struct tnd_device *device, const uint8_t *chunk, const struct tnd_span *spans,
                      uint32_t span_count, uint64_t *ret_ticket, struct tnd_err *err)
{
    struct late *late = late_of(device);
    struct ticket *ticket;

    if (late->place_fails && --late->place_fails == 0)
        return tnd_fail(err, -EIO, "late: cudaMemcpyAsync: an illegal memory access was encountered (700)");
    if (late->given - late->over == TICKET_COUNT)
        late_wait(device, late->over + 1, err);
    ticket = &late->tickets[(late->given + 1) % TICKET_COUNT];
    memset(ticket->ranges, 0, sizeof(ticket->ranges));
    place_spans(late, chunk, spans, span_count);
    late->given++;
    for (int i = 0; i < STREAM_COUNT; i++)
        stream_event_record(&ticket->events[i], late->streams[i]);
    *ret_ticket = late->given;
    return 0;
}

static int late_done(struct tnd_device *device, uint64_t ticket, struct tnd_err *err)
{
    struct late *late = late_of(device);

    (void)err;
    while (late->over < ticket) {
        for (int i = 0; i < STREAM_COUNT; i++) {
            if (!stream_event_query(&late->tickets[(late->over + 1) % TICKET_COUNT].events[i]))
                return 0;
        }
        late->over++;
    }
    return 1;
}

static void late_range(struct tnd_device *device, uint64_t ticket, struct tnd_range_counts *ret_range)
{
    const struct ticket *asked = &late_of(device)->tickets[ticket % TICKET_COUNT];

    *ret_range = (struct tnd_range_counts){0};
    for (int i = 0; i < COMPUTE_COUNT; i++) {
        ret_range->overflowed += asked->ranges[i].overflowed;
        ret_range->underflowed += asked->ranges[i].underflowed;
    }
}

static int late_read(struct tnd_device *device, void *buffer, const uint8_t *from, size_t bytes, struct tnd_err *err)
{
    struct late *late = late_of(device);
    struct stream_event copied = {0};

    (void)err;
    queue_copy(late, buffer, from, bytes);
    stream_event_record(&copied, late->streams[COPY]);
    stream_event_synchronize(&copied);
    return 0;
}

/* ---- Blocks ----------------------------------------------------------------------------------------------------- */

static int late_block_alloc(struct tnd_device *device, struct tnd_device_block *block, uint64_t bytes,
                            struct tnd_err *err)
{
    uint8_t *data = aligned_alloc(ALIGNMENT, tnd_round_up(bytes, ALIGNMENT));

    if (!data)
        return tnd_fail(err, -ENOMEM, "late: cudaMalloc: out of memory (2)");
    memset(data, POISON, bytes);
    *block = (struct tnd_device_block){.data = data};
    atomic_fetch_add_explicit(&late_of(device)->blocks, 1, memory_order_relaxed);
    return 0;
}

static void late_block_free(struct tnd_device *device, struct tnd_device_block *block)
{
    if (block->data)
        atomic_fetch_sub_explicit(&late_of(device)->blocks, 1, memory_order_relaxed);
    free(block->data);
    block->data = NULL;
}

/* ---- Events ----------------------------------------------------------------------------------------------------- */

static int late_event_create(struct tnd_device *device, struct tnd_device_event **ret_event, struct tnd_err *err)
{
    struct tnd_device_event *event = calloc(1, sizeof(*event));

    if (!event)
        return tnd_fail(err, -ENOMEM, "late: cudaEventCreateWithFlags: out of memory (2)");
    atomic_fetch_add_explicit(&late_of(device)->events, 1, memory_order_relaxed);
    *ret_event = event;
    return 0;
}

static void late_event_destroy(struct tnd_device *device, struct tnd_device_event *event)
{
    if (event)
        atomic_fetch_sub_explicit(&late_of(device)->events, 1, memory_order_relaxed);
    free(event);
}

/* The others meet on a compute stream, which waits for the copies anyway: the copy stream goes on. */
static int late_mark(struct tnd_device *device, struct tnd_device_event *event, struct tnd_err *err)
{
    struct late *late = late_of(device);

    (void)err;
    for (int i = 0; i < STREAM_COUNT; i++) {
        struct stream_event so_far = {0};

        if (i == COMPUTE_FIRST)
            continue;
        stream_event_record(&so_far, late->streams[i]);
        stream_wait_event(late->streams[COMPUTE_FIRST], &so_far);
    }
    stream_event_record(&event->event, late->streams[COMPUTE_FIRST]);
    return 0;
}

static int late_hold(struct tnd_device *device, struct tnd_device_event *event, struct tnd_err *err)
{
    (void)err;
    for (int i = 0; i < STREAM_COUNT; i++)
        stream_wait_event(late_of(device)->streams[i], &event->event);
    return 0;
}

static int late_stream_wait(struct tnd_device *device, void *stream, struct tnd_device_event *event,
                            struct tnd_err *err)
{
    (void)device;
    (void)err;
    stream_wait_event(stream, &event->event);
    return 0;
}

static int late_stream_mark(struct tnd_device *device, void *stream, struct tnd_device_event *event,
                            struct tnd_err *err)
{
    (void)device;
    (void)err;
    stream_event_record(&event->event, stream);
    return 0;
}

/* ---- The device ------------------------------------------------------------------------------------------------- */

static const struct tnd_device_ops late_ops = {
    .name = "late",
    .block_alloc = late_block_alloc,
    .block_free = late_block_free,
    .place = late_place,
    .done = late_done,
    .range = late_range,
    .wait = late_wait,
    .read = late_read,
    .event_create = late_event_create,
    .event_destroy = late_event_destroy,
    .mark = late_mark,
    .hold = late_hold,
    .stream_wait = late_stream_wait,
    .stream_mark = late_stream_mark,
};

struct tnd_device *late_create(enum streams_mode mode, uint64_t seed)
{
    struct late *late = calloc(1, sizeof(*late));

    if (!late)
        abort();
    late->device.ops = &late_ops;
    late->set = streams_create(mode, seed);
    for (int i = 0; i < STREAM_COUNT; i++) {
        late->streams[i] = stream_create(late->set);
        stream_run(late->streams[i], run_kernel_init, NULL, 0);
    }
    for (int i = 0; i < TILE_COUNT; i++) {
        late->tiles[i].data = malloc(TILE_BYTES);
        if (!late->tiles[i].data)
            abort();
        memset(late->tiles[i].data, POISON, TILE_BYTES);
    }
    return &late->device;
}

void late_destroy(struct tnd_device *device)
{
    struct late *late = late_of(device);

    streams_destroy(late->set);
    for (int i = 0; i < TILE_COUNT; i++)
        free(late->tiles[i].data);
    free(late);
}

struct streams *late_streams(struct tnd_device *device)
{
    return late_of(device)->set;
}

void late_fail_place(struct tnd_device *device, uint32_t nth)
{
    late_of(device)->place_fails = nth;
}

uint32_t late_blocks(const struct tnd_device *device)
{
    return atomic_load_explicit(&((const struct late *)device)->blocks, memory_order_relaxed);
}

uint32_t late_events(const struct tnd_device *device)
{
    return atomic_load_explicit(&((const struct late *)device)->events, memory_order_relaxed);
}
