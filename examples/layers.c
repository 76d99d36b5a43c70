/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a model as F16 into memory of its own and uses each layer as soon as it is there: layers MODEL
 * Builds with: cc layers.c $(pkg-config --cflags --libs tundish) */
#include <stdio.h>
#include <stdlib.h>
#include <tundish.h>

#define ALIGNMENT 64

struct arena {
    char *memory;
    size_t used, bytes;
};

/* Called for each tensor before anything is read: the tensor is told as it will lie, in F16. */
static void *place(void *cookie, const struct tnd_tensor *tensor)
{
    struct arena *arena = cookie;
    size_t bytes = (size_t)(tensor->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    if (bytes > arena->bytes - arena->used)
        return NULL; /* then the loader takes memory for it */
    arena->used += bytes;
    return arena->memory + arena->used - bytes;
}

/* The plan knows how long the tensors will be. Without memory every tensor goes to the loader's. */
static int arena_init(struct arena *arena, const struct tnd_model *model, const struct tnd_load_options *options)
{
    struct tnd_plan_sizes sizes;
    struct tnd_plan *plan;
    int r = tnd_plan_create(model, NULL, options, &plan);

    if (r < 0)
        return r;
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    arena->bytes = (size_t)(sizes.loaded_bytes + (uint64_t)sizes.tensor_count * ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    arena->memory = aligned_alloc(ALIGNMENT, arena->bytes);
    arena->bytes = arena->memory ? arena->bytes : 0;
    return 0;
}

static int use_layers(struct tnd_load *load)
{
    uint32_t layers = tnd_model_layer_count(tnd_load_model(load));
    struct tnd_progress at;
    int r = 0;

    for (uint32_t layer = 0; r >= 0 && layer < layers; layer++) {
        r = tnd_load_wait_layer(load, (int32_t)layer, -1);
        tnd_load_progress(load, &at);
        if (r >= 0) /* here it would be computed with, while the next ones are on their way */
            printf("layer %u after %.1f ms, %.0f %% of the bytes\n", layer, (double)at.elapsed_ns / 1e6,
                   100 * (double)at.bytes_ready / (double)at.bytes);
    }
    return r < 0 ? r : tnd_load_wait(load, -1); /* the final norm and the head */
}

int main(int argc, char **argv)
{
    struct arena arena = {0};
    struct tnd_load_options options = {.size = sizeof(options), .dtype = TND_F16, .place = place,
                                       .place_cookie = &arena};
    struct tnd_model *model = NULL;
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    int failed = argc < 2 || tnd_model_open(argv[1], NULL, &model) < 0 || arena_init(&arena, model, &options) < 0 ||
                 tnd_loader_create(NULL, &loader) < 0 || tnd_load_start(loader, model, &options, &load) < 0 ||
                 use_layers(load) < 0;

    if (failed)
        fprintf(stderr, "layers: %s\n", argc < 2 ? "which model?" : tnd_last_error());
    tnd_load_destroy(&load); /* before the memory that it may still write to, and before what it reads */
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
    free(arena.memory);
    return failed;
}
