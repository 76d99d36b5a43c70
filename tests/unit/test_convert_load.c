/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a load converts what it is told to, says what it did, and its digests are those of what lies there.
 * Method: a small safetensors file of known floats through the public header only, on every engine; expected values are
 * written down or exact, so that no kernel of ours is asked. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/hash.h"
#include "support/suite.h"
#include "tundish.h"

#define BIG 300001 /* elements: more than a window of 64 KiB, and not a whole number of them */

static const char header[] =
    "{\"a.weight\":{\"dtype\":\"F32\",\"shape\":[300001],\"data_offsets\":[0,1200004]},"
    "\"b.weight\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[1200004,1200012]},"
    "\"c.ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[1200012,1200020]},"
    "\"d.weight\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[1200020,1200036]}}";

/* Half precision holds every multiple of 1/8 below 256 exactly. */
static float value_at(uint32_t index)
{
    return (float)(index % 2048) / 8.0f - 128.0f;
}

/* The same in half precision, from its definition: sign, exponent biased by 15, 10 bits of mantissa. */
static uint16_t half_at(uint32_t index)
{
    float value = value_at(index);
    uint16_t sign = value < 0 ? 0x8000 : 0;
    int exponent = 15;

    value = value < 0 ? -value : value;
    if (value == 0)
        return sign;
    for (; value >= 2; value /= 2)
        exponent++;
    for (; value < 1; value *= 2)
        exponent--;
    return (uint16_t)(sign | exponent << 10 | (int)((value - 1) * 1024));
}

static char path[256];
static struct tnd_model *model;
static uint32_t a, b, c, d;

