/* SPDX-License-Identifier: Apache-2.0 */

/* How fast this GPU takes bytes from host memory, and what it costs to get there: the speed of light of a load to it.
 *
 * CUDA's runtime alone, nothing of ours: the context from nothing, pinning both ways, copies of 1 to 64 MiB out of
 * memory pinned either way and out of pageable memory, and how much of a copy's time a kernel beside it costs. Rates
 * are of the best of a few rounds: what the link can do, not what it did while somebody else had it.
 *
 *   bench-gpu-limits [ORDINAL]     prints one JSON object */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "memory.h"

#define MIB ((size_t)1 << 20)
#define POOL_BYTES (128 * MIB) /* a loader's, at the most */
#define ROUNDS 5
#define COPIES_BYTES (2048 * MIB) /* of one rate */
#define IN_FLIGHT 4

enum way { REGISTERED, ALLOCATED, PAGEABLE, WAY_COUNT };

static const char *const way_names[] = {"cudaHostRegister", "cudaHostAlloc", "pageable"};

/* How long each step of pinning a pool took. */
struct pinning {
    uint64_t touch_ns, pin_ns, unpin_ns;
    cudaError_t refused;
};

static void must(cudaError_t error, const char *what)
{
    if (error != cudaSuccess)
        die("%s: %s (%s)", what, cudaGetErrorName(error), cudaGetErrorString(error));
}

/* ---- Pinning ----------------------------------------------------------------------------------------------- */

static uint8_t *pool_take(enum way way, struct pinning *pinning)
{
    uint64_t start = wall_ns();
    void *pool = NULL;

    if (way == ALLOCATED) {
        pinning->refused = cudaHostAlloc(&pool, POOL_BYTES, cudaHostAllocDefault);
        pinning->pin_ns = wall_ns() - start;
        return pool;
    }
    pool = memory_map(POOL_BYTES);
    memory_touch(pool, POOL_BYTES, 1);
    pinning->touch_ns = wall_ns() - start;
    if (way == REGISTERED) {
        start = wall_ns();
        pinning->refused = cudaHostRegister(pool, POOL_BYTES, cudaHostRegisterDefault);
        pinning->pin_ns = wall_ns() - start;
    }
    return pool;
}

static void pool_give(enum way way, uint8_t *pool, struct pinning *pinning)
{
    uint64_t start = wall_ns();

    if (pinning->refused != cudaSuccess)
        cudaGetLastError(); /* it is told, and no later call's */
    else if (way == ALLOCATED)
        must(cudaFreeHost(pool), "cudaFreeHost");
    else if (way == REGISTERED)
        must(cudaHostUnregister(pool), "cudaHostUnregister");
    pinning->unpin_ns = wall_ns() - start;
    if (way != ALLOCATED)
        memory_unmap(pool, POOL_BYTES);
}

/* ---- Copies ------------------------------------------------------------------------------------------------ */

