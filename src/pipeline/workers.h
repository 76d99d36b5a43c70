/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_WORKERS_H
#define TND_PIPELINE_WORKERS_H

/* Threads that run jobs: urgent ones first, each kind first in, first out. */

#include <stdbool.h>
#include <stdint.h>

#include "tundish.h"

struct tnd_job {
    /* May free or resubmit the job: it is not touched afterwards. worker: the thread's index. */
    void (*run)(struct tnd_job *job, uint32_t worker);
    struct tnd_job *next;
};

struct tnd_workers;

/* With no threads at all (thread_count 0) jobs run in tnd_workers_run_one() only: how a simulation drives them.
 * -ENOMEM when not one thread could be started. */
int tnd_workers_create(struct tnd_workers **ret_workers, const struct tnd_allocator *allocator, uint32_t thread_count);
/* No job may be queued or running. */
void tnd_workers_destroy(struct tnd_workers **workers);
uint32_t tnd_workers_count(const struct tnd_workers *workers);
void tnd_workers_submit(struct tnd_workers *workers, struct tnd_job *job, bool urgent); /* any thread */
/* Runs the first job on the caller's thread; false when there is none. */
bool tnd_workers_run_one(struct tnd_workers *workers);

#endif
