/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a device that works late places, orders and tells as device.h promises; and the streams under it order what a
 * GPU's would.
 * Method: one suite for all devices (support/devices.h) but the host, which places nothing, in each way of being late.
 * What is placed is compared with the bytes, or with what the C kernel makes of them here: ThreadSanitizer sees each of
 * its accesses, and reports what no event has ordered. */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "io/io.h"
#include "kernels/kernel.h"
#include "model/dtype.h"
#include "support/devices.h"
#include "support/suite.h"

#define BLOCK_BYTES ((uint32_t)512 << 10)
#define POISON 0xDB
#define SPANS_MAX 16

static const struct {
    const char *name;
    enum streams_mode mode;
    uint64_t seed;
} modes[] = {
    {"delay", STREAMS_DELAY, 1},
    {"another delay", STREAMS_DELAY, 2},
    {"lazy", STREAMS_LAZY, 3},
};
#define MODE_COUNT ((int)(sizeof(modes) / sizeof(modes[0])))

static int mode_now; /* of the case that runs */
static const struct test_device *kind;
static struct tnd_device *device;
static void *consumer_handle; /* as the device knows it */
static struct stream *consumer;
static struct tnd_device_block block;
static uint8_t *expected; /* of the block */
static struct tnd_err err;
/* Of what runs on after a test has failed. */
static uint64_t last_ticket;
static uint32_t consumed; /* bytes that were as expected */

static void setup(void)
{
    last_ticket = 0;
    consumed = UINT32_MAX;
    device = kind->create(modes[mode_now].mode, modes[mode_now].seed);
    consumer_handle = kind->stream_create();
    consumer = kind->stream_of(consumer_handle);
    ck_assert_int_eq(device->ops->block_alloc(device, &block, BLOCK_BYTES, &err), 0);
    expected = malloc(BLOCK_BYTES);
    memset(expected, POISON, BLOCK_BYTES);
}

static void teardown(void)
{
    device->ops->wait(device, last_ticket, &err);
    stream_synchronize(consumer);
    device->ops->block_free(device, &block);
    ck_assert_uint_eq(kind->blocks(), 0);
    ck_assert_uint_eq(kind->events(), 0);
    kind->destroy(device);
    free(expected);
}

static bool is_lazy(void)
{
    return modes[mode_now].mode == STREAMS_LAZY;
}

/* ---- What is placed --------------------------------------------------------------------------------------------- */

/* A span by its blocks; from a type to itself is a copy. Gaps lie before it, in the chunk and where it goes. */
struct part {
    enum tnd_dtype from, to;
    uint32_t blocks;
    uint32_t chunk_gap, place_gap;
};

static const struct part mixed[] = {
    {TND_U8, TND_U8, 1001, 3, 5}, /* in a row with the next, there and here */
    {TND_U8, TND_U8, 499, 0, 0},
    {TND_U8, TND_U8, 700, 0, 11}, /* there only */
    {TND_U8, TND_U8, 700, 9, 0},  /* here only */
    {TND_Q4_0, TND_F16, 2000, 1, 1100}, /* several tiles, from an odd address */
    {TND_U8, TND_U8, 77, 0, 0}, /* behind one that is converted */
    {TND_BF16, TND_F32, 1, 4, 3},
    {TND_F32, TND_BF16, 8192, 2, 0},
    {TND_Q8_0, TND_F32, 1, 0, 0},
    {TND_F16, TND_F32, 10000, 0, 64},
};
#define MIXED_COUNT ((uint32_t)(sizeof(mixed) / sizeof(mixed[0])))

struct chunk {
    uint8_t *data;
    uint32_t bytes;
    struct tnd_span spans[SPANS_MAX];
    uint32_t span_count;
    uint32_t place, place_end; /* in the block */
    struct tnd_range_counts range; /* that its conversions are to tell */
    uint64_t ticket;
};

