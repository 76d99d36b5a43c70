/* SPDX-License-Identifier: Apache-2.0 */
#include "io/io.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/clock.h"

#define CACHED_PERCENT_MIN 80 /* from here on a file is read from the page cache */
#define RETRY_NS ((uint64_t)1000000)

struct tnd_io {
    struct tnd_io_options options;
    struct tnd_io_engine *uring, *threads, *other; /* other: mmap, nil, or a test's own */
    bool uring_refused;
    char uring_refusal[sizeof(((struct tnd_err *)0)->text)];
    uint32_t uring_in_flight;
    struct tnd_io_read *retries;            /* wait for not_before_ns */
    struct tnd_io_read *done, **done_tail;  /* whole or failed, not yet given out */
};

/* ---- Engines ----------------------------------------------------------------------------------------------- */

static int uring_need(struct tnd_io *io, struct tnd_err *err)
{
    struct tnd_err why = {0};
    int r;

    if (io->uring)
        return 0;
    if (!io->uring_refused) {
        r = tnd_io_uring_create(&io->uring, &io->options, &why);
        if (r >= 0)
            return 0;
        if (r == -ENOMEM)
            return tnd_fail(err, r, "%s", why.text);
        io->uring_refused = true;
        memcpy(io->uring_refusal, why.text, sizeof(io->uring_refusal));
        tnd_log_line(&io->options.log, TND_LOG_INFO, "%s", why.text);
    }
    return tnd_fail(err, -ENODEV, "%s", io->uring_refusal);
}

static int threads_need(struct tnd_io *io, struct tnd_err *err)
{
    return io->threads ? 0 : tnd_io_threads_create(&io->threads, &io->options, err);
}

int tnd_io_create(struct tnd_io **ret_io, const struct tnd_io_options *options, struct tnd_err *err)
{
    struct tnd_io *io = tnd_zalloc(&options->allocator, 1, sizeof(*io));
    int r = 0;

    if (!io)
        return tnd_fail(err, -ENOMEM, "no memory for an engine");
    io->options = *options;
    io->done_tail = &io->done;
    if (!io->options.now_ns)
        io->options.now_ns = tnd_now_ns;
    if (options->only_engine)
        io->other = options->only_engine;
    else if (options->engine == TND_ENGINE_NIL)
        r = tnd_io_nil_create(&io->other, &io->options, err);
    else if (options->engine == TND_ENGINE_MMAP)
        r = tnd_io_mmap_create(&io->other, &io->options, err);
    else if (options->engine == TND_ENGINE_URING)
        r = uring_need(io, err); /* who demands it hears of a refusal now */
    if (r < 0) {
        tnd_io_destroy(&io);
        return r;
    }
    *ret_io = io;
    return 0;
}

void tnd_io_destroy(struct tnd_io **io)
{
    struct tnd_io *dead = *io;
    struct tnd_allocator allocator;

    if (!dead)
        return;
    allocator = dead->options.allocator;
    if (dead->uring)
        dead->uring->ops->destroy(dead->uring);
    if (dead->threads)
        dead->threads->ops->destroy(dead->threads);
    if (dead->other)
        dead->other->ops->destroy(dead->other);
    tnd_free(&allocator, dead);
    *io = NULL;
}

void tnd_io_abandon(struct tnd_io **io)
{
    struct tnd_io_engine *engines[] = {(*io)->uring, (*io)->threads, (*io)->other};

    for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++)
        if (engines[i] && engines[i]->ops->abandon)
            engines[i]->ops->abandon(engines[i]);
    *io = NULL;
}

int tnd_io_register(struct tnd_io *io, uint32_t index, void *data, size_t bytes)
{
    if (io->uring && io->uring->ops->register_buffer(io->uring, index, data, bytes))
        return (int)index;
    return -1;
}

/* ---- The ladder -------------------------------------------------------------------------------------------- */

