/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "device/device.h"

static int host_block_alloc(struct tnd_device *device, struct tnd_device_block *block, uint64_t bytes,
                            struct tnd_err *err)
{
    int r = tnd_mapping_init(&block->mapping, bytes, true);

    (void)device;
    if (r < 0)
        return tnd_fail(err, r, "no address space for %llu bytes of tensors", (unsigned long long)bytes);
    block->data = block->mapping.data;
    return 0;
}

static void host_block_free(struct tnd_device *device, struct tnd_device_block *block)
{
    (void)device;
    tnd_mapping_finish(&block->mapping);
    block->data = NULL;
}

static const struct tnd_device_ops host_ops = {
    .name = "host",
    .block_alloc = host_block_alloc,
    .block_free = host_block_free,
};

struct tnd_device tnd_device_host = {.ops = &host_ops};
