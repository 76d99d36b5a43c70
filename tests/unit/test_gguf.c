/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: GGUF files are read as their description says, and a bad one is refused at the byte that is bad.
 * Method: files built in memory field by field. Good ones are looked at through the public functions and cut at each
 * byte; bad ones differ from a good one in one field, and the sentence must name that field's offset. */

#include "memory_file.h"

#define FORMAT (&tnd_format_gguf)
#define PATH "memory.gguf"

static void put_head(struct memory_file *file, uint32_t version, uint64_t tensors, uint64_t metas)
{
    put_words(file, "GGUF");
    put_u32(file, version);
    put_u64(file, tensors);
    put_u64(file, metas);
}

static void put_meta_u32(struct memory_file *file, const char *key, uint32_t value)
{
    put_text(file, key);
    put_u32(file, TND_VALUE_U32);
    put_u32(file, value);
}

static void put_array(struct memory_file *file, uint32_t type, uint64_t count)
{
    put_u32(file, type);
    put_u64(file, count);
}

/* ne as the file has it: innermost first. */
static void put_tensor(struct memory_file *file, const char *name, uint32_t dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    put_text(file, name);
    put_u32(file, dims);
    for (uint32_t i = 0; i < dims; i++)
        put_u64(file, ne[i]);
    put_u32(file, type);
    put_u64(file, offset);
}

static void pad_to(struct memory_file *file, size_t alignment)
{
    while (file->bytes % alignment)
        put_u8(file, 0);
}

/* Each value type once, two layers, three types, data out of order with a hole; bytes behind the data. */
static struct memory_file good_file(size_t *ret_needed)
{
    struct memory_file file = {0};
    const double f64 = 0.1;
    const float f32 = -2.5f;

    put_head(&file, 3, 3, 14);
    put_text(&file, "u8"), put_u32(&file, TND_VALUE_U8), put_u8(&file, 200);
    put_text(&file, "i8"), put_u32(&file, TND_VALUE_I8), put_u8(&file, 200);
    put_text(&file, "u16"), put_u32(&file, TND_VALUE_U16), put(&file, "\xFF\xFE", 2);
    put_text(&file, "i16"), put_u32(&file, TND_VALUE_I16), put(&file, "\xFF\xFE", 2);
    put_meta_u32(&file, "u32", UINT32_MAX);
    put_text(&file, "i32"), put_u32(&file, TND_VALUE_I32), put_u32(&file, UINT32_MAX);
    put_text(&file, "f32"), put_u32(&file, TND_VALUE_F32), put(&file, &f32, 4);
    put_text(&file, "bool"), put_u32(&file, TND_VALUE_BOOL), put_u8(&file, 1);
    put_text(&file, "string"), put_u32(&file, TND_VALUE_STRING), put_u64(&file, 3), put(&file, "\xFF\0\x01", 3);
    put_text(&file, "u64"), put_u32(&file, TND_VALUE_U64), put_u64(&file, UINT64_MAX);
    put_text(&file, "i64"), put_u32(&file, TND_VALUE_I64), put_u64(&file, UINT64_MAX);
    put_text(&file, "f64"), put_u32(&file, TND_VALUE_F64), put(&file, &f64, 8);
    put_text(&file, "array"), put_u32(&file, TND_VALUE_ARRAY), put_array(&file, TND_VALUE_ARRAY, 3);
    put_array(&file, TND_VALUE_STRING, 2), put_text(&file, "one"), put_text(&file, "");
    put_array(&file, TND_VALUE_U16, 1), put(&file, "\x34\x12", 2);
    put_array(&file, TND_VALUE_BOOL, 0);
    put_meta_u32(&file, "general.alignment", 64);
    put_tensor(&file, "blk.0.w", 2, (const uint64_t[]){32, 3}, 2, 192);
    put_tensor(&file, "blk.1.w", 1, (const uint64_t[]){8}, 30, 0);
    put_tensor(&file, "output.weight", 0, NULL, 0, 64);
    pad_to(&file, 64);
    put_zeros(&file, 192 + 54);
    *ret_needed = file.bytes;
    put_words(&file, "something behind the data");
    return file;
}

