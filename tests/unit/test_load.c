/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: loader and load keep what tundish.h promises: bytes, readiness, cancel, threads, budgets, errors.
 * Method: a file of known bytes through the public header only, on every engine and landing. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/gguf_file.h"
#include "support/suite.h"
#include "tundish.h"

static const struct gguf_file_tensor tensors[] = {
    {"token_embd.weight", 5 * 1000 * 1000}, {"blk.1.a", 700 * 1000},    {"blk.1.b", 1},
    {"blk.0.a", 3 * 1000 * 1000 + 17},      {"blk.0.empty", 0},         {"blk.0.b", 4096},
    {"output.weight", 2 * 1000 * 1000},     {"output_norm.weight", 99},
};
#define TENSOR_COUNT ((uint32_t)(sizeof(tensors) / sizeof(tensors[0])))

static char path[256];
static struct tnd_model *model;

static void setup(void)
{
    int fd;

    snprintf(path, sizeof(path), "%s/tundish-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    gguf_file_write(path, tensors, TENSOR_COUNT);
    ck_assert_msg(tnd_model_open(path, NULL, &model) == 0, "%s", tnd_last_error());
}

static void teardown(void)
{
    tnd_model_close(&model);
    unlink(path);
}

static void check_tensor(struct tnd_load *load, uint32_t index)
{
    const uint8_t *data = NULL;
    uint64_t i = 0;

    ck_assert_int_eq(tnd_load_tensor_data(load, index, (const void **)&data), 0);
    while (i < tensors[index].bytes && data[i] == gguf_file_byte(index, i))
        i++;
    ck_assert_msg(i == tensors[index].bytes, "tensor %s byte %llu", tensors[index].name, (unsigned long long)i);
}

static struct tnd_loader *make_loader(struct tnd_loader_options options)
{
    struct tnd_loader *loader = NULL;

    options.size = sizeof(options);
    ck_assert_msg(tnd_loader_create(&options, &loader) == 0, "%s", tnd_last_error());
    return loader;
}

static struct tnd_load *start(struct tnd_loader *loader, struct tnd_load_options options)
{
    struct tnd_load *load = NULL;

    options.size = sizeof(options);
    ck_assert_msg(tnd_load_start(loader, model, &options, &load) == 0, "%s", tnd_last_error());
    return load;
}

START_TEST(loads_on_every_engine_and_landing)
{
    static const enum tnd_engine engines[] = {TND_ENGINE_AUTO, TND_ENGINE_URING, TND_ENGINE_THREADS, TND_ENGINE_MMAP};

    for (int e = 0; e < 4; e++)
        for (int direct = engines[e] == TND_ENGINE_MMAP ? TND_OFF : TND_AUTO; direct <= TND_OFF; direct++)
            for (int in_place = TND_AUTO; in_place <= TND_OFF; in_place++)
                for (uint32_t chunk = 64 << 10; chunk <= 4 << 20; chunk *= 8) {
                    struct tnd_loader *loader = make_loader((struct tnd_loader_options){
                        .engine = engines[e], .direct = (enum tnd_switch)direct, .chunk_bytes = chunk});
                    struct tnd_load *load = start(
                        loader, (struct tnd_load_options){.in_place = (enum tnd_switch)in_place});
                    struct tnd_load_stats stats;

                    ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_last_error());
                    for (uint32_t i = 0; i < TENSOR_COUNT; i++)
                        check_tensor(load, i);
                    tnd_load_stats(load, &stats);
                    ck_assert_uint_ge(stats.bytes_read, stats.model_bytes);
                    ck_assert_uint_eq(stats.layers, 2);
                    if (direct == TND_ON)
                        ck_assert(stats.direct);
                    if (engines[e] == TND_ENGINE_MMAP)
                        ck_assert_uint_eq(stats.destination_bytes + stats.pool_bytes, 0);
                    if (engines[e] == TND_ENGINE_URING)
                        ck_assert_str_eq(stats.engine, "uring");
                    tnd_load_destroy(&load);
                    ck_assert_ptr_null(load);
                    tnd_loader_destroy(&loader);
                }
}
END_TEST

