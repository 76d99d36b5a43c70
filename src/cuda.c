/* SPDX-License-Identifier: Apache-2.0 */

/* What tundish_cuda.h declares: layers for a stream, on whatever device the load ended on but the host. */

#include "tundish_cuda.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "device/device.h"
#include "load.h"

static int check_device(const struct tnd_load *load)
{
    return load->device == &tnd_device_host ? tnd_load_fail_argument("the load is not on a GPU") : 0;
}

int tnd_cuda_layer_acquire(struct tnd_load *load, int32_t layer, void *stream, int64_t timeout_ns)
{
    int r = check_device(load);

    return r < 0 ? r : tnd_layer_acquire_on(load, layer, stream, timeout_ns);
}

int tnd_cuda_layer_release(struct tnd_load *load, int32_t layer, void *stream)
{
    int r = check_device(load);

    return r < 0 ? r : tnd_layer_release_on(load, layer, stream);
}

int tnd_cuda_tensor_data(struct tnd_load *load, uint32_t tensor_index, void **ret_data)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    uint32_t acquired;
    int r = check_device(load);

    if (r < 0)
        return r;
    if (tensor_index >= load->model->tensor_count)
        return tnd_load_fail_argument("there is no such tensor in the model");
    if (atomic_load(&readiness->tensor_left[tensor_index]) == TND_NOT_LOADED)
        return tnd_load_fail_argument("that tensor or layer is not part of this load");
    pthread_mutex_lock(&readiness->mutex);
    acquired = readiness->residency.stages[tnd_plan_stage(&load->plan, tensor_index)].acquired;
    pthread_mutex_unlock(&readiness->mutex);
    if (!acquired)
        return tnd_load_fail_argument("the tensor is of a layer that is not acquired");
    *ret_data = load->transfer.places[tensor_index];
    return 0;
}

int tnd_cuda_probe(struct tnd_cuda_probe *ret_probe)
{
    struct tnd_cuda_probe probe = {.size = ret_probe->size};

    if (ret_probe->size < sizeof(ret_probe->size))
        return tnd_load_fail_argument("tnd_cuda_probe.size: set it to sizeof(struct tnd_cuda_probe)");
    tnd_cuda_look(&probe);
    memcpy(ret_probe, &probe, tnd_min(ret_probe->size, sizeof(probe)));
    return 0;
}
