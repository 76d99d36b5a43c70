/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: lazy loads and windows of layers keep what tundish.h promises under Layers.
 * Method: a file of known bytes and six layers through the public header only. Where an order or a count is to be
 * exact, a foreground loader is stepped until nothing moves any more. */

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "layered_file.h"

#define HANG_MS 60000 /* generous: only a hang takes so long */

/* ---- Walks -------------------------------------------------------------------------------------------------- */

START_TEST(walks_on_every_engine)
{
    const struct tnd_load_options ways[] = {
        {0},
        {.lazy = TND_LAZY_BACKGROUND},
        {.lazy = TND_LAZY_DEMAND},
        {.resident_bytes = window_of(3)},
        {.resident_bytes = window_of(2), .lazy = TND_LAZY_DEMAND},
        {.resident_bytes = window_of(4), .ahead = TND_AHEAD_NONE},
        {.resident_bytes = window_of(1)},
    };
    static const uint32_t resident[] = {LAYERS, LAYERS, LAYERS, 3, 2, 4, 1};

    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++)
        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
            for (int foreground = 0; foreground < 2; foreground++) {
                struct tnd_loader *loader =
                    make_loader((struct tnd_loader_options){.engine = engines[e], .foreground = foreground});
                struct tnd_load *load = start(loader, ways[i]);
                struct tnd_layer_stats stats;

                walk(load, 3);
                tnd_layer_stats(load, &stats);
                ck_assert_uint_eq(stats.acquires, 3 * LAYERS);
                ck_assert_uint_eq(stats.hits + stats.late_hits + stats.sync_loads, stats.acquires);
                ck_assert_uint_eq(stats.layers, LAYERS);
                ck_assert_uint_eq(stats.resident_layers, resident[i]);
                ck_assert_uint_eq(stats.shared_bytes, bytes_of(TND_LAYER_SHARED_IN) + bytes_of(TND_LAYER_SHARED_OUT));
                ck_assert_int_eq(stats.resident_bytes > 0, resident[i] < LAYERS);
                ck_assert_uint_le(stats.resident_bytes, ways[i].resident_bytes);
                ck_assert_int_eq(stats.bytes_reread > 0, resident[i] < LAYERS);
                tnd_load_destroy(&load);
                tnd_loader_destroy(&loader);
            }
}
END_TEST

START_TEST(lands_in_place)
{
    /* Long enough to lie as in the file, each at another offset in its blocks. */
    static const struct gguf_file_tensor large[] = {
        {"blk.0.a", 1500001}, {"blk.0.b", 500000}, {"blk.1.a", 1600003}, {"blk.1.b", 400000},
        {"blk.2.a", 1700005}, {"blk.2.b", 300000}, {"blk.3.a", 1800007}, {"blk.3.b", 200000},
    };

    tnd_model_close(&model);
    gguf_file_write(path, large, 8);
    ck_assert_int_eq(tnd_model_open(path, NULL, &model), 0);
    for (int direct = TND_ON; direct <= TND_OFF; direct++) {
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){.direct = (enum tnd_switch)direct});
        struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = 4100000,
                                                                        .in_place = TND_ON});
        struct tnd_load_stats stats;

        for (int32_t i = 0; i < 12; i++)
            use_layer(load, i % 4);
        tnd_load_cancel(load);
        ck_assert_int_eq(tnd_load_wait(load, -1), -ECANCELED);
        tnd_load_stats(load, &stats);
        if (direct == TND_ON)
            ck_assert_uint_lt(stats.pool_bytes_read, stats.bytes_read / 2);
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
    }
}
END_TEST

START_TEST(says_not_yet)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});

    ck_assert_int_eq(tnd_layer_acquire(load, 1, 0), -EAGAIN);
    step_until_still(loader, load, 3);
    ck_assert_int_eq(tnd_layer_acquire(load, 1, 0), 0);
    ck_assert(has_its_bytes(load, 1));
    check_refused(tnd_layer_acquire(load, LAYERS, 0), -EINVAL, "no such layer");
    check_refused(tnd_layer_acquire(load, -3, 0), -EINVAL, "no such layer");
    tnd_load_destroy(&load);

    load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(1), .layer_count = 2});
    check_refused(tnd_layer_acquire(load, 2, -1), -EINVAL, "not part of this load");
    check_refused(tnd_layer_acquire(load, TND_LAYER_SHARED_IN, -1), -EINVAL, "not part of this load");
    use_layer(load, 1);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

static void *acquire_three(void *load)
{
    return tnd_layer_acquire(load, 3, -1) == 0 && has_its_bytes(load, 3) ? NULL : load;
}