START_TEST(one_call_does_it_all)
{
    struct tnd_load *load = NULL;
    uint8_t byte;

    ck_assert_int_eq(tnd_load_file(path, NULL, &load), 0);
    ck_assert_uint_eq(tnd_model_tensor_count(tnd_load_model(load)), TENSOR_COUNT);
    for (uint32_t i = 0; i < TENSOR_COUNT; i++)
        check_tensor(load, i);
    ck_assert_int_eq(tnd_load_tensor_read(load, 3, 3000016, &byte, 1), 0);
    ck_assert_uint_eq(byte, gguf_file_byte(3, 3000016));
    ck_assert_int_eq(tnd_load_tensor_read(load, 3, 3000017, &byte, 1), -EINVAL);
    ck_assert_int_eq(tnd_load_tensor_read(load, 3, UINT64_MAX, &byte, 2), -EINVAL);
    tnd_load_destroy(&load);
    ck_assert_int_eq(tnd_load_file("/nowhere/at/all", NULL, &load), -ENOENT);
    ck_assert_ptr_null(load);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "/nowhere/at/all"));
}
END_TEST

START_TEST(selects_by_name_and_layer)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.only = "output*"});
    struct tnd_load *none = NULL;
    struct tnd_load_options options = {.size = sizeof(options), .only = "nothing"};
    const void *data;

    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    check_tensor(load, 6);
    check_tensor(load, 7);
    ck_assert_int_eq(tnd_load_tensor_data(load, 0, &data), -EINVAL);
    ck_assert_int_eq(tnd_load_wait_layer(load, 0, 0), -EINVAL);
    tnd_load_destroy(&load);

    load = start(loader, (struct tnd_load_options){.layer_first = 1, .layer_count = 1});
    ck_assert_int_eq(tnd_load_wait_layer(load, 1, -1), 0);
    check_tensor(load, 1);
    check_tensor(load, 2);
    ck_assert_int_eq(tnd_load_tensor_data(load, 3, &data), -EINVAL);
    tnd_load_destroy(&load);

    ck_assert_int_eq(tnd_load_start(loader, model, &options, &none), -ENOENT);
    ck_assert_ptr_null(none);
    tnd_loader_destroy(&loader);
}
END_TEST

static void *place_all(void *cookie, const struct tnd_tensor *tensor)
{
    uint8_t **memory = cookie;

    return memory[tnd_model_tensor_find(model, tensor->name)];
}

START_TEST(lands_in_the_callers_memory)
{
    for (int in_place = TND_AUTO; in_place <= TND_OFF; in_place++) {
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){.direct = TND_ON, .chunk_bytes = 65536});
        uint8_t *memory[TENSOR_COUNT];
        struct tnd_load *load;
        struct tnd_load_stats stats;

        for (uint32_t i = 0; i < TENSOR_COUNT; i++) {
            uint8_t *raw = aligned_alloc(4096, (tensors[i].bytes + 3 * 4096) / 4096 * 4096);

            memset(raw, 0xC5, (tensors[i].bytes + 3 * 4096) / 4096 * 4096);
            memory[i] = raw + tnd_model_tensor(model, i)->offset % 4096;
        }
        load = start(loader, (struct tnd_load_options){.place = place_all, .place_cookie = memory,
                                                       .in_place = (enum tnd_switch)in_place});
        ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_last_error());
        tnd_load_stats(load, &stats);
        ck_assert_uint_eq(stats.destination_bytes, 0);
        if (in_place == TND_ON)
            ck_assert_uint_lt(stats.pool_bytes_read, stats.bytes_read / 2);
        if (in_place == TND_OFF)
            ck_assert_uint_eq(stats.pool_bytes_read, stats.bytes_read);
        for (uint32_t i = 0; i < TENSOR_COUNT; i++) {
            uint64_t skip = tnd_model_tensor(model, i)->offset % 4096;

            check_tensor(load, i);
            for (uint64_t b = 1; b <= skip; b++) /* nothing before it, nothing behind */
                ck_assert_uint_eq(*(memory[i] - b), 0xC5);
            for (uint64_t b = 0; b < 4096; b++)
                ck_assert_uint_eq(memory[i][tensors[i].bytes + b], 0xC5);
            free(memory[i] - skip);
        }
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
    }
}
END_TEST

