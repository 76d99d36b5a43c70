/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a team does every part of its work once, in whatever order and however it slept, and idles for nothing.
 * Method: counts and grains of all shapes with teams of one to more threads than cores, thousands of tiny jobs one
 * behind the other, with and without pauses; the process's CPU time while a team idles. */

#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/team.h"
#include "support/suite.h"

#define COUNT_MAX 1000
#define SIZES 6

static const uint32_t sizes[SIZES] = {1, 2, 3, 4, 7, 16};

struct job {
    uint32_t size, count, grain;
    atomic_uint seen[COUNT_MAX];
    atomic_uint calls, wrong;
};

static void see(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    struct job *job = cookie;

    job->calls++;
    job->wrong += member >= job->size || from >= to || to > job->count;
    job->wrong += to != job->count && (to - from) % job->grain != 0;
    for (uint32_t i = from; i < to && i < COUNT_MAX; i++)
        job->seen[i]++;
}

static void run_and_check(struct team *team, uint32_t count, uint32_t grain)
{
    static struct job job;

    memset(&job, 0, sizeof(job));
    job.size = team_size(team);
    job.count = count;
    job.grain = grain;
    team_run(team, count, grain, see, &job);
    ck_assert_uint_eq(job.wrong, 0);
    ck_assert_uint_le(job.calls, (count + grain - 1) / grain);
    for (uint32_t i = 0; i < COUNT_MAX; i++)
        ck_assert_uint_eq(job.seen[i], i < count);
}

START_TEST(every_part_is_done_once)
{
    static const uint32_t counts[] = {0, 1, 2, 3, 31, 32, 33, 999, 1000}, grains[] = {1, 2, 7, 32, 1000, 4000000000};
    struct team *team;

    ck_assert_int_eq(team_create(sizes[_i], &team), 0);
    ck_assert_uint_eq(team_size(team), sizes[_i]);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        for (size_t j = 0; j < sizeof(grains) / sizeof(grains[0]); j++)
            run_and_check(team, counts[i], grains[j]);
    team_destroy(&team);
    ck_assert_ptr_null(team);
}
END_TEST

START_TEST(jobs_follow_one_another)
{
    struct team *team;

    ck_assert_int_eq(team_create(sizes[_i], &team), 0);
    for (uint32_t i = 0; i < 500; i++)
        run_and_check(team, i % 50, 1 + i % 3);
    for (uint32_t i = 0; i < 100; i++) { /* some members just went to sleep, some are about to */
        run_and_check(team, 40, 1);
        usleep(i);
    }
    team_destroy(&team);
}
END_TEST

/* What one job writes without atomics, the next one reads, on whichever thread. */
static void move_on(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    uint32_t *numbers = cookie;

    (void)member;
    for (uint32_t i = from; i < to; i++)
        numbers[COUNT_MAX + i] = numbers[COUNT_MAX - 1 - i] + 1;
}

START_TEST(jobs_see_what_earlier_ones_wrote)
{
    static uint32_t numbers[2 * COUNT_MAX];
    struct team *team;

    memset(numbers, 0, sizeof(numbers));
    ck_assert_int_eq(team_create(sizes[_i], &team), 0);
    for (uint32_t round = 1; round <= 50; round++) {
        team_run(team, COUNT_MAX, 10, move_on, numbers);
        memcpy(numbers, numbers + COUNT_MAX, sizeof(numbers) / 2);
        for (uint32_t i = 0; i < COUNT_MAX; i++)
            ck_assert_uint_eq(numbers[i], round);
    }
    team_destroy(&team);
}
END_TEST

/* Another member's part takes long: the caller sleeps until it is done. */
static void linger(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    atomic_uint *done = cookie;

    usleep(member != 0 ? 20000 : 1000);
    *done += to - from;
}

START_TEST(the_caller_waits_for_the_last_part)
{
    struct team *team;

    ck_assert_int_eq(team_create(3, &team), 0);
    for (int i = 0; i < 10; i++) {
        atomic_uint done = 0;

        team_run(team, 3, 1, linger, &done);
        ck_assert_uint_eq(done, 3);
    }
    team_destroy(&team);
}
END_TEST

/* Is over when all parts have begun, each on a member of its own, or after a while. */
static void meet(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    atomic_uint *begun = cookie;

    (void)member;
    *begun += to - from;
    for (int i = 0; i < 5000 && *begun % 3 != 0; i++)
        usleep(1000);
    if (*begun % 3 != 0)
        *begun += 1000;
}

START_TEST(those_who_sleep_are_woken)
{
    struct team *team;

    ck_assert_int_eq(team_create(3, &team), 0);
    for (int i = 0; i < 3; i++) {
        atomic_uint begun = 0;

        usleep(10000); /* all have gone to sleep */
        team_run(team, 3, 1, meet, &begun);
        ck_assert_uint_eq(begun, 3);
    }
    team_destroy(&team);
}
END_TEST

static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

START_TEST(an_idle_team_uses_no_cpu)
{
    struct team *team;
    double before;

    ck_assert_int_eq(team_create(4, &team), 0);
    run_and_check(team, 1000, 1);
    usleep(50000);
    before = cpu_seconds();
    usleep(300000);
    ck_assert_double_lt(cpu_seconds() - before, 0.01);
    team_destroy(&team);
}
END_TEST

START_TEST(teams_come_and_go)
{
    struct team *team = NULL;

    team_destroy(&team);
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(team_create((uint32_t)i % 5, &team), 0);
        ck_assert_uint_ge(team_size(team), 1);
        if (i % 2)
            run_and_check(team, 10, 1);
        team_destroy(&team);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker team");
    TCase *tests = tcase_create("worker team");

    tcase_add_loop_test(tests, every_part_is_done_once, 0, SIZES);
    tcase_add_loop_test(tests, jobs_follow_one_another, 0, SIZES);
    tcase_add_loop_test(tests, jobs_see_what_earlier_ones_wrote, 0, SIZES);
    tcase_add_test(tests, the_caller_waits_for_the_last_part);
    tcase_add_test(tests, those_who_sleep_are_woken);
    tcase_add_test(tests, an_idle_team_uses_no_cpu);
    tcase_add_test(tests, teams_come_and_go);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
