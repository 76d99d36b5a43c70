/* SPDX-License-Identifier: Apache-2.0 */

/* The kernels as they are, for the CPU: <cuda_runtime.h> is the shim's. */

#include "cuda/kernels.cu"
