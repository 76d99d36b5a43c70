/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_CUDA_RANGE_H
#define TND_CUDA_RANGE_H

/* What NVIDIA's profilers show beside the GPU's own work, in a domain called tundish: ranges with the trace's names and
 * bytes as their payload. Without a profiler each call looks at a pointer and returns. */

#include <nvtx3/nvToolsExt.h>
#include <stdint.h>

/* From here on, until tnd_cuda_range_end(), which any thread may call. */
static inline nvtxRangeId_t tnd_cuda_range_start(nvtxDomainHandle_t domain, const char *name, uint64_t bytes)
{
    nvtxEventAttributes_t event = {
        .version = NVTX_VERSION,
        .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
        .messageType = NVTX_MESSAGE_TYPE_ASCII,
        .message.ascii = name,
        .payloadType = NVTX_PAYLOAD_TYPE_UNSIGNED_INT64,
        .payload.ullValue = bytes,
    };

    return nvtxDomainRangeStartEx(domain, &event);
}

static inline void tnd_cuda_range_end(nvtxDomainHandle_t domain, nvtxRangeId_t range)
{
    nvtxDomainRangeEnd(domain, range);
}

#endif
