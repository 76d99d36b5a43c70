/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fake_cuda.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "kernels.h"
#include "kernels/kernel.h"

#define ALIGNMENT 256
#define POISON 0xDB
#define RANGES_MAX 4096
#define DEVICES_MAX 8
#define SMALL_BYTES 65536 /* what is asked for as host memory and is no buffer */

enum range_kind { RANGE_NONE, RANGE_DEVICE, RANGE_REGISTERED, RANGE_ALLOCATED };

/* Memory that CUDA knows. */
struct range {
    enum range_kind kind;
    uint8_t *data;
    size_t bytes;
};

struct CUstream_st {
    struct stream *stream;
    int device;
    struct CUstream_st *next;
};

struct CUevent_st {
    struct stream_event event;
    int device;
};

static struct fake_cuda fake;
static struct streams *set;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the tables; no stream's thread takes it */
static struct range ranges[RANGES_MAX];
static struct CUstream_st *all_streams;
static size_t used_bytes;
static atomic_uint live_streams, live_events, touched;
/* Relaxed all of them: to count orders nobody. */
static atomic_uint fails_in;
static atomic_int fail_error, sticky_error;
static bool fail_sticky;
static const char *fail_name; /* NULL: any */
static _Thread_local int current;
static _Thread_local cudaError_t last_error;

void fake_cuda_start(const struct fake_cuda *given)
{
    fake = *given;
    if (!fake.device_count)
        fake.device_count = 1;
    if (!fake.driver_version)
        fake.driver_version = CUDART_VERSION;
    if (!fake.device_bytes)
        fake.device_bytes = (size_t)1 << 30;
    set = streams_create(fake.mode, fake.seed);
    used_bytes = 0;
    touched = live_streams = live_events = 0;
    last_error = cudaSuccess;
    current = 0;
    sticky_error = cudaSuccess;
    fake_cuda_fail(0, cudaSuccess, false);
}

void fake_cuda_stop(void)
{
    struct CUstream_st *stream = all_streams, *next;

    streams_destroy(set);
    for (; stream; stream = next) {
        next = stream->next;
        free(stream);
    }
    all_streams = NULL;
    for (int i = 0; i < RANGES_MAX; i++) {
        if (ranges[i].kind == RANGE_DEVICE || ranges[i].kind == RANGE_ALLOCATED)
            free(ranges[i].data);
        ranges[i].kind = RANGE_NONE;
    }
}

void fake_cuda_fail_call(const char *name, uint32_t nth, cudaError_t error, bool sticky)
{
    fail_name = name;
    fail_sticky = sticky;
    atomic_store(&fail_error, (int)error);
    atomic_store(&fails_in, nth);
}

void fake_cuda_fail(uint32_t nth, cudaError_t error, bool sticky)
{
    fake_cuda_fail_call(NULL, nth, error, sticky);
}

bool fake_cuda_failed(void)
{
    return !atomic_load(&fails_in);
}

struct fake_cuda_live fake_cuda_live(void)
{
    struct fake_cuda_live live = {.streams = live_streams, .events = live_events};

    pthread_mutex_lock(&mutex);
    for (int i = 0; i < RANGES_MAX; i++) {
        live.blocks += ranges[i].kind == RANGE_DEVICE;
        live.pinned += ranges[i].kind == RANGE_REGISTERED || ranges[i].kind == RANGE_ALLOCATED;
    }
    pthread_mutex_unlock(&mutex);
    return live;
}

uint32_t fake_cuda_touched(void)
{
    return touched;
}