START_TEST(serves_several_loads_at_once)
{
    struct tnd_loader *loader =
        make_loader((struct tnd_loader_options){.chunk_bytes = 65536, .pool_bytes_max = 262144});
    struct tnd_load *loads[6];

    for (int i = 0; i < 6; i++)
        loads[i] = start(loader, (struct tnd_load_options){.order = i % 2 ? TND_ORDER_FILE : TND_ORDER_USE});
    for (int i = 0; i < 6; i++) {
        ck_assert_msg(tnd_load_wait(loads[i], -1) == 0, "%s", tnd_last_error());
        for (uint32_t t = 0; t < TENSOR_COUNT; t++)
            check_tensor(loads[i], t);
    }
    for (int i = 0; i < 6; i++)
        tnd_load_destroy(&loads[i]);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(takes_turns_with_the_loads)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){
        .engine = TND_ENGINE_NIL, .foreground = true, .chunk_bytes = 65536, .depth = 1});
    struct tnd_load *loads[3];
    bool ended = false;

    for (int i = 0; i < 3; i++)
        loads[i] = start(loader, (struct tnd_load_options){0});
    while (!ended) {
        ck_assert_int_ge(tnd_loader_step(loader, -1), 0);
        for (int i = 0; i < 3; i++)
            ended = ended || tnd_load_wait(loads[i], 0) == 0;
    }
    for (int i = 0; i < 3; i++) { /* the others are nearly there too */
        struct tnd_progress progress;

        tnd_load_progress(loads[i], &progress);
        ck_assert_uint_ge(progress.bytes_ready * 10, progress.bytes * 9);
        tnd_load_destroy(&loads[i]);
    }
    tnd_loader_destroy(&loader);
}
END_TEST

static void *cancel_it(void *argument)
{
    tnd_load_cancel(argument);
    return NULL;
}

START_TEST(cancels_from_any_thread)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.chunk_bytes = 65536, .depth = 2});

    for (unsigned delay_us = 0; delay_us < 6000; delay_us += 150) {
        struct tnd_load *load = start(loader, (struct tnd_load_options){0});
        pthread_t thread;
        int r;

        usleep(delay_us);
        pthread_create(&thread, NULL, cancel_it, load);
        r = tnd_load_wait(load, -1);
        ck_assert_msg(r == 0 || r == -ECANCELED, "%d", r);
        if (r < 0)
            ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "canceled"));
        pthread_join(thread, NULL);
        tnd_load_destroy(&load);
    }
    /* Destroyed in the middle, and the loader right after it. */
    for (int i = 0; i < 20; i++) {
        struct tnd_loader *brief = make_loader((struct tnd_loader_options){.chunk_bytes = 65536});
        struct tnd_load *load = start(brief, (struct tnd_load_options){0});

        tnd_load_destroy(&load);
        tnd_loader_destroy(&brief);
    }
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(cancels_what_has_not_begun)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){0});
    struct tnd_load_stats stats;

    tnd_load_cancel(load);
    ck_assert_int_eq(tnd_load_wait(load, -1), -ECANCELED);
    tnd_load_stats(load, &stats);
    ck_assert_uint_eq(stats.read_count, 0);
    ck_assert_str_eq(stats.engine, "none");
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

/* Waits for each tensor in turn, and looks at what nobody waits for. */
static void *poll_it(void *argument)
{
    struct tnd_load *load = argument;
    const void *data;

    for (uint32_t i = 0; i < TENSOR_COUNT; i++) {
        tnd_load_tensor_data(load, TENSOR_COUNT - 1 - i, &data);
        tnd_load_wait(load, 0);
        if (tnd_load_wait_tensor(load, i, -1) < 0)
            return load;
    }
    return NULL;
}

START_TEST(polls_from_many_threads)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.chunk_bytes = 65536});

    for (int round = 0; round < 10; round++) {
        struct tnd_load *load = start(loader, (struct tnd_load_options){0});
        pthread_t threads[8];
        void *failed;

        for (int i = 0; i < 8; i++)
            pthread_create(&threads[i], NULL, poll_it, load);
        while (tnd_load_wait(load, 0) == -EAGAIN)
            ;
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], &failed);
            ck_assert_ptr_null(failed);
        }
        tnd_load_destroy(&load);
    }
    tnd_loader_destroy(&loader);
}
END_TEST

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

START_TEST(ends_what_cannot_begin)
{
    struct rlimit before, none;
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){0});

    if (SANITIZED) {
        printf("ends_what_cannot_begin: not in this build: a sanitizer needs the address space itself\n");
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        return;
    }
    /* No address space for the pool. */
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
    none = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &none), 0);
    ck_assert_int_eq(tnd_load_wait(load, -1), -ENOMEM);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    ck_assert_ptr_nonnull(strstr(tnd_load_error(load), "pool"));
    tnd_load_destroy(&load);

    load = start(loader, (struct tnd_load_options){0}); /* and it can begin later */
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

static void *place_crooked(void *cookie, const struct tnd_tensor *tensor)
{
    (void)tensor;
    return (uint8_t *)cookie + 1;
}

