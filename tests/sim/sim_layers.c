/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: layers come and go as their consumers need them: an acquired one is there, whole, and stays where it is; no
 * place has two; what was asked for comes or fails; and nothing comes and goes for nobody.
 * Method: the whole pipeline on one thread, as in sim_pipeline.c, with loads that are lazy or have a window, of the
 * least bytes up to all, and several consumers that poll, hold, give up, pin and ask in any order; all of it drawn from
 * a seed. A layer is compared when it is acquired and again right before its release; what was evicted or failed is
 * overwritten at once.
 *
 *   sim_layers [COUNT [FIRST]]     a failing seed N is run again with: sim_layers 1 N
 *
 * Without FIRST a few schedules are then run over and over with one fault each. */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "options.h"
#include "sim.h"

#define LOADS_MAX 2
#define CONSUMERS_MAX 3
#define HELD_MAX 3
#define FAULT_SEEDS 2 /* at the most; a thousandth of the others */
#define POISON 0xDB
#define FAILURES_MAX 3 /* in a row, then a consumer goes on without */

/* ---- What is watched --------------------------------------------------------------------------------------- */

struct stage_watch {
    enum tnd_stage_state state; /* a step ago */
    uint32_t slot;              /* since it is acquired */
    uint32_t acquired;
    bool pinned, stays; /* stays: was there while it was pinned, and must be until it is not */
    uint64_t fetched_at; /* how much had been done then */
    uint32_t fetched;    /* so often since */
};

struct consumer {
    uint32_t at; /* in the order */
    uint32_t stage;
    bool asking;
    uint32_t held[HELD_MAX], held_count;
    uint32_t busy; /* turns that it computes for */
    uint32_t failures, left; /* in a row; acquires to come */
};

struct watched {
    struct sim *sim;
    struct sim_load *one;
    struct stage_watch *stages; /* [stage_count] */
    uint8_t **expected;         /* [tensor_count] once it was needed */
    uint32_t *order, order_count; /* layers */
    struct consumer consumers[CONSUMERS_MAX];
    uint32_t consumer_count;
    uint64_t acquires, fetches, bytes_fetched; /* as they were seen */
    uint32_t failures; /* of waiting for all of it */
    bool patient; /* its consumers come back for what they asked for */
    bool replaced; /* its file */
    uint64_t done; /* turns in which a consumer may have changed something */
    uint64_t cancel_step; /* 0: never */
};

static struct watched all_watched[LOADS_MAX];

static const struct tnd_residency *residency_of(const struct watched *watched)
{
    return &watched->one->load->transfer.readiness.residency;
}

static bool has_ended(const struct watched *watched)
{
    return atomic_load(&watched->one->load->transfer.readiness.ended);
}

static int32_t layer_of(const struct watched *watched, uint32_t stage)
{
    if (stage == 0)
        return TND_LAYER_SHARED_IN;
    return stage + 1 == watched->one->load->plan.stage_count ? TND_LAYER_SHARED_OUT : (int32_t)stage - 1;
}

static bool is_layer(const struct watched *watched, uint32_t stage)
{
    return layer_of(watched, stage) >= 0;
}

static void compare_tensor(struct watched *watched, uint32_t tensor)
{
    const void *data = NULL;
    int r = tnd_load_tensor_data(watched->one->load, tensor, &data);

    CHECK(r == 0, "tensor %u: %d %s", tensor, r, tnd_last_error());
    if (!watched->expected[tensor])
        watched->expected[tensor] = sim_expected(watched->one, tensor);
    CHECK(memcmp(data, watched->expected[tensor], tnd_plan_bytes(&watched->one->load->plan, tensor)) == 0,
          "tensor %u", tensor);
}

/* Every tensor of a stage that is acquired, or has come to stay. */
static void compare_stage(struct watched *watched, uint32_t stage)
{
    const struct tnd_plan *plan = &watched->one->load->plan;

    for (uint32_t i = 0; i < plan->stages[stage].tensor_count; i++)
        compare_tensor(watched, plan->tensors[plan->stages[stage].tensor_first + i]);
}

/* While nobody does anything nothing comes and goes over and over. A hint may cost a few reads: what it brings in
 * pushes out what is due, which comes back. */
