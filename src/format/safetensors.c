/* SPDX-License-Identifier: Apache-2.0 */

/* safetensors: u64 N, N bytes of JSON that begin with '{' and may end in spaces, then the tensors' bytes without holes
 * to the end of the file. The JSON is one object: a name → {"dtype", "shape", "data_offsets": [first, end)} counted
 * from behind the JSON, and perhaps "__metadata__" → an object of strings. Names may be of any length.
 *
 * What the reference reader takes is taken, keys of a tensor that nobody knows among it; what it forgives against its
 * own description (a space before the brace, a name twice) is not. */

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "format/json.h"
#include "model/dtype.h"

#define HEADER_JSON_BYTES_MAX 100000000 /* the reference reader's limit */
#define DIMS_MAX 1024
#define ENTRY_BYTES_MIN 47 /* "":{"dtype":"","shape":[],"data_offsets":[0,0]}, */

enum field { DTYPE = 1, SHAPE = 2, DATA_OFFSETS = 4, ALL_FIELDS = 7 };

struct parser {
    struct tnd_header *header;
    struct tnd_model *model;
    struct tnd_model *metas; /* where the metadata go: the model, for further shards one of their own */
    struct tnd_json json;
    uint32_t file_index;
    uint64_t data_offset; /* of the byte behind the JSON */
    uint64_t shape[DIMS_MAX]; /* of the tensor being read */
    uint64_t span[2];     /* its data_offsets */
};

static int parse_dtype(struct parser *parser, struct tnd_tensor *tensor, struct tnd_err *err)
{
    struct tnd_json_token token;
    int r = tnd_json_expect(&parser->json, TND_JSON_STRING, &token, err);

    if (r < 0)
        return r;
    tensor->dtype = tnd_dtype_from_safetensors(token.text, token.bytes);
    return tensor->dtype ? 0 : tnd_json_fail(&parser->json, &token, "the name of a type, as \"F16\"", err);
}

/* An array of at most max numbers; ret_count says of how many. */
static int parse_numbers(struct parser *parser, uint64_t *numbers, uint32_t max, uint32_t *ret_count,
                         struct tnd_err *err)
{
    struct tnd_json_token token;
    uint32_t count = 0;
    int r = tnd_json_expect(&parser->json, TND_JSON_ARRAY, &token, err);

    if (r < 0)
        return r;
    for (;; count++) {
        uint64_t number;

        r = tnd_json_next(&parser->json, &token, err);
        if (r < 0)
            return r;
        if (token.type == TND_JSON_ARRAY_END)
            break;
        if (!tnd_json_u64(&token, &number))
            return tnd_json_fail(&parser->json, &token, "a whole number below 2^64", err);
        if (count == max)
            return tnd_fail_at(err, max == 2 ? -EBADMSG : -EFBIG, parser->header->path, token.at,
                               "one more number, expected at most %u", max);
        numbers[count] = number;
    }
    *ret_count = count;
    return 0;
}

static int parse_offsets(struct parser *parser, struct tnd_err *err)
{
    uint64_t at = parser->json.base + parser->json.at;
    uint32_t count = 0;
    int r = parse_numbers(parser, parser->span, 2, &count, err);

    if (r < 0 || count == 2)
        return r;
    return tnd_fail_at(err, -EBADMSG, parser->header->path, at, "data_offsets of %u numbers, expected 2", count);
}

static enum field field_of(const struct tnd_json_token *key)
{
    return tnd_json_is(key, "dtype")          ? DTYPE
           : tnd_json_is(key, "shape")        ? SHAPE
           : tnd_json_is(key, "data_offsets") ? DATA_OFFSETS
                                              : 0;
}

static int parse_field(struct parser *parser, enum field field, struct tnd_tensor *tensor, struct tnd_err *err)
{
    struct tnd_json_token token;
    int r;

    switch (field) {
    case DTYPE:
        return parse_dtype(parser, tensor, err);
    case SHAPE:
        return parse_numbers(parser, parser->shape, DIMS_MAX, &tensor->dims, err);
    case DATA_OFFSETS:
        return parse_offsets(parser, err);
    default:
        r = tnd_json_next(&parser->json, &token, err);
        return r < 0 ? r : tnd_json_skip(&parser->json, &token, err);
    }
}

