/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/residency.h"

#include <errno.h>

#include "base/bytes.h"
#include "model/model.h"

#define AHEAD_DEFAULT 2
#define MEAN_WEIGHT 4 /* a new value counts for a quarter */

static uint32_t last_stage(const struct tnd_residency *residency)
{
    return residency->stage_count - 1;
}

static bool is_layer(const struct tnd_residency *residency, uint32_t stage)
{
    return stage > 0 && stage < last_stage(residency);
}

/* ---- Start ------------------------------------------------------------------------------------------------- */

static int make_order(struct tnd_residency *residency, struct tnd_plan *plan, const struct tnd_load_options *options,
                      struct tnd_err *err)
{
    uint32_t count = options->layer_order ? options->layer_order_count : plan->sizes.layer_count;

    residency->order = tnd_arena_alloc(&plan->arena, count + 1u, sizeof(*residency->order));
    if (!residency->order)
        return tnd_fail(err, -ENOMEM, "no memory for an order of %u layers", count);
    for (uint32_t i = 0; i < options->layer_order_count && options->layer_order; i++) {
        uint32_t layer = options->layer_order[i];

        if (layer >= plan->model->layer_count || !plan->stages[1 + layer].tensor_count)
            return tnd_fail(err, -EINVAL, "layer_order names layer %u, which is not part of this load", layer);
        residency->order[residency->order_count++] = 1 + layer;
    }
    for (uint32_t stage = 1; stage < last_stage(residency) && !options->layer_order; stage++)
        if (plan->stages[stage].tensor_count)
            residency->order[residency->order_count++] = stage;
    return 0;
}

static void limit_ahead(struct tnd_residency *residency)
{
    uint32_t room = residency->slot_count ? residency->slot_count : residency->order_count;

    residency->ahead = (uint32_t)tnd_min(residency->ahead, room ? room - 1 : 0);
}

int tnd_residency_init(struct tnd_residency *residency, struct tnd_plan *plan, const struct tnd_load_options *options,
                       struct tnd_err *err)
{
    int r;

    *residency = (struct tnd_residency){
        .plan = plan,
        .stage_count = plan->stage_count,
        .lazy = options->lazy,
        .by_layer = plan->by_layer,
        .ahead = options->ahead ? options->ahead : AHEAD_DEFAULT,
        .ahead_given = options->ahead != 0,
        .acquired_last = TND_STAGE_NONE,
    };
    if (options->ahead == TND_AHEAD_NONE)
        residency->ahead = 0;
    residency->stages = tnd_arena_alloc(&plan->arena, residency->stage_count, sizeof(*residency->stages));
    if (!residency->stages)
        return tnd_fail(err, -ENOMEM, "no memory to keep count of %u layers", residency->stage_count);
    r = make_order(residency, plan, options, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < residency->stage_count; i++) {
        struct tnd_stage_use *stage = &residency->stages[i];

        stage->slot = TND_SLOT_NONE;
        if (!plan->stages[i].tensor_count)
            continue;
        residency->selected++;
        stage->state = plan->by_layer ? TND_STAGE_ABSENT : TND_STAGE_FETCHING;
        stage->prefetched = !plan->by_layer;
    }
    residency->stats.layers = residency->stats.resident_layers = plan->sizes.layer_count;
    residency->stats.shared_bytes = plan->sizes.shared_bytes;
    /* Nothing is computed before these are there: who waits for them waits for a synchronous load. */
    if (residency->stages[0].state)
        tnd_residency_demand(residency, 0);
    if (residency->order_count) {
        residency->stages[residency->order[0]].prefetched = false;
        tnd_residency_demand(residency, residency->order[0]);
    }
    limit_ahead(residency);
    return 0;
}

int tnd_residency_set_slots(struct tnd_residency *residency, struct tnd_plan *plan, uint32_t slot_count,
                            struct tnd_err *err)
{
    residency->stats.resident_layers = slot_count;
    residency->stats.resident_bytes = plan->sizes.resident_bytes;
    residency->free_slots = tnd_arena_alloc(&plan->arena, slot_count, sizeof(*residency->free_slots));
    if (!residency->free_slots)
        return tnd_fail(err, -ENOMEM, "no memory for a window of %u layers", slot_count);
    for (uint32_t i = slot_count; i-- > 0;)
        residency->free_slots[residency->free_count++] = i;
    residency->slot_count = slot_count;
    limit_ahead(residency);
    return 0;
}

