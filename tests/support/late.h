/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_LATE_H
#define TND_TEST_LATE_H

/* The late device: it places bytes as a GPU does, some time later, in the memory of the host.
 *
 * A copy stream brings the bytes; what is to be converted goes through staging tiles that two compute streams take in
 * turn. How much later is said by the mode of the streams; the consumer's streams are of the same set. */

#include "device/device.h"
#include "support/streams.h"

struct tnd_device *late_create(enum streams_mode mode, uint64_t seed);
void late_destroy(struct tnd_device *device);

struct streams *late_streams(struct tnd_device *device);
/* The nth place() from now on, 1 the next, queues nothing and fails as CUDA would. */
void late_fail_place(struct tnd_device *device, uint32_t nth);
/* What was given out and has not come back. */
uint32_t late_blocks(const struct tnd_device *device);
uint32_t late_events(const struct tnd_device *device);

#endif