/* Whether this file is to be read past the page cache, when nobody said. */
static bool wants_direct(struct tnd_io_file *file, enum tnd_file_system file_system)
{
    uint32_t cached = tnd_file_cached_percent(file->fd, file->bytes);

    if (cached >= CACHED_PERCENT_MIN) {
        tnd_reasons_add(file->reasons, "%s: %u %% of it is in the page cache, so it is copied from there", file->path,
                        cached);
        return false;
    }
    if (file_system == TND_FS_TMPFS || file_system == TND_FS_BTRFS) {
        tnd_reasons_add(file->reasons, "%s: direct I/O is of no use on %s", file->path,
                        tnd_file_system_name(file_system));
        return false;
    }
    return true;
}

static int choose_engine(struct tnd_io *io, struct tnd_io_file *file, enum tnd_file_system file_system, bool cached,
                         struct tnd_err *err)
{
    struct tnd_err why = {0};
    int r;

    if (io->options.engine == TND_ENGINE_URING || (io->options.engine == TND_ENGINE_AUTO && !cached &&
                                                   file_system == TND_FS_OTHER)) {
        r = uring_need(io, &why);
        file->engine = io->uring;
        if (r >= 0)
            return 0;
        if (io->options.engine == TND_ENGINE_URING)
            return tnd_fail(err, r, "%s", why.text);
        tnd_reasons_add(file->reasons, "%s; reading by threads", why.text);
    } else if (io->options.engine == TND_ENGINE_AUTO && !cached) {
        tnd_reasons_add(file->reasons, "%s: on %s the ring would only hide threads; reading by threads", file->path,
                        tnd_file_system_name(file_system));
    }
    r = threads_need(io, err);
    file->engine = io->threads;
    return r;
}

int tnd_io_attach(struct tnd_io *io, struct tnd_io_file *file, struct tnd_err *err)
{
    enum tnd_file_system file_system;
    bool direct;

    file->fd_direct = -1;
    file->direct = false;
    file->alignment = 1;
    file->engine = io->other;
    file->fd = file->source ? file->source->fd : -1;
    if (io->options.only_engine && io->options.direct == TND_ON) {
        file->direct = true;
        file->alignment = 512;
    }
    if (file->engine)
        return 0;
    file_system = tnd_file_system_of(file->fd);
    direct = io->options.direct == TND_AUTO ? wants_direct(file, file_system) : io->options.direct == TND_ON;
    if (direct) {
        struct tnd_err why = {0};
        int r = tnd_file_open_direct(file, io->options.alignment, &why);

        file->direct = r >= 0;
        if (r < 0 && io->options.direct == TND_ON)
            return tnd_fail(err, -ENODEV, "%s", why.text);
        if (r < 0)
            tnd_reasons_add(file->reasons, "%s", why.text);
    }
    return choose_engine(io, file, file_system, io->options.direct == TND_AUTO && !direct, err);
}

void tnd_io_detach(struct tnd_io *io, struct tnd_io_file *file)
{
    (void)io;
    tnd_file_close_direct(file);
}

void tnd_io_through_cache(struct tnd_io *io, struct tnd_io_file *file)
{
    if (!file->direct || io->options.direct == TND_ON)
        return;
    file->direct = false;
    tnd_reasons_add(file->reasons, "%s: fits the page cache, and is read through it from the first layer in the window "
                    "on, as a window reads its layers again", file->path);
    if (io->options.engine == TND_ENGINE_AUTO && file->engine == io->uring && threads_need(io, NULL) >= 0)
        file->engine = io->threads; /* the ring would copy on one thread only */
}

bool tnd_io_can_scatter(const struct tnd_io_file *file)
{
    return !file->direct && file->engine->ops->scatters;
}

