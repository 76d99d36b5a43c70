/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_DEVICE_DEVICE_H
#define TND_DEVICE_DEVICE_H

/* Where bytes end.
 *
 * On the host the pipeline's workers write to a block themselves. Any other device takes whole chunks: it copies and
 * converts their spans on queues of its own, in order, some time later. A ticket tells when that is over; an event
 * tells it to a consumer's queue. As in CUDA, an event that was never marked counts as over, which is right for a slot
 * that nobody has used; who waits for a layer asks first whether its event was marked.
 *
 * Threads: create, destroy, ready, block_alloc and block_free any; stream_wait and stream_mark the consumer's; all else
 * the driver. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define TND_DEVICE_TICKETS 128 /* that are not over, at the most */

struct tnd_range_counts;
struct tnd_span;
struct tnd_waker;
struct tnd_cuda_probe;
struct tnd_device;

/* One block that holds a load's tensors. */
struct tnd_device_block {
    struct tnd_mapping mapping; /* of the host */
    uint8_t *data;
};

struct tnd_device_event; /* the device's own */

struct tnd_device_ops {
    const char *name;
    /* Aligned to 2 MiB on the host, to 256 bytes elsewhere. -ENOMEM with the sums. */
    int (*block_alloc)(struct tnd_device *device, struct tnd_device_block *block, uint64_t bytes, struct tnd_err *err);
    void (*block_free)(struct tnd_device *device, struct tnd_device_block *block);

    /* From here on NULL on the host. */

    /* Whether it can be used: 1, 0 while it starts up, which with wait is waited for, or why it never will: -ENODEV,
     * -ENOMEM, -EIO. Until it can only this, the buffers and destroy may be called. NULL: from the beginning. */
    int (*ready)(struct tnd_device *device, bool wait, struct tnd_err *err);
    void (*destroy)(struct tnd_device *device); /* nothing of it may be left; NULL: who made it knows how */
    /* Why it is slower than it could be, a sentence, or NULL. Any thread. Memory: the device's. NULL: it is not. */
    const char *(*complaint)(struct tnd_device *device);

    /* A buffer for reads that place() takes from: memory of the caller's, not yet touched, pinned where that can be, or
     * the device's own in its place. Never NULL. NULL: any memory will do. */
    uint8_t *(*buffer_take)(struct tnd_device *device, uint8_t *memory, size_t bytes);
    void (*buffer_give)(struct tnd_device *device, uint8_t *buffer);

    /* Queues the spans of a chunk, which stays as it is until the ticket is done: each span's bytes at
     * chunk + span->window_offset go to span->destination, through span->kernel's conversion if it has one.
     * Tickets are given in ascending order. -EIO with the device's words: then nothing looks at the chunk any more. */
    int (*place)(struct tnd_device *device, const uint8_t *chunk, const struct tnd_span *spans, uint32_t span_count,
                 uint64_t *ret_ticket, struct tnd_err *err);
    /* Whether all of a ticket's work is over: 1, 0, or -EIO, when nothing of it is under way either. Does not wait for
     * what goes well. */
    int (*done)(struct tnd_device *device, uint64_t ticket, struct tnd_err *err);
    /* What the conversions of a ticket that is done could not hold; is asked for before the next done(). */
    void (*range)(struct tnd_device *device, uint64_t ticket, struct tnd_range_counts *ret_range);
    /* done(), waiting; for when there is nothing else to do. 0, -EIO. */
    int (*wait)(struct tnd_device *device, uint64_t ticket, struct tnd_err *err);
    /* Bytes back from a block, whose placing is over. Any thread. */
    int (*read)(struct tnd_device *device, void *buffer, const uint8_t *from, size_t bytes, struct tnd_err *err);

    /* A stage of a chunk, by its trace's name, is under way from now on, for a profiler to show; until it ends by the
     * number that was returned. NULL: nobody looks. */
    uint64_t (*profile_begin)(struct tnd_device *device, const char *name, uint64_t bytes);
    void (*profile_end)(struct tnd_device *device, uint64_t range);

    int (*event_create)(struct tnd_device *device, struct tnd_device_event **ret_event, struct tnd_err *err);
    void (*event_destroy)(struct tnd_device *device, struct tnd_device_event *event);
    /* The event is over when all that was placed so far is. */
    int (*mark)(struct tnd_device *device, struct tnd_device_event *event, struct tnd_err *err);
    /* What is placed from now on waits for the event. */
    int (*hold)(struct tnd_device *device, struct tnd_device_event *event, struct tnd_err *err);
    /* What is queued on the consumer's stream from now on waits for the event. */
    int (*stream_wait)(struct tnd_device *device, void *stream, struct tnd_device_event *event, struct tnd_err *err);
    /* The event is over when all that is queued on the consumer's stream so far is. */
    int (*stream_mark)(struct tnd_device *device, void *stream, struct tnd_device_event *event, struct tnd_err *err);
};

struct tnd_device {
    const struct tnd_device_ops *ops;
};

extern struct tnd_device tnd_device_host;

/* ---- CUDA -------------------------------------------------------------------------------------------------- */

/* What it takes beside blocks and the pool's own memory. */
struct tnd_cuda_usage {
    uint64_t tile_bytes;   /* of the device's memory */
    uint64_t pinned_bytes; /* of the host, at the most so far */
};

struct tnd_cuda_options {
    struct tnd_allocator allocator;
    struct tnd_waker *waker; /* signalled once it is ready, or never will be */
    uint32_t ordinal;
    uint32_t stream_count; /* that convert */
    enum tnd_pinning pinning;
    uint32_t tile_bytes; /* of one tile, a multiple of 256; 0: what suits a GPU */
};

/* Starts a GPU up, on a thread of its own. -ENODEV when it is plain that there is none. */
int tnd_cuda_create(const struct tnd_cuda_options *options, struct tnd_device **ret_device, struct tnd_err *err);
void tnd_cuda_usage(struct tnd_device *device, struct tnd_cuda_usage *ret_usage); /* any thread */
/* What tnd_cuda_probe() tells. */
void tnd_cuda_look(struct tnd_cuda_probe *probe);

#endif