START_TEST(refuses_a_crooked_place)
{
    static float memory[4];
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load_options options = {.size = sizeof(options), .place = place_crooked, .place_cookie = memory};
    struct tnd_load *load = NULL;
    char wide_path[300];
    struct tnd_model *wide = NULL;

    snprintf(wide_path, sizeof(wide_path), "%s.wide", path);
    gguf_file_write_typed(wide_path, "w", GGUF_FILE_F32, 4, 16);
    ck_assert_int_eq(tnd_model_open(wide_path, NULL, &wide), 0);
    ck_assert_int_eq(tnd_load_start(loader, wide, &options, &load), -EINVAL);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "not aligned to 4"));
    tnd_model_close(&wide);
    unlink(wide_path);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(leaves_tensors_to_children)
{
    struct tnd_load *load = NULL;
    int status = -1;
    pid_t child;

    ck_assert_int_eq(tnd_load_file(path, NULL, &load), 0);
    child = fork();
    if (child == 0) {
        const uint8_t *data = NULL;

        tnd_load_tensor_data(load, 0, (const void **)&data);
        _exit(data && data[12345] == gguf_file_byte(0, 12345) ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tnd_load_destroy(&load);
}
END_TEST

START_TEST(tells_what_is_ready)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = start(loader, (struct tnd_load_options){0});
    struct pollfd ready = {.fd = tnd_load_event_fd(load), .events = POLLIN};
    struct tnd_progress progress;

    ck_assert_int_ge(ready.fd, 0);
    ck_assert_int_eq(poll(&ready, 1, 20000), 1);
    ck_assert_int_eq(tnd_load_wait_layer(load, -1, 20 * 1000000000ll), 0);
    ck_assert_int_eq(tnd_load_wait_layer(load, 1, -1), 0);
    ck_assert_int_eq(tnd_load_wait_tensor(load, 3, -1), 0);
    ck_assert_int_eq(tnd_load_wait_tensor(load, TENSOR_COUNT, -1), -EINVAL);
    ck_assert_int_eq(tnd_load_wait_layer(load, 2, -1), -EINVAL);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_progress(load, &progress);
    ck_assert(progress.ended);
    ck_assert_uint_eq(progress.bytes_ready, progress.bytes);
    ck_assert_uint_eq(progress.tensors_ready, TENSOR_COUNT);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(runs_on_the_callers_thread)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){0});
    int steps = 0;

    ck_assert_int_eq(tnd_load_wait(load, 0), -EAGAIN);
    while (tnd_load_wait(load, 0) == -EAGAIN && steps++ < 100000)
        ck_assert_int_ge(tnd_loader_step(loader, 1000000), 0);
    ck_assert_int_eq(tnd_load_wait(load, 0), 0);
    for (uint32_t i = 0; i < TENSOR_COUNT; i++)
        check_tensor(load, i);
    tnd_load_destroy(&load);

    load = start(loader, (struct tnd_load_options){0}); /* and a wait steps by itself */
    ck_assert_int_eq(tnd_load_wait_tensor(load, 6, -1), 0);
    check_tensor(load, 6);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);

    loader = make_loader((struct tnd_loader_options){0});
    ck_assert_int_eq(tnd_loader_step(loader, 0), -EINVAL);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(refuses_what_the_budget_does_not_hold)
{
    /* 10.7 MB of tensors; buffers are one chunk of 64 KiB. */
    struct tnd_loader_options loader_options = {.chunk_bytes = 65536, .pool_bytes_max = 65536, .depth = 1};
    struct tnd_load_options options = {.size = sizeof(options)};
    struct tnd_load *first, *second = NULL;
    struct tnd_loader *loader;

    loader_options.memory_bytes_max = 10 * 1000 * 1000;
    loader = make_loader(loader_options);
    ck_assert_int_eq(tnd_load_start(loader, model, &options, &second), -ENOMEM);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "10000000 are available"));
    tnd_loader_destroy(&loader);

    loader_options.memory_bytes_max = 20 * 1000 * 1000; /* for one, not for two */
    loader = make_loader(loader_options);
    first = start(loader, options);
    ck_assert_int_eq(tnd_load_wait(first, -1), 0);
    ck_assert_int_eq(tnd_load_start(loader, model, &options, &second), -ENOMEM);
    tnd_load_destroy(&first);
    second = start(loader, options);
    ck_assert_int_eq(tnd_load_wait(second, -1), 0);
    tnd_load_destroy(&second);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(notices_a_cut_file)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load;

    ck_assert_int_eq(truncate(path, 6 * 1000 * 1000), 0);
    load = start(loader, (struct tnd_load_options){0});
    ck_assert_int_eq(tnd_load_wait(load, -1), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), path));
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "blk."));
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "6000000"));
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(notices_a_cut_file_that_is_mapped)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = TND_ENGINE_MMAP});
    struct tnd_load *load;

    ck_assert_int_eq(truncate(path, 6 * 1000 * 1000), 0);
    load = start(loader, (struct tnd_load_options){0});
    ck_assert_int_eq(tnd_load_wait(load, -1), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "found the end at 6000000"));
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(copies_what_cannot_be_mapped)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = TND_ENGINE_MMAP});
    struct tnd_model *crooked = NULL;
    struct tnd_load *load = NULL;
    struct tnd_load_stats stats;
    char crooked_path[300];
    const void *data = NULL;
    /* Two F32 tensors behind a U8 one, so that they start on an odd byte. */
    static const char json[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                               "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]},"
                               "\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9,13]}}  ";
    uint64_t json_bytes = sizeof(json) - 1;
    FILE *file;

    snprintf(crooked_path, sizeof(crooked_path), "%s.safetensors", path);
    file = fopen(crooked_path, "wb");
    fwrite(&json_bytes, sizeof(json_bytes), 1, file);
    fwrite(json, 1, json_bytes, file);
    fwrite("0123456789abc", 1, 13, file);
    fclose(file);
    ck_assert_msg(tnd_model_open(crooked_path, NULL, &crooked) == 0, "%s", tnd_last_error());
    ck_assert_uint_ne(tnd_model_tensor(crooked, 1)->offset % 4, 0);
    ck_assert_int_eq(tnd_load_start(loader, crooked, NULL, &load), 0);
    ck_assert_msg(tnd_load_wait(load, -1) == 0, "%s", tnd_last_error());
    ck_assert_int_eq(tnd_load_tensor_data(load, 1, &data), 0);
    ck_assert_uint_eq((uintptr_t)data % 64, 0);
    ck_assert_int_eq(memcmp(data, "12345678", 8), 0);
    ck_assert_int_eq(tnd_load_tensor_data(load, 2, &data), 0);
    ck_assert_int_eq(memcmp(data, "9abc", 4), 0);
    ck_assert_int_eq(tnd_load_tensor_data(load, 0, &data), 0);
    ck_assert_int_eq(memcmp(data, "0", 1), 0);
    tnd_load_stats(load, &stats);
    ck_assert_str_eq(stats.engine, "mmap");
    ck_assert_ptr_nonnull(strstr(tnd_load_reason(load, 0), "2 of 3 tensors are copied"));
    tnd_load_destroy(&load);
    tnd_model_close(&crooked);
    tnd_loader_destroy(&loader);
    unlink(crooked_path);
}
END_TEST

