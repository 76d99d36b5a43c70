/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a window lives through what happens to it: many who use it at once, a cancel, memory that is not to be had, a
 * file that changes between two tokens; and it leaks nothing.
 * Method: threads that walk through the same window or beside each other and compare all bytes; an allocator that
 * counts, and fails once at each of its calls; a file that is cut or written to behind the first token. */

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "layered_file.h"

#define THREADS 8

struct counting {
    atomic_long live;
    long count, fail_at; /* one thread is enough for those */
    pthread_mutex_t mutex;
};

static void *counting_alloc(void *cookie, size_t bytes)
{
    struct counting *counting = cookie;
    void *memory = NULL;

    pthread_mutex_lock(&counting->mutex);
    if (++counting->count != counting->fail_at)
        memory = malloc(bytes);
    pthread_mutex_unlock(&counting->mutex);
    atomic_fetch_add(&counting->live, memory != NULL);
    return memory;
}

static void counting_free(void *cookie, void *memory)
{
    atomic_fetch_sub(&((struct counting *)cookie)->live, 1);
    free(memory);
}

struct blocked {
    struct tnd_load *load;
    int32_t layer;
    atomic_uint *about;
    int result;
};

static void *block(void *cookie)
{
    struct blocked *blocked = cookie;

    atomic_fetch_add(blocked->about, 1);
    blocked->result = tnd_layer_acquire(blocked->load, blocked->layer, -1);
    return NULL;
}

START_TEST(cancels_those_who_wait)
{
    struct counting counting = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct tnd_allocator allocator = {.alloc = counting_alloc, .free = counting_free, .cookie = &counting};
    struct timespec soon = {.tv_nsec = WHILE_NS};

    for (int round = 0; round < 5; round++) {
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){.allocator = &allocator});
        struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});
        struct blocked blocked[THREADS];
        pthread_t threads[THREADS];
        atomic_uint about = 0;

        ck_assert_int_eq(tnd_layer_acquire(load, 0, -1), 0);
        ck_assert_int_eq(tnd_layer_acquire(load, 1, -1), 0);
        for (int i = 0; i < THREADS; i++) {
            blocked[i] = (struct blocked){.load = load, .layer = 2 + i % 4, .about = &about};
            pthread_create(&threads[i], NULL, block, &blocked[i]);
        }
        while (atomic_load(&about) < THREADS)
            nanosleep(&soon, NULL);
        nanosleep(&soon, NULL); /* now they wait; if one does not yet, it is told the same */
        tnd_load_cancel(load);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            ck_assert_int_eq(blocked[i].result, -ECANCELED);
        }
        check_refused(tnd_layer_acquire(load, 4, -1), -ECANCELED, "canceled");
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        ck_assert_int_eq(atomic_load(&counting.live), 0);
    }
}
END_TEST

/* ret_counts: [tokens] how many allocations there have been behind each. */
static int walk_with(struct counting *counting, enum tnd_engine engine, uint32_t tokens, long *ret_counts)
{
    struct tnd_allocator allocator = {.alloc = counting_alloc, .free = counting_free, .cookie = counting};
    struct tnd_model_options model_options = {.size = sizeof(model_options), .allocator = &allocator};
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .allocator = &allocator,
                                                .engine = engine, .chunk_bytes = CHUNK};
    struct tnd_load_options options = {.size = sizeof(options), .resident_bytes = window_of(2)};
    struct tnd_model *mine = NULL;
    struct tnd_loader *loader = NULL;
    struct tnd_load *load = NULL;
    int r = tnd_model_open(path, &model_options, &mine);

    if (r >= 0)
        r = tnd_loader_create(&loader_options, &loader);
    if (r >= 0)
        r = tnd_load_start(loader, mine, &options, &load);
    for (uint32_t i = 0; i < tokens * LAYERS && r >= 0; i++) {
        r = tnd_layer_acquire(load, (int32_t)(i % LAYERS), -1);
        if (r >= 0) {
            ck_assert(has_its_bytes(load, (int32_t)(i % LAYERS)));
            ck_assert_int_eq(tnd_layer_release(load, (int32_t)(i % LAYERS)), 0);
        }
        pthread_mutex_lock(&counting->mutex);
        ret_counts[i / LAYERS] = counting->count;
        pthread_mutex_unlock(&counting->mutex);
    }
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&mine);
    return r;
}

