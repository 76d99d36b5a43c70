/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a load to a device whose queues run late gives the same bytes as one to the host, to whoever waits as he is
 * told to: a host thread for the load, a stream for a layer's event. Nothing is read before it is there, nothing is
 * written over while it is read, nothing is left over after a failure.
 * Method: the whole pipeline on the late device (support/late.h), converting and not, whole and through a window of two
 * layers; the consumers' streams compare each byte, as late as everything else. Under ThreadSanitizer a wait that is
 * missing is a race, however it went. */

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/kernel.h"
#include "load.h"
#include "loader.h"
#include "support/late.h"
#include "support/suite.h"

#define LAYERS 6
#define ELEMENTS 50000 /* of a layer's tensor: several chunks of 64 KiB */
#define TENSOR_BYTES (ELEMENTS * 4)
#define TOKENS 3

static char path[256];
static struct tnd_model *model;
static float *values; /* [LAYERS + 2][ELEMENTS] as the file has them */

static const char *name_of(uint32_t tensor, char *name, size_t bytes)
{
    if (tensor == 0)
        snprintf(name, bytes, "token_embd.weight");
    else if (tensor <= LAYERS)
        snprintf(name, bytes, "blk.%u.w", tensor - 1);
    else
        snprintf(name, bytes, "output.weight");
    return name;
}

