/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_READINESS_H
#define TND_PIPELINE_READINESS_H

/* What of a load has arrived: counters that the driver takes down and everybody may look at or wait on. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "plan/plan.h"

#define TND_NOT_LOADED UINT32_MAX /* a counter of what is no part of this load */

struct tnd_readiness {
    const struct tnd_plan *plan;
    pthread_mutex_t mutex;
    pthread_cond_t changed_cond;
    atomic_uint waiting;      /* threads in or on their way into a wait */
    atomic_uint *tensor_left; /* [model tensor_count] pieces to come; TND_NOT_LOADED */
    atomic_uint *layer_left;  /* [1 + layer_count] tensors to come, first those of no layer; TND_NOT_LOADED */
    atomic_uint_fast64_t bytes_ready;
    atomic_uint tensors_ready;
    atomic_bool ended;
    struct tnd_err end; /* result and sentence; read once ended */
    int event_fd;       /* under mutex; -1 until somebody asks */
    bool event_seen;    /* under mutex: there was something to tell */
    uint32_t first_left; /* tensors of shared-in and the first layer to come: the driver's */
    int32_t first_layer;
    uint64_t start_ns, first_layer_ns, end_ns; /* on the load's clock; the last two 0 until then */
    uint64_t (*now_ns)(void);
};

/* Counters for a plan, with empty tensors ready at once. The arrays live in the plan's arena. -ENOMEM. */
int tnd_readiness_init(struct tnd_readiness *readiness, struct tnd_plan *plan, uint64_t (*now_ns)(void),
                       struct tnd_err *err);
void tnd_readiness_finish(struct tnd_readiness *readiness);

/* A piece of a tensor has arrived. Threads: the driver. */
void tnd_readiness_piece(struct tnd_readiness *readiness, uint32_t tensor, uint32_t bytes);
/* Nothing will touch the destination any more. Threads: the driver, once; the load may be gone when it returns. */
void tnd_readiness_end(struct tnd_readiness *readiness, const struct tnd_err *end);

/* A counter to wait on: 0 when it is down, -EAGAIN, or what ended the load before it got there. */
int tnd_readiness_look(const struct tnd_readiness *readiness, const atomic_uint *left);
/* The same, waiting; left NULL waits for the end and returns its result. timeout_ns > 0, or < 0 for no limit.
 * -ETIMEDOUT. */
int tnd_readiness_wait(struct tnd_readiness *readiness, const atomic_uint *left, int64_t timeout_ns);
/* -ENOMEM when the system has no descriptor. */
int tnd_readiness_event_fd(struct tnd_readiness *readiness);

#endif
