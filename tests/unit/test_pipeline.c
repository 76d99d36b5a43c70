/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: the pipeline's small decisions (how deep, in place or not, which buffer) and its workers.
 * Method: each told a made-up story of reads; the whole of it is what the simulation is for. */

#include <check.h>
#include <fenv.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "pipeline/depth.h"
#include "pipeline/pool.h"
#include "pipeline/trial.h"
#include "pipeline/workers.h"
#include "support/suite.h"

#define READ ((uint32_t)2 << 20)

/* A disk that gives its full rate from a depth on, before it in proportion. Returns where the depth settles. */
static uint32_t settle(uint32_t enough, uint32_t start, uint32_t most)
{
    struct tnd_depth depth;
    uint64_t now = 1;

    tnd_depth_init(&depth, start, most);
    for (int i = 0; i < 100000 && depth.phase != TND_DEPTH_SETTLED; i++) {
        uint32_t working = depth.depth < enough ? depth.depth : enough;

        now += 1000000 / working;
        tnd_depth_finished(&depth, READ, now);
        ck_assert_uint_le(depth.depth, most);
    }
    ck_assert_int_eq(depth.phase, TND_DEPTH_SETTLED);
    return depth.depth;
}

START_TEST(depth_rises_while_it_pays)
{
    ck_assert_uint_eq(settle(2, 4, 60), 4); /* one disk: no more than the start */
    ck_assert_uint_eq(settle(16, 4, 60), 16);
    ck_assert_uint_eq(settle(1000, 4, 60), 60);
    ck_assert_uint_eq(settle(1000, 8, 8), 8); /* given by the caller */
}
END_TEST

START_TEST(depth_forgets_what_was_interrupted)
{
    struct tnd_depth depth;

    tnd_depth_init(&depth, 4, 64);
    for (uint64_t i = 1; i < 1000; i++) { /* loads of 32 MiB with long pauses between measure nothing */
        if (i % 16 == 0)
            tnd_depth_interrupted(&depth);
        tnd_depth_finished(&depth, READ, i * 1000000);
    }
    ck_assert_uint_eq(depth.depth, 4);
    ck_assert_int_eq(depth.phase, TND_DEPTH_START);
}
END_TEST

/* Reads answered in order, each way at its own rate; whether in place wins. */
static bool try_both(uint64_t pool_ns, uint64_t place_ns, uint64_t load_bytes)
{
    struct tnd_trial trial = {0};
    uint64_t now = 1;
    int placed = 0;

    for (int i = 0; i < 200; i++) {
        bool place = tnd_trial_places(&trial, load_bytes);

        tnd_trial_issued(&trial, load_bytes, place, READ);
        placed += place;
        now += place ? place_ns : pool_ns;
        tnd_trial_finished(&trial, place, READ, now);
    }
    if (load_bytes < TND_TRIAL_LOAD_BYTES_MIN)
        ck_assert_int_eq(placed, 0);
    else
        ck_assert(!tnd_trial_running(&trial) && placed > 0);
    return tnd_trial_places(&trial, load_bytes);
}

START_TEST(trial_keeps_the_faster_landing)
{
    ck_assert(try_both(1000, 700, 1 << 30));
    ck_assert(!try_both(700, 1000, 1 << 30));
    ck_assert(!try_both(1000, 10, 1 << 20)); /* too small to try */
}
END_TEST

START_TEST(pool_is_hot_and_bounded)
{
    struct tnd_allocator allocator = tnd_allocator_or_default(NULL);
    struct tnd_waker waker;
    struct tnd_io_options options = {.engine = TND_ENGINE_NIL, .depth = 1, .allocator = allocator, .waker = &waker};
    struct tnd_io *io = NULL;
    struct tnd_pool pool;
    struct tnd_chunk *first, *second, *third, *bare;

    ck_assert_int_eq(tnd_waker_init(&waker), 0);
    ck_assert_int_eq(tnd_io_create(&io, &options, NULL), 0);
    ck_assert_int_eq(tnd_pool_init(&pool, &allocator, io, NULL, 65536, 2, 4, NULL), 0);
    first = tnd_pool_take(&pool, false);
    tnd_pool_move(&pool, first, TND_CHUNK_READING);
    second = tnd_pool_take(&pool, false);
    tnd_pool_move(&pool, second, TND_CHUNK_READING);
    ck_assert_uint_eq(pool.backed_count, 2);
    bare = tnd_pool_take(&pool, true);
    ck_assert_ptr_null(bare->buffer);
    tnd_pool_move(&pool, bare, TND_CHUNK_READING);
    tnd_pool_move(&pool, bare, TND_CHUNK_FREE);

    tnd_pool_move(&pool, first, TND_CHUNK_READY); /* the workers are behind: no further buffer */
    ck_assert_ptr_null(tnd_pool_take(&pool, false));
    tnd_pool_move(&pool, first, TND_CHUNK_WORKING);
    third = tnd_pool_take(&pool, false);
    ck_assert_ptr_nonnull(third);
    ck_assert_uint_eq(pool.backed_count, 3);
    tnd_pool_move(&pool, third, TND_CHUNK_READING);

    tnd_pool_move(&pool, second, TND_CHUNK_FREE);
    tnd_pool_move(&pool, first, TND_CHUNK_FREE);
    ck_assert_ptr_eq(tnd_pool_take(&pool, false), first); /* freed last */
    tnd_pool_move(&pool, first, TND_CHUNK_READING);
    tnd_pool_move(&pool, first, TND_CHUNK_FREE);
    tnd_pool_move(&pool, third, TND_CHUNK_FREE);
    ck_assert_uint_eq(pool.counts[TND_CHUNK_FREE], 4);
    tnd_io_destroy(&io);
    tnd_pool_finish(&pool);
    tnd_waker_finish(&waker);
}
END_TEST