START_TEST(every_value_type)
{
    size_t needed;
    struct memory_file file = good_file(&needed);
    struct parsed parsed;
    const struct tnd_model *model = &parsed.model;
    struct tnd_value array, inner, item;

    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
    ck_assert_str_eq(tnd_model_format(model), "GGUF v3");
    ck_assert_uint_eq(tnd_model_meta_count(model), 14);
    ck_assert_uint_eq(tnd_model_meta_find(model, "u8")->value.as.u, 200);
    ck_assert_int_eq(tnd_model_meta_find(model, "i8")->value.as.i, -56);
    ck_assert_uint_eq(tnd_model_meta_find(model, "u16")->value.as.u, 0xFEFF);
    ck_assert_int_eq(tnd_model_meta_find(model, "i16")->value.as.i, -257);
    ck_assert_uint_eq(tnd_model_meta_find(model, "u32")->value.as.u, UINT32_MAX);
    ck_assert_int_eq(tnd_model_meta_find(model, "i32")->value.as.i, -1);
    ck_assert(tnd_model_meta_find(model, "f32")->value.as.f == -2.5);
    ck_assert(tnd_model_meta_find(model, "bool")->value.as.b);
    ck_assert_uint_eq(tnd_model_meta_find(model, "string")->value.as.string.bytes, 3);
    ck_assert_mem_eq(tnd_model_meta_find(model, "string")->value.as.string.data, "\xFF\0\x01", 3);
    ck_assert_uint_eq(tnd_model_meta_find(model, "u64")->value.as.u, UINT64_MAX);
    ck_assert_int_eq(tnd_model_meta_find(model, "i64")->value.as.i, -1);
    ck_assert(tnd_model_meta_find(model, "f64")->value.as.f == 0.1);

    array = tnd_model_meta_find(model, "array")->value;
    ck_assert_uint_eq(array.as.array.count, 3);
    ck_assert_int_eq(tnd_value_next(&array, &inner), 1);
    ck_assert_int_eq(inner.as.array.type, TND_VALUE_STRING);
    ck_assert_int_eq(tnd_value_next(&inner, &item), 1);
    ck_assert_mem_eq(item.as.string.data, "one", 3);
    ck_assert_int_eq(tnd_value_next(&inner, &item), 1);
    ck_assert_uint_eq(item.as.string.bytes, 0);
    ck_assert_int_eq(tnd_value_next(&inner, &item), 0);
    ck_assert_int_eq(tnd_value_next(&array, &inner), 1);
    ck_assert_int_eq(tnd_value_next(&inner, &item), 1);
    ck_assert_uint_eq(item.as.u, 0x1234);
    ck_assert_int_eq(tnd_value_next(&array, &inner), 1);
    ck_assert_int_eq(tnd_value_next(&inner, &item), 0);
    ck_assert_int_eq(tnd_value_next(&array, &inner), 0);
    ck_assert_int_eq(tnd_value_next(&item, &inner), 0);
    parsed_finish(&parsed);
    drop(&file);
}
END_TEST

START_TEST(tensors_in_any_order)
{
    size_t needed;
    struct memory_file file = good_file(&needed);
    struct parsed parsed;
    const struct tnd_tensor *tensor;
    uint64_t data = (needed - 192 - 54);

    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_int_eq(parsed.result, 0);
    ck_assert_uint_eq(tnd_model_tensor_count(&parsed.model), 3);
    ck_assert_uint_eq(tnd_model_layer_count(&parsed.model), 2);
    ck_assert_uint_eq(tnd_model_bytes(&parsed.model), 54 + 16 + 4);
    tensor = tnd_model_tensor(&parsed.model, 0);
    ck_assert_str_eq(tensor->name, "blk.0.w");
    ck_assert_int_eq(tensor->dtype, TND_Q4_0);
    ck_assert_uint_eq(tensor->dims, 2);
    ck_assert_uint_eq(tensor->shape[0], 3);
    ck_assert_uint_eq(tensor->shape[1], 32);
    ck_assert_uint_eq(tensor->elements, 96);
    ck_assert_uint_eq(tensor->bytes, 54);
    ck_assert_uint_eq(tensor->offset, data + 192);
    tensor = tnd_model_tensor(&parsed.model, 2);
    ck_assert_int_eq(tensor->role, TND_SHARED_OUT);
    ck_assert_int_eq(tensor->layer, -1);
    ck_assert_uint_eq(tensor->dims, 0);
    ck_assert_uint_eq(tensor->elements, 1);
    ck_assert_uint_eq(tensor->offset, data + 64);
    ck_assert_int_eq(tnd_model_tensor_find(&parsed.model, "blk.1.w"), 1);
    ck_assert_int_eq(tnd_model_tensor_find(&parsed.model, "blk.2.w"), -ENOENT);
    parsed_finish(&parsed);
    drop(&file);
}
END_TEST

