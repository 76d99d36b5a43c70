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

/* ---- Wishes ------------------------------------------------------------------------------------------------ */

static void wish(struct tnd_residency *residency, enum tnd_wish wish, uint32_t stage)
{
    struct tnd_stage_use *use = &residency->stages[stage];
    uint32_t last = residency->wish_last[wish];

    if (use->wished[wish] || (use->state != TND_STAGE_ABSENT && !use->unissued))
        return;
    use->wished[wish] = true;
    use->wished_before[wish] = last;
    use->wished_behind[wish] = TND_STAGE_NONE;
    *(last == TND_STAGE_NONE ? &residency->wish_first[wish] : &residency->stages[last].wished_behind[wish]) = stage;
    residency->wish_last[wish] = stage;
}

static void unwish(struct tnd_residency *residency, uint32_t stage)
{
    struct tnd_stage_use *stages = residency->stages, *use = &stages[stage];

    for (int w = 0; w < TND_WISH_COUNT; w++) {
        uint32_t before = use->wished_before[w], behind = use->wished_behind[w];

        if (!use->wished[w])
            continue;
        use->wished[w] = false;
        *(before == TND_STAGE_NONE ? &residency->wish_first[w] : &stages[before].wished_behind[w]) = behind;
        *(behind == TND_STAGE_NONE ? &residency->wish_last[w] : &stages[behind].wished_before[w]) = before;
    }
}

/* Until the consumer has been through the order once, or has taken it. */
static void keep(struct tnd_residency *residency, struct tnd_stage_use *use)
{
    use->kept_until = residency->stats.acquires + tnd_max(1, residency->order_count);
}

static bool is_kept(const struct tnd_residency *residency, const struct tnd_stage_use *use)
{
    return use->kept_until > residency->stats.acquires;
}

/* A stage that wanted no reads may want them now. */
static void unsettle(struct tnd_residency *residency)
{
    residency->settled = residency->settled_stages = 0;
}

/* ---- Start ------------------------------------------------------------------------------------------------- */

int tnd_residency_check_order(const struct tnd_plan *plan, const struct tnd_load_options *options,
                              struct tnd_err *err)
{
    for (uint32_t i = 0; i < options->layer_order_count; i++) {
        uint32_t layer = options->layer_order[i];

        if (layer >= plan->model->layer_count || !plan->stages[1 + layer].tensor_count)
            return tnd_fail(err, -EINVAL, "layer_order names layer %u, which is not part of this load", layer);
    }
    return 0;
}

static int make_order(struct tnd_residency *residency, struct tnd_plan *plan, const struct tnd_load_options *options,
                      struct tnd_err *err)
{
    uint32_t count = options->layer_order ? options->layer_order_count : plan->sizes.layer_count;
    int r = tnd_residency_check_order(plan, options, err);

    if (r < 0)
        return r;
    residency->order = tnd_arena_alloc(&plan->arena, (size_t)count + 1, sizeof(*residency->order));
    if (!residency->order)
        return tnd_fail(err, -ENOMEM, "no memory for an order of %u layers", count);
    for (uint32_t i = 0; i < options->layer_order_count; i++)
        residency->order[residency->order_count++] = 1 + options->layer_order[i];
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
        .wish_first = {TND_STAGE_NONE, TND_STAGE_NONE},
        .wish_last = {TND_STAGE_NONE, TND_STAGE_NONE},
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
        residency->stages[residency->order[0]].asked = true;
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
            residency->settled -= (uint32_t)tnd_min(residency->settled, i + 1);
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
    wish(residency, TND_WISH_DEMAND, stage);
}

void tnd_residency_hint(struct tnd_residency *residency, uint32_t stage)
{
    wish(residency, TND_WISH_HINT, stage);
    keep(residency, &residency->stages[stage]);
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
    unsettle(residency);
    *ret_err = *residency->stages[stage].err;
    return true;
}

static bool all_pinned(const struct tnd_residency *residency)
{
    uint32_t pinned = 0;

    for (uint32_t i = 1; i < last_stage(residency) && residency->slot_count; i++)
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
    bool layer = is_layer(residency, stage), polls = !refusal;

    use->polled.refused = use->polled.refused && is_kept(residency, use);
    if (polls)
        refusal = &use->polled;
    else if (!refusal->refused)
        *refusal = use->polled; /* who polled, or waited too shortly, waits now */
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
        refusal->refused = use->polled.refused = false;
        use->kept_until = 0;
        use->acquired++;
        return 1;
    }
    if (tnd_residency_take_failure(residency, stage, ret_err)) {
        refusal->refused = use->polled.refused = false;
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
    if (polls)
        keep(residency, use);
    use->asked = use->state == TND_STAGE_ABSENT;
    residency->refusals++;
    tnd_residency_demand(residency, stage);
    return 0;
}

