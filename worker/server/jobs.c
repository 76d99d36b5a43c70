/* SPDX-License-Identifier: Apache-2.0 */
#include "server/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

struct jobs {
    struct engine *engine;
    struct jobs_hooks hooks;
    pthread_t thread;
    bool thread_started;

    pthread_mutex_t lock;
    pthread_cond_t more; /* to do, or ending */
    bool ending;
    struct job *waiting, **waiting_end;
    unsigned waiting_count;
    struct job *running;
    struct job *stored, **stored_end; /* oldest first; those that wait or run too */
    unsigned stored_count;
    size_t stored_bytes; /* of those that are done */
};

/* ---- A job -------------------------------------------------------------------------------------------------- */

struct job *job_create(void)
{
    struct job *job = calloc(1, sizeof(*job));

    if (job) {
        atomic_init(&job->canceled, false);
        job->request.canceled = &job->canceled;
    }
    return job;
}

static void release_request(struct generation_request *request)
{
    for (size_t i = 0; i < request->message_count; i++) {
        free((char *)request->messages[i].role);
        free((char *)request->messages[i].content);
    }
    for (size_t i = 0; i < request->stop_count; i++)
        free((char *)request->stops[i]);
    free((void *)request->messages);
    free((void *)request->stops);
    free((char *)request->prompt);
    *request = (struct generation_request){0};
}

void job_destroy(struct job **job)
{
    if (!*job)
        return;
    release_request(&(*job)->request);
    buffer_release(&(*job)->text);
    free((*job)->id);
    free(*job);
    *job = NULL;
}

static void destroy_if_unused(struct job *job)
{
    if (!job->held && !job->stored && job->follower_count == 0)
        job_destroy(&job);
}

/* ---- What is stored: the caller has the lock ---------------------------------------------------------------- */

static struct job *find(const struct jobs *jobs, const char *id)
{
    struct job *job = jobs->stored;

    while (job && strcmp(job->id, id) != 0)
        job = job->stored_next;
    return job;
}

static void store(struct jobs *jobs, struct job *job)
{
    job->stored = true;
    *jobs->stored_end = job;
    jobs->stored_end = &job->stored_next;
    jobs->stored_count++;
}

static size_t bytes_of(const struct job *job)
{
    return job->state == JOB_DONE ? job->text.room : 0;
}

static void forget(struct jobs *jobs, struct job *job)
{
    struct job **at = &jobs->stored;

    if (!job->stored)
        return;
    while (*at != job)
        at = &(*at)->stored_next;
    *at = job->stored_next;
    if (!*at)
        jobs->stored_end = at;
    job->stored = false;
    job->stored_next = NULL;
    jobs->stored_count--;
    jobs->stored_bytes -= bytes_of(job);
}

/* The oldest of those that are done go first. */
static void forget_old(struct jobs *jobs)
{
    struct job *job = jobs->stored;

    while (job && (jobs->stored_count > JOBS_STORED_MAX || jobs->stored_bytes > JOBS_STORED_BYTES_MAX)) {
        struct job *next = job->stored_next;

        if (job->state == JOB_DONE) {
            forget(jobs, job);
            destroy_if_unused(job);
        }
        job = next;
    }
}

/* ---- The thread that generates ------------------------------------------------------------------------------ */

static void wake(struct jobs *jobs)
{
    eventfd_write(jobs->hooks.wake_fd, 1);
}

/* A NUL of the model's would end the text for whoever reads it. */
static void add_text(struct buffer *buffer, const char *text, size_t bytes)
{
    while (bytes > 0) {
        const char *nul = memchr(text, '\0', bytes);
        size_t count = nul ? (size_t)(nul - text) : bytes;

        buffer_add(buffer, text, count);
        if (nul)
            buffer_add_text(buffer, "\xef\xbf\xbd");
        text += count + (nul != NULL);
        bytes -= count + (nul != NULL);
    }
}