/* ---- The consumer's side ----------------------------------------------------------------------------------- */

static void mean_add(uint64_t *mean, uint64_t value)
{
    *mean = *mean ? *mean - *mean / MEAN_WEIGHT + value / MEAN_WEIGHT : value;
}

/* How far ahead to fetch, by what a layer takes to read (R) and to compute (C). Where R <= C the default hides the
 * reads. Where reading is what takes long the disk must never rest: while the consumer passes through the W - a layers
 * of the window that stayed, in (W - a) C, the a places ahead take a R to fill; no rest from a = W C / (R + C) on. */
static void adapt_ahead(struct tnd_residency *residency)
{
    uint64_t compute = residency->compute_ns, read = residency->read_ns;

    if (residency->ahead_given || !residency->slot_count)
        return;
    residency->ahead = AHEAD_DEFAULT;
    if (read > compute)
        residency->ahead = (uint32_t)tnd_max(
            AHEAD_DEFAULT, ((uint64_t)residency->slot_count * compute + read + compute - 1) / (read + compute));
    limit_ahead(residency);
}

/* The consumer is at this layer: what comes behind it in the order is expected next. */
static void move_to(struct tnd_residency *residency, uint32_t stage)
{
    for (uint32_t i = 0; i < residency->order_count; i++) {
        uint32_t at = (residency->next + i) % residency->order_count;

        if (residency->order[at] == stage) {
            residency->next = (at + 1) % residency->order_count;
            return;
        }
    }
}

static void learn_compute(struct tnd_residency *residency, uint32_t stage, uint64_t now_ns)
{
    if (residency->begun && residency->acquired_last != stage) {
        mean_add(&residency->compute_ns, now_ns - residency->acquired_ns);
        adapt_ahead(residency);
    }
}

void tnd_residency_demand(struct tnd_residency *residency, uint32_t stage)
{
    struct tnd_stage_use *use = &residency->stages[stage];

    if ((use->state == TND_STAGE_ABSENT || use->state == TND_STAGE_FETCHING) && !use->demand)
        use->demand = ++residency->demands;
}

void tnd_residency_demand_all(struct tnd_residency *residency)
{
    if (residency->lazy == TND_LAZY_DEMAND)
        residency->lazy = TND_LAZY_BACKGROUND;
}

bool tnd_residency_take_failure(struct tnd_residency *residency, uint32_t stage, struct tnd_err *ret_err)
{
    for (uint32_t i = 0; i < residency->stage_count && residency->failed && stage == TND_STAGE_NONE; i++)
        if (residency->stages[i].state == TND_STAGE_FAILED)
            stage = i;
    if (stage == TND_STAGE_NONE || residency->stages[stage].state != TND_STAGE_FAILED)
        return false;
    residency->stages[stage].state = TND_STAGE_ABSENT;
    residency->failed--;
    *ret_err = *residency->stages[stage].err;
    return true;
}

static bool all_pinned(const struct tnd_residency *residency)
{
    uint32_t pinned = 0;

    for (uint32_t i = 1; i < last_stage(residency); i++)
        pinned += residency->stages[i].pinned && residency->stages[i].slot != TND_SLOT_NONE;
    return residency->slot_count && pinned == residency->slot_count;
}

static void count_acquire(struct tnd_residency *residency, const struct tnd_refusal *refusal, uint64_t now_ns)
{
    struct tnd_layer_stats *stats = &residency->stats;

    stats->acquires++;
    if (refusal->refused)
        stats->stalled_ns += now_ns - refusal->since_ns;
    *(!refusal->refused ? &stats->hits : refusal->late ? &stats->late_hits : &stats->sync_loads) += 1;
}

