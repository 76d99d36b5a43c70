/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: safetensors files are taken and refused as the reference reader does, a little stricter where its own
 * description is, and a refusal names the byte.
 * Method: headers as text, so many bytes of data behind them; each verdict below was compared with the reference. */

#include "memory_file.h"

#define FORMAT (&tnd_format_safetensors)
#define PATH "memory.safetensors"

static void build(struct memory_file *file, const char *json, size_t data_bytes)
{
    file->bytes = 0;
    put_text(file, json);
    put_zeros(file, data_bytes);
}

#define F32_ONE "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"

static const struct {
    const char *json;
    size_t data_bytes;
    uint32_t tensors, metas;
} good[] = {
    {"{}", 0, 0, 0},
    {"{\"a\":" F32_ONE "}", 4, 1, 0},
    {"{\"a\":" F32_ONE "}      ", 4, 1, 0},
    {"{\"a\":" F32_ONE "}\n", 4, 1, 0},
    {"{\"\":" F32_ONE "}", 4, 1, 0},
    {"{\"a\\u0000b\":" F32_ONE "}", 4, 1, 0},
    {"{\"\\ud83d\\ude00\":" F32_ONE "}", 4, 1, 0},
    {"{\"__metadata__\":{\"a\":\"b\",\"c\":\"\"},\"a\":" F32_ONE "}", 4, 1, 2},
    {"{\"a\":" F32_ONE ",\"__metadata__\":{}}", 4, 1, 0},
    {"{\"__metadata__\":null}", 0, 0, 0},
    {"{\"a\":{\"x\":{\"y\":[1,null]},\"data_offsets\":[0,4],\"shape\":[1],\"dtype\":\"F32\",\"z\":-1e9}}", 4, 1, 0},
    {"{\"a\":{\"d\\u0074ype\":\"F\\u00332\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 1, 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1, 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, 1, 0},
    {"{\"a\":" F32_ONE ",\"b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}", 4, 2, 0},
    {"{\"a\":" F32_ONE ",\"b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 4, 2, 0},
    {"{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[4,7]},\"a\":" F32_ONE "}", 7, 2, 0},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[2,2],\"data_offsets\":[0,2]}}", 2, 1, 0},
    {"{\"a\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, 1, 0},
    {"{\"a\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, 1, 0},
};

START_TEST(good_files)
{
    struct memory_file file = {0};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct parsed parsed;

        build(&file, good[i].json, good[i].data_bytes);
        parse_memory(&parsed, FORMAT, &file, PATH);
        ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
        ck_assert_uint_eq(tnd_model_tensor_count(&parsed.model), good[i].tensors);
        ck_assert_uint_eq(tnd_model_meta_count(&parsed.model), good[i].metas);
        ck_assert_str_eq(tnd_model_format(&parsed.model), "safetensors");
        parsed_finish(&parsed);
    }
    drop(&file);
}
END_TEST

static const struct {
    const char *json;
    size_t data_bytes;
    uint64_t offset;
    const char *words;
} bad[] = {
    {"", 0, 0, "at least 2"},
    {"[]", 0, 8, "expected '{'"},
    {" {}", 0, 8, "expected '{'"},
    {"{}{}", 0, 10, "expected the end of the JSON text"},
    {"{}x", 0, 10, "expected the end of the JSON text"},
    {"{\"a\":null}", 0, 13, "expected an object, found null"},
    {"{\"a\":[\"F32\",[1],[0,4]]}", 4, 13, "expected an object"},
    {"{\"a\":{}}", 0, 14, "expected its dtype"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 46, "expected its dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, 48, "expected its shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, 39, "expected its data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 28,
     "'dtype' is there twice"},
    {"{\"a\":" F32_ONE ",\"a\":" F32_ONE "}", 4, 62, "tensor 'a': the name is there twice"},
    {"{\"__metadata__\":{\"a\":\"b\",\"a\":\"b\"}}", 0, 33, "key 'a': the key is there twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, 27, "'__metadata__' is there twice"},
    {"{\"__metadata__\":[]}", 0, 24, "expected an object of strings, found an array"},
    {"{\"__metadata__\":{\"a\":1}}", 0, 29, "expected a string, found number '1'"},
    {"{\"__metadata__\":{\"a\":null}}", 0, 29, "expected a string, found null"},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 22, "found string 'F33'"},
    {"{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 22, "expected a string, found number '5'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, 36, "expected an array, found number '1'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, 37, "found number '-1'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, 37, "found number '1.0'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, 37, "found string '1'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,4]}}", 4, 37, "below 2^64"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, 9, "2^64 elements"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]}}", 4, 9, "2^64 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, 9, "give it 4 bytes, expected 8"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, 9, "3 elements, expected a multiple of 2"},
    {"{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, 9, "expected a multiple of 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, 55, "data_offsets of 1 numbers, expected 2"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, 60, "expected at most 2"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, 9, "expected them in order"},
    {"{\"a\":" F32_ONE "}", 3, 9, "at most 3"},
    {"{\"a\":" F32_ONE "}", 5, 66, "the tensors end here"},
    {"{}", 1, 10, "the tensors end here"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, 66, "at byte 62, where the data starts"},
    {"{\"a\":" F32_ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[5,6]}}", 6, 119,
     "expected at byte 118, where tensor 'a' ends"},
    {"{\"a\":" F32_ONE ",\"b\":" F32_ONE "}", 4, 115, "expected not before byte 119, where tensor 'a' ends"},
    {"{\"a\":" F32_ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}", 4, 116,
     "not before byte 118"},
    {"{\"a\xFF\":" F32_ONE "}", 4, 9, "UTF-8"},
    {"{\"a\\ud800\":" F32_ONE "}", 4, 11, "surrogate"},
    {"{\"a\n\":" F32_ONE "}", 4, 11, "byte 0x0a"},
    {"{\"a\":" F32_ONE ",}", 4, 62, "expected a key"},
};

