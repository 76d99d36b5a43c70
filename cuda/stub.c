/* SPDX-License-Identifier: Apache-2.0 */

/* In place of the GPU where the library is built without CUDA. */

#include <errno.h>
#include <stdio.h>

#include "device/device.h"
#include "tundish_cuda.h"

static const char without[] = "this build has no CUDA device";

int tnd_cuda_create(const struct tnd_cuda_options *options, struct tnd_device **ret_device, struct tnd_err *err)
{
    (void)options;
    (void)ret_device;
    return tnd_fail(err, -ENODEV, "%s", without);
}

void tnd_cuda_usage(struct tnd_device *device, struct tnd_cuda_usage *ret_usage)
{
    (void)device;
    *ret_usage = (struct tnd_cuda_usage){0};
}

void tnd_cuda_look(struct tnd_cuda_probe *probe)
{
    snprintf(probe->reason, sizeof(probe->reason), "%s", without);
}