START_TEST(notices_a_file_written_to)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){0});
    struct timespec soon = {.tv_nsec = 20 * 1000 * 1000};
    int fd = open(path, O_WRONLY);

    nanosleep(&soon, NULL); /* the clock of modification times ticks every few milliseconds */
    ck_assert_int_eq(pwrite(fd, "x", 1, 6000000), 1);
    close(fd);
    ck_assert_int_eq(tnd_load_wait(load, -1), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "written to while it was loaded"));
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(notices_a_replaced_file)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){0});
    char other[300];

    snprintf(other, sizeof(other), "%s.other", path);
    gguf_file_write(other, tensors, TENSOR_COUNT);
    ck_assert_int_eq(rename(other, path), 0);
    ck_assert_int_eq(tnd_load_wait(load, -1), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "replaced by another file"));
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(checks_its_arguments)
{
    struct tnd_loader *loader = NULL;
    struct tnd_loader_options wrong[] = {
        {.size = 3},
        {.size = sizeof(wrong[0]), .chunk_bytes = 65537},
        {.size = sizeof(wrong[0]), .chunk_bytes = 4096},
        {.size = sizeof(wrong[0]), .depth = 100000},
        {.size = sizeof(wrong[0]), .pool_bytes_max = 1},
        {.size = sizeof(wrong[0]), .engine = (enum tnd_engine)77},
        {.size = sizeof(wrong[0]), .engine = TND_ENGINE_MMAP, .direct = TND_ON},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_int_eq(tnd_loader_create(&wrong[i], &loader), -EINVAL);
        ck_assert_ptr_null(loader);
        ck_assert_str_ne(tnd_last_error(), "");
    }
    tnd_loader_destroy(&loader);
    tnd_load_destroy(NULL);
    tnd_loader_destroy(NULL);
    tnd_plan_destroy(NULL);
    tnd_model_close(NULL);
    tnd_load_destroy(&(struct tnd_load *){NULL});
    tnd_model_close(&(struct tnd_model *){NULL});
}
END_TEST

