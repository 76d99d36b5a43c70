/* SPDX-License-Identifier: Apache-2.0 */
#include "digests.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"
#include "library.h"
#include "places.h"
#include "progress.h"
#include "text.h"

#define THREADS_MAX 64
#define AHEAD_BYTES_MAX ((uint64_t)256 << 20) /* while one thread has a long tensor, the others need some */
#define LATE_MAX 1024 /* tensors looked at in a turn that have not come: more than come out of their order */
#define VALUE_BYTES_MAX 8

/* Tensors between their arrival and their digest. They are kept in the order in which the plan reads them, which is,
 * more or less, the one in which they come: of a million tensors nobody searches for those that have. */
struct stream {
    const struct hash *hash;
    struct digest *items;
    uint32_t *order; /* [count] of items: those that have arrived, then the others */
    uint32_t count;
    struct places places;
    struct tnd_load *device_load; /* whose tensors are to be brought back first; NULL: they are here */
    bool written_to; /* reads that were given up may yet come: the places stay */
    struct tnd_plan *plan;
    uint64_t ahead_bytes_max; /* as the file has them */
    size_t kept_bytes; /* of each tensor, for --values */
    pthread_t threads[THREADS_MAX];
    uint32_t thread_count;

    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t arrived_cond, done_cond;
    uint32_t arrived, taken, done; /* of order */
    uint64_t done_bytes; /* as the file has them */
    bool closed; /* no more will arrive */
    bool failed;
};

/* ---- Hashing ----------------------------------------------------------------------------------------------- */

static struct digest *take(struct stream *stream, bool wait)
{
    struct digest *item = NULL;

    pthread_mutex_lock(&stream->mutex);
    while (wait && stream->taken == stream->arrived && !stream->closed)
        pthread_cond_wait(&stream->arrived_cond, &stream->mutex);
    if (stream->taken < stream->arrived)
        item = &stream->items[stream->order[stream->taken++]];
    pthread_mutex_unlock(&stream->mutex);
    return item;
}

/* Brings a tensor to the place that was taken for it. */
static bool bring_back(const struct stream *stream, const struct digest *item)
{
    return item->bytes == 0 || (item->data && tnd_load_tensor_read(stream->device_load, item->index, 0,
                                                                   (void *)item->data, item->bytes) == 0);
}

/* False when there is no tensor to take, and with wait: never will be. */
static bool hash_one(struct stream *stream, bool wait)
{
    struct digest *item = take(stream, wait);
    bool good;

    if (!item)
        return false;
    good = (!stream->device_load || bring_back(stream, item)) &&
           hash_memory(stream->hash, item->data, item->bytes, interrupted, item->sum);
    places_give_back(&stream->places, item->data, item->bytes, stream->kept_bytes);
    pthread_mutex_lock(&stream->mutex);
    stream->done++;
    stream->done_bytes += item->tensor->bytes;
    stream->failed = stream->failed || !good;
    pthread_cond_signal(&stream->done_cond);
    pthread_mutex_unlock(&stream->mutex);
    return true;
}

static void *work(void *cookie)
{
    while (hash_one(cookie, true))
        ;
    return NULL;
}

static void start_threads(struct stream *stream, uint64_t wanted)
{
    wanted = wanted < stream->count ? wanted : stream->count;
    wanted = wanted < THREADS_MAX ? wanted : THREADS_MAX;
    interrupt_hold();
    while (stream->thread_count < wanted &&
           pthread_create(&stream->threads[stream->thread_count], NULL, work, stream) == 0)
        stream->thread_count++;
    interrupt_release();
}

/* This thread works too now: it has nothing to drive any more. */
static void finish_threads(struct stream *stream)
{
    pthread_mutex_lock(&stream->mutex);
    stream->closed = true;
    pthread_cond_broadcast(&stream->arrived_cond);
    pthread_mutex_unlock(&stream->mutex);
    while (hash_one(stream, false))
        ;
    for (uint32_t i = 0; i < stream->thread_count; i++)
        pthread_join(stream->threads[i], NULL);
}

/* ---- While the load goes on -------------------------------------------------------------------------------- */

static void *place(void *cookie, const struct tnd_tensor *tensor)
{
    struct digests *digests = cookie;

    return places_take(&digests->stream->places, tensor);
}

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t value = *a;

    *a = *b;
    *b = value;
}

/* Of the host, for a tensor as it lies on the device. */
static void *take_place(struct stream *stream, const struct digest *item)
{
    struct tnd_tensor loaded = *item->tensor;

    loaded.dtype = item->dtype;
    loaded.bytes = item->bytes;
    return places_take(&stream->places, &loaded);
}

