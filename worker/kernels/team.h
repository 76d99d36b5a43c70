/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_TEAM_H
#define WORKER_KERNELS_TEAM_H

/* Threads that share one piece of work at a time, and sleep between. */

#include <stdint.h>

struct team;

/* thread_count: with the caller's own; 0 = as many as cores that this process and its cgroup may use, or as threads
 * that it may start.
 * Returns 0, -ENOMEM, -EAGAIN no thread is to be had. */
int team_create(uint32_t thread_count, struct team **ret_team);
void team_destroy(struct team **team); /* takes NULL */
uint32_t team_size(const struct team *team);

/* Calls work for parts of [0, count), each a multiple of grain but the last, on all threads; returns when all is done.
 * member: from 0 to team_size() - 1, for memory of its own. By one thread at a time. */
typedef void (*team_fn)(void *cookie, uint32_t member, uint32_t from, uint32_t to);
void team_run(struct team *team, uint32_t count, uint32_t grain, team_fn work, void *cookie);

#endif
