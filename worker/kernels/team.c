/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/team.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MEMBERS_MAX 1024
/* How long a member looks for more before it sleeps: longer than what lies between two products of a layer, shorter
 * than anybody would notice. */
#define SPIN_NS 30000
#define SPINS_PER_CLOCK 32

/* What is shared out. Its parts are claimed off the end: a ticket is the job's number in its upper half and, in its
 * lower one, how much is left. A member reads ticket, then job, and claims by exchanging the ticket it read; while
 * something is left of it the job does not change, and one that is read too late comes with a ticket that no longer
 * holds. So nobody waits for a member that slept through a job. */
struct team {
    _Atomic uint64_t ticket;
    _Atomic uint32_t grain;
    _Atomic(team_fn) work;
    void *_Atomic cookie;
    _Atomic uint32_t count;

    _Alignas(64) _Atomic uint32_t done; /* of count; the caller sleeps on it */
    atomic_bool caller_sleeps;

    _Alignas(64) _Atomic uint32_t epoch; /* jobs so far; members sleep on it */
    _Atomic uint32_t sleeping;
    atomic_bool stopping;

    uint32_t size;
    struct member {
        struct team *team;
        uint32_t index;
        pthread_t thread;
    } members[]; /* [size - 1], the caller is none of them */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, uint32_t threads)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Looks at *word for a while; true once it is not value any more. */
static bool spin_while(_Atomic uint32_t *word, uint32_t value)
{
    uint64_t end = now_ns() + SPIN_NS;

    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value)
                return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    } while (now_ns() < end);
    return false;
}

/* Claims a part and works it. False: none is left. */
static bool work_part(struct team *team, uint32_t member)
{
    uint64_t ticket = atomic_load(&team->ticket);
    uint32_t left, count, grain, part;
    team_fn work;
    void *cookie;

    do {
        left = (uint32_t)ticket;
        if (left == 0)
            return false;
        count = atomic_load_explicit(&team->count, memory_order_relaxed);
        grain = atomic_load_explicit(&team->grain, memory_order_relaxed);
        work = atomic_load_explicit(&team->work, memory_order_relaxed);
        cookie = atomic_load_explicit(&team->cookie, memory_order_relaxed);
        part = left < grain ? left : grain;
    } while (!atomic_compare_exchange_weak(&team->ticket, &ticket, ticket - part));

    work(cookie, member, count - left, count - left + part);
    if (atomic_fetch_add(&team->done, part) + part == count && atomic_load(&team->caller_sleeps))
        futex_wake(&team->done, 1);
    return true;
}

static void *member_run(void *argument)
{
    struct member *member = argument;
    struct team *team = member->team;

    for (;;) {
        uint32_t epoch = atomic_load(&team->epoch);

        while (work_part(team, member->index))
            ;
        if (atomic_load(&team->stopping))
            return NULL;
        if (spin_while(&team->epoch, epoch))
            continue;
        atomic_fetch_add(&team->sleeping, 1);
        futex_wait(&team->epoch, epoch);
        atomic_fetch_sub(&team->sleeping, 1);
    }
}

/* Something new is there for so many others. */
static void call_others(struct team *team, uint32_t others)
{
    atomic_fetch_add(&team->epoch, 1);
    if (atomic_load(&team->sleeping) > 0)
        futex_wake(&team->epoch, others);
}

static void wait_done(struct team *team, uint32_t count)
{
    uint32_t done;

    while ((done = atomic_load(&team->done)) != count) {
        if (spin_while(&team->done, done))
            continue;
        atomic_store(&team->caller_sleeps, true);
        futex_wait(&team->done, done);
        atomic_store(&team->caller_sleeps, false);
    }
}

