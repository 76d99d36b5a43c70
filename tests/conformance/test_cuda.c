/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: the CUDA device does without a GPU what it is to do with one, through the public headers: it starts up beside
 * the reads, pins what can be pinned, touches one GPU, gives streams their layers; and whatever CUDA answers, a load
 * ends with a sentence, nothing is left over and nobody waits for ever.
 * Method: a CUDA of our own in its place (support/fake_cuda.h), whose calls can be made to fail, each in turn. */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "loader.h"
#include "support/fake_cuda.h"
#include "support/layers_file.h"
#include "support/suite.h"
#include "tundish_cuda.h"

static struct layers_file file;

static void setup(void)
{
    layers_file_open(&file);
}

static void teardown(void)
{
    layers_file_close(&file);
}

static struct tnd_loader_options loader_options(void)
{
    return (struct tnd_loader_options){.size = sizeof(struct tnd_loader_options), .chunk_bytes = 64 << 10,
                                       .pool_bytes_max = 1 << 20, .device = TND_DEVICE_CUDA};
}

static void expect_nothing_left(void)
{
    struct fake_cuda_live live = fake_cuda_live();

    ck_assert_uint_eq(live.blocks, 0);
    ck_assert_uint_eq(live.pinned, 0);
    ck_assert_uint_eq(live.streams, 0);
    ck_assert_uint_eq(live.events, 0);
}

static void expect_bytes(struct tnd_load *load, enum tnd_dtype dtype)
{
    for (uint32_t i = 0; i < TENSORS; i++) {
        uint64_t bytes;
        uint8_t *expected = layers_file_expect(&file, i, dtype, &bytes), *found = malloc(bytes);

        ck_assert_msg(tnd_load_tensor_read(load, layers_file_tensor(&file, i), 0, found, bytes) == 0, "%s",
                      tnd_last_error());
        ck_assert_int_eq(memcmp(found, expected, bytes), 0);
        free(expected);
        free(found);
    }
}

/* A whole load, looked at byte by byte. reasons: all of them in a row. */
static void load_all(const struct tnd_loader_options *options, enum tnd_dtype dtype, struct tnd_load_stats *ret_stats,
                     char *reasons, size_t reasons_bytes)
{
    struct tnd_load_options wanted = {.size = sizeof(wanted), .dtype = dtype};
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    const char *reason;

    ck_assert_msg(tnd_loader_create(options, &loader) == 0, "%s", tnd_last_error());
    ck_assert_msg(tnd_load_start(loader, file.model, &wanted, &load) == 0, "%s", tnd_last_error());
    ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_load_error(load));
    expect_bytes(load, dtype);
    tnd_load_stats(load, ret_stats);
    reasons[0] = '\0';
    for (uint32_t i = 0; (reason = tnd_load_reason(load, i)); i++)
        snprintf(reasons + strlen(reasons), reasons_bytes - strlen(reasons), "%s\n", reason);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}

/* ---- Which device ------------------------------------------------------------------------------------------ */

START_TEST(says_why_there_is_no_gpu)
{
    static const struct {
        struct fake_cuda fake;
        uint32_t ordinal;
        const char *words;
        bool at_once; /* the loader itself is refused */
    } cases[] = {
        {{.driver_version = -1}, 0, "no NVIDIA driver", true},
        {{.driver_version = 12040}, 0, "serves CUDA 12.4", true},
        {{.device_count = -1}, 0, "no CUDA-capable device", false},
        {{.device_count = 2}, 2, "number of GPUs is 2", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tnd_loader_options options = loader_options();
        struct tnd_load_options wanted = {.size = sizeof(wanted)};
        struct tnd_loader *loader = NULL;
        struct tnd_load_stats stats;
        struct tnd_load *load = NULL;
        char reasons[2048];
        int r;

        fake_cuda_start(&cases[i].fake);
        options.cuda_ordinal = cases[i].ordinal;
        r = tnd_loader_create(&options, &loader);
        ck_assert_int_eq(r, cases[i].at_once ? -ENODEV : 0);
        if (r >= 0)
            r = tnd_load_start(loader, file.model, &wanted, &load);
        if (load)
            r = tnd_load_wait(load, -1);
        ck_assert_int_eq(r, -ENODEV);
        ck_assert_msg(strstr(tnd_last_error(), cases[i].words) != NULL, "%s", tnd_last_error());
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);

        options.device = TND_DEVICE_AUTO;
        load_all(&options, TND_F16, &stats, reasons, sizeof(reasons));
        ck_assert_str_eq(stats.device, "host");
        ck_assert_uint_gt(stats.destination_bytes, 0);
        ck_assert_uint_eq(stats.device_bytes + stats.tile_bytes + stats.peak_pinned_bytes, 0);
        ck_assert_msg(strstr(reasons, cases[i].words) && strstr(reasons, "host"), "%s", reasons);
        ck_assert_uint_eq(fake_cuda_touched(), 0);
        expect_nothing_left();
        fake_cuda_stop();
    }
}
END_TEST