/* Whoever has come goes before those that have not; one that is late holds nobody up. */
static void hand_over(struct stream *stream, struct tnd_load *load)
{
    uint32_t arrived = stream->arrived; /* nobody else writes to it, nor to order from there on */
    uint32_t late = 0;
    struct tnd_progress at;

    tnd_load_progress(load, &at);
    for (uint32_t i = arrived; i < stream->count && arrived < at.tensors_ready && late < LATE_MAX; i++) {
        struct digest *item = &stream->items[stream->order[i]];

        if (tnd_load_tensor_data(load, item->index, &item->data) < 0)
            late++;
        else
            swap(&stream->order[i], &stream->order[arrived++]);
        if (stream->device_load && item->data)
            item->data = take_place(stream, item);
    }
    if (arrived == stream->arrived)
        return;
    pthread_mutex_lock(&stream->mutex);
    stream->arrived = arrived;
    pthread_cond_broadcast(&stream->arrived_cond);
    pthread_mutex_unlock(&stream->mutex);
}

/* Waits a little when too much has been read that has no digest yet. A tensor that is not whole cannot be waited for:
 * with nothing to hash it is read on. */
static bool rest(struct stream *stream, struct tnd_load *load)
{
    struct tnd_progress at;
    struct timespec until;
    bool rests;

    tnd_load_progress(load, &at);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PROGRESS_TICK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&stream->mutex);
    rests = stream->done < stream->arrived && at.bytes_ready > stream->done_bytes + stream->ahead_bytes_max;
    if (rests)
        pthread_cond_timedwait(&stream->done_cond, &stream->mutex, &until);
    pthread_mutex_unlock(&stream->mutex);
    return rests;
}

static int turn(struct session *session, void *cookie)
{
    struct digests *digests = cookie;
    struct stream *stream = digests->stream;
    int r;

    hand_over(stream, session->load);
    while (stream->thread_count == 0 && hash_one(stream, false))
        ;
    if (rest(stream, session->load))
        return -ETIMEDOUT;
    interrupt_hold(); /* a step may start threads */
    r = tnd_loader_step(session->loader, PROGRESS_TICK_NS);
    interrupt_release();
    if (r >= 0)
        r = tnd_load_wait(session->load, 0);
    return r == -EAGAIN ? -ETIMEDOUT : r;
}

/* ---- Before ------------------------------------------------------------------------------------------------ */

/* Where in the plan each tensor is whole; 0 for one without bytes. Returns the bytes of the longest one. */
static uint64_t rank_tensors(const struct tnd_plan *plan, uint32_t *ranks)
{
    const struct tnd_window *window;
    uint64_t longest = 0;
    uint32_t rank = 0;

    for (uint32_t i = 0; (window = tnd_plan_window(plan, i)); i++)
        for (uint32_t k = 0; k < window->piece_count; k++) {
            uint32_t index = tnd_plan_piece(plan, window->piece_first + k)->tensor;
            enum tnd_dtype dtype;
            uint64_t bytes;

            tnd_plan_tensor_type(plan, index, &dtype, &bytes);
            ranks[index] = ++rank;
            longest = bytes > longest ? bytes : longest;
        }
    return longest;
}

/* How far reading may be ahead of the digests: the memory was not counted when the load took its places. */
static int bound_ahead(struct stream *stream, const struct tnd_plan *plan, uint64_t longest, const char *model)
{
    struct tnd_plan_sizes sizes;
    uint64_t need;

    tnd_plan_sizes(plan, &sizes);
    longest = longest < sizes.destination_bytes ? longest : sizes.destination_bytes; /* a mapped file takes none */
    need = longest + sizes.pool_bytes;
    if (need > sizes.available_bytes)
        return fail(EXIT_RESOURCE,
                    "%s: needs %" PRIu64 " bytes (%" PRIu64 " for its largest tensor, %" PRIu64
                    " for buffers), %" PRIu64 " are available",
                    model, need, longest, sizes.pool_bytes, sizes.available_bytes);
    stream->ahead_bytes_max = sizes.available_bytes - need;
    if (stream->ahead_bytes_max > AHEAD_BYTES_MAX)
        stream->ahead_bytes_max = AHEAD_BYTES_MAX;
    if (sizes.loaded_bytes > sizes.tensor_bytes) /* what is ahead takes more memory than it took in the file */
        stream->ahead_bytes_max = (uint64_t)((double)stream->ahead_bytes_max * (double)sizes.tensor_bytes /
                                             (double)sizes.loaded_bytes);
    return 0;
}

static int make_plan(struct stream *stream, const struct session *session)
{
    struct tnd_loader_options loader_options = options_loader(session->options);
    struct tnd_load_options load_options = options_load(session->options);
    int r = tnd_plan_create(session->model, &loader_options, &load_options, &stream->plan);

    return r < 0 ? fail_result(r, NULL) : 0;
}

static void item_add(struct digests *digests, const struct session *session, const struct tnd_tensor *tensor,
                     uint32_t index)
{
    struct digest *item = &digests->items[digests->count++];

    *item = (struct digest){.tensor = tensor, .index = index};
    tnd_load_tensor_type(session->load, index, &item->dtype, &item->bytes);
}

