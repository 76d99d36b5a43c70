/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PLAN_RESIDENCY_H
#define TND_PLAN_RESIDENCY_H

/* Which layer is fetched next, and which one leaves for it. Pure: told of uses and of fetches, and what time it is.
 *
 * A consumer uses layers in an order, over and over. Fetched is first what somebody asked for, then what was hinted
 * at, then what comes next in that order, up to `ahead` layers. In a window, which has room for some layers only, that
 * takes the place of the layer whose next use is farthest (Belady, "A study of replacement algorithms for a
 * virtual-storage computer", 1966), and of none that is used sooner than what is fetched for it. In a cyclic order of N
 * layers, W of them in the window and a ahead, that reads N - W layers again in N - 1 - a uses, where oldest-first
 * would read all of them.
 *
 * Stages are the plan's: shared-in, the layers, shared-out. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "plan/layout.h"
#include "plan/plan.h"

#define TND_STAGE_NONE UINT32_MAX
#define TND_SLOT_NONE UINT32_MAX

enum tnd_stage_state {
    TND_STAGE_OUTSIDE,  /* no tensor of it is part of this load */
    TND_STAGE_ABSENT,
    TND_STAGE_FETCHING,
    TND_STAGE_RESIDENT,
    TND_STAGE_FAILED,   /* until somebody has been told */
};

/* A use that was refused at first, as its layer was not there. */
struct tnd_refusal {
    bool refused;
    bool late; /* the layer was being fetched ahead */
    uint64_t since_ns;
};

/* Stages that somebody wishes for, in the order in which that was said. */
enum tnd_wish {
    TND_WISH_DEMAND, /* somebody needs it now */
    TND_WISH_HINT,   /* somebody will, next */
    TND_WISH_COUNT
};

struct tnd_stage_use {
    enum tnd_stage_state state;
    bool unissued;   /* FETCHING: there are reads of it to begin */
    bool asked;      /* ABSENT: an acquire found it so */
    bool prefetched; /* FETCHING, RESIDENT: begun before an acquire asked */
    bool marked;     /* FETCHING, RESIDENT: a device's queue can wait for it */
    bool returned;   /* it had been there before */
    bool pinned;
    bool wished[TND_WISH_COUNT];           /* ABSENT, or unissued */
    uint32_t wished_before[TND_WISH_COUNT], wished_behind[TND_WISH_COUNT]; /* its neighbours in that queue */
    uint32_t slot;   /* TND_SLOT_NONE: it has a place of its own, or none now */
    uint32_t acquired;
    uint32_t waiting; /* threads */
    uint32_t seen;   /* by the last walk along the order */
    uint64_t refusals; /* RESIDENT: the residency's when it came */
    uint64_t kept_until; /* acquires: until there are so many it is expected to be taken, and stays for that */
    uint64_t begun_ns;
    struct tnd_refusal polled; /* while it is kept: of callers that do not wait, but come again */
    struct tnd_err *err; /* FAILED: why */
};

struct tnd_residency {
    const struct tnd_plan *plan;
    struct tnd_stage_use *stages; /* [stage_count] */
    uint32_t stage_count;
    uint32_t *order; /* [order_count] stages */
    uint32_t order_count;
    uint32_t next;   /* where in the order the next use is expected */
    uint32_t settled; /* so many from there on want no reads begun … */
    uint32_t settled_stages; /* … and so many of stages, from the first */
    enum tnd_lazy lazy;
    bool by_layer; /* stages are fetched one by one; else all are on their way from the start */
    bool begun;    /* a layer was acquired */
    uint32_t selected, resident, failed; /* stages of the load; of them there; of them FAILED */
    uint32_t unissued; /* stages that are */
    uint32_t wish_first[TND_WISH_COUNT], wish_last[TND_WISH_COUNT];
    uint64_t refusals; /* acquires of what was not there */
    uint32_t walks;

    uint32_t slot_count; /* 0: no window */
    uint32_t *free_slots;
    uint32_t free_count;

    uint32_t ahead;
    bool ahead_given;
    uint64_t compute_ns, read_ns; /* of a layer: running means; 0: not known yet */
    uint64_t acquired_ns, fetched_ns; /* when that last happened to a layer */
    uint32_t acquired_last;

    struct tnd_layer_stats stats;
};

/* What a driver is to read of. */
struct tnd_pick {
    uint32_t stage;
    bool begins;      /* it was ABSENT, and is FETCHING now, in stages[stage].slot */
    uint32_t evicted; /* begins: whose slot that was; TND_STAGE_NONE when it was free */
};

/* -EINVAL for an order with a layer that is not part of the load. */
int tnd_residency_check_order(const struct tnd_plan *plan, const struct tnd_load_options *options,
                              struct tnd_err *err);
/* Arrays live in the plan's arena. options: order, lazy and ahead. -EINVAL as above, -ENOMEM. */
int tnd_residency_init(struct tnd_residency *residency, struct tnd_plan *plan, const struct tnd_load_options *options,
                       struct tnd_err *err);
/* The window is laid out: how many layers it holds. -ENOMEM. */
int tnd_residency_set_slots(struct tnd_residency *residency, struct tnd_plan *plan, uint32_t slot_count,
                            struct tnd_err *err);

/* ---- The consumer's side ---- */

/* Takes a stage for use, by a device's queue as soon as it is marked. 1: it is there; 0: not yet, it is asked for now;
 * negative: it FAILED, ret_err has the sentence, and it may be asked for again. -EINVAL when all of the window is
 * pinned. refusal: the caller's, zero at its first try; NULL: it polls, and may never come again. */
int tnd_residency_acquire(struct tnd_residency *residency, uint32_t stage, bool marked, struct tnd_refusal *refusal,
                          uint64_t now_ns, struct tnd_err *ret_err);
/* A caller that was refused waits no longer; when it comes again soon that is the same use. */
void tnd_residency_stop_waiting(struct tnd_residency *residency, uint32_t stage, const struct tnd_refusal *refusal);
/* Asks for a stage that is not there. */
void tnd_residency_demand(struct tnd_residency *residency, uint32_t stage);
/* A stage will be asked for soon: it is fetched before what comes next in the order, and kept for a turn of it. */
void tnd_residency_hint(struct tnd_residency *residency, uint32_t stage);
/* Asks for all of them, in the order of use. */
void tnd_residency_demand_all(struct tnd_residency *residency);
/* Tells a failure once: that of a stage, or of any when stage is TND_STAGE_NONE. False when there is none. */
bool tnd_residency_take_failure(struct tnd_residency *residency, uint32_t stage, struct tnd_err *ret_err);
/* Whether something is left that a driver could fetch, now or when more is released. */
bool tnd_residency_wants(const struct tnd_residency *residency);

/* ---- The driver's side ---- */

/* The stage to read of next; false when there is none now. */
bool tnd_residency_pick(struct tnd_residency *residency, uint64_t now_ns, struct tnd_pick *ret_pick);
/* The last read of a stage has begun. */
void tnd_residency_issued(struct tnd_residency *residency, uint32_t stage);
/* All of a stage has arrived. */
void tnd_residency_fetched(struct tnd_residency *residency, uint32_t stage, uint64_t now_ns);
/* A stage will not arrive; stages[stage].err says why. */
void tnd_residency_failed(struct tnd_residency *residency, uint32_t stage);

#endif
