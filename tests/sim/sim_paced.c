/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: layers in a window are there when they are used, as far as the disk can do that, and no more is read for it
 * than it takes.
 * Method: the whole pipeline on one thread and a clock of our own, with a disk and a consumer of given speeds: counted
 * stall by stall, and the bytes read against Belady's optimum and against the policy alone. Prints how close it was. */

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "options.h"
#include "sim.h"

/* ---- A disk and a consumer --------------------------------------------------------------------------------- */

#define LAYERS_MAX 32
#define CHUNK_BYTES 65536

/* A disk that does one read after the other, at one nanosecond a byte. */
static uint64_t disk_free_ns, disk_done_ns[SIM_PENDING_MAX];

static void disk_submit(struct tnd_io_engine *base, struct tnd_io_read *read)
{
    struct sim_engine *engine = (struct sim_engine *)base;

    CHECK(engine->pending_count < SIM_PENDING_MAX, "too many reads");
    disk_free_ns = tnd_max(disk_free_ns, sim_clock_ns) + read->bytes;
    disk_done_ns[engine->pending_count] = disk_free_ns;
    engine->pending[engine->pending_count++] = read;
}

static struct tnd_io_read *disk_reap(struct tnd_io_engine *base)
{
    struct sim_engine *engine = (struct sim_engine *)base;
    struct tnd_io_read *read = engine->pending[0];

    if (!engine->pending_count || disk_done_ns[0] > sim_clock_ns)
        return NULL;
    engine->pending_count--;
    memmove(engine->pending, engine->pending + 1, engine->pending_count * sizeof(engine->pending[0]));
    memmove(disk_done_ns, disk_done_ns + 1, engine->pending_count * sizeof(disk_done_ns[0]));
    sim_deliver(read, read->bytes);
    read->answer = read->bytes;
    read->next = NULL;
    return read;
}

struct paced {
    /* What is tried. */
    uint32_t layer_count;
    uint64_t layer_bytes[LAYERS_MAX]; /* multiples of 4096; to read one takes as many nanoseconds */
    uint64_t shared_bytes;                  /* the same for shared-out */
    uint32_t slots; /* 0: no window */
    uint32_t ahead;
    const uint32_t *order; /* of layers; NULL: 0, 1, … */
    uint32_t order_count;
    uint64_t compute_ns;   /* a layer */
    uint32_t passes;       /* through the order */
    uint32_t settled;      /* the pass from which on `later` counts */
    bool replays;

    /* What came of it. */
    struct tnd_layer_stats first, later, all; /* of the first pass, from the settled one on, of all */
    struct tnd_layer_stats alone; /* replays: of the policy without a pipeline */
    uint64_t wall_ns;
};

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void pump(struct sim *sim)
{
    bool moved = true;

    while (moved) {
        moved = tnd_pipeline_tick(&sim->loader.pipeline);
        moved |= tnd_pipeline_wait(&sim->loader.pipeline, 0);
        while (tnd_workers_run_one(sim->loader.workers))
            moved = true;
    }
}

/* The clock goes on to the disk's next answer, but not beyond until_ns. False when it is until_ns. */
static bool next_answer(struct sim *sim, uint64_t until_ns)
{
    bool answers = sim->engine.pending_count && disk_done_ns[0] <= until_ns;

    CHECK(answers || until_ns != UINT64_MAX, "a layer is waited for, and none is read");
    sim_clock_ns = answers ? disk_done_ns[0] : until_ns;
    if (answers)
        pump(sim);
    return answers;
}

static void use_layer(struct sim *sim, const struct paced *paced, struct tnd_load *load, int32_t layer)
{
    uint64_t until;
    int r;

    while ((r = tnd_layer_acquire(load, layer, 0)) == -EAGAIN) {
        pump(sim);
        next_answer(sim, UINT64_MAX);
    }
    CHECK(r == 0, "%s", tnd_last_error());
    pump(sim);
    for (until = sim_clock_ns + paced->compute_ns; next_answer(sim, until);)
        ;
    CHECK(tnd_layer_release(load, layer) == 0, "%s", tnd_last_error());
}