START_TEST(touches_one_gpu_only)
{
    for (int converted = 0; converted <= 1; converted++) {
        struct tnd_loader_options options = loader_options();
        struct tnd_load_stats stats;
        char reasons[2048];

        fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_LAZY, .device_count = 3});
        options.cuda_ordinal = 1;
        options.device = converted ? TND_DEVICE_AUTO : TND_DEVICE_CUDA;
        load_all(&options, converted ? TND_F16 : TND_DTYPE_NONE, &stats, reasons, sizeof(reasons));
        ck_assert_uint_eq(fake_cuda_touched(), 1 << 1);
        ck_assert_str_eq(stats.device, "cuda:1");
        ck_assert_ptr_null(strstr(reasons, "host"));
        ck_assert_uint_eq(stats.destination_bytes, 0);
        ck_assert_uint_ge(stats.device_bytes, TENSORS * (TENSOR_BYTES / (converted ? 2u : 1u)));
        ck_assert_uint_le(stats.device_bytes, TENSORS * (TENSOR_BYTES / (converted ? 2u : 1u) + 256));
        ck_assert_uint_gt(stats.tile_bytes, 0);
        ck_assert_uint_le(stats.tile_bytes, 128 << 20);
        ck_assert_uint_gt(stats.peak_pinned_bytes, 0);
        ck_assert_uint_le(stats.peak_pinned_bytes, 1 << 20);
        ck_assert_uint_eq(stats.converted_bytes, converted ? TENSORS * TENSOR_BYTES : 0u);
        ck_assert_int_eq(stats.overflowed > 0, converted);
        ck_assert_uint_eq(stats.overflowed + stats.underflowed, converted ? (TENSORS * ELEMENTS + 996) / 997 : 0u);
        expect_nothing_left();
        fake_cuda_stop();
    }
}
END_TEST

START_TEST(tells_what_there_is)
{
    struct tnd_cuda_probe probe = {.size = sizeof(probe)}, old = {.size = offsetof(struct tnd_cuda_probe, reason)};

    fake_cuda_start(&(struct fake_cuda){.device_count = 3});
    ck_assert_int_eq(tnd_cuda_probe(&probe), 0);
    ck_assert(probe.build);
    ck_assert_int_eq(probe.driver_version, CUDART_VERSION);
    ck_assert_uint_eq(probe.device_count, 3);
    ck_assert_str_eq(probe.reason, "");
    ck_assert_uint_eq(fake_cuda_touched(), 0);
    fake_cuda_stop();
    fake_cuda_start(&(struct fake_cuda){.driver_version = -1});
    snprintf(old.reason, sizeof(old.reason), "mine");
    ck_assert_int_eq(tnd_cuda_probe(&probe), 0);
    ck_assert_ptr_nonnull(strstr(probe.reason, "no NVIDIA driver"));
    ck_assert_int_eq(tnd_cuda_probe(&old), 0);
    ck_assert_str_eq(old.reason, "mine");
    ck_assert_int_eq(tnd_cuda_probe(&(struct tnd_cuda_probe){0}), -EINVAL);
    fake_cuda_stop();
}
END_TEST

/* ---- Start ------------------------------------------------------------------------------------------------- */

static atomic_uint reads_before;
static struct tnd_loader *looked_at;

static void count_reads(void *cookie, const struct tnd_trace_event *event)
{
    (void)cookie;
    if (event->kind == TND_TRACE_READ && looked_at && looked_at->cuda->ops->ready(looked_at->cuda, false, NULL) == 0)
        atomic_fetch_add(&reads_before, 1);
}