void tnd_residency_stop_waiting(struct tnd_residency *residency, uint32_t stage, const struct tnd_refusal *refusal)
{
    if (!refusal->refused)
        return;
    residency->stages[stage].polled = *refusal;
    keep(residency, &residency->stages[stage]);
}

bool tnd_residency_wants(const struct tnd_residency *residency)
{
    return residency->slot_count || residency->resident < residency->selected;
}

/* ---- The driver's side ------------------------------------------------------------------------------------- */

/* A pick under way, and the layer that would leave for what it begins. */
struct picking {
    struct tnd_residency *residency;
    uint64_t now_ns;
    struct tnd_pick *pick;
    struct {
        bool searched;
        uint32_t stage, distance;
    } victims[2]; /* for what nobody asked for, for what somebody did */
};

/* Whether a layer may leave. One that is kept leaves only for another that was asked for, and not before somebody has
 * asked in vain since it came: two that poll for the same place would else never see theirs. */
static bool may_leave(const struct tnd_residency *residency, const struct tnd_stage_use *use, bool demanded)
{
    return use->state == TND_STAGE_RESIDENT && use->slot != TND_SLOT_NONE && !use->acquired && !use->waiting &&
           !use->pinned && (!is_kept(residency, use) || (demanded && use->refusals != residency->refusals));
}

/* The layer whose next use is farthest, of those that are kept only where there is no other. Those that are not in the
 * order are never used again. */
static void find_victim(struct picking *picking, bool demanded)
{
    struct tnd_residency *residency = picking->residency;
    uint32_t victim = TND_STAGE_NONE, walk = ++residency->walks;

    picking->victims[demanded].searched = true;
    for (uint32_t i = 0; i < residency->order_count; i++) {
        uint32_t stage = residency->order[(residency->next + i) % residency->order_count];
        struct tnd_stage_use *use = &residency->stages[stage];

        if (use->seen == walk)
            continue;
        use->seen = walk;
        if (may_leave(residency, use, demanded) && (victim == TND_STAGE_NONE || !is_kept(residency, use))) {
            victim = stage;
            picking->victims[demanded].distance = i;
        }
    }
    for (uint32_t stage = 1; stage < last_stage(residency); stage++)
        if (residency->stages[stage].seen != walk && may_leave(residency, &residency->stages[stage], demanded)) {
            victim = stage;
            picking->victims[demanded].distance = UINT32_MAX;
        }
    picking->victims[demanded].stage = victim;
}

/* Gives a layer that is used `distance` places from now a slot: a free one, or that of one that is used later. */
static bool find_slot(struct picking *picking, struct tnd_stage_use *use, uint32_t distance, bool demanded)
{
    struct tnd_residency *residency = picking->residency;
    struct tnd_stage_use *victim;

    if (residency->free_count) {
        use->slot = residency->free_slots[--residency->free_count];
        return true;
    }
    if (!picking->victims[demanded].searched)
        find_victim(picking, demanded);
    if (picking->victims[demanded].stage == TND_STAGE_NONE ||
        (!demanded && picking->victims[demanded].distance <= distance))
        return false;
    picking->pick->evicted = picking->victims[demanded].stage;
    victim = &residency->stages[picking->pick->evicted];
    use->slot = victim->slot;
    victim->slot = TND_SLOT_NONE;
    victim->state = TND_STAGE_ABSENT;
    residency->resident--;
    unsettle(residency);
    return true;
}

/* Makes an ABSENT stage FETCHING when there is room for it. */
static bool begin(struct picking *picking, uint32_t stage, uint32_t distance, bool demanded)
{
    struct tnd_residency *residency = picking->residency;
    struct tnd_stage_use *use = &residency->stages[stage];

    if (residency->slot_count && is_layer(residency, stage) && !find_slot(picking, use, distance, demanded))
        return false;
    use->state = TND_STAGE_FETCHING;
    use->unissued = true;
    residency->unissued++;
    use->marked = false;
    use->prefetched = !use->asked;
    use->asked = false;
    use->begun_ns = picking->now_ns;
    picking->pick->stage = stage;
    picking->pick->begins = true;
    return true;
}

static bool is_settled(const struct tnd_stage_use *use)
{
    return use->state != TND_STAGE_ABSENT && !use->unissued;
}

