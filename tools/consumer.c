/* SPDX-License-Identifier: Apache-2.0 */
#include "consumer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "interrupt.h"
#include "progress.h"
#include "text.h"

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- A token ----------------------------------------------------------------------------------------------- */

/* One core is busy for so long. Returns when it was over. */
static uint64_t compute(uint64_t start_ns, uint64_t ns)
{
    uint64_t now = now_ns();

    while (now - start_ns < ns && !interrupted())
        now = now_ns();
    return now;
}

static void keep_stay(struct consumer *consumer, uint32_t layer_index, uint64_t start_ns, uint64_t end_ns)
{
    uint64_t load_ns = consumer->load_ns;

    if (consumer->stay_count == STAYS_MAX) {
        consumer->stays_dropped++;
        return;
    }
    consumer->stays[consumer->stay_count++] =
        (struct stay){.layer_index = layer_index, .start_ns = start_ns - load_ns, .end_ns = end_ns - load_ns};
}

/* ret_ready_ns: when it could be computed with. */
static int take_layer(struct consumer *consumer, uint32_t layer_index, uint64_t *ret_ready_ns)
{
    struct tnd_load *load = consumer->session->load;
    int32_t layer = (int32_t)consumer->course->layers[layer_index];
    struct layer_stalls *stalls = &consumer->per_layer[layer_index];
    struct tnd_layer_stats before = consumer->stats;
    uint64_t ready_ns, done_ns;
    int r = tnd_layer_acquire(load, layer, -1);

    if (r < 0)
        return r;
    ready_ns = now_ns();
    tnd_layer_stats(load, &consumer->stats);
    stalls->stalls += consumer->stats.late_hits + consumer->stats.sync_loads - before.late_hits - before.sync_loads;
    stalls->stalled_ns += consumer->stats.stalled_ns - before.stalled_ns;
    done_ns = compute(ready_ns, consumer->compute_ns);
    if (consumer->stays)
        keep_stay(consumer, layer_index, ready_ns, done_ns);
    *ret_ready_ns = ready_ns;
    return tnd_layer_release(load, layer);
}

/* The same for what belongs to no layer, and is only waited for. */
static int take_shared(struct consumer *consumer, int32_t layer)
{
    int r = tnd_layer_acquire(consumer->session->load, layer, -1);

    return r < 0 ? r : tnd_layer_release(consumer->session->load, layer);
}

static int take_token(struct consumer *consumer, uint64_t start_ns, struct counts *token)
{
    const struct course *course = consumer->course;
    int r = course->shared_in ? take_shared(consumer, TND_LAYER_SHARED_IN) : 0;
    uint64_t ready_ns;

    for (uint32_t i = 0; i < course->layer_count && r >= 0 && !interrupted(); i++) {
        r = take_layer(consumer, i, &ready_ns);
        if (r >= 0 && i == 0)
            token->first_layer_ns = ready_ns - start_ns;
    }
    return r >= 0 && course->shared_out ? take_shared(consumer, TND_LAYER_SHARED_OUT) : r;
}

/* ---- All of them ------------------------------------------------------------------------------------------- */

static void count_token(struct counts *token, const struct tnd_layer_stats *before, const struct tnd_layer_stats *after)
{
    token->sync_loads = after->sync_loads - before->sync_loads;
    token->hits = after->hits - before->hits;
    token->late_hits = after->late_hits - before->late_hits;
    token->stalled_ns = after->stalled_ns - before->stalled_ns;
    token->bytes_reread = after->bytes_reread - before->bytes_reread;
}

static void count_all(struct counts *total, const struct counts *token)
{
    if (total->wall_ns == 0)
        total->first_layer_ns = token->first_layer_ns;
    total->sync_loads += token->sync_loads;
    total->hits += token->hits;
    total->late_hits += token->late_hits;
    total->stalled_ns += token->stalled_ns;
    total->bytes_reread += token->bytes_reread;
    total->wall_ns += token->wall_ns;
}

/* The thread's function. */
static void *walk(void *cookie)
{
    struct consumer *consumer = cookie;
    uint64_t start_ns = consumer->load_ns, end_ns;
    int r = 0;

    for (uint64_t i = 0; i < consumer->tokens && r >= 0 && !interrupted(); i++) {
        struct counts *token = &consumer->per_token[i];
        struct tnd_layer_stats before = consumer->stats;

        r = take_token(consumer, start_ns, token);
        end_ns = now_ns();
        tnd_layer_stats(consumer->session->load, &consumer->stats);
        count_token(token, &before, &consumer->stats);
        token->wall_ns = end_ns - start_ns;
        count_all(&consumer->total, token);
        start_ns = end_ns;
    }
    if (interrupted())
        consumer->code = fail(EXIT_INTERRUPTED, "interrupted: walking through %s", consumer->session->options->model);
    else if (r < 0)
        consumer->code = fail_result(r, NULL);
    return NULL;
}

/* The consumer waits without a limit, so that each wait is one acquire of the library's count; this thread stays behind
 * for SIGINT, and ends such a wait by ending the load. */
static void join(pthread_t thread, struct tnd_load *load)
{
    bool cancelled = false;
    struct timespec until;

    do {
        if (interrupted() && !cancelled) {
            tnd_load_cancel(load);
            cancelled = true;
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += PROGRESS_TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    } while (pthread_timedjoin_np(thread, NULL, &until) == ETIMEDOUT);
}

static void keep_reasons(struct consumer *consumer)
{
    const char *reason;

    for (uint32_t i = 0; i < REASONS_MAX && (reason = tnd_load_reason(consumer->session->load, i)); i++)
        consumer->reasons[i] = strdup(reason);
}

static int walk_load(struct consumer *consumer)
{
    pthread_t thread;
    int error;

    interrupt_hold();
    error = pthread_create(&thread, NULL, walk, consumer);
    interrupt_release();
    if (error != 0)
        return fail(EXIT_RESOURCE, "no thread for the consumer: %s", strerror(error));
    join(thread, consumer->session->load);
    tnd_load_cancel(consumer->session->load); /* a window would go on: its figures are whole once it has ended */
    tnd_load_wait(consumer->session->load, -1);
    tnd_load_stats(consumer->session->load, &consumer->load_stats);
    keep_reasons(consumer);
    return consumer->code;
}

static bool take_memory(struct consumer *consumer)
{
    consumer->per_token = calloc(consumer->tokens, sizeof(*consumer->per_token));
    consumer->per_layer = calloc(consumer->course->layer_count, sizeof(*consumer->per_layer));
    if (consumer->keeps_stays)
        consumer->stays = calloc(STAYS_MAX, sizeof(*consumer->stays));
    return consumer->per_token && consumer->per_layer && (consumer->stays || !consumer->keeps_stays);
}

int consumer_run(struct consumer *consumer)
{
    struct tnd_probe probe = {.size = sizeof(probe)};
    int code;

    if (!take_memory(consumer))
        return fail(EXIT_RESOURCE, "out of memory for the counts of a walk");
    if (tnd_probe(consumer->session->options->model, &probe) >= 0)
        consumer->cached_percent = probe.cached_percent;
    code = session_start(consumer->session);
    consumer->load_ns = consumer->session->load_ns;
    if (code == 0)
        code = walk_load(consumer);
    tnd_load_destroy(&consumer->session->load);
    return code;
}

void consumer_finish(struct consumer *consumer)
{
    free(consumer->per_token);
    free(consumer->per_layer);
    free(consumer->stays);
    for (uint32_t i = 0; i < REASONS_MAX; i++)
        free(consumer->reasons[i]);
    *consumer = (struct consumer){0};
}
