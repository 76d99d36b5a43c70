/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/readiness.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "model/model.h"

static int counters_init(struct tnd_readiness *readiness, struct tnd_plan *plan)
{
    uint32_t tensor_count = plan->model->tensor_count;

    readiness->tensor_left = tnd_arena_alloc(&plan->arena, tensor_count, sizeof(*readiness->tensor_left));
    readiness->tensor_pieces = tnd_arena_alloc(&plan->arena, tensor_count, sizeof(*readiness->tensor_pieces));
    readiness->stage_left = tnd_arena_alloc(&plan->arena, plan->stage_count, sizeof(*readiness->stage_left));
    if (!readiness->tensor_left || !readiness->tensor_pieces || !readiness->stage_left)
        return -ENOMEM;
    for (uint32_t i = 0; i < plan->piece_count; i++)
        readiness->tensor_pieces[plan->pieces[i].tensor]++;
    for (uint32_t i = 0; i < tensor_count; i++)
        atomic_init(&readiness->tensor_left[i], TND_NOT_LOADED);
    for (uint32_t i = 0; i < plan->tensor_count; i++)
        atomic_init(&readiness->tensor_left[plan->tensors[i]], readiness->tensor_pieces[plan->tensors[i]]);
    for (uint32_t i = 0; i < plan->stage_count; i++)
        atomic_init(&readiness->stage_left[i],
                    plan->stages[i].tensor_count ? plan->stages[i].tensor_count : TND_NOT_LOADED);
    return 0;
}

/* Under mutex. event: a layer or the end, which the descriptor is for. */
static void announce(struct tnd_readiness *readiness, bool event)
{
    readiness->changes++;
    pthread_cond_broadcast(&readiness->changed_cond);
    readiness->event_seen = readiness->event_seen || event;
    if (event && readiness->event_fd >= 0)
        eventfd_write(readiness->event_fd, 1);
}

static bool is_there(const struct tnd_readiness *readiness, uint32_t stage)
{
    uint32_t left = atomic_load(&readiness->stage_left[stage]);

    return left == 0 || left == TND_NOT_LOADED;
}

static void stage_ready(struct tnd_readiness *readiness, uint32_t stage)
{
    struct tnd_residency *residency = &readiness->residency;
    uint32_t first = residency->order_count ? residency->order[0] : 0;

    if (!atomic_load(&readiness->first_layer_ns) && is_there(readiness, 0) && is_there(readiness, first))
        atomic_store(&readiness->first_layer_ns, readiness->now_ns());
    tnd_residency_fetched(residency, stage, readiness->now_ns());
}

static void tensor_ready(struct tnd_readiness *readiness, uint32_t index)
{
    uint32_t stage = tnd_plan_stage(readiness->plan, index);
    bool last = atomic_fetch_sub(&readiness->stage_left[stage], 1) == 1;

    atomic_fetch_add(&readiness->tensors_ready, 1);
    /* Sequentially consistent against a waiter, who counts itself in and then looks at the counters. */
    if (last || atomic_load(&readiness->waiting)) {
        pthread_mutex_lock(&readiness->mutex);
        if (last)
            stage_ready(readiness, stage);
        announce(readiness, last);
        pthread_mutex_unlock(&readiness->mutex);
    }
}

int tnd_readiness_init(struct tnd_readiness *readiness, struct tnd_plan *plan, const struct tnd_load_options *options,
                       uint64_t (*now_ns)(void), struct tnd_err *err)
{
    struct tnd_readiness made = {.plan = plan, .event_fd = -1, .now_ns = now_ns, .start_ns = now_ns()};
    pthread_condattr_t attributes;
    int r;

    if (counters_init(&made, plan) < 0)
        return tnd_fail(err, -ENOMEM, "no memory to keep count of %u tensors", plan->tensor_count);
    r = tnd_residency_init(&made.residency, plan, options, err);
    if (r < 0)
        return r;
    *readiness = made;
    pthread_mutex_init(&readiness->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&readiness->changed_cond, &attributes);
    pthread_condattr_destroy(&attributes);
    for (uint32_t i = 0; i < plan->tensor_count; i++)
        if (!readiness->tensor_pieces[plan->tensors[i]])
            tensor_ready(readiness, plan->tensors[i]);
    return 0;
}