static void check_worth(const struct watched *watched, struct stage_watch *watch)
{
    watch->fetched = watch->fetched_at == watched->done ? watch->fetched + 1 : 1;
    watch->fetched_at = watched->done;
    CHECK(watch->fetched < 4, "stage %u came and left for nobody", (uint32_t)(watch - watched->stages));
}

/* Told by the driver, before anything of the next layer can come into the slot. */
static void on_trace(void *cookie, const struct tnd_trace_event *event)
{
    struct watched *watched = cookie;
    struct tnd_transfer *transfer;
    uint32_t stage;

    if (event->kind != TND_TRACE_EVICT && event->kind != TND_TRACE_FETCH)
        return;
    while (event->tensor < watched->one->model.tensors ||
           event->tensor >= watched->one->model.tensors + watched->one->model.tensor_count)
        watched++;
    transfer = &watched->one->load->transfer;
    stage = tnd_plan_stage(&watched->one->load->plan, (uint32_t)(event->tensor - watched->one->model.tensors));
    if (event->kind == TND_TRACE_FETCH) {
        CHECK(!watched->replaced, "stage %u is of another file", stage);
        check_worth(watched, &watched->stages[stage]);
        watched->fetches++;
        watched->bytes_fetched += event->bytes;
        return;
    }
    CHECK(!watched->stages[stage].acquired && !watched->stages[stage].stays, "stage %u left", stage);
    CHECK(event->slot < watched->one->load->layout.slot_count, "slot %u", event->slot);
    memset(transfer->slots + event->slot * transfer->slot_bytes, POISON, transfer->slot_bytes);
}

/* ---- Invariants -------------------------------------------------------------------------------------------- */

/* Of a stage that failed what arrived in a place of its own stays, as somebody may use it; the rest is worth
 * nothing. */
static void poison_stage(struct watched *watched, uint32_t stage)
{
    const struct tnd_transfer *transfer = &watched->one->load->transfer;
    const struct tnd_plan *plan = transfer->plan;
    const struct tnd_stage *planned = &plan->stages[stage];

    for (uint32_t w = planned->window_first; w < planned->window_first + planned->window_count; w++)
        for (uint32_t i = 0; i < plan->windows[w].piece_count && !transfer->arrived[w]; i++) {
            const struct tnd_span *span = &transfer->spans[plan->windows[w].piece_first + i];

            memset(span->destination, POISON, tnd_plan_bytes_out(span->kernel, span->bytes));
        }
    for (uint32_t i = 0; i < planned->tensor_count && !watched->replaced; i++) {
        uint32_t tensor = plan->tensors[planned->tensor_first + i];

        if (atomic_load(&transfer->readiness.tensor_left[tensor]) == 0 && !transfer->slot_bytes)
            compare_tensor(watched, tensor);
    }
}

static void check_stage(struct watched *watched, uint32_t stage)
{
    const struct tnd_stage_use *use = &residency_of(watched)->stages[stage];
    struct stage_watch *watch = &watched->stages[stage];
    uint32_t left = atomic_load(&watched->one->load->transfer.readiness.stage_left[stage]);

    CHECK(use->acquired == watch->acquired && !use->waiting, "stage %u: %u acquires", stage, use->acquired);
    CHECK(!watch->acquired || (use->state == TND_STAGE_RESIDENT && use->slot == watch->slot),
          "stage %u is acquired: state %d, slot %u", stage, use->state, use->slot);
    CHECK((use->state == TND_STAGE_RESIDENT) == (left == 0), "stage %u: %u tensors to come", stage, left);
    CHECK(use->state == TND_STAGE_RESIDENT || watch->state != TND_STAGE_RESIDENT ||
              (is_layer(watched, stage) && residency_of(watched)->slot_count), "stage %u is gone", stage);
    CHECK(use->state == TND_STAGE_RESIDENT || !watch->stays, "stage %u was pinned and there", stage);
    if (use->state == TND_STAGE_FAILED && watch->state != TND_STAGE_FAILED)
        poison_stage(watched, stage);
    watch->state = use->state;
    watch->stays = watch->pinned && use->state == TND_STAGE_RESIDENT;
}

