/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a load to a device whose queues run late gives the same bytes as one to the host, to whoever waits as he is
 * told to: a host thread for the load, a stream for a layer's event. Nothing is read before it is there, nothing is
 * written over while it is read, nothing is left over after a failure.
 * Method: the whole pipeline on each device of support/devices.h, converting and not, whole and through a window of two
 * layers; the consumers' streams compare each byte, as late as everything else. Under ThreadSanitizer a wait that is
 * missing is a race, however it went. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/kernel.h"
#include "load.h"
#include "loader.h"
#include "support/devices.h"
#include "support/layers_file.h"
#include "support/suite.h"

#define TOKENS 3

static const struct test_device *kind;
static struct layers_file file;

static void setup(void)
{
    layers_file_open(&file);
}

static void teardown(void)
{
    layers_file_close(&file);
}

static struct tnd_loader *make_loader_of(enum tnd_engine engine, enum streams_mode mode, uint64_t seed,
                                         bool foreground)
{
    struct tnd_loader_options options = {.size = sizeof(options), .chunk_bytes = 64 << 10, .pool_bytes_max = 512 << 10,
                                         .foreground = foreground, .engine = engine};
    struct tnd_loader *loader = kind->create_loader(&options, mode, seed);

    ck_assert_msg(loader != NULL, "%s", tnd_last_error());
    return loader;
}

static struct tnd_loader *make_loader(enum streams_mode mode, uint64_t seed, bool foreground)
{
    return make_loader_of(TND_ENGINE_AUTO, mode, seed, foreground);
}

/* Nothing of a load is left. */
static void end_loader(struct tnd_loader **loader)
{
    ck_assert_uint_eq(kind->blocks() + kind->events(), 0);
    kind->destroy_loader(loader);
}

/* ---- A consumer's stream ----------------------------------------------------------------------------------- */

/* The same without a stream: on the host, which is waited for. */
static int use_here(struct tnd_load *load, uint32_t tensor, struct layers_file_comparison comparison)
{
    int r = tnd_layer_acquire(load, layers_file_layer(tensor), -1);

    comparison.found = load->transfer.places[layers_file_tensor(&file, tensor)];
    if (r < 0)
        return r;
    layers_file_compare(&comparison);
    return tnd_layer_release(load, layers_file_layer(tensor));
}

/* Queues the use of a layer on some streams at once, without waiting for anything but that it is queued for the
 * device. */
static int use_on(struct tnd_load *load, void **streams, int stream_count, uint32_t tensor,
                  struct layers_file_comparison comparison)
{
    int32_t layer = layers_file_layer(tensor);
    int r = 0;

    if (!kind->stream_create)
        return use_here(load, tensor, comparison);
    for (int i = 0; i < stream_count && r >= 0; i++) {
        r = tnd_layer_acquire_on(load, layer, streams[i], -1);
        comparison.found = load->transfer.places[layers_file_tensor(&file, tensor)];
        if (r >= 0)
            stream_run(kind->stream_of(streams[i]), layers_file_compare, &comparison, sizeof(comparison));
    }
    for (int i = 0; i < stream_count && r >= 0; i++)
        r = tnd_layer_release_on(load, layer, streams[i]);
    return r;
}

static void walk(enum streams_mode mode, uint64_t seed, enum tnd_dtype dtype, bool window, int stream_count)
{
    struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype};
    struct tnd_loader *loader = make_loader(mode, seed, false);
    void *streams[2] = {0};
    uint8_t *expected[TENSORS];
    struct tnd_load *load = NULL;
    atomic_uint wrong = 0;
    uint64_t bytes;

    for (uint32_t i = 0; i < TENSORS; i++)
        expected[i] = layers_file_expect(&file, i, dtype, &bytes);
    options.resident_bytes = window ? layers_file_window(2, dtype) : 0;
    for (int i = 0; i < 2 && kind->stream_create; i++)
        streams[i] = kind->stream_create();
    ck_assert_msg(tnd_load_start(loader, file.model, &options, &load) == 0, "%s", tnd_last_error());
    ck_assert_uint_eq(load->layout.slot_count, window ? 2 : 0);
    for (uint32_t token = 0; token < TOKENS; token++)
        for (uint32_t i = 0; i < TENSORS; i++)
            ck_assert_msg(use_on(load, streams, stream_count, i,
                                 (struct layers_file_comparison){.expected = expected[i], .bytes = bytes,
                                                                 .wrong = &wrong}) == 0,
                          "%s", tnd_last_error());
    for (int i = 0; i < 2 && streams[i]; i++)
        stream_synchronize(kind->stream_of(streams[i]));
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    if (!window)
        ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_destroy(&load);
    end_loader(&loader);
    for (uint32_t i = 0; i < TENSORS; i++)
        free(expected[i]);
}

