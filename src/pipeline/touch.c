/* SPDX-License-Identifier: Apache-2.0 */

/* Fresh memory costs a fault and the clearing of its pages, 0.15 s of CPU a GB and more: paid here, ahead of the reads
 * and beside them, it is not paid by the copies. */

#include "base/bytes.h"
#include "base/clock.h"
#include "pipeline/transfer.h"

#define TOUCH_BYTES ((uint64_t)8 << 20) /* a turn: short enough that a copy never waits long for a worker */

static void touch_run(struct tnd_job *job)
{
    struct tnd_touch *touch = (struct tnd_touch *)job;
    struct tnd_transfer *transfer = touch->transfer;
    uint64_t at = atomic_fetch_add(&transfer->touch_next, TOUCH_BYTES);

    if (at < transfer->fresh_bytes && !atomic_load(&transfer->touch_stop)) {
        uint64_t start = tnd_now_ns();

        tnd_populate(transfer->fresh + at, tnd_min(TOUCH_BYTES, transfer->fresh_bytes - at));
        atomic_fetch_add(&transfer->touch_ns, tnd_now_ns() - start);
        tnd_workers_submit(touch->workers, job, false);
        return;
    }
    pthread_mutex_lock(&transfer->readiness.mutex);
    transfer->touching--;
    pthread_cond_broadcast(&transfer->readiness.changed_cond);
    pthread_mutex_unlock(&transfer->readiness.mutex);
}

void tnd_transfer_touch(struct tnd_transfer *transfer, struct tnd_workers *workers, uint32_t job_count)
{
    if (!transfer->fresh)
        return;
    job_count = (uint32_t)tnd_min(job_count, TND_TOUCH_JOBS_MAX);
    transfer->touching = job_count;
    for (uint32_t i = 0; i < job_count; i++) {
        transfer->touches[i] = (struct tnd_touch){
            .job.run = touch_run,
            .transfer = transfer,
            .workers = workers,
        };
        tnd_workers_submit(workers, &transfer->touches[i].job, false);
    }
}

void tnd_transfer_touch_join(struct tnd_transfer *transfer)
{
    atomic_store(&transfer->touch_stop, true);
    pthread_mutex_lock(&transfer->readiness.mutex);
    while (transfer->touching)
        pthread_cond_wait(&transfer->readiness.changed_cond, &transfer->readiness.mutex);
    pthread_mutex_unlock(&transfer->readiness.mutex);
}
