/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_CUDA_KERNELS_H
#define TND_CUDA_KERNELS_H

/* Conversions on a CUDA device: the pairs of types that src/kernels/ converts, and the same bits. */

#include <stdbool.h>
#include <stdint.h>

#include "tundish.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the narrower type could not hold; in device memory, added to. */
struct tnd_cuda_counts {
    unsigned long long overflowed, underflowed;
};

/* Queues a conversion on a stream (a cudaStream_t). elements: a multiple of from's block. source: device memory, any
 * address. destination: device memory, on to's element; it does not overlap the source. counts: device memory.
 * Returns a cudaError_t: 0, or why it was not queued; cudaErrorNotSupported for a pair that is not converted. */
int tnd_cuda_convert(enum tnd_dtype from, enum tnd_dtype to, void *destination, const void *source, uint64_t elements,
                     struct tnd_cuda_counts *counts, void *stream);

/* Loads the kernels of all pairs, so that the first conversion does not. Returns a cudaError_t. */
int tnd_cuda_kernels_preload(void);

#ifdef __cplusplus
}
#endif

#endif
