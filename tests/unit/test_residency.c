/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: what is fetched next, and what leaves for it, is what residency.h says.
 * Method: a plan of a few layers without any file; the test is consumer, driver and clock at once, and writes down what
 * is to be picked: "in", a layer's number, "out", and behind a layer whose place it takes: 3(1). */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "plan/residency.h"
#include "support/suite.h"

#define LAYER_BYTES 1000

static struct tnd_model model;
static struct tnd_plan plan;
static struct tnd_residency residency;
static struct tnd_err err;
static uint64_t now;

static void finish(void)
{
    tnd_arena_finish(&plan.arena);
    memset(&plan, 0, sizeof(plan));
}

/* Layers without a tensor are left out of the load: without is one of them, or UINT32_MAX. */
static int init(uint32_t layers, uint32_t without, struct tnd_load_options options)
{
    finish();
    now = 0;
    model.layer_count = layers;
    plan = (struct tnd_plan){.model = &model, .stage_count = layers + 2,
                             .by_layer = options.lazy || options.resident_bytes};
    plan.arena.allocator = tnd_allocator_or_default(NULL);
    plan.stages = tnd_arena_alloc(&plan.arena, plan.stage_count, sizeof(*plan.stages));
    ck_assert_ptr_nonnull(plan.stages);
    for (uint32_t i = 0; i < plan.stage_count; i++)
        plan.stages[i] = (struct tnd_stage){.tensor_count = without >= layers || i != without + 1,
                                            .bytes = LAYER_BYTES + i};
    plan.sizes.layer_count = layers - (without < layers);
    return tnd_residency_init(&residency, &plan, &options, &err);
}

static void start(uint32_t layers, struct tnd_load_options options)
{
    ck_assert_msg(init(layers, UINT32_MAX, options) == 0, "%s", err.text);
}

/* With a window. */
static void start_window(uint32_t layers, uint32_t slots, struct tnd_load_options options)
{
    options.resident_bytes = 1;
    start(layers, options);
    ck_assert_int_eq(tnd_residency_set_slots(&residency, &plan, slots, &err), 0);
}

static uint32_t stage_of(const char *name)
{
    if (strcmp(name, "in") == 0)
        return 0;
    return strcmp(name, "out") == 0 ? residency.stage_count - 1 : 1 + (uint32_t)atoi(name);
}

static void name_of(uint32_t stage, char *ret_name, size_t room)
{
    if (stage == 0 || stage == residency.stage_count - 1)
        snprintf(ret_name, room, stage ? "out" : "in");
    else
        snprintf(ret_name, room, "%u", stage - 1);
}

/* The driver picks for as long as there is something, and has sent all reads of it: nothing has arrived yet. */
static const char *picks(void)
{
    static char text[1024];
    struct tnd_pick pick;
    size_t used = 0;

    text[0] = 0;
    while (tnd_residency_pick(&residency, now, &pick)) {
        char name[16], gone[16];

        ck_assert(pick.begins);
        ck_assert_int_eq(residency.stages[pick.stage].state, TND_STAGE_FETCHING);
        tnd_residency_issued(&residency, pick.stage);
        name_of(pick.stage, name, sizeof(name));
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", used ? " " : "", name);
        if (pick.evicted == TND_STAGE_NONE)
            continue;
        name_of(pick.evicted, gone, sizeof(gone));
        used += (size_t)snprintf(text + used, sizeof(text) - used, "(%s)", gone);
    }
    return text;
}

static void arrive(const char *name)
{
    ck_assert_int_eq(residency.stages[stage_of(name)].state, TND_STAGE_FETCHING);
    tnd_residency_fetched(&residency, stage_of(name), now);
}

static void arrive_all(void)
{
    for (uint32_t i = 0; i < residency.stage_count; i++)
        if (residency.stages[i].state == TND_STAGE_FETCHING)
            tnd_residency_fetched(&residency, i, now);
}

static int acquire(const char *name)
{
    return tnd_residency_acquire(&residency, stage_of(name), false, NULL, now, &err);
}

static void release(const char *name)
{
    ck_assert_uint_gt(residency.stages[stage_of(name)].acquired--, 0);
}

static struct tnd_stage_use *use(const char *name)
{
    return &residency.stages[stage_of(name)];
}

static void demand(const char *name)
{
    tnd_residency_demand(&residency, stage_of(name));
}

/* ---- Order and start ---------------------------------------------------------------------------------------- */