static void setup(void)
{
    static const uint16_t halves[4] = {0x3C00, 0x7C01, 0x0001, 0xFBFF}; /* 1, a NaN, 2^-24, -65504 */
    static const float singles[4] = {65520.0f, -1e-30f, 0.5f, 3.0f};    /* too large, too small, fit */
    uint64_t bytes = sizeof(header) - 1;
    int64_t id = 42;
    FILE *file;

    snprintf(path, sizeof(path), "%s/tundish-test-XXXXXX.safetensors", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    file = fdopen(mkstemps(path, 12), "wb");
    ck_assert_ptr_nonnull(file);
    fwrite(&bytes, sizeof(bytes), 1, file);
    fwrite(header, 1, bytes, file);
    for (uint32_t i = 0; i < BIG; i++) {
        float value = value_at(i);

        fwrite(&value, sizeof(value), 1, file);
    }
    fwrite(halves, sizeof(halves), 1, file);
    fwrite(&id, sizeof(id), 1, file);
    fwrite(singles, sizeof(singles), 1, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_msg(tnd_model_open(path, NULL, &model) == 0, "%s", tnd_last_error());
    a = (uint32_t)tnd_model_tensor_find(model, "a.weight");
    b = (uint32_t)tnd_model_tensor_find(model, "b.weight");
    c = (uint32_t)tnd_model_tensor_find(model, "c.ids");
    d = (uint32_t)tnd_model_tensor_find(model, "d.weight");
}

static void teardown(void)
{
    tnd_model_close(&model);
    unlink(path);
}

static struct tnd_loader *make_loader(enum tnd_engine engine, tnd_trace_fn trace, void *cookie)
{
    struct tnd_loader_options options = {.size = sizeof(options), .engine = engine, .chunk_bytes = 64 << 10,
                                         .trace = trace, .trace_cookie = cookie};
    struct tnd_loader *loader = NULL;

    ck_assert_msg(tnd_loader_create(&options, &loader) == 0, "%s", tnd_last_error());
    return loader;
}

static struct tnd_load *load_all(struct tnd_loader *loader, struct tnd_load_options options)
{
    struct tnd_load *load = NULL;

    options.size = sizeof(options);
    ck_assert_msg(tnd_load_start(loader, model, &options, &load) == 0, "%s", tnd_last_error());
    ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_last_error());
    return load;
}

static const void *data_of(struct tnd_load *load, uint32_t tensor, enum tnd_dtype dtype, uint64_t bytes)
{
    const void *data = NULL;
    enum tnd_dtype found;
    uint64_t found_bytes;

    ck_assert_int_eq(tnd_load_tensor_type(load, tensor, &found, &found_bytes), 0);
    ck_assert_int_eq(found, dtype);
    ck_assert_uint_eq(found_bytes, bytes);
    ck_assert_int_eq(tnd_load_tensor_data(load, tensor, &data), 0);
    return data;
}

static void check_halves(struct tnd_load *load)
{
    const uint16_t *halves = data_of(load, a, TND_F16, 2 * (uint64_t)BIG);
    uint32_t i = 0;

    while (i < BIG && halves[i] == half_at(i))
        i++;
    ck_assert_uint_eq(i, BIG);
}

START_TEST(converts_on_every_engine)
{
    static const enum tnd_engine engines[] = {TND_ENGINE_AUTO, TND_ENGINE_URING, TND_ENGINE_THREADS, TND_ENGINE_MMAP};

    for (int e = 0; e < 4; e++) {
        struct tnd_loader *loader = make_loader(engines[e], NULL, NULL);
        struct tnd_load *load = load_all(loader, (struct tnd_load_options){.dtype = TND_F16});
        const uint16_t *halves;
        struct tnd_load_stats stats;
        uint16_t copied;

        check_halves(load);
        ck_assert_int_eq(memcmp(data_of(load, b, TND_F16, 8), "\x00\x3C\x01\x7C\x01\x00\xFF\xFB", 8), 0); /* copied */
        ck_assert_int_eq(*(const int64_t *)data_of(load, c, TND_I64, 8), 42);
        halves = data_of(load, d, TND_F16, 8);
        ck_assert_uint_eq(halves[0], 0x7C00);
        ck_assert_uint_eq(halves[1], 0x8000);
        ck_assert_uint_eq(halves[2], 0x3800);
        tnd_load_stats(load, &stats);
        ck_assert_uint_eq(stats.overflowed, 1);
        ck_assert_uint_eq(stats.underflowed, 1);
        ck_assert_uint_eq(stats.converted_bytes, 4 * (uint64_t)BIG + 16);
        ck_assert_int_eq(tnd_load_tensor_read(load, d, 4, &copied, 2), 0);
        ck_assert_uint_eq(copied, 0x3800);
        ck_assert_int_eq(tnd_load_tensor_read(load, d, 8, &copied, 2), -EINVAL); /* behind it, as it lies */
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
    }
}
END_TEST

START_TEST(follows_rules_by_name)
{
    static const struct tnd_dtype_rule rules[] = {
        {"a.*", TND_DTYPE_NONE}, {"*.weight", TND_F32}, {"a.*", TND_BF16}};
    struct tnd_loader *loader = make_loader(TND_ENGINE_AUTO, NULL, NULL);
    struct tnd_load *load =
        load_all(loader, (struct tnd_load_options){.dtype = TND_BF16, .rules = rules, .rule_count = 3});
    const uint32_t *bits;

    data_of(load, a, TND_F32, 4 * (uint64_t)BIG); /* the first rule that fits: as it is */
    bits = data_of(load, b, TND_F32, 16);
    ck_assert_uint_eq(bits[0], 0x3F800000);
    ck_assert_uint_eq(bits[1], 0x7FC00000); /* the canonical NaN */
    ck_assert_uint_eq(bits[2], 0x33800000);
    ck_assert_uint_eq(bits[3], 0xC77FE000);
    data_of(load, d, TND_F32, 16);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

struct places {
    uint16_t *memory;
    uint64_t bytes;
    enum tnd_dtype dtype;
};

static void *place(void *cookie, const struct tnd_tensor *tensor)
{
    struct places *places = cookie;

    if (strcmp(tensor->name, "a.weight"))
        return NULL;
    places->bytes = tensor->bytes;
    places->dtype = tensor->dtype;
    places->memory = aligned_alloc(64, (tensor->bytes + 63) / 64 * 64);
    return places->memory;
}

START_TEST(converts_into_the_callers_memory)
{
    struct places places = {0};
    struct tnd_loader *loader = make_loader(TND_ENGINE_AUTO, NULL, NULL);
    struct tnd_load *load = load_all(
        loader, (struct tnd_load_options){.dtype = TND_F16, .place = place, .place_cookie = &places});

    ck_assert_int_eq(places.dtype, TND_F16);
    ck_assert_uint_eq(places.bytes, 2 * (uint64_t)BIG);
    ck_assert_ptr_eq(data_of(load, a, TND_F16, 2 * (uint64_t)BIG), places.memory);
    check_halves(load);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    free(places.memory);
}
END_TEST

START_TEST(digests_what_lies_there)
{
    static const enum tnd_engine engines[] = {TND_ENGINE_AUTO, TND_ENGINE_URING, TND_ENGINE_THREADS};

    for (int e = 0; e < 3; e++)
        for (int dtype = 0; dtype < 2; dtype++) {
            struct tnd_loader *loader = make_loader(engines[e], NULL, NULL);
            struct tnd_load *load = load_all(
                loader, (struct tnd_load_options){.dtype = dtype ? TND_F16 : TND_DTYPE_NONE,
                                                  .digest = TND_DIGEST_XXH3});

            for (uint32_t i = 0; i < tnd_model_tensor_count(model); i++) {
                enum tnd_dtype found;
                const void *data = NULL;
                uint64_t bytes, digest;

                ck_assert_int_eq(tnd_load_tensor_type(load, i, &found, &bytes), 0);
                ck_assert_int_eq(tnd_load_tensor_data(load, i, &data), 0);
                ck_assert_int_eq(tnd_load_tensor_digest(load, i, &digest), 0);
                ck_assert_uint_eq(digest, tnd_xxh3(data, bytes));
            }
            tnd_load_destroy(&load);
            tnd_loader_destroy(&loader);
        }
    ck_assert_uint_eq(tnd_xxh3("", 0), 0x2D06800538D394C2u); /* as xxhsum -H3 says */
}
END_TEST

START_TEST(refuses_what_it_cannot)
{
    struct tnd_load_options options = {.size = sizeof(options), .dtype = TND_Q4_0};
    struct tnd_loader *loader = make_loader(TND_ENGINE_AUTO, NULL, NULL);
    struct tnd_load *load = NULL;
    uint64_t digest;

    ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), -EINVAL);
    ck_assert_str_eq(tnd_last_error(), "tensors can become F32, F16 or BF16, not Q4_0");
    options.dtype = TND_DTYPE_NONE;
    options.rule_count = 1;
    ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), -EINVAL);
    options.rule_count = 0;
    tnd_loader_destroy(&loader);
    loader = make_loader(TND_ENGINE_MMAP, NULL, NULL);
    options.digest = TND_DIGEST_XXH3;
    ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), -EINVAL);
    tnd_loader_destroy(&loader);
    loader = make_loader(TND_ENGINE_AUTO, NULL, NULL);
    options.digest = (enum tnd_digest)7;
    ck_assert_int_eq(tnd_load_start(loader, model, &options, &load), -EINVAL);
    load = load_all(loader, (struct tnd_load_options){0});
    ck_assert_int_eq(tnd_load_tensor_digest(load, a, &digest), -EINVAL);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(plans_what_it_becomes)
{
    struct tnd_load_options options = {.size = sizeof(options), .dtype = TND_F16};
    struct tnd_plan *plan = NULL;
    struct tnd_plan_sizes sizes;
    enum tnd_dtype dtype;
    uint64_t bytes;

    ck_assert_int_eq(tnd_plan_create(model, NULL, &options, &plan), 0);
    tnd_plan_sizes(plan, &sizes);
    ck_assert_uint_eq(sizes.tensor_bytes, 4 * (uint64_t)BIG + 8 + 8 + 16);
    ck_assert_uint_eq(sizes.loaded_bytes, 2 * (uint64_t)BIG + 8 + 8 + 8);
    ck_assert_uint_eq(sizes.converted_bytes, 4 * (uint64_t)BIG + 16);
    ck_assert_int_eq(tnd_plan_tensor_type(plan, a, &dtype, &bytes), 0);
    ck_assert_int_eq(dtype, TND_F16);
    ck_assert_uint_eq(bytes, 2 * (uint64_t)BIG);
    ck_assert_int_eq(tnd_plan_tensor_type(plan, 99, &dtype, &bytes), -EINVAL);
    tnd_plan_destroy(&plan);
}
END_TEST

