/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_CUDA_RUNTIME_API_H
#define TND_TEST_CUDA_RUNTIME_API_H

/* What the tests of kernels call of CUDA's runtime, under its names and numbers, on the CPU: device memory is memory
 * of the process, of exactly the size that was asked for, and all is done when a call returns. */

#include <stddef.h>

#define TND_CUDA_SHIM

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNotSupported = 801
} cudaError_t;

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };

typedef struct CUstream_st *cudaStream_t;

cudaError_t cudaGetDeviceCount(int *ret_count);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaMalloc(void **ret_memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMemcpy(void *destination, const void *source, size_t bytes, enum cudaMemcpyKind kind);
cudaError_t cudaDeviceSynchronize(void);

#ifdef __cplusplus
}
#endif

#endif