struct tale {
    struct jobs *jobs;
    struct job *job;
};

static bool tell(void *cookie, const char *text, size_t bytes)
{
    const struct tale *tale = cookie;
    bool go_on;

    pthread_mutex_lock(&tale->jobs->lock);
    add_text(&tale->job->text, text, bytes);
    go_on = !atomic_load(&tale->job->canceled) && !tale->job->text.failed;
    pthread_mutex_unlock(&tale->jobs->lock);
    wake(tale->jobs);
    return go_on;
}

/* Whether the job was canceled before now; after this it cannot be any more, and what is told of it stays true. */
static bool settle(struct jobs *jobs, struct job *job)
{
    bool canceled;

    pthread_mutex_lock(&jobs->lock);
    job->settled = true;
    canceled = atomic_load(&job->canceled);
    pthread_mutex_unlock(&jobs->lock);
    return canceled;
}

/* Without the lock. The job's own members are this thread's until its state says done, but its text. */
static void generate(struct jobs *jobs, struct job *job)
{
    struct tale tale = {jobs, job};
    struct failure failure = {""};
    int r = engine_generate(jobs->engine, &job->request, tell, &tale, &job->generation, &failure);
    bool canceled = settle(jobs, job);

    if (job->text.failed)
        r = fail(&failure, -ENOMEM, "no memory for the text");
    else if (r == 0 && (canceled || job->generation.finish == GENERATION_CANCELED))
        r = fail(&failure, -ECANCELED, "the generation was stopped");
    job->result = r;
    job->failure = failure;
    release_request(&job->request);
    jobs->hooks.done(jobs->hooks.cookie, job);
}

static void finish(struct jobs *jobs, struct job *job)
{
    if (job->result < 0)
        forget(jobs, job);
    job->state = JOB_DONE;
    if (job->stored)
        jobs->stored_bytes += bytes_of(job);
    forget_old(jobs); /* this one too if it is too long; it is held, so it is there */
    job->held = false;
    destroy_if_unused(job);
}

static struct job *take_first(struct jobs *jobs)
{
    struct job *job = jobs->waiting;

    jobs->waiting = job->waiting_next;
    if (!jobs->waiting)
        jobs->waiting_end = &jobs->waiting;
    job->waiting_next = NULL;
    jobs->waiting_count--;
    return job;
}