/* One step down for a file whose reads are refused, not failed. False when there is none. */
static bool step_down(struct tnd_io *io, const struct tnd_io_read *read)
{
    struct tnd_io_file *file = read->file;
    int error = (int)-read->answer;

    if (read->was_direct && (error == EINVAL || error == EOPNOTSUPP) && io->options.direct != TND_ON) {
        if (file->direct)
            tnd_reasons_add(file->reasons, "%s: a direct read at %llu is refused (%s); reading through the page cache",
                            file->path, (unsigned long long)read->offset, strerror(error));
        file->direct = false;
        return true;
    }
    if (io->uring && read->engine == io->uring && io->options.engine == TND_ENGINE_AUTO &&
        (error == EPERM || error == ENOSYS || error == EOPNOTSUPP || error == EINVAL) &&
        threads_need(io, NULL) >= 0) {
        if (file->engine == io->uring)
            tnd_reasons_add(file->reasons, "%s: the ring refuses to read it (%s); reading by threads", file->path,
                            strerror(error));
        file->engine = io->threads;
        return true;
    }
    return false;
}

/* ---- Reads ------------------------------------------------------------------------------------------------- */

static void engine_submit(struct tnd_io *io, struct tnd_io_read *read)
{
    read->engine = read->file->engine;
    read->was_direct = read->file->direct && read->buffer;
    if (read->engine == io->uring && io->uring)
        io->uring_in_flight++;
    read->engine->ops->submit(read->engine, read);
}

void tnd_io_submit(struct tnd_io *io, struct tnd_io_read *read)
{
    read->result = 0;
    read->bytes_done = 0;
    read->retries = 0;
    read->stalls = 0;
    atomic_store(&read->given_up, false);
    engine_submit(io, read);
}

bool tnd_io_give_up(struct tnd_io *io, struct tnd_io_read *read)
{
    struct tnd_io_read **at = &io->retries;

    while (*at && *at != read)
        at = &(*at)->next;
    if (*at) { /* in no engine */
        *at = read->next;
        return true;
    }
    atomic_store(&read->given_up, true);
    return read->engine->ops->give_up && read->engine->ops->give_up(read->engine, read);
}

enum tnd_engine tnd_io_engine_of(const struct tnd_io *io, const struct tnd_io_read *read)
{
    if (read->engine == io->uring)
        return TND_ENGINE_URING;
    if (read->engine == io->threads)
        return TND_ENGINE_THREADS;
    return io->options.engine == TND_ENGINE_MMAP ? TND_ENGINE_MMAP : TND_ENGINE_NIL;
}

static void finish(struct tnd_io *io, struct tnd_io_read *read, int result)
{
    read->result = result;
    read->error_offset = read->offset + read->bytes_done;
    read->next = NULL;
    *io->done_tail = read;
    io->done_tail = &read->next;
}

/* The file has no more bytes where it had some: told with the end as it is now. */
static void finish_cut(struct tnd_io *io, struct tnd_io_read *read)
{
    struct stat now;

    finish(io, read, -EBADMSG);
    if (fstat(read->file->fd, &now) == 0 && (uint64_t)now.st_size < read->offset + read->bytes_wanted)
        read->error_offset = (uint64_t)now.st_size;
}

static bool at_end(const struct tnd_io_read *read)
{
    struct stat now;

    return fstat(read->file->fd, &now) == 0 &&
           read->offset + read->bytes_done + (uint64_t)read->answer >= (uint64_t)now.st_size;
}

static void retry_later(struct tnd_io *io, struct tnd_io_read *read)
{
    read->retries++;
    if (++read->stalls > TND_READ_STALLS_MAX) {
        finish(io, read, read->answer > 0 ? -EBADMSG : -EIO); /* ever the same few bytes: there are no more */
        return;
    }
    read->not_before_ns = io->options.now_ns() + RETRY_NS;
    read->next = io->retries;
    io->retries = read;
}

/* What a failed read is to the caller, whose arguments were not at fault. */
static int failure_of(const struct tnd_io *io, const struct tnd_io_read *read)
{
    switch (read->answer) {
    case -EINVAL:
    case -EOPNOTSUPP:
        return read->was_direct && io->options.direct == TND_ON ? -ENODEV : -EIO;
    case -EFAULT:
        return -ENOMEM;
    default:
        return tnd_errno_public((int)read->answer);
    }
}