static uint64_t random_bits(void)
{
    static uint64_t state = 1;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* What a span is to become, made here. */
static void expect(struct chunk *chunk, const struct tnd_span *span)
{
    uint8_t *place = expected + (span->destination - block.data);
    const uint8_t *source = chunk->data + span->window_offset;

    if (span->kernel) {
        const struct tnd_dtype_info *from = tnd_dtype_info(span->kernel->from);

        span->kernel->run(place, source, (size_t)span->bytes / from->block_bytes * from->block_elements,
                          &chunk->range);
    } else {
        memcpy(place, source, span->bytes);
    }
}

/* Random bytes, as many as the parts need, to be placed from the block's byte `place` on. */
static void chunk_init(struct chunk *chunk, const struct part *parts, uint32_t count, uint32_t place)
{
    uint32_t at = 0;

    *chunk = (struct chunk){.span_count = count, .place = place};
    for (uint32_t i = 0; i < count; i++)
        chunk->bytes += parts[i].chunk_gap + parts[i].blocks * tnd_dtype_info(parts[i].from)->block_bytes;
    chunk->data = malloc(chunk->bytes);
    for (uint32_t i = 0; i < chunk->bytes; i++)
        chunk->data[i] = (uint8_t)random_bits();
    for (uint32_t i = 0; i < count; i++) {
        const struct part *part = &parts[i];
        const struct tnd_dtype_info *from = tnd_dtype_info(part->from), *to = tnd_dtype_info(part->to);

        at += part->chunk_gap;
        place = (uint32_t)tnd_round_up(place + part->place_gap, to->element_alignment);
        chunk->spans[i] = (struct tnd_span){
            .destination = block.data + place,
            .window_offset = at,
            .in_block = true,
            .bytes = part->blocks * from->block_bytes,
            .kernel = part->from == part->to ? NULL : tnd_kernel_find(part->from, part->to, TND_ISA_C),
        };
        expect(chunk, &chunk->spans[i]);
        at += chunk->spans[i].bytes;
        place += part->blocks * from->block_elements * to->block_bytes;
    }
    ck_assert_uint_le(place, BLOCK_BYTES);
    chunk->place_end = place;
}

static void chunk_place(struct chunk *chunk)
{
    ck_assert_msg(device->ops->place(device, chunk->data, chunk->spans, chunk->span_count, &chunk->ticket, &err) == 0,
                  "%s", err.text);
    last_ticket = chunk->ticket;
}

static void chunk_wait(const struct chunk *chunk)
{
    ck_assert_int_eq(device->ops->wait(device, chunk->ticket, &err), 0);
    ck_assert_int_eq(device->ops->done(device, chunk->ticket, &err), 1);
}

/* To the end in any case: ThreadSanitizer is to see all that is read. */
static uint32_t count_equal(const uint8_t *a, const uint8_t *b, uint32_t bytes)
{
    uint32_t equal = 0;

    for (uint32_t i = 0; i < bytes; i++)
        equal += a[i] == b[i];
    return equal;
}

/* The block is memory of the host: whoever knows that a place is filled may look. */
static void expect_placed(const struct chunk *chunk)
{
    uint32_t bytes = chunk->place_end - chunk->place;

    ck_assert_uint_eq(count_equal(block.data + chunk->place, expected + chunk->place, bytes), bytes);
}

/* What a consumer does on its stream. */
struct look {
    const uint8_t *place, *expected;
    uint32_t bytes;
};

static void run_look(void *argument)
{
    const struct look *look = argument;

    consumed = count_equal(look->place, look->expected, look->bytes);
}

static void consume(const struct chunk *chunk, const uint8_t *bytes)
{
    struct look look = {block.data + chunk->place, bytes, chunk->place_end - chunk->place};

    stream_run(consumer, run_look, &look, sizeof(look));
}

START_TEST(places_and_converts)
{
    struct chunk chunk;
    uint8_t *back = malloc(BLOCK_BYTES);

    chunk_init(&chunk, mixed, MIXED_COUNT, 0);
    chunk_place(&chunk);
    chunk_wait(&chunk);
    ck_assert_int_eq(device->ops->read(device, back, block.data, BLOCK_BYTES, &err), 0);
    ck_assert_uint_eq(count_equal(back, expected, BLOCK_BYTES), BLOCK_BYTES); /* and nothing beside */
    free(back);
    free(chunk.data);
}
END_TEST

/* Each chunk's own, however they were collected. */
START_TEST(counts_what_does_not_fit)
{
    static const struct part floats[] = {{TND_F32, TND_F16, 9000, 0, 0}, {TND_F32, TND_BF16, 10, 0, 0},
                                         {TND_F32, TND_F16, 3000, 4, 0}};
    struct chunk chunks[4];

    for (uint32_t i = 0; i < 4; i++) {
        chunk_init(&chunks[i], floats, i == 2 ? 2 : 3, i * 40000);
        chunk_place(&chunks[i]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct tnd_range_counts found;

        chunk_wait(&chunks[i]);
        device->ops->range(device, chunks[i].ticket, &found);
        ck_assert_uint_gt(found.overflowed, 0);
        ck_assert_uint_eq(found.overflowed, chunks[i].range.overflowed);
        ck_assert_uint_eq(found.underflowed, chunks[i].range.underflowed);
        free(chunks[i].data);
    }
}
END_TEST

START_TEST(aligns_blocks)
{
    for (uint64_t bytes = 1; bytes < 2000; bytes += 333) {
        struct tnd_device_block small = {0};

        ck_assert_int_eq(device->ops->block_alloc(device, &small, bytes, &err), 0);
        ck_assert_uint_eq((uintptr_t)small.data % 256, 0);
        ck_assert_uint_eq(kind->blocks(), 2);
        device->ops->block_free(device, &small);
        ck_assert_ptr_null(small.data);
        device->ops->block_free(device, &small);
    }
}
END_TEST

static void *read_from_another_thread(void *argument)
{
    uint8_t *back = argument;

    return device->ops->read(device, back, block.data, BLOCK_BYTES, NULL) == 0 ? back : NULL;
}

START_TEST(reads_from_any_thread)
{
    struct chunk chunk;
    uint8_t *back = malloc(BLOCK_BYTES);
    pthread_t thread;
    void *answer;

    chunk_init(&chunk, mixed, MIXED_COUNT, 0);
    chunk_place(&chunk);
    chunk_wait(&chunk);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_from_another_thread, back), 0);
    pthread_join(thread, &answer);
    ck_assert_ptr_eq(answer, back);
    ck_assert_uint_eq(count_equal(back, expected, BLOCK_BYTES), BLOCK_BYTES);
    free(back);
    free(chunk.data);
}
END_TEST