START_TEST(allocates_nothing_in_the_steady_state)
{
    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        struct counting counting = {.mutex = PTHREAD_MUTEX_INITIALIZER};
        long counts[6];

        ck_assert_int_eq(walk_with(&counting, engines[e], 6, counts), 0);
        ck_assert_int_gt(counts[0], 5);
        ck_assert_int_eq(counts[5], counts[1]);
    }
}
END_TEST

START_TEST(survives_each_failing_allocation)
{
    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        struct counting counting = {.mutex = PTHREAD_MUTEX_INITIALIZER};
        bool over = false;

        for (long n = 1; !over; n++) {
            long allocations;
            int r;

            counting.count = 0;
            counting.fail_at = n;
            r = walk_with(&counting, engines[e], 1, &allocations);
            ck_assert_int_eq(atomic_load(&counting.live), 0);
            ck_assert_msg(r == 0 || r == -ENOMEM, "allocation %ld: %d %s", n, r, tnd_last_error());
            ck_assert_int_lt(n, 1000);
            over = counting.count < n;
            ck_assert(!over || r == 0);
        }
        ck_assert_int_gt(counting.count, 5);
    }
}
END_TEST

struct walker {
    struct tnd_load *load;
    uint32_t problems;
};

static void *walk_alone(void *cookie)
{
    struct walker *walker = cookie;

    for (int32_t i = 0; i < 8 * LAYERS; i++) {
        if (tnd_layer_acquire(walker->load, i % LAYERS, -1) < 0) {
            walker->problems++;
            continue;
        }
        walker->problems += !has_its_bytes(walker->load, i % LAYERS);
        walker->problems += tnd_layer_release(walker->load, i % LAYERS) < 0;
    }
    return NULL;
}

START_TEST(serves_eight_threads_at_once)
{
    static const uint32_t windows[] = {2, 3, LAYERS};

    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++)
        for (size_t w = 0; w < sizeof(windows) / sizeof(windows[0]); w++) {
            struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = engines[e]});
            struct walker walker[THREADS];
            pthread_t threads[THREADS];
            struct tnd_layer_stats stats;
            struct tnd_load *load =
                start(loader, (struct tnd_load_options){.resident_bytes = window_of(windows[w]), .ahead = 1});

            for (int i = 0; i < THREADS; i++) {
                walker[i] = (struct walker){.load = load};
                pthread_create(&threads[i], NULL, walk_alone, &walker[i]);
            }
            for (int i = 0; i < THREADS; i++) {
                pthread_join(threads[i], NULL);
                ck_assert_uint_eq(walker[i].problems, 0);
            }
            tnd_layer_stats(load, &stats);
            ck_assert_uint_eq(stats.acquires, 8 * LAYERS * THREADS);
            ck_assert_uint_eq(stats.hits + stats.late_hits + stats.sync_loads, stats.acquires);
            tnd_load_destroy(&load);
            tnd_loader_destroy(&loader);
        }
}
END_TEST

START_TEST(serves_two_models_at_once)
{
    struct gguf_file_tensor backwards[TENSOR_COUNT];
    struct tnd_model *other = NULL;
    char other_path[300];

    for (uint32_t i = 0; i < TENSOR_COUNT; i++)
        backwards[i] = tensors[TENSOR_COUNT - 1 - i];
    snprintf(other_path, sizeof(other_path), "%s.other", path);
    gguf_file_write(other_path, backwards, TENSOR_COUNT);
    ck_assert_int_eq(tnd_model_open(other_path, NULL, &other), 0);
    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = engines[e], .depth = 2});
        struct walker walkers[2] = {
            {.load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)})},
            {.load = start_of(loader, other, (struct tnd_load_options){.resident_bytes = window_of(3)})},
        };
        pthread_t threads[2];

        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], NULL, walk_alone, &walkers[i]);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
            ck_assert_uint_eq(walkers[i].problems, 0);
            tnd_load_destroy(&walkers[i].load);
        }
        tnd_loader_destroy(&loader);
    }
    tnd_model_close(&other);
    unlink(other_path);
}
END_TEST

