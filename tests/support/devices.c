/* SPDX-License-Identifier: Apache-2.0 */
#include "support/devices.h"

#include <stdlib.h>

#include "loader.h"
#include "support/late.h"

/* ---- The host --------------------------------------------------------------------------------------------------- */

static struct tnd_loader *create_loader_host(struct tnd_loader_options *options, enum streams_mode mode, uint64_t seed)
{
    struct tnd_loader *loader = NULL;

    (void)mode;
    (void)seed;
    return tnd_loader_create(options, &loader) < 0 ? NULL : loader;
}

static uint32_t none(void)
{
    return 0;
}

static const struct test_device host_device = {
    .name = "host",
    .create_loader = create_loader_host,
    .destroy_loader = tnd_loader_destroy,
    .blocks = none,
    .events = none,
};

/* ---- The late device -------------------------------------------------------------------------------------------- */

static struct tnd_device *late;

static struct tnd_device *create_late(enum streams_mode mode, uint64_t seed)
{
    return late = late_create(mode, seed);
}

static struct tnd_loader *create_loader_late(struct tnd_loader_options *options, enum streams_mode mode, uint64_t seed)
{
    struct tnd_loader *loader = NULL;

    if (tnd_loader_create(options, &loader) < 0)
        return NULL;
    loader->pipeline.options.device = create_late(mode, seed);
    return loader;
}

static void destroy_loader_late(struct tnd_loader **loader)
{
    tnd_loader_destroy(loader);
    late_destroy(late);
}

static void *stream_create_late(void)
{
    return stream_create(late_streams(late));
}

static struct stream *stream_of_late(void *stream)
{
    return stream;
}

static void fail_place_late(uint32_t nth)
{
    late_fail_place(late, nth);
}

static uint32_t blocks_late(void)
{
    return late_blocks(late);
}

static uint32_t events_late(void)
{
    return late_events(late);
}

static const struct test_device late_device = {
    .name = "late",
    .create = create_late,
    .create_loader = create_loader_late,
    .destroy = late_destroy,
    .destroy_loader = destroy_loader_late,
    .stream_create = stream_create_late,
    .stream_of = stream_of_late,
    .fail_place = fail_place_late,
    .blocks = blocks_late,
    .events = events_late,
};

/* ---- CUDA without a GPU ----------------------------------------------------------------------------------------- */

#ifdef TND_TEST_CUDA
#include "support/fake_cuda.h"

#define TILE_BYTES ((uint32_t)16 << 10) /* small: spans of all sizes go through several */

static struct fake_cuda_live own; /* of the device itself */

static void start(enum streams_mode mode, uint64_t seed)
{
    fake_cuda_start(&(struct fake_cuda){.mode = mode, .seed = seed});
}

static struct tnd_device *create_cuda(enum streams_mode mode, uint64_t seed)
{
    struct tnd_cuda_options options = {.allocator = tnd_allocator_or_default(NULL), .stream_count = 2,
                                       .tile_bytes = TILE_BYTES};
    struct tnd_device *device = NULL;

    start(mode, seed);
    if (tnd_cuda_create(&options, &device, NULL) < 0 || device->ops->ready(device, true, NULL) < 0)
        abort();
    own = fake_cuda_live();
    return device;
}

static void destroy_cuda(struct tnd_device *device)
{
    device->ops->destroy(device);
    fake_cuda_stop();
}

static struct tnd_loader *create_loader_cuda(struct tnd_loader_options *options, enum streams_mode mode, uint64_t seed)
{
    struct tnd_loader *loader = NULL;

    start(mode, seed);
    options->device = TND_DEVICE_CUDA;
    if (tnd_loader_create(options, &loader) < 0 || loader->cuda->ops->ready(loader->cuda, true, NULL) < 0)
        return NULL;
    own = fake_cuda_live();
    return loader;
}

static void destroy_loader_cuda(struct tnd_loader **loader)
{
    tnd_loader_destroy(loader);
    fake_cuda_stop();
}

static void *stream_create_cuda(void)
{
    cudaStream_t stream;

    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        abort();
    return stream;
}

static struct stream *stream_of_cuda(void *stream)
{
    return fake_cuda_stream(stream);
}

static void fail_place_cuda(uint32_t nth)
{
    fake_cuda_fail_call("cudaMemcpyAsync", nth, cudaErrorIllegalAddress, false);
}

static uint32_t blocks_cuda(void)
{
    return fake_cuda_live().blocks - own.blocks;
}

static uint32_t events_cuda(void)
{
    return fake_cuda_live().events - own.events;
}

static const struct test_device cuda_device = {
    .name = "cuda",
    .create = create_cuda,
    .create_loader = create_loader_cuda,
    .destroy = destroy_cuda,
    .destroy_loader = destroy_loader_cuda,
    .stream_create = stream_create_cuda,
    .stream_of = stream_of_cuda,
    .fail_place = fail_place_cuda,
    .blocks = blocks_cuda,
    .events = events_cuda,
};
#endif

const struct test_device *const test_devices[] = {
    &host_device,
    &late_device,
#ifdef TND_TEST_CUDA
    &cuda_device,
#endif
    NULL,
};