START_TEST(cut_anywhere)
{
    size_t needed;
    struct memory_file file = good_file(&needed);

    for (size_t bytes = 0; bytes < file.bytes; bytes++) {
        struct memory_file cut = {.data = file.data, .bytes = bytes};
        struct parsed parsed;

        parse_memory(&parsed, FORMAT, &cut, PATH);
        ck_assert_msg(parsed.result == (bytes < needed ? -EBADMSG : 0), "cut at %zu: %d %s", bytes, parsed.result,
                      parsed.err.text);
        ck_assert(bytes >= needed || strstr(parsed.err.text, ": byte "));
        parsed_finish(&parsed);
    }
    drop(&file);
}
END_TEST

START_TEST(any_byte_changed)
{
    size_t needed;
    struct memory_file file = good_file(&needed);

    for (size_t at = 0; at < needed; at++) {
        uint8_t was = file.data[at];

        for (int bit = 0; bit < 8; bit++) {
            struct parsed parsed;

            file.data[at] = (uint8_t)(was ^ 1 << bit);
            parse_memory(&parsed, FORMAT, &file, PATH); /* good or bad: a sanitizer watches */
            ck_assert(parsed.result == 0 || parsed.result == -EBADMSG || parsed.result == -ENOTSUP ||
                      parsed.result == -EFBIG);
            parsed_finish(&parsed);
        }
        file.data[at] = was;
    }
    drop(&file);
}
END_TEST

START_TEST(versions)
{
    static const struct {
        uint32_t version;
        int result;
        const char *words;
    } cases[] = {
        {0, -EBADMSG, "version 0"},         {1, -ENOTSUP, "version 1"},
        {4, -ENOTSUP, "newer"},             {0x01000000, -ENOTSUP, "big-endian"},
        {0x02000000, -ENOTSUP, "big-endian"}, {0x03000000, -ENOTSUP, "big-endian"},
        {UINT32_MAX, -EBADMSG, "version 4294967295"},
    };
    struct parsed parsed;
    struct memory_file file = {0};

    put_head(&file, 2, 0, 0);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_int_eq(parsed.result, 0);
    ck_assert_str_eq(tnd_model_format(&parsed.model), "GGUF v2");
    parsed_finish(&parsed);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        file.bytes = 0;
        put_head(&file, cases[i].version, 0, 0);
        assert_refused(FORMAT, &file, PATH, cases[i].result, 4, cases[i].words);
    }
    memcpy(file.data, "GGML", 4);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 0, "magic number 0x47474d4c");
    drop(&file);
}
END_TEST

