/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_UPLOAD_H
#define TND_PIPELINE_UPLOAD_H

/* Chunks on their way to a device that is not the host: given to its queues, and free again when it says so. A stage
 * all of whose pieces are queued is marked: from then on a consumer's stream can wait for it without the host. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tnd_chunk;
struct tnd_device;
struct tnd_device_block;
struct tnd_device_event;
struct tnd_pipeline;
struct tnd_transfer;

/* Reads of a transfer may begin before its device has started up, and so before it has a block there: until then its
 * spans and places count from here, where no memory is. */
#define TND_UPLOAD_LATER ((uint8_t *)(UINTPTR_MAX - UINTPTR_MAX / 4))

/* Of a transfer to a device; all empty on the host. */
struct tnd_upload {
    struct tnd_device *device; /* NULL: the host */
    struct tnd_device_block *block;
    uint64_t block_bytes;
    bool begun; /* block and events are there */
    uint32_t *unplaced;        /* [plan stage_count] pieces that are not queued yet */
    struct tnd_device_event **marks; /* [plan stage_count] over when the stage is there */
    struct tnd_device_event **slot_free; /* [slot_count] over when the consumers of the layer that left are done */
    uint32_t slot_count;
};

/* Counters, which live in the plan's arena. block: to be taken once the device can be used, of so many bytes.
 * -ENOMEM. */
int tnd_upload_init(struct tnd_transfer *transfer, struct tnd_device *device, struct tnd_device_block *block,
                    uint64_t block_bytes, uint32_t slot_count, struct tnd_err *err);
/* Takes block and events, if the device can be used by now, and makes the places real: 1, 0 not yet, -ENODEV, -ENOMEM,
 * -EIO. Threads: who starts the transfer, before that; from then on the driver. */
int tnd_upload_begin(struct tnd_transfer *transfer, struct tnd_err *err);
/* Takes what init gave, also when it failed. */
void tnd_upload_finish(struct tnd_transfer *transfer);
/* Keeps what the device has to say among the transfer's reasons. */
void tnd_upload_tell(struct tnd_transfer *transfer);
/* A stage is fetched once more, into a slot: what is placed there waits for those that still read it. */
void tnd_upload_restart(struct tnd_transfer *transfer, uint32_t stage, uint32_t slot);

/* Whether chunks can be given to the transfer's device, if it has one; a device that cannot be used ends the transfer.
 * Threads: the driver, as below. */
bool tnd_upload_may_submit(struct tnd_transfer *transfer);
/* Whether the device has started, or failed to, since that was last looked at. */
bool tnd_upload_may_begin(const struct tnd_transfer *transfer);
/* Gives a READY chunk to the device. */
void tnd_upload_submit(struct tnd_pipeline *pipeline, struct tnd_chunk *chunk);
/* Takes back what the device is done with; whether there was any. */
bool tnd_upload_collect(struct tnd_pipeline *pipeline);
/* How long to wait for something else before the device is looked at again, at most timeout_ns (< 0: no limit). */
int64_t tnd_upload_due(struct tnd_pipeline *pipeline, int64_t timeout_ns);

#endif
