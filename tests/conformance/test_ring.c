/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: whatever a ring answers, and when it is taken away in the middle of a life, a read is whole or fails as io.h
 * says.
 * Method: the engine's calls into liburing pass through here; a script turns reads that are about to be submitted into
 * NOPs whose result the kernel is told to give (IORING_NOP_INJECT_RESULT, Linux 6.10), so that the answers come out of
 * a real ring. It is taken away by a seccomp filter on the thread that has used it before. */

#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "io/io.h"
#include "support/known_file.h"
#include "support/refuse.h"
#include "support/suite.h"

#define READ_BYTES ((uint32_t)64 << 10)
#define FILE_BYTES (4 * READ_BYTES)
#define NOP_INJECT_RESULT 1U
#define AS_IT_IS INT32_MIN /* an entry of the script that lets the read through */
#define SCRIPT_MAX 80

static int script[SCRIPT_MAX];
static uint32_t script_count, script_next;

/* ---- Between the engine and liburing ----------------------------------------------------------------------- */

static void rewrite(struct io_uring *ring)
{
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
        struct io_uring_sqe *sqe = &ring->sq.sqes[i & *ring->sq.kring_mask];
        uint64_t user_data = sqe->user_data;

        if (sqe->opcode != IORING_OP_READ && sqe->opcode != IORING_OP_READ_FIXED)
            continue;
        if (script_next == script_count || script[script_next++] == AS_IT_IS)
            continue;
        io_uring_prep_nop(sqe);
        sqe->rw_flags = NOP_INJECT_RESULT;
        sqe->len = (unsigned)script[script_next - 1];
        sqe->user_data = user_data;
    }
}

int io_uring_submit(struct io_uring *ring)
{
    int (*real)(struct io_uring *);

    *(void **)&real = dlsym(RTLD_NEXT, __func__);
    rewrite(ring);
    return real(ring);
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
    int (*real)(struct io_uring *);

    *(void **)&real = dlsym(RTLD_NEXT, __func__);
    rewrite(ring);
    return real(ring);
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned count,
                                     struct __kernel_timespec *limit, sigset_t *mask)
{
    int (*real)(struct io_uring *, struct io_uring_cqe **, unsigned, struct __kernel_timespec *, sigset_t *);

    *(void **)&real = dlsym(RTLD_NEXT, __func__);
    rewrite(ring);
    return real(ring, cqe, count, limit, mask);
}

/* ---- One read ---------------------------------------------------------------------------------------------- */

static struct tnd_waker waker;
static struct tnd_io *io;
static struct tnd_reasons reasons;
static struct tnd_model_file source;
static struct tnd_io_file file;
static uint8_t *memory;

static void begin(enum tnd_engine engine, enum tnd_switch direct)
{
    struct tnd_io_options options = {
        .engine = engine,
        .direct = direct,
        .depth = 4,
        .alignment = 4096,
        .buffer_count = 1,
        .allocator = tnd_allocator_or_default(NULL),
        .waker = &waker,
    };
    struct tnd_err err = {0};

    reasons.count = 0;
    script_count = script_next = 0;
    ck_assert_int_eq(tnd_waker_init(&waker), 0);
    ck_assert_msg(tnd_io_create(&io, &options, &err) == 0, "%s", err.text);
    memory = aligned_alloc(4096, READ_BYTES);
    memset(memory, 0, READ_BYTES);
    source = known_file(FILE_BYTES);
    file = (struct tnd_io_file){.source = &source, .path = "test file", .bytes = FILE_BYTES, .reasons = &reasons};
    ck_assert_msg(tnd_io_attach(io, &file, &err) == 0, "%s", err.text);
}

static void end(void)
{
    tnd_io_detach(io, &file);
    tnd_io_destroy(&io);
    tnd_waker_finish(&waker);
    close(source.fd);
    free(memory);
}

/* Reads the second quarter of the file with these answers first. */
static struct tnd_io_read read_with(const int *answers, uint32_t count)
{
    struct tnd_io_read read = {
        .file = &file,
        .offset = READ_BYTES,
        .bytes = READ_BYTES,
        .bytes_wanted = READ_BYTES,
        .buffer = memory,
        .buffer_index = -1,
    };
    struct tnd_io_read *done = NULL;
    uint64_t until = tnd_now_ns() + 20 * TND_NS_PER_S;

    memcpy(script, answers, count * sizeof(script[0]));
    script_count = count;
    script_next = 0;
    tnd_io_submit(io, &read);
    while (!done && tnd_now_ns() < until) {
        tnd_waker_prepare(&waker);
        tnd_io_poll(io, 100 * 1000 * 1000, &done, 1);
    }
    ck_assert_ptr_eq(done, &read);
    ck_assert_uint_eq(script_next, count); /* all of it was played */
    return read;
}

#define READ_WITH(...)                                                                                                 \
    read_with((const int[]){__VA_ARGS__}, (uint32_t)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)))

START_TEST(repeats_what_is_only_late)
{
    struct tnd_io_read read;

    begin(TND_ENGINE_URING, TND_ON);
    read = READ_WITH(-EAGAIN, -EINTR, -EAGAIN);
    ck_assert_int_eq(read.result, 0);
    ck_assert_uint_eq(read.retries, 3);
    known_bytes(memory, READ_BYTES, READ_BYTES);
    end();
}
END_TEST

