/* SPDX-License-Identifier: Apache-2.0 */
#include "model/value.h"

#include <string.h>

#include "base/bytes.h"

static const uint8_t scalar_bytes[TND_VALUE_TYPE_COUNT] = {
    [TND_VALUE_U8] = 1,  [TND_VALUE_I8] = 1,  [TND_VALUE_U16] = 2, [TND_VALUE_I16] = 2,
    [TND_VALUE_U32] = 4, [TND_VALUE_I32] = 4, [TND_VALUE_F32] = 4, [TND_VALUE_BOOL] = 1,
    [TND_VALUE_U64] = 8, [TND_VALUE_I64] = 8, [TND_VALUE_F64] = 8,
};

uint32_t tnd_value_scalar_bytes(enum tnd_value_type type)
{
    return type < TND_VALUE_TYPE_COUNT ? scalar_bytes[type] : 0;
}

void tnd_value_scalar(enum tnd_value_type type, const uint8_t *bytes, struct tnd_value *ret_value)
{
    float single;

    *ret_value = (struct tnd_value){.type = type};
    switch (type) {
    case TND_VALUE_U8: ret_value->as.u = *bytes; break;
    case TND_VALUE_I8: ret_value->as.i = (int8_t)*bytes; break;
    case TND_VALUE_U16: ret_value->as.u = tnd_le16(bytes); break;
    case TND_VALUE_I16: ret_value->as.i = (int16_t)tnd_le16(bytes); break;
    case TND_VALUE_U32: ret_value->as.u = tnd_le32(bytes); break;
    case TND_VALUE_I32: ret_value->as.i = (int32_t)tnd_le32(bytes); break;
    case TND_VALUE_U64: ret_value->as.u = tnd_le64(bytes); break;
    case TND_VALUE_I64: ret_value->as.i = (int64_t)tnd_le64(bytes); break;
    case TND_VALUE_BOOL: ret_value->as.b = *bytes != 0; break;
    case TND_VALUE_F32:
        memcpy(&single, bytes, sizeof(single));
        ret_value->as.f = single;
        break;
    case TND_VALUE_F64: memcpy(&ret_value->as.f, bytes, sizeof(ret_value->as.f)); break;
    case TND_VALUE_STRING: case TND_VALUE_ARRAY: case TND_VALUE_TYPE_COUNT: break;
    }
}

/* Reads one value and returns the byte behind it. Lengths were checked when the file was opened, depth too. */
static const uint8_t *take(enum tnd_value_type type, const uint8_t *at, struct tnd_value *ret_value)
{
    uint32_t element_bytes = tnd_value_scalar_bytes(type);

    if (element_bytes) {
        tnd_value_scalar(type, at, ret_value);
        return at + element_bytes;
    }
    *ret_value = (struct tnd_value){.type = type};
    if (type == TND_VALUE_STRING) {
        ret_value->as.string.bytes = tnd_le64(at);
        ret_value->as.string.data = (const char *)at + 8;
        return at + 8 + ret_value->as.string.bytes;
    }
    ret_value->as.array.type = (enum tnd_value_type)tnd_le32(at);
    ret_value->as.array.count = tnd_le64(at + 4);
    ret_value->as.array.data = at + 12;
    element_bytes = tnd_value_scalar_bytes(ret_value->as.array.type);
    if (element_bytes)
        return at + 12 + ret_value->as.array.count * element_bytes;
    at += 12;
    for (uint64_t i = 0; i < ret_value->as.array.count; i++) {
        struct tnd_value skipped;

        at = take(ret_value->as.array.type, at, &skipped);
    }
    return at;
}

int tnd_value_next(struct tnd_value *array, struct tnd_value *ret_item)
{
    struct tnd_value rest = *array, item;

    if (array->type != TND_VALUE_ARRAY || !array->as.array.count)
        return 0;
    rest.as.array.count--;
    rest.as.array.data = take(array->as.array.type, array->as.array.data, &item);
    *array = rest;
    *ret_item = item;
    return 1;
}