/* The object behind a tensor's name. */
static int parse_fields(struct parser *parser, struct tnd_tensor *tensor, struct tnd_err *err)
{
    static const char *const missing[ALL_FIELDS] = {"dtype", "shape", "dtype", "data_offsets",
                                                    "dtype", "shape", "dtype"};
    struct tnd_json_token token;
    struct tnd_json_keys keys;
    unsigned seen = 0;
    int r = tnd_json_expect(&parser->json, TND_JSON_OBJECT, &token, err);

    keys.count = 0;
    while (r == 0) {
        enum field field;

        r = tnd_json_next(&parser->json, &token, err);
        if (r < 0 || token.type == TND_JSON_OBJECT_END)
            break;
        field = field_of(&token);
        seen |= field;
        r = tnd_json_add_key(&parser->json, &keys, &token, err);
        if (r == 0)
            r = parse_field(parser, field, tensor, err);
    }
    if (r == 0 && seen != ALL_FIELDS)
        return tnd_fail_at(err, -EBADMSG, parser->header->path, token.at,
                           "the tensor's entry ends here, expected its %s before", missing[seen]);
    return r;
}

/* What the fields say must agree with each other and with the file. */
static int place_tensor(struct parser *parser, struct tnd_tensor *tensor, struct tnd_err *err)
{
    uint64_t room = parser->header->file_bytes - parser->data_offset;
    int r;

    tensor->shape = parser->shape;
    r = tnd_tensor_measure(tensor, false, err);
    if (r < 0)
        return r;
    if (parser->span[0] > parser->span[1] || parser->span[1] > room)
        return tnd_fail(err, -EBADMSG, "data_offsets [%llu, %llu], expected them in order and at most %llu",
                        (unsigned long long)parser->span[0], (unsigned long long)parser->span[1],
                        (unsigned long long)room);
    if (parser->span[1] - parser->span[0] != tensor->bytes)
        return tnd_fail(err, -EBADMSG, "data_offsets [%llu, %llu] give it %llu bytes, expected %llu by shape and type",
                        (unsigned long long)parser->span[0], (unsigned long long)parser->span[1],
                        (unsigned long long)(parser->span[1] - parser->span[0]), (unsigned long long)tensor->bytes);
    tensor->offset = parser->data_offset + parser->span[0];
    return 0;
}

static int parse_tensor(struct parser *parser, const struct tnd_json_token *key, struct tnd_err *err)
{
    struct tnd_tensor tensor = {.name_bytes = key->bytes, .file = parser->file_index};
    const char *path = parser->header->path;
    uint64_t *shape;
    int r = parse_fields(parser, &tensor, err);

    if (r < 0)
        return r;
    r = place_tensor(parser, &tensor, err);
    if (r < 0)
        return tnd_fail_in(err, r, path, key->at, "tensor", key->text, key->bytes);
    tensor.name = tnd_json_string(&parser->json, key);
    shape = tnd_arena_alloc(&parser->model->arena, tensor.dims, sizeof(*shape));
    if (!tensor.name || !shape)
        return tnd_fail_at(err, -ENOMEM, path, key->at, "not enough memory for a tensor's name and shape");
    if (tensor.dims)
        memcpy(shape, parser->shape, tensor.dims * sizeof(*shape));
    tensor.shape = shape;
    r = tnd_model_add_tensor(parser->model, &tensor, err);
    return r < 0 ? tnd_fail_in(err, r, path, key->at, "tensor", key->text, key->bytes) : 0;
}

/* The object behind "__metadata__". The reference reader takes null for none at all. */
static int parse_metadata(struct parser *parser, struct tnd_err *err)
{
    struct tnd_json_token key, value;
    int r = tnd_json_next(&parser->json, &key, err);

    if (r < 0 || key.type == TND_JSON_NULL)
        return r;
    if (key.type != TND_JSON_OBJECT)
        return tnd_json_fail(&parser->json, &key, "an object of strings", err);
    for (;;) {
        struct tnd_meta meta = {.value.type = TND_VALUE_STRING};

        r = tnd_json_next(&parser->json, &key, err);
        if (r < 0 || key.type == TND_JSON_OBJECT_END)
            return r;
        r = tnd_json_expect(&parser->json, TND_JSON_STRING, &value, err);
        if (r < 0)
            return r;
        meta.key = tnd_json_string(&parser->json, &key);
        if (!meta.key)
            return tnd_fail_at(err, -ENOMEM, parser->header->path, key.at, "not enough memory for a key");
        meta.key_bytes = key.bytes;
        meta.value.as.string.data = value.text;
        meta.value.as.string.bytes = value.bytes;
        r = tnd_model_add_meta(parser->metas, &meta, err);
        if (r < 0)
            return tnd_fail_in(err, r, parser->header->path, key.at, "key", key.text, key.bytes);
    }
}