START_TEST(waits_until_others_let_go)
{
    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){.engine = engines[e]});
        struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});
        struct timespec soon = {.tv_nsec = WHILE_NS};
        pthread_t thread;
        void *failed;

        ck_assert_int_eq(tnd_layer_acquire(load, 0, -1), 0);
        ck_assert_int_eq(tnd_layer_acquire(load, 1, -1), 0);
        ck_assert_int_eq(tnd_layer_acquire(load, 3, 0), -EAGAIN);
        ck_assert_int_eq(tnd_layer_acquire(load, 3, WHILE_NS), -ETIMEDOUT);
        pthread_create(&thread, NULL, acquire_three, load);
        nanosleep(&soon, NULL);
        ck_assert(has_its_bytes(load, 0) && has_its_bytes(load, 1)); /* what is held stays */
        ck_assert_int_eq(tnd_layer_release(load, 0), 0);
        pthread_join(thread, &failed);
        ck_assert_ptr_null(failed);
        ck_assert(has_its_bytes(load, 1));
        ck_assert_int_eq(tnd_layer_release(load, 1), 0);
        ck_assert_int_eq(tnd_layer_release(load, 3), 0);
        check_refused(tnd_layer_release(load, 3), -EINVAL, "not acquired");
        check_refused(tnd_layer_release(load, LAYERS), -EINVAL, "no such layer");
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
    }
}
END_TEST

START_TEST(gives_data_of_what_is_acquired_only)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});
    const void *data;
    uint8_t byte;

    step_until_still(loader, load, 2); /* layer 0 is there */
    check_refused(tnd_load_tensor_data(load, tensor_of(0), &data), -EINVAL, "not acquired");
    check_refused(tnd_load_tensor_read(load, tensor_of(0), 0, &byte, 1), -EINVAL, "not acquired");
    ck_assert_int_eq(tnd_layer_acquire(load, 0, 0), 0);
    ck_assert_int_eq(tnd_layer_acquire(load, 0, 0), 0);
    ck_assert_int_eq(tnd_layer_release(load, 0), 0);
    ck_assert(has_its_bytes(load, 0)); /* as often as it was acquired */
    ck_assert_int_eq(tnd_layer_release(load, 0), 0);
    check_refused(tnd_load_tensor_data(load, tensor_of(0), &data), -EINVAL, "not acquired");
    ck_assert(has_its_bytes(load, TND_LAYER_SHARED_IN)); /* that stays */

    check_refused(tnd_load_wait_layer(load, 0, -1), -EINVAL, "acquired, not waited for");
    check_refused(tnd_load_wait_tensor(load, tensor_of(0), -1), -EINVAL, "acquired, not waited for");
    check_refused(tnd_load_wait(load, -1), -EINVAL, "never has all");
    ck_assert_int_eq(tnd_load_wait_layer(load, TND_LAYER_SHARED_IN, -1), 0);
    ck_assert_int_eq(tnd_load_wait_layer(load, TND_LAYER_SHARED_OUT, -1), 0);
    ck_assert_int_eq(tnd_load_wait_tensor(load, tensor_of(TND_LAYER_SHARED_OUT), -1), 0);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

/* ---- Lazy --------------------------------------------------------------------------------------------------- */

static void check_ready(struct tnd_load *load, uint64_t bytes)
{
    struct tnd_progress progress;

    tnd_load_progress(load, &progress);
    ck_assert_uint_eq(progress.bytes_ready, bytes);
    ck_assert(!progress.ended);
}

