/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNDISH_CUDA_H
#define TUNDISH_CUDA_H

/* Layers on a GPU, for who computes with them on CUDA streams: of a loader whose device is TND_DEVICE_CUDA, or became
 * one by TND_DEVICE_AUTO. Needs no header of CUDA's: a stream is a cudaStream_t, of the loader's GPU, handed over as
 * the pointer that it is; NULL is the legacy default stream of the thread's current device, which must be that GPU.
 *
 *   tnd_cuda_layer_acquire(load, k, stream, -1)    the stream will find layer k's tensors
 *   tnd_cuda_tensor_data(load, tensor, &data)      where they are; kernels that use them go onto the stream
 *   tnd_cuda_layer_release(load, k, stream)        right behind them: nothing has to have run yet
 *
 * Results, options and threads as in tundish.h. A GPU that has failed answers -EIO to all of these, with CUDA's words,
 * until the process ends; loads to the host go on. A process forked after the GPU was started must not use what it
 * inherits of it; a load that it starts there is refused with -EIO. */

#include "tundish.h"

#ifdef __cplusplus
extern "C" {
#endif

/* tnd_layer_acquire() for a stream, which waits for the layer by itself, on the GPU: the caller waits only until the
 * last of the layer's copies and conversions is in the GPU's queues.
 * timeout_ns: 0 = do not wait, < 0 = no limit.
 * Returns:  as tnd_layer_acquire(), -EINVAL also when the load is not on a GPU, -EIO.
 * Threads:  any; on a stream of the caller's, so one at a time with what else it queues there. */
TND_API int tnd_cuda_layer_acquire(struct tnd_load *load, int32_t layer, void *stream, int64_t timeout_ns);

/* Gives one acquire back once the stream has run what is queued on it so far: until then nothing else is copied to
 * where the layer is. Does not wait. Returns 0, -EINVAL there was no acquire or no GPU, -EIO. Threads: as above. */
TND_API int tnd_cuda_layer_release(struct tnd_load *load, int32_t layer, void *stream);

/* Where in the GPU's memory a tensor of an acquired layer lies, for use on streams that acquired it.
 * Returns:  0, -EINVAL not part of this load, its layer is not acquired, or no GPU.
 * Memory:   the load's, or what place() gave; of a layer in a window until it is released; NULL of a tensor without
 *           bytes. Threads: any. */
TND_API int tnd_cuda_tensor_data(struct tnd_load *load, uint32_t tensor_index, void **ret_data);

/* What there is of CUDA. Versions are as CUDA has them: 13000 is 13.0; 0: none. */
struct tnd_cuda_probe {
    size_t size; /* sizeof(struct tnd_cuda_probe), set before the call, which then writes no more than that */
    bool build;  /* this library was built with CUDA */
    int32_t runtime_version; /* that it was built with */
    int32_t driver_version;  /* that the driver serves */
    uint32_t device_count;
    char reason[384]; /* why no GPU can be used, "" when one can */
};

/* Asks the driver, which may take a second and more: it may have to wake the GPUs up. Starts nothing on them.
 * Returns:  0, -EINVAL size not set. Threads: any. */
TND_API int tnd_cuda_probe(struct tnd_cuda_probe *ret_probe);

#ifdef __cplusplus
}
#endif
#endif