static void check_slots(const struct watched *watched)
{
    const struct tnd_residency *residency = residency_of(watched);
    const struct tnd_plan *plan = &watched->one->load->plan;
    bool used[64] = {false};
    uint32_t count = residency->free_count;

    if (!residency->slot_count)
        return;
    CHECK(residency->slot_count <= 64, "%u slots", residency->slot_count);
    CHECK(residency->free_count <= residency->slot_count, "%u free", residency->free_count);
    for (uint32_t i = 0; i < residency->free_count; i++) {
        CHECK(!used[residency->free_slots[i]], "slot %u is free twice", residency->free_slots[i]);
        used[residency->free_slots[i]] = true;
    }
    for (uint32_t stage = 0; stage < residency->stage_count; stage++) {
        const struct tnd_stage_use *use = &residency->stages[stage];
        bool in = is_layer(watched, stage) && plan->stages[stage].window_count &&
                  (use->state == TND_STAGE_FETCHING || use->state == TND_STAGE_RESIDENT);

        CHECK(in == (use->slot != TND_SLOT_NONE), "stage %u: state %d, slot %u", stage, use->state, use->slot);
        if (!in)
            continue;
        CHECK(use->slot < residency->slot_count && !used[use->slot], "slot %u has two", use->slot);
        CHECK(use->slot == watched->one->load->transfer.fetches[stage].slot, "stage %u is elsewhere", stage);
        used[use->slot] = true;
        count++;
    }
    CHECK(count == residency->slot_count, "%u of %u slots", count, residency->slot_count);
}

static void check_sums(const struct watched *watched)
{
    const struct tnd_residency *residency = residency_of(watched);
    const struct tnd_transfer *transfer = &watched->one->load->transfer;
    uint64_t bytes = 0, flying = 0;
    uint32_t resident = 0, failed = 0;
    struct tnd_progress progress;
    struct tnd_layer_stats stats;

    for (uint32_t stage = 0; stage < residency->stage_count; stage++) {
        resident += residency->stages[stage].state == TND_STAGE_RESIDENT;
        failed += residency->stages[stage].state == TND_STAGE_FAILED;
        bytes += transfer->fetches[stage].bytes_arrived;
        flying += transfer->fetches[stage].flying;
    }
    CHECK(resident == residency->resident && failed == residency->failed, "%u there, %u failed", resident, failed);
    CHECK(tnd_transfer_stopped(transfer) || flying == transfer->reading + transfer->ready + transfer->working,
          "%llu windows under way", (unsigned long long)flying);
    tnd_load_progress(watched->one->load, &progress);
    CHECK(progress.bytes_ready == bytes && bytes <= progress.bytes && progress.tensors_ready <= progress.tensors,
          "%llu of %llu bytes", (unsigned long long)progress.bytes_ready, (unsigned long long)progress.bytes);
    tnd_layer_stats(watched->one->load, &stats);
    CHECK(stats.acquires == watched->acquires && stats.acquires == stats.hits + stats.late_hits + stats.sync_loads,
          "%llu acquires", (unsigned long long)stats.acquires);
    CHECK(stats.bytes_fetched == watched->bytes_fetched && stats.bytes_reread <= stats.bytes_fetched,
          "%llu bytes fetched", (unsigned long long)stats.bytes_fetched);
}

static void check_load(struct watched *watched)
{
    for (uint32_t stage = 0; stage < watched->one->load->plan.stage_count; stage++)
        check_stage(watched, stage);
    check_slots(watched);
    check_sums(watched);
}

/* ---- Consumers --------------------------------------------------------------------------------------------- */

static void pin(struct watched *watched, uint32_t stage, bool pinned)
{
    CHECK(tnd_layer_pin(watched->one->load, layer_of(watched, stage), pinned) == 0, "%s", tnd_last_error());
    watched->stages[stage].pinned = pinned;
    watched->stages[stage].stays = pinned && residency_of(watched)->stages[stage].state == TND_STAGE_RESIDENT;
}

static void unpin_all(struct watched *watched)
{
    for (uint32_t stage = 0; stage < watched->one->load->plan.stage_count; stage++)
        if (watched->stages[stage].pinned)
            pin(watched, stage, false);
}