START_TEST(counts)
{
    static const uint64_t claimed[] = {1, 1000001, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX};
    struct memory_file file = {0};

    for (size_t i = 0; i < sizeof(claimed) / sizeof(claimed[0]); i++) {
        file.bytes = 0;
        put_head(&file, 3, claimed[i], 0);
        assert_refused(FORMAT, &file, PATH, -EBADMSG, 8, "tensors, expected at most the 0");
        file.bytes = 0;
        put_head(&file, 3, 0, claimed[i]);
        put_zeros(&file, 13);
        assert_refused(FORMAT, &file, PATH, -EBADMSG, 16, "metadata entries, expected at most the 0");
    }
    file.bytes = 0;
    put_head(&file, 3, TND_TENSORS_MAX + 1, 0);
    put_zeros(&file, 24 * ((size_t)TND_TENSORS_MAX + 1));
    assert_refused(FORMAT, &file, PATH, -EFBIG, 8, "1000001 tensors, expected at most 1000000");
    file.bytes = 0;
    put_head(&file, 3, 0, TND_METAS_MAX + 1);
    put_zeros(&file, 14 * ((size_t)TND_METAS_MAX + 1));
    assert_refused(FORMAT, &file, PATH, -EFBIG, 16, "1000001 metadata entries");
    drop(&file);
}
END_TEST

START_TEST(bad_keys)
{
    static const uint64_t lengths[] = {65536, (uint64_t)1 << 63, UINT64_MAX - 7, UINT64_MAX};
    struct memory_file file = {0};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        file.bytes = 0;
        put_head(&file, 3, 0, 1);
        put_u64(&file, lengths[i]);
        put_zeros(&file, 100);
        assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "expected at most 65535");
    }
    file.bytes = 0;
    put_head(&file, 3, 0, 1);
    put_meta_u32(&file, "", 1);
    put_zeros(&file, 8);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "empty key");
    file.bytes = 0;
    put_head(&file, 3, 0, 1);
    put_meta_u32(&file, "a\xFF", 1);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 32, "UTF-8");
    file.bytes = 0;
    put_head(&file, 3, 0, 2);
    put_meta_u32(&file, "abc", 1);
    put_meta_u32(&file, "abc", 1);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 43, "key 'abc': the key is there twice");
    drop(&file);
}
END_TEST

START_TEST(longest_key)
{
    char *key = malloc(65536);
    struct memory_file file = {0};
    struct parsed parsed;

    ck_assert_ptr_nonnull(key);
    memset(key, 'k', 65535);
    key[65535] = 0;
    put_head(&file, 3, 0, 1);
    put_meta_u32(&file, key, 7);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
    ck_assert_uint_eq(tnd_model_meta_find(&parsed.model, key)->value.as.u, 7);
    parsed_finish(&parsed);
    drop(&file);
    free(key);
}
END_TEST

/* The head and "k" with that value type: the value starts at byte 37. */
static void put_value_start(struct memory_file *file, uint32_t type)
{
    file->bytes = 0;
    put_head(file, 3, 0, 1);
    put_text(file, "k");
    put_u32(file, type);
}

START_TEST(bad_values)
{
    static const uint64_t lengths[] = {101, (uint64_t)1 << 63, UINT64_MAX - 44, UINT64_MAX};
    struct memory_file file = {0};

    put_value_start(&file, 13);
    put_zeros(&file, 100);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 33, "value type 13, expected at most 12");
    put_value_start(&file, TND_VALUE_BOOL);
    put_u8(&file, 2);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 37, "a BOOL of 2, expected 0 or 1");
    put_value_start(&file, TND_VALUE_ARRAY);
    put_array(&file, TND_VALUE_BOOL, 3);
    put(&file, "\0\1\xFF", 3);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 51, "a BOOL of 255");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        put_value_start(&file, TND_VALUE_STRING);
        put_u64(&file, lengths[i]);
        put_zeros(&file, 100);
        assert_refused(FORMAT, &file, PATH, -EBADMSG, 45, "a string should take");
        put_value_start(&file, TND_VALUE_ARRAY);
        put_array(&file, TND_VALUE_U8, lengths[i]);
        put_zeros(&file, 100);
        assert_refused(FORMAT, &file, PATH, -EBADMSG, 41, "array elements, expected at most the 100");
    }
    put_value_start(&file, TND_VALUE_ARRAY);
    put_array(&file, TND_VALUE_U64, ((uint64_t)1 << 61) + 1);
    put_zeros(&file, 100);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 41, "array elements, expected at most the 12");
    put_value_start(&file, TND_VALUE_ARRAY);
    put_array(&file, 13, 0);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 37, "array's element type 13");
    put_value_start(&file, TND_VALUE_ARRAY);
    put_array(&file, TND_VALUE_STRING, 2);
    put_text(&file, "one"), put_u64(&file, 1);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 68, "a string should take 1 bytes");
    drop(&file);
}
END_TEST