/* ---- Tickets ---------------------------------------------------------------------------------------------------- */

static const struct part small[] = {{TND_U8, TND_U8, 300, 0, 0}, {TND_F32, TND_F16, 200, 0, 0}};
#define SMALL_PLACE 1024 /* bytes that one takes */
#define CHUNKS 40

START_TEST(tickets_tell_when_all_is_over)
{
    struct chunk chunks[CHUNKS];
    uint64_t until = tnd_now_ns() + 20 * TND_NS_PER_S;

    for (uint32_t i = 0; i < CHUNKS; i++) {
        chunk_init(&chunks[i], small, 2, i * SMALL_PLACE);
        chunk_place(&chunks[i]);
        if (i > 0)
            ck_assert_uint_gt(chunks[i].ticket, chunks[i - 1].ticket);
    }
    if (is_lazy())
        ck_assert_int_eq(device->ops->done(device, chunks[0].ticket, &err), 0);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        while (device->ops->done(device, chunks[i].ticket, &err) == 0 && tnd_now_ns() < until)
            sched_yield();
        ck_assert_int_eq(device->ops->done(device, chunks[i].ticket, &err), 1);
        expect_placed(&chunks[i]);
        memset(chunks[i].data, 0, chunks[i].bytes); /* as the next read into the pool would */
        if (is_lazy() && i + 1 < CHUNKS)
            ck_assert_int_eq(device->ops->done(device, chunks[CHUNKS - 1].ticket, &err), 0);
    }
    for (uint32_t i = 0; i < CHUNKS; i++) {
        ck_assert_int_eq(device->ops->done(device, chunks[i].ticket, &err), 1);
        free(chunks[i].data);
    }
}
END_TEST

START_TEST(any_number_of_tickets)
{
    struct chunk chunk;
    uint64_t before = 0;

    chunk_init(&chunk, small, 1, 0);
    for (uint32_t i = 0; i < 700; i++, before = chunk.ticket) {
        chunk_place(&chunk);
        ck_assert_uint_gt(chunk.ticket, before);
    }
    chunk_wait(&chunk);
    expect_placed(&chunk);
    free(chunk.data);
}
END_TEST

/* Many times as many as there are tiles, all queued before anybody waits. */
START_TEST(uses_tiles_again_and_again)
{
    static const struct part parts[] = {{TND_Q8_0, TND_F16, 150, 0, 0}, {TND_F32, TND_BF16, 1000, 0, 0}};
    struct chunk chunks[CHUNKS];

    for (uint32_t i = 0; i < CHUNKS; i++) {
        chunk_init(&chunks[i], parts, 2, i * (BLOCK_BYTES / CHUNKS & ~63u));
        chunk_place(&chunks[i]);
    }
    chunk_wait(&chunks[CHUNKS - 1]);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        expect_placed(&chunks[i]);
        free(chunks[i].data);
    }
}
END_TEST

