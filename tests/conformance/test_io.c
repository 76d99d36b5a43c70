/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: every engine, direct and buffered, gives the bytes of the file or the error that io.h promises.
 * Method: one suite, run on each combination, against files whose bytes are known. An engine that the machine refuses
 * is skipped with the kernel's reason; where ring and O_DIRECT are to be had, they must have been exercised. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "io/io.h"
#include "support/known_file.h"
#include "support/suite.h"

#define CHUNK ((uint32_t)64 << 10)
#define DEPTH 16
#define END (2 * CHUNK + 9001) /* of a file that is cut */

static const struct {
    const char *name;
    enum tnd_engine engine;
    enum tnd_switch direct;
} modes[] = {
    {"uring direct", TND_ENGINE_URING, TND_ON},
    {"uring buffered", TND_ENGINE_URING, TND_OFF},
    {"threads direct", TND_ENGINE_THREADS, TND_ON},
    {"threads buffered", TND_ENGINE_THREADS, TND_OFF},
};
#define MODE_COUNT ((int)(sizeof(modes) / sizeof(modes[0])))

static int mode_now; /* of the case that runs */
static struct tnd_waker waker;
static struct tnd_io *io;
static struct tnd_reasons reasons;
static uint8_t *memory; /* [DEPTH][CHUNK], page-aligned */

static void setup(void)
{
    struct tnd_io_options options = {
        .engine = modes[mode_now].engine,
        .direct = modes[mode_now].direct,
        .depth = DEPTH,
        .alignment = 4096,
        .buffer_count = DEPTH,
        .allocator = tnd_allocator_or_default(NULL),
        .waker = &waker,
    };
    struct tnd_err err = {0};

    reasons.count = 0;
    ck_assert_int_eq(tnd_waker_init(&waker), 0);
    ck_assert_msg(tnd_io_create(&io, &options, &err) == 0, "%s", err.text);
    memory = aligned_alloc(4096, (size_t)DEPTH * CHUNK);
}

static void teardown(void)
{
    tnd_io_destroy(&io);
    tnd_waker_finish(&waker);
    free(memory);
}

static struct tnd_io_file attach(const struct tnd_model_file *source)
{
    struct tnd_io_file file = {.source = source, .path = "test file", .bytes = source->file.bytes, .reasons = &reasons};
    struct tnd_err err = {0};

    ck_assert_msg(tnd_io_attach(io, &file, &err) == 0, "%s", err.text);
    ck_assert_int_eq(file.direct, modes[mode_now].direct == TND_ON);
    return file;
}

static struct tnd_io_read make_read(struct tnd_io_file *file, uint64_t offset, uint8_t *buffer)
{
    return (struct tnd_io_read){
        .file = file,
        .offset = offset,
        .bytes = CHUNK,
        .bytes_wanted = (uint32_t)tnd_min(CHUNK, file->bytes > offset ? file->bytes - offset : 1),
        .buffer = buffer,
        .buffer_index = -1,
    };
}

static struct tnd_io_read *wait_one(void)
{
    struct tnd_io_read *done = NULL;
    uint64_t until = tnd_now_ns() + 20 * TND_NS_PER_S;

    while (!done && tnd_now_ns() < until) {
        tnd_waker_prepare(&waker);
        tnd_io_poll(io, 100 * 1000 * 1000, &done, 1);
    }
    ck_assert_ptr_nonnull(done);
    return done;
}

START_TEST(reads_files_of_odd_sizes)
{
    static const uint64_t sizes[] = {1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 200001};

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct tnd_model_file source = known_file(sizes[s]);
        struct tnd_io_file file = attach(&source);

        for (uint64_t offset = 0; offset < sizes[s]; offset += CHUNK) {
            struct tnd_io_read read = make_read(&file, offset, memory);

            tnd_io_submit(io, &read);
            ck_assert_ptr_eq(wait_one(), &read);
            ck_assert_int_eq(read.result, 0);
            ck_assert_int_eq(read.was_direct, file.direct);
            known_bytes(memory, offset, read.bytes_wanted);
        }
        tnd_io_detach(io, &file);
        close(source.fd);
    }
}
END_TEST