int tnd_residency_acquire(struct tnd_residency *residency, uint32_t stage, bool marked, struct tnd_refusal *refusal,
                          uint64_t now_ns, struct tnd_err *ret_err)
{
    struct tnd_stage_use *use = &residency->stages[stage];
    bool layer = is_layer(residency, stage);

    if (!refusal)
        refusal = &use->polled;
    if (layer && !refusal->refused) {
        learn_compute(residency, stage, now_ns);
        move_to(residency, stage);
    }
    if (use->state == TND_STAGE_RESIDENT || (use->state == TND_STAGE_FETCHING && marked && use->marked)) {
        if (layer) {
            count_acquire(residency, refusal, now_ns);
            residency->begun = true;
            residency->acquired_ns = now_ns;
            residency->acquired_last = stage;
        }
        refusal->refused = false;
        use->acquired++;
        return 1;
    }
    if (tnd_residency_take_failure(residency, stage, ret_err)) {
        refusal->refused = false;
        return ret_err->result;
    }
    if (use->state == TND_STAGE_ABSENT && layer && all_pinned(residency))
        return tnd_fail(ret_err, -EINVAL, "layer %u has no room: all %u layers in the window are pinned", stage - 1,
                        residency->slot_count);
    if (!refusal->refused)
        *refusal = (struct tnd_refusal){
            .refused = true,
            .late = use->state == TND_STAGE_FETCHING && use->prefetched,
            .since_ns = now_ns,
        };
    residency->refusals++;
    tnd_residency_demand(residency, stage);
    return 0;
}

bool tnd_residency_wants(const struct tnd_residency *residency)
{
    return residency->slot_count || residency->resident < residency->selected;
}

/* ---- The driver's side ------------------------------------------------------------------------------------- */

/* Whether a layer may leave. One that was polled for and not taken since leaves only for another that was asked for,
 * and not before somebody has asked in vain since it came: two that poll for the same place would else never see
 * theirs. */
static bool may_leave(const struct tnd_residency *residency, const struct tnd_stage_use *use, bool demanded)
{
    return use->state == TND_STAGE_RESIDENT && use->slot != TND_SLOT_NONE && !use->acquired && !use->waiting &&
           !use->pinned && (!use->polled.refused || (demanded && use->refusals != residency->refusals));
}

/* The layer to leave for one whose use is `distance` places away: the one whose next use is farthest, and farther than
 * that. Those that are not in the order are never used again. */
static uint32_t choose_victim(struct tnd_residency *residency, uint32_t distance, bool demanded)
{
    uint32_t victim = TND_STAGE_NONE, walk = ++residency->walks;

    for (uint32_t i = 0; i < residency->order_count; i++) {
        uint32_t stage = residency->order[(residency->next + i) % residency->order_count];
        struct tnd_stage_use *use = &residency->stages[stage];

        if (use->seen == walk)
            continue;
        use->seen = walk;
        if (may_leave(residency, use, demanded) && (demanded || i > distance) &&
            (victim == TND_STAGE_NONE || !use->polled.refused))
            victim = stage;
    }
    for (uint32_t stage = 1; stage < last_stage(residency); stage++)
        if (residency->stages[stage].seen != walk && may_leave(residency, &residency->stages[stage], demanded))
            victim = stage;
    return victim;
}

/* Makes an ABSENT stage FETCHING when there is room for it. */
static bool begin(struct tnd_residency *residency, uint32_t stage, uint32_t distance, uint64_t now_ns,
                  struct tnd_pick *ret_pick)
{
    struct tnd_stage_use *use = &residency->stages[stage];
    uint32_t victim = TND_STAGE_NONE;

    if (residency->slot_count && is_layer(residency, stage)) {
        if (!residency->free_count) {
            victim = choose_victim(residency, distance, use->demand != 0);
            if (victim == TND_STAGE_NONE)
                return false;
            use->slot = residency->stages[victim].slot;
            residency->stages[victim].slot = TND_SLOT_NONE;
            residency->stages[victim].state = TND_STAGE_ABSENT;
            residency->resident--;
        } else {
            use->slot = residency->free_slots[--residency->free_count];
        }
    }
    use->state = TND_STAGE_FETCHING;
    use->unissued = true;
    use->marked = false;
    use->prefetched = !use->demand;
    use->begun_ns = now_ns;
    *ret_pick = (struct tnd_pick){.stage = stage, .begins = true, .evicted = victim};
    return true;
}

/* Whether a stage is to be read of now, and is made ready for that. */
static bool take(struct tnd_residency *residency, uint32_t stage, uint32_t distance, bool allowed, uint64_t now_ns,
                 struct tnd_pick *ret_pick)
{
    struct tnd_stage_use *use = &residency->stages[stage];