START_TEST(goes_in_the_order_of_use)
{
    static const uint32_t order[] = {3, 1, 3, 0};

    start(5, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});
    ck_assert_str_eq(picks(), "in 0 1 2 3 4 out");
    /* Once each; shared-out behind the last of the order, then what the order leaves out. */
    start(5, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND, .layer_order = order, .layer_order_count = 4});
    ck_assert_str_eq(picks(), "in 3 1 0 out 2 4");
    /* A layer that is no part of the load is no part of the order. */
    ck_assert_int_eq(init(5, 2, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND}), 0);
    ck_assert_str_eq(picks(), "in 0 1 3 4 out");
    ck_assert_uint_eq(residency.selected, 6);
    ck_assert_uint_eq(residency.stats.layers, 4);
    /* Of a load that goes all at once nothing is picked: it is on its way. */
    start(5, (struct tnd_load_options){0});
    ck_assert_str_eq(picks(), "");
    ck_assert_int_eq(use("3")->state, TND_STAGE_FETCHING);
}
END_TEST

START_TEST(refuses_an_order_of_other_layers)
{
    static const uint32_t beyond[] = {0, 5}, without[] = {0, 2};

    ck_assert_int_eq(init(5, UINT32_MAX, (struct tnd_load_options){.layer_order = beyond, .layer_order_count = 2}),
                     -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "layer 5"));
    ck_assert_int_eq(init(5, 2, (struct tnd_load_options){.layer_order = without, .layer_order_count = 2}), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "layer 2"));
}
END_TEST

START_TEST(serves_who_asks_first)
{
    start(5, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});
    demand("4");
    demand("2");
    demand("4"); /* asking again is no later turn */
    ck_assert_str_eq(picks(), "in 0 4 2 1 3 out");
    /* What is there is not asked for. */
    arrive_all();
    demand("4");
    ck_assert(!use("4")->wished[TND_WISH_DEMAND]);
}
END_TEST

START_TEST(serves_hints_behind_who_asks)
{
    start(6, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});
    tnd_residency_hint(&residency, stage_of("5"));
    tnd_residency_hint(&residency, stage_of("3"));
    demand("4");
    demand("3"); /* now it is needed */
    ck_assert_str_eq(picks(), "in 0 4 3 5 1 2 out");

    /* In a window it takes the place of what is used later than the next layer, and stays for a turn of the order. */
    start_window(6, 3, (struct tnd_load_options){.ahead = 1});
    ck_assert_str_eq(picks(), "in 0 1 2 out");
    arrive_all();
    tnd_residency_hint(&residency, stage_of("4"));
    ck_assert_str_eq(picks(), "4(2)");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    release("0");
    ck_assert_int_eq(acquire("1"), 1);
    ck_assert_str_eq(picks(), "2(0)");
    arrive_all();
    ck_assert_int_eq(acquire("2"), 1);
    release("1");
    ck_assert_str_eq(picks(), "3(1)");
    ck_assert_int_eq(acquire("4"), 1);
    ck_assert_uint_eq(residency.stats.hits, 4);
    release("4");
    release("2");
    ck_assert_int_eq(acquire("5"), 0);
    ck_assert_str_eq(picks(), "5(4) 0(2)"); /* taken: kept no longer */

    start_window(6, 2, (struct tnd_load_options){.ahead = 1});
    picks();
    arrive_all();
    use("1")->pinned = true;
    tnd_residency_hint(&residency, stage_of("4"));
    ck_assert_str_eq(picks(), ""); /* 0 comes next, and stays */
}
END_TEST

START_TEST(counts_as_fetched_ahead_what_no_acquire_asked_for)
{
    start(4, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = TND_AHEAD_NONE});
    ck_assert_str_eq(picks(), "in 0");
    tnd_residency_hint(&residency, stage_of("1"));
    demand("2"); /* somebody waits for it */
    ck_assert_str_eq(picks(), "2 1");
    ck_assert_int_eq(acquire("1"), 0);
    ck_assert_int_eq(acquire("2"), 0);
    ck_assert_int_eq(acquire("3"), 0);
    ck_assert_str_eq(picks(), "3");
    arrive_all();
    ck_assert_int_eq(acquire("1"), 1);
    ck_assert_int_eq(acquire("2"), 1);
    ck_assert_uint_eq(residency.stats.late_hits, 2);
    ck_assert_int_eq(acquire("3"), 1);
    ck_assert_uint_eq(residency.stats.sync_loads, 1);
}
END_TEST