/* In the foreground too, where a step must not sleep through the start. */
START_TEST(reads_before_the_gpu_has_started)
{
    for (int foreground = 0; foreground <= 1; foreground++)
        for (int window = 0; window <= 1; window++) {
            struct tnd_loader_options options = loader_options();
            struct tnd_load_options wanted = {.size = sizeof(wanted), .dtype = TND_F16};
            struct tnd_loader *loader = NULL;
            struct tnd_load *load = NULL;

            fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY, .start_us = 200000});
            options.trace = count_reads;
            options.foreground = foreground;
            wanted.resident_bytes = window ? layers_file_window(2, TND_F16) : 0;
            atomic_store(&reads_before, 0);
            ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
            looked_at = loader;
            ck_assert_msg(tnd_load_start(loader, file.model, &wanted, &load) == 0, "%s", tnd_last_error());
            ck_assert_int_eq(loader->cuda->ops->ready(loader->cuda, false, NULL), 0);
            for (int32_t i = 0; i < 2 * LAYERS; i++) {
                ck_assert_msg(tnd_layer_acquire(load, i % LAYERS, -1) == 0, "%s", tnd_last_error());
                ck_assert_int_eq(tnd_layer_release(load, i % LAYERS), 0);
            }
            if (!window) {
                ck_assert_int_eq(tnd_load_wait(load, -1), 0);
                expect_bytes(load, TND_F16);
            }
            ck_assert_uint_gt(atomic_load(&reads_before), 0);
            tnd_load_destroy(&load);
            looked_at = NULL;
            tnd_loader_destroy(&loader);
            expect_nothing_left();
            fake_cuda_stop();
        }
}
END_TEST

START_TEST(ends_while_the_gpu_starts)
{
    for (int started = 0; started <= 1; started++) {
        struct tnd_loader_options options = loader_options();
        struct tnd_load_options wanted = {.size = sizeof(wanted)};
        struct tnd_loader *loader = NULL;
        struct tnd_load *load = NULL;

        fake_cuda_start(&(struct fake_cuda){.start_us = 50000});
        ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
        if (started)
            ck_assert_int_eq(tnd_load_start(loader, file.model, &wanted, &load), 0);
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        expect_nothing_left();
        fake_cuda_stop();
    }
}
END_TEST

START_TEST(pins_as_far_as_it_may)
{
    static const struct {
        enum tnd_pinning pinning;
        cudaError_t register_error, alloc_error;
        bool pinned;
        const char *words;
    } cases[] = {
        {TND_PIN_AUTO, 0, 0, true, ""},
        {TND_PIN_REGISTER, 0, cudaErrorNotSupported, true, ""},
        {TND_PIN_ALLOC, cudaErrorNotSupported, 0, true, ""},
        {TND_PIN_ALLOC, 0, cudaErrorMemoryAllocation, false, "cudaHostAlloc: out of memory"},
        {TND_PIN_AUTO, cudaErrorNotSupported, cudaErrorNotSupported, false, "cudaHostRegister: operation not"},
        {TND_PIN_OFF, 0, 0, false, ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tnd_loader_options options = loader_options();
        struct tnd_load_stats stats;
        char reasons[2048];

        options.pinning = cases[i].pinning;
        fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_LAZY, .register_error = cases[i].register_error,
                                            .alloc_error = cases[i].alloc_error});
        load_all(&options, i % 2 ? TND_F16 : TND_DTYPE_NONE, &stats, reasons, sizeof(reasons));
        ck_assert_msg((stats.peak_pinned_bytes > 0) == cases[i].pinned, "case %zu", i);
        ck_assert_msg((strstr(reasons, "pinned") != NULL) == (cases[i].words[0] != '\0') &&
                          strstr(reasons, cases[i].words),
                      "case %zu: %s", i, reasons);
        expect_nothing_left();
        fake_cuda_stop();
    }
}
END_TEST

/* ---- Room -------------------------------------------------------------------------------------------------- */

