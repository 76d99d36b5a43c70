/* SPDX-License-Identifier: Apache-2.0 */
#include "device_cuda.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "base/waker.h"
#include "tundish_cuda.h"

#define TILES_BYTES_MAX ((uint32_t)128 << 20)
#define EVENT_FLAGS (cudaEventDisableTiming | cudaEventBlockingSync) /* who waits for one sleeps */

int tnd_cuda_check(const struct tnd_cuda *cuda, cudaError_t error, const char *call, struct tnd_err *err)
{
    if (error == cudaSuccess)
        return 0;
    cudaGetLastError(); /* takes it off, unless the context is lost */
    return tnd_fail(err, error == cudaErrorMemoryAllocation ? -ENOMEM : -EIO, "%s: %s: %s (%d)", cuda->name, call,
                    cudaGetErrorString(error), (int)error);
}

int tnd_cuda_use(const struct tnd_cuda *cuda, struct tnd_err *err)
{
    return tnd_cuda_check(cuda, cudaSetDevice((int)cuda->options.ordinal), "cudaSetDevice", err);
}

/* ---- What there is ----------------------------------------------------------------------------------------- */

/* Costs nothing where there is no driver: CUDA looks for its library, and no further. */
static int look_for_driver(int *ret_version, struct tnd_err *err)
{
    int r;

    *ret_version = 0;
    r = cudaDriverGetVersion(ret_version);
    if (r != cudaSuccess)
        cudaGetLastError();
    if (r != cudaSuccess || *ret_version == 0)
        return tnd_fail(err, -ENODEV, "no NVIDIA driver can be used here: libcuda.so.1 is missing or does not load");
    if (*ret_version / 1000 < CUDART_VERSION / 1000)
        return tnd_fail(err, -ENODEV, "the NVIDIA driver serves CUDA %d.%d, this build needs %d.0", *ret_version / 1000,
                        *ret_version % 1000 / 10, CUDART_VERSION / 1000);
    return 0;
}

static int count_devices(int *ret_count, struct tnd_err *err)
{
    cudaError_t error = cudaGetDeviceCount(ret_count);

    if (error != cudaSuccess) {
        cudaGetLastError();
        *ret_count = 0;
        return tnd_fail(err, -ENODEV, "no GPU can be used: cudaGetDeviceCount: %s (%d)", cudaGetErrorString(error),
                        (int)error);
    }
    return *ret_count > 0 ? 0 : tnd_fail(err, -ENODEV, "the NVIDIA driver has no GPU");
}

void tnd_cuda_look(struct tnd_cuda_probe *probe)
{
    struct tnd_err err = {0};
    int count = 0;

    probe->build = true;
    probe->runtime_version = CUDART_VERSION;
    if (look_for_driver(&probe->driver_version, &err) >= 0)
        count_devices(&count, &err);
    probe->device_count = (uint32_t)count;
    snprintf(probe->reason, sizeof(probe->reason), "%.*s", (int)sizeof(probe->reason) - 1, err.text);
}

/* ---- Start ------------------------------------------------------------------------------------------------- */

static int open_device(struct tnd_cuda *cuda, struct tnd_err *err)
{
    int count, node = -1;
    int r = count_devices(&count, err);

    if (r < 0)
        return r;
    if (cuda->options.ordinal >= (uint32_t)count)
        return tnd_fail(err, -ENODEV, "%s: the number of GPUs is %d", cuda->name, count);
    r = tnd_cuda_use(cuda, err);
    if (r >= 0)
        r = tnd_cuda_check(cuda, cudaFree(NULL), "cudaFree", err); /* makes the context */
    if (r < 0)
        return r;
    if (cudaDeviceGetAttribute(&node, cudaDevAttrHostNumaId, (int)cuda->options.ordinal) != cudaSuccess)
        cudaGetLastError(); /* a driver that does not know: anywhere, then */
    cuda->node = node;
    return 0;
}

static int make_streams(struct tnd_cuda *cuda, struct tnd_err *err)
{
    cudaStream_t *streams[TND_CUDA_STREAMS_MAX + 2] = {&cuda->copy, &cuda->back};
    uint32_t count = 2;
    int r = 0;

    for (uint32_t i = 0; i < cuda->options.stream_count; i++)
        streams[count++] = &cuda->compute[i];
    for (uint32_t i = 0; i < count && r >= 0; i++)
        r = tnd_cuda_check(cuda, cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking),
                           "cudaStreamCreateWithFlags", err);
    return r;
}

static int make_event(const struct tnd_cuda *cuda, cudaEvent_t *event, struct tnd_err *err)
{
    return tnd_cuda_check(cuda, cudaEventCreateWithFlags(event, EVENT_FLAGS), "cudaEventCreateWithFlags", err);
}