START_TEST(picks_without_going_through_all_again)
{
    start(6, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});
    ck_assert_str_eq(picks(), "in 0 1 2 3 4 5 out");
    ck_assert_uint_eq(residency.settled, 6);
    arrive_all();
    ck_assert_int_eq(acquire("2"), 1); /* 3, 4 and 5 come next, and nothing is known to be settled behind them */
    ck_assert_uint_eq(residency.settled, 3);
    ck_assert_str_eq(picks(), "");
    ck_assert_uint_eq(residency.settled, 6);

    start_window(6, 3, (struct tnd_load_options){.ahead = 2});
    picks();
    arrive_all();
    ck_assert_str_eq(picks(), "");
    use("0")->pinned = use("2")->pinned = true;
    demand("5");
    ck_assert_str_eq(picks(), "5(1)"); /* it was settled, and is no more */
    use("2")->pinned = false;
    ck_assert_str_eq(picks(), "1(2)");
}
END_TEST

START_TEST(goes_on_with_what_has_begun)
{
    struct tnd_pick pick;

    start(5, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});
    for (int i = 0; i < 2; i++) { /* a read of it was sent, and there are more */
        ck_assert(tnd_residency_pick(&residency, now, &pick));
        ck_assert_uint_eq(pick.stage, 0);
        ck_assert_int_eq(pick.begins, i == 0);
        ck_assert_uint_eq(pick.evicted, TND_STAGE_NONE);
    }
    tnd_residency_issued(&residency, stage_of("in"));
    ck_assert_str_eq(picks(), "0 1 2 3 4 out");
}
END_TEST

START_TEST(is_not_held_up_by_one_without_room)
{
    start_window(5, 2, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = TND_AHEAD_NONE});
    demand("1");
    ck_assert_str_eq(picks(), "in 0 1");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_int_eq(acquire("1"), 1);
    ck_assert_int_eq(acquire("3"), 0);
    ck_assert_int_eq(acquire("out"), 0);
    ck_assert_str_eq(picks(), "out");
    release("0");
    ck_assert_str_eq(picks(), "3(0)");
}
END_TEST

/* ---- Ahead, and what is due --------------------------------------------------------------------------------- */

START_TEST(fetches_so_many_ahead)
{
    start(9, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND});
    ck_assert_uint_eq(residency.ahead, 2);
    start(9, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = 5});
    ck_assert_uint_eq(residency.ahead, 5);
    start(9, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = TND_AHEAD_NONE});
    ck_assert_uint_eq(residency.ahead, 0);
    start(4, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = 50});
    ck_assert_uint_eq(residency.ahead, 3);
    start_window(9, 4, (struct tnd_load_options){.ahead = 5});
    ck_assert_uint_eq(residency.ahead, 3);
    start_window(9, 2, (struct tnd_load_options){0});
    ck_assert_uint_eq(residency.ahead, 1);
    start_window(9, 1, (struct tnd_load_options){.ahead = 5});
    ck_assert_uint_eq(residency.ahead, 0);
    ck_assert_str_eq(picks(), "in 0 out");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    release("0");
    ck_assert_str_eq(picks(), ""); /* the only place is not given to what nobody asked for */
}
END_TEST

START_TEST(brings_on_demand_what_is_used_and_what_is_ahead)
{
    start(5, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND});
    ck_assert_str_eq(picks(), "in 0");
    arrive_all();
    ck_assert_str_eq(picks(), ""); /* the first use is to come */
    ck_assert_int_eq(acquire("in"), 1);
    ck_assert_str_eq(picks(), "");
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), "1 2");
    arrive_all();
    ck_assert_int_eq(acquire("1"), 1);
    ck_assert_str_eq(picks(), "3");
    arrive_all();
    ck_assert_int_eq(acquire("2"), 1);
    ck_assert_str_eq(picks(), "4");
    arrive_all();
    ck_assert_int_eq(acquire("3"), 1); /* behind the last layer comes shared-out */
    ck_assert_str_eq(picks(), "out");
    ck_assert(tnd_residency_wants(&residency));
    arrive_all();
    ck_assert(!tnd_residency_wants(&residency));

    start(5, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = TND_AHEAD_NONE});
    ck_assert_str_eq(picks(), "in 0");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), "");
    ck_assert_int_eq(acquire("3"), 0);
    ck_assert_str_eq(picks(), "3");
    tnd_residency_demand_all(&residency);
    ck_assert_str_eq(picks(), "4 out 1 2"); /* from where the consumer is */
}
END_TEST