START_TEST(reads_many_at_once)
{
    struct tnd_model_file source = known_file(40 * CHUNK);
    struct tnd_io_file file = attach(&source);
    struct tnd_io_read reads[DEPTH];
    uint32_t started = 0, done = 0;
    bool registered = false;

    for (uint32_t i = 0; i < DEPTH; i++) {
        int index = tnd_io_register(io, i, memory + (size_t)i * CHUNK, CHUNK);

        registered = registered || index >= 0;
        reads[i] = make_read(&file, (uint64_t)(started++ * 7 % 40) * CHUNK, memory + (size_t)i * CHUNK);
        reads[i].buffer_index = index;
        tnd_io_submit(io, &reads[i]);
    }
    while (done < 40) {
        struct tnd_io_read *read = wait_one();

        ck_assert_int_eq(read->result, 0);
        known_bytes(read->buffer, read->offset, CHUNK);
        done++;
        if (started < 40) {
            read->offset = (uint64_t)(started++ * 7 % 40) * CHUNK;
            tnd_io_submit(io, read);
        }
    }
    ck_assert(!registered || modes[mode_now].engine == TND_ENGINE_URING);
    tnd_io_detach(io, &file);
    close(source.fd);
}
END_TEST

START_TEST(tells_where_a_cut_file_ends)
{
    struct tnd_model_file source = known_file(4 * CHUNK);
    struct tnd_io_file file = attach(&source);
    struct tnd_io_read read = make_read(&file, 2 * CHUNK, memory);

    ck_assert_int_eq(ftruncate(source.fd, END), 0);
    tnd_io_submit(io, &read);
    ck_assert_ptr_eq(wait_one(), &read);
    ck_assert_int_eq(read.result, -EBADMSG);
    ck_assert_uint_eq(read.error_offset, END);

    read = make_read(&file, 3 * CHUNK, memory);
    tnd_io_submit(io, &read);
    ck_assert_ptr_eq(wait_one(), &read);
    ck_assert_int_eq(read.result, -EBADMSG);
    ck_assert_uint_eq(read.error_offset, END);
    tnd_io_detach(io, &file);
    close(source.fd);
}
END_TEST

START_TEST(scatters_into_spans)
{
    struct tnd_model_file source = known_file(4 * CHUNK);
    struct tnd_io_file file = attach(&source);
    struct tnd_span spans[200];
    struct tnd_io_read read = make_read(&file, CHUNK, NULL);
    uint32_t at = 5, used = 0, count = 0;

    if (!tnd_io_can_scatter(&file)) {
        ck_assert(modes[mode_now].engine != TND_ENGINE_THREADS || file.direct);
        tnd_io_detach(io, &file);
        close(source.fd);
        return;
    }
    memset(memory, 0xC5, (size_t)DEPTH * CHUNK);
    /* Holes of none, a few and more than a bridge's bytes; destinations one after the other with a canary between. */
    for (uint32_t i = 0; at + 400 < CHUNK && count < 200; i++) {
        spans[count++] = (struct tnd_span){.destination = memory + used, .window_offset = at, .bytes = 1 + i * 3 % 331};
        used += spans[count - 1].bytes + 1;
        at += spans[count - 1].bytes + (i % 3 == 0 ? 0 : i % 7 == 0 ? 9000 : i % 50);
    }
    read.spans = spans;
    read.span_count = count;
    read.bytes_wanted = spans[count - 1].window_offset + spans[count - 1].bytes;
    tnd_io_submit(io, &read);
    ck_assert_ptr_eq(wait_one(), &read);
    ck_assert_int_eq(read.result, 0);
    for (uint32_t i = 0; i < count; i++) {
        known_bytes(spans[i].destination, CHUNK + spans[i].window_offset, spans[i].bytes);
        ck_assert_uint_eq(spans[i].destination[spans[i].bytes], 0xC5);
    }
    tnd_io_detach(io, &file);
    close(source.fd);
}
END_TEST

