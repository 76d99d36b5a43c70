/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_CUDA_RUNTIME_H
#define TND_TEST_CUDA_RUNTIME_H

/* CUDA's C++ as far as cuda/ uses it, for the CPU's compiler. The threads of a block are fibres: each runs until it
 * comes to __syncthreads() or its end. Shared memory is the launch's own: full of rubbish before each block, and
 * AddressSanitizer guards what lies beyond its size. */

#include <functional>
#include <utility>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __shared__
#define __launch_bounds__(threads)

struct uint3 {
    unsigned x, y, z;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct dim3 {
    unsigned x, y, z;

    explicit dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z)
    {
    }
};

struct cudaFuncAttributes {
    size_t sharedSizeBytes;
};

extern uint3 threadIdx, blockIdx;

void __syncthreads();

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return uint4{x, y, z, w};
}

template <typename Number, typename Value> Number atomicAdd(Number *at, Value value)
{
    Number before = *at;

    *at += value;
    return before;
}

/* Runs the threads of one block after the other. */
cudaError_t shim_launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread);

template <typename... Parameters, size_t... index>
void shim_call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<index...>)
{
    kernel(*static_cast<Parameters *>(arguments[index])...);
}

template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void **arguments,
                             size_t shared_bytes, cudaStream_t)
{
    return shim_launch(grid, block, shared_bytes,
                       [=] { shim_call(kernel, arguments, std::index_sequence_for<Parameters...>()); });
}

template <typename... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, void (*kernel)(Parameters...))
{
    *attributes = cudaFuncAttributes{0};
    return kernel ? cudaSuccess : cudaErrorInvalidValue;
}

#endif
