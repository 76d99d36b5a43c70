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

/* ---- By layer ----------------------------------------------------------------------------------------------- */

static struct tnd_plan make_by_layer(void)
{
    struct tnd_plan plan;
    struct tnd_plan_options options = {.by_layer = true, .chunk_bytes = CHUNK, .alignment = TND_PLAN_ALIGNMENT};

    ck_assert_msg(tnd_plan_init(&plan, &model, &options, &err) == 0, "%s", err.text);
    return plan;
}

/* A model whose layers lie wherever they like: names, sizes and holes by chance. Sizes in units of unit bytes. */
static void add_random(unsigned *seed, uint32_t layers, uint32_t tensors, uint64_t unit)
{
    uint64_t offset = 32;

    for (uint32_t i = 0; i < tensors; i++) {
        uint64_t bytes = (uint64_t)rand_r(seed) % (rand_r(seed) % 3 ? 5 * unit : 90 * unit);
        uint32_t layer = (uint32_t)rand_r(seed) % (layers + 2);
        char name[32];

        if (layer < layers)
            snprintf(name, sizeof(name), "blk.%u.t%u", layer, i);
        else
            snprintf(name, sizeof(name), layer == layers ? "token_embd.t%u" : "output.t%u", i);
        if (rand_r(seed) % 8)
            offset = tnd_round_up(offset, 64);
        add(name, (uint32_t)rand_r(seed) % 2, offset, bytes);
        offset += bytes + (rand_r(seed) % 5 ? 0 : 20000);
    }
    model.layer_count = layers;
}

START_TEST(cuts_windows_at_the_ends_of_stages)
{
    add_golden();
    model.layer_count = 2;
    /* As in the order of use, but for the window that had the end of token_embd and the start of layer 0. */
    check_plan(make_by_layer(),
               "0:69632+65536 token_embd.weight[0,64160)@1376\n"
               "0:135168+65536 token_embd.weight[64160,129696)@0\n"
               "0:200704+65536 token_embd.weight[129696,195232)@0\n"
               "0:266240+8192 token_embd.weight[195232,200000)@0\n"
               "0:274432+8192 blk.0.w[0,3000)@1600 blk.0.bias[0,10)@4608\n"
               "0:397312+8192 blk.0.far[0,4096)@2688\n"
               "0:270336+8192 blk.1.w[0,5000)@672\n"
               "1:0+4096 blk.1.v[0,100)@64\n"
               "0:0+65536 output.weight[0,64536)@1000\n"
               "0:65536+8192 output.weight[64536,70000)@0\n");
}
END_TEST

START_TEST(stages_have_all_windows_and_tensors)
{
    unsigned seed = 11;

    for (int round = 0; round < 100; round++) {
        struct tnd_plan plan;
        uint32_t window = 0, tensor = 0;
        uint64_t bytes = 0;

        teardown();
        setup();
        add_random(&seed, 6, 60, 1000);
        plan = make_by_layer();
        ck_assert_uint_eq(plan.stage_count, 8);
        for (uint32_t s = 0; s < plan.stage_count; s++) {
            const struct tnd_stage *stage = &plan.stages[s];

            bytes += stage->bytes;
            ck_assert_uint_eq(stage->window_first, window);
            window += stage->window_count;
            for (uint32_t w = stage->window_first; w < window; w++)
                for (uint32_t p = 0; p < plan.windows[w].piece_count; p++)
                    ck_assert_uint_eq(tnd_plan_stage(&plan, plan.pieces[plan.windows[w].piece_first + p].tensor), s);
            if (!stage->tensor_count)
                continue;
            ck_assert_uint_eq(stage->tensor_first, tensor);
            tensor += stage->tensor_count;
            for (uint32_t t = stage->tensor_first; t < tensor; t++)
                ck_assert_uint_eq(tnd_plan_stage(&plan, plan.tensors[t]), s);
        }
        ck_assert_uint_eq(window, plan.window_count);
        ck_assert_uint_eq(tensor, plan.tensor_count);
        ck_assert_uint_eq(bytes, plan.sizes.tensor_bytes);
        tnd_plan_finish(&plan);
    }
}
END_TEST

START_TEST(reads_little_more_than_asked_by_layer)
{
    struct tnd_plan plan;
    uint64_t offset = 4321;

    for (int layer = 0; layer < 16; layer++)
        for (int i = 0; i < 3; i++) {
            char name[32];
            uint64_t bytes = (1 << 19) + (uint64_t)layer * 7919 + (uint64_t)i * 13;

            snprintf(name, sizeof(name), "blk.%d.t%d", layer, i);
            add(name, 0, offset, bytes);
            offset = tnd_round_up(offset + bytes, 32);
        }
    model.layer_count = 16;
    plan = make_by_layer();
    for (uint32_t s = 1; s + 1 < plan.stage_count; s++) {
        uint64_t read = 0;

        for (uint32_t w = 0; w < plan.stages[s].window_count; w++)
            read += plan.windows[plan.stages[s].window_first + w].bytes;
        ck_assert_uint_ge(plan.stages[s].bytes, 1 << 20);
        ck_assert_uint_le(read * 100, plan.stages[s].bytes * 102);
    }
    tnd_plan_finish(&plan);
}
END_TEST