START_TEST(steps_down_when_a_direct_read_is_refused)
{
    struct tnd_model_file source = known_file(2 * CHUNK);
    struct tnd_io_options options = {
        .engine = modes[mode_now].engine,
        .depth = DEPTH,
        .alignment = 4096,
        .buffer_count = 1,
        .allocator = tnd_allocator_or_default(NULL),
        .waker = &waker,
    };
    struct tnd_io_file file = {.source = &source, .path = "test file", .bytes = 2 * CHUNK, .reasons = &reasons};
    struct tnd_io_read read;
    struct tnd_err err = {0};

    if (modes[mode_now].direct != TND_ON)
        return;
    tnd_io_destroy(&io);
    ck_assert_msg(tnd_io_create(&io, &options, &err) == 0, "%s", err.text);
    ck_assert_int_eq(tnd_io_attach(io, &file, &err), 0);
    ck_assert(file.direct);
    read = make_read(&file, 0, memory + 1); /* what a device with stricter rules than it told makes of any buffer */
    read.bytes = CHUNK - 4096;
    read.bytes_wanted = CHUNK - 4096;
    tnd_io_submit(io, &read);
    ck_assert_ptr_eq(wait_one(), &read);
    ck_assert_int_eq(read.result, 0);
    known_bytes(memory + 1, 0, read.bytes);
    ck_assert(!file.direct);
    ck_assert_uint_eq(reasons.count, 1);
    ck_assert_ptr_nonnull(strstr(reasons.text[0], "a direct read at 0 is refused"));
    tnd_io_detach(io, &file);
    close(source.fd);
}
END_TEST

START_TEST(passes_on_what_the_device_says)
{
    /* This process's own memory at address 0 reads as an I/O error. */
    struct tnd_model_file source = {.fd = open("/proc/self/mem", O_RDONLY), .file = {.path = "x", .bytes = CHUNK}};
    struct tnd_io_file file = {.source = &source, .path = "x", .bytes = CHUNK, .reasons = &reasons, .fd_direct = -1};
    struct tnd_io_read read = make_read(&file, 0, memory);
    struct tnd_err err = {0};

    if (modes[mode_now].direct == TND_ON) { /* demanded, and not to be had of such a file */
        ck_assert_int_eq(tnd_io_attach(io, &file, &err), -ENODEV);
        ck_assert_str_ne(err.text, "");
        close(source.fd);
        return;
    }
    ck_assert_msg(tnd_io_attach(io, &file, &err) == 0, "%s", err.text);
    tnd_io_submit(io, &read);
    ck_assert_ptr_eq(wait_one(), &read);
    ck_assert_int_eq(read.result, -EIO);
    ck_assert_uint_eq(read.error_offset, 0);
    tnd_io_detach(io, &file);
    close(source.fd);
}
END_TEST

static void *signal_soon(void *argument)
{
    usleep(20000);
    tnd_waker_signal(argument);
    return NULL;
}