/* b since a. */
static struct tnd_layer_stats since(const struct tnd_layer_stats *a, const struct tnd_layer_stats *b)
{
    return (struct tnd_layer_stats){
        .acquires = b->acquires - a->acquires,
        .hits = b->hits - a->hits,
        .late_hits = b->late_hits - a->late_hits,
        .sync_loads = b->sync_loads - a->sync_loads,
        .stalled_ns = b->stalled_ns - a->stalled_ns,
        .fetches = b->fetches - a->fetches,
        .bytes_fetched = b->bytes_fetched - a->bytes_fetched,
        .bytes_reread = b->bytes_reread - a->bytes_reread,
        .ahead = b->ahead,
    };
}

static void make_paced_model(struct sim *sim, const struct paced *paced)
{
    struct tnd_model *model = &sim->loads[0].model;
    uint64_t offset = 0;
    char name[64];

    sim_model_begin(model, paced->layer_count + 1);
    for (uint32_t i = 0; i < paced->layer_count; i++) {
        snprintf(name, sizeof(name), "blk.%u.w", (unsigned)i);
        sim_model_add(model, name, TND_U8, paced->layer_bytes[i], offset);
        offset += paced->layer_bytes[i];
    }
    if (paced->shared_bytes)
        sim_model_add(model, "output", TND_U8, paced->shared_bytes, offset);
    sim_model_end(sim, model, paced->layer_count, offset + paced->shared_bytes);
}

static struct tnd_load_options paced_options(const struct paced *paced)
{
    uint64_t largest = 0;

    for (uint32_t i = 0; i < paced->layer_count; i++)
        largest = tnd_max(largest, paced->layer_bytes[i]);
    return (struct tnd_load_options){
        .size = sizeof(struct tnd_load_options),
        .lazy = TND_LAZY_BACKGROUND,
        .resident_bytes = paced->slots * largest,
        .layer_order = paced->order,
        .layer_order_count = paced->order_count,
        .ahead = paced->ahead,
    };
}

static void use_layers(struct sim *sim, struct paced *paced, struct tnd_load *load)
{
    uint32_t count = paced->order ? paced->order_count : paced->layer_count;
    uint64_t start = sim_clock_ns;
    struct tnd_layer_stats none = {0}, before = {0};

    for (uint32_t pass = 0; pass < paced->passes; pass++) {
        if (pass == paced->settled)
            tnd_layer_stats(load, &before);
        for (uint32_t i = 0; i < count; i++)
            use_layer(sim, paced, load, (int32_t)(paced->order ? paced->order[i] : i));
        if (pass == 0)
            tnd_layer_stats(load, &paced->first);
    }
    paced->wall_ns = sim_clock_ns - start;
    tnd_layer_stats(load, &paced->all);
    paced->all = since(&none, &paced->all);
    paced->later = since(&before, &paced->all);
}

/* What the policy does alone, where a layer is there as soon as it is picked. */
static void replay(struct paced *paced, const struct tnd_model *model)
{
    struct tnd_load_options options = paced_options(paced);
    struct tnd_loader_options loader = {.chunk_bytes = CHUNK_BYTES};
    struct tnd_plan_options planned = tnd_plan_options_of(&loader, &options);
    struct tnd_residency residency;
    struct tnd_pick pick;
    struct tnd_plan plan;
    struct tnd_err err = {0};
    uint64_t now = 1;

    CHECK(tnd_plan_init(&plan, model, &planned, &err) == 0, "%s", err.text);
    CHECK(tnd_residency_init(&residency, &plan, &options, &err) == 0, "%s", err.text);
    CHECK(tnd_residency_set_slots(&residency, &plan, paced->slots, &err) == 0, "%s", err.text);
    for (uint32_t at = 0; at < paced->passes * paced->order_count; at++) {
        uint32_t stage = 1 + paced->order[at % paced->order_count];

        while (tnd_residency_acquire(&residency, stage, false, NULL, now++, &err) == 0) {
            CHECK(tnd_residency_pick(&residency, now, &pick) && pick.begins, "nothing is read for layer %u", stage - 1);
            tnd_residency_issued(&residency, pick.stage);
            tnd_residency_fetched(&residency, pick.stage, now);
        }
        while (tnd_residency_pick(&residency, now, &pick)) {
            tnd_residency_issued(&residency, pick.stage);
            tnd_residency_fetched(&residency, pick.stage, now);
        }
        residency.stages[stage].acquired--;
    }
    paced->alone = residency.stats;
    tnd_plan_finish(&plan);
}