static int make_events(struct tnd_cuda *cuda, struct tnd_err *err)
{
    int r = 0;

    for (uint32_t i = 0; i < cuda->options.stream_count && r >= 0; i++)
        r = make_event(cuda, &cuda->so_far[i], err);
    for (uint32_t i = 0; i < TND_CUDA_TICKETS && r >= 0; i++) {
        r = make_event(cuda, &cuda->tickets[i].copied, err);
        if (r >= 0)
            r = make_event(cuda, &cuda->tickets[i].converted, err);
    }
    for (uint32_t i = 0; i < cuda->tile_count && r >= 0; i++) {
        r = make_event(cuda, &cuda->tiles[i].copied, err);
        if (r >= 0)
            r = make_event(cuda, &cuda->tiles[i].converted, err);
    }
    return r;
}

static int make_memory(struct tnd_cuda *cuda, struct tnd_err *err)
{
    size_t counts_bytes = cuda->options.stream_count * sizeof(*cuda->counts);
    int r = tnd_cuda_check(cuda, cudaMalloc((void **)&cuda->tile_memory,
                                            (size_t)cuda->tile_count * cuda->options.tile_bytes),
                           "cudaMalloc", err);

    for (uint32_t i = 0; i < cuda->tile_count; i++)
        cuda->tiles[i].data = cuda->tile_memory + (size_t)i * cuda->options.tile_bytes;
    if (r >= 0)
        r = tnd_cuda_check(cuda, cudaMalloc((void **)&cuda->counts, counts_bytes), "cudaMalloc", err);
    if (r >= 0)
        r = tnd_cuda_check(cuda, cudaMemset(cuda->counts, 0, counts_bytes), "cudaMemset", err);
    if (r >= 0) /* a memset may still be under way when it returns, and these streams do not wait for it */
        r = tnd_cuda_check(cuda, cudaStreamSynchronize(NULL), "cudaStreamSynchronize", err);
    if (r >= 0)
        r = tnd_cuda_check(cuda, cudaHostAlloc((void **)&cuda->snapshots,
                                               TND_CUDA_TICKETS * sizeof(*cuda->snapshots), cudaHostAllocDefault),
                           "cudaHostAlloc", err);
    return r;
}

static int start(struct tnd_cuda *cuda, struct tnd_err *err)
{
    int r = open_device(cuda, err);

    if (r >= 0)
        r = make_streams(cuda, err);
    if (r >= 0)
        r = make_memory(cuda, err);
    if (r >= 0)
        r = make_events(cuda, err);
    if (r >= 0)
        r = tnd_cuda_check(cuda, (cudaError_t)tnd_cuda_kernels_preload(), "tnd_cuda_kernels_preload", err);
    return r;
}

static void drop_event(cudaEvent_t event)
{
    if (event)
        cudaEventDestroy(event);
}

static void drop_stream(cudaStream_t stream)
{
    if (stream)
        cudaStreamDestroy(stream);
}

/* What start() made, however much of it. A lost context refuses all of this, and goes with the process. */
static void finish(struct tnd_cuda *cuda)
{
    for (uint32_t i = 0; i < TND_CUDA_TICKETS; i++) {
        drop_event(cuda->tickets[i].copied);
        drop_event(cuda->tickets[i].converted);
    }
    for (uint32_t i = 0; i < cuda->tile_count; i++) {
        drop_event(cuda->tiles[i].copied);
        drop_event(cuda->tiles[i].converted);
    }
    for (uint32_t i = 0; i < cuda->options.stream_count; i++) {
        drop_event(cuda->so_far[i]);
        drop_stream(cuda->compute[i]);
    }
    drop_stream(cuda->copy);
    drop_stream(cuda->back);
    if (cuda->tile_memory) /* a free of nothing would start a GPU up */
        cudaFree(cuda->tile_memory);
    if (cuda->counts)
        cudaFree(cuda->counts);
    if (cuda->snapshots)
        cudaFreeHost(cuda->snapshots);
}

/* ---- Serve ------------------------------------------------------------------------------------------------- */

/* Under mutex, which is let go of while a call runs. */
static void run_calls(struct tnd_cuda *cuda)
{
    struct tnd_cuda_call *call;

    while ((call = cuda->calls)) {
        int r;

        cuda->calls = call->next;
        if (!cuda->calls)
            cuda->calls_tail = &cuda->calls;
        pthread_mutex_unlock(&cuda->mutex);
        r = call->run(call, call->err);
        pthread_mutex_lock(&cuda->mutex);
        call->result = r;
        call->over = true;
        pthread_cond_broadcast(&cuda->over_cond);
    }
}

static void *service_main(void *argument)
{
    struct tnd_cuda *cuda = argument;
    nvtxRangeId_t range = tnd_cuda_range_start(cuda->profile, "start", 0);
    int r = start(cuda, &cuda->start_err);

    tnd_cuda_range_end(cuda->profile, range);
    pthread_mutex_lock(&cuda->mutex);
    if (r >= 0)
        run_calls(cuda);
    cuda->calls = NULL; /* of a start that failed */
    cuda->calls_tail = &cuda->calls;
    cuda->started = true;
    pthread_cond_broadcast(&cuda->over_cond);
    if (cuda->options.waker)
        tnd_waker_signal(cuda->options.waker);
    while (!cuda->stopping) {
        pthread_cond_wait(&cuda->called_cond, &cuda->mutex);
        run_calls(cuda);
    }
    pthread_mutex_unlock(&cuda->mutex);
    finish(cuda);
    return NULL;
}