static void collect(struct digests *digests, const struct session *session)
{
    const struct tnd_tensor *tensor;
    const void *data;

    for (uint32_t i = 0; (tensor = tnd_model_tensor(session->model, i)); i++)
        if (tnd_load_tensor_data(session->load, i, &data) != -EINVAL) /* --only or --layers left it out */
            item_add(digests, session, tensor, i);
}

struct ranked {
    const struct digest *items;
    const uint32_t *ranks;
};

static int by_rank(const void *a, const void *b, void *cookie)
{
    const struct ranked *ranked = cookie;
    uint32_t left = ranked->ranks[ranked->items[*(const uint32_t *)a].index];
    uint32_t right = ranked->ranks[ranked->items[*(const uint32_t *)b].index];

    return (left > right) - (left < right);
}

/* What the load has, and in which order it will come. */
static int arrange(struct digests *digests, const struct session *session)
{
    struct stream *stream = digests->stream;
    size_t count = tnd_model_tensor_count(session->model);
    uint32_t *ranks = calloc(count + 1, sizeof(*ranks));
    int code = 0;

    digests->items = calloc(count + 1, sizeof(*digests->items));
    stream->order = calloc(count + 1, sizeof(*stream->order));
    if (!ranks || !digests->items || !stream->order)
        code = fail(EXIT_RESOURCE, "out of memory for %zu digests", count);
    if (code == 0)
        code = bound_ahead(stream, stream->plan, rank_tensors(stream->plan, ranks), session->options->model);
    if (code == 0) {
        collect(digests, session);
        for (uint32_t i = 0; i < digests->count; i++)
            stream->order[i] = i;
        qsort_r(stream->order, digests->count, sizeof(*stream->order), by_rank,
                &(struct ranked){.items = digests->items, .ranks = ranks});
        stream->items = digests->items;
        stream->count = digests->count;
    }
    free(ranks);
    return code;
}

static int prepare(struct digests *digests, struct session *session)
{
    struct stream *stream = digests->stream = calloc(1, sizeof(*stream));
    pthread_condattr_t attributes;
    int code;

    if (!stream)
        return fail(EXIT_RESOURCE, "out of memory for digests");
    stream->hash = digests->hash;
    stream->kept_bytes = session->options->values * VALUE_BYTES_MAX;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_cond_init(&stream->arrived_cond, NULL);
    pthread_cond_init(&stream->done_cond, &attributes);
    pthread_condattr_destroy(&attributes);
    session->turn = turn;
    session->cookie = digests;
    code = make_plan(stream, session);
    if (code != 0)
        return code;
    if (session->options->engine == TND_ENGINE_MMAP && session->options->device == TND_DEVICE_HOST)
        return 0; /* tensors are the file's own pages, which the kernel takes back by itself */
    if (session->options->device == TND_DEVICE_HOST)
        session->place = place;
    places_init(&stream->places, session->model, stream->plan);
    return 0;
}

/* ---- The whole --------------------------------------------------------------------------------------------- */

static int hash_all(struct digests *digests, struct session *session)
{
    struct stream *stream = digests->stream;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct tnd_load_stats stats;
    int code;

    if (session->options->device != TND_DEVICE_HOST)
        stream->device_load = session->load;
    start_threads(stream, session->options->threads > 0 ? session->options->threads : cores > 0 ? (uint64_t)cores : 1);
    code = session_wait(session);
    tnd_load_stats(session->load, &stats);
    stream->written_to = stats.reads_given_up > 0;
    if (code == 0)
        hand_over(stream, session->load);
    finish_threads(stream);
    if (code == 0 && interrupted())
        return fail(EXIT_INTERRUPTED, "interrupted: %s was not digested", session->options->model);
    if (code == 0 && stream->failed)
        return fail(EXIT_FAILED, "the %s of a tensor could not be taken", digests->hash->title);
    return code;
}

int digests_take(struct digests *digests, const struct hash *hash, struct session *session)
{
    int code = hash->open();

    digests->hash = hash;
    if (code == 0)
        code = session_open(session);
    if (code == 0)
        code = prepare(digests, session);
    if (code == 0)
        code = session_start(session);
    if (code == 0)
        code = arrange(digests, session);
    return code == 0 ? hash_all(digests, session) : code;
}

void digests_finish(struct digests *digests)
{
    struct stream *stream = digests->stream;

    if (stream) {
        if (!stream->written_to)
            places_finish(&stream->places);
        tnd_plan_destroy(&stream->plan);
        pthread_cond_destroy(&stream->done_cond);
        pthread_cond_destroy(&stream->arrived_cond);
        pthread_mutex_destroy(&stream->mutex);
        free(stream->order);
        free(stream);
    }
    free(digests->items);
    *digests = (struct digests){0};
}