/* A token behind which the file is no longer what it was: what is still there is used, what is fetched again fails. */
static void walk_a_changed_file(enum tnd_engine engine, bool cut)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = engine, .foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});
    struct timespec soon = {.tv_nsec = WHILE_NS};
    uint32_t failures = 0;
    int fd = open(path, O_WRONLY);

    walk(load, 1);
    step_until_still(loader, load, LAYERS);
    nanosleep(&soon, NULL); /* the clock of modification times ticks every few milliseconds */
    if (cut)
        ck_assert_int_eq(ftruncate(fd, 1000000), 0);
    else
        ck_assert_int_eq(pwrite(fd, "x", 1, 1000000), 1);
    close(fd);
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        if (tnd_layer_acquire(load, layer, -1) == 0) {
            ck_assert_int_eq(tnd_layer_release(load, layer), 0);
            continue;
        }
        failures++;
        check_refused(tnd_layer_acquire(load, layer, -1), -EBADMSG, path); /* and so does another try */
        ck_assert_ptr_nonnull(strstr(tnd_last_error(), cut ? "found" : "written to while it was loaded"));
        ck_assert(!cut || strstr(tnd_last_error(), "1000000")); /* where it ends now */
    }
    ck_assert_uint_ge(failures, LAYERS - 2);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    teardown();
    setup();
}

START_TEST(notices_a_file_that_changes_between_tokens)
{
    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        walk_a_changed_file(engines[e], true);
        walk_a_changed_file(engines[e], false);
    }
}
END_TEST

/* The last bytes of layer 2 are cut off: its first tensor is there all the same, and may be in somebody's hands. */
START_TEST(keeps_what_arrived_of_a_layer_that_failed)
{
    for (size_t e = 0; engines[e] != TND_ENGINE_MMAP; e++) {
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = engines[e]});
        struct tnd_load *load = start(loader, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND});
        uint32_t first = tensor_of(2);
        const struct tnd_tensor *last = tnd_model_tensor(model, first + 1);
        const uint8_t *data = NULL;

        ck_assert_str_eq(last->name, "blk.2.b");
        ck_assert_int_eq(truncate(path, (off_t)(last->offset + last->bytes - 1000)), 0);
        /* A failure stops what was not yet begun: as often as the tensor has windows, at the most. */
        for (uint32_t i = 0; i < 5 && tnd_load_wait_tensor(load, first, -1) < 0; i++)
            ck_assert_ptr_nonnull(strstr(tnd_last_error(), "blk.2.b"));
        check_refused(tnd_layer_acquire(load, 2, -1), -EBADMSG, "blk.2.b");
        ck_assert_int_eq(tnd_load_tensor_data(load, first, (const void **)&data), 0);
        for (uint64_t b = 0; b < tnd_model_tensor(model, first)->bytes; b++)
            ck_assert_uint_eq(data[b], gguf_file_byte(first, b));
        check_refused(tnd_load_wait_tensor(load, first + 1, -1), -EBADMSG, "blk.2.b");
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        teardown();
        setup();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("window life");
    TCase *cases = tcase_create("window life");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, cancels_those_who_wait);
    tcase_add_test(cases, allocates_nothing_in_the_steady_state);
    tcase_add_test(cases, survives_each_failing_allocation);
    tcase_add_test(cases, serves_eight_threads_at_once);
    tcase_add_test(cases, serves_two_models_at_once);
    tcase_add_test(cases, keeps_what_arrived_of_a_layer_that_failed);
    tcase_add_test(cases, notices_a_file_that_changes_between_tokens);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
