/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_DEVICES_H
#define TND_TEST_DEVICES_H

/* The devices that tests run on, each the same way. One at a time. What the host has not is NULL. */

#include "device/device.h"
#include "support/streams.h"
#include "tundish.h"

struct test_device {
    const char *name;
    /* Alone, or with a loader that ends there. The device is the loader's, or goes with it. */
    struct tnd_device *(*create)(enum streams_mode mode, uint64_t seed);
    struct tnd_loader *(*create_loader)(struct tnd_loader_options *options, enum streams_mode mode, uint64_t seed);
    void (*destroy)(struct tnd_device *device);
    void (*destroy_loader)(struct tnd_loader **loader);
    /* A stream of a consumer's, and what to queue things on it with. */
    void *(*stream_create)(void);
    struct stream *(*stream_of)(void *stream);
    /* The nth place() from now on fails. */
    void (*fail_place)(uint32_t nth);
    /* Given out for loads, and not come back. */
    uint32_t (*blocks)(void);
    uint32_t (*events)(void);
};

/* Ends with NULL. */
extern const struct test_device *const test_devices[];

#endif