START_TEST(nested_arrays)
{
    struct memory_file file = {0};
    struct parsed parsed;

    put_value_start(&file, TND_VALUE_ARRAY);
    for (int depth = 1; depth < 4; depth++)
        put_array(&file, TND_VALUE_ARRAY, 1);
    put_array(&file, TND_VALUE_U8, 1);
    put_u8(&file, 9);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
    parsed_finish(&parsed);
    put_value_start(&file, TND_VALUE_ARRAY);
    for (int depth = 0; depth < 200000; depth++)
        put_array(&file, TND_VALUE_ARRAY, 1);
    assert_refused(FORMAT, &file, PATH, -EFBIG, 85, "nested deeper than 4");
    drop(&file);
}
END_TEST

START_TEST(alignments)
{
    static const struct {
        uint32_t alignment;
        int result;
    } cases[] = {{0, -EBADMSG}, {1, 0}, {2, 0}, {3, -EBADMSG}, {4, 0}, {8, 0}, {12, -EBADMSG}, {24, 0},
                 {33, -EBADMSG}, {64, 0}, {(uint32_t)1 << 31, 0}};
    struct memory_file file = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct parsed parsed;

        file.bytes = 0;
        put_head(&file, 3, 0, 1);
        put_meta_u32(&file, "general.alignment", cases[i].alignment);
        if (cases[i].result < 0) {
            assert_refused(FORMAT, &file, PATH, -EBADMSG, 53, "general.alignment of");
            continue;
        }
        parse_memory(&parsed, FORMAT, &file, PATH);
        ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
        parsed_finish(&parsed);
    }
    file.bytes = 0;
    put_head(&file, 3, 0, 1);
    put_text(&file, "general.alignment"), put_u32(&file, TND_VALUE_U64), put_u64(&file, 32);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 53, "general.alignment of value type 10, expected 4");
    drop(&file);
}
END_TEST

/* One tensor "t" of bytes data bytes: its dims at byte 33, ne from 37. */
static void put_one(struct memory_file *file, uint32_t dims, const uint64_t *ne, uint32_t type, uint64_t offset,
                    size_t bytes)
{
    file->bytes = 0;
    put_head(file, 3, 1, 0);
    put_tensor(file, "t", dims, ne, type, offset);
    pad_to(file, 32);
    put_zeros(file, bytes);
}

START_TEST(bad_tensors)
{
    static const uint64_t ne[] = {32, 1, 1, 1, 1};
    struct memory_file file = {0};

    put_one(&file, 5, ne, 0, 0, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 33, "5 dimensions, expected at most 4");
    put_one(&file, 2, (const uint64_t[]){(uint64_t)1 << 62, 4}, 0, 0, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "tensor 't': the shape has 2^64 elements or more");
    put_one(&file, 1, (const uint64_t[]){(uint64_t)1 << 62}, 0, 0, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "take 2^64 bytes or more");
    put_one(&file, 1, (const uint64_t[]){(uint64_t)1 << 63}, 24, 0, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 37, "expected less than 2^63");
    put_one(&file, 2, (const uint64_t[]){33, 32}, 2, 0, 4096);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "rows of 33 elements, expected a multiple of 32 for Q4_0");
    put_one(&file, 0, NULL, 2, 0, 4096);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "rows of 1 elements");
    put_one(&file, 1, ne, 4, 0, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 45, "tensor type 4, which GGML has removed");
    put_one(&file, 1, ne, 43, 0, 128);
    assert_refused(FORMAT, &file, PATH, -ENOTSUP, 45, "tensor type 43 is newer");
    put_one(&file, 1, ne, 0, 16, 256);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 49, "an offset of 16, expected a multiple of 32");
    put_one(&file, 1, ne, 0, 0, 127);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 64, "takes 128 bytes from here, but the file ends at byte 191");
    put_one(&file, 1, ne, 0, UINT64_MAX - 31, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 64, "lies outside");
    put_one(&file, 1, ne, 0, (uint64_t)1 << 63, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, ((uint64_t)1 << 63) + 64, "the file ends at byte 192");
    put_one(&file, 1, ne, 0, UINT64_MAX - 127, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, UINT64_MAX - 63, "the file ends at byte 192");
    put_one(&file, 1, (const uint64_t[]){0}, 0, 1024, 128);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 64, "lies outside");
    drop(&file);
}
END_TEST