static void setup(void)
{
    char header[4096] = "{", name[32];
    uint64_t header_bytes, count = LAYERS + 2;
    FILE *file;

    values = malloc(count * TENSOR_BYTES);
    for (uint64_t i = 0; i < count * ELEMENTS; i++)
        values[i] = (float)(i % 4099) / 8.0f - (float)(i / ELEMENTS);
    for (uint32_t i = 0; i < count; i++)
        snprintf(header + strlen(header), sizeof(header) - strlen(header),
                 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%u],\"data_offsets\":[%u,%u]}", i ? "," : "",
                 name_of(i, name, sizeof(name)), ELEMENTS, i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES);
    header_bytes = strlen(header);
    header[header_bytes++] = '}';
    snprintf(path, sizeof(path), "%s/tundish-test-XXXXXX.safetensors", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    file = fdopen(mkstemps(path, 12), "wb");
    ck_assert_ptr_nonnull(file);
    fwrite(&header_bytes, sizeof(header_bytes), 1, file);
    fwrite(header, 1, header_bytes, file);
    fwrite(values, TENSOR_BYTES, count, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_msg(tnd_model_open(path, NULL, &model) == 0, "%s", tnd_last_error());
}

static void teardown(void)
{
    tnd_model_close(&model);
    unlink(path);
    free(values);
}

/* The tensor's bytes as they are to lie on the device; to be freed. */
static uint8_t *expect(uint32_t tensor, enum tnd_dtype dtype, uint64_t *ret_bytes)
{
    struct tnd_range_counts range = {0};
    uint8_t *expected = malloc(TENSOR_BYTES);

    *ret_bytes = dtype == TND_F16 ? TENSOR_BYTES / 2 : TENSOR_BYTES;
    if (dtype == TND_F16)
        tnd_kernel_find(TND_F32, TND_F16, TND_ISA_C)
            ->run(expected, (const uint8_t *)&values[tensor * ELEMENTS], ELEMENTS, &range);
    else
        memcpy(expected, &values[tensor * ELEMENTS], TENSOR_BYTES);
    return expected;
}

static uint32_t tensor_index(uint32_t tensor)
{
    char name[32];

    return (uint32_t)tnd_model_tensor_find(model, name_of(tensor, name, sizeof(name)));
}

static struct tnd_loader *make_loader(struct tnd_device *device, bool foreground)
{
    struct tnd_loader_options options = {.size = sizeof(options), .chunk_bytes = 64 << 10, .pool_bytes_max = 512 << 10,
                                         .foreground = foreground};
    struct tnd_loader *loader = NULL;

    ck_assert_msg(tnd_loader_create(&options, &loader) == 0, "%s", tnd_last_error());
    loader->pipeline.options.device = device;
    return loader;
}

static uint64_t window_bytes(enum tnd_dtype dtype)
{
    return (dtype == TND_F16 ? 1 : 2) * TENSOR_BYTES + 8192; /* two layers, with what their alignment takes */
}

/* ---- A consumer's stream ----------------------------------------------------------------------------------- */

struct comparison {
    const uint8_t *found, *expected;
    uint64_t bytes;
    atomic_uint *wrong;
};

static void compare(void *argument)
{
    const struct comparison *comparison = argument;

    for (uint64_t i = 0; i < comparison->bytes; i++)
        if (comparison->found[i] != comparison->expected[i]) {
            atomic_fetch_add(comparison->wrong, 1);
            return;
        }
}

/* Queues the use of a layer on some streams at once, without waiting for anything but that it is queued for the
 * device. */
static int use_on(struct tnd_load *load, struct stream **streams, int stream_count, uint32_t tensor,
                  struct comparison comparison)
{
    int32_t layer = tensor == 0 ? TND_LAYER_SHARED_IN : tensor <= LAYERS ? (int32_t)tensor - 1 : TND_LAYER_SHARED_OUT;
    int r = 0;

    for (int i = 0; i < stream_count && r >= 0; i++) {
        r = tnd_layer_acquire_on(load, layer, streams[i], -1);
        comparison.found = load->transfer.places[tensor_index(tensor)];
        if (r >= 0)
            stream_run(streams[i], compare, &comparison, sizeof(comparison));
    }
    for (int i = 0; i < stream_count && r >= 0; i++)
        r = tnd_layer_release_on(load, layer, streams[i]);
    return r;
}

static void walk(enum streams_mode mode, uint64_t seed, enum tnd_dtype dtype, bool window, int stream_count)
{
    struct tnd_device *device = late_create(mode, seed);
    struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype};
    struct stream *streams[2] = {stream_create(late_streams(device)), stream_create(late_streams(device))};
    struct tnd_loader *loader = make_loader(device, false);
    uint8_t *expected[LAYERS + 2];
    struct tnd_load *load = NULL;
    atomic_uint wrong = 0;
    uint64_t bytes;

    for (uint32_t i = 0; i < LAYERS + 2; i++)
        expected[i] = expect(i, dtype, &bytes);
    options.resident_bytes = window ? window_bytes(dtype) + (64 << 10) : 0;
    ck_assert_msg(tnd_load_start(loader, model, &options, &load) == 0, "%s", tnd_last_error());
    ck_assert_uint_eq(load->layout.slot_count, window ? 2 : 0);
    for (uint32_t token = 0; token < TOKENS; token++)
        for (uint32_t i = 0; i < LAYERS + 2; i++)
            ck_assert_msg(use_on(load, streams, stream_count, i,
                                 (struct comparison){.expected = expected[i], .bytes = bytes, .wrong = &wrong}) == 0,
                          "%s", tnd_last_error());
    for (int i = 0; i < 2; i++)
        stream_synchronize(streams[i]);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    if (!window)
        ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    ck_assert_uint_eq(late_blocks(device), 0);
    ck_assert_uint_eq(late_events(device), 0);
    late_destroy(device);
    for (uint32_t i = 0; i < LAYERS + 2; i++)
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

static void read_all(enum streams_mode mode, enum tnd_dtype dtype)
{
    struct tnd_device *device = late_create(mode, 7);
    struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype};
    struct tnd_loader *loader = make_loader(device, false);
    struct tnd_load *load = NULL;

    ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), 0);
    ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_last_error());
    for (uint32_t i = 0; i < LAYERS + 2; i++) {
        uint64_t bytes;
        uint8_t *expected = expect(i, dtype, &bytes), *found = malloc(bytes);

        ck_assert_int_eq(tnd_load_tensor_read(load, tensor_index(i), 0, found, bytes), 0);
        ck_assert_int_eq(memcmp(found, expected, bytes), 0);
        free(expected);
        free(found);
    }
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    ck_assert_uint_eq(late_blocks(device) + late_events(device), 0);
    late_destroy(device);
}

START_TEST(gives_the_host_the_right_bytes)
{
    read_all(STREAMS_DELAY, TND_DTYPE_NONE);
    read_all(STREAMS_DELAY, TND_F16);
    read_all(STREAMS_LAZY, TND_DTYPE_NONE);
    read_all(STREAMS_LAZY, TND_F16);
}
END_TEST

