/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a model inside an event loop, which never blocks on it: events MODEL
 * Builds with: cc events.c $(pkg-config --cflags --libs tundish) */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <tundish.h>
#include <unistd.h>

#define TICK_MS 100 /* when nothing comes: time for other work */

/* The descriptor says that something is new, not what: looking is cheap. */
static uint32_t count_layers(struct tnd_load *load)
{
    uint32_t ready = 0;

    for (uint32_t i = 0; i < tnd_model_layer_count(tnd_load_model(load)); i++)
        ready += tnd_load_wait_layer(load, (int32_t)i, 0) == 0;
    return ready;
}

/* Returns what the load ended with. */
static int run(struct tnd_load *load)
{
    struct pollfd descriptors[] = {{.fd = tnd_load_event_fd(load), .events = POLLIN}}; /* and others, of a server */
    uint32_t layers = tnd_model_layer_count(tnd_load_model(load)), shown = UINT32_MAX;
    struct tnd_progress at;
    uint64_t events;
    int r;

    if (descriptors[0].fd < 0)
        return descriptors[0].fd;
    while ((r = tnd_load_wait(load, 0)) == -EAGAIN) {
        if (poll(descriptors, 1, TICK_MS) < 0 && errno != EINTR)
            return -errno;
        if (descriptors[0].revents & POLLIN && read(descriptors[0].fd, &events, sizeof(events)) < 0)
            return -errno;
        if (count_layers(load) == shown)
            continue;
        shown = count_layers(load);
        tnd_load_progress(load, &at);
        printf("%u of %u layers, %.0f %%\n", shown, layers, 100 * (double)at.bytes_ready / (double)at.bytes);
    }
    return r;
}

int main(int argc, char **argv)
{
    struct tnd_model *model = NULL;
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    struct tnd_load_stats stats;
    int failed = argc < 2 || tnd_model_open(argv[1], NULL, &model) < 0 || tnd_loader_create(NULL, &loader) < 0 ||
                 tnd_load_start(loader, model, NULL, &load) < 0 || run(load) < 0;

    if (failed) {
        fprintf(stderr, "events: %s\n", argc < 2 ? "which model?" : tnd_last_error());
    } else {
        tnd_load_stats(load, &stats);
        printf("ready: %u tensors in %.1f ms\n", stats.tensors, (double)stats.ready_ns / 1e6);
    }
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
    return failed;
}
