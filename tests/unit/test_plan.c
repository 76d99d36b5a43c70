/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: the plan is what architecture.md says it is, and stays it.
 * Method: one small model whose whole plan is written down here; random models for the properties that always hold. */

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "model/dtype.h"
#include "model/model.h"
#include "plan/layout.h"
#include "support/suite.h"

#define CHUNK 65536

static struct tnd_model model;
static struct tnd_err err;

static void setup(void)
{
    memset(&model, 0, sizeof(model));
    model.arena.allocator = tnd_allocator_or_default(NULL);
    model.files = tnd_arena_alloc(&model.arena, 2, sizeof(*model.files));
    model.file_count = 2;
    model.files[0].file.path = "golden";
    model.files[1].file.path = "second";
    ck_assert_int_eq(tnd_model_reserve(&model, 1000, 0, &err), 0);
}

static void teardown(void)
{
    tnd_arena_finish(&model.arena);
}

static void add(const char *name, uint32_t file, uint64_t offset, uint64_t bytes)
{
    uint64_t *shape = tnd_arena_alloc(&model.arena, 1, sizeof(*shape));
    struct tnd_tensor tensor = {.dtype = TND_U8, .dims = 1, .shape = shape, .elements = bytes, .bytes = bytes,
                                .file = file, .offset = offset, .name_bytes = strlen(name)};

    shape[0] = bytes;
    tensor.name = tnd_arena_string(&model.arena, name, strlen(name));
    ck_assert_msg(tnd_model_add_tensor(&model, &tensor, &err) == 0, "%s", err.text);
}

static void add_golden(void)
{
    add("output.weight", 0, 1000, 70000);
    add("token_embd.weight", 0, 71008, 200000);
    add("blk.1.w", 0, 271008, 5000);
    add("blk.0.w", 0, 276032, 3000);
    add("blk.0.bias", 0, 279040, 10);
    add("blk.0.far", 0, 400000, 4096);
    add("blk.1.v", 1, 64, 100);
    add("output_norm.weight", 1, 200, 0);
}

static struct tnd_plan make(enum tnd_order order, const char *only, uint32_t first, uint32_t count)
{
    struct tnd_plan plan;
    struct tnd_plan_options options = {.order = order, .only = only, .layer_first = first, .layer_count = count,
                                       .chunk_bytes = CHUNK, .alignment = TND_PLAN_ALIGNMENT};

    ck_assert_msg(tnd_plan_init(&plan, &model, &options, &err) == 0, "%s", err.text);
    return plan;
}

/* One line a window: file:offset+bytes, then name[from,to)@where for each piece. */
static char *text_of(const struct tnd_plan *plan)
{
    size_t room = 1 << 16, used = 0;
    char *text = calloc(room, 1);

    for (uint32_t w = 0; w < plan->window_count; w++) {
        const struct tnd_window *window = &plan->windows[w];

        used += (size_t)snprintf(text + used, room - used, "%u:%llu+%u", window->file,
                                 (unsigned long long)window->offset, window->bytes);
        for (uint32_t p = 0; p < window->piece_count; p++) {
            const struct tnd_piece *piece = &plan->pieces[window->piece_first + p];

            used += (size_t)snprintf(text + used, room - used, " %s[%llu,%llu)@%u", model.tensors[piece->tensor].name,
                                     (unsigned long long)piece->tensor_offset,
                                     (unsigned long long)piece->tensor_offset + piece->bytes, piece->window_offset);
        }
        used += (size_t)snprintf(text + used, room - used, "\n");
    }
    return text;
}

static void check_plan(struct tnd_plan plan, const char *expected)
{
    char *text = text_of(&plan);

    ck_assert_str_eq(text, expected);
    free(text);
    tnd_plan_finish(&plan);
}

START_TEST(plans_in_order_of_use)
{
    add_golden();
    check_plan(make(TND_ORDER_USE, NULL, 0, 0),
               "0:69632+65536 token_embd.weight[0,64160)@1376\n"
               "0:135168+65536 token_embd.weight[64160,129696)@0\n"
               "0:200704+65536 token_embd.weight[129696,195232)@0\n"
               "0:266240+16384 token_embd.weight[195232,200000)@0 blk.0.w[0,3000)@9792 blk.0.bias[0,10)@12800\n"
               "0:397312+8192 blk.0.far[0,4096)@2688\n"
               "0:270336+8192 blk.1.w[0,5000)@672\n"
               "1:0+4096 blk.1.v[0,100)@64\n"
               "0:0+65536 output.weight[0,64536)@1000\n"
               "0:65536+8192 output.weight[64536,70000)@0\n");
}
END_TEST