START_TEST(passes_on_what_the_device_says)
{
    struct chunk chunks[3];
    uint64_t ticket = 99;

    for (uint32_t i = 0; i < 3; i++)
        chunk_init(&chunks[i], small, 2, i * SMALL_PLACE);
    chunk_place(&chunks[0]);
    kind->fail_place(1);
    ck_assert_int_eq(device->ops->place(device, chunks[1].data, chunks[1].spans, 2, &ticket, &err), -EIO);
    ck_assert_ptr_nonnull(strstr(err.text, "illegal memory access"));
    ck_assert_uint_eq(ticket, 99);
    chunk_place(&chunks[2]);
    ck_assert_uint_gt(chunks[2].ticket, chunks[0].ticket);
    chunk_wait(&chunks[2]);
    expect_placed(&chunks[0]);
    expect_placed(&chunks[2]);
    for (uint32_t i = chunks[1].place; i < chunks[1].place_end; i++)
        ck_assert_uint_eq(block.data[i], POISON);
    for (uint32_t i = 0; i < 3; i++)
        free(chunks[i].data);
}
END_TEST

/* ---- Events ----------------------------------------------------------------------------------------------------- */

START_TEST(a_consumer_waits_for_what_was_placed)
{
    struct chunk before, after;
    struct tnd_device_event *event;

    ck_assert_int_eq(device->ops->event_create(device, &event, &err), 0);
    ck_assert_uint_eq(kind->events(), 1);
    chunk_init(&before, mixed, MIXED_COUNT, 0);
    chunk_init(&after, small, 2, before.place_end);
    chunk_place(&before);
    ck_assert_int_eq(device->ops->mark(device, event, &err), 0);
    chunk_place(&after);
    ck_assert_int_eq(device->ops->stream_wait(device, consumer_handle, event, &err), 0);
    device->ops->event_destroy(device, event); /* the consumer's wait has what it needs */
    consume(&before, expected);
    stream_synchronize(consumer);
    ck_assert_uint_eq(consumed, before.place_end);
    if (is_lazy())
        ck_assert_int_eq(device->ops->done(device, after.ticket, &err), 0);
    chunk_wait(&after);
    expect_placed(&after);
    free(before.data);
    free(after.data);
}
END_TEST

START_TEST(what_was_never_marked_is_over)
{
    struct chunk chunk;
    struct tnd_device_event *event;

    ck_assert_int_eq(device->ops->event_create(device, &event, &err), 0);
    chunk_init(&chunk, small, 2, 0);
    memset(expected, POISON, BLOCK_BYTES);
    ck_assert_int_eq(device->ops->stream_wait(device, consumer_handle, event, &err), 0);
    consume(&chunk, expected);
    stream_synchronize(consumer);
    ck_assert_uint_eq(consumed, chunk.place_end);
    ck_assert_int_eq(device->ops->hold(device, event, &err), 0);
    chunk_place(&chunk);
    chunk_wait(&chunk);
    device->ops->event_destroy(device, event);
    free(chunk.data);
}
END_TEST

/* A block is filled once more while a consumer still reads what was there: plain bytes and converted ones. */
START_TEST(holds_until_the_consumer_has_read)
{
    struct chunk old, new;
    struct tnd_device_event *placed, *read;
    uint8_t *expected_old = malloc(BLOCK_BYTES);

    ck_assert_int_eq(device->ops->event_create(device, &placed, &err), 0);
    ck_assert_int_eq(device->ops->event_create(device, &read, &err), 0);
    chunk_init(&old, mixed, MIXED_COUNT, 0);
    memcpy(expected_old, expected, BLOCK_BYTES);
    chunk_init(&new, mixed, MIXED_COUNT, 0);
    for (uint32_t round = 0; round < 3; round++) { /* events are used again */
        chunk_place(&old);
        ck_assert_int_eq(device->ops->mark(device, placed, &err), 0);
        ck_assert_int_eq(device->ops->stream_wait(device, consumer_handle, placed, &err), 0);
        consume(&old, expected_old);
        ck_assert_int_eq(device->ops->stream_mark(device, consumer_handle, read, &err), 0);
        ck_assert_int_eq(device->ops->hold(device, read, &err), 0);
        chunk_place(&new);
        chunk_wait(&new);
        stream_synchronize(consumer);
        ck_assert_uint_eq(consumed, old.place_end);
        expect_placed(&new);
    }
    device->ops->event_destroy(device, placed);
    device->ops->event_destroy(device, read);
    free(expected_old);
    free(old.data);
    free(new.data);
}
END_TEST

/* ---- The streams themselves ------------------------------------------------------------------------------------- */

struct move {
    uint32_t *to;
    const uint32_t *from;
};

static void run_move(void *argument)
{
    const struct move *move = argument;

    *move->to = *move->from;
}

/* Static, as items may still run when a test has failed. */
static uint32_t one = 1, there, seen, count;
static atomic_bool gate_open;
static bool gate_opened;

