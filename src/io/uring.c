/* SPDX-License-Identifier: Apache-2.0 */

/* Reads by io_uring. One ring, owned by the thread that created it; no polling threads, no links.
 * A wait inside the ring also ends when the waker's descriptor becomes readable: a poll on it is always armed. */

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "io/io.h"

#define SQ_ENTRIES_MIN 8
#define BROKEN_WAIT_US 10000

struct uring {
    struct tnd_io_engine engine;
    struct tnd_allocator allocator;
    struct io_uring ring;
    struct tnd_waker *waker;
    bool wake_armed;
    int broken; /* -errno with which the kernel refused to be entered; the ring is not used again */
    struct tnd_io_read *unsent; /* queued, not known to the kernel yet */
    bool buffers_registered; /* a sparse table that register_buffer fills */
};

static const struct tnd_io_engine_ops uring_ops;

/* Whether the kernel took what was queued. A refusal that no later call would lift breaks the ring: sandboxes can come
 * over a process in the middle of its life. */
static void sent(struct uring *uring, int r)
{
    if (r >= 0 || r == -ETIME)
        uring->unsent = NULL;
    else if (r != -EINTR && r != -EAGAIN && r != -EBUSY)
        uring->broken = r;
}

static struct io_uring_sqe *sqe_take(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

    if (!sqe) { /* full of what was not sent yet */
        sent(uring, io_uring_submit(&uring->ring));
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

static void wake_arm(struct uring *uring)
{
    struct io_uring_sqe *sqe = uring->wake_armed || uring->broken ? NULL : sqe_take(uring);

    if (!sqe)
        return;
    io_uring_prep_poll_add(sqe, uring->waker->fd, POLLIN);
    io_uring_sqe_set_data(sqe, NULL);
    uring->wake_armed = true;
}

static void uring_submit(struct tnd_io_engine *engine, struct tnd_io_read *read)
{
    struct uring *uring = (struct uring *)engine;
    struct io_uring_sqe *sqe = uring->broken ? NULL : sqe_take(uring);
    int fd = read->was_direct ? read->file->fd_direct : read->file->fd;
    uint8_t *buffer = read->buffer + read->bytes_done;
    unsigned bytes = read->bytes - read->bytes_done;
    uint64_t offset = read->offset + read->bytes_done;

    read->next = uring->unsent;
    uring->unsent = read;
    if (!sqe)
        return; /* reap() gives it back */
    if (uring->buffers_registered && read->buffer_index >= 0)
        io_uring_prep_read_fixed(sqe, fd, buffer, bytes, offset, read->buffer_index);
    else
        io_uring_prep_read(sqe, fd, buffer, bytes, offset);
    io_uring_sqe_set_data(sqe, read);
}

static bool uring_wait(struct tnd_io_engine *engine, int64_t timeout_ns)
{
    struct uring *uring = (struct uring *)engine;
    struct __kernel_timespec limit = {
        .tv_sec = timeout_ns < 0 ? INT32_MAX : timeout_ns / (int64_t)TND_NS_PER_S,
        .tv_nsec = timeout_ns < 0 ? 0 : timeout_ns % (int64_t)TND_NS_PER_S,
    };
    struct io_uring_cqe *cqe = NULL;
    unsigned head;
    bool woken = false;

    wake_arm(uring);
    if (uring->broken) /* what the kernel still has may complete without being asked, so look now and then */
        usleep(timeout_ns ? BROKEN_WAIT_US : 0);
    else if (timeout_ns == 0)
        sent(uring, io_uring_submit_and_get_events(&uring->ring));
    else /* -EINTR and -ETIME end the wait, not the reads */
        sent(uring, io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &limit, NULL));
    io_uring_for_each_cqe(&uring->ring, head, cqe) woken = woken || !cqe->user_data;
    return woken;
}

static struct tnd_io_read *uring_reap(struct tnd_io_engine *engine)
{
    struct uring *uring = (struct uring *)engine;
    struct tnd_io_read *done = NULL, **tail = &done;
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;

    if (uring->broken) {
        done = uring->unsent;
        uring->unsent = NULL;
        for (; *tail; tail = &(*tail)->next)
            (*tail)->answer = uring->broken;
    }
    io_uring_for_each_cqe(&uring->ring, head, cqe)
    {
        struct tnd_io_read *read = io_uring_cqe_get_data(cqe);

        seen++;
        if (cqe->user_data == LIBURING_UDATA_TIMEOUT) /* how old kernels limit a wait */
            continue;
        if (!read) {
            uring->wake_armed = false;
            continue;
        }
        read->answer = cqe->res;
        *tail = read;
        tail = &read->next;
    }
    *tail = NULL;
    io_uring_cq_advance(&uring->ring, seen);
    return done;
}

static bool uring_register_buffer(struct tnd_io_engine *engine, uint32_t index, void *data, size_t bytes)
{
    struct uring *uring = (struct uring *)engine;
    struct iovec buffer = {.iov_base = data, .iov_len = bytes};

    return uring->buffers_registered &&
           io_uring_register_buffers_update_tag(&uring->ring, index, &buffer, NULL, 1) == 1;
}

static void uring_destroy(struct tnd_io_engine *engine)
{
    struct uring *uring = (struct uring *)engine;
    struct tnd_allocator allocator = uring->allocator;

    /* A closed ring gives its share of the memlock limit back late; unregistering gives it back now. */
    if (uring->buffers_registered)
        io_uring_unregister_buffers(&uring->ring);
    io_uring_queue_exit(&uring->ring);
    tnd_free(&allocator, uring);
}

/* A NOP there and back: some sandboxes let a ring be set up and refuse to enter it. */
static int round_trip(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    int r;

    if (!sqe)
        return -ENOSYS;
    io_uring_prep_nop(sqe);
    r = io_uring_submit_and_wait(ring, 1);
    if (r < 0)
        return r;
    r = io_uring_wait_cqe(ring, &cqe);
    if (r < 0)
        return r;
    r = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return r;
}

/* Flags for what they mean, not for speed: one submitter, completions only when it asks. Older kernels know fewer. */
static int ring_setup(struct io_uring *ring, unsigned entries)
{
    static const unsigned ladder[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
        0,
    };
    int r = -EINVAL;

    for (size_t i = 0; i < sizeof(ladder) / sizeof(ladder[0]) && r == -EINVAL; i++) {
        struct io_uring_params params = {.flags = ladder[i]};

        r = io_uring_queue_init_params(entries, ring, &params);
    }
    return r;
}

static int ring_init(struct io_uring *ring, unsigned entries)
{
    int r = ring_setup(ring, entries);

    if (r < 0)
        return r;
    r = round_trip(ring);
    if (r < 0)
        io_uring_queue_exit(ring);
    return r;
}

int tnd_io_uring_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err)
{
    struct uring *uring = tnd_zalloc(&options->allocator, 1, sizeof(*uring));
    unsigned entries = SQ_ENTRIES_MIN;
    int r;

    if (!uring)
        return tnd_fail(err, -ENOMEM, "no memory for a ring");
    while (entries < options->depth + 2) /* the poll on the wake descriptor, and a spare */
        entries *= 2;
    r = ring_init(&uring->ring, entries);
    if (r < 0) {
        tnd_free(&options->allocator, uring);
        return tnd_fail(err, -ENODEV, "io_uring is refused: %s%s", strerror(-r),
                        r == -EPERM ? " (a sandbox, or sysctl kernel.io_uring_disabled)" : "");
    }
    uring->engine.ops = &uring_ops;
    uring->allocator = options->allocator;
    uring->waker = options->waker;
    uring->buffers_registered = io_uring_register_buffers_sparse(&uring->ring, options->buffer_count) == 0;
    *ret_engine = &uring->engine;
    return 0;
}