    if (use->state == TND_STAGE_FETCHING && use->unissued) {
        *ret_pick = (struct tnd_pick){.stage = stage, .evicted = TND_STAGE_NONE};
        return true;
    }
    return use->state == TND_STAGE_ABSENT && allowed && begin(residency, stage, distance, now_ns, ret_pick);
}

/* What was asked for, first come first served; one that finds no room does not hold up the others. */
static bool pick_demanded(struct tnd_residency *residency, uint64_t now_ns, struct tnd_pick *ret_pick)
{
    uint64_t after = 0;

    for (;;) {
        uint32_t first = TND_STAGE_NONE;

        for (uint32_t i = 0; i < residency->stage_count; i++) {
            const struct tnd_stage_use *use = &residency->stages[i];

            if (use->demand > after && (use->state == TND_STAGE_ABSENT || use->unissued) &&
                (first == TND_STAGE_NONE || use->demand < residency->stages[first].demand))
                first = i;
        }
        if (first == TND_STAGE_NONE)
            return false;
        if (take(residency, first, 0, true, now_ns, ret_pick))
            return true;
        after = residency->stages[first].demand;
    }
}

/* Whether a layer `distance` places behind the next one is to be fetched unasked. */
static bool is_due(const struct tnd_residency *residency, uint32_t distance)
{
    if (residency->lazy == TND_LAZY_DEMAND)
        return residency->begun && distance < residency->ahead;
    if (!residency->slot_count)
        return true;
    return distance < residency->ahead || (residency->ahead && residency->free_count);
}

/* What comes next in the order; shared-out follows the last layer. */
static bool pick_next(struct tnd_residency *residency, uint64_t now_ns, struct tnd_pick *ret_pick)
{
    uint32_t to_end = residency->order_count - residency->next;

    for (uint32_t i = 0; i <= residency->order_count; i++) {
        /* Its place is its own: it waits for nobody to leave. */
        bool out_due = residency->lazy != TND_LAZY_DEMAND || is_due(residency, i);

        if (i == to_end && take(residency, last_stage(residency), i, out_due, now_ns, ret_pick))
            return true;
        if (i < residency->order_count &&
            take(residency, residency->order[(residency->next + i) % residency->order_count], i,
                 is_due(residency, i), now_ns, ret_pick))
            return true;
    }
    return false;
}

bool tnd_residency_pick(struct tnd_residency *residency, uint64_t now_ns, struct tnd_pick *ret_pick)
{
    if (!residency->by_layer)
        return false;
    if (pick_demanded(residency, now_ns, ret_pick) || pick_next(residency, now_ns, ret_pick))
        return true;
    for (uint32_t i = 0; i < residency->stage_count; i++) { /* what the order leaves out */
        bool due = residency->lazy != TND_LAZY_DEMAND && (!residency->slot_count || !is_layer(residency, i));

        if (take(residency, i, residency->order_count, due, now_ns, ret_pick))
            return true;
    }
    return false;
}

void tnd_residency_fetched(struct tnd_residency *residency, uint32_t stage, uint64_t now_ns)
{
    struct tnd_stage_use *use = &residency->stages[stage];
    uint64_t bytes = residency->plan->stages[stage].bytes;

    use->state = TND_STAGE_RESIDENT;
    use->refusals = residency->refusals;
    use->demand = 0;
    residency->resident++;
    if (!bytes) /* it was there from the start */
        return;
    residency->stats.fetches++;
    residency->stats.bytes_fetched += bytes;
    residency->stats.bytes_reread += use->returned ? bytes : 0;
    use->returned = true;
    if (is_layer(residency, stage)) {
        mean_add(&residency->read_ns, now_ns - tnd_max(use->begun_ns, residency->fetched_ns));
        residency->fetched_ns = now_ns;
    }
}

void tnd_residency_failed(struct tnd_residency *residency, uint32_t stage)
{
    struct tnd_stage_use *use = &residency->stages[stage];

    use->state = TND_STAGE_FAILED;
    use->unissued = false;
    use->demand = 0;
    residency->failed++;
    if (use->slot != TND_SLOT_NONE)
        residency->free_slots[residency->free_count++] = use->slot;
    use->slot = TND_SLOT_NONE;
}