START_TEST(wakes_up_from_outside)
{
    struct tnd_io_read *done;
    pthread_t thread;
    uint64_t start = tnd_now_ns();

    tnd_waker_prepare(&waker);
    pthread_create(&thread, NULL, signal_soon, &waker);
    ck_assert_uint_eq(tnd_io_poll(io, 60 * (int64_t)TND_NS_PER_S, &done, 1), 0);
    ck_assert_uint_lt(tnd_now_ns() - start, 30 * TND_NS_PER_S);
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(wakes_up_while_a_read_hangs)
{
    int ends[2];
    struct tnd_model_file source = {.file = {.path = "pipe", .bytes = CHUNK}};
    struct tnd_io_file file = {.source = &source, .path = "pipe", .bytes = CHUNK, .reasons = &reasons};
    struct tnd_io_read read = make_read(&file, 0, memory), *done;
    struct tnd_err err = {0};
    pthread_t thread;
    uint64_t start = tnd_now_ns();

    if (modes[mode_now].direct == TND_ON)
        return; /* a pipe has none */
    ck_assert_int_eq(pipe(ends), 0);
    source.fd = ends[0];
    ck_assert_msg(tnd_io_attach(io, &file, &err) == 0, "%s", err.text);
    read.offset = UINT64_MAX; /* where a pipe is read from */
    tnd_io_submit(io, &read);
    for (int i = 0; i < 3; i++) { /* more than once: what wakes is armed anew */
        tnd_waker_prepare(&waker);
        pthread_create(&thread, NULL, signal_soon, &waker);
        if (modes[mode_now].engine == TND_ENGINE_URING) /* preadv answers ESPIPE at once, the ring waits */
            ck_assert_uint_eq(tnd_io_poll(io, 60 * (int64_t)TND_NS_PER_S, &done, 1), 0);
        pthread_join(thread, NULL);
    }
    ck_assert_uint_lt(tnd_now_ns() - start, 30 * TND_NS_PER_S);
    read.bytes_wanted = 1;
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    ck_assert_ptr_eq(wait_one(), &read);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(nil_answers_without_bytes)
{
    struct tnd_io_options options = {
        .engine = TND_ENGINE_NIL,
        .depth = 1,
        .allocator = tnd_allocator_or_default(NULL),
        .waker = &waker,
    };
    struct tnd_model_file source = known_file(CHUNK);
    struct tnd_io_file file = {.source = &source, .path = "x", .bytes = CHUNK, .reasons = &reasons, .fd_direct = -1};
    struct tnd_io_read read = make_read(&file, 0, memory);
    struct tnd_err err = {0};

    tnd_io_destroy(&io);
    ck_assert_int_eq(tnd_io_create(&io, &options, &err), 0);
    ck_assert_int_eq(tnd_io_attach(io, &file, &err), 0);
    memset(memory, 0xC5, CHUNK);
    tnd_io_submit(io, &read);
    ck_assert_ptr_eq(wait_one(), &read);
    ck_assert_int_eq(read.result, 0);
    ck_assert_uint_eq(memory[0], 0xC5);
    ck_assert_int_eq(tnd_io_engine_of(io, &read), TND_ENGINE_NIL);
    close(source.fd);
}
END_TEST

/* The ring where the kernel lets us have one; it must not go untested for another reason. */
static bool mode_possible(int mode)
{
    struct tnd_io_options options = {
        .engine = modes[mode].engine,
        .depth = 1,
        .buffer_count = 1,
        .allocator = tnd_allocator_or_default(NULL),
        .waker = &waker,
    };
    struct tnd_io *trial = NULL;
    struct tnd_err err = {0};
    int r = tnd_io_create(&trial, &options, &err);

    tnd_io_destroy(&trial);
    if (r < 0)
        printf("%s: skipped: %s\n", modes[mode].name, err.text);
    return r >= 0;
}

int main(void)
{
    int failed = 0;

    for (mode_now = 0; mode_now < MODE_COUNT; mode_now++) {
        Suite *suite;
        TCase *cases;

        if (!mode_possible(mode_now))
            continue;
        suite = suite_create(modes[mode_now].name);
        cases = tcase_create("engine");
        tcase_add_checked_fixture(cases, setup, teardown);
        tcase_add_test(cases, reads_files_of_odd_sizes);
        tcase_add_test(cases, reads_many_at_once);
        tcase_add_test(cases, tells_where_a_cut_file_ends);
        tcase_add_test(cases, scatters_into_spans);
        tcase_add_test(cases, steps_down_when_a_direct_read_is_refused);
        tcase_add_test(cases, passes_on_what_the_device_says);
        tcase_add_test(cases, wakes_up_from_outside);
        tcase_add_test(cases, wakes_up_while_a_read_hangs);
        tcase_add_test(cases, nil_answers_without_bytes);
        suite_add_tcase(suite, cases);
        failed += run_suite(suite) != EXIT_SUCCESS;
    }
    return failed ? 1 : 0;
}