START_TEST(fills_the_free_places)
{
    static const uint32_t order[] = {1, 3};

    start_window(6, 3, (struct tnd_load_options){0});
    ck_assert_str_eq(picks(), "in 0 1 2 out");
    start_window(6, 3, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});
    ck_assert_str_eq(picks(), "in 0 1 2 out");
    start_window(6, 3, (struct tnd_load_options){.ahead = TND_AHEAD_NONE});
    ck_assert_str_eq(picks(), "in 0 out");
    start_window(6, 3, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND});
    ck_assert_str_eq(picks(), "in 0");
    /* Layers outside the order are never fetched unasked into a window. */
    start_window(6, 5, (struct tnd_load_options){.layer_order = order, .layer_order_count = 2});
    ck_assert_str_eq(picks(), "in 1 3 out");
    ck_assert_uint_eq(residency.free_count, 3);
    ck_assert(tnd_residency_wants(&residency)); /* a window never has all */
    ck_assert_uint_eq(residency.stats.resident_layers, 5);
}
END_TEST

/* ---- What leaves -------------------------------------------------------------------------------------------- */

/* Six layers, of which 0, 1 and 2 are in a window of three, and 1 is acquired: 0 would leave for 3. */
static void fill_window(void)
{
    start_window(6, 3, (struct tnd_load_options){.ahead = 2});
    ck_assert_str_eq(picks(), "in 0 1 2 out");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), "");
    release("0");
    ck_assert_int_eq(acquire("1"), 1);
}

START_TEST(evicts_what_is_used_last)
{
    uint32_t slot;

    fill_window();
    slot = use("0")->slot;
    ck_assert_str_eq(picks(), "3(0)");
    ck_assert_uint_eq(use("3")->slot, slot);
    ck_assert_uint_eq(use("0")->slot, TND_SLOT_NONE);
    ck_assert_int_eq(use("0")->state, TND_STAGE_ABSENT);
    arrive("3");
    release("1");
    ck_assert_int_eq(acquire("2"), 1);
    ck_assert_str_eq(picks(), "4(1)");
    arrive("4");
    release("2");
    /* A step back: 0 is asked for, of 2, 3 and 4 the 2 would be used first, 4 last. */
    ck_assert_int_eq(acquire("0"), 0);
    ck_assert_str_eq(picks(), "0(4) 1(3)");
    /* 2 is used sooner than anything that could be fetched, and stays. */
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), "");
}
END_TEST

START_TEST(keeps_what_is_held)
{
    fill_window();
    residency.stages[stage_of("0")].pinned = true;
    ck_assert_str_eq(picks(), ""); /* 2 is used sooner than 3 */
    residency.stages[stage_of("0")].pinned = false;
    residency.stages[stage_of("0")].waiting = 1;
    ck_assert_str_eq(picks(), "");
    residency.stages[stage_of("0")].waiting = 0;
    ck_assert_int_eq(acquire("0"), 1); /* which is also where the consumer is now */
    ck_assert_int_eq(acquire("1"), 1);
    ck_assert_str_eq(picks(), "");
    release("0");
    ck_assert_str_eq(picks(), "3(0)");
    /* On its way is not there: it does not leave either. */
    release("1");
    release("1");
    ck_assert_int_eq(acquire("2"), 1);
    ck_assert_int_eq(acquire("5"), 0);
    ck_assert_str_eq(picks(), "5(1)");
    ck_assert_int_eq(acquire("4"), 0);
    ck_assert_str_eq(picks(), "");
    ck_assert_int_eq(use("4")->state, TND_STAGE_ABSENT);
}
END_TEST

START_TEST(keeps_what_was_asked_for_and_not_taken)
{
    fill_window();
    release("1");
    ck_assert_int_eq(acquire("4"), 0);
    ck_assert_str_eq(picks(), "4(2) 5(1)");
    arrive_all();
    ck_assert_int_eq(acquire("5"), 1); /* somebody else; 4 is not taken */
    release("5");
    ck_assert_str_eq(picks(), "1(5)");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), ""); /* 4 is used later than 2, and stays all the same */
    ck_assert_int_eq(acquire("3"), 0);
    ck_assert_str_eq(picks(), "3(1)"); /* although 1 is used sooner */
    arrive_all();
    ck_assert_int_eq(acquire("3"), 1);
    ck_assert_int_eq(acquire("2"), 0);
    ck_assert_str_eq(picks(), "2(4)"); /* no other is left, and somebody waits */
}
END_TEST