static void start_paced(struct sim *sim, const struct paced *paced)
{
    struct tnd_load_options options = paced_options(paced);
    struct sim_load *one = &sim->loads[0];

    *sim = (struct sim){.load_count = 1, .depth_max = 4, .direct = TND_OFF};
    sim_clock_ns = (uint64_t)1 << 50; /* days */
    disk_free_ns = 0;
    sim->options = (struct tnd_loader_options){.chunk_bytes = CHUNK_BYTES, .depth = 4, .pool_bytes_max = 1 << 20};
    sim->engine.ops = (struct tnd_io_engine_ops){.submit = disk_submit, .reap = disk_reap};
    sim_start(sim);
    make_paced_model(sim, paced);
    CHECK(tnd_load_start(&sim->loader, &one->model, &options, &one->load) == 0, "%s", tnd_last_error());
    CHECK(one->load->layout.slot_count == paced->slots, "%u slots", one->load->layout.slot_count);
}

static void stop_paced(struct sim *sim)
{
    tnd_load_cancel(sim->loads[0].load);
    while (!atomic_load(&sim->loads[0].load->transfer.readiness.ended)) {
        sim_clock_ns += CHUNK_BYTES;
        pump(sim);
    }
    sim_tear_down(sim);
}

static void run_paced(struct paced *paced)
{
    struct sim sim;

    start_paced(&sim, paced);
    use_layers(&sim, paced, sim.loads[0].load);
    if (paced->replays)
        replay(paced, &sim.loads[0].model);
    stop_paced(&sim);
}

static struct paced even(uint32_t layer_count, uint64_t layer_bytes, uint32_t slots)
{
    struct paced paced = {.layer_count = layer_count, .slots = slots < layer_count ? slots : 0, .passes = 1};

    for (uint32_t i = 0; i < layer_count; i++)
        paced.layer_bytes[i] = layer_bytes;
    return paced;
}

/* To compute takes as long as to read, or longer: the first layer is waited for, and none after it. */
static uint64_t compute_hides_reads(void)
{
    static const uint32_t slots[] = {32, 16, 8, 3}, percents[] = {100, 125, 200};
    static const uint64_t shared[] = {0, 4096, 4 * CHUNK_BYTES};
    uint64_t runs = 0;

    for (uint32_t i = 0; i < 4 * 3 * 3; i++, runs++) {
        struct paced paced = even(32, 2 * CHUNK_BYTES, slots[i % 4]);

        paced.compute_ns = paced.layer_bytes[0] * percents[i / 4 % 3] / 100;
        paced.shared_bytes = shared[i / 12];
        paced.passes = 6;
        paced.settled = 1;
        run_paced(&paced);
        CHECK(paced.first.acquires == 32 && paced.first.sync_loads == 1 && paced.first.hits == 31,
              "%u slots, %u%%, first pass: %llu hits, %llu synchronous", paced.slots, percents[i / 4 % 3],
              (unsigned long long)paced.first.hits, (unsigned long long)paced.first.sync_loads);
        CHECK(paced.later.acquires == 5 * 32 && paced.later.hits == 5 * 32 && !paced.later.stalled_ns,
              "%u slots, %u%%: %llu hits", paced.slots, percents[i / 4 % 3], (unsigned long long)paced.later.hits);
    }
    return runs;
}

/* Without a layer fetched ahead each one that is not there is waited for: the counts can be other ones. */
static uint64_t nothing_ahead_hides_nothing(void)
{
    struct paced paced = even(32, 2 * CHUNK_BYTES, 3);

    paced.compute_ns = 2 * paced.layer_bytes[0];
    paced.ahead = TND_AHEAD_NONE;
    run_paced(&paced);
    CHECK(paced.first.sync_loads == 32 && paced.first.stalled_ns == 32 * paced.layer_bytes[0],
          "%llu synchronous, stalled for %llu ns", (unsigned long long)paced.first.sync_loads,
          (unsigned long long)paced.first.stalled_ns);
    return 1;
}

