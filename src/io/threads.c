/* SPDX-License-Identifier: Apache-2.0 */

/* Reads by preadv on a few threads: where there is no ring, and for cached files, whose copy out of the page cache the
 * ring would make on one thread. Buffered reads may scatter into spans. */

#include <errno.h>
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/thread.h"
#include "io/io.h"

#define THREADS_MAX 8
#define REPLACEMENTS_MAX 56 /* for threads that hang in a read for ever */
#define HOLE_BYTES 4096 /* the longest hole between two spans that one vector bridges */
#define VECTOR_MAX 64

struct threads {
    struct tnd_io_engine engine;
    struct tnd_io_engine_ops ops;
    int64_t (*run)(struct tnd_io_read *read);
    struct tnd_allocator allocator;
    struct tnd_waker *waker;
    pthread_mutex_t mutex;
    pthread_cond_t queued_cond;
    struct tnd_io_read *queue, **queue_tail; /* under mutex, first in first out */
    struct tnd_io_read *done, **done_tail;   /* under mutex */
    bool stopping;  /* under mutex */
    bool abandoned; /* under mutex: nobody but the threads themselves looks at this any more, nor they at the waker */
    uint32_t lost_count; /* the driver's: hanging threads without a replacement */
    uint32_t thread_count;
    pthread_t threads[THREADS_MAX + REPLACEMENTS_MAX];
};

/* Fills a vector with the spans from *at on, short holes between them included, and moves *at to the first byte that
 * is wanted. Returns its length; 0 when nothing is left. */
static int spans_vector(const struct tnd_io_read *read, uint32_t *at, uint8_t *hole, struct iovec *vector)
{
    uint32_t end = 0; /* of what the vector covers */
    int count = 0;

    for (uint32_t i = 0; i < read->span_count && count < VECTOR_MAX - 1; i++) {
        const struct tnd_span *span = &read->spans[i];
        uint32_t skip = 0;

        if (span->window_offset + span->bytes <= *at)
            continue;
        if (!count) {
            *at = (uint32_t)tnd_max(*at, span->window_offset);
            skip = *at - span->window_offset;
        } else if (span->window_offset > end) {
            if (span->window_offset - end > HOLE_BYTES)
                break;
            vector[count++] = (struct iovec){.iov_base = hole, .iov_len = span->window_offset - end};
        }
        vector[count++] = (struct iovec){.iov_base = span->destination + skip, .iov_len = span->bytes - skip};
        end = span->window_offset + span->bytes;
    }
    return count;
}

/* Reads until all is there, something fails, or the file is at its end: bytes gained, or -errno when none were. */
static int64_t read_spans(struct tnd_io_read *read)
{
    uint8_t hole[HOLE_BYTES];
    struct iovec vector[VECTOR_MAX];
    uint32_t at = read->bytes_done;
    int count;

    while (!atomic_load(&read->given_up) && (count = spans_vector(read, &at, hole, vector)) > 0) {
        ssize_t got = preadv(read->file->fd, vector, count, (off_t)(read->offset + at));

        if (got <= 0) {
            uint32_t gained = at - read->bytes_done;

            if (gained)
                return gained;
            return got < 0 ? -errno : 0;
        }
        at += (uint32_t)got;
    }
    return read->bytes_wanted - read->bytes_done;
}

int64_t tnd_io_pread(const struct tnd_io_read *read)
{
    ssize_t got = pread(read->was_direct ? read->file->fd_direct : read->file->fd, read->buffer + read->bytes_done,
                        read->bytes - read->bytes_done, (off_t)(read->offset + read->bytes_done));
    return got < 0 ? -errno : got;
}

static int64_t read_one(struct tnd_io_read *read)
{
    return read->buffer ? tnd_io_pread(read) : read_spans(read);
}

static void *thread_main(void *argument)
{
    struct threads *threads = argument;

    pthread_mutex_lock(&threads->mutex);
    for (;;) {
        struct tnd_io_read *read = threads->queue;

        if (threads->abandoned)
            break;
        if (!read) {
            if (threads->stopping)
                break;
            pthread_cond_wait(&threads->queued_cond, &threads->mutex);
            continue;
        }
        threads->queue = read->next;
        if (!threads->queue)
            threads->queue_tail = &threads->queue;
        pthread_mutex_unlock(&threads->mutex);

        read->answer = threads->run(read);

        pthread_mutex_lock(&threads->mutex);
        if (threads->abandoned)
            break;
        read->next = NULL;
        *threads->done_tail = read;
        threads->done_tail = &read->next;
        tnd_waker_signal(threads->waker);
    }
    pthread_mutex_unlock(&threads->mutex);
    return NULL;
}