/* The memory of a stage's tensors: [*ret_start, *ret_end), and within it no two share a byte. */
static void measure_stage(const struct tnd_plan *plan, const struct tnd_layout *layout, uint32_t stage,
                          uint64_t *ret_start, uint64_t *ret_end)
{
    const uint32_t *tensors = plan->tensors + plan->stages[stage].tensor_first;

    *ret_start = UINT64_MAX;
    *ret_end = 0;
    for (uint32_t a = 0; a < plan->stages[stage].tensor_count; a++) {
        uint64_t start = layout->offsets[tensors[a]], end = start + model.tensors[tensors[a]].bytes;

        if (start == end)
            continue;
        for (uint32_t b = 0; b < a; b++)
            ck_assert(start >= layout->offsets[tensors[b]] + model.tensors[tensors[b]].bytes ||
                      layout->offsets[tensors[b]] >= end);
        *ret_start = tnd_min(*ret_start, start);
        *ret_end = tnd_max(*ret_end, end);
    }
}

/* Of a window that reads may land in as a whole: all of its blocks lie in [start, end). */
static void check_homes(const struct tnd_plan *plan, const struct tnd_layout *layout, uint32_t stage, uint64_t start,
                        uint64_t end)
{
    for (uint32_t i = 0; i < plan->stages[stage].window_count; i++) {
        uint32_t w = plan->stages[stage].window_first + i;
        const struct tnd_piece *piece = &plan->pieces[plan->windows[w].piece_first];
        uint64_t home = layout->offsets[piece->tensor] + piece->tensor_offset - piece->window_offset;

        if (layout->mirrored[w]) {
            ck_assert_uint_ge(home, start);
            ck_assert_uint_le(home + plan->windows[w].bytes, end);
        }
    }
}

START_TEST(stages_share_no_block_of_memory)
{
    unsigned seed = 5;

    for (int round = 0; round < 40; round++) {
        struct tnd_plan plan;
        struct tnd_layout layout;
        uint64_t free_from = 0;

        teardown();
        setup();
        add_random(&seed, 4, 40, 20000);
        plan = make_by_layer();
        ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, (enum tnd_switch)(round % 3), 0, &err), 0);
        ck_assert_uint_eq(layout.slot_count, 0);
        ck_assert_uint_eq(plan.sizes.resident_bytes, 0);
        ck_assert_uint_eq(plan.sizes.resident_layers, plan.sizes.layer_count);
        for (uint32_t s = 0; s < plan.stage_count; s++) {
            uint64_t start, end;

            measure_stage(&plan, &layout, s, &start, &end);
            if (end == 0)
                continue;
            start = tnd_round_down(start, TND_PLAN_ALIGNMENT);
            end = tnd_round_up(end, TND_PLAN_ALIGNMENT);
            ck_assert_uint_ge(start, free_from);
            check_homes(&plan, &layout, s, start, end);
            free_from = end;
        }
        ck_assert_uint_le(layout.bytes, free_from);
        tnd_plan_finish(&plan);
    }
}
END_TEST