struct counting_job {
    struct tnd_job job;
    atomic_int *count;
};

static void count_run(struct tnd_job *job, uint32_t worker)
{
    ck_assert_uint_lt(worker, 4);
    atomic_fetch_add(((struct counting_job *)job)->count, 1);
}

START_TEST(workers_run_every_job)
{
    struct tnd_allocator allocator = tnd_allocator_or_default(NULL);
    struct tnd_workers *workers = NULL;
    struct counting_job jobs[500];
    atomic_int count = 0;

    ck_assert_int_eq(tnd_workers_create(&workers, &allocator, 3), 0);
    for (int i = 0; i < 500; i++) {
        jobs[i] = (struct counting_job){.job.run = count_run, .count = &count};
        tnd_workers_submit(workers, &jobs[i].job, i % 3 == 0);
    }
    for (int i = 0; i < 20000 && atomic_load(&count) < 500; i++)
        usleep(1000);
    ck_assert_int_eq(atomic_load(&count), 500);
    tnd_workers_destroy(&workers);
}
END_TEST

static struct tnd_job *order[3];
static int ordered;

static void order_run(struct tnd_job *job, uint32_t worker)
{
    (void)worker;
    order[ordered++] = job;
}

static void rounding_run(struct tnd_job *job, uint32_t worker)
{
    volatile float third = 1.0f, divisor = 3.0f, subnormal = 0x1p-140f;

    (void)worker;
    third /= divisor;
    subnormal *= 0.5f;
    /* Upwards 1/3 would be 0x3EAAAAAB too, downwards not; -1/3 tells the two apart. */
    atomic_store(((struct counting_job *)job)->count, third == 0x1.555556p-2f && -divisor / 9.0f == -0x1.555556p-2f &&
                                                          subnormal == 0x1p-141f);
}

START_TEST(workers_round_to_nearest)
{
    struct tnd_allocator allocator = tnd_allocator_or_default(NULL);
    struct tnd_workers *workers = NULL;
    atomic_int right = 0;
    struct counting_job job = {.job.run = rounding_run, .count = &right};
    int before = fegetround();

    ck_assert_int_eq(fesetround(FE_UPWARD), 0); /* what threads inherit */
    ck_assert_int_eq(tnd_workers_create(&workers, &allocator, 1), 0);
    fesetround(before);
    tnd_workers_submit(workers, &job.job, true);
    tnd_workers_destroy(&workers);
    ck_assert_int_eq(right, 1);
}
END_TEST

START_TEST(workers_take_urgent_jobs_first)
{
    struct tnd_allocator allocator = tnd_allocator_or_default(NULL);
    struct tnd_workers *workers = NULL;
    struct tnd_job patient = {.run = order_run}, urgent = {.run = order_run}, later = {.run = order_run};

    ordered = 0;
    ck_assert_int_eq(tnd_workers_create(&workers, &allocator, 0), 0);
    tnd_workers_submit(workers, &patient, false);
    tnd_workers_submit(workers, &urgent, true);
    tnd_workers_submit(workers, &later, true);
    while (tnd_workers_run_one(workers))
        ;
    ck_assert_ptr_eq(order[0], &urgent);
    ck_assert_ptr_eq(order[1], &later);
    ck_assert_ptr_eq(order[2], &patient);
    tnd_workers_destroy(&workers);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pipeline");
    TCase *cases = tcase_create("pipeline");

    tcase_add_test(cases, depth_rises_while_it_pays);
    tcase_add_test(cases, depth_forgets_what_was_interrupted);
    tcase_add_test(cases, trial_keeps_the_faster_landing);
    tcase_add_test(cases, pool_is_hot_and_bounded);
    tcase_add_test(cases, workers_run_every_job);
    tcase_add_test(cases, workers_round_to_nearest);
    tcase_add_test(cases, workers_take_urgent_jobs_first);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
