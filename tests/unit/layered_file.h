/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_LAYERED_FILE_H
#define TND_TEST_LAYERED_FILE_H

/* A file of known bytes and six layers, and a consumer that goes through it by the public header only. */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/gguf_file.h"
#include "support/suite.h"
#include "tundish.h"

#define LAYERS 6
#define CHUNK 65536
#define SLOT_BYTES 290000 /* the largest layer, with what its alignment may add */
#define WHILE_NS (20 * 1000 * 1000)

static const struct gguf_file_tensor tensors[] = {
    {"blk.5.a", 205000},  {"blk.5.b", 70000}, {"token_embd.weight", 500000}, {"blk.0.a", 200000}, {"blk.0.b", 70001},
    {"blk.1.a", 201000},  {"blk.1.b", 70000}, {"blk.2.a", 202000},           {"blk.2.b", 70000},  {"blk.3.a", 203000},
    {"blk.3.empty", 0},   {"blk.3.b", 70000}, {"blk.4.a", 204000},           {"blk.4.b", 70000},
    {"output.weight", 200000}, {"output_norm.weight", 99},
};
#define TENSOR_COUNT ((uint32_t)(sizeof(tensors) / sizeof(tensors[0])))

static char path[256];
static struct tnd_model *model;
static const enum tnd_engine engines[] = {TND_ENGINE_URING, TND_ENGINE_THREADS, TND_ENGINE_MMAP};

static inline void setup(void)
{
    int fd;

    snprintf(path, sizeof(path), "%s/tundish-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    gguf_file_write(path, tensors, TENSOR_COUNT);
    ck_assert_msg(tnd_model_open(path, NULL, &model) == 0, "%s", tnd_last_error());
}

static inline void teardown(void)
{
    tnd_model_close(&model);
    unlink(path);
}

static inline struct tnd_loader *make_loader(struct tnd_loader_options options)
{
    struct tnd_loader *loader = NULL;

    options.size = sizeof(options);
    options.chunk_bytes = CHUNK;
    ck_assert_msg(tnd_loader_create(&options, &loader) == 0, "%s", tnd_last_error());
    return loader;
}

static inline struct tnd_load *start_of(struct tnd_loader *loader, const struct tnd_model *which,
                                        struct tnd_load_options options)
{
    struct tnd_load *load = NULL;

    options.size = sizeof(options);
    ck_assert_msg(tnd_load_start(loader, which, &options, &load) == 0, "%s", tnd_last_error());
    return load;
}

static inline struct tnd_load *start(struct tnd_loader *loader, struct tnd_load_options options)
{
    return start_of(loader, model, options);
}

/* What a window for so many layers takes; it has room for a read beside the first. */
static inline uint64_t window_of(uint32_t layers)
{
    return layers > 1 ? (uint64_t)layers * SLOT_BYTES : SLOT_BYTES + CHUNK;
}

static inline bool is_of(const struct tnd_tensor *tensor, int32_t layer)
{
    if (layer >= 0)
        return tensor->layer == layer;
    return tensor->role == (layer == TND_LAYER_SHARED_IN ? TND_SHARED_IN : TND_SHARED_OUT);
}

static inline uint64_t bytes_of(int32_t layer)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < TENSOR_COUNT; i++)
        bytes += is_of(tnd_model_tensor(model, i), layer) ? tensors[i].bytes : 0;
    return bytes;
}

/* A tensor of this layer. */
static inline uint32_t tensor_of(int32_t layer)
{
    uint32_t i = 0;

    while (!is_of(tnd_model_tensor(model, i), layer))
        i++;
    return i;
}

/* Whether all bytes of a layer are what the file has; for any thread. */
static inline bool has_its_bytes(struct tnd_load *load, int32_t layer)
{
    const struct tnd_model *of = tnd_load_model(load);

    for (uint32_t i = 0; i < tnd_model_tensor_count(of); i++) {
        const struct tnd_tensor *tensor = tnd_model_tensor(of, i);
        const uint8_t *data = NULL;

        if (!is_of(tensor, layer))
            continue;
        if (tnd_load_tensor_data(load, i, (const void **)&data) < 0)
            return false;
        for (uint64_t b = 0; b < tensor->bytes; b++)
            if (data[b] != gguf_file_byte(i, b))
                return false;
    }
    return true;
}

static inline void use_layer(struct tnd_load *load, int32_t layer)
{
    ck_assert_msg(tnd_layer_acquire(load, layer, -1) == 0, "layer %d: %s", layer, tnd_last_error());
    ck_assert_msg(has_its_bytes(load, layer), "layer %d", layer);
    ck_assert_int_eq(tnd_layer_release(load, layer), 0);
}

static inline void walk(struct tnd_load *load, uint32_t tokens)
{
    for (uint32_t token = 0; token < tokens; token++) {
        use_layer(load, TND_LAYER_SHARED_IN);
        for (int32_t layer = 0; layer < LAYERS; layer++)
            use_layer(load, layer);
        use_layer(load, TND_LAYER_SHARED_OUT);
    }
}

/* Until so many fetches have ended, however long a disk takes, and nothing moves for a while. */
static inline void step_until_still(struct tnd_loader *loader, struct tnd_load *load, uint32_t fetches)
{
    struct tnd_layer_stats stats;
    int r;

    do {
        r = tnd_loader_step(loader, WHILE_NS);
        ck_assert_int_ge(r, 0);
        tnd_layer_stats(load, &stats);
    } while (r == 1 || stats.fetches < fetches);
}

static inline void check_refused(int result, int expected, const char *words)
{
    ck_assert_int_eq(result, expected);
    ck_assert_msg(strstr(tnd_last_error(), words) != NULL, "expected '%s' in: %s", words, tnd_last_error());
}

#endif
