/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: whatever the order and the outcome of reads and copies, a load ends, with the right bytes or the right error,
 * and no buffer is used by two at once.
 * Method: the whole pipeline on one thread, with an engine that answers late, out of order, short, with EAGAIN, with
 * an error or not before everybody has given up, workers that run when the schedule says so, a clock of our own,
 * several loads at once, tiny pools and cancels; all of it drawn from a seed. Each tensor is compared when it is
 * announced, not only at the end.
 *
 *   sim_pipeline [COUNT [FIRST]]     a failing seed N is run again with: sim_pipeline 1 N
 *
 * Without FIRST a few schedules are then run over and over with one fault each: every answer fails once, every step is
 * the one at which everything is canceled. */

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "kernels/hash.h"
#include "model/dtype.h"
#include "sim.h"

#define FAULT_SEEDS 40 /* at the most; a tenth of the others */

/* ---- Loads ------------------------------------------------------------------------------------------------- */

struct watched {
    struct sim_load *one;
    bool *seen; /* [tensor_count] compared when it was announced */
    uint8_t *memory; /* the caller's, for about half of the tensors; canaries around each */
    uint64_t memory_used, memory_bytes;
};

#define CANARY 0xC5
#define CANARY_BYTES 64

static void *place(void *cookie, const struct tnd_tensor *tensor)
{
    struct watched *watched = cookie;
    uint64_t at = tnd_round_up(watched->memory_used + CANARY_BYTES, 8);

    if (sim_draw_below(2) || at + tensor->bytes + CANARY_BYTES > watched->memory_bytes)
        return NULL;
    if (sim_draw_below(2)) /* as the file has it, so that it can land in place */
        at = tnd_round_up(at, 4096) + tensor->offset % 4096;
    if (at % tnd_dtype_info(tensor->dtype)->element_alignment ||
        at + tensor->bytes + CANARY_BYTES > watched->memory_bytes)
        return NULL;
    watched->memory_used = at + tensor->bytes;
    return watched->memory + at;
}

static void check_digest(const struct watched *watched, uint32_t index)
{
    uint64_t digest, bytes = tnd_plan_bytes(&watched->one->load->plan, index);

    if (!watched->one->load->transfer.digests)
        return;
    CHECK(tnd_load_tensor_digest(watched->one->load, index, &digest) == 0, "tensor %u", index);
    CHECK(digest == tnd_xxh3(watched->one->load->transfer.places[index], bytes), "tensor %u of %llu bytes", index,
          (unsigned long long)bytes);
}

static void compare_ready(struct watched *watched)
{
    for (uint32_t i = 0; i < watched->one->model.tensor_count; i++) {
        const void *data;

        if (watched->seen[i] || tnd_load_tensor_data(watched->one->load, i, &data) < 0)
            continue;
        watched->seen[i] = true;
        sim_compare(watched->one, i, data);
    }
}

/* Every byte of the caller's memory that no placed tensor covers. */
static void check_canaries(const struct watched *watched)
{
    bool *covered = calloc(watched->memory_bytes, sizeof(*covered));

    for (uint32_t i = 0; i < watched->one->load->plan.tensor_count; i++) {
        uint32_t index = watched->one->load->plan.tensors[i];
        uint64_t at = (uint64_t)(watched->one->load->transfer.places[index] - watched->memory);

        if (at < watched->memory_bytes)
            memset(covered + at, true, tnd_plan_bytes(&watched->one->load->plan, index));
    }
    for (uint64_t at = 0; at < watched->memory_bytes; at++)
        CHECK(covered[at] || watched->memory[at] == CANARY, "written to at %llu", (unsigned long long)at);
    free(covered);
}

static void start_load(struct sim *sim, struct watched *watched)
{
    struct tnd_load_options options = {.size = sizeof(options)};
    static const struct tnd_dtype_rule rule = {.pattern = "blk.?.w1*", .dtype = TND_F32};
    struct sim_load *one = watched->one;

    watched->seen = calloc(one->model.tensor_count, sizeof(bool));
    watched->memory_bytes = 512 << 10;
    watched->memory = aligned_alloc(4096, watched->memory_bytes);
    memset(watched->memory, CANARY, watched->memory_bytes);
    options.order = sim_draw_below(2) ? TND_ORDER_USE : TND_ORDER_FILE;
    options.in_place = (enum tnd_switch)sim_draw_below(3);
    options.digest = sim_draw_below(4) ? TND_DIGEST_OFF : TND_DIGEST_XXH3;
    if (sim_draw_below(4) == 0) { /* not more: the references take their time */
        options.dtype = (enum tnd_dtype[]){TND_DTYPE_NONE, TND_F32, TND_F16, TND_BF16}[sim_draw_below(4)];
        options.rules = &rule;
        options.rule_count = (uint32_t)sim_draw_below(2);
    }
    if (sim_draw_below(2)) {
        options.place = place;
        options.place_cookie = watched;
    }
    CHECK(tnd_load_start(&sim->loader, &one->model, &options, &one->load) == 0, "%s", tnd_last_error());
}