static int parse_entries(struct parser *parser, struct tnd_err *err)
{
    struct tnd_json_token token;
    bool metadata = false;
    int r = tnd_json_expect(&parser->json, TND_JSON_OBJECT, &token, err);

    while (r == 0) {
        r = tnd_json_next(&parser->json, &token, err);
        if (r < 0)
            return r;
        if (token.type == TND_JSON_OBJECT_END)
            return tnd_json_expect(&parser->json, TND_JSON_END, &token, err);
        if (!tnd_json_is(&token, "__metadata__")) {
            r = parse_tensor(parser, &token, err);
            continue;
        }
        if (metadata)
            return tnd_fail_at(err, -EBADMSG, parser->header->path, token.at,
                               "key '__metadata__' is there twice, expected once");
        metadata = true;
        r = parse_metadata(parser, err);
    }
    return r;
}

/* At most so many tensors: each has a brace of its own and a shortest form. */
static uint64_t tensors_bound(const uint8_t *json, uint64_t bytes)
{
    uint64_t braces = 0;

    for (uint64_t i = 1; i < bytes; i++)
        braces += json[i] == '{';
    return tnd_min(tnd_min(braces, bytes / ENTRY_BYTES_MIN), TND_TENSORS_MAX);
}

static int read_json(struct tnd_header *header, uint64_t *ret_bytes, struct tnd_err *err)
{
    uint64_t bytes;
    int r = tnd_header_need(header, 0, 8, "the length of the JSON header", err);

    if (r < 0)
        return r;
    bytes = tnd_le64(header->data);
    if (bytes > header->file_bytes - 8)
        return tnd_fail_at(err, -EBADMSG, header->path, 0,
                           "a JSON header of %llu bytes, expected at most the %llu that the file has behind byte 8",
                           (unsigned long long)bytes, (unsigned long long)header->file_bytes - 8);
    if (bytes > HEADER_JSON_BYTES_MAX)
        return tnd_fail_at(err, -EFBIG, header->path, 0, "a JSON header of %llu bytes, expected at most %u",
                           (unsigned long long)bytes, HEADER_JSON_BYTES_MAX);
    if (bytes < 2)
        return tnd_fail_at(err, -EBADMSG, header->path, 0, "a JSON header of %llu bytes, expected at least 2",
                           (unsigned long long)bytes);
    r = tnd_header_need(header, 8, 1, "the JSON header", err);
    if (r == 0 && header->data[8] != '{') /* before the rest of it is read */
        return tnd_fail_at(err, -EBADMSG, header->path, 8, "expected '{', found byte 0x%02x", header->data[8]);
    *ret_bytes = bytes;
    return r < 0 ? r : tnd_header_need(header, 8, bytes, "the JSON header", err);
}

static int parse(struct tnd_header *header, struct tnd_model *model, uint32_t file_index, struct tnd_err *err)
{
    struct tnd_model apart = {.arena.allocator = model->arena.allocator};
    struct parser parser = {.header = header, .model = model, .metas = header->part > 1 ? &apart : model,
                            .file_index = file_index};
    uint64_t bytes = 0;
    int r = read_json(header, &bytes, err);

    if (r < 0)
        return r;
    parser.data_offset = 8 + bytes;
    r = tnd_model_reserve(model, tnd_min(tensors_bound(header->data + 8, bytes), TND_TENSORS_MAX - model->tensor_count),
                          0, err);
    if (r < 0)
        return tnd_fail_in(err, r, header->path, 8, NULL, NULL, 0);
    tnd_json_init(&parser.json, header->data + 8, bytes, 8, header->path, &model->arena);
    r = parse_entries(&parser, err);
    tnd_arena_finish(&apart.arena);
    if (r < 0)
        return r;
    r = tnd_model_check_tiling(model, file_index, parser.data_offset, err);
    if (r < 0)
        return tnd_fail_file(err, r, header->path);
    model->format = tnd_format_safetensors.name;
    return 0;
}

/* The name, or what the header looks like under another name. */
static bool probe(const struct tnd_header *header)
{
    if (tnd_name_ends(header->path, ".safetensors"))
        return true;
    return header->have > 8 && header->data[8] == '{' && tnd_le64(header->data) <= header->file_bytes - 8;
}

const struct tnd_format tnd_format_safetensors = {.name = "safetensors", .probe = probe, .parse = parse};