START_TEST(plans_in_order_of_file)
{
    add_golden();
    check_plan(make(TND_ORDER_FILE, NULL, 0, 0),
               "0:0+65536 output.weight[0,64536)@1000\n"
               "0:65536+65536 output.weight[64536,70000)@0 token_embd.weight[0,60064)@5472\n"
               "0:131072+65536 token_embd.weight[60064,125600)@0\n"
               "0:196608+65536 token_embd.weight[125600,191136)@0\n"
               "0:262144+20480 token_embd.weight[191136,200000)@0 blk.1.w[0,5000)@8864 blk.0.w[0,3000)@13888 "
               "blk.0.bias[0,10)@16896\n"
               "0:397312+8192 blk.0.far[0,4096)@2688\n"
               "1:0+4096 blk.1.v[0,100)@64\n");
}
END_TEST

START_TEST(plans_what_is_selected)
{
    struct tnd_plan plan;
    struct tnd_plan_options options = {.only = "none*", .chunk_bytes = CHUNK, .alignment = TND_PLAN_ALIGNMENT};

    add_golden();
    check_plan(make(TND_ORDER_USE, NULL, 1, 1), "0:270336+8192 blk.1.w[0,5000)@672\n1:0+4096 blk.1.v[0,100)@64\n");
    check_plan(make(TND_ORDER_USE, "*.bias", 0, 0), "0:278528+4096 blk.0.bias[0,10)@512\n");
    check_plan(make(TND_ORDER_USE, "output_norm*", 0, 0), "");
    ck_assert_int_eq(tnd_plan_init(&plan, &model, &options, &err), -ENOENT);
}
END_TEST

START_TEST(covers_each_byte_once)
{
    unsigned seed = 1;

    for (int round = 0; round < 200; round++) {
        struct tnd_plan plan;
        uint64_t offset = 0;
        uint64_t *got;

        teardown();
        setup();
        for (int i = 0; i < 60; i++) {
            uint64_t bytes = (uint64_t)rand_r(&seed) % (rand_r(&seed) % 4 ? 3000 : 400000);
            char name[32];

            snprintf(name, sizeof(name), "blk.%d.t%d", rand_r(&seed) % 8, i);
            offset += (uint64_t)rand_r(&seed) % (rand_r(&seed) % 5 ? 64 : 20000);
            add(name, 0, offset, bytes);
            offset += bytes;
        }
        model.layer_count = 8;
        plan = make(round % 2 ? TND_ORDER_USE : TND_ORDER_FILE, NULL, 0, 0);
        got = calloc(model.tensor_count, sizeof(*got));
        for (uint32_t w = 0; w < plan.window_count; w++) {
            const struct tnd_window *window = &plan.windows[w];
            uint32_t end = 0;

            ck_assert_uint_eq(window->offset % TND_PLAN_ALIGNMENT, 0);
            ck_assert_uint_eq(window->bytes % TND_PLAN_ALIGNMENT, 0);
            ck_assert_uint_le(window->bytes, CHUNK);
            for (uint32_t p = 0; p < window->piece_count; p++) {
                const struct tnd_piece *piece = &plan.pieces[window->piece_first + p];

                ck_assert_uint_ge(piece->window_offset, end);
                end = piece->window_offset + piece->bytes;
                ck_assert_uint_eq(window->offset + piece->window_offset,
                                  model.tensors[piece->tensor].offset + piece->tensor_offset);
                ck_assert_uint_eq(got[piece->tensor], piece->tensor_offset); /* each tensor from front to back */
                got[piece->tensor] += piece->bytes;
            }
            ck_assert_uint_le(end, window->bytes);
            ck_assert_uint_lt(window->bytes - end, TND_PLAN_ALIGNMENT);
        }
        for (uint32_t t = 0; t < model.tensor_count; t++)
            ck_assert_uint_eq(got[t], model.tensors[t].bytes);
        free(got);
        tnd_plan_finish(&plan);
    }
}
END_TEST

