/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_DEVICE_DEVICE_H
#define TND_DEVICE_DEVICE_H

/* Where bytes end. */

#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

/* One block that holds a load's tensors. */
struct tnd_device_block {
    struct tnd_mapping mapping;
    uint8_t *data;
};

struct tnd_device {
    const char *name;
    /* Aligned to 2 MiB; fresh: its pages come with the first write. -ENOMEM. */
    int (*block_alloc)(struct tnd_device_block *block, uint64_t bytes, struct tnd_err *err);
    void (*block_free)(struct tnd_device_block *block);
};

extern const struct tnd_device tnd_device_host;

#endif