START_TEST(reads_what_is_asked_for)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){.foreground = true});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.lazy = TND_LAZY_DEMAND, .ahead = 1});
    uint64_t bytes = bytes_of(TND_LAYER_SHARED_IN) + bytes_of(0);
    struct tnd_progress progress;
    struct tnd_load_stats stats;
    const void *data;

    tnd_load_stats(load, &stats);
    ck_assert_uint_eq(stats.first_layer_ns, 0);
    step_until_still(loader, load, 2);
    check_ready(load, bytes);
    tnd_load_progress(load, &progress);
    tnd_load_stats(load, &stats); /* although it has not ended */
    ck_assert(stats.first_layer_ns > 0 && stats.first_layer_ns <= progress.elapsed_ns);
    ck_assert_int_eq(tnd_load_wait_layer(load, 3, -1), 0);
    step_until_still(loader, load, 3);
    check_ready(load, bytes += bytes_of(3));
    ck_assert_int_eq(tnd_load_tensor_data(load, tensor_of(4), &data), -EAGAIN); /* asks as well */
    step_until_still(loader, load, 4);
    check_ready(load, bytes += bytes_of(4));
    ck_assert_int_eq(tnd_load_tensor_data(load, tensor_of(4), &data), 0);
    use_layer(load, 0); /* and one ahead */
    step_until_still(loader, load, 5);
    check_ready(load, bytes += bytes_of(1));
    ck_assert_int_eq(tnd_load_prefetch(load, TND_LAYER_SHARED_OUT), 0);
    step_until_still(loader, load, 6);
    check_ready(load, bytes + bytes_of(TND_LAYER_SHARED_OUT));
    ck_assert_int_eq(tnd_load_wait(load, 0), -EAGAIN);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    tnd_load_progress(load, &progress);
    ck_assert(progress.ended);
    ck_assert_uint_eq(progress.bytes_ready, progress.bytes);
    ck_assert_uint_eq(progress.tensors_ready, TENSOR_COUNT);
    walk(load, 1);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

/* ---- Trace -------------------------------------------------------------------------------------------------- */

struct told {
    atomic_uint fetches[LAYERS + 2], evicts[LAYERS + 2]; /* by stage */
    atomic_uint fetch_count, problems;
    int32_t order[64]; /* of fetches: one thread tells them */
    atomic_ulong bytes;
    uint32_t slots;
};

static void note(void *cookie, const struct tnd_trace_event *event)
{
    struct told *told = cookie;
    int32_t layer;

    if (event->kind != TND_TRACE_FETCH && event->kind != TND_TRACE_EVICT)
        return;
    layer = event->tensor->role == TND_SHARED_OUT ? LAYERS : event->tensor->layer;
    if (event->start_ns > event->end_ns || event->worker != UINT32_MAX || event->offset != 0 ||
        event->bytes != bytes_of(layer == LAYERS ? TND_LAYER_SHARED_OUT : layer) ||
        (layer < 0 || layer == LAYERS || !told->slots ? event->slot != UINT32_MAX : event->slot >= told->slots))
        atomic_fetch_add(&told->problems, 1);
    if (event->kind == TND_TRACE_EVICT) {
        atomic_fetch_add(&told->evicts[1 + layer], 1);
        return;
    }
    atomic_fetch_add(&told->fetches[1 + layer], 1);
    atomic_fetch_add(&told->bytes, event->bytes);
    told->order[atomic_fetch_add(&told->fetch_count, 1) % 64] = layer;
}

START_TEST(tells_each_fetch_and_who_leaves)
{
    for (size_t e = 0; e < sizeof(engines) / sizeof(engines[0]); e++) {
        struct told told = {.slots = engines[e] == TND_ENGINE_MMAP ? 0 : 3};
        struct tnd_loader *loader = make_loader((struct tnd_loader_options){
            .engine = engines[e], .foreground = true, .trace = note, .trace_cookie = &told});
        struct tnd_load *load =
            start(loader, (struct tnd_load_options){.resident_bytes = window_of(3), .ahead = 1});
        struct tnd_layer_stats stats;
        uint32_t fetched = 0, evicted = 0;

        walk(load, 4);
        step_until_still(loader, load, 4 * LAYERS / 2);
        tnd_layer_stats(load, &stats);
        ck_assert_uint_eq(told.fetches[0], 1);
        ck_assert_uint_eq(told.fetches[LAYERS + 1], 1);
        for (uint32_t stage = 1; stage <= LAYERS; stage++) {
            ck_assert_uint_ge(told.fetches[stage], 1);
            ck_assert_uint_le(told.evicts[stage], told.fetches[stage]);
            ck_assert_uint_le(told.fetches[stage], told.evicts[stage] + 1);
            fetched += told.fetches[stage];
            evicted += told.evicts[stage];
        }
        ck_assert_uint_eq(evicted, fetched - 3);
        ck_assert_uint_eq(stats.fetches, fetched + 2);
        ck_assert_uint_eq(stats.bytes_fetched, told.bytes);
        ck_assert_uint_eq(told.problems, 0);
        ck_assert_uint_lt(fetched, 4 * LAYERS); /* oldest first would have fetched all, each time */
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
    }
}
END_TEST