/* Six layers, two places; 5 was polled for, came, and is not taken. */
static void poll_in_vain(void)
{
    start_window(6, 2, (struct tnd_load_options){.ahead = 1});
    ck_assert_str_eq(picks(), "in 0 1 out");
    arrive_all();
    ck_assert_int_eq(acquire("5"), 0);
    ck_assert_str_eq(picks(), "5(1)");
    arrive_all();
}

START_TEST(keeps_for_a_turn_of_the_order_only)
{
    poll_in_vain();
    for (uint32_t i = 0; i < 5; i++) {
        static const char *const layers[] = {"0", "1", "2", "3", "4"}, *const then[] = {"1(0)", "2(1)", "3(2)", "4(3)"};

        ck_assert_int_eq(acquire(layers[i]), 1);
        ck_assert_str_eq(picks(), ""); /* the other place is held */
        release(layers[i]);
        ck_assert_str_eq(picks(), i < 4 ? then[i] : ""); /* … and 5 comes next */
        arrive_all();
    }
    ck_assert_int_eq(acquire("0"), 0);
    ck_assert_str_eq(picks(), "0(4)");
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), "1(5)"); /* nobody came for it */

    /* Who comes after that begins anew. */
    now = 1000;
    ck_assert_int_eq(acquire("5"), 0);
    now = 1010;
    arrive_all();
    release("0");
    ck_assert_str_eq(picks(), "5(1)");
    arrive_all();
    ck_assert_int_eq(acquire("5"), 1);
    ck_assert_uint_eq(residency.stats.stalled_ns, 10);
}
END_TEST

START_TEST(takes_polls_and_waits_for_one_use)
{
    struct tnd_refusal first = {0}, second = {0};

    now = 0;
    poll_in_vain();
    now = 150;
    ck_assert_int_eq(tnd_residency_acquire(&residency, stage_of("5"), false, &first, now, &err), 1);
    ck_assert_uint_eq(residency.stats.sync_loads, 1);
    ck_assert_uint_eq(residency.stats.stalled_ns, 150); /* since it polled */
    release("5");
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_str_eq(picks(), "1(5)"); /* it was taken, and is kept no longer */
    arrive_all();
    ck_assert_int_eq(acquire("5"), 0);
    release("0");
    ck_assert_str_eq(picks(), "5(1)");

    /* A wait whose time was over, and another one; the consumer has moved on meanwhile. */
    poll_in_vain();
    now = 200;
    ck_assert_int_eq(tnd_residency_acquire(&residency, stage_of("3"), false, &first, now, &err), 0);
    tnd_residency_stop_waiting(&residency, stage_of("3"), &first);
    ck_assert_int_eq(acquire("0"), 1);
    now = 220;
    ck_assert_int_eq(tnd_residency_acquire(&residency, stage_of("3"), false, &second, now, &err), 0);
    ck_assert_uint_eq(residency.next, 1);
    ck_assert_str_eq(picks(), "3(5)");
    arrive_all();
    now = 260;
    ck_assert_int_eq(tnd_residency_acquire(&residency, stage_of("3"), false, &second, now, &err), 1);
    ck_assert_uint_eq(residency.stats.sync_loads, 1);
    ck_assert_uint_eq(residency.stats.stalled_ns, 60);
    ck_assert(!use("3")->polled.refused);
}
END_TEST

START_TEST(evicts_first_what_is_never_used_again)
{
    static const uint32_t order[] = {0, 1, 2, 3};

    start_window(6, 3, (struct tnd_load_options){.ahead = 2, .layer_order = order, .layer_order_count = 4});
    ck_assert_str_eq(picks(), "in 0 1 2 out");
    arrive_all();
    ck_assert_int_eq(acquire("5"), 0); /* out of the order: the consumer has not moved on, 0 comes next */
    ck_assert_str_eq(picks(), "5(2)");
    arrive_all();
    ck_assert_int_eq(acquire("5"), 1);
    release("5");
    ck_assert_int_eq(acquire("1"), 1);
    ck_assert_str_eq(picks(), "2(5) 3(0)");
}
END_TEST

