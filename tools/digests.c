/* SPDX-License-Identifier: Apache-2.0 */
#include "digests.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "interrupt.h"
#include "text.h"

#define THREADS_MAX 64

/* Hashes on several threads, a tensor at a time. */
struct job {
    struct digests *digests;
    uint32_t *order; /* longest first, so that no thread begins a long one when the others are done */
    atomic_uint next;
    atomic_bool failed;
};

static void *work(void *cookie)
{
    struct job *job = cookie;
    struct digests *digests = job->digests;
    uint32_t at;

    while (!atomic_load(&job->failed) && (at = atomic_fetch_add(&job->next, 1)) < digests->count) {
        struct digest *item = &digests->items[job->order[at]];

        if (!sha256_digest(&digests->sha256, item->data, item->tensor->bytes, interrupted, item->sha256))
            atomic_store(&job->failed, true);
    }
    return NULL;
}

static int longer_first(const void *a, const void *b, void *cookie)
{
    const struct digest *items = cookie;
    const uint32_t *left = a, *right = b;
    uint64_t left_bytes = items[*left].tensor->bytes, right_bytes = items[*right].tensor->bytes;

    if (left_bytes != right_bytes)
        return left_bytes < right_bytes ? 1 : -1;
    return *left < *right ? -1 : 1;
}

/* What of the model the load has. */
static int collect(struct digests *digests, const struct session *session)
{
    uint32_t count = tnd_model_tensor_count(session->model);

    digests->items = calloc((size_t)count + 1, sizeof(*digests->items));
    if (!digests->items)
        return fail(EXIT_RESOURCE, "out of memory for %" PRIu32 " digests", count);
    for (uint32_t i = 0; i < count; i++) {
        struct digest *item = &digests->items[digests->count];
        int r = tnd_load_tensor_data(session->load, i, &item->data);

        if (r == -EINVAL)
            continue; /* --only or --layers left it out */
        if (r < 0)
            return fail_result(r, NULL);
        item->tensor = tnd_model_tensor(session->model, i);
        digests->count++;
    }
    return 0;
}

static void hash_on_threads(struct job *job, uint64_t wanted)
{
    pthread_t threads[THREADS_MAX];
    uint32_t started = 0;

    wanted = wanted < job->digests->count ? wanted : job->digests->count;
    wanted = wanted < THREADS_MAX ? wanted : THREADS_MAX;
    interrupt_hold();
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, work, job) == 0)
        started++;
    interrupt_release();
    work(job); /* this one works too, alone when no other could be started */
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

static int hash(struct digests *digests, const struct options *options)
{
    struct job job = {.digests = digests, .order = calloc((size_t)digests->count + 1, sizeof(*job.order))};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!job.order)
        return fail(EXIT_RESOURCE, "out of memory for %" PRIu32 " digests", digests->count);
    for (uint32_t i = 0; i < digests->count; i++)
        job.order[i] = i;
    qsort_r(job.order, digests->count, sizeof(*job.order), longer_first, digests->items);
    hash_on_threads(&job, options->threads > 0 ? options->threads : cores > 0 ? (uint64_t)cores : 1);
    free(job.order);
    if (interrupted())
        return fail(EXIT_INTERRUPTED, "interrupted: %s was not digested", options->model);
    if (job.failed)
        return fail(EXIT_FAILED, "libcrypto failed to take a SHA-256");
    return 0;
}

int digests_take(struct digests *digests, struct session *session)
{
    int code = sha256_open(&digests->sha256);

    if (code == 0)
        code = session_load(session);
    if (code == 0)
        code = collect(digests, session);
    if (code == 0)
        code = hash(digests, session->options);
    return code;
}

void digests_finish(struct digests *digests)
{
    free(digests->items);
    digests->items = NULL;
    digests->count = 0;
}