START_TEST(gives_a_stream_the_right_bytes)
{
    for (int window = 0; window <= 1; window++)
        for (int streams = 1; streams <= 2; streams++)
            for (int converted = 0; converted <= 1; converted++) {
                walk(STREAMS_DELAY, 1 + (uint64_t)_i, converted ? TND_F16 : TND_DTYPE_NONE, window, streams);
                walk(STREAMS_LAZY, 0, converted ? TND_F16 : TND_DTYPE_NONE, window, streams);
            }
}
END_TEST

/* ---- A host thread ----------------------------------------------------------------------------------------- */

static void read_all(enum tnd_engine engine, enum streams_mode mode, enum tnd_dtype dtype)
{
    struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype};
    struct tnd_loader *loader = make_loader_of(engine, mode, 7, false);
    struct tnd_load *load = NULL;

    ck_assert_int_eq(tnd_load_start(loader, file.model, &options, &load), 0);
    ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_last_error());
    for (uint32_t i = 0; i < TENSORS; i++) {
        uint64_t bytes;
        uint8_t *expected = layers_file_expect(&file, i, dtype, &bytes), *found = malloc(bytes);

        ck_assert_int_eq(tnd_load_tensor_read(load, layers_file_tensor(&file, i), 0, found, bytes), 0);
        ck_assert_int_eq(memcmp(found, expected, bytes), 0);
        free(expected);
        free(found);
    }
    tnd_load_destroy(&load);
    end_loader(&loader);
}

START_TEST(gives_the_host_the_right_bytes)
{
    static const enum tnd_engine engines[] = {TND_ENGINE_URING, TND_ENGINE_THREADS, TND_ENGINE_MMAP};

    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        read_all(engines[e], STREAMS_DELAY, TND_DTYPE_NONE);
        read_all(engines[e], STREAMS_DELAY, TND_F16);
        read_all(engines[e], STREAMS_LAZY, TND_DTYPE_NONE);
        read_all(engines[e], STREAMS_LAZY, TND_F16);
    }
}
END_TEST

/* ---- Order ------------------------------------------------------------------------------------------------- */

START_TEST(is_never_there_before_it_is_queued)
{
    struct tnd_load_options options = {.size = sizeof(options)};
    struct tnd_loader *loader = make_loader(STREAMS_LAZY, 0, true);
    void *stream = kind->stream_create();
    struct tnd_load *load = NULL;
    uint64_t bytes;
    uint8_t *expected = layers_file_expect(&file, LAYERS, TND_DTYPE_NONE, &bytes);
    atomic_uint wrong = 0;
    uint32_t refused = 0;
    int r;

    ck_assert_int_eq(tnd_load_start(loader, file.model, &options, &load), 0);
    /* An event that was never marked counts as over: that must not be what a consumer sees. */
    while ((r = tnd_layer_acquire_on(load, LAYERS - 1, stream, 0)) == -EAGAIN) {
        refused++;
        ck_assert_int_ge(tnd_loader_step(loader, 1000000), 0);
    }
    ck_assert_int_eq(r, 0);
    ck_assert_uint_gt(refused, 0);
    stream_run(kind->stream_of(stream), layers_file_compare,
               &(struct layers_file_comparison){.found = load->transfer.places[layers_file_tensor(&file, LAYERS)],
                                    .expected = expected, .bytes = bytes, .wrong = &wrong},
               sizeof(struct layers_file_comparison));
    stream_synchronize(kind->stream_of(stream));
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    ck_assert_int_eq(tnd_layer_release_on(load, LAYERS - 1, stream), 0);
    ck_assert_int_eq(tnd_layer_release_on(load, LAYERS - 1, stream), -EINVAL);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_destroy(&load);
    end_loader(&loader);
    free(expected);
}
END_TEST