/* Refused at once by a GPU that has started, and else as soon as it has. */
START_TEST(refuses_what_does_not_fit)
{
    for (int started = 0; started <= 1; started++) {
        struct tnd_loader_options options = loader_options();
        struct tnd_load_options wanted = {.size = sizeof(wanted)}, half = {.size = sizeof(half), .dtype = TND_F16};
        struct tnd_loader *loader = NULL;
        struct tnd_load *load = NULL;
        int r;

        fake_cuda_start(&(struct fake_cuda){.device_bytes = (17 << 20), .start_us = 50000});
        ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
        if (started)
            ck_assert_int_eq(loader->cuda->ops->ready(loader->cuda, true, NULL), 1);
        r = tnd_load_start(loader, file.model, &wanted, &load);
        ck_assert_int_eq(r, started ? -ENOMEM : 0);
        if (load)
            r = tnd_load_wait(load, -1);
        ck_assert_int_eq(r, -ENOMEM);
        ck_assert_ptr_nonnull(strstr(tnd_last_error(), "needs 1"));
        ck_assert_ptr_nonnull(strstr(tnd_last_error(), "of 17825792 are free"));
        tnd_load_destroy(&load);
        ck_assert_msg(tnd_load_start(loader, file.model, &half, &load) == 0, "%s", tnd_last_error());
        ck_assert_int_eq(tnd_load_wait(load, -1), 0);
        expect_bytes(load, TND_F16);
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        expect_nothing_left();
        fake_cuda_stop();
    }
}
END_TEST

static uint8_t *given;
static uint64_t given_bytes;

static void *place_there(void *cookie, const struct tnd_tensor *tensor)
{
    void *place = given + given_bytes;

    (void)cookie;
    if (tensor->layer % 2)
        return NULL;
    given_bytes += tensor->bytes;
    return place;
}

START_TEST(places_in_the_callers_memory)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_options wanted = {.size = sizeof(wanted), .dtype = TND_F16, .place = place_there};
    struct tnd_loader *loader = NULL;
    struct tnd_load *loads[2] = {0};

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY, .start_us = 20000});
    ck_assert_int_eq(cudaMalloc((void **)&given, 2 * TENSORS * TENSOR_BYTES), cudaSuccess);
    given_bytes = 0;
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    for (int i = 0; i < 2; i++)
        ck_assert_msg(tnd_load_start(loader, file.model, &wanted, &loads[i]) == 0, "%s", tnd_last_error());
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(tnd_load_wait(loads[i], -1), 0);
        expect_bytes(loads[i], TND_F16);
    }
    for (int i = 0; i < 2; i++)
        tnd_load_destroy(&loads[i]);
    tnd_loader_destroy(&loader);
    cudaFree(given);
    expect_nothing_left();
    fake_cuda_stop();
}
END_TEST

/* ---- Streams ----------------------------------------------------------------------------------------------- */

/* A quarter of the layers at a time, through the public header. */
START_TEST(gives_streams_their_layers)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_options wanted = {.size = sizeof(wanted), .dtype = TND_F16};
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    uint8_t *expected[TENSORS];
    cudaStream_t stream;
    atomic_uint wrong = 0;
    uint64_t bytes;
    void *data;

    for (uint32_t i = 0; i < TENSORS; i++)
        expected[i] = layers_file_expect(&file, i, TND_F16, &bytes);
    fake_cuda_start(&(struct fake_cuda){.mode = _i ? STREAMS_LAZY : STREAMS_DELAY});
    ck_assert_int_eq(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    wanted.resident_bytes = layers_file_window(LAYERS, TND_F16) / 4 + (64 << 10);
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    ck_assert_msg(tnd_load_start(loader, file.model, &wanted, &load) == 0, "%s", tnd_last_error());
    ck_assert_int_eq(tnd_cuda_tensor_data(load, layers_file_tensor(&file, 1), &data), -EINVAL);
    for (uint32_t i = 0; i < 4 * TENSORS; i++) {
        uint32_t tensor = i % TENSORS;
        int32_t layer = layers_file_layer(tensor);

        ck_assert_msg(tnd_cuda_layer_acquire(load, layer, stream, -1) == 0, "%s", tnd_last_error());
        ck_assert_int_eq(tnd_cuda_tensor_data(load, layers_file_tensor(&file, tensor), &data), 0);
        stream_run(fake_cuda_stream(stream), layers_file_compare,
                   &(struct layers_file_comparison){.found = data, .expected = expected[tensor], .bytes = bytes,
                                                    .wrong = &wrong},
                   sizeof(struct layers_file_comparison));
        ck_assert_int_eq(tnd_cuda_layer_release(load, layer, stream), 0);
        ck_assert_int_eq(tnd_cuda_layer_release(load, layer, stream), -EINVAL);
    }
    stream_synchronize(fake_cuda_stream(stream));
    ck_assert_uint_eq(wrong, 0);
    ck_assert_int_eq(tnd_cuda_tensor_data(load, TENSORS, &data), -EINVAL);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);

    options.device = TND_DEVICE_HOST;
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    ck_assert_int_eq(tnd_load_start(loader, file.model, &wanted, &load), 0);
    ck_assert_int_eq(tnd_cuda_layer_acquire(load, 0, stream, 0), -EINVAL);
    ck_assert_int_eq(tnd_cuda_layer_release(load, 0, stream), -EINVAL);
    ck_assert_int_eq(tnd_cuda_tensor_data(load, 0, &data), -EINVAL);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "not on a GPU"));
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    cudaStreamDestroy(stream);
    expect_nothing_left();
    fake_cuda_stop();
    for (uint32_t i = 0; i < TENSORS; i++)
        free(expected[i]);
}
END_TEST

