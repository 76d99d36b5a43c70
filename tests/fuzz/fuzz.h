/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_FUZZ_H
#define TND_TEST_FUZZ_H

/* What the targets share: a file in memory of which a parser sees only what it has asked for, and what must hold of
 * whatever comes out. A sanitizer catches a look beyond. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "plan/layout.h"

#define PATH "fuzz"
#define CHUNK_BYTES 256 /* small, so that small tensors are cut too */
#define ALIGNMENT 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void must(bool condition)
{
    if (!condition)
        abort();
}

struct fuzz_file {
    struct tnd_header header;
    const uint8_t *data;
    uint8_t *seen;
};

static inline int fuzz_fetch(struct tnd_header *header, uint64_t need, struct tnd_err *err)
{
    struct fuzz_file *file = (struct fuzz_file *)header;

    (void)err;
    must(need <= header->file_bytes && need > header->have);
    memcpy(file->seen + header->have, file->data + header->have, need - header->have);
    header->have = need;
    return 0;
}

/* A refusal has one of the promised results and a sentence of one line with file and offset. */
static inline void check_refusal(int r, const struct tnd_err *err)
{
    must(r == -EBADMSG || r == -ENOTSUP || r == -EFBIG);
    must(err->result == r && !strncmp(err->text, PATH ": byte ", strlen(PATH ": byte ")));
    must(!strpbrk(err->text, "\n\r\x1B"));
}

static inline void check_value(struct tnd_value value)
{
    struct tnd_value item;

    while (tnd_value_next(&value, &item))
        check_value(item);
}

static inline void check_plan(const struct tnd_model *model, enum tnd_order order, bool by_layer,
                              enum tnd_switch in_place)
{
    struct tnd_plan_options options = {.order = order, .by_layer = by_layer, .chunk_bytes = CHUNK_BYTES,
                                       .alignment = ALIGNMENT};
    struct tnd_layout layout;
    struct tnd_plan plan;
    struct tnd_err err = {0};
    uint64_t bytes = 0;
    int r = tnd_plan_init(&plan, model, &options, &err);

    must(r == 0 || (r == -ENOENT && !model->tensor_count));
    if (r < 0)
        return;
    for (uint32_t i = 0; i < plan.piece_count; i++)
        bytes += plan.pieces[i].bytes;
    must(bytes == plan.sizes.tensor_bytes && bytes == model->bytes);
    must(tnd_layout_init(&layout, &plan, NULL, in_place, 0, &err) == 0);
    for (uint32_t i = 0; i < model->tensor_count; i++)
        must(layout.offsets[i] + model->tensors[i].bytes <= layout.bytes);
    tnd_plan_finish(&plan);
}

static inline void check_model(const struct tnd_model *model, uint64_t file_bytes)
{
    must(model->format != NULL);
    for (uint32_t i = 0; i < model->tensor_count; i++)
        must(!model->tensors[i].bytes || model->tensors[i].offset + model->tensors[i].bytes <= file_bytes);
    for (uint32_t i = 0; i < model->meta_count; i++)
        check_value(model->metas[i].value);
    check_plan(model, TND_ORDER_USE, false, TND_AUTO);
    check_plan(model, TND_ORDER_USE, true, TND_AUTO);
    check_plan(model, TND_ORDER_FILE, false, TND_ON);
}

static inline void fuzz_model(const struct tnd_format *format, const uint8_t *data, size_t size)
{
    struct tnd_model_file of = {.file = {.path = PATH, .bytes = size}, .fd = -1};
    struct tnd_model model = {.files = &of, .file_count = 1};
    struct fuzz_file file = {.data = data, .seen = malloc(size + 1)};
    struct tnd_err err = {0};
    int r;

    model.arena.allocator = tnd_allocator_or_default(NULL);
    file.header = (struct tnd_header){
        .data = file.seen, .file_bytes = size, .path = PATH, .fetch = fuzz_fetch};
    r = format->parse(&file.header, &model, 0, &err);
    if (r < 0)
        check_refusal(r, &err);
    else
        check_model(&model, size);
    tnd_arena_finish(&model.arena);
    free(file.seen);
}

#endif