static void release(struct watched *watched, struct consumer *consumer, uint32_t index)
{
    uint32_t stage = consumer->held[index];

    compare_stage(watched, stage);
    watched->stages[stage].acquired--;
    CHECK(tnd_layer_release(watched->one->load, layer_of(watched, stage)) == 0, "%s", tnd_last_error());
    consumer->held[index] = consumer->held[--consumer->held_count];
}

static void took(struct watched *watched, struct consumer *consumer)
{
    struct stage_watch *watch = &watched->stages[consumer->stage];

    consumer->asking = false;
    consumer->failures = 0;
    consumer->left--;
    consumer->held[consumer->held_count++] = consumer->stage;
    watched->acquires += is_layer(watched, consumer->stage);
    watch->slot = residency_of(watched)->stages[consumer->stage].slot;
    watch->acquired++;
    consumer->busy = sim_draw_below(3) ? 0 : (uint32_t)sim_draw_below(100);
    compare_stage(watched, consumer->stage);
}

/* An acquire, or the wait for all, that failed did so for a reason. */
static void check_failure(const struct watched *watched, int r)
{
    const struct sim *sim = watched->sim;

    if (r == -ECANCELED)
        CHECK(watched->one->canceled && has_ended(watched), "%s", tnd_last_error());
    else if (r == -EBADMSG)
        CHECK(sim->cut, "%s", tnd_last_error());
    else
        CHECK(r == -EIO && (sim->engine.errors_given || sim->cut || sim->engine.hang_per_mille), "%d: %s", r,
              tnd_last_error());
}

static void check_all_pinned(const struct watched *watched)
{
    uint32_t pinned = 0;

    for (uint32_t stage = 0; stage < watched->one->load->plan.stage_count; stage++)
        pinned += watched->stages[stage].pinned && residency_of(watched)->stages[stage].slot != TND_SLOT_NONE;
    CHECK(pinned && pinned == residency_of(watched)->slot_count, "%u pinned: %s", pinned, tnd_last_error());
}

static void ask(struct watched *watched, struct consumer *consumer)
{
    int r = tnd_layer_acquire(watched->one->load, layer_of(watched, consumer->stage), 0);

    if (r == 0) {
        took(watched, consumer);
    } else if (r == -EINVAL) {
        check_all_pinned(watched);
        unpin_all(watched);
    } else if (r == -EAGAIN) {
        CHECK(!has_ended(watched), "not yet, after the end");
        if (consumer->held_count && sim_draw_below(8) == 0) /* others, or itself, may wait for the place */
            release(watched, consumer, (uint32_t)sim_draw_below(consumer->held_count));
        else if (sim_draw_below(30) == 0)
            unpin_all(watched);
        else if (!watched->patient && sim_draw_below(100) == 0)
            consumer->asking = false; /* and never comes back for it */
    } else {
        check_failure(watched, r);
        if (++consumer->failures >= FAILURES_MAX) {
            consumer->asking = false;
            consumer->failures = 0;
            consumer->left--;
        }
    }
}

static void choose(struct watched *watched, struct consumer *consumer)
{
    const struct tnd_plan *plan = &watched->one->load->plan;
    uint64_t dice = sim_draw_below(10);

    consumer->asking = true;
    if (watched->order_count && dice > 1) {
        consumer->stage = 1 + watched->order[consumer->at++ % watched->order_count];
        return;
    }
    do
        consumer->stage = (uint32_t)sim_draw_below(plan->stage_count);
    while (!plan->stages[consumer->stage].tensor_count);
}

static bool is_done(const struct consumer *consumer)
{
    return !consumer->left && !consumer->held_count;
}

static void consume(struct watched *watched, struct consumer *consumer)
{
    if (consumer->busy) {
        consumer->busy--;
        return;
    }
    watched->done++;
    if (has_ended(watched))
        consumer->left = 0;
    if (!consumer->left)
        consumer->asking = false;
    if (consumer->asking)
        ask(watched, consumer);
    else if (consumer->held_count && (!consumer->left || consumer->held_count == HELD_MAX || sim_draw_below(3)))
        release(watched, consumer, (uint32_t)sim_draw_below(consumer->held_count));
    else if (consumer->left)
        choose(watched, consumer);
}

