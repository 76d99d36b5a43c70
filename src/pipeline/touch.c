/* SPDX-License-Identifier: Apache-2.0 */

/* Fresh memory costs a fault and the clearing of its pages, 0.15 s of CPU a GB and more: paid here, ahead of the reads
 * and beside them, it is not paid by the copies. */

#include "base/bytes.h"
#include "base/clock.h"
#include "pipeline/transfer.h"

/* A turn: short enough that a copy never waits long for a worker, nor a thread's start for the address space's lock. */
#define TOUCH_BYTES ((uint64_t)4 << 20)

static void touch_run(struct tnd_job *job, uint32_t worker)
{
    struct tnd_touch *touch = (struct tnd_touch *)job;
    struct tnd_transfer *transfer = touch->transfer;
    uint64_t at = atomic_fetch_add(&transfer->touch_next, TOUCH_BYTES);

    if (at < transfer->fresh_bytes && !atomic_load(&transfer->touch_stop)) {
        uint64_t start = tnd_now_ns();

        uint64_t bytes = tnd_min(TOUCH_BYTES, transfer->fresh_bytes - at), end;

        tnd_populate(transfer->fresh + at, bytes);
        end = tnd_now_ns();
        atomic_fetch_add(&transfer->touch_ns, end - start);
        tnd_trace_tell(&transfer->trace, &(struct tnd_trace_event){.kind = TND_TRACE_TOUCH, .slot = UINT32_MAX,
                                                                  .worker = worker, .start_ns = start, .end_ns = end,
                                                                  .offset = at, .bytes = bytes});
        tnd_workers_submit(touch->workers, job, false);
        return;
    }
    pthread_mutex_lock(&transfer->readiness.mutex);
    transfer->touching--;
    pthread_cond_broadcast(&transfer->readiness.changed_cond);
    pthread_mutex_unlock(&transfer->readiness.mutex);
}

void tnd_transfer_touch(struct tnd_transfer *transfer, struct tnd_workers *workers)
{
    /* One worker stays free to copy, where there are several; of tensors that grow on their way the pages take longer
     * than all else, and each worker that has no chunk brings some. */
    const struct tnd_plan_sizes *sizes = &transfer->plan->sizes;
    uint32_t free_count = sizes->loaded_bytes > sizes->tensor_bytes ? 0 : 1;
    uint32_t worker_count = tnd_workers_count(workers);
    uint32_t job_count = (uint32_t)tnd_min(tnd_max(1, worker_count - tnd_min(worker_count, free_count)),
                                           TND_TOUCH_JOBS_MAX);

    if (!transfer->touches_all)
        return;
    pthread_mutex_lock(&transfer->readiness.mutex);
    transfer->touching = job_count;
    pthread_mutex_unlock(&transfer->readiness.mutex);
    for (uint32_t i = 0; i < job_count; i++) {
        transfer->touches[i] = (struct tnd_touch){
            .job.run = touch_run,
            .transfer = transfer,
            .workers = workers,
        };
        tnd_workers_submit(workers, &transfer->touches[i].job, false);
    }
}

uint64_t tnd_transfer_untouched(struct tnd_transfer *transfer)
{
    const struct tnd_plan_sizes *sizes = &transfer->plan->sizes;
    /* Converted tensors have another size there than in the file. */
    double grown = (double)sizes->loaded_bytes / (double)tnd_max(1, sizes->tensor_bytes);
    uint64_t arrived = (uint64_t)((double)atomic_load(&transfer->readiness.bytes_ready) * grown);
    uint64_t touched = tnd_max(arrived, atomic_load(&transfer->touch_next));

    return transfer->fresh_bytes - tnd_min(transfer->fresh_bytes, touched);
}

void tnd_transfer_touch_join(struct tnd_transfer *transfer)
{
    atomic_store(&transfer->touch_stop, true);
    pthread_mutex_lock(&transfer->readiness.mutex);
    while (transfer->touching)
        pthread_cond_wait(&transfer->readiness.changed_cond, &transfer->readiness.mutex);
    pthread_mutex_unlock(&transfer->readiness.mutex);
}
