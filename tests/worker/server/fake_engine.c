/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: an engine whose behaviour a test of the server chooses. Method: numbers in the environment, all 0 or as said:
 *
 *   FAKE_OPEN_MS, FAKE_FIRST_MS, FAKE_LOAD_MS   from the phase before: opening → loading → first layer → loaded
 *   FAKE_FAIL_OPEN, FAKE_FAIL_LOAD              an errno that opening, or loading once the first layer is there, fails
 *                                               with
 *   FAKE_TOKENS (12)                            until it stops of itself
 *   FAKE_TOKEN_MS, FAKE_PROMPT_MAX (100000)     for each token; bytes that fit the context
 *   FAKE_BEGIN_MS, FAKE_END_MS                  from the call until the engine is busy, and from the last token until
 *                                               it returns: it is deaf to stops there
 *   FAKE_ECHO                                   the text is what was asked for
 *   FAKE_JSON_BYTES                             no allocation of cJSON's that is larger is granted */
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "generate/engine.h"

#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

struct engine {
    pthread_t loader;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct engine_status status;
    bool ending, generating, stopped;
    int event_fd;
    uint64_t start_ns;
};

static const char *const pieces[] = {"Hé", "llo ", "wörld", " 日本", "語 ", "😀", "\n", "\"quoted\" ", "\\ ", "tab\t",
                                     "e\u0301", "."};
#define PIECES (sizeof(pieces) / sizeof(pieces[0]))

static uint64_t setting(const char *name, uint64_t usual)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : usual;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * S + (uint64_t)now.tv_nsec;
}

static void *allocate_json(size_t bytes)
{
    return bytes <= setting("FAKE_JSON_BYTES", SIZE_MAX) ? malloc(bytes) : NULL;
}

static void sleep_ms(uint64_t ms)
{
    const struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000 * MS)};

    nanosleep(&time, NULL);
}

/* Waits for so long unless *cut becomes true. The caller has the lock. */
static void wait_ms(struct engine *engine, uint64_t ms, const bool *cut)
{
    uint64_t until_ns = now_ns() + ms * MS;
    struct timespec until = {(time_t)(until_ns / S), (long)(until_ns % S)};

    while (ms > 0 && !*cut && !engine->ending)
        if (pthread_cond_timedwait(&engine->changed, &engine->lock, &until) == ETIMEDOUT)
            break;
}

static void change(struct engine *engine, enum engine_phase phase, bool first_layer)
{
    engine->status.phase = phase;
    engine->status.first_layer = first_layer;
    engine->status.progress = (struct tnd_progress){
        .bytes_ready = phase == ENGINE_LOADED ? 1000 : first_layer ? 300 : 0, .bytes = 1000, .tensors = 10};
    if (phase == ENGINE_LOADED)
        engine->status.load_ns = now_ns() - engine->start_ns;
    pthread_cond_broadcast(&engine->changed);
    eventfd_write(engine->event_fd, 1);
}

static bool fails(struct engine *engine, const char *name)
{
    int error = (int)setting(name, 0);

    if (error == 0)
        return false;
    engine->status.result = fail(&engine->status.failure, -error, "the model: %s says so", name);
    change(engine, ENGINE_FAILED, false);
    return true;
}

static void *load(void *argument)
{
    struct engine *engine = argument;
    bool never = false;

    pthread_mutex_lock(&engine->lock);
    wait_ms(engine, setting("FAKE_OPEN_MS", 0), &never);
    if (!fails(engine, "FAKE_FAIL_OPEN")) {
        change(engine, ENGINE_LOADING, false);
        wait_ms(engine, setting("FAKE_FIRST_MS", 0), &never);
        change(engine, ENGINE_LOADING, true);
        wait_ms(engine, setting("FAKE_LOAD_MS", 0), &never);
        if (!fails(engine, "FAKE_FAIL_LOAD"))
            change(engine, ENGINE_LOADED, true);
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

int engine_create(const struct engine_options *options, struct engine **ret_engine)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    pthread_condattr_t attributes;

    (void)options;
    if (!engine)
        return -ENOMEM;
    if (getenv("FAKE_JSON_BYTES"))
        cJSON_InitHooks(&(cJSON_Hooks){allocate_json, free});
    engine->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    engine->start_ns = now_ns();
    pthread_mutex_init(&engine->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&engine->loader, NULL, load, engine) != 0) {
        free(engine);
        return -EAGAIN;
    }
    *ret_engine = engine;
    return 0;
}

void engine_destroy(struct engine **ref_engine)
{
    struct engine *engine = *ref_engine;

    if (!engine)
        return;
    pthread_mutex_lock(&engine->lock);
    engine->ending = true;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    pthread_join(engine->loader, NULL);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    close(engine->event_fd);
    free(engine);
    *ref_engine = NULL;
}