/* It is there from the beginning, and so before the GPU is. */
START_TEST(gives_no_address_of_nothing)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_options wanted = {.size = sizeof(wanted)};
    uint32_t empty = (uint32_t)tnd_model_tensor_find(file.model, "empty");
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    const void *data = &file;

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY, .start_us = 20000});
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    ck_assert_int_eq(tnd_load_start(loader, file.model, &wanted, &load), 0);
    for (int r = 1; r != 0; r = tnd_load_wait(load, 100000)) {
        ck_assert_int_eq(tnd_load_tensor_data(load, empty, &data), 0);
        ck_assert_ptr_null(data);
        ck_assert_int_eq(tnd_load_tensor_read(load, empty, 0, NULL, 0), 0);
    }
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    fake_cuda_stop();
}
END_TEST

/* ---- What is told ------------------------------------------------------------------------------------------ */

static void count_events(void *cookie, const struct tnd_trace_event *event)
{
    uint64_t *counted = cookie; /* by kind, driver's thread only: [0] of them, [1] their bytes */

    if (event->kind == TND_TRACE_READ || event->kind == TND_TRACE_UPLOAD) {
        ck_assert_uint_le(event->start_ns, event->end_ns);
        counted[2 * event->kind]++;
        counted[2 * event->kind + 1] += event->bytes;
    }
}

/* Each read was followed by an upload, for the tracer and for a profiler. */
START_TEST(tells_what_it_uploads)
{
    struct tnd_loader_options options = loader_options();
    uint64_t counted[2 * TND_TRACE_UPLOAD + 2] = {0};
    struct fake_ranges reads = fake_ranges("read"), uploads = fake_ranges("upload");
    struct tnd_load_stats stats;
    char reasons[2048];

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY});
    options.trace = count_events;
    options.trace_cookie = counted;
    load_all(&options, _i ? TND_F16 : TND_DTYPE_NONE, &stats, reasons, sizeof(reasons));
    ck_assert_uint_ge(stats.read_count, TENSORS);
    ck_assert_uint_eq(counted[2 * TND_TRACE_READ], stats.read_count);
    ck_assert_uint_eq(counted[2 * TND_TRACE_UPLOAD], stats.read_count);
    ck_assert_uint_eq(counted[2 * TND_TRACE_UPLOAD + 1], counted[2 * TND_TRACE_READ + 1]);
    ck_assert_uint_eq(fake_ranges("read").begun - reads.begun, stats.read_count);
    ck_assert_uint_eq(fake_ranges("read").ended - reads.ended, stats.read_count);
    ck_assert_uint_eq(fake_ranges("upload").begun - uploads.begun, stats.read_count);
    ck_assert_uint_eq(fake_ranges("upload").ended - uploads.ended, stats.read_count);
    ck_assert_uint_eq(fake_ranges("upload").bytes - uploads.bytes, counted[2 * TND_TRACE_UPLOAD + 1]);
    ck_assert_uint_gt(fake_ranges("pin").begun, 0);
    ck_assert_uint_eq(fake_ranges("pin").ended, fake_ranges("pin").begun);
    ck_assert_uint_eq(fake_ranges("start").ended, fake_ranges("start").begun);
    ck_assert_uint_gt(stats.h2d_busy_ns, 0);
    ck_assert_uint_le(stats.h2d_busy_ns, stats.ready_ns);
    fake_cuda_stop();
}
END_TEST

