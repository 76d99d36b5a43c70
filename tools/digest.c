/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "interrupt.h"
#include "json.h"
#include "session.h"
#include "sha256.h"
#include "text.h"
#include "values.h"

#define THREADS_MAX 64

struct item {
    const struct tnd_tensor *tensor;
    const void *data;
    unsigned char sha256[SHA256_BYTES];
};

/* Hashes on several threads, a tensor at a time. */
struct job {
    struct sha256 sha256;
    struct item *items; /* in the order of the file's own list */
    uint32_t *order;    /* longest first, so that no thread begins a long one when the others are done */
    uint32_t count;
    atomic_uint next;
    atomic_bool failed;
};

static void *work(void *cookie)
{
    struct job *job = cookie;
    uint32_t at;

    while (!atomic_load(&job->failed) && (at = atomic_fetch_add(&job->next, 1)) < job->count) {
        struct item *item = &job->items[job->order[at]];

        if (!sha256_digest(&job->sha256, item->data, item->tensor->bytes, interrupted, item->sha256))
            atomic_store(&job->failed, true);
    }
    return NULL;
}

static int longer_first(const void *a, const void *b, void *cookie)
{
    const struct item *items = cookie;
    const uint32_t *left = a, *right = b;
    uint64_t left_bytes = items[*left].tensor->bytes, right_bytes = items[*right].tensor->bytes;

    if (left_bytes != right_bytes)
        return left_bytes < right_bytes ? 1 : -1;
    return *left < *right ? -1 : 1;
}

/* What of the model the load has. */
static int collect(struct job *job, const struct session *session)
{
    uint32_t count = tnd_model_tensor_count(session->model);

    job->items = calloc((size_t)count + 1, sizeof(*job->items));
    job->order = calloc((size_t)count + 1, sizeof(*job->order));
    if (!job->items || !job->order)
        return fail(EXIT_RESOURCE, "out of memory for %" PRIu32 " digests", count);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &job->items[job->count];
        int r = tnd_load_tensor_data(session->load, i, &item->data);

        if (r == -EINVAL)
            continue; /* --only or --layers left it out */
        if (r < 0)
            return fail_result(r, NULL);
        item->tensor = tnd_model_tensor(session->model, i);
        job->order[job->count] = job->count;
        job->count++;
    }
    qsort_r(job->order, job->count, sizeof(*job->order), longer_first, job->items);
    return 0;
}

static int hash(struct job *job, const struct options *options)
{
    pthread_t threads[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t wanted = options->threads > 0 ? options->threads : cores > 0 ? (uint64_t)cores : 1;
    uint32_t started = 0;

    wanted = wanted < job->count ? wanted : job->count;
    wanted = wanted < THREADS_MAX ? wanted : THREADS_MAX;
    interrupt_hold();
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, work, job) == 0)
        started++;
    interrupt_release();
    work(job); /* this one works too, alone when no other could be started */
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (interrupted())
        return fail(EXIT_INTERRUPTED, "interrupted: %s was not digested", options->model);
    if (job->failed)
        return fail(EXIT_FAILED, "libcrypto failed to take a SHA-256");
    return 0;
}

static void format_sha256(const struct item *item, char text[2 * SHA256_BYTES + 1])
{
    for (size_t i = 0; i < SHA256_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", item->sha256[i]);
}

/* null where the type's elements cannot be told. */
static void json_values(struct json *json, const char *key, const struct item *item, uint64_t count)
{
    if (!values_readable(item->tensor->dtype)) {
        json_null(json, key);
        return;
    }
    json_array_begin(json, key);
    for (uint64_t i = 0; i < count && i < item->tensor->elements; i++)
        values_json(json, item->tensor->dtype, item->data, i);
    json_array_end(json);
}

static void print_digests(const struct job *job, const struct options *options)
{
    char text[2 * SHA256_BYTES + 1];
    struct json json;

    for (uint32_t i = 0; i < job->count; i++) {
        const struct item *item = &job->items[i];

        format_sha256(item, text);
        printf("%s  ", text);
        text_print(stdout, item->tensor->name, item->tensor->name_bytes, SIZE_MAX);
        putchar('\n');
        if (options->values > 0) {
            printf("    ");
            json_begin(&json, stdout);
            json_values(&json, NULL, item, options->values);
            json_end(&json);
        }
    }
}

static void json_digests(const struct job *job, const struct options *options)
{
    char text[2 * SHA256_BYTES + 1];
    struct json json;

    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_array_begin(&json, "tensors");
    for (uint32_t i = 0; i < job->count; i++) {
        const struct item *item = &job->items[i];
        const struct tnd_tensor *tensor = item->tensor;

        format_sha256(item, text);
        json_object_begin(&json, NULL);
        json_bytes(&json, "name", tensor->name, tensor->name_bytes);
        json_string(&json, "dtype", tnd_dtype_name(tensor->dtype));
        json_array_begin(&json, "shape");
        for (uint32_t k = 0; k < tensor->dims; k++)
            json_uint(&json, NULL, tensor->shape[k]);
        json_array_end(&json);
        json_uint(&json, "bytes", tensor->bytes);
        json_string(&json, "sha256", text);
        if (options->values > 0)
            json_values(&json, "values", item, options->values);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}

int command_digest(const struct options *options)
{
    struct session session = {.options = options};
    struct job job = {0};
    int code = sha256_open(&job.sha256); /* before minutes of loading */

    if (code == 0)
        code = session_load(&session);
    if (code == 0)
        code = collect(&job, &session);
    if (code == 0)
        code = hash(&job, options);
    if (code == 0 && options->json)
        json_digests(&job, options);
    else if (code == 0)
        print_digests(&job, options);
    free(job.items);
    free(job.order);
    session_finish(&session);
    return code; /* libcrypto stays: it has exit handlers of its own */
}