void engine_status(struct engine *engine, struct engine_status *ret_status)
{
    pthread_mutex_lock(&engine->lock);
    *ret_status = engine->status;
    pthread_mutex_unlock(&engine->lock);
}

int engine_event_fd(struct engine *engine)
{
    return engine->event_fd;
}

void engine_stop(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->stopped = engine->generating;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
}

static bool is_stop(const struct generation_request *request, const char *piece)
{
    for (size_t i = 0; i < request->stop_count; i++)
        if (strstr(piece, request->stops[i]))
            return true;
    return false;
}

/* What there is to say against the prompt. */
static int check(const struct generation_request *request, struct failure *failure)
{
    size_t bytes = request->prompt_bytes;

    for (size_t i = 0; i < request->message_count; i++) {
        bytes += strlen(request->messages[i].content);
        if (strcmp(request->messages[i].role, "system") != 0 && strcmp(request->messages[i].role, "user") != 0 &&
            strcmp(request->messages[i].role, "assistant") != 0)
            return fail(failure, -EINVAL, "messages[%zu].role is unknown", i);
    }
    if (bytes > setting("FAKE_PROMPT_MAX", 100000))
        return fail(failure, -EFBIG, "the prompt does not fit the context");
    return (int)(bytes / 4 + 1);
}

/* Under the lock, which it gives away while it tells. */
static void tell_tokens(struct engine *engine, const struct generation_request *request, generation_fn tell,
                        void *cookie, struct generation_result *result)
{
    uint64_t token_ms = setting("FAKE_TOKEN_MS", 0), tokens = setting("FAKE_TOKENS", 12), start_ns = now_ns();

    result->finish = GENERATION_STOP;
    for (uint64_t i = 0; i < tokens; i++) {
        const char *piece = pieces[(i + request->seed % PIECES) % PIECES];
        bool go_on;

        if (i >= request->tokens_max) {
            result->finish = GENERATION_LENGTH;
            return;
        }
        wait_ms(engine, token_ms, &engine->stopped);
        if (engine->stopped || engine->ending) {
            result->finish = GENERATION_CANCELED;
            return;
        }
        if (is_stop(request, piece))
            return;
        result->tokens++;
        if (i == 0)
            result->first_token_ns = now_ns() - start_ns;
        pthread_mutex_unlock(&engine->lock);
        go_on = tell(cookie, piece, strlen(piece));
        pthread_mutex_lock(&engine->lock);
        if (!go_on) {
            result->finish = GENERATION_CANCELED;
            return;
        }
    }
}

/* Without the lock. */
static void tell_request(const struct generation_request *request, generation_fn tell, void *cookie)
{
    char text[1000];
    int count = snprintf(text, sizeof(text), "temperature=%g top_p=%s seed=%" PRIu64 " prompt=%s",
                         (double)request->temperature,
                         request->top_p <= 0 || request->top_p >= 1 ? "all" : request->top_p < 1e-30F ? "one" : "some",
                         request->seed, request->prompt ? request->prompt : "");

    for (size_t i = 0; i < request->message_count && count < (int)sizeof(text); i++)
        count += snprintf(text + count, sizeof(text) - (size_t)count, " %s:%s", request->messages[i].role,
                          request->messages[i].content);
    tell(cookie, text, strlen(text));
}

int engine_generate(struct engine *engine, const struct generation_request *request, generation_fn tell, void *cookie,
                    struct generation_result *ret_result, struct failure *failure)
{
    struct generation_result result = {0};
    uint64_t start_ns = now_ns();
    int r;

    sleep_ms(setting("FAKE_BEGIN_MS", 0));
    if (getenv("FAKE_ECHO"))
        tell_request(request, tell, cookie);
    pthread_mutex_lock(&engine->lock);
    engine->generating = true;
    engine->stopped = request->canceled && atomic_load(request->canceled);
    while (engine->status.phase == ENGINE_OPENING && !engine->stopped && !engine->ending)
        pthread_cond_wait(&engine->changed, &engine->lock);
    r = engine->status.phase == ENGINE_FAILED ? fail(failure, engine->status.result, "%s", engine->status.failure.text)
                                              : check(request, failure);
    if (r >= 0) {
        result.prompt_tokens = (uint32_t)r;
        tell_tokens(engine, request, tell, cookie, &result);
        result.load_ns = engine->status.load_ns;
        result.ns = now_ns() - start_ns;
        result.tokens_per_s = result.tokens > 1 ? (double)result.tokens * 1e9 / (double)result.ns : 0;
        r = engine->status.phase == ENGINE_FAILED ? fail(failure, engine->status.result, "%s",
                                                         engine->status.failure.text) : 0;
        *ret_result = result;
    }
    engine->generating = engine->stopped = false;
    pthread_mutex_unlock(&engine->lock);
    sleep_ms(setting("FAKE_END_MS", 0));
    return r;
}
