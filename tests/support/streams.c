/* SPDX-License-Identifier: Apache-2.0 */
#include "support/streams.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DELAY_NS_MAX 60000

/* Raised once; whoever saw it raised sees what was done before. */
struct flag {
    atomic_uint up;
};

struct stream_item {
    struct flag over;
    struct flag followed;     /* next is set */
    struct stream_item *next; /* on its stream */
    struct stream *stream;
    unsigned number;             /* from 1 */
    void (*run)(void *argument); /* NULL ends the stream */
    alignas(16) uint8_t argument[STREAM_ARGUMENT_BYTES_MAX];
};

struct stream {
    struct stream *next; /* in its set */
    pthread_t thread;
    uint64_t random;
    uint32_t delay_ns_max;
    struct stream_item first; /* never runs */
    pthread_mutex_t mutex;    /* of those who queue; the stream's thread never takes it */
    struct stream_item *last;
    /* How far it may run, and has: relaxed, since they say when, and order nothing. */
    atomic_uint allowed, finished;
};

struct streams {
    enum streams_mode mode;
    uint64_t random;
    pthread_mutex_t mutex;
    struct stream *list;
};

/* Sleeps by bare system calls: a mutex, a semaphore or a descriptor would be an order in ThreadSanitizer's eyes. */
static void sleep_while(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static bool flag_is_up(const struct flag *flag)
{
    return atomic_load_explicit(&flag->up, memory_order_acquire);
}

static void flag_wait(struct flag *flag)
{
    while (!flag_is_up(flag))
        sleep_while(&flag->up, 0);
}

static void flag_raise(struct flag *flag)
{
    atomic_store_explicit(&flag->up, 1, memory_order_release);
    wake(&flag->up);
}

static void *need(size_t bytes)
{
    void *memory = calloc(1, bytes);

    if (!memory)
        abort();
    return memory;
}

static uint64_t random_next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* Lets a stream run up to an item. */
static void allow(struct stream *stream, unsigned number)
{
    unsigned now = atomic_load_explicit(&stream->allowed, memory_order_relaxed);

    while (now < number && !atomic_compare_exchange_weak_explicit(&stream->allowed, &now, number, memory_order_relaxed,
                                                                  memory_order_relaxed))
        ;
    wake(&stream->allowed);
}

static void wait_until_allowed(struct stream *stream, unsigned number)
{
    unsigned now;

    while ((now = atomic_load_explicit(&stream->allowed, memory_order_relaxed)) < number)
        sleep_while(&stream->allowed, now);
}

static void item_wait(struct stream_item *item)
{
    allow(item->stream, item->number);
    flag_wait(&item->over);
}

static void *stream_main(void *argument)
{
    struct stream *stream = argument;
    struct stream_item *item = &stream->first;

    for (;;) {
        flag_wait(&item->followed);
        item = item->next;
        wait_until_allowed(stream, item->number);
        if (!item->run)
            return NULL;
        if (stream->delay_ns_max)
            nanosleep(&(struct timespec){.tv_nsec = (long)(random_next(&stream->random) % stream->delay_ns_max)}, NULL);
        item->run(item->argument);
        flag_raise(&item->over);
        atomic_store_explicit(&stream->finished, item->number, memory_order_relaxed);
    }
}

static struct stream_item *queue(struct stream *stream, void (*run)(void *argument), const void *argument, size_t bytes)
{
    struct stream_item *item = need(sizeof(*item)), *before;

    if (bytes > sizeof(item->argument))
        abort();
    if (bytes)
        memcpy(item->argument, argument, bytes);
    item->run = run;
    item->stream = stream;
    pthread_mutex_lock(&stream->mutex);
    before = stream->last;
    item->number = before->number + 1;
    before->next = item;
    stream->last = item;
    flag_raise(&before->followed);
    pthread_mutex_unlock(&stream->mutex);
    return item;
}

struct streams *streams_create(enum streams_mode mode, uint64_t seed)
{
    struct streams *streams = need(sizeof(*streams));

    streams->mode = mode;
    streams->random = seed * 2 + 1; /* never 0 */
    pthread_mutex_init(&streams->mutex, NULL);
    return streams;
}

void streams_destroy(struct streams *streams)
{
    struct stream *stream, *next_stream;

    for (stream = streams->list; stream; stream = stream->next)
        allow(stream, queue(stream, NULL, NULL, 0)->number);
    for (stream = streams->list; stream; stream = stream->next)
        pthread_join(stream->thread, NULL);
    for (stream = streams->list; stream; stream = next_stream) {
        for (struct stream_item *item = stream->first.next, *next; item; item = next) {
            next = item->next;
            free(item);
        }
        next_stream = stream->next;
        pthread_mutex_destroy(&stream->mutex);
        free(stream);
    }
    pthread_mutex_destroy(&streams->mutex);
    free(streams);
}

struct stream *stream_create(struct streams *streams)
{
    struct stream *stream = need(sizeof(*stream));

    atomic_init(&stream->allowed, streams->mode == STREAMS_LAZY ? 0 : UINT32_MAX);
    stream->delay_ns_max = streams->mode == STREAMS_DELAY ? DELAY_NS_MAX : 0;
    pthread_mutex_init(&stream->mutex, NULL);
    stream->first.stream = stream;
    stream->last = &stream->first;
    flag_raise(&stream->first.over);
    pthread_mutex_lock(&streams->mutex);
    stream->random = random_next(&streams->random);
    stream->next = streams->list;
    streams->list = stream;
    pthread_mutex_unlock(&streams->mutex);
    if (pthread_create(&stream->thread, NULL, stream_main, stream))
        abort();
    return stream;
}

void stream_run(struct stream *stream, void (*run)(void *argument), const void *argument, size_t bytes)
{
    queue(stream, run, argument, bytes);
}

void stream_synchronize(struct stream *stream)
{
    struct stream_item *last;

    pthread_mutex_lock(&stream->mutex);
    last = stream->last;
    pthread_mutex_unlock(&stream->mutex);
    item_wait(last);
}

static void run_nothing(void *argument)
{
    (void)argument;
}

static void run_wait(void *argument)
{
    item_wait(*(struct stream_item **)argument);
}

void stream_wait_event(struct stream *stream, const struct stream_event *event)
{
    if (event->recorded)
        queue(stream, run_wait, &event->recorded, sizeof(event->recorded));
}

/* An item of its own, whose flag is raised by nothing else: who sees it is ordered behind what came before it, and not
 * behind what the stream has done since. */
void stream_event_record(struct stream_event *event, struct stream *stream)
{
    event->recorded = queue(stream, run_nothing, NULL, 0);
}

bool stream_event_query(const struct stream_event *event)
{
    struct stream_item *item = event->recorded;

    if (!item || flag_is_up(&item->over))
        return true;
    allow(item->stream, atomic_load_explicit(&item->stream->finished, memory_order_relaxed) + 1);
    return false;
}

void stream_event_synchronize(const struct stream_event *event)
{
    if (event->recorded)
        item_wait(event->recorded);
}
