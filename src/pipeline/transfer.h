/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_TRANSFER_H
#define TND_PIPELINE_TRANSFER_H

/* A load as the pipeline sees it: a plan, files, a place for each piece, and how far it is. */

#include "base/log.h"
#include "io/io.h"
#include "pipeline/chunk.h"
#include "pipeline/digest.h"
#include "pipeline/fetch.h"
#include "pipeline/readiness.h"
#include "pipeline/upload.h"
#include "pipeline/workers.h"
#include "plan/plan.h"

#define TND_TOUCH_JOBS_MAX 4

/* Brings in a part of the destination ahead of the reads; several may run at once. */
struct tnd_touch {
    struct tnd_job job;
    struct tnd_transfer *transfer;
    struct tnd_workers *workers;
};

struct tnd_transfer_stats {
    uint64_t bytes_read, read_count, pool_bytes_read, direct_bytes_read;
    uint64_t engine_bytes[TND_ENGINE_NIL + 1];
    uint64_t read_busy_ns, h2d_busy_ns, overlap_ns;
    struct tnd_chunk_work work; /* the sum over all chunks */
    uint32_t depth_max, retries;
    uint32_t reads_given_up; /* the kernel may still write to their places: the destination is never freed */
};

struct tnd_transfer {
    /* Set by who starts it. */
    struct tnd_plan *plan;
    struct tnd_io_file *files; /* [model file_count] */
    uint32_t file_count;
    uint32_t *windows_left; /* [file_count] whose reads have not finished; not counted layer by layer, where they may
                               be read again */
    struct tnd_span *spans; /* [plan piece_count] */
    uint8_t **homes;        /* [plan window_count] where a window can land in place, NULL where it cannot */
    uint8_t **places;       /* [model tensor_count] where each tensor of the plan lies; of a layer in a window, where it
                               lay last */
    struct tnd_fetch *fetches; /* [plan stage_count] of a plan by layer, which goes stage by stage; else NULL */
    bool *arrived;             /* [plan window_count] by layer: the bytes of a window are in their places */
    uint8_t *slots;            /* the host's window: [slot_bytes] for each layer in it */
    uint64_t slot_bytes;       /* 0: no window */
    struct tnd_upload upload;
    enum tnd_switch in_place;
    uint8_t *fresh; /* destination memory that has no pages yet, NULL when it has, in the order of the plan */
    uint64_t fresh_bytes;
    bool touches_all; /* fresh is brought in ahead of the reads */
    struct tnd_digests *digests; /* NULL: none are made */
    struct tnd_trace trace;
    struct tnd_reasons reasons;
    struct tnd_readiness readiness;
    atomic_bool canceled;

    /* The driver's. */
    bool attached; /* at least one file */
    bool windowed;     /* a layer has been begun that will be read again */
    bool fits_cache;   /* windowed: the page cache has room for the files, and serves the layers */
    uint32_t window_next; /* of a plan that is not by layer */
    uint32_t reading, ready, working; /* chunks; working also by the device */
    struct tnd_err first_error;
    uint64_t accounted_ns;
    uint64_t progress_ns; /* when a read last came back, or there was none to wait for */
    uint64_t suspected_ns; /* since when it has taken too long; 0: it has not */
    struct tnd_transfer_stats stats; /* others read it once the readiness has ended */
    struct tnd_transfer *next;

    /* The touching jobs'. */
    struct tnd_touch touches[TND_TOUCH_JOBS_MAX];
    atomic_uint_fast64_t touch_next; /* bytes of fresh taken so far */
    atomic_uint_fast64_t touch_ns;
    atomic_bool touch_stop;
    uint32_t touching; /* under readiness.mutex: jobs that may still look at this */
};

/* Adds the time since the last change to what was going on in it; called before each change. */
void tnd_transfer_account(struct tnd_transfer *transfer, uint64_t now_ns);
/* Failed or canceled: nothing new is to be begun for it. */
bool tnd_transfer_stopped(const struct tnd_transfer *transfer);
/* The transfer fails, unless it has already. */
void tnd_transfer_keep_error(struct tnd_transfer *transfer, const struct tnd_err *err);
/* The next window to read; false when there is none now. */
bool tnd_transfer_next(struct tnd_transfer *transfer, uint32_t *ret_window);
/* Its read was submitted. */
void tnd_transfer_issued(struct tnd_transfer *transfer, uint32_t window);
/* Whether there are windows to come, now or when somebody asks for them. */
bool tnd_transfer_goes_on(struct tnd_transfer *transfer);
/* Opens the way to a file when its first window is due: a model of hundreds of shards would else wait for all of them.
 * The first one starts the touching jobs. False, with the error kept, when there is no way. */
bool tnd_transfer_attach(struct tnd_transfer *transfer, struct tnd_io_file *file, struct tnd_io *io,
                         struct tnd_workers *workers);
/* A read has finished, well or not: counts it, and lets go of its file after the last one. */
void tnd_transfer_read_done(struct tnd_transfer *transfer, struct tnd_io *io, const struct tnd_io_read *read,
                            bool through_pool);
/* Keeps a failed read's error, unless there was one before: the transfer's, or its stage's. */
void tnd_transfer_fail_read(struct tnd_transfer *transfer, uint32_t window_index, const struct tnd_io_read *read);
/* Keeps the error of a read that does not come back, and counts it unless it was taken back before it began. */
void tnd_transfer_give_up(struct tnd_transfer *transfer, uint32_t window_index, const struct tnd_io_read *read,
                          uint64_t waited_ns, bool taken_back);
/* Keeps the error of a transfer that gets no buffer, because reads that were given up hold them all. */
void tnd_transfer_starve(struct tnd_transfer *transfer, uint32_t window_index);
/* A worker is done with a chunk. */
void tnd_transfer_worked(struct tnd_transfer *transfer, const struct tnd_chunk_work *work);
/* The pieces of a window lie in their places. */
void tnd_transfer_arrived(struct tnd_transfer *transfer, uint32_t window_index);
/* All is in, or nothing more will come: the transfer may be gone when it returns. */
void tnd_transfer_end(struct tnd_transfer *transfer, struct tnd_io *io);

/* Queues the touching jobs. Threads: the driver, when the engines are set up. */
void tnd_transfer_touch(struct tnd_transfer *transfer, struct tnd_workers *workers);
/* How much of the fresh memory is likely to have no pages yet. Threads: any. */
uint64_t tnd_transfer_untouched(struct tnd_transfer *transfer);
/* Stops touching and waits until no job looks at the transfer, which has ended. */
void tnd_transfer_touch_join(struct tnd_transfer *transfer);

#endif