/* What an engine's answer means. */
static void settle(struct tnd_io *io, struct tnd_io_read *read)
{
    uint64_t done;

    if (read->engine == io->uring && io->uring)
        io->uring_in_flight--;
    if (atomic_load(&read->given_up)) { /* its file may be closed: nothing goes on from here */
        finish(io, read, -EIO);
        return;
    }
    if (read->answer == -EAGAIN || read->answer == -EINTR) {
        retry_later(io, read);
        return;
    }
    if (read->answer < 0) {
        if (step_down(io, read))
            engine_submit(io, read);
        else
            finish(io, read, failure_of(io, read));
        return;
    }
    if (read->answer == 0) {
        finish_cut(io, read);
        return;
    }
    done = read->bytes_done + (uint64_t)read->answer;
    if (done >= read->bytes_wanted) {
        read->bytes_done = (uint32_t)done;
        finish(io, read, 0);
        return;
    }
    /* Short: a direct read continues where it is still aligned, which is behind the cut. */
    if (read->was_direct)
        done = tnd_round_down(done, read->file->alignment);
    if (done > read->bytes_done) {
        read->retries++;
        read->stalls = 0;
        read->bytes_done = (uint32_t)done;
        engine_submit(io, read);
    } else if (at_end(read)) {
        finish_cut(io, read);
    } else {
        retry_later(io, read);
    }
}

static void reap_engine(struct tnd_io *io, struct tnd_io_engine *engine)
{
    struct tnd_io_read *read = engine ? engine->ops->reap(engine) : NULL;

    while (read) {
        struct tnd_io_read *next = read->next;

        settle(io, read);
        read = next;
    }
}

static void reap_all(struct tnd_io *io)
{
    reap_engine(io, io->uring);
    reap_engine(io, io->threads);
    reap_engine(io, io->other);
}

/* Submits the retries that are due; what is left of timeout_ns until the next one is. */
static int64_t retries_due(struct tnd_io *io, int64_t timeout_ns)
{
    struct tnd_io_read *read = io->retries;
    uint64_t now = read ? io->options.now_ns() : 0;

    io->retries = NULL;
    while (read) {
        struct tnd_io_read *next = read->next;

        if (read->not_before_ns <= now) {
            engine_submit(io, read);
        } else {
            int64_t left = (int64_t)(read->not_before_ns - now);

            timeout_ns = timeout_ns < 0 || left < timeout_ns ? left : timeout_ns;
            read->next = io->retries;
            io->retries = read;
        }
        read = next;
    }
    return timeout_ns;
}

/* Whether the waker's descriptor became readable. */
static bool wait_for_any(struct tnd_io *io, int64_t timeout_ns)
{
    struct pollfd wake = {.fd = io->options.waker->fd, .events = POLLIN};
    struct timespec limit = {
        .tv_sec = timeout_ns / (int64_t)TND_NS_PER_S,
        .tv_nsec = timeout_ns % (int64_t)TND_NS_PER_S,
    };

    if (io->uring_in_flight)
        return io->uring->ops->wait(io->uring, timeout_ns);
    return timeout_ns && ppoll(&wake, 1, timeout_ns < 0 ? NULL : &limit, NULL) > 0;
}

uint32_t tnd_io_poll(struct tnd_io *io, int64_t timeout_ns, struct tnd_io_read **ret_reads, uint32_t count_max)
{
    uint32_t count = 0;

    reap_all(io);
    timeout_ns = retries_due(io, timeout_ns); /* with those that were just reaped */
    tnd_waker_awake(io->options.waker, wait_for_any(io, io->done ? 0 : timeout_ns));
    reap_all(io);
    while (io->done && count < count_max) {
        ret_reads[count++] = io->done;
        io->done = io->done->next;
    }
    if (!io->done)
        io->done_tail = &io->done;
    return count;
}