START_TEST(says_when_all_is_pinned)
{
    start_window(6, 2, (struct tnd_load_options){0});
    picks();
    arrive_all();
    use("0")->pinned = use("5")->pinned = true; /* 5 is not there, and takes no place */
    ck_assert_int_eq(acquire("2"), 0);
    ck_assert_str_eq(picks(), "2(1)");
    arrive_all();
    ck_assert_int_eq(acquire("2"), 1);
    use("2")->pinned = true;
    ck_assert_int_eq(acquire("3"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "layer 3"));
    ck_assert_ptr_nonnull(strstr(err.text, "all 2 layers in the window are pinned"));
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_int_eq(acquire("out"), 1); /* its place is its own */
    use("2")->pinned = false;
    ck_assert_int_eq(acquire("3"), 0);
}
END_TEST

/* ---- Failure ------------------------------------------------------------------------------------------------ */

static void lose(const char *name, int result)
{
    struct tnd_stage_use *failing = use(name);

    failing->err = tnd_arena_alloc(&plan.arena, 1, sizeof(*failing->err));
    tnd_fail(failing->err, result, "no %s", name);
    tnd_residency_failed(&residency, stage_of(name));
}

START_TEST(tells_a_failure_once)
{
    start_window(6, 3, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND});
    ck_assert_int_eq(acquire("4"), 0);
    ck_assert_str_eq(picks(), "in 0 4");
    ck_assert_uint_eq(residency.free_count, 1);
    lose("4", -EIO);
    ck_assert_uint_eq(residency.free_count, 2); /* its place is given back */
    ck_assert_uint_eq(use("4")->slot, TND_SLOT_NONE);
    ck_assert_str_eq(picks(), ""); /* not again before somebody has been told */
    ck_assert_int_eq(acquire("4"), -EIO);
    ck_assert_str_eq(err.text, "no 4");
    ck_assert_uint_eq(residency.stats.acquires, 0);
    ck_assert_str_eq(picks(), "");
    ck_assert_int_eq(acquire("4"), 0);
    ck_assert_str_eq(picks(), "4");
    arrive_all();
    ck_assert_int_eq(acquire("4"), 1);
    ck_assert_uint_eq(residency.stats.sync_loads, 1);

    /* Who waits for all learns it too. */
    ck_assert(!tnd_residency_take_failure(&residency, TND_STAGE_NONE, &err));
    ck_assert_int_eq(acquire("2"), 0);
    picks();
    lose("2", -EBADMSG);
    ck_assert(!tnd_residency_take_failure(&residency, stage_of("3"), &err));
    ck_assert(tnd_residency_take_failure(&residency, TND_STAGE_NONE, &err));
    ck_assert_int_eq(err.result, -EBADMSG);
    ck_assert(!tnd_residency_take_failure(&residency, TND_STAGE_NONE, &err));
    ck_assert_uint_eq(residency.failed, 0);
}
END_TEST

/* ---- Counts ------------------------------------------------------------------------------------------------- */

static void check_counts(uint64_t hits, uint64_t late_hits, uint64_t sync_loads, uint64_t stalled_ns)
{
    ck_assert_uint_eq(residency.stats.hits, hits);
    ck_assert_uint_eq(residency.stats.late_hits, late_hits);
    ck_assert_uint_eq(residency.stats.sync_loads, sync_loads);
    ck_assert_uint_eq(residency.stats.stalled_ns, stalled_ns);
    ck_assert_uint_eq(residency.stats.acquires, hits + late_hits + sync_loads);
}