START_TEST(goes_in_the_order_that_is_asked_for)
{
    static const uint32_t order[] = {4, 2, 0};
    static const int32_t prefetched[] = {-1, 0, 5, 1, 2, 3, 4, LAYERS}, ordered[] = {-1, 4, 2, 0, LAYERS, 1, 3, 5};
    struct told told = {0};
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){
        .foreground = true, .depth = 1, .thread_count = 1, .trace = note, .trace_cookie = &told});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND});

    ck_assert_int_eq(tnd_load_prefetch(load, 5), 0);
    check_refused(tnd_load_prefetch(load, LAYERS), -EINVAL, "no such layer");
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    ck_assert_int_eq(memcmp(told.order, prefetched, sizeof(prefetched)), 0);
    tnd_load_destroy(&load);

    told.fetch_count = 0;
    load = start(loader, (struct tnd_load_options){.lazy = TND_LAZY_BACKGROUND, .layer_order = order,
                                                   .layer_order_count = 3});
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    ck_assert_int_eq(memcmp(told.order, ordered, sizeof(ordered)), 0);
    ck_assert_uint_eq(told.problems, 0);
    tnd_load_destroy(&load);

    told.fetch_count = 0; /* all is on its way: nothing is fetched by layer */
    load = start(loader, (struct tnd_load_options){0});
    ck_assert_int_eq(tnd_load_prefetch(load, 5), 0);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    ck_assert_uint_eq(told.fetch_count, 0);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(makes_its_descriptor_readable)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});
    struct pollfd ready = {.fd = tnd_load_event_fd(load), .events = POLLIN};
    uint64_t count;

    ck_assert_int_ge(ready.fd, 0);
    for (int32_t layer = 0; layer < 2 * LAYERS; layer++) {
        while (tnd_layer_acquire(load, layer % LAYERS, 0) == -EAGAIN) {
            ck_assert_int_eq(poll(&ready, 1, HANG_MS), 1);
            ck_assert_int_eq(read(ready.fd, &count, sizeof(count)), sizeof(count));
        }
        ck_assert(has_its_bytes(load, layer % LAYERS));
        ck_assert_int_eq(tnd_layer_release(load, layer % LAYERS), 0);
    }
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

/* ---- Refused, and at the edges ------------------------------------------------------------------------------ */

static void *place_nothing(void *cookie, const struct tnd_tensor *tensor)
{
    (void)tensor;
    return cookie;
}

START_TEST(refuses_what_does_not_go_together)
{
    static const uint32_t beyond[] = {0, LAYERS};
    const struct {
        struct tnd_load_options options;
        const char *words;
    } table[] = {
        {{.lazy = TND_LAZY_DEMAND, .digest = TND_DIGEST_XXH3}, "makes no digests"},
        {{.resident_bytes = window_of(2), .digest = TND_DIGEST_XXH3}, "makes no digests"},
        {{.lazy = TND_LAZY_BACKGROUND, .order = TND_ORDER_FILE}, "order of use"},
        {{.resident_bytes = window_of(2), .order = TND_ORDER_FILE}, "order of use"},
        {{.resident_bytes = window_of(2), .place = place_nothing}, "place"},
        {{.lazy = (enum tnd_lazy)(TND_LAZY_DEMAND + 1)}, "lazy"},
        {{.lazy = TND_LAZY_DEMAND, .layer_order = beyond, .layer_order_count = 2}, "layer 6"},
        {{.lazy = TND_LAZY_DEMAND, .layer_order_count = 2}, "one is given"},
    };
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct tnd_load_options options = table[i].options;
        struct tnd_load *load = NULL;

        options.size = sizeof(options);
        check_refused(tnd_load_start(loader, model, &options, &load), -EINVAL, table[i].words);
        ck_assert_ptr_null(load);
    }
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(refuses_a_window_that_is_too_small)
{
    struct tnd_load_options options = {.size = sizeof(options), .resident_bytes = 300000};
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .chunk_bytes = CHUNK};
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = NULL;
    struct tnd_plan *plan = NULL;

    check_refused(tnd_load_start(loader, model, &options, &load), -ENOMEM, "window of 300000 bytes is too small");
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), path));
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "65536"));
    ck_assert_ptr_null(load);
    check_refused(tnd_plan_create(model, &loader_options, &options, &plan), -ENOMEM, "window of 300000 bytes");
    ck_assert_ptr_null(plan);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(keeps_all_where_all_fit)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    uint64_t all = 0;
    struct tnd_load *load;
    struct tnd_layer_stats stats;

    for (int32_t layer = 0; layer < LAYERS; layer++)
        all += bytes_of(layer);
    load = start(loader, (struct tnd_load_options){.resident_bytes = all});
    walk(load, 2);
    ck_assert_int_eq(tnd_load_wait(load, -1), 0);
    ck_assert(has_its_bytes(load, 3)); /* acquired or not */
    tnd_layer_stats(load, &stats);
    ck_assert_uint_eq(stats.fetches, LAYERS + 2);
    ck_assert_uint_eq(stats.bytes_reread, 0);
    ck_assert_uint_eq(stats.resident_bytes, 0);
    tnd_load_destroy(&load);
    load = start(loader, (struct tnd_load_options){.resident_bytes = all - 1});
    tnd_layer_stats(load, &stats);
    ck_assert_uint_lt(stats.resident_layers, LAYERS);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(goes_through_one_place)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(1)});
    struct tnd_layer_stats stats;
    const char *reason;
    bool told = false;

    walk(load, 2);
    tnd_layer_stats(load, &stats);
    ck_assert_uint_eq(stats.ahead, 0);
    ck_assert_uint_ge(stats.sync_loads, 2 * LAYERS - 1); /* the first may have been faster than the consumer */
    ck_assert_uint_eq(stats.late_hits, 0);
    tnd_load_cancel(load);
    ck_assert_int_eq(tnd_load_wait(load, -1), -ECANCELED);
    for (uint32_t i = 0; (reason = tnd_load_reason(load, i)); i++)
        told = told || strstr(reason, "room for one layer");
    ck_assert(told);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

