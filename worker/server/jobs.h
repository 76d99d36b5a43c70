/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_JOBS_H
#define WORKER_SERVER_JOBS_H

/* Prompts that wait, the one that is answered, and those that were, by their ids. One thread generates.
 *
 * An id is one job: who comes with it again follows the job that waits or runs, or gets the text that was stored. Of
 * those that are done only what succeeded is stored: what failed or was stopped is computed anew. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "generate/engine.h"
#include "server/buffer.h"

enum {
    JOBS_WAITING_MAX = 64,
    JOBS_STORED_MAX = 1024,
    JOBS_STORED_BYTES_MAX = 16 << 20,
    JOB_ID_BYTES_MAX = 128,
};

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_DONE };

struct job {
    /* Of the request: constant once submitted. Texts are the job's. */
    char *id;                          /* NULL: not stored */
    char name[32];                     /* OpenAI's id of it */
    int64_t created_s;
    const char *model;                 /* Memory: the server's */
    bool stream, stream_usage;
    struct generation_request request; /* its texts go when it is done */

    atomic_bool canceled;              /* set under the lock; the engine reads it without */

    /* Of jobs.c, under its lock until the job is done; constant after that. */
    enum job_state state;
    bool settled;                      /* how it ended is decided: nothing cancels it any more */
    struct buffer text;                /* whole UTF-8 sequences without NULs */
    int result;                        /* of engine_generate(), -ECANCELED, -ENOMEM */
    struct failure failure;
    struct generation_result generation;

    /* Of jobs.c, under its lock. */
    unsigned follower_count;
    bool held, stored;                 /* waits or runs; found by its id */
    struct job *waiting_next, *stored_next;
};

/* An empty one; NULL: no memory. */
struct job *job_create(void);
/* Of a job that was not submitted; takes NULL. */
void job_destroy(struct job **job);

struct jobs;

struct jobs_hooks {
    void (*done)(void *cookie, const struct job *job); /* on the generating thread, before the followers see it */
    int wake_fd;                                       /* an eventfd: a job has more text, or is done */
    void *cookie;
};

/* 0, -ENOMEM, -EAGAIN no thread. */
int jobs_create(struct engine *engine, const struct jobs_hooks *hooks, struct jobs **ret_jobs);
/* Stops what runs and waits for it. Nobody follows a job any more. Takes NULL. */
void jobs_destroy(struct jobs **jobs);

/* The caller follows the job from now on. Replaces *job by the one of the same id, if there is one.
 * 0, or -EAGAIN: too many wait, and the job stays the caller's. */
int jobs_submit(struct jobs *jobs, struct job **job);
/* A job that nobody follows any more is stopped. Takes NULL. */
void jobs_leave(struct jobs *jobs, struct job **job);
/* Adds to text (NULL: nothing) what the job has from that byte on, and counts it. Once this has told JOB_DONE, the
 * job's members may be read. */
enum job_state jobs_read(struct jobs *jobs, const struct job *job, size_t from, struct buffer *text, size_t *ret_bytes);
/* What waits and what runs ends now, with -ECANCELED. */
void jobs_stop(struct jobs *jobs);
/* Of those that wait, and the one that runs. */
void jobs_count(struct jobs *jobs, unsigned *ret_waiting, unsigned *ret_running);

#endif
