/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "generate/state.h"

uint64_t engine_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- Life -------------------------------------------------------------------------------------------------- */

static void init_locks(struct engine *engine)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&engine->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

int engine_create(const struct engine_options *options, struct engine **ret_engine)
{
    struct engine *engine = calloc(1, sizeof(*engine));

    if (!engine)
        return -ENOMEM;
    init_locks(engine);
    engine->created_ns = engine_now_ns();
    engine->options = *options;
    engine->options.path = strdup(options->path);
    engine->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    engine->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!engine->options.path || engine->event_fd < 0 || engine->quit_fd < 0) {
        engine_destroy(&engine);
        return -ENOMEM;
    }
    engine->has_thread = pthread_create(&engine->thread, NULL, loading_run, engine) == 0;
    if (!engine->has_thread) {
        engine_destroy(&engine);
        return -EAGAIN;
    }
    *ret_engine = engine;
    return 0;
}

static void stop_all(struct engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    engine->closing = true;
    pthread_mutex_unlock(&engine->mutex);
    engine_stop(engine);
    pthread_mutex_lock(&engine->mutex);
    while (engine->busy)
        pthread_cond_wait(&engine->changed, &engine->mutex);
    pthread_mutex_unlock(&engine->mutex);
    if (engine->has_thread) {
        eventfd_write(engine->quit_fd, 1);
        pthread_join(engine->thread, NULL);
    }
}

void engine_destroy(struct engine **ref)
{
    struct engine *engine = *ref;

    if (!engine)
        return;
    stop_all(engine);
    decoder_close(&engine->decoder);
    team_destroy(&engine->team);
    tokenizer_close(&engine->tokenizer);
    tnd_load_destroy(&engine->load);
    tnd_loader_destroy(&engine->loader);
    tnd_model_close(&engine->model);
    free(engine->sequence);
    free(engine->logits);
    if (engine->event_fd >= 0)
        close(engine->event_fd);
    if (engine->quit_fd >= 0)
        close(engine->quit_fd);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->mutex);
    free((char *)engine->options.path);
    free(engine);
    *ref = NULL;
}

/* ---- Status ------------------------------------------------------------------------------------------------ */

void engine_status(struct engine *engine, struct engine_status *ret_status)
{
    struct engine_status status = {0};

    pthread_mutex_lock(&engine->mutex);
    status.phase = engine->phase;
    status.first_layer = engine->first_layer;
    status.load_ns = engine->load_ns;
    status.result = engine->result;
    status.failure = engine->failure;
    if (engine->load)
        tnd_load_progress(engine->load, &status.progress);
    pthread_mutex_unlock(&engine->mutex);
    *ret_status = status;
}

static struct timespec deadline(int64_t timeout_ns)
{
    uint64_t until = engine_now_ns() + (uint64_t)timeout_ns;

    return (struct timespec){.tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000)};
}

int engine_wait(struct engine *engine, enum engine_phase phase, int64_t timeout_ns, struct failure *failure)
{
    struct timespec until = deadline(timeout_ns < 0 ? 0 : timeout_ns);
    int error = 0, r = 0;

    pthread_mutex_lock(&engine->mutex);
    while (engine->phase < phase && error == 0)
        error = timeout_ns < 0 ? pthread_cond_wait(&engine->changed, &engine->mutex)
                               : pthread_cond_timedwait(&engine->changed, &engine->mutex, &until);
    if (engine->phase == ENGINE_FAILED)
        r = fail(failure, engine->result, "%s", engine->failure.text);
    else if (engine->phase < phase)
        r = fail(failure, -ETIMEDOUT, "the time is over");
    pthread_mutex_unlock(&engine->mutex);
    return r;
}

int engine_event_fd(struct engine *engine)
{
    return engine->event_fd;
}

void engine_stop(struct engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    if (engine->busy) {
        engine->stopped = true;
        if (engine->phase >= ENGINE_LOADING && engine->decoder)
            decoder_stop(engine->decoder, true);
        pthread_cond_broadcast(&engine->changed);
    }
    pthread_mutex_unlock(&engine->mutex);
}
