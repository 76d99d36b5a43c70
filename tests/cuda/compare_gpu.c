/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: what a load brings to a GPU is what the same load brings to the host.
 * Method: a model as it is and as each float type, to both; every byte comes back and is compared. Then layers in turn
 * through a window of a quarter of them, on a stream of our own that copies them back, behind an acquire and before a
 * release, with nobody waiting in between. Needs a GPU; without one exit 77 and why.
 *
 *   compare_gpu MODEL [ORDINAL] */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "tundish.h"
#include "tundish_cuda.h"

#define TOKENS 3
#define CHUNK_BYTES (1 << 18)

static uint32_t passed, failed;

struct comparison {
    const struct tnd_model *model;
    struct tnd_loader *host_loader, *gpu_loader;
    struct tnd_load *host, *gpu;
    char title[64];
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "compare_gpu: %s: %s\n", what, why);
    exit(1);
}

static void must(int result, const char *what)
{
    if (result < 0)
        die(what, tnd_last_error());
}

static void must_cuda(cudaError_t error, const char *what)
{
    if (error != cudaSuccess)
        die(what, cudaGetErrorString(error));
}

static void judge(const struct comparison *comparison, const char *what, const char *wrong)
{
    passed += wrong == NULL;
    failed += wrong != NULL;
    if (wrong)
        printf("FAILED: %s, %s: other bytes in %s\n", comparison->title, what, wrong);
}

static uint64_t tensor_bytes(const struct comparison *comparison, uint32_t index, const void **ret_expected)
{
    enum tnd_dtype dtype;
    uint64_t bytes;

    must(tnd_load_tensor_type(comparison->host, index, &dtype, &bytes), "a type");
    must(tnd_load_tensor_data(comparison->host, index, ret_expected), "the host's bytes");
    return bytes;
}

/* Every tensor, read back when all has arrived. */
static void compare_all(const struct comparison *comparison)
{
    const char *wrong = NULL;

    for (uint32_t i = 0; i < tnd_model_tensor_count(comparison->model); i++) {
        const void *expected;
        uint64_t bytes = tensor_bytes(comparison, i, &expected);
        void *found = malloc(bytes + 1);

        if (!found)
            die("no memory", tnd_model_tensor(comparison->model, i)->name);
        must(tnd_load_tensor_read(comparison->gpu, i, 0, found, bytes), "the GPU's bytes");
        if (memcmp(found, expected, bytes))
            wrong = tnd_model_tensor(comparison->model, i)->name;
        free(found);
    }
    judge(comparison, "all of it", wrong);
}

/* One layer by way of a stream: what is queued behind the acquire finds it, and the release waits for that by
 * itself. */
static const char *compare_layer(const struct comparison *comparison, int32_t layer, cudaStream_t stream,
                                 uint8_t *pinned)
{
    uint8_t *at = pinned;
    const char *wrong = NULL;

    must(tnd_cuda_layer_acquire(comparison->gpu, layer, stream, -1), "an acquire");
    for (uint32_t i = 0; i < tnd_model_tensor_count(comparison->model); i++) {
        const void *expected;
        void *data;

        if (tnd_model_tensor(comparison->model, i)->layer != layer)
            continue;
        must(tnd_cuda_tensor_data(comparison->gpu, i, &data), "a tensor of an acquired layer");
        must_cuda(cudaMemcpyAsync(at, data, tensor_bytes(comparison, i, &expected), cudaMemcpyDeviceToHost, stream),
                  "a copy back");
        at += tensor_bytes(comparison, i, &expected);
    }
    must(tnd_cuda_layer_release(comparison->gpu, layer, stream), "a release");
    must_cuda(cudaStreamSynchronize(stream), "the copies back");
    at = pinned;
    for (uint32_t i = 0; i < tnd_model_tensor_count(comparison->model); i++) {
        const void *expected;

        if (tnd_model_tensor(comparison->model, i)->layer != layer)
            continue;
        if (memcmp(at, expected, tensor_bytes(comparison, i, &expected)))
            wrong = tnd_model_tensor(comparison->model, i)->name;
        at += tensor_bytes(comparison, i, &expected);
    }
    return wrong;
}

