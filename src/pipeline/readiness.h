/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_READINESS_H
#define TND_PIPELINE_READINESS_H

/* What of a load has arrived: counters that the driver takes down and everybody may look at or wait on. With a window
 * it puts those of a layer up again that has left. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "plan/plan.h"
#include "plan/residency.h"

#define TND_NOT_LOADED UINT32_MAX /* a counter of what is no part of this load */

struct tnd_readiness {
    const struct tnd_plan *plan;
    pthread_mutex_t mutex;
    pthread_cond_t changed_cond;
    uint32_t changes;         /* under mutex: how often something was announced */
    atomic_uint waiting;      /* threads in or on their way into a wait */
    struct tnd_residency residency; /* under mutex: who wants what, and what is fetched for it */
    atomic_uint *tensor_left; /* [model tensor_count] pieces to come; TND_NOT_LOADED */
    atomic_uint *stage_left;  /* [plan stage_count] tensors to come; TND_NOT_LOADED */
    uint32_t *tensor_pieces;  /* [model tensor_count] */
    atomic_uint_fast64_t bytes_ready;
    atomic_uint tensors_ready;
    atomic_bool ended;
    struct tnd_err end; /* result and sentence; read once ended */
    int event_fd;       /* under mutex; -1 until somebody asks */
    bool event_seen;    /* under mutex: there was something to tell */
    atomic_uint_fast64_t first_layer_ns; /* on the load's clock, as the others; 0 until then */
    uint64_t start_ns, end_ns;
    uint64_t (*now_ns)(void);
};

/* Counters for a plan, with empty tensors ready at once. The arrays live in the plan's arena. options: order, lazy and
 * ahead. -EINVAL, -ENOMEM. */
int tnd_readiness_init(struct tnd_readiness *readiness, struct tnd_plan *plan, const struct tnd_load_options *options,
                       uint64_t (*now_ns)(void), struct tnd_err *err);
void tnd_readiness_finish(struct tnd_readiness *readiness);

/* A piece of a tensor has arrived. Threads: the driver. */
void tnd_readiness_piece(struct tnd_readiness *readiness, uint32_t tensor, uint32_t bytes);
/* A stage has left, or what came of it is worth nothing: bytes_arrived of it. Threads: the driver. */
void tnd_readiness_forget(struct tnd_readiness *readiness, uint32_t stage, uint64_t bytes_arrived);
/* All of a stage is in the device's queues, and its event marked. Threads: the driver. */
void tnd_readiness_mark(struct tnd_readiness *readiness, uint32_t stage);
/* A stage will not arrive; its err says why. Threads: the driver. */
void tnd_readiness_fail(struct tnd_readiness *readiness, uint32_t stage);
/* Nothing will touch the destination any more. Threads: the driver, once; the load may be gone when it returns. */
void tnd_readiness_end(struct tnd_readiness *readiness, const struct tnd_err *end);

/* A counter: 0 when it is down, -EAGAIN, or what ended the load before it got there. left NULL: the end. */
int tnd_readiness_look(const struct tnd_readiness *readiness, const atomic_uint *left);
/* Under mutex: waits until something is announced. False when it is until_ns on the monotonic clock (UINT64_MAX: no
 * limit). Whoever waits counts itself in `waiting` before it looks. */
bool tnd_readiness_wait(struct tnd_readiness *readiness, uint64_t until_ns);
/* Under mutex: those who wait look again. */
void tnd_readiness_stir(struct tnd_readiness *readiness);
/* -ENOMEM when the system has no descriptor. */
int tnd_readiness_event_fd(struct tnd_readiness *readiness);

#endif
