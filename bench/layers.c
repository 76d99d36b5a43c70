/* SPDX-License-Identifier: Apache-2.0 */

/* One consumer of layers in one process, through the public header only: what a token takes, and what an acquire costs
 * once a layer is there; of a load without a window also what the load itself says of its end. It computes by keeping
 * its core busy.
 *
 *   bench-layers [--tokens N] [--resident BYTES] [--compute-ns N] [--engine NAME] [--direct on|off] [--ahead N]
 *                [--lazy] MODEL */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "tundish.h"

#define TOKENS_MAX 1000

struct options {
    const char *path;
    uint32_t tokens;
    uint64_t compute_ns;
    struct tnd_loader_options loader;
    struct tnd_load_options load;
};

struct outcome {
    uint64_t tokens_ns[TOKENS_MAX];
    uint64_t first_layer_ns; /* from the load's start until layer 0 was acquired */
    uint64_t last_layer_ns;  /* … until the last one was, in the first token */
    uint64_t taken_ns;       /* … until shared-out was acquired behind it */
    uint64_t setup_ns;       /* … until the load's start had returned */
    uint64_t acquire_ns;     /* an acquire and its release in the last token, together */
};

static enum tnd_engine engine_of(const char *name)
{
    static const char *const names[] = {"auto", "uring", "threads", "mmap"};

    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i]))
            return (enum tnd_engine)i;
    die("no such engine: %s", name);
}

static struct options parse(int argc, char **argv)
{
    struct options options = {.tokens = 1, .loader.size = sizeof(options.loader), .load.size = sizeof(options.load)};

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (!strcmp(argv[i], "--lazy")) {
            options.load.lazy = TND_LAZY_DEMAND;
            continue;
        }
        if (i + 1 == argc) {
            options.path = argv[i];
            break;
        }
        if (!strcmp(argv[i], "--tokens"))
            options.tokens = (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--resident"))
            parse_bytes(value, &options.load.resident_bytes);
        else if (!strcmp(argv[i], "--compute-ns"))
            options.compute_ns = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--ahead"))
            options.load.ahead = *value == '0' ? TND_AHEAD_NONE : (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--engine"))
            options.loader.engine = engine_of(value);
        else if (!strcmp(argv[i], "--direct"))
            options.loader.direct = !strcmp(value, "on") ? TND_ON : TND_OFF;
        else
            die("no such option: %s", argv[i]);
        i++;
    }
    if (!options.path || !options.tokens || options.tokens > TOKENS_MAX)
        die("usage: bench-layers [options] MODEL");
    return options;
}

static void take(struct tnd_load *load, int32_t layer)
{
    if (tnd_layer_acquire(load, layer, -1) < 0)
        die("acquire: %s", tnd_last_error());
}

static void give(struct tnd_load *load, int32_t layer)
{
    if (tnd_layer_release(load, layer) < 0)
        die("release: %s", tnd_last_error());
}

static void compute(uint64_t ns)
{
    uint64_t until = wall_ns() + ns;

    while (ns && wall_ns() < until)
        ;
}

static void run(const struct options *options, const struct tnd_model *model, struct tnd_load *load, uint64_t start,
                struct outcome *outcome)
{
    uint32_t layers = tnd_model_layer_count(model);

    for (uint32_t token = 0; token < options->tokens; token++) {
        uint64_t begun = token ? wall_ns() : start;

        take(load, TND_LAYER_SHARED_IN);
        for (uint32_t i = 0; i < layers; i++) {
            take(load, (int32_t)i);
            if (token == 0 && i == 0)
                outcome->first_layer_ns = wall_ns() - start;
            if (token == 0 && i == layers - 1)
                outcome->last_layer_ns = wall_ns() - start;
            compute(options->compute_ns);
            give(load, (int32_t)i);
        }
        give(load, TND_LAYER_SHARED_IN);
        take(load, TND_LAYER_SHARED_OUT);
        if (token == 0)
            outcome->taken_ns = wall_ns() - start;
        give(load, TND_LAYER_SHARED_OUT);
        outcome->tokens_ns[token] = wall_ns() - begun;
    }
    outcome->acquire_ns = (outcome->tokens_ns[options->tokens - 1] - layers * options->compute_ns) / (layers + 2);
}

static void print(const struct options *options, const struct tnd_model *model, struct tnd_load *load,
                  const struct outcome *outcome)
{
    struct tnd_load_stats load_stats = {0};
    struct tnd_layer_stats stats;

    tnd_layer_stats(load, &stats);
    if (!stats.resident_bytes) { /* a window never ends */
        if (tnd_load_wait(load, -1) < 0)
            die("wait: %s", tnd_last_error());
        tnd_load_stats(load, &load_stats);
    }
    printf("{\"layers\":%u,\"resident_layers\":%u,\"resident_bytes\":%llu,\"shared_bytes\":%llu,\"ahead\":%u,"
           "\"hits\":%llu,\"late_hits\":%llu,\"sync_loads\":%llu,\"stalled_ns\":%llu,\"bytes_fetched\":%llu,"
           "\"bytes_reread\":%llu,\"model_bytes\":%llu,\"first_layer_ns\":%llu,\"last_layer_ns\":%llu,"
           "\"taken_ns\":%llu,\"setup_ns\":%llu,\"ready_ns\":%llu,\"acquire_ns\":%llu,\"tokens_ns\":[",
           tnd_model_layer_count(model), stats.resident_layers, (unsigned long long)stats.resident_bytes,
           (unsigned long long)stats.shared_bytes, stats.ahead, (unsigned long long)stats.hits,
           (unsigned long long)stats.late_hits, (unsigned long long)stats.sync_loads,
           (unsigned long long)stats.stalled_ns, (unsigned long long)stats.bytes_fetched,
           (unsigned long long)stats.bytes_reread, (unsigned long long)tnd_model_bytes(model),
           (unsigned long long)outcome->first_layer_ns, (unsigned long long)outcome->last_layer_ns,
           (unsigned long long)outcome->taken_ns, (unsigned long long)outcome->setup_ns,
           (unsigned long long)load_stats.ready_ns, (unsigned long long)outcome->acquire_ns);
    for (uint32_t i = 0; i < options->tokens; i++)
        printf("%s%llu", i ? "," : "", (unsigned long long)outcome->tokens_ns[i]);
    printf("]}\n");
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    struct tnd_loader *loader;
    struct tnd_model *model;
    struct tnd_load *load;
    struct outcome outcome = {0};
    uint64_t start;

    if (tnd_model_open(options.path, NULL, &model) < 0 || tnd_loader_create(&options.loader, &loader) < 0)
        die("start: %s", tnd_last_error());
    start = wall_ns();
    if (tnd_load_start(loader, model, &options.load, &load) < 0)
        die("load: %s", tnd_last_error());
    outcome.setup_ns = wall_ns() - start;
    run(&options, model, load, start, &outcome);
    print(&options, model, load, &outcome);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
    return 0;
}