/* What a consumer does beside: hints, pins, looks at what it has not acquired. */
static void do_else(struct watched *watched)
{
    const struct tnd_plan *plan = &watched->one->load->plan;
    uint32_t stage = (uint32_t)sim_draw_below(plan->stage_count);
    const void *data;

    if (!plan->stages[stage].tensor_count || has_ended(watched))
        return;
    watched->done++;
    switch (sim_draw_below(4)) {
    case 0:
        pin(watched, stage, sim_draw_below(2));
        break;
    case 1:
        CHECK(tnd_load_prefetch(watched->one->load, layer_of(watched, stage)) == 0, "%s", tnd_last_error());
        break;
    case 2:
        if (residency_of(watched)->slot_count && is_layer(watched, stage) && !watched->stages[stage].acquired)
            CHECK(tnd_load_tensor_data(watched->one->load, plan->tensors[plan->stages[stage].tensor_first], &data) ==
                      -EINVAL, "stage %u is not acquired", stage);
        break;
    default:
        if (!watched->stages[stage].acquired)
            CHECK(tnd_layer_release(watched->one->load, layer_of(watched, stage)) == -EINVAL, "stage %u", stage);
    }
}

/* ---- Seeds ------------------------------------------------------------------------------------------------- */

/* Layers one after the other, as converters write them; now and then large enough to be read in place. */
static void make_even_model(struct sim *sim, struct tnd_model *model)
{
    uint32_t layer_count = 2 + (uint32_t)sim_draw_below(7), tensors = 1 + (uint32_t)sim_draw_below(3);
    bool large = sim_draw_below(8) == 0;
    uint64_t offset = 4096 * sim_draw_below(3), bytes_max = large ? (3 << 19) / tensors : 50000;
    char name[64];

    layer_count = large && layer_count > 4 ? 4 : layer_count;
    sim_model_begin(model, layer_count * tensors + 2);
    sim_model_add(model, "token_embd", TND_F16, 5000, offset);
    offset += 5000;
    for (uint32_t i = 0; i < layer_count * tensors; i++) {
        uint64_t bytes = tnd_round_down(bytes_max * 2 / 3 + sim_draw_below(bytes_max / 3), 2);

        snprintf(name, sizeof(name), "blk.%u.w%u", (unsigned)(i / tensors), (unsigned)(i % tensors));
        offset = tnd_round_up(offset, 64);
        sim_model_add(model, name, TND_F16, bytes, offset);
        offset += bytes;
    }
    sim_model_add(model, "output", TND_U8, 7000, offset);
    sim_model_end(sim, model, layer_count, offset + 7000);
}

/* A window of the least bytes up to those of all layers; 0 where there is none smaller than all. */
static uint64_t choose_window(const struct sim *sim, const struct tnd_model *model, struct tnd_load_options *options)
{
    struct tnd_plan_sizes sizes;
    struct tnd_plan *plan;
    uint64_t all, least;

    options->resident_bytes = 0;
    CHECK(tnd_plan_create(model, &sim->options, options, &plan) == 0, "%s", tnd_last_error());
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    all = sizes.loaded_bytes - sizes.shared_bytes;
    if (all < 2)
        return 0;
    options->resident_bytes = all - 1;
    if (tnd_plan_create(model, &sim->options, options, &plan) < 0)
        return 0;
    tnd_plan_sizes(plan, &sizes);
    tnd_plan_destroy(&plan);
    least = sizes.layer_bytes_max + sim->options.chunk_bytes;
    options->resident_bytes = least - 1;
    CHECK(tnd_plan_create(model, &sim->options, options, &plan) == -ENOMEM, "a window of %llu bytes",
          (unsigned long long)least - 1);
    return sim_draw_below(3) ? least + sim_draw_below(all - least) : least;
}