START_TEST(counts_what_was_waited_for)
{
    start_window(6, 3, (struct tnd_load_options){.ahead = 1});
    ck_assert_int_eq(acquire("in"), 0);
    ck_assert_int_eq(acquire("0"), 0);
    ck_assert_str_eq(picks(), "in 0 1 2 out");
    now = 100;
    arrive("in");
    arrive("0");
    ck_assert_int_eq(acquire("in"), 1); /* shared: not counted */
    check_counts(0, 0, 0, 0);
    ck_assert_int_eq(acquire("0"), 1);
    check_counts(0, 0, 1, 100);
    ck_assert_int_eq(acquire("1"), 0); /* on its way already */
    now = 130;
    ck_assert_int_eq(acquire("1"), 0); /* asked again: the wait is one */
    now = 150;
    arrive("1");
    ck_assert_int_eq(acquire("1"), 1);
    check_counts(0, 1, 1, 150);
    arrive("2");
    arrive("out");
    release("0");
    release("1");
    now = 200;
    ck_assert_int_eq(acquire("2"), 1);
    check_counts(1, 1, 1, 150);
    /* Stages 0 to 3 and 7 with the bytes of each; nothing twice so far. */
    ck_assert_uint_eq(residency.stats.fetches, 5);
    ck_assert_uint_eq(residency.stats.bytes_fetched, 5 * LAYER_BYTES + 0 + 1 + 2 + 3 + 7);
    ck_assert_uint_eq(residency.stats.bytes_reread, 0);
    ck_assert_str_eq(picks(), "3(1)");
    arrive_all();
    ck_assert_int_eq(acquire("1"), 0); /* it had been there: stage 2 */
    ck_assert_str_eq(picks(), "1(0)");
    now = 260;
    arrive_all();
    ck_assert_int_eq(acquire("1"), 1);
    check_counts(1, 1, 2, 210);
    ck_assert_uint_eq(residency.stats.bytes_reread, LAYER_BYTES + 2);
    /* The first layer of a load that goes all at once is waited for as if it was not fetched ahead. */
    start(3, (struct tnd_load_options){0});
    ck_assert_int_eq(acquire("0"), 0);
    ck_assert_int_eq(acquire("1"), 0);
    arrive_all();
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_int_eq(acquire("1"), 1);
    check_counts(0, 1, 1, 0);
}
END_TEST

/* ---- How far ahead ------------------------------------------------------------------------------------------ */

/* A window whose layers took read_ns each to read, behind each other, and whose consumer takes compute_ns for one. */
static void run_at(uint32_t slots, uint32_t ahead, uint64_t compute_ns, uint64_t read_ns)
{
    start_window(40, slots, (struct tnd_load_options){.ahead = ahead});
    picks();
    arrive("in");
    for (uint32_t i = 0; i < slots; i++) {
        now += read_ns;
        tnd_residency_fetched(&residency, 1 + i, now);
    }
    ck_assert_uint_eq(residency.read_ns, read_ns);
    ck_assert_int_eq(acquire("0"), 1);
    ck_assert_uint_eq(residency.compute_ns, 0);
    now += compute_ns;
    ck_assert_int_eq(acquire("0"), 1); /* the same again is no step */
    ck_assert_uint_eq(residency.compute_ns, 0);
    ck_assert_int_eq(acquire("1"), 1);
    /* From the last acquire on: it is the consumer's own. */
    ck_assert_uint_eq(residency.compute_ns, 0);
    now += compute_ns;
    ck_assert_int_eq(acquire("2"), 1);
    ck_assert_uint_eq(residency.compute_ns, compute_ns);
}

START_TEST(adapts_to_compute_and_reads)
{
    /* W C / (R + C), rounded up; 2 where R <= C, never less, at most W - 1. */
    static const struct {
        uint32_t slots, given;
        uint64_t compute_ns, read_ns;
        uint32_t ahead;
    } table[] = {
        {10, 0, 100, 40, 2},   {10, 0, 100, 100, 2},  {10, 0, 100, 104, 5},  {10, 0, 100, 148, 5},
        {10, 0, 100, 152, 4},  {8, 0, 100, 300, 2},   {20, 0, 100, 300, 5},  {20, 0, 100, 296, 6},
        {20, 0, 4, 4000, 2},   {3, 0, 100, 104, 2},   {20, 7, 100, 104, 7},  {20, TND_AHEAD_NONE, 100, 104, 0},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        run_at(table[i].slots, table[i].given, table[i].compute_ns, table[i].read_ns);
        ck_assert_msg(residency.ahead == table[i].ahead, "row %zu: %u, not %u", i, residency.ahead, table[i].ahead);
    }
    /* W C / (R + C) is whole: 10 * 100 / 250. */
    run_at(10, 0, 100, 150);
    ck_assert_uint_eq(residency.ahead, 4);
    /* What comes later counts for a quarter; a wait is not computing. */
    now += 200;
    ck_assert_int_eq(acquire("3"), 1);
    ck_assert_uint_eq(residency.compute_ns, 125);
    now += 125;
    ck_assert_int_eq(acquire("20"), 0);
    now += 100000;
    picks();
    arrive("20");
    ck_assert_int_eq(acquire("20"), 1);
    ck_assert_uint_eq(residency.compute_ns, 125);
}
END_TEST