static void compare_window(struct comparison *comparison, const struct tnd_loader_options *loader_options,
                           struct tnd_load_options options)
{
    int32_t layers = (int32_t)tnd_model_layer_count(comparison->model);
    struct tnd_plan_sizes sizes;
    const char *wrong = NULL;
    struct tnd_plan *plan;
    cudaStream_t stream;
    uint8_t *pinned;

    options.lazy = TND_LAZY_DEMAND;
    must(tnd_plan_create(comparison->model, loader_options, &options, &plan), "a plan");
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    options.resident_bytes = (sizes.loaded_bytes - sizes.shared_bytes) / 4;
    if (options.resident_bytes < 2 * sizes.layer_bytes_max + CHUNK_BYTES)
        options.resident_bytes = 2 * sizes.layer_bytes_max + CHUNK_BYTES;
    must_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    must_cuda(cudaHostAlloc((void **)&pinned, sizes.layer_bytes_max + 1, cudaHostAllocDefault), "pinned memory");
    must(tnd_load_start(comparison->gpu_loader, comparison->model, &options, &comparison->gpu), "a window");
    for (int32_t i = 0; i < layers * TOKENS; i++) {
        const char *here = compare_layer(comparison, i % layers, stream, pinned);

        wrong = here ? here : wrong;
    }
    tnd_load_destroy(&comparison->gpu);
    must_cuda(cudaFreeHost(pinned), "pinned memory");
    must_cuda(cudaStreamDestroy(stream), "a stream");
    judge(comparison, "layers in a window", wrong);
}

static void compare_as(struct comparison *comparison, const struct tnd_loader_options *loader_options,
                       enum tnd_dtype dtype)
{
    struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype};
    struct tnd_load_stats on_host, on_gpu;

    snprintf(comparison->title, sizeof(comparison->title), "to %s", dtype ? tnd_dtype_name(dtype) : "what it is");
    must(tnd_load_start(comparison->host_loader, comparison->model, &options, &comparison->host), "a load");
    must(tnd_load_start(comparison->gpu_loader, comparison->model, &options, &comparison->gpu), "a load to the GPU");
    must(tnd_load_wait(comparison->host, -1), "a load");
    must(tnd_load_wait(comparison->gpu, -1), "a load to the GPU");
    compare_all(comparison);
    tnd_load_stats(comparison->host, &on_host);
    tnd_load_stats(comparison->gpu, &on_gpu);
    judge(comparison, "the counts of what was lost",
          on_host.overflowed == on_gpu.overflowed && on_host.underflowed == on_gpu.underflowed ? NULL : "the stats");
    tnd_load_destroy(&comparison->gpu);
    if (tnd_model_layer_count(comparison->model) > 2)
        compare_window(comparison, loader_options, options);
    tnd_load_destroy(&comparison->host);
}

int main(int argc, char **argv)
{
    static const enum tnd_dtype dtypes[] = {TND_DTYPE_NONE, TND_F16, TND_BF16, TND_F32};
    struct tnd_loader_options options = {.size = sizeof(options), .device = TND_DEVICE_CUDA,
                                         .cuda_ordinal = argc > 2 ? (uint32_t)atoi(argv[2]) : 0,
                                         .chunk_bytes = CHUNK_BYTES};
    struct tnd_cuda_probe probe = {.size = sizeof(probe)};
    struct comparison comparison = {0};
    struct tnd_model *model;

    must(tnd_cuda_probe(&probe), "the probe");
    if (probe.reason[0]) {
        printf("skipped: %s\n", probe.reason);
        return 77;
    }
    if (argc < 2)
        die("usage", "compare_gpu MODEL [ORDINAL]");
    must(tnd_model_open(argv[1], NULL, &model), "the model");
    must_cuda(cudaSetDevice((int)options.cuda_ordinal), "the GPU");
    must(tnd_loader_create(NULL, &comparison.host_loader), "a loader");
    must(tnd_loader_create(&options, &comparison.gpu_loader), "a loader of the GPU");
    comparison.model = model;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        compare_as(&comparison, &options, dtypes[i]);
    tnd_loader_destroy(&comparison.gpu_loader);
    tnd_loader_destroy(&comparison.host_loader);
    tnd_model_close(&model);
    printf("%u passed, %u failed, 0 skipped\n", passed, failed);
    return failed != 0;
}