/* Two ask again and again for different layers of a window that has room for one: each gets its own in time. */
static uint64_t both_of_two_get_theirs(void)
{
    struct paced paced = even(8, CHUNK_BYTES, 2);
    struct tnd_load *load;
    struct sim sim;
    uint64_t taken[2] = {0};

    start_paced(&sim, &paced);
    load = sim.loads[0].load;
    use_layer(&sim, &paced, load, 7); /* has the other place */
    CHECK(tnd_layer_pin(load, 7, true) == 0, "%s", tnd_last_error());
    for (uint32_t turn = 0; turn < 1000; turn++) {
        pump(&sim);
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t who = (turn + i) % 2;
            int32_t layer = (int32_t)(taken[who] % 3 + 3 * who);

            if (tnd_layer_acquire(load, layer, 0) < 0)
                continue;
            taken[who]++;
            CHECK(tnd_layer_release(load, layer) == 0, "%s", tnd_last_error());
        }
        sim_clock_ns += CHUNK_BYTES / 4;
    }
    CHECK(taken[0] > 40 && taken[1] > 40, "%llu and %llu", (unsigned long long)taken[0], (unsigned long long)taken[1]);
    stop_paced(&sim);
    return 1;
}

/* To read takes longer, in sum too: the disk never rests for long, as many layers ahead as it takes. */
static uint64_t reads_never_rest(void)
{
    static const uint32_t slots[] = {16, 8, 4, 3}, percents[] = {25, 50};
    uint64_t runs = 0;
    double worst = 0;

    for (uint32_t i = 0; i < 4 * 2; i++, runs++) {
        struct paced paced = even(32, 2 * CHUNK_BYTES, slots[i % 4]);

        paced.layer_bytes[31] = 0; /* tells nothing of the disk */
        paced.compute_ns = paced.layer_bytes[0] * percents[i / 4] / 100;
        paced.passes = 12;
        run_paced(&paced);
        CHECK(paced.all.ahead == paced.first.ahead, "%u ahead, then %u", paced.first.ahead, paced.all.ahead);
        CHECK(paced.wall_ns * 100 <= paced.all.bytes_fetched * 105,
              "%u slots, %u%%, %u ahead: %llu ns, %llu of them to read", paced.slots, percents[i / 4], paced.all.ahead,
              (unsigned long long)paced.wall_ns, (unsigned long long)paced.all.bytes_fetched);
        worst = larger(worst, (double)paced.wall_ns / (double)paced.all.bytes_fetched);
    }
    printf("read-bound: time / pure reading time at most %.3f in %llu cases\n", worst, (unsigned long long)runs);
    return runs;
}

/* ---- What is read, against the optimum --------------------------------------------------------------------- */

/* Layers that Belady's algorithm brings in from the settled pass on, with so many places. */
static uint64_t optimum(const struct paced *paced, uint32_t places)
{
    uint32_t uses = paced->order_count * paced->passes, count = 0;
    uint64_t fetches = 0;
    bool there[LAYERS_MAX] = {false};

    for (uint32_t at = 0; at < uses; at++) {
        uint32_t layer = paced->order[at % paced->order_count], victim = 0, farthest = 0;

        if (there[layer])
            continue;
        fetches += at >= paced->settled * paced->order_count;
        for (uint32_t other = 0; other < paced->layer_count && count == places; other++) {
            uint32_t next = at + 1;

            while (next < uses && paced->order[next % paced->order_count] != other)
                next++;
            if (there[other] && next > farthest) {
                farthest = next;
                victim = other;
            }
        }
        if (count == places)
            there[victim] = false;
        else
            count++;
        there[layer] = true;
    }
    return fetches;
}

/* The orders that are tried: all layers; two of three; all, and then every second one. */
static uint32_t make_order(uint32_t kind, uint32_t layer_count, uint32_t *order)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < layer_count; i++)
        if (kind != 1 || i % 3 != 1)
            order[count++] = i;
    for (uint32_t i = 0; i < layer_count && kind == 2; i += 2)
        order[count++] = i;
    return count;
}

