/* SPDX-License-Identifier: Apache-2.0 */

/* What an engine's own thread does: weights are on their way before the vocabulary is read. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "generate/state.h"

#define CONTEXT_DEFAULT 4096
#define CHUNK_BYTES_MIN 65536 /* of reads */
#define CHUNK_BYTES_MAX (2U << 20)

/* ---- What others see --------------------------------------------------------------------------------------- */

static void tell(struct engine *engine)
{
    pthread_cond_broadcast(&engine->changed);
    eventfd_write(engine->event_fd, 1);
}

static void set_loading(struct engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    engine->phase = ENGINE_LOADING;
    tell(engine);
    pthread_mutex_unlock(&engine->mutex);
}

static void set_loaded(struct engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    if (engine->phase == ENGINE_LOADING) {
        engine->phase = ENGINE_LOADED;
        engine->load_ns = engine_now_ns() - engine->created_ns;
        tell(engine);
    }
    pthread_mutex_unlock(&engine->mutex);
}

void engine_set_failed(struct engine *engine, int result, const struct failure *failure)
{
    pthread_mutex_lock(&engine->mutex);
    engine->phase = ENGINE_FAILED;
    engine->result = result;
    engine->failure = *failure;
    tell(engine);
    pthread_mutex_unlock(&engine->mutex);
}

/* ---- Opening ----------------------------------------------------------------------------------------------- */

static int fail_library(struct failure *failure, int result)
{
    return fail(failure, result, "%s", tnd_last_error()[0] ? tnd_last_error() : tnd_strerror(result));
}

static int find_resident(const struct engine *engine, const struct tnd_load_options *options, uint64_t *ret_bytes)
{
    struct tnd_plan_sizes sizes;
    struct tnd_plan *plan;
    int r = tnd_plan_create(engine->model, NULL, options, &plan);

    if (r < 0)
        return r;
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    *ret_bytes = (uint64_t)((double)(sizes.loaded_bytes - sizes.shared_bytes) * engine->options.resident_percent / 100);
    return 0;
}

/* A window has to have room for a read beside a layer: the smaller it is, the shorter they are. */
static void choose_chunk(const struct engine *engine, struct tnd_loader_options *loader_options,
                         const struct tnd_load_options *options)
{
    struct tnd_plan *plan = NULL;

    loader_options->chunk_bytes = CHUNK_BYTES_MAX;
    while (loader_options->chunk_bytes > CHUNK_BYTES_MIN &&
           tnd_plan_create(engine->model, loader_options, options, &plan) == -ENOMEM)
        loader_options->chunk_bytes /= 2;
    tnd_plan_destroy(&plan);
}

static int start_load(struct engine *engine, struct failure *failure)
{
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .engine = engine->options.io};
    struct tnd_load_options options = {.size = sizeof(options), .lazy = engine->options.lazy};
    struct tnd_load *load = NULL;
    int r = 0;

    if (engine->options.resident_percent > 0)
        r = find_resident(engine, &options, &engine->options.resident_bytes);
    options.resident_bytes = engine->options.resident_bytes;
    if (r >= 0 && options.resident_bytes > 0)
        choose_chunk(engine, &loader_options, &options);
    if (r >= 0)
        r = tnd_loader_create(&loader_options, &engine->loader);
    if (r >= 0)
        r = tnd_load_start(engine->loader, engine->model, &options, &load);
    if (r < 0)
        return fail_library(failure, r);
    pthread_mutex_lock(&engine->mutex);
    engine->load = load;
    pthread_mutex_unlock(&engine->mutex);
    return 0;
}

/* Where the model's first file lies. */
static char *find_folder(const struct tnd_model *model)
{
    const char *path = tnd_model_file(model, 0)->path, *end = strrchr(path, '/');

    if (!end)
        return strdup(".");
    return end == path ? strdup("/") : strndup(path, (size_t)(end - path));
}

