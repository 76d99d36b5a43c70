/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "model/model.h"

#define SHOWN_BYTES_MAX 120 /* of a name, in a sentence about two tensors */

struct span {
    uint64_t first, end;
    uint32_t tensor;
};

static int span_compare(const void *a, const void *b)
{
    const struct span *left = a, *right = b;

    if (left->first != right->first)
        return left->first < right->first ? -1 : 1;
    if (left->end != right->end)
        return left->end < right->end ? -1 : 1;
    return left->tensor < right->tensor ? -1 : left->tensor > right->tensor;
}

/* The spans of a file's tensors by offset; most files list them so and need no sorting. */
static int spans_sorted(const struct tnd_model *model, uint32_t file_index, struct span **ret_spans,
                        uint32_t *ret_count, struct tnd_err *err)
{
    struct span *spans = tnd_zalloc(&model->arena.allocator, model->tensor_count, sizeof(*spans));
    uint32_t count = 0;
    bool sorted = true;

    if (!spans)
        return tnd_fail(err, -ENOMEM, "not enough memory to compare %u tensors", model->tensor_count);
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const struct tnd_tensor *tensor = &model->tensors[i];

        if (tensor->file != file_index)
            continue;
        spans[count] = (struct span){tensor->offset, 0, i};
        if (tnd_add_overflows(tensor->offset, tensor->bytes, &spans[count].end))
            spans[count].end = UINT64_MAX; /* beyond any file, which the caller finds */
        sorted = sorted && (!count || span_compare(&spans[count - 1], &spans[count]) < 0);
        count++;
    }
    if (!sorted)
        qsort(spans, count, sizeof(*spans), span_compare);
    *ret_spans = spans;
    *ret_count = count;
    return 0;
}

static int shown_bytes(const struct tnd_tensor *tensor)
{
    return (int)tnd_min(tensor->name_bytes, SHOWN_BYTES_MAX);
}

static int fail_beyond(const struct tnd_model *model, const struct span *span, uint64_t file_bytes,
                       struct tnd_err *err)
{
    const struct tnd_tensor *tensor = &model->tensors[span->tensor];

    return tnd_fail(err, -EBADMSG,
                    "byte %llu: tensor '%.*s' takes %llu bytes from here, but the file ends at byte %llu",
                    (unsigned long long)span->first, shown_bytes(tensor), tensor->name,
                    (unsigned long long)tensor->bytes, (unsigned long long)file_bytes);
}

/* The tensor is found where another's bytes are, or after a hole. */
static int fail_misplaced(const struct tnd_model *model, const struct span *span, const struct span *before,
                          uint64_t expected, struct tnd_err *err)
{
    const struct tnd_tensor *tensor = &model->tensors[span->tensor];
    const struct tnd_tensor *other = before ? &model->tensors[before->tensor] : NULL;

    return tnd_fail(err, -EBADMSG, "byte %llu: tensor '%.*s' starts here, expected %s byte %llu, where %s%.*s%s",
                    (unsigned long long)span->first, shown_bytes(tensor), tensor->name,
                    span->first < expected ? "not before" : "at", (unsigned long long)expected,
                    other ? "tensor '" : "the data starts", other ? shown_bytes(other) : 0, other ? other->name : "",
                    other ? "' ends" : "");
}

int tnd_model_check_ranges(const struct tnd_model *model, uint32_t file_index, struct tnd_err *err)
{
    uint64_t file_bytes = model->files[file_index].file.bytes;
    const struct span *before = NULL;
    struct span *spans;
    uint32_t count;
    int r = spans_sorted(model, file_index, &spans, &count, err);

    if (r < 0)
        return r;
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        if (!model->tensors[spans[i].tensor].bytes)
            continue;
        if (spans[i].end > file_bytes)
            r = fail_beyond(model, &spans[i], file_bytes, err);
        else if (before && spans[i].first < before->end)
            r = fail_misplaced(model, &spans[i], before, before->end, err);
        before = &spans[i];
    }
    tnd_free(&model->arena.allocator, spans);
    return r;
}

int tnd_model_check_tiling(const struct tnd_model *model, uint32_t file_index, uint64_t data_offset,
                           struct tnd_err *err)
{
    uint64_t file_bytes = model->files[file_index].file.bytes, expected = data_offset;
    struct span *spans;
    uint32_t count;
    int r = spans_sorted(model, file_index, &spans, &count, err);

    if (r < 0)
        return r;
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        if (spans[i].first != expected)
            r = fail_misplaced(model, &spans[i], i ? &spans[i - 1] : NULL, expected, err);
        else if (spans[i].end > file_bytes)
            r = fail_beyond(model, &spans[i], file_bytes, err);
        expected = spans[i].end;
    }
    if (r == 0 && expected != file_bytes)
        r = tnd_fail(err, -EBADMSG,
                     "byte %llu: the tensors end here, expected the file to end too, but it has %llu bytes",
                     (unsigned long long)expected, (unsigned long long)file_bytes);
    tnd_free(&model->arena.allocator, spans);
    return r;
}