START_TEST(bad_files)
{
    struct memory_file file = {0};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        build(&file, bad[i].json, bad[i].data_bytes);
        assert_refused(FORMAT, &file, PATH, -EBADMSG, bad[i].offset, bad[i].words);
    }
    drop(&file);
}
END_TEST

START_TEST(header_lengths)
{
    static const uint64_t lengths[] = {3, 100000001, (uint64_t)1 << 63, UINT64_MAX - 7, UINT64_MAX};
    struct memory_file file = {0};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        file.bytes = 0;
        put_u64(&file, lengths[i]);
        put_words(&file, "{}");
        assert_refused(FORMAT, &file, PATH, -EBADMSG, 0, "expected at most the 2 that the file has");
    }
    for (size_t bytes = 0; bytes < 8; bytes++) {
        struct memory_file cut = {.data = file.data, .bytes = bytes};

        assert_refused(FORMAT, &cut, PATH, -EBADMSG, 0, "the length of the JSON header");
    }
    file.bytes = 0;
    put_u64(&file, 100000001);
    put_words(&file, "{}");
    put_zeros(&file, 100000000);
    assert_refused(FORMAT, &file, PATH, -EFBIG, 0, "expected at most 100000000");
    drop(&file);
}
END_TEST

START_TEST(cut_anywhere)
{
    struct memory_file file = {0};

    build(&file, "{\"__metadata__\":{\"a\":\"b\"},\"n\\u00e9\":" F32_ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[3,1],"
                 "\"data_offsets\":[4,7]}}  ", 7);
    for (size_t bytes = 0; bytes <= file.bytes; bytes++) {
        struct memory_file cut = {.data = file.data, .bytes = bytes};
        struct parsed parsed;

        parse_memory(&parsed, FORMAT, &cut, PATH);
        ck_assert_int_eq(parsed.result, bytes < file.bytes ? -EBADMSG : 0);
        parsed_finish(&parsed);
    }
    drop(&file);
}
END_TEST

START_TEST(contents)
{
    struct memory_file file = {0};
    struct parsed parsed;
    const struct tnd_tensor *tensor;
    const struct tnd_meta *meta;

    build(&file, "{\"__metadata__\":{\"format\":\"p\\u0074\"},\"model.layers.4.w\":{\"dtype\":\"BF16\",\"shape\":[2,3],"
                 "\"data_offsets\":[0,12]}}", 12);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_int_eq(parsed.result, 0);
    tensor = tnd_model_tensor(&parsed.model, 0);
    ck_assert_str_eq(tensor->name, "model.layers.4.w");
    ck_assert_int_eq(tensor->dtype, TND_BF16);
    ck_assert_uint_eq(tensor->shape[0], 2);
    ck_assert_uint_eq(tensor->shape[1], 3);
    ck_assert_uint_eq(tensor->bytes, 12);
    ck_assert_uint_eq(tensor->offset, file.bytes - 12);
    ck_assert_int_eq(tensor->layer, 4);
    ck_assert_uint_eq(tnd_model_layer_count(&parsed.model), 5);
    meta = tnd_model_meta_find(&parsed.model, "format");
    ck_assert_int_eq(meta->value.type, TND_VALUE_STRING);
    ck_assert_mem_eq(meta->value.as.string.data, "pt", 2);
    ck_assert_uint_eq(meta->value.as.string.bytes, 2);
    parsed_finish(&parsed);
    drop(&file);
}
END_TEST

START_TEST(long_names_and_shapes)
{
    struct memory_file text = {0}, file = {0};
    struct parsed parsed;

    put_words(&text, "{\"");
    for (int i = 0; i < 100000; i++)
        put_u8(&text, 'n');
    put_words(&text, "\":{\"dtype\":\"U8\",\"shape\":[1");
    for (int i = 1; i < 1024; i++)
        put_words(&text, ",1");
    put_words(&text, "],\"data_offsets\":[0,1]}}");
    put_u64(&file, text.bytes);
    put(&file, text.data, text.bytes);
    put_u8(&file, 0);
    parse_memory(&parsed, FORMAT, &file, PATH);
    ck_assert_msg(parsed.result == 0, "%s", parsed.err.text);
    ck_assert_uint_eq(tnd_model_tensor(&parsed.model, 0)->name_bytes, 100000);
    ck_assert_uint_eq(tnd_model_tensor(&parsed.model, 0)->dims, 1024);
    parsed_finish(&parsed);
    drop(&text);
    drop(&file);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tests = tcase_create("safetensors");

    tcase_add_test(tests, good_files);
    tcase_add_test(tests, bad_files);
    tcase_add_test(tests, header_lengths);
    tcase_add_test(tests, cut_anywhere);
    tcase_add_test(tests, contents);
    tcase_add_test(tests, long_names_and_shapes);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
