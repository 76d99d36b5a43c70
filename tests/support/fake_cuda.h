/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_FAKE_CUDA_H
#define TND_TEST_FAKE_CUDA_H

/* CUDA's runtime under its own names, without a GPU: linked in its place, on the streams of support/streams.h. The
 * device's memory is the host's, filled with 0xDB when it is given out; kernels are the C ones.
 *
 * What CUDA says of its functions holds here too: a copy from pinned memory keeps the address and reads the bytes some
 * time later, one from pageable memory has taken them when it returns; an event that was never recorded is over; the
 * current device is the thread's own, and a call on a thread that has none starts GPU 0 up; streams and events are of
 * one GPU. Freeing waits for nobody: that is stricter than CUDA. */

#include <cuda_runtime_api.h>

#include "support/streams.h"

struct fake_cuda {
    enum streams_mode mode;
    uint64_t seed;
    int device_count, driver_version; /* 0: 1, and what the headers are of; < 0: none */
    size_t device_bytes;              /* 0: 1 GiB */
    cudaError_t register_error, alloc_error; /* what cudaHostRegister() and cudaHostAlloc() of buffers answer */
    unsigned start_us;                       /* that the first context takes */
};

/* Before and after all else. */
void fake_cuda_start(const struct fake_cuda *fake);
void fake_cuda_stop(void);

/* The nth call from now on, 1 the next, does nothing and answers this. sticky: so do all later ones, but for what they
 * free. 0: none. Calls that cannot fail are not counted. */
void fake_cuda_fail(uint32_t nth, cudaError_t error, bool sticky);
/* The same for calls of one function, by its name. */
void fake_cuda_fail_call(const char *name, uint32_t nth, cudaError_t error, bool sticky);
/* Whether what was to fail has. */
bool fake_cuda_failed(void);

/* What was given out and has not come back. */
struct fake_cuda_live {
    uint32_t blocks, pinned, streams, events; /* device memory, host memory of both kinds */
};
struct fake_cuda_live fake_cuda_live(void);
/* Bit n: GPU n was started up. */
uint32_t fake_cuda_touched(void);

/* Ranges of the domain tundish that a profiler was shown, by name: how many began and ended. */
struct fake_ranges {
    uint32_t begun, ended;
    uint64_t bytes; /* of those that began */
};
struct fake_ranges fake_ranges(const char *name);

/* The threads behind a stream. */
struct stream *fake_cuda_stream(cudaStream_t stream);

#endif