START_TEST(does_not_repeat_for_ever)
{
    int always[TND_READ_STALLS_MAX + 1];

    for (uint32_t i = 0; i <= TND_READ_STALLS_MAX; i++)
        always[i] = -EAGAIN;
    begin(TND_ENGINE_URING, TND_ON);
    ck_assert_int_eq(read_with(always, TND_READ_STALLS_MAX + 1).result, -EIO);
    end();
}
END_TEST

START_TEST(passes_errors_on)
{
    static const int errors[] = {-EIO, -ECANCELED, -ENODATA, -EREMOTEIO, -ENXIO};

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct tnd_io_read read;

        begin(TND_ENGINE_URING, TND_ON);
        read = read_with(&errors[i], 1);
        ck_assert_int_eq(read.result, tnd_errno_public(errors[i]));
        ck_assert_uint_eq(read.error_offset, READ_BYTES);
        end();
    }
}
END_TEST

START_TEST(finds_the_end_of_the_file)
{
    struct tnd_io_read read;

    begin(TND_ENGINE_URING, TND_ON);
    read = READ_WITH(0);
    ck_assert_int_eq(read.result, -EBADMSG);
    end();
}
END_TEST

START_TEST(goes_on_after_a_short_read)
{
    for (int direct = 0; direct < 2; direct++) {
        uint32_t from = direct ? 4096 : 5000; /* a direct read goes on where it is aligned */
        struct tnd_io_read read;

        begin(TND_ENGINE_URING, direct ? TND_ON : TND_OFF);
        if (direct && file.alignment < 4096)
            from = 5000 / file.alignment * file.alignment;
        read = READ_WITH(5000); /* a NOP brings no bytes: those before the cut stay zero */
        ck_assert_int_eq(read.result, 0);
        known_bytes(memory + from, READ_BYTES + from, READ_BYTES - from);
        for (uint32_t i = 0; i < from; i++)
            ck_assert_uint_eq(memory[i], 0);
        end();
    }
}
END_TEST

START_TEST(steps_down_where_it_is_refused)
{
    struct tnd_io_read read;

    begin(TND_ENGINE_AUTO, TND_AUTO);
    if (file.direct) {
        read = READ_WITH(-EINVAL);
        ck_assert_int_eq(read.result, 0);
        ck_assert(!file.direct);
        ck_assert_int_eq(tnd_io_engine_of(io, &read), TND_ENGINE_URING);
        known_bytes(memory, READ_BYTES, READ_BYTES);
        memset(memory, 0, READ_BYTES);
        read = READ_WITH(-EOPNOTSUPP); /* now of a buffered read: the ring itself is refused */
        ck_assert_int_eq(read.result, 0);
        ck_assert_int_eq(tnd_io_engine_of(io, &read), TND_ENGINE_THREADS);
        known_bytes(memory, READ_BYTES, READ_BYTES);
        ck_assert_uint_eq(reasons.count, 2);
    }
    end();
}
END_TEST

static void *lose_the_ring(void *ret_forbidden)
{
    struct tnd_io_read read;

    begin(TND_ENGINE_AUTO, TND_AUTO);
    read = READ_WITH(AS_IT_IS);
    ck_assert_int_eq(read.result, 0);
    ck_assert_int_eq(tnd_io_engine_of(io, &read), TND_ENGINE_URING);
    memset(memory, 0, READ_BYTES);
    *(bool *)ret_forbidden = refuse(SYS_io_uring_enter, 0, EPERM) == 0;
    if (*(bool *)ret_forbidden) {
        read = READ_WITH(AS_IT_IS);
        ck_assert_int_eq(read.result, 0);
        ck_assert_int_eq(tnd_io_engine_of(io, &read), TND_ENGINE_THREADS);
        known_bytes(memory, READ_BYTES, READ_BYTES);
    }
    end();
    return NULL;
}

START_TEST(lives_on_when_the_ring_is_taken_away)
{
    bool forbidden = false;
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, lose_the_ring, &forbidden), 0);
    pthread_join(thread, NULL);
    if (!forbidden)
        printf("lives_on_when_the_ring_is_taken_away: skipped: no seccomp filter can be set here\n");
}
END_TEST

/* Whether a ring is to be had, and gives the results it is told to; else says why not. */
static bool possible(void)
{
    struct io_uring ring;
    struct io_uring_sqe *sqe;
    struct io_uring_cqe *cqe;
    int r = io_uring_queue_init(2, &ring, 0);

    if (r < 0) {
        printf("skipped: io_uring is refused: %s\n", strerror(-r));
        return false;
    }
    sqe = io_uring_get_sqe(&ring);
    io_uring_prep_nop(sqe);
    sqe->rw_flags = NOP_INJECT_RESULT;
    sqe->len = (unsigned)-EIO;
    io_uring_submit(&ring);
    r = io_uring_wait_cqe(&ring, &cqe) < 0 ? 0 : cqe->res;
    io_uring_queue_exit(&ring);
    if (r != -EIO)
        printf("skipped: this kernel's NOPs give no result that is asked for (Linux 6.10 is the first)\n");
    return r == -EIO;
}

int main(void)
{
    Suite *suite = suite_create("ring");
    TCase *cases = tcase_create("ring");

    if (!possible())
        return 77;
    tcase_add_test(cases, repeats_what_is_only_late);
    tcase_add_test(cases, does_not_repeat_for_ever);
    tcase_add_test(cases, passes_errors_on);
    tcase_add_test(cases, finds_the_end_of_the_file);
    tcase_add_test(cases, goes_on_after_a_short_read);
    tcase_add_test(cases, steps_down_where_it_is_refused);
    tcase_add_test(cases, lives_on_when_the_ring_is_taken_away);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