static uint64_t reads_no_more_than_the_optimum(void)
{
    static const uint32_t layer_counts[] = {8, 32};
    uint32_t order[2 * LAYERS_MAX];
    uint64_t runs = 0;
    double worst = 0;

    for (uint32_t i = 0; i < 2 * 3 * 3; i++) {
        uint32_t layer_count = layer_counts[i % 2], kind = i / 2 % 3, ahead = 1 + i / 6;
        uint32_t order_count = make_order(kind, layer_count, order);

        for (uint32_t slots = ahead + 2; slots < layer_count; slots++, runs++) {
            struct paced paced = even(layer_count, 32768, slots);
            uint64_t least;

            paced.ahead = ahead;
            paced.order = order;
            paced.order_count = order_count;
            paced.compute_ns = 2 * paced.layer_bytes[0];
            paced.passes = 24;
            paced.settled = 4;
            run_paced(&paced);
            least = optimum(&paced, slots - ahead);
            CHECK(paced.later.bytes_reread * 100 <= least * paced.layer_bytes[0] * 102,
                  "order %u of %u layers, %u slots, %u ahead: %llu bytes, the optimum reads %llu layers", kind,
                  layer_count, slots, ahead, (unsigned long long)paced.later.bytes_reread, (unsigned long long)least);
            CHECK(paced.later.fetches + slots >= optimum(&paced, slots), "the optimum is none: %llu fetches",
                  (unsigned long long)paced.later.fetches);
            worst = larger(worst, (double)paced.later.bytes_reread / (double)(least * paced.layer_bytes[0]));
        }
    }
    printf("read again / the optimum of a window smaller by what is fetched ahead: at most %.3f in %llu cases\n", worst,
           (unsigned long long)runs);
    return runs;
}

/* Layers of all sizes: the pipeline brings in what the policy alone does. */
static uint64_t reads_what_the_policy_says(void)
{
    uint32_t order[2 * LAYERS_MAX];
    uint64_t runs = 0;

    for (; runs < 200; runs++) {
        struct paced paced = {.order = order, .passes = 8, .replays = true};
        uint64_t all = CHUNK_BYTES;

        paced.layer_count = 4 + (uint32_t)sim_draw_below(12);
        paced.layer_bytes[0] = CHUNK_BYTES;
        for (uint32_t i = 1; i < paced.layer_count; i++) {
            paced.layer_bytes[i] = 4096 * (8 + sim_draw_below(9));
            all += paced.layer_bytes[i];
        }
        paced.order_count = 1 + (uint32_t)sim_draw_below(2 * paced.layer_count);
        for (uint32_t i = 0; i < paced.order_count; i++)
            order[i] = (uint32_t)(sim_draw_below(4) ? i % paced.layer_count : sim_draw_below(paced.layer_count));
        paced.slots = 2 + (uint32_t)sim_draw_below((all - 1) / CHUNK_BYTES - 1); /* in fewer bytes than all layers */
        paced.ahead = sim_draw_below(4) ? 1 + (uint32_t)sim_draw_below(5) : TND_AHEAD_NONE;
        paced.compute_ns = paced.layer_count * CHUNK_BYTES; /* what is due is there before the next one is used */
        run_paced(&paced);
        CHECK(paced.all.fetches == paced.alone.fetches && paced.all.bytes_reread == paced.alone.bytes_reread,
              "%u layers, %u slots, ahead %u, order of %u: %llu fetches, alone %llu", paced.layer_count, paced.slots,
              paced.ahead, paced.order_count, (unsigned long long)paced.all.fetches,
              (unsigned long long)paced.alone.fetches);
    }
    return runs;
}

int main(void)
{
    uint64_t runs = 0;

    sim_init();
    sim_reseed(1);
    runs += compute_hides_reads();
    runs += nothing_ahead_hides_nothing();
    runs += reads_never_rest();
    runs += both_of_two_get_theirs();
    runs += reads_no_more_than_the_optimum();
    runs += reads_what_the_policy_says();
    printf("%llu passed, 0 failed, 0 skipped\n", (unsigned long long)runs);
    return 0;
}