START_TEST(is_limited_by_a_slow_gpu)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_options wanted = {.size = sizeof(wanted)};
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    struct tnd_load_stats stats;

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY});
    options.engine = TND_ENGINE_NIL;
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    ck_assert_int_eq(tnd_load_start(loader, file.model, &wanted, &load), 0);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_stats(load, &stats);
    ck_assert_int_eq(stats.limit, TND_LIMIT_H2D);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    fake_cuda_stop();
}
END_TEST

/* ---- Trouble ----------------------------------------------------------------------------------------------- */

/* All that a program does, until something fails; whether nothing did. */
static bool use_all(struct tnd_loader *loader, bool window, enum tnd_dtype dtype, cudaStream_t stream)
{
    struct tnd_load_options wanted = {.size = sizeof(wanted), .dtype = dtype};
    struct tnd_load *load = NULL;
    uint8_t byte;
    int r;

    wanted.resident_bytes = window ? layers_file_window(2, dtype) : 0;
    r = tnd_load_start(loader, file.model, &wanted, &load);
    for (uint32_t i = 0; i < 2 * TENSORS && r >= 0; i++) {
        int32_t layer = layers_file_layer(i % TENSORS);

        r = tnd_cuda_layer_acquire(load, layer, stream, -1);
        if (r >= 0)
            r = tnd_cuda_layer_release(load, layer, stream);
    }
    if (r >= 0 && !window)
        r = tnd_load_wait(load, -1);
    if (r >= 0 && !window)
        r = tnd_load_tensor_read(load, 0, 0, &byte, 1);
    if (r < 0) {
        ck_assert_msg(r == -EIO || r == -ENOMEM || r == -ENODEV, "%d: %s", r, tnd_last_error());
        ck_assert_msg(strstr(tnd_last_error(), "cuda"), "%s", tnd_last_error());
    }
    if (stream) /* it may be using what goes now */
        stream_synchronize(fake_cuda_stream(stream));
    tnd_load_destroy(&load);
    return r >= 0;
}

static bool fail_nth(uint32_t nth, bool sticky, bool window, enum tnd_dtype dtype)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_stats stats;
    struct tnd_loader *loader = NULL;
    cudaStream_t stream;
    char reasons[2048];
    bool failed, well;

    fake_cuda_start(&(struct fake_cuda){.mode = nth % 2 ? STREAMS_LAZY : STREAMS_DELAY, .seed = nth});
    ck_assert_int_eq(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    fake_cuda_fail(nth, nth % 3 ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation, sticky);
    ck_assert_msg(tnd_loader_create(&options, &loader) == 0, "%s", tnd_last_error());
    well = use_all(loader, window, dtype, stream);
    failed = fake_cuda_failed();
    ck_assert(well || failed);
    if (failed && sticky) /* for good */
        ck_assert(!use_all(loader, window, dtype, stream));
    tnd_loader_destroy(&loader);
    cudaStreamDestroy(stream);
    expect_nothing_left();
    options.device = TND_DEVICE_HOST; /* the process lives on */
    load_all(&options, dtype, &stats, reasons, sizeof(reasons));
    fake_cuda_stop();
    return failed;
}

/* The first ones, and a selection of the many that are alike: events made, polls. */
START_TEST(ends_well_whichever_call_fails)
{
    bool sticky = _i & 1, window = _i & 2;
    uint32_t nth = 1;

    while (fail_nth(nth, sticky, window, _i & 4 ? TND_F16 : TND_DTYPE_NONE))
        nth += nth < 20 ? 1 : 1 + nth / 6;
    ck_assert_uint_gt(nth, 300); /* the start alone is that many */
}
END_TEST

START_TEST(names_what_failed)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_options wanted = {.size = sizeof(wanted), .dtype = TND_F16};
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY});
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    ck_assert_int_eq(loader->cuda->ops->ready(loader->cuda, true, NULL), 1);
    fake_cuda_fail_call("tnd_cuda_convert", 5, cudaErrorIllegalAddress, true);
    ck_assert_int_eq(tnd_load_start(loader, file.model, &wanted, &load), 0);
    ck_assert_int_eq(tnd_load_wait(load, -1), -EIO);
    ck_assert_ptr_nonnull(strstr(tnd_load_error(load), file.path));
    ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "tensor "));
    ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "buffer "));
    ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "illegal memory access was encountered (700)"));
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    expect_nothing_left();
    fake_cuda_stop();
}
END_TEST