START_TEST(names)
{
    static const uint64_t ne[] = {8};
    char name[66];
    struct memory_file file = {0};
    struct parsed parsed;

    memset(name, 'n', 65);
    name[65] = 0;
    put_head(&file, 3, 1, 0);
    put_tensor(&file, name, 1, ne, 0, 0);
    pad_to(&file, 32);
    put_zeros(&file, 32);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 24, "a tensor's name of 65 bytes, expected at most 64");
    name[64] = 0;
    file.bytes = 0;
    put_head(&file, 3, 1, 0);
    put_tensor(&file, name, 1, ne, 0, 0);
    pad_to(&file, 32);
    put_zeros(&file, 32);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_int_eq(parsed.result, 0);
    parsed_finish(&parsed);
    file.data[24 + 8 + 63] = 0xC3;
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 32, "UTF-8");
    file.bytes = 0;
    put_head(&file, 3, 2, 0);
    put_tensor(&file, "same", 1, ne, 0, 0);
    put_tensor(&file, "same", 1, ne, 0, 32);
    pad_to(&file, 32);
    put_zeros(&file, 64);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 60, "tensor 'same': the name is there twice");
    drop(&file);
}
END_TEST

START_TEST(overlap)
{
    static const uint64_t nine[] = {9}, empty[] = {0};
    struct memory_file file = {0};
    struct parsed parsed;

    put_head(&file, 3, 2, 0);
    put_tensor(&file, "b", 1, nine, 0, 32);
    put_tensor(&file, "a", 1, nine, 0, 0);
    pad_to(&file, 32);
    put_zeros(&file, 68);
    assert_refused(FORMAT, &file, PATH, -EBADMSG, 128,
                   "tensor 'b' starts here, expected not before byte 132, where tensor 'a' ends");
    file.bytes = 0;
    put_head(&file, 3, 3, 0);
    put_tensor(&file, "a", 1, nine, 0, 0);
    put_tensor(&file, "empty", 1, empty, 0, 32);
    put_tensor(&file, "b", 1, nine, 0, 64);
    pad_to(&file, 32);
    put_zeros(&file, 100);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
    ck_assert_uint_eq(tnd_model_tensor(&parsed.model, 1)->bytes, 0);
    parsed_finish(&parsed);
    drop(&file);
}
END_TEST

START_TEST(empty_tensor_without_padding)
{
    static const uint64_t empty[] = {0};
    struct memory_file file = {0};
    struct parsed parsed;

    put_head(&file, 3, 1, 0);
    put_tensor(&file, "t", 1, empty, 0, 0);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
    parsed_finish(&parsed);
    drop(&file);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf");
    TCase *tests = tcase_create("gguf");

    tcase_add_test(tests, every_value_type);
    tcase_add_test(tests, tensors_in_any_order);
    tcase_add_test(tests, cut_anywhere);
    tcase_add_test(tests, any_byte_changed);
    tcase_add_test(tests, versions);
    tcase_add_test(tests, counts);
    tcase_add_test(tests, bad_keys);
    tcase_add_test(tests, longest_key);
    tcase_add_test(tests, bad_values);
    tcase_add_test(tests, nested_arrays);
    tcase_add_test(tests, alignments);
    tcase_add_test(tests, bad_tensors);
    tcase_add_test(tests, names);
    tcase_add_test(tests, overlap);
    tcase_add_test(tests, empty_tensor_without_padding);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
