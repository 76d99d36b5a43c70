/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: what a consumer has acquired is what a full load of the same model would have there, whatever comes and goes.
 * Method: an eager load of each type gives the bytes to compare with. Then lazy loads, and loads with windows of 50, 25
 * and 10 per cent of the layers' bytes, and the smallest there is, lazy and not, on every engine that reads, are walked
 * through for some tokens: in order, with steps back, and by several threads at once; each tensor of a layer is
 * compared while it is acquired.
 *
 *   compare_layers MODEL [TOKENS]    MODEL of at least two layers
 *   compare_layers --again MODEL REFERENCE ENGINE
 *       One walk, in a window of half the layers, through a MODEL whose disk may fail; REFERENCE is the same elsewhere.
 *       What an acquire that fails says is printed behind "layer N: ", and another try must succeed. */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tundish.h"

#define THREADS 8

static uint32_t passed, failed, skipped;

struct walk {
    const struct tnd_model *model;
    struct tnd_load *whole, *load;
    uint32_t tokens;
    atomic_uint next; /* several threads: the layer whose turn it is, over all tokens */
    atomic_uint problems;
    char problem[512];
};

static void tell(struct walk *walk, const char *what, const char *which)
{
    if (atomic_fetch_add(&walk->problems, 1) == 0)
        snprintf(walk->problem, sizeof(walk->problem), "%s %s: %s", what, which, tnd_last_error());
}

static void compare_tensor(struct walk *walk, uint32_t index)
{
    const struct tnd_tensor *tensor = tnd_model_tensor(walk->model, index);
    enum tnd_dtype dtype;
    const void *expected, *found;
    uint64_t bytes;

    if (tnd_load_tensor_type(walk->whole, index, &dtype, &bytes) < 0 ||
        tnd_load_tensor_data(walk->whole, index, &expected) < 0 || tnd_load_tensor_data(walk->load, index, &found) < 0)
        tell(walk, "no data of", tensor->name);
    else if (memcmp(expected, found, bytes))
        tell(walk, "other bytes in", tensor->name);
}

static void use_layer(struct walk *walk, int32_t layer)
{
    char name[32];
    int r = tnd_layer_acquire(walk->load, layer, -1);

    snprintf(name, sizeof(name), "%d", layer);
    if (r < 0) {
        tell(walk, "acquire of layer", name);
        return;
    }
    for (uint32_t i = 0; i < tnd_model_tensor_count(walk->model); i++) {
        const struct tnd_tensor *tensor = tnd_model_tensor(walk->model, i);

        if (layer >= 0 ? tensor->layer == layer
                       : tensor->role == (layer == TND_LAYER_SHARED_IN ? TND_SHARED_IN : TND_SHARED_OUT))
            compare_tensor(walk, i);
    }
    if (tnd_layer_release(walk->load, layer) < 0)
        tell(walk, "release of layer", name);
}

/* Shared stages that a model does not have are no mistake. */
static bool has_shared(const struct tnd_model *model, enum tnd_role role)
{
    for (uint32_t i = 0; i < tnd_model_tensor_count(model); i++)
        if (tnd_model_tensor(model, i)->role == role)
            return true;
    return false;
}

static void walk_in_order(struct walk *walk)
{
    uint32_t layers = tnd_model_layer_count(walk->model);

    for (uint32_t token = 0; token < walk->tokens; token++) {
        if (has_shared(walk->model, TND_SHARED_IN))
            use_layer(walk, TND_LAYER_SHARED_IN);
        for (uint32_t i = 0; i < layers; i++) {
            use_layer(walk, (int32_t)i);
            if (i % 7 == 3) /* a step back, out of the order */
                use_layer(walk, (int32_t)(i / 2));
        }
        if (has_shared(walk->model, TND_SHARED_OUT))
            use_layer(walk, TND_LAYER_SHARED_OUT);
    }
}