struct told {
    pthread_mutex_t mutex;
    uint64_t read_bytes, converted_bytes;
    bool wrong;
};

static void trace(void *cookie, const struct tnd_trace_event *event)
{
    struct told *told = cookie;

    pthread_mutex_lock(&told->mutex);
    told->wrong = told->wrong || event->end_ns < event->start_ns ||
                  (event->kind == TND_TRACE_READ) != (event->worker == UINT32_MAX) ||
                  (event->kind == TND_TRACE_TOUCH) != (event->slot == UINT32_MAX);
    told->read_bytes += event->kind == TND_TRACE_READ ? event->bytes : 0;
    told->converted_bytes += event->kind == TND_TRACE_CONVERT || event->kind == TND_TRACE_COPY ? event->bytes : 0;
    pthread_mutex_unlock(&told->mutex);
}

START_TEST(traces_each_window)
{
    struct told told = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct tnd_loader *loader = make_loader(TND_ENGINE_URING, trace, &told);
    struct tnd_load *load = load_all(loader, (struct tnd_load_options){.dtype = TND_F16});
    struct tnd_load_stats stats;

    tnd_load_stats(load, &stats);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    ck_assert(!told.wrong);
    ck_assert_uint_ge(told.read_bytes, stats.bytes_read);
    ck_assert_uint_eq(told.converted_bytes, told.read_bytes);
}
END_TEST

/* The ring may not be to be had. */
static bool ring_possible(void)
{
    struct tnd_loader_options options = {.size = sizeof(options), .engine = TND_ENGINE_URING};
    struct tnd_loader *loader = NULL;
    bool possible = tnd_loader_create(&options, &loader) == 0;

    tnd_loader_destroy(&loader);
    return possible;
}

int main(void)
{
    Suite *suite = suite_create("convert");
    TCase *cases = tcase_create("convert");

    if (!ring_possible()) {
        printf("skipped: %s\n", tnd_last_error());
        return 77;
    }
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, converts_on_every_engine);
    tcase_add_test(cases, follows_rules_by_name);
    tcase_add_test(cases, converts_into_the_callers_memory);
    tcase_add_test(cases, digests_what_lies_there);
    tcase_add_test(cases, refuses_what_it_cannot);
    tcase_add_test(cases, plans_what_it_becomes);
    tcase_add_test(cases, traces_each_window);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