/* The load has ended: as it should, and nothing wrote to what had arrived since. */
static void check_end(const struct sim *sim, const struct watched *watched)
{
    const struct sim_load *one = watched->one;
    int r = tnd_load_wait(one->load, 0);

    if (r == 0)
        for (uint32_t t = 0; t < one->model.tensor_count; t++) {
            CHECK(watched->seen[t], "tensor %u never arrived", t);
            check_digest(watched, t);
        }
    else if (r == -ECANCELED)
        CHECK(one->canceled, "%s", tnd_load_error(one->load));
    else if (r == -EBADMSG)
        CHECK(sim->cut, "%s", tnd_load_error(one->load));
    else
        CHECK(r == -EIO && (sim->engine.errors_given || sim->cut || sim->engine.hang_per_mille), "%d: %s", r,
              tnd_load_error(one->load));
    for (uint32_t t = 0; t < one->model.tensor_count; t++)
        if (watched->seen[t])
            sim_compare(one, t, one->load->transfer.places[t]);
    check_canaries(watched);
}

/* One thing happens, drawn. */
static void act(struct sim *sim)
{
    switch (sim_draw_below(4)) {
    case 0:
        tnd_pipeline_tick(&sim->loader.pipeline);
        break;
    case 1:
        tnd_pipeline_wait(&sim->loader.pipeline, 0);
        break;
    case 2:
        tnd_workers_run_one(sim->loader.workers);
        break;
    default:
        if (sim_draw_below(2000) == 0) {
            struct sim_load *one = &sim->loads[sim_draw_below(sim->load_count)];

            one->canceled = true;
            tnd_load_cancel(one->load);
        }
    }
}

/* Returns how many steps it took and how many answers were given. */
static void run_seed(uint64_t seed, uint64_t *ret_steps, uint64_t *ret_answers)
{
    static const struct sim_model_shape shape = {.tensors_max = 40, .layer_count = 6, .scale_count = 5};
    struct sim sim = {0};
    struct watched watched[SIM_LOADS_MAX] = {0};

    sim_choose(&sim, seed, SIM_LOADS_MAX);
    sim_start(&sim);
    for (uint32_t i = 0; i < sim.load_count; i++)
        sim_model_make(&sim, &sim.loads[i].model, &shape);
    if (sim.hostile && sim_draw_below(2)) {
        sim.engine.cut_at = sim_draw_below(sim.engine.file_bytes + 1);
        sim.cut = true;
    }
    for (uint32_t i = 0; i < sim.load_count; i++) {
        watched[i].one = &sim.loads[i];
        start_load(&sim, &watched[i]);
    }
    for (uint32_t step = 1;; step++) {
        bool all = true;

        CHECK(step < SIM_STEPS_MAX, "no end");
        *ret_steps = step;
        for (uint32_t i = 0; i < sim.load_count && step == sim_cancel_step; i++) {
            sim.loads[i].canceled = true;
            tnd_load_cancel(sim.loads[i].load);
        }
        sim_pass_time(&sim, 400000);
        act(&sim);
        sim_check_pool(&sim.loader.pipeline);
        for (uint32_t i = 0; i < sim.load_count; i++) {
            compare_ready(&watched[i]);
            all = all && tnd_load_wait(sim.loads[i].load, 0) != -EAGAIN;
        }
        if (all)
            break;
    }
    while (tnd_workers_run_one(sim.loader.workers))
        ;
    for (uint32_t i = 0; i < sim.load_count; i++)
        check_end(&sim, &watched[i]);
    *ret_answers = sim.engine.answers;
    sim_tear_down(&sim);
    for (uint32_t i = 0; i < sim.load_count; i++) {
        free(watched[i].seen);
        free(watched[i].memory);
    }
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t steps, answers, runs = 0;

    sim_init();
    for (uint64_t i = 0; i < count; i++, runs++)
        run_seed(first + i, &steps, &answers);
    for (uint64_t i = 0; argc <= 2 && i < tnd_min(FAULT_SEEDS, count / 10); i++)
        runs += sim_each_fault(i + 1, run_seed);
    printf("%llu passed, 0 failed, 0 skipped\n", (unsigned long long)runs);
    return 0;
}