START_TEST(lays_layers_on_top_of_each_other)
{
    unsigned seed = 3;

    for (int round = 0; round < 40; round++) {
        uint64_t shared_end = 0, largest = 0, first;
        struct tnd_plan plan;
        struct tnd_layout layout;
        uint64_t budget;

        teardown();
        setup();
        add_random(&seed, 12, 100, 20000);
        plan = make_by_layer();
        budget = plan.sizes.layer_bytes_max * 2 + 2 * CHUNK;
        ck_assert_uint_lt(budget, plan.sizes.loaded_bytes - plan.sizes.shared_bytes);
        ck_assert_msg(tnd_layout_init(&layout, &plan, NULL, (enum tnd_switch)(round % 3), budget, &err) == 0, "%s",
                      err.text);
        first = layout.bytes - layout.slot_count * layout.slot_bytes;
        ck_assert_uint_eq(first % TND_PLAN_ALIGNMENT, 0);
        ck_assert_uint_eq(layout.slot_bytes % TND_PLAN_ALIGNMENT, 0);
        for (uint32_t s = 0; s < plan.stage_count; s++) {
            bool shared = s == 0 || s + 1 == plan.stage_count;
            uint64_t start, end;

            measure_stage(&plan, &layout, s, &start, &end);
            if (end == 0)
                continue;
            if (shared) {
                ck_assert_uint_ge(start, s ? tnd_round_up(shared_end, TND_PLAN_ALIGNMENT) : 0);
                ck_assert_uint_le(tnd_round_up(end, TND_PLAN_ALIGNMENT), first);
                shared_end = end;
                check_homes(&plan, &layout, s, 0, first);
            } else {
                ck_assert_uint_ge(start, first);
                ck_assert_uint_lt(start, first + TND_PLAN_ALIGNMENT); /* in slot 0, at its start */
                ck_assert_uint_le(end, first + layout.slot_bytes);
                check_homes(&plan, &layout, s, first, first + layout.slot_bytes);
                largest = tnd_max(largest, tnd_round_up(end, TND_PLAN_ALIGNMENT) - first);
            }
        }
        ck_assert_uint_eq(first, tnd_round_up(shared_end, TND_PLAN_ALIGNMENT));
        ck_assert_uint_eq(layout.slot_bytes, largest);
        ck_assert_uint_eq(plan.sizes.layer_bytes_max, layout.slot_bytes);
        ck_assert_uint_eq(layout.slot_count, budget / layout.slot_bytes);
        ck_assert_uint_eq(plan.sizes.resident_layers, layout.slot_count);
        ck_assert_uint_eq(plan.sizes.resident_bytes, layout.slot_count * layout.slot_bytes);
        ck_assert_uint_le(plan.sizes.resident_bytes, budget);
        tnd_plan_finish(&plan);
    }
}
END_TEST

/* Four layers of 10000, 20000, 30000 and 40000 bytes, shared ones of 5000 and 7000. */
static void add_steps(void)
{
    uint64_t offset = 64;

    add("token_embd.weight", 0, offset, 5000);
    for (int i = 0; i < 4; i++) {
        char name[32];

        snprintf(name, sizeof(name), "blk.%d.w", i);
        offset += 50048;
        add(name, 0, offset, 10000 + 10000 * (uint64_t)i);
    }
    add("output.weight", 0, offset + 50048, 7000);
    model.layer_count = 4;
}

START_TEST(refuses_a_window_with_the_sums)
{
    struct tnd_plan plan;
    struct tnd_layout layout;

    add_steps();
    plan = make_by_layer();
    ck_assert_uint_eq(plan.sizes.layer_bytes_max, 40000);
    ck_assert_uint_eq(plan.sizes.shared_bytes, 12000);
    /* The largest layer takes ten blocks; it and a read of 65536 bytes must fit. That they are more than all layers
     * together does not matter: a smaller window would be one too. */
    ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, TND_AUTO, 99999, &err), -ENOMEM);
    ck_assert_str_eq(err.text, "golden: a window of 99999 bytes is too small: the largest layer needs 40960, and the "
                               "bytes of one read, 65536, are asked for beside it");
    tnd_plan_finish(&plan);

    plan = make_by_layer(); /* as much as all layers take: none has to leave */
    ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, TND_AUTO, 100000, &err), 0);
    ck_assert_uint_eq(layout.slot_count, 0);
    ck_assert_uint_eq(plan.sizes.resident_layers, 4);
    ck_assert_uint_eq(plan.sizes.resident_bytes, 0);
    tnd_plan_finish(&plan);
}
END_TEST

START_TEST(takes_a_window_of_just_enough)
{
    struct tnd_plan plan;
    struct tnd_layout layout;

    add_steps();
    add("blk.4.w", 0, 400000, 40000); /* now all layers are 140000 */
    model.layer_count = 5;
    plan = make_by_layer();
    ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, TND_AUTO, 40960 + CHUNK - 1, &err), -ENOMEM);
    ck_assert_int_eq(tnd_layout_init(&layout, &plan, NULL, TND_AUTO, 40960 + CHUNK, &err), 0);
    ck_assert_uint_eq(layout.slot_bytes, 40960);
    ck_assert_uint_eq(layout.slot_count, 2);
    /* Shared: two blocks of 4096 bytes each. */
    ck_assert_uint_eq(layout.bytes, 4 * 4096 + 2 * 40960);
    ck_assert_uint_eq(layout.offsets[0], 0);
    ck_assert_uint_eq(layout.offsets[5], 2 * 4096);
    for (uint32_t i = 1; i <= 4; i++)
        ck_assert_uint_eq(layout.offsets[i], 4 * 4096);
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
    tcase_add_test(cases, cuts_windows_at_the_ends_of_stages);
    tcase_add_test(cases, stages_have_all_windows_and_tensors);
    tcase_add_test(cases, reads_little_more_than_asked_by_layer);
    tcase_add_test(cases, stages_share_no_block_of_memory);
    tcase_add_test(cases, lays_layers_on_top_of_each_other);
    tcase_add_test(cases, refuses_a_window_with_the_sums);
    tcase_add_test(cases, takes_a_window_of_just_enough);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
