/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "base/thread.h"
#include "kernels/kernel.h"

struct queue {
    struct tnd_job *first, **tail;
};

struct tnd_workers {
    struct tnd_allocator allocator;
    pthread_mutex_t mutex;
    pthread_cond_t queued_cond;
    struct queue urgent, patient; /* under mutex */
    bool stopping;                /* under mutex */
    atomic_uint named; /* threads that took an index */
    uint32_t thread_count;
    pthread_t threads[];
};

static struct tnd_job *queue_take(struct queue *queue)
{
    struct tnd_job *job = queue->first;

    if (job) {
        queue->first = job->next;
        if (!queue->first)
            queue->tail = &queue->first;
    }
    return job;
}

/* Under mutex. */
static struct tnd_job *job_take(struct tnd_workers *workers)
{
    struct tnd_job *job = queue_take(&workers->urgent);

    return job ? job : queue_take(&workers->patient);
}

static void *thread_main(void *argument)
{
    struct tnd_workers *workers = argument;
    uint32_t index = atomic_fetch_add(&workers->named, 1);

    tnd_kernel_thread_init();
    pthread_mutex_lock(&workers->mutex);
    for (;;) {
        struct tnd_job *job = job_take(workers);

        if (job) {
            pthread_mutex_unlock(&workers->mutex);
            job->run(job, index);
            pthread_mutex_lock(&workers->mutex);
        } else if (workers->stopping) {
            break;
        } else {
            pthread_cond_wait(&workers->queued_cond, &workers->mutex);
        }
    }
    pthread_mutex_unlock(&workers->mutex);
    return NULL;
}

int tnd_workers_create(struct tnd_workers **ret_workers, const struct tnd_allocator *allocator, uint32_t thread_count)
{
    struct tnd_workers *workers =
        tnd_zalloc(allocator, 1, sizeof(*workers) + thread_count * sizeof(workers->threads[0]));

    if (!workers)
        return -ENOMEM;
    workers->allocator = *allocator;
    workers->urgent.tail = &workers->urgent.first;
    workers->patient.tail = &workers->patient.first;
    pthread_mutex_init(&workers->mutex, NULL);
    pthread_cond_init(&workers->queued_cond, NULL);
    while (workers->thread_count < thread_count &&
           tnd_thread_create(&workers->threads[workers->thread_count], thread_main, workers) == 0)
        workers->thread_count++;
    if (thread_count && !workers->thread_count) {
        tnd_workers_destroy(&workers);
        return -ENOMEM;
    }
    *ret_workers = workers;
    return 0;
}

void tnd_workers_destroy(struct tnd_workers **workers)
{
    struct tnd_workers *dead = *workers;
    struct tnd_allocator allocator;

    if (!dead)
        return;
    pthread_mutex_lock(&dead->mutex);
    dead->stopping = true;
    pthread_cond_broadcast(&dead->queued_cond);
    pthread_mutex_unlock(&dead->mutex);
    for (uint32_t i = 0; i < dead->thread_count; i++)
        pthread_join(dead->threads[i], NULL);
    pthread_cond_destroy(&dead->queued_cond);
    pthread_mutex_destroy(&dead->mutex);
    allocator = dead->allocator;
    tnd_free(&allocator, dead);
    *workers = NULL;
}

uint32_t tnd_workers_count(const struct tnd_workers *workers)
{
    return workers->thread_count;
}

void tnd_workers_submit(struct tnd_workers *workers, struct tnd_job *job, bool urgent)
{
    struct queue *queue = urgent ? &workers->urgent : &workers->patient;

    pthread_mutex_lock(&workers->mutex);
    job->next = NULL;
    *queue->tail = job;
    queue->tail = &job->next;
    pthread_cond_signal(&workers->queued_cond);
    pthread_mutex_unlock(&workers->mutex);
}

bool tnd_workers_run_one(struct tnd_workers *workers)
{
    struct tnd_job *job;

    pthread_mutex_lock(&workers->mutex);
    job = job_take(workers);
    pthread_mutex_unlock(&workers->mutex);
    if (job)
        job->run(job, 0);
    return job != NULL;
}