static void *walk_beside_others(void *cookie)
{
    struct walk *walk = cookie;
    uint32_t layers = tnd_model_layer_count(walk->model), at;

    while ((at = atomic_fetch_add(&walk->next, 1)) < layers * walk->tokens)
        use_layer(walk, (int32_t)(at % layers));
    return NULL;
}

static void walk_with_threads(struct walk *walk)
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, walk_beside_others, walk);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* Bytes of the layers in memory, of the largest with what one read adds, and whether the type changes anything. */
static int measure(const struct tnd_model *model, const struct tnd_loader_options *loader_options, enum tnd_dtype dtype,
                   uint64_t *ret_layers, uint64_t *ret_least)
{
    struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype, .lazy = TND_LAZY_BACKGROUND};
    struct tnd_plan_sizes sizes;
    struct tnd_plan *plan;
    int r = tnd_plan_create(model, loader_options, &options, &plan);

    if (r < 0)
        return r;
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    *ret_layers = sizes.loaded_bytes - sizes.shared_bytes;
    *ret_least = sizes.layer_bytes_max + loader_options->chunk_bytes + (1 << 16); /* with what alignment may add */
    return 0;
}

static void try_walk(struct walk *walk, struct tnd_loader *loader, const struct tnd_load_options *options,
                     const char *title, bool threads)
{
    struct tnd_layer_stats stats;

    atomic_store(&walk->next, 0);
    atomic_store(&walk->problems, 0);
    if (tnd_load_start(loader, walk->model, options, &walk->load) < 0) {
        tell(walk, "start of", title);
    } else {
        threads ? walk_with_threads(walk) : walk_in_order(walk);
        tnd_layer_stats(walk->load, &stats);
        if (stats.hits + stats.late_hits + stats.sync_loads != stats.acquires)
            tell(walk, "the counts do not add up:", title);
        tnd_load_destroy(&walk->load);
    }
    if (atomic_load(&walk->problems)) {
        printf("FAILED: %s, %llu bytes%s%s: %u problems, the first: %s\n", title,
               (unsigned long long)options->resident_bytes, options->lazy ? ", lazy" : "", threads ? ", threads" : "",
               atomic_load(&walk->problems), walk->problem);
        failed++;
    } else {
        passed++;
    }
}

static void try_engine(struct walk *walk, enum tnd_engine engine, enum tnd_dtype dtype, const char *title)
{
    static const struct {
        uint32_t percent; /* of the layers' bytes; 100: no window */
        enum tnd_lazy lazy;
    } ways[] = {{100, TND_LAZY_DEMAND}, {100, TND_LAZY_BACKGROUND}, {50, TND_LAZY_OFF},
                {25, TND_LAZY_DEMAND},  {10, TND_LAZY_OFF},         {0, TND_LAZY_DEMAND}};
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .engine = engine,
                                                .chunk_bytes = 1 << 18};
    struct tnd_loader *loader;
    uint64_t layers_bytes, least;
    int r = tnd_loader_create(&loader_options, &loader);

    if (r < 0) {
        printf("skipped: %s: %s\n", title, tnd_last_error());
        skipped++;
        return;
    }
    if (measure(walk->model, &loader_options, dtype, &layers_bytes, &least) < 0) {
        printf("FAILED: %s: no plan: %s\n", title, tnd_last_error());
        failed++;
        tnd_loader_destroy(&loader);
        return;
    }
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct tnd_load_options options = {.size = sizeof(options), .dtype = dtype, .lazy = ways[i].lazy};

        if (ways[i].percent < 100) {
            options.resident_bytes = layers_bytes * ways[i].percent / 100;
            if (options.resident_bytes < least)
                options.resident_bytes = least;
        }
        try_walk(walk, loader, &options, title, false);
        /* Each thread holds one place: with fewer places than threads they wait for each other. */
        try_walk(walk, loader, &options, title, true);
    }
    tnd_loader_destroy(&loader);
}