/* Bytes a second of copies of one size, IN_FLIGHT of them queued, from all over the pool. */
static double copy_rate(uint8_t *device, const uint8_t *pool, size_t bytes, cudaStream_t stream)
{
    size_t count = COPIES_BYTES / bytes;
    cudaEvent_t over[IN_FLIGHT];
    uint64_t start;

    for (int i = 0; i < IN_FLIGHT; i++)
        must(cudaEventCreateWithFlags(&over[i], cudaEventDisableTiming), "cudaEventCreate");
    must(cudaStreamSynchronize(stream), "before the copies");
    start = wall_ns();
    for (size_t i = 0; i < count; i++) {
        must(cudaEventSynchronize(over[i % IN_FLIGHT]), "a copy");
        must(cudaMemcpyAsync(device + i * bytes % POOL_BYTES, pool + i * bytes % POOL_BYTES, bytes,
                             cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
        must(cudaEventRecord(over[i % IN_FLIGHT], stream), "cudaEventRecord");
    }
    must(cudaStreamSynchronize(stream), "the copies");
    start = wall_ns() - start;
    for (int i = 0; i < IN_FLIGHT; i++)
        must(cudaEventDestroy(over[i]), "cudaEventDestroy");
    return (double)(count * bytes) / (double)start * 1e9;
}

/* What two engines at once cost each other: copies while the device's memory is being set, which takes all the
 * bandwidth that it has. */
static double copy_rate_beside_work(uint8_t *device, const uint8_t *pool, size_t bytes, cudaStream_t stream)
{
    cudaStream_t other;
    cudaEvent_t first, last;
    float set_ms;
    double rate;

    must(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "cudaStreamCreate");
    must(cudaEventCreate(&first), "cudaEventCreate");
    must(cudaEventCreate(&last), "cudaEventCreate");
    must(cudaEventRecord(first, other), "cudaEventRecord");
    must(cudaMemsetAsync(device + POOL_BYTES, 1, POOL_BYTES, other), "cudaMemsetAsync");
    must(cudaEventRecord(last, other), "cudaEventRecord");
    must(cudaEventSynchronize(last), "cudaMemsetAsync");
    must(cudaEventElapsedTime(&set_ms, first, last), "cudaEventElapsedTime");
    /* As many as take about as long as the copies at 60 GB/s. */
    for (double ms = 0; ms < (double)COPIES_BYTES / 60e6; ms += set_ms > 0.01f ? (double)set_ms : 0.01)
        must(cudaMemsetAsync(device + POOL_BYTES, 1, POOL_BYTES, other), "cudaMemsetAsync");
    rate = copy_rate(device, pool, bytes, stream);
    must(cudaStreamSynchronize(other), "cudaMemsetAsync");
    must(cudaEventDestroy(first), "cudaEventDestroy");
    must(cudaEventDestroy(last), "cudaEventDestroy");
    must(cudaStreamDestroy(other), "cudaStreamDestroy");
    return rate;
}

/* ---- The whole --------------------------------------------------------------------------------------------- */

static void measure_way(enum way way, uint8_t *device, cudaStream_t stream)
{
    struct pinning pinning = {0};
    uint8_t *pool = pool_take(way, &pinning);

    printf("%s\n  {\"way\":\"%s\",\"bytes\":%zu,\"touch_ns\":%llu,", way ? "," : "", way_names[way], POOL_BYTES,
           (unsigned long long)pinning.touch_ns);
    if (pinning.refused != cudaSuccess) {
        printf("\"refused\":\"%s\"}", cudaGetErrorName(pinning.refused));
        pool_give(way, pool, &pinning);
        return;
    }
    if (way == ALLOCATED)
        memset(pool, 1, POOL_BYTES);
    printf("\"pin_ns\":%llu,\"gb_per_s\":{", (unsigned long long)pinning.pin_ns);
    for (size_t bytes = MIB; bytes <= 64 * MIB; bytes *= 2) {
        double best = 0;

        for (int i = 0; i < ROUNDS; i++) {
            double rate = copy_rate(device, pool, bytes, stream);

            best = rate > best ? rate : best;
        }
        printf("%s\"%zu\":%.2f", bytes > MIB ? "," : "", bytes / MIB, best / 1e9);
    }
    printf("},\"gb_per_s_beside_memset\":%.2f", copy_rate_beside_work(device, pool, 4 * MIB, stream) / 1e9);
    pool_give(way, pool, &pinning);
    printf(",\"unpin_ns\":%llu}", (unsigned long long)pinning.unpin_ns);
}

int main(int argc, char **argv)
{
    int ordinal = argc > 1 ? atoi(argv[1]) : 0, driver = 0, runtime = 0;
    struct cudaDeviceProp about;
    uint64_t start = wall_ns(), context_ns;
    cudaStream_t stream;
    void *device;

    must(cudaSetDevice(ordinal), "cudaSetDevice");
    must(cudaFree(NULL), "the context");
    context_ns = wall_ns() - start;
    must(cudaGetDeviceProperties(&about, ordinal), "cudaGetDeviceProperties");
    must(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    must(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    must(cudaMalloc(&device, 2 * POOL_BYTES), "cudaMalloc");
    must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    printf("{\"device\":\"%s\",\"memory_bytes\":%zu,\"driver\":%d,\"runtime\":%d,\"context_ns\":%llu,\"ways\":[",
           about.name, about.totalGlobalMem, driver, runtime, (unsigned long long)context_ns);
    for (int way = 0; way < WAY_COUNT; way++)
        measure_way((enum way)way, device, stream);
    printf("]}\n");
    must(cudaStreamDestroy(stream), "cudaStreamDestroy");
    must(cudaFree(device), "cudaFree");
    return 0;
}