static void run_open_gate(void *argument)
{
    (void)argument;
    gate_open = true;
}

/* Not for good: a wait that goes wrong is to be a test that fails. */
static void run_gate(void *argument)
{
    uint64_t until = tnd_now_ns() + 2 * TND_NS_PER_S;

    (void)argument;
    while (!gate_open && tnd_now_ns() < until)
        sched_yield();
    gate_opened = gate_open;
}

static void move(struct stream *stream, uint32_t *to, const uint32_t *from)
{
    struct move argument = {to, from};

    stream_run(stream, run_move, &argument, sizeof(argument));
}

/* A wait for an event that is recorded once more, behind what waits for the waiter: the first record counts. */
START_TEST(a_wait_keeps_what_was_recorded)
{
    struct stream *stream = kind->stream_of(kind->stream_create());
    struct stream_event event = {0};

    there = seen = 0;
    gate_open = gate_opened = false;
    move(stream, &there, &one);
    stream_event_record(&event, stream);
    stream_wait_event(consumer, &event);
    move(consumer, &seen, &there);
    stream_run(consumer, run_open_gate, NULL, 0);
    stream_run(stream, run_gate, NULL, 0);
    stream_event_record(&event, stream);
    stream_synchronize(consumer);
    ck_assert_uint_eq(seen, 1);
    stream_event_synchronize(&event);
    ck_assert(gate_opened);
}
END_TEST

START_TEST(who_polls_comes_to_an_end)
{
    struct stream *stream = kind->stream_of(kind->stream_create());
    struct stream_event event = {0}, last = {0};
    uint32_t polls = 0;
    uint64_t until = tnd_now_ns() + 20 * TND_NS_PER_S;

    there = seen = 0;
    ck_assert(stream_event_query(&event));
    stream_event_synchronize(&event);
    stream_synchronize(stream); /* nothing was queued */
    for (uint32_t i = 0; i < 20; i++)
        move(stream, &there, &one);
    stream_event_record(&event, stream);
    stream_wait_event(consumer, &event);
    move(consumer, &seen, &there);
    stream_event_record(&last, consumer);
    for (; !stream_event_query(&last) && tnd_now_ns() < until; polls++)
        sched_yield();
    ck_assert_uint_eq(seen, 1);
    if (is_lazy())
        ck_assert_uint_ge(polls, 3); /* an item each */
    ck_assert(stream_event_query(&event));
}
END_TEST

#define PRODUCERS 3
#define EACH 100

static void run_count(void *argument)
{
    (void)argument;
    count++;
}

static void *produce(void *argument)
{
    for (uint32_t i = 0; i < EACH; i++)
        stream_run(consumer, run_count, NULL, 0);
    return argument;
}

START_TEST(several_threads_queue_on_one_stream)
{
    pthread_t threads[PRODUCERS];

    count = 0;
    for (uint32_t i = 0; i < PRODUCERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, produce, NULL), 0);
    for (uint32_t i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    stream_synchronize(consumer);
    ck_assert_uint_eq(count, PRODUCERS * EACH);
}
END_TEST

static int run_all(void)
{
    char name[64];
    Suite *suite;
    TCase *cases = tcase_create("device");

    snprintf(name, sizeof(name), "%s: %s", kind->name, modes[mode_now].name);
    suite = suite_create(name);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, places_and_converts);
    tcase_add_test(cases, counts_what_does_not_fit);
    tcase_add_test(cases, aligns_blocks);
    tcase_add_test(cases, reads_from_any_thread);
    tcase_add_test(cases, tickets_tell_when_all_is_over);
    tcase_add_test(cases, any_number_of_tickets);
    tcase_add_test(cases, uses_tiles_again_and_again);
    tcase_add_test(cases, passes_on_what_the_device_says);
    tcase_add_test(cases, a_consumer_waits_for_what_was_placed);
    tcase_add_test(cases, what_was_never_marked_is_over);
    tcase_add_test(cases, holds_until_the_consumer_has_read);
    suite_add_tcase(suite, cases);
    cases = tcase_create("streams");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, a_wait_keeps_what_was_recorded);
    tcase_add_test(cases, who_polls_comes_to_an_end);
    tcase_add_test(cases, several_threads_queue_on_one_stream);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}

int main(void)
{
    int failed = 0;

    tnd_kernel_thread_init();
    for (int i = 0; (kind = test_devices[i]); i++)
        for (mode_now = 0; mode_now < MODE_COUNT && kind->create; mode_now++)
            failed += run_all() != EXIT_SUCCESS;
    return failed ? 1 : 0;
}