static const struct {
    enum tnd_engine engine;
    const char *name;
} engines[] = {{TND_ENGINE_URING, "uring"}, {TND_ENGINE_THREADS, "threads"}, {TND_ENGINE_MMAP, "mmap"}};

static void use_layer_twice(struct walk *walk, int32_t layer)
{
    if (tnd_layer_acquire(walk->load, layer, -1) < 0)
        printf("layer %d: %s\n", layer, tnd_last_error());
    else
        tnd_layer_release(walk->load, layer);
    use_layer(walk, layer);
}

static int walk_again(const char *path, const char *reference, const char *engine)
{
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .chunk_bytes = 1 << 18};
    struct tnd_load_options options = {.size = sizeof(options)};
    struct walk walk = {.tokens = 3};
    struct tnd_loader *loader;
    struct tnd_model *model;
    uint64_t layers_bytes, least;

    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++)
        if (!strcmp(engines[e].name, engine))
            loader_options.engine = engines[e].engine;
    if (tnd_load_file(reference, NULL, &walk.whole) < 0 || tnd_model_open(path, NULL, &model) < 0 ||
        tnd_loader_create(&loader_options, &loader) < 0 ||
        measure(model, &loader_options, TND_DTYPE_NONE, &layers_bytes, &least) < 0) {
        fprintf(stderr, "compare_layers: %s\n", tnd_last_error());
        return 1;
    }
    walk.model = model;
    options.resident_bytes = layers_bytes / 2;
    if (tnd_load_start(loader, model, &options, &walk.load) < 0) {
        fprintf(stderr, "compare_layers: %s\n", tnd_last_error());
        return 1;
    }
    for (uint32_t i = 0; i < tnd_model_layer_count(model) * walk.tokens; i++)
        use_layer_twice(&walk, (int32_t)(i % tnd_model_layer_count(model)));
    if (atomic_load(&walk.problems))
        fprintf(stderr, "compare_layers: %u problems, the first: %s\n", atomic_load(&walk.problems), walk.problem);
    tnd_load_destroy(&walk.load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
    tnd_load_destroy(&walk.whole);
    return atomic_load(&walk.problems) != 0;
}

int main(int argc, char **argv)
{
    static const enum tnd_dtype dtypes[] = {TND_DTYPE_NONE, TND_F16, TND_BF16, TND_F32};
    struct tnd_model *model;

    if (argc == 5 && !strcmp(argv[1], "--again"))
        return walk_again(argv[2], argv[3], argv[4]);
    if (argc < 2 || tnd_model_open(argv[1], NULL, &model) < 0) {
        fprintf(stderr, "compare_layers: %s\n", argc < 2 ? "which model?" : tnd_last_error());
        return 2;
    }
    if (tnd_model_layer_count(model) < 2) {
        fprintf(stderr, "compare_layers: %s: there is nothing to walk through without two layers\n", argv[1]);
        tnd_model_close(&model);
        return 2;
    }
    for (size_t d = 0; d < sizeof(dtypes) / sizeof(dtypes[0]); d++) {
        struct walk walk = {.model = model, .tokens = argc > 2 ? (uint32_t)atoi(argv[2]) : 2};
        struct tnd_load_options options = {.size = sizeof(options), .dtype = dtypes[d]};
        struct tnd_loader *loader = NULL;

        if (tnd_loader_create(NULL, &loader) < 0 || tnd_load_start(loader, model, &options, &walk.whole) < 0 ||
            tnd_load_wait(walk.whole, -1) < 0) {
            fprintf(stderr, "compare_layers: %s\n", tnd_last_error());
            return 1;
        }
        for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
            char title[64];

            snprintf(title, sizeof(title), "%s to %s", engines[e].name,
                     dtypes[d] ? tnd_dtype_name(dtypes[d]) : "what it is");
            try_engine(&walk, engines[e].engine, dtypes[d], title);
        }
        tnd_load_destroy(&walk.whole);
        tnd_loader_destroy(&loader);
    }
    tnd_model_close(&model);
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed != 0;
}