/* What fails behind a copy that is queued: the chunk is the caller's again, so the copy must have been made. */
START_TEST(a_refused_chunk_is_let_go_of)
{
    static uint8_t chunk[4096];
    struct tnd_cuda_options options = {.allocator = tnd_allocator_or_default(NULL), .stream_count = 1};
    struct tnd_device_block block = {0};
    struct tnd_span span = {.bytes = sizeof(chunk)};
    struct tnd_device *device = NULL;
    struct tnd_err err = {0};
    uint64_t ticket;

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_LAZY});
    ck_assert_int_eq(tnd_cuda_create(&options, &device, &err), 0);
    ck_assert_int_eq(device->ops->ready(device, true, &err), 1);
    ck_assert_int_eq(device->ops->block_alloc(device, &block, sizeof(chunk), &err), 0);
    ck_assert_int_eq(cudaHostRegister(chunk, sizeof(chunk), cudaHostRegisterDefault), cudaSuccess);
    memset(chunk, 7, sizeof(chunk));
    span.destination = block.data;
    fake_cuda_fail_call("cudaEventRecord", 1, cudaErrorIllegalAddress, false);
    ck_assert_int_eq(device->ops->place(device, chunk, &span, 1, &ticket, &err), -EIO);
    memset(chunk, 0, sizeof(chunk)); /* as the next read would */
    span.bytes = 1;
    ck_assert_int_eq(device->ops->place(device, chunk, &span, 1, &ticket, &err), 0);
    ck_assert_int_eq(device->ops->wait(device, ticket, &err), 0);
    ck_assert_uint_eq(block.data[0], 0);
    ck_assert_uint_eq(block.data[1], 7);
    device->ops->block_free(device, &block);
    cudaHostUnregister(chunk);
    device->ops->destroy(device);
    expect_nothing_left();
    fake_cuda_stop();
}
END_TEST

START_TEST(a_child_is_told_that_it_has_no_gpu)
{
    struct tnd_loader_options options = loader_options();
    struct tnd_load_options wanted = {.size = sizeof(wanted)};
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    int status = 0;
    uint8_t byte;
    pid_t child;

    fake_cuda_start(&(struct fake_cuda){.mode = STREAMS_DELAY});
    ck_assert_int_eq(tnd_loader_create(&options, &loader), 0);
    ck_assert_int_eq(tnd_load_start(loader, file.model, &wanted, &load), 0);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    child = fork();
    if (child == 0)
        _exit(tnd_load_tensor_read(load, 0, 0, &byte, 1) == -EIO && strstr(tnd_last_error(), "forked") ? 0 : 1);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    expect_bytes(load, TND_DTYPE_NONE);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    expect_nothing_left();
    fake_cuda_stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("CUDA device on a CUDA without GPU");
    TCase *tests = tcase_create("cuda");

    tcase_set_timeout(tests, 300);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, says_why_there_is_no_gpu);
    tcase_add_test(tests, touches_one_gpu_only);
    tcase_add_test(tests, tells_what_there_is);
    tcase_add_test(tests, reads_before_the_gpu_has_started);
    tcase_add_test(tests, ends_while_the_gpu_starts);
    tcase_add_test(tests, pins_as_far_as_it_may);
    tcase_add_test(tests, refuses_what_does_not_fit);
    tcase_add_test(tests, places_in_the_callers_memory);
    tcase_add_loop_test(tests, gives_streams_their_layers, 0, 2);
    tcase_add_test(tests, gives_no_address_of_nothing);
    tcase_add_loop_test(tests, tells_what_it_uploads, 0, 2);
    tcase_add_test(tests, is_limited_by_a_slow_gpu);
    tcase_add_loop_test(tests, ends_well_whichever_call_fails, 0, 8);
    tcase_add_test(tests, names_what_failed);
    tcase_add_test(tests, a_refused_chunk_is_let_go_of);
    tcase_add_test(tests, a_child_is_told_that_it_has_no_gpu);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