/* Whether a stage is to be read of now, and is made ready for that. */
static bool take(struct picking *picking, uint32_t stage, uint32_t distance, bool demanded)
{
    const struct tnd_stage_use *use = &picking->residency->stages[stage];

    if (use->unissued) {
        picking->pick->stage = stage;
        return true;
    }
    return use->state == TND_STAGE_ABSENT && begin(picking, stage, distance, demanded);
}

/* First come first served; one that finds no room does not hold up the others. */
static bool take_wished(struct picking *picking, enum tnd_wish wish)
{
    const struct tnd_residency *residency = picking->residency;

    for (uint32_t stage = residency->wish_first[wish]; stage != TND_STAGE_NONE;
         stage = residency->stages[stage].wished_behind[wish])
        if (take(picking, stage, 0, wish == TND_WISH_DEMAND))
            return true;
    return false;
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

/* How far from the next layer shared-out is, which follows the last one. */
static uint32_t distance_of_out(const struct tnd_residency *residency)
{
    return residency->next || !residency->begun ? residency->order_count - residency->next : 0;
}

/* What comes next in the order. */
static bool take_next(struct picking *picking)
{
    struct tnd_residency *residency = picking->residency;
    uint32_t out = last_stage(residency), out_distance = distance_of_out(residency);

    for (uint32_t i = residency->settled; i < residency->order_count && is_due(residency, i); i++) {
        uint32_t stage = residency->order[(residency->next + i) % residency->order_count];

        if (i == out_distance && take(picking, out, i, false))
            return true;
        if (take(picking, stage, i, false))
            return true;
        if (i == residency->settled && is_settled(&residency->stages[stage]))
            residency->settled++;
    }
    /* Its place is its own: it waits for nobody to leave. */
    return (residency->lazy != TND_LAZY_DEMAND || is_due(residency, out_distance)) &&
           take(picking, out, out_distance, false);
}

/* What was begun and is not due any more, and what the order leaves out. */
static bool take_rest(struct picking *picking)
{
    struct tnd_residency *residency = picking->residency;

    for (uint32_t i = 0; i < residency->stage_count && residency->unissued; i++)
        if (residency->stages[i].unissued && take(picking, i, 0, false))
            return true;
    if (residency->lazy == TND_LAZY_DEMAND)
        return false;
    if (residency->slot_count)
        return take(picking, 0, 0, false);
    while (residency->settled_stages < residency->stage_count) {
        if (take(picking, residency->settled_stages, 0, false))
            return true;
        residency->settled_stages++;
    }
    return false;
}

bool tnd_residency_pick(struct tnd_residency *residency, uint64_t now_ns, struct tnd_pick *ret_pick)
{
    struct picking picking = {.residency = residency, .now_ns = now_ns, .pick = ret_pick};

    *ret_pick = (struct tnd_pick){.evicted = TND_STAGE_NONE};
    return residency->by_layer && (take_wished(&picking, TND_WISH_DEMAND) || take_wished(&picking, TND_WISH_HINT) ||
                                   take_next(&picking) || take_rest(&picking));
}

void tnd_residency_issued(struct tnd_residency *residency, uint32_t stage)
{
    residency->unissued -= residency->stages[stage].unissued;
    residency->stages[stage].unissued = false;
    unwish(residency, stage);
}

void tnd_residency_fetched(struct tnd_residency *residency, uint32_t stage, uint64_t now_ns)
{
    struct tnd_stage_use *use = &residency->stages[stage];
    uint64_t bytes = residency->plan->stages[stage].bytes;

    use->state = TND_STAGE_RESIDENT;
    use->refusals = residency->refusals;
    unwish(residency, stage);
    residency->resident++;
    if (!bytes) /* it was there from the start */
        return;
    residency->stats.fetches++;
    residency->stats.bytes_fetched += bytes;
    residency->stats.bytes_reread += use->returned ? bytes : 0;
    use->returned = true;
    if (residency->by_layer && is_layer(residency, stage)) {
        mean_add(&residency->read_ns, now_ns - tnd_max(use->begun_ns, residency->fetched_ns));
        residency->fetched_ns = now_ns;
    }
}

void tnd_residency_failed(struct tnd_residency *residency, uint32_t stage)
{
    struct tnd_stage_use *use = &residency->stages[stage];

    tnd_residency_issued(residency, stage);
    use->state = TND_STAGE_FAILED;
    residency->failed++;
    if (use->slot != TND_SLOT_NONE)
        residency->free_slots[residency->free_count++] = use->slot;
    use->slot = TND_SLOT_NONE;
}