static void *run(void *argument)
{
    struct jobs *jobs = argument;

    pthread_mutex_lock(&jobs->lock);
    for (;;) {
        while (!jobs->waiting && !jobs->ending)
            pthread_cond_wait(&jobs->more, &jobs->lock);
        if (jobs->ending)
            break;
        jobs->running = take_first(jobs);
        jobs->running->state = JOB_RUNNING;
        pthread_mutex_unlock(&jobs->lock);
        generate(jobs, jobs->running);
        pthread_mutex_lock(&jobs->lock);
        finish(jobs, jobs->running);
        jobs->running = NULL;
        wake(jobs);
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

/* ---- What others call --------------------------------------------------------------------------------------- */

int jobs_create(struct engine *engine, const struct jobs_hooks *hooks, struct jobs **ret_jobs)
{
    struct jobs *jobs = calloc(1, sizeof(*jobs));
    int r;

    if (!jobs)
        return -ENOMEM;
    jobs->engine = engine;
    jobs->hooks = *hooks;
    jobs->waiting_end = &jobs->waiting;
    jobs->stored_end = &jobs->stored;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->more, NULL);
    r = -pthread_create(&jobs->thread, NULL, run, jobs);
    jobs->thread_started = r == 0;
    if (r < 0)
        jobs_destroy(&jobs);
    else
        *ret_jobs = jobs;
    return r;
}

void jobs_destroy(struct jobs **ref_jobs)
{
    struct jobs *jobs = *ref_jobs;

    if (!jobs)
        return;
    jobs_stop(jobs);
    pthread_mutex_lock(&jobs->lock);
    jobs->ending = true;
    pthread_cond_signal(&jobs->more);
    pthread_mutex_unlock(&jobs->lock);
    if (jobs->thread_started)
        pthread_join(jobs->thread, NULL);
    while (jobs->stored) {
        struct job *job = jobs->stored;

        forget(jobs, job);
        job_destroy(&job);
    }
    pthread_cond_destroy(&jobs->more);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
    *ref_jobs = NULL;
}

int jobs_submit(struct jobs *jobs, struct job **ref_job)
{
    struct job *job = *ref_job, *known;
    int r = 0;

    pthread_mutex_lock(&jobs->lock);
    known = job->id ? find(jobs, job->id) : NULL;
    if (known) {
        job_destroy(ref_job);
        *ref_job = known;
        known->follower_count++;
    } else if (jobs->waiting_count >= JOBS_WAITING_MAX) {
        r = -EAGAIN;
    } else {
        job->held = true;
        job->follower_count = 1;
        *jobs->waiting_end = job;
        jobs->waiting_end = &job->waiting_next;
        jobs->waiting_count++;
        if (job->id)
            store(jobs, job);
        pthread_cond_signal(&jobs->more);
    }
    pthread_mutex_unlock(&jobs->lock);
    return r;
}

static void unqueue(struct jobs *jobs, struct job *job)
{
    struct job **at = &jobs->waiting;

    while (*at != job)
        at = &(*at)->waiting_next;
    *at = job->waiting_next;
    if (!*at)
        jobs->waiting_end = at;
    job->waiting_next = NULL;
    jobs->waiting_count--;
    job->held = false;
}

/* Under the lock, so that it cannot hit the next job: engine_stop() waits for nothing. A job that runs may not have
 * got to the engine yet, which then has nothing to stop: it looks at the flag as it begins. */
static void stop_running(struct jobs *jobs, struct job *job)
{
    atomic_store(&job->canceled, true);
    engine_stop(jobs->engine);
}

static void cancel(struct jobs *jobs, struct job *job)
{
    if (job->settled)
        return;
    forget(jobs, job); /* who comes with the same id starts anew */
    if (job->state == JOB_RUNNING)
        stop_running(jobs, job);
    else if (job->state == JOB_WAITING)
        unqueue(jobs, job);
}

void jobs_leave(struct jobs *jobs, struct job **ref_job)
{
    struct job *job = *ref_job;

    if (!job)
        return;
    pthread_mutex_lock(&jobs->lock);
    job->follower_count--;
    if (job->follower_count == 0 && job->state != JOB_DONE)
        cancel(jobs, job);
    destroy_if_unused(job);
    pthread_mutex_unlock(&jobs->lock);
    *ref_job = NULL;
}

enum job_state jobs_read(struct jobs *jobs, const struct job *job, size_t from, struct buffer *text, size_t *ret_bytes)
{
    enum job_state state;

    pthread_mutex_lock(&jobs->lock);
    state = job->state;
    *ret_bytes = job->text.count - from;
    if (text && *ret_bytes > 0)
        buffer_add(text, job->text.text + from, *ret_bytes);
    pthread_mutex_unlock(&jobs->lock);
    return state;
}

void jobs_stop(struct jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    while (jobs->waiting) {
        struct job *job = take_first(jobs);

        job->result = fail(&job->failure, -ECANCELED, "the worker ends");
        finish(jobs, job);
    }
    if (jobs->running && !jobs->running->settled)
        stop_running(jobs, jobs->running);
    pthread_mutex_unlock(&jobs->lock);
    wake(jobs);
}

void jobs_count(struct jobs *jobs, unsigned *ret_waiting, unsigned *ret_running)
{
    pthread_mutex_lock(&jobs->lock);
    *ret_waiting = jobs->waiting_count;
    *ret_running = jobs->running != NULL;
    pthread_mutex_unlock(&jobs->lock);
}
