/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_PIPELINE_H
#define TND_PIPELINE_PIPELINE_H

/* The only heartbeat: tick() moves every chunk that can move, the ones nearest to their end first, and does not wait
 * for any; wait() sends the reads that it queued and takes in those that are done. Files are looked at, with a few
 * system calls, before the first read of one, when a layer is there or has left, and at the end of a load. One driver
 * thread calls both in turn; workers see one chunk; everybody else only adds, asks for layers and cancels. */

#include <pthread.h>

#include "base/waker.h"
#include "pipeline/depth.h"
#include "pipeline/pool.h"
#include "pipeline/transfer.h"
#include "pipeline/trial.h"

#define TND_SPARE_BUFFERS 4 /* beyond the reads in flight: being copied, or waiting for it */

struct tnd_pipeline_options {
    struct tnd_io_options io; /* waker, buffer_count and alignment are filled in */
    uint32_t chunk_bytes;
    uint32_t depth, depth_max; /* reads in flight: at the start, and at the most if more brings more */
    uint64_t pool_bytes_max;
    uint64_t read_timeout_ns; /* a transfer none of whose reads come back for so long is given up */
    struct tnd_workers *workers;
    struct tnd_device *device; /* where all transfers end; NULL: the host */
    uint64_t (*now_ns)(void);
};

struct tnd_pipeline {
    struct tnd_pipeline_options options;
    struct tnd_waker waker;
    pthread_mutex_t mutex;
    struct tnd_transfer *added;                 /* under mutex: not yet seen by the driver */
    struct tnd_chunk *worked, **worked_tail;    /* under mutex: workers are done with them */
    atomic_bool mail;                           /* added, worked or a cancel to look at */

    /* The driver's. */
    bool started;
    struct tnd_io *io;
    struct tnd_pool pool;
    struct tnd_transfer *active, **turn; /* a list, and whose window is next */
    uint32_t active_count;
    struct tnd_chunk *ready, **ready_tail;
    struct tnd_chunk *copying, **copying_tail; /* by ticket */
    uint64_t look_ns; /* copying: how soon to look at the device again */
    uint32_t reading;
    struct tnd_trial trial;
    struct tnd_depth depth;
};

/* Threads: any, before all else. -ENOMEM. */
int tnd_pipeline_init(struct tnd_pipeline *pipeline, const struct tnd_pipeline_options *options, struct tnd_err *err);
/* Makes ring and pool, which belong to the thread that calls it: the driver. -ENODEV, -ENOMEM. */
int tnd_pipeline_start(struct tnd_pipeline *pipeline, struct tnd_err *err);
/* Gives ring and pool back, if there are any. No transfer may be left. Threads: the driver, or the last one. */
void tnd_pipeline_stop(struct tnd_pipeline *pipeline);
/* After stop, and after the last worker. */
void tnd_pipeline_finish(struct tnd_pipeline *pipeline);

/* One turn; whether anything moved. Threads: the driver. */
bool tnd_pipeline_tick(struct tnd_pipeline *pipeline);
/* Waits at most timeout_ns (< 0: no limit) until something can move; whether reads were done. Threads: the driver. */
bool tnd_pipeline_wait(struct tnd_pipeline *pipeline, int64_t timeout_ns);
/* Whether no transfer is under way. Threads: the driver. */
bool tnd_pipeline_idle(struct tnd_pipeline *pipeline);

/* Hands a transfer over; its readiness tells when it is done with. Threads: any. */
void tnd_pipeline_add(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer);
/* Ends what was added with an error, when there will be no driver. Threads: the one that would have been it. */
void tnd_pipeline_reject(struct tnd_pipeline *pipeline, const struct tnd_err *err);
/* Makes the driver look at canceled flags. Threads: any. */
void tnd_pipeline_kick(struct tnd_pipeline *pipeline);

#endif