struct stream *fake_cuda_stream(cudaStream_t stream)
{
    return stream->stream;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

static cudaError_t answer(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

/* Each call begins here: what it answers at once, if that is not cudaSuccess. */
static cudaError_t enter(const char *name)
{
    unsigned left;

    if (atomic_load_explicit(&sticky_error, memory_order_relaxed) != cudaSuccess)
        return answer((cudaError_t)atomic_load_explicit(&sticky_error, memory_order_relaxed));
    left = atomic_load_explicit(&fails_in, memory_order_relaxed);
    if (fail_name && strcmp(fail_name, name) != 0)
        return cudaSuccess;
    while (left && !atomic_compare_exchange_weak_explicit(&fails_in, &left, left - 1, memory_order_relaxed,
                                                          memory_order_relaxed))
        ;
    if (left != 1)
        return cudaSuccess;
    if (fail_sticky)
        atomic_store_explicit(&sticky_error, atomic_load(&fail_error), memory_order_relaxed);
    return answer((cudaError_t)atomic_load_explicit(&fail_error, memory_order_relaxed));
}

/* The same for one that needs a GPU: it starts the thread's current one up. */
static cudaError_t enter_device(const char *name)
{
    unsigned bit = 1u << current;

    if (!(atomic_fetch_or_explicit(&touched, bit, memory_order_relaxed) & bit) && fake.start_us)
        nanosleep(&(struct timespec){.tv_nsec = (long)fake.start_us * 1000}, NULL);
    return enter(name);
}

/* Under mutex. The range that has these bytes; NULL. */
static struct range *find(const void *data, size_t bytes)
{
    for (int i = 0; i < RANGES_MAX; i++)
        if (ranges[i].kind && (const uint8_t *)data >= ranges[i].data &&
            (const uint8_t *)data + bytes <= ranges[i].data + ranges[i].bytes)
            return &ranges[i];
    return NULL;
}

static enum range_kind kind_of(const void *data, size_t bytes)
{
    const struct range *range;
    enum range_kind kind;

    pthread_mutex_lock(&mutex);
    range = find(data, bytes);
    kind = range ? range->kind : RANGE_NONE;
    pthread_mutex_unlock(&mutex);
    return kind;
}

static void keep(enum range_kind kind, void *data, size_t bytes)
{
    int i = 0;

    pthread_mutex_lock(&mutex);
    while (i < RANGES_MAX && ranges[i].kind)
        i++;
    if (i == RANGES_MAX)
        abort();
    ranges[i] = (struct range){.kind = kind, .data = data, .bytes = bytes};
    pthread_mutex_unlock(&mutex);
}

/* Takes a range of a kind out by its start; whether there was one. */
static bool drop(enum range_kind kind, void *data)
{
    bool found = false;

    pthread_mutex_lock(&mutex);
    for (int i = 0; i < RANGES_MAX && !found; i++)
        if (ranges[i].kind == kind && ranges[i].data == data) {
            ranges[i].kind = RANGE_NONE;
            used_bytes -= kind == RANGE_DEVICE ? ranges[i].bytes : 0;
            found = true;
        }
    pthread_mutex_unlock(&mutex);
    return found;
}

static void *memory(size_t bytes)
{
    void *data = aligned_alloc(ALIGNMENT, tnd_round_up(bytes, ALIGNMENT));

    if (!data)
        abort();
    memset(data, POISON, bytes);
    return data;
}

/* ---- Errors, devices -------------------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;

    last_error = cudaSuccess;
    return sticky_error != cudaSuccess ? (cudaError_t)sticky_error : error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorNotSupported:
        return "operation not supported";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    default:
        return "an error of the fake";
    }
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = fake.driver_version < 0 ? 0 : fake.driver_version;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t error = enter("cudaGetDeviceCount");

    *count = fake.device_count < 0 ? 0 : fake.device_count;
    return error != cudaSuccess ? error : answer(fake.device_count < 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t error = enter("cudaSetDevice");

    if (error == cudaSuccess && (device < 0 || device >= fake.device_count))
        return answer(cudaErrorInvalidDevice);
    if (error == cudaSuccess)
        current = device;
    return error;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    cudaError_t error = enter("cudaDeviceGetAttribute");

    (void)device;
    if (error == cudaSuccess)
        *value = attribute == cudaDevAttrHostNumaId ? 0 : -1;
    return error;
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    cudaError_t error = enter_device("cudaMemGetInfo");

    if (error != cudaSuccess)
        return error;
    pthread_mutex_lock(&mutex);
    *free_bytes = fake.device_bytes - used_bytes;
    pthread_mutex_unlock(&mutex);
    *total_bytes = fake.device_bytes;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **data, size_t bytes)
{
    cudaError_t error = enter_device("cudaMalloc");
    bool fits;

    if (error != cudaSuccess)
        return error;
    pthread_mutex_lock(&mutex);
    fits = bytes <= fake.device_bytes - used_bytes;
    used_bytes += fits ? bytes : 0;
    pthread_mutex_unlock(&mutex);
    if (!fits)
        return answer(cudaErrorMemoryAllocation);
    *data = memory(bytes);
    keep(RANGE_DEVICE, *data, bytes);
    return cudaSuccess;
}

/* What is freed is freed, also where the answer is that of a context that is lost: for the count of what was not. */
cudaError_t cudaFree(void *data)
{
    cudaError_t error = enter_device("cudaFree");

    if (data && !drop(RANGE_DEVICE, data))
        return answer(cudaErrorInvalidValue);
    free(data);
    return error;
}

cudaError_t cudaMemset(void *data, int value, size_t bytes)
{
    cudaError_t error = enter_device("cudaMemset");

    if (error == cudaSuccess)
        memset(data, value, bytes);
    return error;
}

cudaError_t cudaHostRegister(void *data, size_t bytes, unsigned flags)
{
    cudaError_t error = enter_device("cudaHostRegister");

    (void)flags;
    if (error == cudaSuccess && fake.register_error != cudaSuccess)
        return answer(fake.register_error);
    if (error == cudaSuccess && kind_of(data, 1) != RANGE_NONE)
        return answer(cudaErrorHostMemoryAlreadyRegistered);
    if (error == cudaSuccess)
        keep(RANGE_REGISTERED, data, bytes);
    return error;
}

cudaError_t cudaHostUnregister(void *data)
{
    cudaError_t error = enter_device("cudaHostUnregister");

    return drop(RANGE_REGISTERED, data) ? error : answer(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostAlloc(void **data, size_t bytes, unsigned flags)
{
    cudaError_t error = enter_device("cudaHostAlloc");

    (void)flags;
    if (error == cudaSuccess && fake.alloc_error != cudaSuccess && bytes >= SMALL_BYTES)
        return answer(fake.alloc_error);
    if (error != cudaSuccess)
        return error;
    *data = aligned_alloc(4096, tnd_round_up(bytes, 4096)); /* what is read into past the page cache */
    memset(*data, POISON, bytes);
    keep(RANGE_ALLOCATED, *data, bytes);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *data)
{
    cudaError_t error = enter_device("cudaFreeHost");

    if (!drop(RANGE_ALLOCATED, data))
        return answer(cudaErrorInvalidValue);
    free(data);
    return error;
}

struct copy {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
    bool staged; /* from is a copy of its own */
};

static void run_copy(void *argument)
{
    const struct copy *copy = argument;

    for (size_t i = 0; i < copy->bytes; i++)
        copy->to[i] = copy->from[i];
    if (copy->staged)
        free((void *)copy->from);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t error = enter_device("cudaMemcpyAsync");
    bool up = kind == cudaMemcpyHostToDevice;
    struct copy copy = {.to = to, .from = from, .bytes = bytes};
    enum range_kind host;

    if (error != cudaSuccess)
        return error;
    if (kind_of(up ? to : from, bytes) != RANGE_DEVICE)
        return answer(cudaErrorInvalidValue);
    host = kind_of(up ? from : to, bytes);
    if (up && host == RANGE_NONE) {
        uint8_t *staged = memory(bytes);

        memcpy(staged, from, bytes);
        copy.from = staged;
        copy.staged = true;
    }
    stream_run(stream->stream, run_copy, &copy, sizeof(copy));
    if (!up && host == RANGE_NONE)
        stream_synchronize(stream->stream);
    return cudaSuccess;
}

/* ---- Streams, events -------------------------------------------------------------------------------------------- */

static void run_kernel_init(void *argument)
{
    (void)argument;
    tnd_kernel_thread_init();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags)
{
    cudaError_t error = enter_device("cudaStreamCreateWithFlags");
    struct CUstream_st *stream;

    (void)flags;
    if (error != cudaSuccess)
        return error;
    stream = calloc(1, sizeof(*stream));
    if (!stream)
        abort();
    stream->stream = stream_create(set);
    stream->device = current;
    stream_run(stream->stream, run_kernel_init, NULL, 0);
    pthread_mutex_lock(&mutex);
    stream->next = all_streams;
    all_streams = stream;
    pthread_mutex_unlock(&mutex);
    atomic_fetch_add(&live_streams, 1);
    *ret_stream = stream;
    return cudaSuccess;
}

/* What is queued still runs. */
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    atomic_fetch_sub(&live_streams, 1);
    return enter_device("cudaStreamDestroy");
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    cudaError_t error = enter_device("cudaStreamSynchronize");

    if (stream) /* also when the call fails: nothing runs on a context that is lost */
        stream_synchronize(stream->stream);
    return error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    cudaError_t error = enter_device("cudaStreamWaitEvent");

    (void)flags;
    if (error == cudaSuccess)
        stream_wait_event(stream->stream, &event->event);
    return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags)
{
    cudaError_t error = enter_device("cudaEventCreateWithFlags");
    struct CUevent_st *event;

    (void)flags;
    if (error != cudaSuccess)
        return error;
    event = calloc(1, sizeof(*event));
    if (!event)
        abort();
    event->device = current;
    atomic_fetch_add(&live_events, 1);
    *ret_event = event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    atomic_fetch_sub(&live_events, 1);
    return enter_device("cudaEventDestroy");
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t error = enter_device("cudaEventRecord");

    if (error == cudaSuccess && event->device != stream->device)
        return answer(cudaErrorInvalidResourceHandle);
    if (error == cudaSuccess)
        stream_event_record(&event->event, stream->stream);
    return error;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    cudaError_t error = enter_device("cudaEventQuery");

    return error != cudaSuccess || stream_event_query(&event->event) ? error : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaError_t error = enter_device("cudaEventSynchronize");

    if (error == cudaSuccess)
        stream_event_synchronize(&event->event);
    return error;
}

/* ---- Kernels ---------------------------------------------------------------------------------------------------- */

struct conversion {
    const struct tnd_kernel *kernel;
    void *to;
    const void *from;
    uint64_t elements;
    struct tnd_cuda_counts *counts;
};

static void run_conversion(void *argument)
{
    const struct conversion *conversion = argument;
    struct tnd_range_counts range = {0};

    conversion->kernel->run(conversion->to, conversion->from, conversion->elements, &range);
    conversion->counts->overflowed += range.overflowed;
    conversion->counts->underflowed += range.underflowed;
}

int tnd_cuda_convert(enum tnd_dtype from, enum tnd_dtype to, void *destination, const void *source, uint64_t elements,
                     struct tnd_cuda_counts *counts, void *stream)
{
    struct conversion conversion = {tnd_kernel_find(from, to, TND_ISA_C), destination, source, elements, counts};
    cudaError_t error = enter_device("tnd_cuda_convert");

    if (error != cudaSuccess)
        return (int)error;
    if (!conversion.kernel)
        return (int)answer(cudaErrorNotSupported);
    if (kind_of(source, 1) != RANGE_DEVICE || kind_of(destination, 1) != RANGE_DEVICE ||
        kind_of(counts, sizeof(*counts)) != RANGE_DEVICE || ((cudaStream_t)stream)->device != current)
        return (int)answer(cudaErrorInvalidResourceHandle);
    stream_run(((cudaStream_t)stream)->stream, run_conversion, &conversion, sizeof(conversion));
    return cudaSuccess;
}

int tnd_cuda_kernels_preload(void)
{
    return (int)enter_device("tnd_cuda_kernels_preload");
}