START_TEST(does_not_count_the_wait_for_a_place_as_reading)
{
    run_at(3, 0, 100, 40); /* 3 and 4 are not there; 0, 1 and 2 are held */
    now += 1000000;
    ck_assert_str_eq(picks(), "");
    release("0");
    release("0");
    ck_assert_str_eq(picks(), "3(0)");
    now += 60;
    arrive("3");
    ck_assert_uint_eq(residency.read_ns, 40 - 10 + 15);
}
END_TEST

/* ---- A consumer that goes on and on ------------------------------------------------------------------------- */

/* Layers fetched while a consumer goes through so many tokens, from a steady state on; what is picked arrives at
 * once. */
static uint64_t fetches_in(uint32_t layers, uint32_t slots, uint32_t ahead, uint32_t tokens)
{
    uint64_t before = 0;

    start_window(layers, slots, (struct tnd_load_options){.ahead = ahead});
    for (uint32_t token = 0; token < 2 * layers + tokens; token++) {
        if (token == 2 * layers)
            before = residency.stats.fetches;
        for (uint32_t i = 0; i < layers; i++) {
            while (tnd_residency_acquire(&residency, 1 + i, false, NULL, now, &err) == 0) {
                picks();
                arrive_all();
            }
            picks();
            arrive_all();
            residency.stages[1 + i].acquired--;
        }
    }
    return residency.stats.fetches - before;
}

START_TEST(reads_again_only_what_does_not_fit)
{
    /* On demand the layer just used leaves for the next that is missing: of the N - 1 other uses before it comes again
     * W - 1 find theirs there. In N - 1 tokens of N uses, N (N - W) do not. By hand for 3 layers in 2 places, + where
     * fetched: 0 1 2+ 0 1+ 2 0+ 1 2+ 0 1+ 2, which is 3 in 2 tokens. Each layer ahead takes a place of those that stay:
     * with A of them N (N - W) in N - 1 - A tokens. Oldest first would fetch all N, each token. */
    static const struct {
        uint32_t layers, slots;
    } table[] = {{3, 2}, {4, 2}, {4, 3}, {5, 3}, {8, 4}, {8, 7}, {12, 3}, {24, 12}, {30, 29}};

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint32_t n = table[i].layers, w = table[i].slots;

        ck_assert_uint_eq(fetches_in(n, w, TND_AHEAD_NONE, n - 1), n * (n - w));
        for (uint32_t ahead = 1; ahead < w; ahead++) {
            ck_assert_uint_eq(fetches_in(n, w, ahead, n - 1 - ahead), n * (n - w));
            ck_assert_uint_eq(residency.stats.sync_loads, 1); /* the first one of all */
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("residency");
    TCase *cases = tcase_create("residency");

    tcase_add_checked_fixture(cases, NULL, finish);
    tcase_add_test(cases, goes_in_the_order_of_use);
    tcase_add_test(cases, refuses_an_order_of_other_layers);
    tcase_add_test(cases, serves_who_asks_first);
    tcase_add_test(cases, serves_hints_behind_who_asks);
    tcase_add_test(cases, counts_as_fetched_ahead_what_no_acquire_asked_for);
    tcase_add_test(cases, picks_without_going_through_all_again);
    tcase_add_test(cases, goes_on_with_what_has_begun);
    tcase_add_test(cases, is_not_held_up_by_one_without_room);
    tcase_add_test(cases, fetches_so_many_ahead);
    tcase_add_test(cases, brings_on_demand_what_is_used_and_what_is_ahead);
    tcase_add_test(cases, fills_the_free_places);
    tcase_add_test(cases, evicts_what_is_used_last);
    tcase_add_test(cases, keeps_what_is_held);
    tcase_add_test(cases, keeps_what_was_asked_for_and_not_taken);
    tcase_add_test(cases, keeps_for_a_turn_of_the_order_only);
    tcase_add_test(cases, takes_polls_and_waits_for_one_use);
    tcase_add_test(cases, evicts_first_what_is_never_used_again);
    tcase_add_test(cases, says_when_all_is_pinned);
    tcase_add_test(cases, tells_a_failure_once);
    tcase_add_test(cases, counts_what_was_waited_for);
    tcase_add_test(cases, adapts_to_compute_and_reads);
    tcase_add_test(cases, does_not_count_the_wait_for_a_place_as_reading);
    tcase_add_test(cases, reads_again_only_what_does_not_fit);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