static void choose_order(struct watched *watched, struct tnd_load_options *options)
{
    const struct tnd_model *model = &watched->one->model;
    uint32_t *layers = calloc(model->layer_count, sizeof(*layers)), count = 0;

    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        bool there = false;

        for (uint32_t t = 0; t < model->tensor_count; t++)
            there = there || model->tensors[t].layer == (int32_t)layer;
        if (there)
            layers[count++] = layer;
    }
    watched->order = layers;
    watched->order_count = count;
    if (!count || sim_draw_below(2))
        return;
    watched->order_count = 1 + (uint32_t)sim_draw_below(2 * count);
    watched->order = calloc(watched->order_count, sizeof(*watched->order));
    for (uint32_t i = 0; i < watched->order_count; i++)
        watched->order[i] = layers[sim_draw_below(3) ? i % count : sim_draw_below(count)];
    free(layers);
    options->layer_order = watched->order;
    options->layer_order_count = watched->order_count;
}

static void start_load(struct sim *sim, struct watched *watched)
{
    struct tnd_load_options options = {.size = sizeof(options)};
    struct sim_load *one = watched->one;

    watched->sim = sim;
    watched->patient = sim_draw_below(2);
    watched->cancel_step = sim_draw_below(4) ? 0 : 1 + sim_draw_below(4000);
    watched->done = 1;
    watched->expected = calloc(one->model.tensor_count, sizeof(*watched->expected));
    watched->stages = calloc(one->model.layer_count + 2, sizeof(*watched->stages));
    options.in_place = (enum tnd_switch)sim_draw_below(3);
    if (sim_draw_below(5) == 0)
        options.dtype = (enum tnd_dtype[]){TND_F32, TND_F16, TND_BF16}[sim_draw_below(3)];
    options.lazy = (enum tnd_lazy)sim_draw_below(3);
    options.ahead = sim_draw_below(2) ? 0 : sim_draw_below(4) ? 1 + (uint32_t)sim_draw_below(6) : TND_AHEAD_NONE;
    choose_order(watched, &options);
    if (sim_draw_below(8))
        options.resident_bytes = choose_window(sim, &one->model, &options);
    if (!options.resident_bytes && !options.lazy)
        options.lazy = sim_draw_below(2) ? TND_LAZY_BACKGROUND : TND_LAZY_DEMAND;
    CHECK(tnd_load_start(&sim->loader, &one->model, &options, &one->load) == 0, "%s", tnd_last_error());
    watched->consumer_count = 1 + (uint32_t)sim_draw_below(CONSUMERS_MAX);
    for (uint32_t i = 0; i < watched->consumer_count; i++)
        watched->consumers[i] = (struct consumer){
            .at = sim_draw_below(2) ? 0 : (uint32_t)sim_draw_below(100),
            .left = 1 + (uint32_t)sim_draw_below(15),
        };
}

static void cancel(struct watched *watched)
{
    watched->one->canceled = true;
    tnd_load_cancel(watched->one->load);
}

/* Everybody is done with it: a load without a window comes to its end by itself, unless it cannot. */
static void come_to_end(struct watched *watched)
{
    int r;

    if (residency_of(watched)->slot_count) {
        cancel(watched);
        return;
    }
    r = tnd_load_wait(watched->one->load, 0);
    if (r == 0 || r == -EAGAIN)
        return;
    check_failure(watched, r);
    if (++watched->failures >= FAILURES_MAX)
        cancel(watched);
}

/* Whether the load has ended and nobody holds any of it. */
static bool is_over(struct watched *watched)
{
    bool all = true;

    for (uint32_t i = 0; i < watched->consumer_count; i++)
        all = all && is_done(&watched->consumers[i]);
    if (all && !has_ended(watched) && !watched->one->canceled)
        come_to_end(watched);
    return all && has_ended(watched);
}