static void threads_submit(struct tnd_io_engine *engine, struct tnd_io_read *read)
{
    struct threads *threads = (struct threads *)engine;

    pthread_mutex_lock(&threads->mutex);
    read->next = NULL;
    *threads->queue_tail = read;
    threads->queue_tail = &read->next;
    pthread_cond_signal(&threads->queued_cond);
    pthread_mutex_unlock(&threads->mutex);
}

/* Not before all reads that were given up are taken out of the queue: a new thread would hang in the next of them. */
static void replace_lost(struct threads *threads)
{
    while (threads->lost_count && threads->thread_count < sizeof(threads->threads) / sizeof(threads->threads[0]) &&
           tnd_thread_create(&threads->threads[threads->thread_count], thread_main, threads) == 0) {
        threads->thread_count++;
        threads->lost_count--;
    }
}

static struct tnd_io_read *threads_reap(struct tnd_io_engine *engine)
{
    struct threads *threads = (struct threads *)engine;
    struct tnd_io_read *done;

    if (threads->lost_count)
        replace_lost(threads);
    pthread_mutex_lock(&threads->mutex);
    done = threads->done;
    threads->done = NULL;
    threads->done_tail = &threads->done;
    pthread_mutex_unlock(&threads->mutex);
    return done;
}

static void threads_destroy(struct tnd_io_engine *engine)
{
    struct threads *threads = (struct threads *)engine;
    struct tnd_allocator allocator = threads->allocator;

    pthread_mutex_lock(&threads->mutex);
    threads->stopping = true;
    pthread_cond_broadcast(&threads->queued_cond);
    pthread_mutex_unlock(&threads->mutex);
    for (uint32_t i = 0; i < threads->thread_count; i++)
        pthread_join(threads->threads[i], NULL);
    pthread_cond_destroy(&threads->queued_cond);
    pthread_mutex_destroy(&threads->mutex);
    tnd_free(&allocator, threads);
}

static bool take_out(struct threads *threads, const struct tnd_io_read *read)
{
    struct tnd_io_read **at = &threads->queue;

    while (*at && *at != read)
        at = &(*at)->next;
    if (!*at)
        return false;
    *at = read->next;
    if (!*at)
        threads->queue_tail = at;
    return true;
}

/* A read that was begun has a thread, which may never come back: another one will take its turns. */
static bool threads_give_up(struct tnd_io_engine *engine, struct tnd_io_read *read)
{
    struct threads *threads = (struct threads *)engine;
    bool taken;

    pthread_mutex_lock(&threads->mutex);
    taken = take_out(threads, read);
    pthread_mutex_unlock(&threads->mutex);
    threads->lost_count += !taken;
    return taken;
}

/* The threads that hang cannot be joined; what they see stays. */
static void threads_abandon(struct tnd_io_engine *engine)
{
    struct threads *threads = (struct threads *)engine;

    pthread_mutex_lock(&threads->mutex);
    threads->abandoned = true;
    pthread_cond_broadcast(&threads->queued_cond);
    for (uint32_t i = 0; i < threads->thread_count; i++)
        pthread_detach(threads->threads[i]);
    pthread_mutex_unlock(&threads->mutex);
}

int tnd_io_threaded_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, const char *name,
                           bool scatters, int64_t (*run)(struct tnd_io_read *read), struct tnd_err *err)
{
    struct threads *threads = tnd_zalloc(&options->allocator, 1, sizeof(*threads));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t count = (uint32_t)tnd_min(THREADS_MAX, cores > 0 ? (uint64_t)cores * 2 : 2);

    if (!threads)
        return tnd_fail(err, -ENOMEM, "no memory for reading threads");
    threads->ops = (struct tnd_io_engine_ops){
        .name = name,
        .scatters = scatters,
        .destroy = threads_destroy,
        .give_up = threads_give_up,
        .abandon = threads_abandon,
        .submit = threads_submit,
        .reap = threads_reap,
    };
    threads->engine.ops = &threads->ops;
    threads->run = run;
    threads->allocator = options->allocator;
    threads->waker = options->waker;
    threads->queue_tail = &threads->queue;
    threads->done_tail = &threads->done;
    pthread_mutex_init(&threads->mutex, NULL);
    pthread_cond_init(&threads->queued_cond, NULL);
    while (threads->thread_count < tnd_min(count, options->depth) &&
           tnd_thread_create(&threads->threads[threads->thread_count], thread_main, threads) == 0)
        threads->thread_count++;
    if (!threads->thread_count) {
        threads_destroy(&threads->engine);
        return tnd_fail(err, -ENOMEM, "no reading thread could be started");
    }
    *ret_engine = &threads->engine;
    return 0;
}

int tnd_io_threads_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err)
{
    return tnd_io_threaded_create(ret_engine, options, "threads", true, read_one, err);
}
