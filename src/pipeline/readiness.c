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
    const struct tnd_model *model = plan->model;

    readiness->tensor_left = tnd_arena_alloc(&plan->arena, model->tensor_count, sizeof(*readiness->tensor_left));
    readiness->layer_left = tnd_arena_alloc(&plan->arena, model->layer_count + 1u, sizeof(*readiness->layer_left));
    if (!readiness->tensor_left || !readiness->layer_left)
        return -ENOMEM;
    for (uint32_t i = 0; i < model->tensor_count; i++)
        atomic_init(&readiness->tensor_left[i], TND_NOT_LOADED);
    for (uint32_t i = 0; i <= model->layer_count; i++)
        atomic_init(&readiness->layer_left[i], TND_NOT_LOADED);
    return 0;
}

/* Under mutex. event: a layer or the end, which the descriptor is for. */
static void announce(struct tnd_readiness *readiness, bool event)
{
    pthread_cond_broadcast(&readiness->changed_cond);
    readiness->event_seen = readiness->event_seen || event;
    if (event && readiness->event_fd >= 0)
        eventfd_write(readiness->event_fd, 1);
}

static bool is_first(const struct tnd_readiness *readiness, const struct tnd_tensor *tensor)
{
    return tensor->role == TND_SHARED_IN || (tensor->layer >= 0 && tensor->layer == readiness->first_layer);
}

static void tensor_ready(struct tnd_readiness *readiness, uint32_t index)
{
    const struct tnd_tensor *tensor = &readiness->plan->model->tensors[index];
    bool layer_ready;

    atomic_fetch_add(&readiness->tensors_ready, 1);
    if (is_first(readiness, tensor) && --readiness->first_left == 0)
        readiness->first_layer_ns = readiness->now_ns();
    layer_ready = atomic_fetch_sub(&readiness->layer_left[tensor->layer + 1], 1) == 1;
    /* Sequentially consistent against a waiter, who counts itself in and then looks at the counters. */
    if (layer_ready || atomic_load(&readiness->waiting)) {
        pthread_mutex_lock(&readiness->mutex);
        announce(readiness, layer_ready);
        pthread_mutex_unlock(&readiness->mutex);
    }
}

int tnd_readiness_init(struct tnd_readiness *readiness, struct tnd_plan *plan, uint64_t (*now_ns)(void),
                       struct tnd_err *err)
{
    const struct tnd_tensor *tensors = plan->model->tensors;
    pthread_condattr_t attributes;

    *readiness = (struct tnd_readiness){.plan = plan, .event_fd = -1, .first_layer = -1, .now_ns = now_ns};
    if (counters_init(readiness, plan) < 0)
        return tnd_fail(err, -ENOMEM, "no memory to keep count of %u tensors", plan->tensor_count);
    pthread_mutex_init(&readiness->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&readiness->changed_cond, &attributes);
    pthread_condattr_destroy(&attributes);
    readiness->start_ns = now_ns();

    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        const struct tnd_tensor *tensor = &tensors[plan->tensors[i]];
        atomic_uint *left = &readiness->layer_left[tensor->layer + 1];

        atomic_store(&readiness->tensor_left[plan->tensors[i]], 0);
        atomic_store(left, atomic_load(left) == TND_NOT_LOADED ? 1 : atomic_load(left) + 1);
        if (tensor->layer >= 0 && (readiness->first_layer < 0 || tensor->layer < readiness->first_layer))
            readiness->first_layer = tensor->layer;
    }
    for (uint32_t i = 0; i < plan->piece_count; i++)
        atomic_fetch_add(&readiness->tensor_left[plan->pieces[i].tensor], 1);
    for (uint32_t i = 0; i < plan->tensor_count; i++)
        readiness->first_left += is_first(readiness, &tensors[plan->tensors[i]]);
    for (uint32_t i = 0; i < plan->tensor_count; i++)
        if (!tensors[plan->tensors[i]].bytes)
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

int tnd_readiness_wait(struct tnd_readiness *readiness, const atomic_uint *left, int64_t timeout_ns)
{
    uint64_t until = tnd_now_ns() + (uint64_t)timeout_ns;
    struct timespec limit = {.tv_sec = (time_t)(until / TND_NS_PER_S), .tv_nsec = (long)(until % TND_NS_PER_S)};
    int waited = 0, r;

    pthread_mutex_lock(&readiness->mutex);
    atomic_fetch_add(&readiness->waiting, 1);
    while ((r = tnd_readiness_look(readiness, left)) == -EAGAIN && waited != ETIMEDOUT)
        waited = timeout_ns < 0 ? pthread_cond_wait(&readiness->changed_cond, &readiness->mutex)
                                : pthread_cond_timedwait(&readiness->changed_cond, &readiness->mutex, &limit);
    atomic_fetch_sub(&readiness->waiting, 1);
    pthread_mutex_unlock(&readiness->mutex);
    return r == -EAGAIN ? -ETIMEDOUT : r;
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