void tnd_readiness_finish(struct tnd_readiness *readiness)
{
    if (readiness->event_fd >= 0)
        close(readiness->event_fd);
    pthread_cond_destroy(&readiness->changed_cond);
    pthread_mutex_destroy(&readiness->mutex);
}

void tnd_readiness_piece(struct tnd_readiness *readiness, uint32_t tensor, uint32_t bytes)
{
    atomic_fetch_add_explicit(&readiness->bytes_ready, bytes, memory_order_relaxed);
    if (atomic_fetch_sub(&readiness->tensor_left[tensor], 1) == 1)
        tensor_ready(readiness, tensor);
}

void tnd_readiness_forget(struct tnd_readiness *readiness, uint32_t stage, uint64_t bytes_arrived)
{
    const struct tnd_plan *plan = readiness->plan;
    const struct tnd_stage *planned = &plan->stages[stage];

    atomic_fetch_sub(&readiness->bytes_ready, bytes_arrived);
    for (uint32_t i = 0; i < planned->tensor_count; i++) {
        uint32_t tensor = plan->tensors[planned->tensor_first + i];
        uint32_t left = atomic_exchange(&readiness->tensor_left[tensor], readiness->tensor_pieces[tensor]);

        if (left == 0 && readiness->tensor_pieces[tensor]) {
            atomic_fetch_add(&readiness->stage_left[stage], 1);
            atomic_fetch_sub(&readiness->tensors_ready, 1);
        }
    }
}

void tnd_readiness_mark(struct tnd_readiness *readiness, uint32_t stage)
{
    pthread_mutex_lock(&readiness->mutex);
    readiness->residency.stages[stage].marked = true;
    announce(readiness, true);
    pthread_mutex_unlock(&readiness->mutex);
}

void tnd_readiness_fail(struct tnd_readiness *readiness, uint32_t stage)
{
    pthread_mutex_lock(&readiness->mutex);
    tnd_residency_failed(&readiness->residency, stage);
    announce(readiness, true); /* who polls by the descriptor learns it when it asks again */
    pthread_mutex_unlock(&readiness->mutex);
}

void tnd_readiness_end(struct tnd_readiness *readiness, const struct tnd_err *end)
{
    assert(end->result != -EAGAIN); /* which would read as: not yet */
    pthread_mutex_lock(&readiness->mutex);
    readiness->end = *end;
    readiness->end_ns = readiness->now_ns();
    atomic_store(&readiness->ended, true);
    announce(readiness, true);
    pthread_mutex_unlock(&readiness->mutex);
}

int tnd_readiness_look(const struct tnd_readiness *readiness, const atomic_uint *left)
{
    bool ended = atomic_load(&readiness->ended); /* before the counter: what arrived before a failure has arrived */

    if (left && atomic_load(left) == 0)
        return 0;
    if (!ended)
        return -EAGAIN;
    return readiness->end.result;
}

bool tnd_readiness_wait(struct tnd_readiness *readiness, uint64_t until_ns)
{
    struct timespec limit = {.tv_sec = (time_t)(until_ns / TND_NS_PER_S), .tv_nsec = (long)(until_ns % TND_NS_PER_S)};
    uint32_t seen = readiness->changes;
    int r = 0;

    while (readiness->changes == seen && r != ETIMEDOUT)
        r = until_ns == UINT64_MAX ? pthread_cond_wait(&readiness->changed_cond, &readiness->mutex)
                                   : pthread_cond_timedwait(&readiness->changed_cond, &readiness->mutex, &limit);
    return readiness->changes != seen;
}

void tnd_readiness_stir(struct tnd_readiness *readiness)
{
    announce(readiness, false);
}

int tnd_readiness_event_fd(struct tnd_readiness *readiness)
{
    int fd;

    pthread_mutex_lock(&readiness->mutex);
    if (readiness->event_fd < 0) {
        readiness->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (readiness->event_fd >= 0 && readiness->event_seen)
            eventfd_write(readiness->event_fd, 1); /* what happened before it was asked for */
    }
    fd = readiness->event_fd;
    pthread_mutex_unlock(&readiness->mutex);
    return fd < 0 ? -ENOMEM : fd;
}