/* Fails the n-th allocation, counts what is not given back. */
struct stingy {
    pthread_mutex_t mutex;
    long count, fail_at, live;
};

static void *stingy_alloc(void *cookie, size_t bytes)
{
    struct stingy *stingy = cookie;
    void *memory = NULL;

    pthread_mutex_lock(&stingy->mutex);
    if (++stingy->count != stingy->fail_at)
        memory = malloc(bytes);
    stingy->live += memory != NULL;
    pthread_mutex_unlock(&stingy->mutex);
    return memory;
}

static void stingy_free(void *cookie, void *memory)
{
    struct stingy *stingy = cookie;

    pthread_mutex_lock(&stingy->mutex);
    stingy->live--;
    pthread_mutex_unlock(&stingy->mutex);
    free(memory);
}

static int load_with(struct stingy *stingy, enum tnd_engine engine)
{
    struct tnd_allocator allocator = {.alloc = stingy_alloc, .free = stingy_free, .cookie = stingy};
    struct tnd_model_options model_options = {.size = sizeof(model_options), .allocator = &allocator};
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .allocator = &allocator,
                                                .engine = engine};
    struct tnd_model *mine = NULL;
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    int r = tnd_model_open(path, &model_options, &mine);

    if (r >= 0)
        r = tnd_loader_create(&loader_options, &loader);
    if (r >= 0)
        r = tnd_load_start(loader, mine, NULL, &load);
    if (r >= 0)
        r = tnd_load_wait(load, -1);
    if (r == 0 && engine != TND_ENGINE_NIL)
        check_tensor(load, 3);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&mine);
    return r;
}

START_TEST(survives_each_failing_allocation)
{
    static const enum tnd_engine engines[] = {TND_ENGINE_AUTO, TND_ENGINE_URING, TND_ENGINE_THREADS, TND_ENGINE_MMAP,
                                              TND_ENGINE_NIL};

    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        struct stingy stingy = {.mutex = PTHREAD_MUTEX_INITIALIZER};
        int r = -ENOMEM;

        for (long n = 1; r < 0; n++) {
            stingy.count = 0;
            stingy.fail_at = n;
            r = load_with(&stingy, engines[e]);
            ck_assert_int_eq(stingy.live, 0);
            ck_assert_msg(r == 0 || r == -ENOMEM, "allocation %ld: %d %s", n, r, tnd_last_error());
            ck_assert_int_lt(n, 1000);
            if (r == 0 && stingy.count >= n) /* a failure that was worked around: go on */
                r = -ENOMEM;
        }
        ck_assert_int_gt(stingy.count, 5);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("load");
    TCase *cases = tcase_create("load");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, loads_on_every_engine_and_landing);
    tcase_add_test(cases, one_call_does_it_all);
    tcase_add_test(cases, selects_by_name_and_layer);
    tcase_add_test(cases, lands_in_the_callers_memory);
    tcase_add_test(cases, serves_several_loads_at_once);
    tcase_add_test(cases, takes_turns_with_the_loads);
    tcase_add_test(cases, cancels_from_any_thread);
    tcase_add_test(cases, tells_what_is_ready);
    tcase_add_test(cases, runs_on_the_callers_thread);
    tcase_add_test(cases, refuses_what_the_budget_does_not_hold);
    tcase_add_test(cases, notices_a_cut_file);
    tcase_add_test(cases, notices_a_cut_file_that_is_mapped);
    tcase_add_test(cases, copies_what_cannot_be_mapped);
    tcase_add_test(cases, notices_a_file_written_to);
    tcase_add_test(cases, notices_a_replaced_file);
    tcase_add_test(cases, cancels_what_has_not_begun);
    tcase_add_test(cases, polls_from_many_threads);
    tcase_add_test(cases, ends_what_cannot_begin);
    tcase_add_test(cases, refuses_a_crooked_place);
    tcase_add_test(cases, leaves_tensors_to_children);
    tcase_add_test(cases, checks_its_arguments);
    tcase_add_test(cases, survives_each_failing_allocation);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