static int attach(struct engine *engine, struct failure *failure)
{
    uint32_t most = decoder_config(engine->decoder)->context;
    int r;

    engine->context = engine->options.context_tokens;
    if (engine->context == 0)
        engine->context = most < CONTEXT_DEFAULT ? most : CONTEXT_DEFAULT;
    r = team_create(engine->options.thread_count, &engine->team);
    if (r < 0)
        return fail(failure, r, "the threads to compute with: %s", tnd_strerror(r));
    r = decoder_attach(engine->decoder, engine->load, engine->team, engine->context, failure);
    if (r < 0)
        return r;
    engine->sequence = calloc(engine->context, sizeof(*engine->sequence));
    engine->logits = calloc(decoder_config(engine->decoder)->vocabulary, sizeof(*engine->logits));
    if (!engine->sequence || !engine->logits)
        return fail(failure, -ENOMEM, "out of memory for a sequence of %u tokens", engine->context);
    return 0;
}

static int open_text(struct engine *engine, const char *folder, struct failure *failure)
{
    uint32_t vocabulary = decoder_config(engine->decoder)->vocabulary;
    int r = tokenizer_open(engine->model, folder, &engine->tokenizer, failure);

    if (r < 0)
        return r;
    if (tokenizer_count(engine->tokenizer) > vocabulary)
        return fail(failure, -EBADMSG, "the vocabulary has %u tokens, and the embedding only %u rows",
                    tokenizer_count(engine->tokenizer), vocabulary);
    return 0;
}

static int open_all(struct engine *engine, struct failure *failure)
{
    char *folder;
    int r = tnd_model_open(engine->options.path, NULL, &engine->model);

    if (r < 0)
        return fail_library(failure, r);
    folder = find_folder(engine->model);
    if (!folder)
        return fail(failure, -ENOMEM, "out of memory for a path");
    r = decoder_open(engine->model, folder, &engine->decoder, failure);
    if (r >= 0)
        r = start_load(engine, failure);
    if (r >= 0)
        r = open_text(engine, folder, failure);
    free(folder);
    return r < 0 ? r : attach(engine, failure);
}

/* ---- Watching ---------------------------------------------------------------------------------------------- */

/* With a window there is no end: all has come once. Shared-in and shared-out are fetched too. */
static bool has_turned(struct tnd_load *load)
{
    struct tnd_layer_stats stats;

    tnd_layer_stats(load, &stats);
    return stats.resident_bytes > 0 && stats.fetches >= (uint64_t)stats.layers + 2;
}

static void note_first_layer(struct engine *engine)
{
    struct tnd_load_stats stats;

    tnd_load_stats(engine->load, &stats);
    pthread_mutex_lock(&engine->mutex);
    engine->first_layer = stats.first_layer_ns > 0;
    tell(engine);
    pthread_mutex_unlock(&engine->mutex);
}

/* Returns what ended the load, 0 while it goes well. */
static int look(struct engine *engine, struct failure *failure)
{
    struct tnd_progress progress;
    int r = 0;

    note_first_layer(engine);
    tnd_load_progress(engine->load, &progress);
    if (progress.ended) {
        r = tnd_load_wait(engine->load, -1); /* until a failed one has drained */
        if (r < 0)
            return fail(failure, r, "%s", tnd_load_error(engine->load));
    }
    if (progress.ended || has_turned(engine->load))
        set_loaded(engine);
    return 0;
}

static int watch(struct engine *engine, struct failure *failure)
{
    struct pollfd fds[2] = {{.fd = tnd_load_event_fd(engine->load), .events = POLLIN},
                            {.fd = engine->quit_fd, .events = POLLIN}};
    eventfd_t count;
    int r;

    if (fds[0].fd < 0)
        return fail_library(failure, fds[0].fd);
    for (;;) {
        r = look(engine, failure);
        if (r < 0)
            return r;
        if (poll(fds, 2, -1) < 0) {
            if (errno != EINTR)
                return fail(failure, -EIO, "poll: %s", strerror(errno));
            continue;
        }
        if (fds[1].revents)
            return 0;
        if (fds[0].revents)
            eventfd_read(fds[0].fd, &count);
    }
}

void *loading_run(void *cookie)
{
    struct engine *engine = cookie;
    struct failure failure = {{0}};
    int r = open_all(engine, &failure);

    if (r >= 0) {
        set_loading(engine);
        r = watch(engine, &failure);
    }
    if (r < 0)
        engine_set_failed(engine, r, &failure);
    return NULL;
}