void team_run(struct team *team, uint32_t count, uint32_t grain, team_fn work, void *cookie)
{
    uint64_t job = (atomic_load_explicit(&team->ticket, memory_order_relaxed) >> 32) + 1;
    uint32_t parts;

    if (count == 0)
        return;
    parts = (count - 1) / grain + 1;
    if (team->size == 1 || parts == 1) {
        work(cookie, 0, 0, count);
        return;
    }
    atomic_store_explicit(&team->count, count, memory_order_relaxed);
    atomic_store_explicit(&team->grain, grain, memory_order_relaxed);
    atomic_store_explicit(&team->work, work, memory_order_relaxed);
    atomic_store_explicit(&team->cookie, cookie, memory_order_relaxed);
    atomic_store_explicit(&team->done, 0, memory_order_relaxed);
    atomic_store(&team->ticket, job << 32 | count);
    call_others(team, parts - 1 < INT_MAX ? parts - 1 : INT_MAX);
    while (work_part(team, 0))
        ;
    wait_done(team, count);
}

uint32_t team_size(const struct team *team)
{
    return team->size;
}

/* Cores' time that a cgroup may take, rounded up; UINT32_MAX: as much as there is. */
static uint32_t quota_of(const char *group)
{
    char path[PATH_MAX];
    unsigned long long quota, period;
    uint32_t most = UINT32_MAX;
    FILE *file;

    if (snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group) >= (int)sizeof(path))
        return most;
    file = fopen(path, "re");
    if (file && fscanf(file, "%llu %llu", &quota, &period) == 2 && period > 0 && quota / period < most)
        most = (uint32_t)((quota + period - 1) / period);
    if (file)
        fclose(file);
    return most > 0 ? most : 1;
}

/* The least of what its cgroup and those above it may take. */
static uint32_t quota(void)
{
    char line[PATH_MAX], *group = NULL;
    FILE *file = fopen("/proc/self/cgroup", "re");
    uint32_t least = UINT32_MAX;

    while (file && !group && fgets(line, sizeof(line), file))
        group = strncmp(line, "0::/", 4) == 0 ? line + 3 : NULL;
    if (file)
        fclose(file);
    if (!group)
        return least;
    group[strcspn(group, "\n")] = '\0';
    for (char *end = group + strlen(group); end; end = strrchr(group, '/')) {
        uint32_t most;

        *end = '\0';
        most = quota_of(group);
        least = most < least ? most : least;
    }
    return least;
}

/* That this process may run on at once; at least 1. */
static uint32_t cores(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t count = online > 0 ? (uint32_t)online : 1, most = quota();
    cpu_set_t set;

    /* Refused where there are more than the set has room for. */
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        count = (uint32_t)CPU_COUNT(&set);
    return count < most ? count : most;
}

/* Signals are for the caller's other threads. */
static int start(struct member *member)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&member->thread, NULL, member_run, member);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

int team_create(uint32_t thread_count, struct team **ret_team)
{
    uint32_t size = thread_count ? thread_count : cores();
    struct team *team;
    size_t bytes;
    int r;

    if (size > MEMBERS_MAX)
        size = MEMBERS_MAX;
    bytes = (sizeof(*team) + (size - 1) * sizeof(struct member) + 63) / 64 * 64;
    team = aligned_alloc(64, bytes);
    if (!team)
        return -ENOMEM;
    *team = (struct team){.size = 1};
    while (team->size < size) {
        struct member *member = &team->members[team->size - 1];

        *member = (struct member){.team = team, .index = team->size};
        r = start(member);
        if (r < 0 && thread_count == 0) /* as many as may be had */
            break;
        if (r < 0) {
            team_destroy(&team);
            return r;
        }
        team->size++;
    }
    *ret_team = team;
    return 0;
}

void team_destroy(struct team **team)
{
    struct team *old = *team;

    if (!old)
        return;
    *team = NULL;
    atomic_store(&old->stopping, true);
    call_others(old, INT_MAX);
    for (uint32_t i = 0; i + 1 < old->size; i++)
        pthread_join(old->members[i].thread, NULL);
    free(old);
}