/* Under mutex. */
static void queue_call(struct tnd_cuda *cuda, struct tnd_cuda_call *call)
{
    call->cuda = cuda;
    call->next = NULL;
    call->over = false;
    *cuda->calls_tail = call;
    cuda->calls_tail = &call->next;
}

bool tnd_cuda_call_at_start(struct tnd_cuda *cuda, struct tnd_cuda_call *call)
{
    bool queued;

    pthread_mutex_lock(&cuda->mutex);
    queued = !cuda->started;
    if (queued)
        queue_call(cuda, call);
    pthread_mutex_unlock(&cuda->mutex);
    return queued;
}

int tnd_cuda_ready(struct tnd_device *device, bool wait, struct tnd_err *err)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    bool started;

    if (getpid() != cuda->process) /* nor is its thread here */
        return tnd_fail(err, -EIO, "%s was started before this process was forked, and is its parent's", cuda->name);
    pthread_mutex_lock(&cuda->mutex);
    while (wait && !cuda->started)
        pthread_cond_wait(&cuda->over_cond, &cuda->mutex);
    started = cuda->started;
    pthread_mutex_unlock(&cuda->mutex);
    if (!started)
        return 0;
    if (cuda->start_err.result >= 0)
        return 1;
    if (err)
        *err = cuda->start_err;
    return cuda->start_err.result;
}

int tnd_cuda_call(struct tnd_cuda *cuda, struct tnd_cuda_call *call, struct tnd_err *err)
{
    int r = tnd_cuda_ready(&cuda->device, true, err);

    if (r < 0)
        return r;
    pthread_mutex_lock(&cuda->mutex);
    call->err = err;
    queue_call(cuda, call);
    pthread_cond_signal(&cuda->called_cond);
    while (!call->over)
        pthread_cond_wait(&cuda->over_cond, &cuda->mutex);
    r = call->result;
    pthread_mutex_unlock(&cuda->mutex);
    return r;
}

/* ---- Profilers --------------------------------------------------------------------------------------------- */

static nvtxDomainHandle_t domain;

static void make_domain(void)
{
    domain = nvtxDomainCreateA("tundish");
}

/* One for all of a process, for as long as that lives: its name is to be the only one of that kind. */
static nvtxDomainHandle_t find_domain(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_domain);
    return domain;
}

/* ---- Life -------------------------------------------------------------------------------------------------- */

int tnd_cuda_create(const struct tnd_cuda_options *options, struct tnd_device **ret_device, struct tnd_err *err)
{
    struct tnd_cuda *cuda;
    int version;
    int r = look_for_driver(&version, err);

    if (r < 0)
        return r;
    cuda = tnd_zalloc(&options->allocator, 1, sizeof(*cuda));
    if (!cuda)
        return tnd_fail(err, -ENOMEM, "no memory for a GPU's events");
    cuda->device.ops = &tnd_cuda_ops;
    cuda->options = *options;
    if (!cuda->options.tile_bytes)
        cuda->options.tile_bytes = TND_CUDA_TILE_BYTES;
    cuda->tile_count =
        (uint32_t)tnd_min(2 * options->stream_count, TILES_BYTES_MAX / cuda->options.tile_bytes);
    atomic_init(&cuda->pinning, options->pinning == TND_PIN_AUTO ? TND_PIN_REGISTER : options->pinning);
    cuda->process = getpid();
    cuda->calls_tail = &cuda->calls;
    snprintf(cuda->name, sizeof(cuda->name), "cuda:%u", options->ordinal);
    cuda->profile = find_domain();
    pthread_mutex_init(&cuda->mutex, NULL);
    pthread_cond_init(&cuda->called_cond, NULL);
    pthread_cond_init(&cuda->over_cond, NULL);
    if (tnd_thread_create(&cuda->thread, service_main, cuda) < 0) {
        tnd_free(&options->allocator, cuda);
        return tnd_fail(err, -ENOMEM, "no thread could be started");
    }
    *ret_device = &cuda->device;
    return 0;
}

void tnd_cuda_destroy(struct tnd_device *device)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    struct tnd_allocator allocator = cuda->options.allocator;

    pthread_mutex_lock(&cuda->mutex);
    cuda->stopping = true;
    pthread_cond_signal(&cuda->called_cond);
    pthread_mutex_unlock(&cuda->mutex);
    pthread_join(cuda->thread, NULL);
    pthread_cond_destroy(&cuda->over_cond);
    pthread_cond_destroy(&cuda->called_cond);
    pthread_mutex_destroy(&cuda->mutex);
    tnd_free(&allocator, cuda);
}

void tnd_cuda_usage(struct tnd_device *device, struct tnd_cuda_usage *ret_usage)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);

    *ret_usage = (struct tnd_cuda_usage){
        .tile_bytes = (uint64_t)cuda->tile_count * cuda->options.tile_bytes,
        .pinned_bytes = atomic_load(&cuda->pinned_bytes_max),
    };
}