/* ---- Order ------------------------------------------------------------------------------------------------- */

START_TEST(is_never_there_before_it_is_queued)
{
    struct tnd_device *device = late_create(STREAMS_LAZY, 0);
    struct tnd_load_options options = {.size = sizeof(options)};
    struct stream *stream = stream_create(late_streams(device));
    struct tnd_loader *loader = make_loader(device, true);
    struct tnd_load *load = NULL;
    uint64_t bytes;
    uint8_t *expected = expect(LAYERS, TND_DTYPE_NONE, &bytes);
    atomic_uint wrong = 0;
    uint32_t refused = 0;
    int r;

    ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), 0);
    /* An event that was never marked counts as over: that must not be what a consumer sees. */
    while ((r = tnd_layer_acquire_on(load, LAYERS - 1, stream, 0)) == -EAGAIN) {
        refused++;
        ck_assert_int_ge(tnd_loader_step(loader, 1000000), 0);
    }
    ck_assert_int_eq(r, 0);
    ck_assert_uint_gt(refused, 0);
    stream_run(stream, compare, &(struct comparison){.found = load->transfer.places[tensor_index(LAYERS)],
                                                     .expected = expected, .bytes = bytes, .wrong = &wrong},
               sizeof(struct comparison));
    stream_synchronize(stream);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    ck_assert_int_eq(tnd_layer_release_on(load, LAYERS - 1, stream), 0);
    ck_assert_int_eq(tnd_layer_release_on(load, LAYERS - 1, stream), -EINVAL);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    late_destroy(device);
    free(expected);
}
END_TEST

/* ---- Trouble ----------------------------------------------------------------------------------------------- */

START_TEST(a_device_that_fails_ends_the_load)
{
    for (uint32_t nth = 1; nth <= 30; nth += 1 + nth / 4)
        for (int window = 0; window <= 1; window++) {
            struct tnd_device *device = late_create(nth % 2 ? STREAMS_LAZY : STREAMS_DELAY, nth);
            struct tnd_load_options options = {.size = sizeof(options)};
            struct tnd_loader *loader = make_loader(device, false);
            struct tnd_load *load = NULL;
            int r = 0;

            options.resident_bytes = window ? window_bytes(TND_DTYPE_NONE) + (64 << 10) : 0;
            late_fail_place(device, nth);
            ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), 0);
            for (int32_t i = 0; i < LAYERS * TOKENS && r >= 0; i++) {
                r = tnd_layer_acquire(load, i % LAYERS, -1);
                if (r >= 0)
                    tnd_layer_release(load, i % LAYERS);
            }
            if (!window)
                r = tnd_load_wait(load, -1);
            if (window || nth <= 25) { /* a whole load is 26 chunks and more */
                ck_assert_int_eq(r, -EIO);
                ck_assert_ptr_nonnull(strstr(tnd_load_error(load), path));
                ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "tensor"));
            }
            tnd_load_destroy(&load);
            tnd_loader_destroy(&loader);
            ck_assert_uint_eq(late_blocks(device) + late_events(device), 0);
            late_destroy(device);
        }
}
END_TEST

START_TEST(cancels_with_copies_under_way)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct tnd_device *device = late_create(seed % 2 ? STREAMS_LAZY : STREAMS_DELAY, seed);
        struct tnd_load_options options = {.size = sizeof(options), .dtype = TND_F16};
        struct tnd_loader *loader = make_loader(device, false);
        struct tnd_load *load = NULL;

        ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), 0);
        tnd_load_wait_layer(load, (int32_t)(seed % LAYERS), seed % 3 ? -1 : 0);
        tnd_load_cancel(load);
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        ck_assert_uint_eq(late_blocks(device) + late_events(device), 0);
        late_destroy(device);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pipeline on the late device");
    TCase *tests = tcase_create("late");

    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, gives_a_stream_the_right_bytes, 0, 2);
    tcase_add_test(tests, gives_the_host_the_right_bytes);
    tcase_add_test(tests, is_never_there_before_it_is_queued);
    tcase_add_test(tests, a_device_that_fails_ends_the_load);
    tcase_add_test(tests, cancels_with_copies_under_way);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
