/* SPDX-License-Identifier: Apache-2.0 */
/* Goes through a model's layers twice, with room for half of them: window MODEL
 * Builds with: cc window.c $(pkg-config --cflags --libs tundish) */
#include <stdio.h>
#include <tundish.h>

/* Half of what the layers take, but room for two and a read. */
static int choose_window(const struct tnd_model *model, struct tnd_load_options *options)
{
    struct tnd_plan_sizes sizes;
    struct tnd_plan *plan;
    int r = tnd_plan_create(model, NULL, options, &plan);

    if (r < 0)
        return r;
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    options->resident_bytes = (sizes.loaded_bytes - sizes.shared_bytes) / 2;
    if (options->resident_bytes < 2 * sizes.layer_bytes_max + (4 << 20))
        options->resident_bytes = 2 * sizes.layer_bytes_max + (4 << 20);
    return 0;
}

/* A token: what comes before the first layer, which stays, then the layers. */
static int use_layers(struct tnd_load *load, uint32_t layers)
{
    int r = tnd_layer_acquire(load, TND_LAYER_SHARED_IN, -1);

    if (r >= 0)
        r = tnd_layer_release(load, TND_LAYER_SHARED_IN);
    for (uint32_t layer = 0; r >= 0 && layer < layers; layer++) {
        r = tnd_layer_acquire(load, (int32_t)layer, -1);
        if (r < 0)
            break; /* Nothing was acquired, so nothing is to be released. This layer could not be read; the load goes
                    * on, and who has the time for it acquires it once more. */
        /* Here it would be computed with: tnd_load_tensor_data() of its tensors, until it is released. The next two are
         * on their way. */
        r = tnd_layer_release(load, (int32_t)layer);
    }
    return r;
}

int main(int argc, char **argv)
{
    struct tnd_load_options options = {.size = sizeof(options)};
    struct tnd_layer_stats stats;
    struct tnd_model *model = NULL;
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    int failed = argc < 2 || tnd_model_open(argv[1], NULL, &model) < 0 || choose_window(model, &options) < 0 ||
                 tnd_loader_create(NULL, &loader) < 0 || tnd_load_start(loader, model, &options, &load) < 0 ||
                 use_layers(load, tnd_model_layer_count(model)) < 0 ||
                 use_layers(load, tnd_model_layer_count(model)) < 0;

    if (failed) {
        fprintf(stderr, "window: %s\n", argc < 2 ? "which model?" : tnd_last_error());
    } else {
        tnd_layer_stats(load, &stats);
        printf("room for %u of %u layers: %llu hits, %llu bytes read again\n", stats.resident_layers, stats.layers,
               (unsigned long long)stats.hits, (unsigned long long)stats.bytes_reread);
    }
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
    return failed;
}