START_TEST(keeps_what_is_pinned)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});

    ck_assert_int_eq(tnd_layer_pin(load, 2, true), 0);
    check_refused(tnd_layer_pin(load, LAYERS, true), -EINVAL, "no such layer");
    use_layer(load, 2);
    for (int token = 0; token < 2; token++) {
        walk(load, 1);
        ck_assert_int_eq(tnd_layer_acquire(load, 2, 0), 0); /* it never left */
        ck_assert(has_its_bytes(load, 2));
        ck_assert_int_eq(tnd_layer_release(load, 2), 0);
    }
    ck_assert_int_eq(tnd_layer_acquire(load, 4, -1), 0);
    ck_assert_int_eq(tnd_layer_pin(load, 4, true), 0);
    ck_assert_int_eq(tnd_layer_release(load, 4), 0);
    check_refused(tnd_layer_acquire(load, 0, -1), -EINVAL, "all 2 layers in the window are pinned");
    use_layer(load, 4);
    ck_assert_int_eq(tnd_layer_pin(load, 2, false), 0);
    use_layer(load, 0);
    ck_assert_int_eq(tnd_layer_acquire(load, 4, 0), 0);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

static void *acquire_pinned_out(void *load)
{
    return tnd_layer_acquire(load, 3, -1) == -EINVAL && strstr(tnd_last_error(), "pinned") ? NULL : load;
}

START_TEST(tells_those_who_wait_that_all_is_pinned)
{
    struct tnd_loader *loader = make_loader((struct tnd_loader_options){0});
    struct tnd_load *load = start(loader, (struct tnd_load_options){.resident_bytes = window_of(2)});
    struct timespec soon = {.tv_nsec = WHILE_NS};
    pthread_t thread;
    void *failed;

    ck_assert_int_eq(tnd_layer_acquire(load, 0, -1), 0);
    ck_assert_int_eq(tnd_layer_acquire(load, 1, -1), 0);
    pthread_create(&thread, NULL, acquire_pinned_out, load);
    nanosleep(&soon, NULL); /* now it waits for a place */
    ck_assert_int_eq(tnd_layer_pin(load, 0, true), 0);
    ck_assert_int_eq(tnd_layer_pin(load, 1, true), 0);
    pthread_join(thread, &failed);
    ck_assert_ptr_null(failed);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("window");
    TCase *cases = tcase_create("window");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, walks_on_every_engine);
    tcase_add_test(cases, lands_in_place);
    tcase_add_test(cases, says_not_yet);
    tcase_add_test(cases, waits_until_others_let_go);
    tcase_add_test(cases, gives_data_of_what_is_acquired_only);
    tcase_add_test(cases, reads_what_is_asked_for);
    tcase_add_test(cases, tells_each_fetch_and_who_leaves);
    tcase_add_test(cases, goes_in_the_order_that_is_asked_for);
    tcase_add_test(cases, makes_its_descriptor_readable);
    tcase_add_test(cases, refuses_what_does_not_go_together);
    tcase_add_test(cases, refuses_a_window_that_is_too_small);
    tcase_add_test(cases, keeps_all_where_all_fit);
    tcase_add_test(cases, goes_through_one_place);
    tcase_add_test(cases, keeps_what_is_pinned);
    tcase_add_test(cases, tells_those_who_wait_that_all_is_pinned);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