void tnd_io_uring_probe(void *data, size_t bytes, size_t chunk_bytes, struct tnd_io_uring_probe *ret_probe)
{
    unsigned count = (unsigned)(bytes / chunk_bytes);
    struct io_uring ring;

    *ret_probe = (struct tnd_io_uring_probe){.setup = ring_setup(&ring, SQ_ENTRIES_MIN)};
    if (ret_probe->setup < 0)
        return;
    ret_probe->enter = round_trip(&ring);
    if (ret_probe->enter == 0)
        ret_probe->registers = io_uring_register_buffers_sparse(&ring, count);
    if (ret_probe->enter == 0 && ret_probe->registers == 0) {
        for (unsigned i = 0; i < count && ret_probe->registers == 0; i++) {
            struct iovec buffer = {.iov_base = (char *)data + i * chunk_bytes, .iov_len = chunk_bytes};
            int r = io_uring_register_buffers_update_tag(&ring, i, &buffer, NULL, 1);

            ret_probe->registers = r < 0 ? r : 0;
            ret_probe->bytes_registered += r == 1 ? chunk_bytes : 0;
        }
        io_uring_unregister_buffers(&ring);
    }
    io_uring_queue_exit(&ring);
}

static const struct tnd_io_engine_ops uring_ops = {
    .name = "uring",
    .destroy = uring_destroy,
    .submit = uring_submit,
    .reap = uring_reap,
    .wait = uring_wait,
    .register_buffer = uring_register_buffer,
};