START_TEST(reads_little_more_than_asked)
{
    struct tnd_plan plan;

    for (int i = 0; i < 32; i++) {
        char name[32];

        snprintf(name, sizeof(name), "blk.%d.w", 31 - i); /* the order of use runs against the file's */
        add(name, 0, 4321 + (uint64_t)i * ((1 << 20) + 37), 1 << 20);
    }
    plan = make(TND_ORDER_USE, NULL, 0, 0);
    ck_assert_uint_le(plan.sizes.read_bytes * 100, plan.sizes.tensor_bytes * 102);
    tnd_plan_finish(&plan);
}
END_TEST

/* No two tensors share a byte, each is aligned, and what is mirrored lies as in the file. */
static void check_layout(enum tnd_switch in_place, uint64_t alignment)
{
    struct tnd_plan plan = make(TND_ORDER_USE, NULL, 0, 0);
    struct tnd_layout layout;

    ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, in_place, 0, &err), 0);
    for (uint32_t a = 0; a < plan.tensor_count; a++) {
        uint32_t i = plan.tensors[a];

        ck_assert_uint_eq(layout.offsets[i] % alignment, 0);
        ck_assert_uint_le(layout.offsets[i] + model.tensors[i].bytes, layout.bytes);
        for (uint32_t b = 0; b < a; b++) {
            uint32_t j = plan.tensors[b];

            ck_assert(layout.offsets[i] >= layout.offsets[j] + model.tensors[j].bytes ||
                      layout.offsets[j] >= layout.offsets[i] + model.tensors[i].bytes);
        }
    }
    for (uint32_t w = 0; w < plan.window_count; w++) {
        const struct tnd_piece *piece = &plan.pieces[plan.windows[w].piece_first];
        uint64_t home = layout.offsets[piece->tensor] + piece->tensor_offset - piece->window_offset;

        ck_assert(in_place != TND_OFF || !layout.mirrored[w]);
        if (layout.mirrored[w]) {
            ck_assert_uint_eq(home % TND_PLAN_ALIGNMENT, 0);
            ck_assert_uint_le(home + plan.windows[w].bytes, layout.bytes);
            for (uint32_t t = 0; t < plan.tensor_count; t++) { /* nobody else's bytes under the window's ends */
                const struct tnd_tensor *tensor = &model.tensors[plan.tensors[t]];
                uint64_t at = layout.offsets[plan.tensors[t]];

                if (tensor->bytes && at < home + plan.windows[w].bytes && at + tensor->bytes > home)
                    ck_assert_uint_eq(at - home, tensor->offset - plan.windows[w].offset);
            }
        }
    }
    tnd_plan_finish(&plan);
}

START_TEST(lays_tensors_out)
{
    unsigned seed = 7;

    for (int round = 0; round < 60; round++) {
        uint64_t offset = 64;

        teardown();
        setup();
        for (int i = 0; i < 40; i++) {
            char name[32];
            uint64_t bytes = (uint64_t)rand_r(&seed) % (rand_r(&seed) % 3 ? 5000 : 900000);

            snprintf(name, sizeof(name), "blk.%d.t%d", i / 8, i);
            if (rand_r(&seed) % 8)
                offset = tnd_round_up(offset, 64);
            add(name, 0, offset, bytes);
            offset += bytes;
        }
        model.layer_count = 8;
        check_layout(TND_OFF, TND_TENSOR_ALIGNMENT);
        check_layout(TND_AUTO, TND_TENSOR_ALIGNMENT);
        check_layout(TND_ON, 1);
    }
}
END_TEST

START_TEST(mirrors_large_stretches_only)
{
    struct tnd_plan plan;
    struct tnd_layout layout;

    add("blk.0.small", 0, 64, 4096);
    add("blk.1.large", 1, 4096 * 5 + 64, 3 << 20);
    plan = make(TND_ORDER_USE, NULL, 0, 0);
    ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, TND_AUTO, 0, &err), 0);
    ck_assert_uint_eq(layout.offsets[0], 0);
    ck_assert_uint_eq(layout.offsets[1] % 4096, 64);
    ck_assert(!layout.mirrored[0]);
    ck_assert(layout.mirrored[1]);
    tnd_plan_finish(&plan);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan");
    TCase *cases = tcase_create("plan");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, plans_in_order_of_use);
    tcase_add_test(cases, plans_in_order_of_file);
    tcase_add_test(cases, plans_what_is_selected);
    tcase_add_test(cases, covers_each_byte_once);
    tcase_add_test(cases, reads_little_more_than_asked);
    tcase_add_test(cases, lays_tensors_out);
    tcase_add_test(cases, mirrors_large_stretches_only);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
