/* SPDX-License-Identifier: Apache-2.0 */

/* GGUF's metadata: count times a key (u64 length, bytes), a u32 value type and the value, encoded as model/value.h
 * says. Values stay where they are in the header; what is checked here, tnd_value_next() relies on. */

#include <errno.h>
#include <string.h>

#include "format/gguf.h"
#include "model/value.h"

#define STRING_BYTES_MIN 8 /* its length */
#define ARRAY_BYTES_MIN 12 /* element type and count */
#define ALIGNMENT_KEY "general.alignment"

static int check_type(const struct tnd_gguf *gguf, const char *what, uint32_t type, struct tnd_err *err)
{
    if (type < TND_VALUE_TYPE_COUNT)
        return 0;
    return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->at - 4, "%s type %u, expected at most %d", what, type,
                       TND_VALUE_TYPE_COUNT - 1);
}

/* Truth is one byte, 0 or 1. */
static int check_bools(const struct tnd_gguf *gguf, uint64_t count, struct tnd_err *err)
{
    const uint8_t *bytes = gguf->header->data + gguf->at;

    for (uint64_t i = 0; i < count; i++)
        if (bytes[i] > 1)
            return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->at + i, "a BOOL of %u, expected 0 or 1",
                               bytes[i]);
    return 0;
}

static int skip_scalars(struct tnd_gguf *gguf, enum tnd_value_type type, uint64_t count, struct tnd_err *err)
{
    uint64_t bytes = count * tnd_value_scalar_bytes(type); /* count was checked against the file */
    int r = tnd_gguf_need(gguf, bytes, "the value", err);

    if (r == 0 && type == TND_VALUE_BOOL)
        r = check_bools(gguf, count, err);
    if (r == 0)
        gguf->at += bytes;
    return r;
}

static int skip_string(struct tnd_gguf *gguf, struct tnd_err *err)
{
    uint64_t bytes;
    int r = tnd_gguf_u64(gguf, "a string's length", &bytes, err);

    if (r == 0)
        r = tnd_gguf_need(gguf, bytes, "a string", err);
    if (r == 0)
        gguf->at += bytes;
    return r;
}

/* Type and count of the array, then its elements; depth says how many arrays it stands in. */
static int skip_array(struct tnd_gguf *gguf, uint32_t depth, struct tnd_err *err)
{
    uint32_t type, element_bytes;
    uint64_t count;
    int r;

    if (depth == TND_GGUF_ARRAY_DEPTH_MAX)
        return tnd_fail_at(err, -EFBIG, gguf->header->path, gguf->at, "arrays are nested deeper than %u",
                           TND_GGUF_ARRAY_DEPTH_MAX);
    r = tnd_gguf_u32(gguf, "an array's element type", &type, err);
    if (r == 0)
        r = check_type(gguf, "an array's element", type, err);
    if (r < 0)
        return r;
    element_bytes = tnd_value_scalar_bytes((enum tnd_value_type)type);
    r = tnd_gguf_count(gguf, "array elements",
                       element_bytes ? element_bytes : type == TND_VALUE_STRING ? STRING_BYTES_MIN : ARRAY_BYTES_MIN,
                       &count, err);
    if (r == 0 && element_bytes)
        return skip_scalars(gguf, (enum tnd_value_type)type, count, err);
    for (uint64_t i = 0; r == 0 && i < count; i++)
        r = type == TND_VALUE_STRING ? skip_string(gguf, err) : skip_array(gguf, depth + 1, err);
    return r;
}

/* Checks the value at hand, all of it, and describes it. */
static int read_value(struct tnd_gguf *gguf, enum tnd_value_type type, struct tnd_value *ret_value,
                      struct tnd_err *err)
{
    uint64_t first = gguf->at;
    const uint8_t *bytes;
    int r = type == TND_VALUE_STRING  ? skip_string(gguf, err)
            : type == TND_VALUE_ARRAY ? skip_array(gguf, 0, err)
                                      : skip_scalars(gguf, type, 1, err);
    if (r < 0)
        return r;
    bytes = gguf->header->data + first;
    *ret_value = (struct tnd_value){.type = type};
    if (type == TND_VALUE_STRING) {
        ret_value->as.string.data = (const char *)bytes + 8;
        ret_value->as.string.bytes = tnd_le64(bytes);
    } else if (type == TND_VALUE_ARRAY) {
        ret_value->as.array.type = (enum tnd_value_type)tnd_le32(bytes);
        ret_value->as.array.count = tnd_le64(bytes + 4);
        ret_value->as.array.data = bytes + 12;
    } else {
        tnd_value_scalar(type, bytes, ret_value);
    }
    return 0;
}

/* Tensor offsets are multiples of it, so it has to be known and sane before the first of them. */
static int take_alignment(struct tnd_gguf *gguf, uint64_t at, const struct tnd_value *value, struct tnd_err *err)
{
    if (value->type != TND_VALUE_U32)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, at,
                           "general.alignment of value type %d, expected %d, U32", (int)value->type, TND_VALUE_U32);
    if (!value->as.u || (value->as.u % 8 && !tnd_is_power_of_two(value->as.u)))
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, at,
                           "general.alignment of %llu, expected a power of two or a multiple of 8, not 0",
                           (unsigned long long)value->as.u);
    gguf->alignment = (uint32_t)value->as.u;
    return 0;
}

static int parse_meta(struct tnd_gguf *gguf, struct tnd_err *err)
{
    struct tnd_meta meta = {0};
    uint64_t first = gguf->at, value_at;
    const char *key;
    uint32_t type;
    int r = tnd_gguf_text(gguf, "a key", TND_GGUF_KEY_BYTES_MAX, &key, &meta.key_bytes, err);

    if (r < 0)
        return r;
    if (!meta.key_bytes)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, first, "an empty key, expected at least one byte");
    r = tnd_gguf_u32(gguf, "a value's type", &type, err);
    if (r == 0)
        r = check_type(gguf, "value", type, err);
    if (r < 0)
        return r;
    value_at = gguf->at;
    r = read_value(gguf, (enum tnd_value_type)type, &meta.value, err);
    if (r < 0)
        return r;
    meta.key = tnd_arena_string(&gguf->metas->arena, key, meta.key_bytes);
    if (!meta.key)
        return tnd_fail_at(err, -ENOMEM, gguf->header->path, first, "not enough memory for a key");
    r = tnd_model_add_meta(gguf->metas, &meta, err);
    if (r < 0)
        return tnd_fail_in(err, r, gguf->header->path, first, "key", meta.key, meta.key_bytes);
    if (!strncmp(meta.key, "split.", 6))
        gguf->split_at = value_at;
    if (meta.key_bytes != strlen(ALIGNMENT_KEY) || memcmp(meta.key, ALIGNMENT_KEY, meta.key_bytes) != 0)
        return 0; /* keys may hold a NUL */
    return take_alignment(gguf, value_at, &meta.value, err);
}

int tnd_gguf_metas(struct tnd_gguf *gguf, uint64_t count, struct tnd_err *err)
{
    int r = tnd_model_reserve(gguf->metas, 0, count, err);

    if (r < 0)
        return tnd_fail_in(err, r, gguf->header->path, 16, NULL, NULL, 0);
    for (uint64_t i = 0; r == 0 && i < count; i++)
        r = parse_meta(gguf, err);
    return r;
}
