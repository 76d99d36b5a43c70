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
 * Threads: create and destroy any; stream_wait and stream_mark the consumer's; all else the driver. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct tnd_span;
struct tnd_device;

/* One block that holds a load's tensors. */
struct tnd_device_block {
    struct tnd_mapping mapping; /* of the host */
    uint8_t *data;
};

struct tnd_device_event; /* the device's own */

struct tnd_device_ops {
    const char *name;
    /* Aligned to 2 MiB on the host, to 256 bytes elsewhere. -ENOMEM. */
    int (*block_alloc)(struct tnd_device *device, struct tnd_device_block *block, uint64_t bytes, struct tnd_err *err);
    void (*block_free)(struct tnd_device *device, struct tnd_device_block *block);

    /* From here on NULL on the host. */

    /* Queues the spans of a chunk, which stays as it is until the ticket is done: each span's bytes at
     * chunk + span->window_offset go to span->destination, through span->kernel's conversion if it has one.
     * Tickets are given in ascending order. -EIO with the device's words. */
    int (*place)(struct tnd_device *device, const uint8_t *chunk, const struct tnd_span *spans, uint32_t span_count,
                 uint64_t *ret_ticket, struct tnd_err *err);
    /* Whether all of a ticket's work is over: 1, 0, or -EIO. Never blocks. */
    int (*done)(struct tnd_device *device, uint64_t ticket, struct tnd_err *err);
    /* The same, waiting; for when there is nothing else to do. 0, -EIO. */
    int (*wait)(struct tnd_device *device, uint64_t ticket, struct tnd_err *err);
    /* Bytes back from a block, whose placing is over. Any thread. */
    int (*read)(struct tnd_device *device, void *buffer, const uint8_t *from, size_t bytes, struct tnd_err *err);

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

#endif