static void replace_file(struct sim *sim, struct watched *watched)
{
    struct timespec then[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

    sim->cut = watched->replaced = true;
    futimens(watched->one->model.files[0].fd, then);
}

/* One thing happens, drawn. */
static void act(struct sim *sim)
{
    struct watched *watched = &all_watched[sim_draw_below(sim->load_count)];

    switch (sim_draw_below(7)) {
    case 0:
        tnd_pipeline_tick(&sim->loader.pipeline);
        break;
    case 1:
        tnd_pipeline_wait(&sim->loader.pipeline, 0);
        break;
    case 2:
        tnd_workers_run_one(sim->loader.workers);
        break;
    case 3:
        if (sim_draw_below(20) == 0)
            do_else(watched);
        else if (sim->hostile && sim_draw_below(2000) == 0)
            replace_file(sim, watched);
        break;
    default:
        consume(watched, &watched->consumers[sim_draw_below(watched->consumer_count)]);
    }
}

/* The load has ended: as it should, and what came to stay is what it was. */
static void check_end(struct watched *watched)
{
    const struct tnd_readiness *readiness = &watched->one->load->transfer.readiness;
    const struct tnd_residency *residency = &readiness->residency;

    if (readiness->end.result < 0)
        check_failure(watched, readiness->end.result);
    else
        CHECK(residency->resident == residency->selected, "%u of %u", residency->resident, residency->selected);
    for (uint32_t stage = 0; stage < residency->stage_count; stage++)
        if (residency->stages[stage].state == TND_STAGE_RESIDENT &&
            (!residency->slot_count || !is_layer(watched, stage)))
            compare_stage(watched, stage);
    CHECK(residency->stats.fetches == watched->fetches, "%llu fetches",
          (unsigned long long)residency->stats.fetches);
}

static void forget(struct watched *watched)
{
    for (uint32_t i = 0; i < watched->one->model.tensor_count; i++)
        free(watched->expected[i]);
    free(watched->expected);
    free(watched->stages);
    free(watched->order);
    *watched = (struct watched){0};
}

static void run_seed(uint64_t seed, uint64_t *ret_steps, uint64_t *ret_answers)
{
    struct sim sim = {0};
    bool over;

    sim_choose(&sim, seed, LOADS_MAX);
    if (sim_draw_below(4)) /* the least window has room for as many layers as fit a chunk */
        sim.options.chunk_bytes = 65536;
    sim.options.pool_bytes_max = tnd_round_down(sim.options.pool_bytes_max, sim.options.chunk_bytes);
    sim.engine.pause_per_mille = (uint32_t)(sim_draw_below(3) ? 0 : 50 + sim_draw_below(400));
    sim_start(&sim);
    sim.loader.trace = (struct tnd_trace){.write = on_trace, .cookie = all_watched};
    for (uint32_t i = 0; i < sim.load_count; i++) {
        struct sim_model_shape shape = {.tensors_max = 24, .scale_count = 5};

        shape.layer_count = 2 + (uint32_t)sim_draw_below(7);
        if (sim_draw_below(2))
            sim_model_make(&sim, &sim.loads[i].model, &shape);
        else
            make_even_model(&sim, &sim.loads[i].model);
    }
    if (sim.hostile && sim_draw_below(3) == 0) {
        sim.engine.cut_at = sim_draw_below(sim.engine.file_bytes + 1);
        sim.cut = true;
    }
    for (uint32_t i = 0; i < sim.load_count; i++) {
        all_watched[i].one = &sim.loads[i];
        start_load(&sim, &all_watched[i]);
    }
    for (uint32_t step = 1;; step++) {
        CHECK(step < SIM_STEPS_MAX, "no end");
        *ret_steps = step;
        for (uint32_t i = 0; i < sim.load_count; i++)
            if (step == sim_cancel_step || step == all_watched[i].cancel_step)
                cancel(&all_watched[i]);
        sim_pass_time(&sim, 400000);
        act(&sim);
        sim_check_pool(&sim.loader.pipeline);
        over = true;
        for (uint32_t i = 0; i < sim.load_count; i++) {
            check_load(&all_watched[i]);
            over = is_over(&all_watched[i]) && over;
        }
        if (over)
            break;
    }
    while (tnd_workers_run_one(sim.loader.workers))
        ;
    for (uint32_t i = 0; i < sim.load_count; i++)
        check_end(&all_watched[i]);
    *ret_answers = sim.engine.answers;
    sim_tear_down(&sim);
    for (uint32_t i = 0; i < sim.load_count; i++)
        forget(&all_watched[i]);
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t steps, answers, runs = 0;

    sim_init();
    for (uint64_t i = 0; i < count; i++, runs++)
        run_seed(first + i, &steps, &answers);
    for (uint64_t i = 0; argc <= 2 && i < tnd_min(FAULT_SEEDS, count / 1000); i++)
        runs += sim_each_fault(i + 1, run_seed);
    printf("%llu passed, 0 failed, 0 skipped\n", (unsigned long long)runs);
    return 0;
}