/* ---- Trouble ----------------------------------------------------------------------------------------------- */

START_TEST(a_device_that_fails_ends_the_load)
{
    for (uint32_t nth = 1; nth <= 30; nth += 1 + nth / 4)
        for (int window = 0; window <= 1; window++) {
            struct tnd_load_options options = {.size = sizeof(options)};
            struct tnd_loader *loader = make_loader(nth % 2 ? STREAMS_LAZY : STREAMS_DELAY, nth, false);
            struct tnd_load *load = NULL;
            int r = 0;

            options.resident_bytes = window ? layers_file_window(2, TND_DTYPE_NONE) : 0;
            kind->fail_place(nth);
            ck_assert_int_eq(tnd_load_start(loader, file.model, &options, &load), 0);
            for (int32_t i = 0; i < LAYERS * TOKENS && r >= 0; i++) {
                r = tnd_layer_acquire(load, i % LAYERS, -1);
                if (r >= 0)
                    tnd_layer_release(load, i % LAYERS);
            }
            if (!window)
                r = tnd_load_wait(load, -1);
            if (window || nth <= 25) { /* a whole load is 26 chunks and more */
                ck_assert_int_eq(r, -EIO);
                ck_assert_ptr_nonnull(strstr(tnd_load_error(load), file.path));
                ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "tensor"));
            }
            tnd_load_destroy(&load);
            end_loader(&loader);
        }
}
END_TEST

START_TEST(a_file_that_changes_fails_its_layers)
{
    static const int32_t layers[] = {2, TND_LAYER_SHARED_OUT};
    struct tnd_load_options options = {.size = sizeof(options), .lazy = TND_LAZY_DEMAND};
    struct tnd_loader *loader = make_loader(STREAMS_DELAY, 3, false);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    struct tnd_load *load = NULL;
    struct stat before;

    ck_assert_int_eq(stat(file.path, &before), 0);
    ck_assert_int_eq(tnd_load_start(loader, file.model, &options, &load), 0);
    ck_assert_int_eq(utimensat(AT_FDCWD, file.path, times, 0), 0);
    for (int i = 0; i < 6; i++) { /* each is read once more, and no better */
        ck_assert_int_eq(tnd_layer_acquire(load, layers[i % 2], -1), -EBADMSG);
        ck_assert_ptr_nonnull(strstr(tnd_last_error(), "written to"));
    }
    tnd_load_destroy(&load);
    end_loader(&loader);
    times[1] = before.st_mtim;
    ck_assert_int_eq(utimensat(AT_FDCWD, file.path, times, 0), 0);
}
END_TEST

START_TEST(cancels_with_copies_under_way)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct tnd_load_options options = {.size = sizeof(options), .dtype = TND_F16};
        struct tnd_loader *loader = make_loader(seed % 2 ? STREAMS_LAZY : STREAMS_DELAY, seed, false);
        struct tnd_load *load = NULL;

        ck_assert_int_eq(tnd_load_start(loader, file.model, &options, &load), 0);
        tnd_load_wait_layer(load, (int32_t)(seed % LAYERS), seed % 3 ? -1 : 0);
        tnd_load_cancel(load);
        tnd_load_destroy(&load);
        end_loader(&loader);
    }
}
END_TEST

int main(void)
{
    int failed = 0;

    for (int i = 0; (kind = test_devices[i]); i++) {
        char name[64];
        Suite *suite;
        TCase *tests = tcase_create(kind->name);

        snprintf(name, sizeof(name), "pipeline on the device %s", kind->name);
        suite = suite_create(name);
        tcase_set_timeout(tests, 120);
        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_loop_test(tests, gives_a_stream_the_right_bytes, 0, 2);
        tcase_add_test(tests, gives_the_host_the_right_bytes);
        if (kind->stream_create) {
            tcase_add_test(tests, is_never_there_before_it_is_queued);
            tcase_add_test(tests, a_device_that_fails_ends_the_load);
        }
        tcase_add_test(tests, a_file_that_changes_fails_its_layers);
        tcase_add_test(tests, cancels_with_copies_under_way);
        suite_add_tcase(suite, tests);
        failed += run_suite(suite) != EXIT_SUCCESS;
    }
    return failed ? 1 : 0;
}
