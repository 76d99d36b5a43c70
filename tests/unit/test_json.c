/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: the JSON parser takes what RFC 8259 allows and nothing else, and tells the byte that is wrong.
 * Method: a trace of tokens for good texts; for bad ones the result and the offset; every text also cut at each byte.
 * Texts are copied into memory of just their size, so that a sanitizer catches a look beyond. */

#include "memory_file.h"
#include "format/json.h"

#define BASE 8 /* where the texts are said to lie in the file */

/* Writes one letter a token and the strings and numbers in between. Returns the parser's result. */
static int trace(const char *text, size_t bytes, char *out, size_t out_bytes, struct tnd_err *err)
{
    static const char letters[] = "$OoAaKSNtfn";
    struct tnd_arena arena = {.allocator = tnd_allocator_or_default(NULL)};
    char *copy = malloc(bytes ? bytes : 1);
    struct tnd_json_token token;
    struct tnd_json json;
    size_t used = 0;
    int r;

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, text, bytes);
    tnd_json_init(&json, copy, bytes, BASE, "text", &arena);
    do {
        r = tnd_json_next(&json, &token, err);
        if (r == 0 && out)
            used += (size_t)snprintf(out + used, out_bytes - used, "%c%.*s ", letters[token.type], (int)token.bytes,
                                     token.text ? token.text : "");
    } while (r == 0 && token.type != TND_JSON_END);
    tnd_arena_finish(&arena);
    free(copy);
    return r;
}

static const struct {
    const char *text, *tokens;
} good[] = {
    {"{}", "O o $ "},
    {"[]", "A a $ "},
    {" [ 1 , -2.5e+3 ] \n", "A N1 N-2.5e+3 a $ "},
    {"{\"a\":{\"b\":[true,false,null]},\"c\":\"d\"}", "O Ka O Kb A t f n a o Kc Sd o $ "},
    {"0", "N0 $ "},
    {"-0.0E-1", "N-0.0E-1 $ "},
    {"\"\"", "S $ "},
    {"\"a\\\"\\\\\\/\\u0041\\u00e9\\u20AC\"", "Sa\"\\/A\xC3\xA9\xE2\x82\xAC $ "},
    {"\"\\ud83d\\uDE00\"", "S\xF0\x9F\x98\x80 $ "},
    {"\"\\b\\f\\n\\r\\t\"", "S\b\f\n\r\t $ "},
    {"\"\xF0\x9F\x98\x80\x7F\"", "S\xF0\x9F\x98\x80\x7F $ "},
    {"{\"\\u0061\":1}", "O Ka N1 o $ "},
};

START_TEST(good_texts)
{
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct tnd_err err = {0};
        char out[256] = "";
        int r = trace(good[i].text, strlen(good[i].text), out, sizeof(out), &err);

        ck_assert_msg(r == 0, "%s: %s", good[i].text, err.text);
        ck_assert_str_eq(out, good[i].tokens);
    }
}
END_TEST

static const struct {
    const char *text;
    uint64_t offset; /* of what is wrong, in the text */
} bad[] = {
    {"", 0},           {" ", 1},           {"{", 1},           {"[", 1},           {"}", 0},
    {"]", 0},          {"[}", 1},          {"{]", 1},          {"[1}", 2},         {"{\"a\":1]", 6},
    {"[1,]", 3},       {"{\"a\":1,}", 7},  {"[,1]", 1},        {"{,}", 1},         {"[1 2]", 3},
    {"{\"a\" 1}", 5},  {"{\"a\":}", 5},    {"{a:1}", 1},       {"{1:1}", 1},       {"{\"a\"}", 4},
    {"[1]]", 3},       {"{}{}", 2},        {"1 1", 2},         {"\xEF\xBB\xBF{}", 0},
    {"01", 1},         {"-", 1},           {"-a", 1},          {"+1", 0},          {".5", 0},
    {"1.", 2},         {"1.e1", 2},        {"1e", 2},          {"1e+", 3},         {"0x10", 1},
    {"--1", 1},        {"NaN", 0},         {"Infinity", 0},    {"tru", 0},         {"truE", 0},
    {"nul", 0},        {"True", 0},        {"truex", 4},       {"'a'", 0},         {"// c\n1", 0},
    {"\"", 1},         {"\"abc", 4},       {"\"a\nb\"", 2},    {"\"\x01\"", 1},    {"\"\\x\"", 1},
    {"\"\\", 2},       {"\"\\u12\"", 1},   {"\"\\u12g4\"", 1}, {"\"\\ud800\"", 1}, {"\"\\udc00\"", 1},
    {"\"\\ud800\\n\"", 1}, {"\"\\ud800\\u0041\"", 1}, {"\"\\ud83d\\ud83d\"", 1}, {"\"\xFF\"", 0}, {"\"\xC3\"", 0},
    {"\"\xED\xA0\x80\"", 0}, {"\"\\U0041\"", 1}, {"\"\\\xC3\xA9\"", 1}, {"{\"a\xFF\":1}", 1}, {"[\"a\\\tb\"]", 4},
};

START_TEST(bad_texts)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct tnd_err err = {0};
        char place[64];

        ck_assert_msg(trace(bad[i].text, strlen(bad[i].text), NULL, 0, &err) == -EBADMSG, "%s", bad[i].text);
        snprintf(place, sizeof(place), "text: byte %llu: ", (unsigned long long)bad[i].offset + BASE);
        ck_assert_msg(strstr(err.text, place) != NULL, "%s: expected '%s' in: %s", bad[i].text, place, err.text);
    }
}
END_TEST

START_TEST(nul_bytes)
{
    struct tnd_err err = {0};

    ck_assert_int_eq(trace("[]\0", 3, NULL, 0, &err), -EBADMSG);
    ck_assert_str_eq(err.text, "text: byte 10: expected the end of the JSON text, found byte 0x00");
    ck_assert_int_eq(trace("[\0]", 3, NULL, 0, &err), -EBADMSG);
    ck_assert_int_eq(trace("\"\0\"", 3, NULL, 0, &err), -EBADMSG);
    ck_assert_int_eq(trace("\"\\\0\"", 4, NULL, 0, &err), -EBADMSG);
}
END_TEST

START_TEST(cut_anywhere)
{
    const char *text = "{\"a\\u00e9\\ud83d\\ude00\":[1.5e-7,true,{\"b\":null}],\"c\":\"\xE2\x82\xAC\"}";

    ck_assert_int_eq(trace(text, strlen(text), NULL, 0, NULL), 0);
    for (size_t bytes = 0; bytes < strlen(text); bytes++)
        ck_assert_int_eq(trace(text, bytes, NULL, 0, NULL), -EBADMSG);
}
END_TEST

START_TEST(depth)
{
    static char text[400001];
    struct tnd_err err = {0};

    memset(text, '[', TND_JSON_DEPTH_MAX);
    memset(text + TND_JSON_DEPTH_MAX, ']', TND_JSON_DEPTH_MAX);
    ck_assert_int_eq(trace(text, 2 * TND_JSON_DEPTH_MAX, NULL, 0, &err), 0);
    memset(text, '[', 200000);
    ck_assert_int_eq(trace(text, 200000, NULL, 0, &err), -EFBIG);
    ck_assert_str_eq(err.text, "text: byte 135: JSON is nested deeper than 127");
    for (size_t i = 0; i < 400000; i += 5)
        memcpy(text + i, "{\"\":[", 5);
    ck_assert_int_eq(trace(text, 400000, NULL, 0, &err), -EFBIG);
}
END_TEST

START_TEST(whole_numbers)
{
    static const struct {
        const char *text;
        bool whole;
        uint64_t value;
    } numbers[] = {
        {"0", true, 0},      {"18446744073709551615", true, UINT64_MAX}, {"18446744073709551616", false, 0},
        {"-0", false, 0},    {"-1", false, 0},                           {"1.0", false, 0},
        {"1e3", false, 0},   {"99999999999999999999999", false, 0},      {"42", true, 42},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct tnd_json_token token = {
            .type = TND_JSON_NUMBER, .text = numbers[i].text, .bytes = strlen(numbers[i].text)};
        uint64_t value = 0;

        ck_assert_msg(tnd_json_u64(&token, &value) == numbers[i].whole, "%s", numbers[i].text);
        ck_assert_uint_eq(numbers[i].whole ? value : 0, numbers[i].value);
        token.type = TND_JSON_STRING;
        ck_assert(!tnd_json_u64(&token, &value));
    }
}
END_TEST

START_TEST(skipping)
{
    const char *text = "[{\"a\":[1,{\"b\":2}],\"c\":{}},7,[[]],8]";
    struct tnd_arena arena = {.allocator = tnd_allocator_or_default(NULL)};
    struct tnd_json_token token;
    struct tnd_json json;

    tnd_json_init(&json, text, strlen(text), 0, "text", &arena);
    ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_ARRAY, &token, NULL), 0);
    for (int i = 7; i <= 8; i++) {
        ck_assert_int_eq(tnd_json_next(&json, &token, NULL), 0);
        ck_assert_int_eq(tnd_json_skip(&json, &token, NULL), 0);
        ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_NUMBER, &token, NULL), 0);
        ck_assert_int_eq(tnd_json_skip(&json, &token, NULL), 0);
        ck_assert_int_eq(*token.text, '0' + i);
    }
    ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_ARRAY_END, &token, NULL), 0);
    ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_END, &token, NULL), 0);
    tnd_arena_finish(&arena);
}
END_TEST

START_TEST(slices_and_copies)
{
    const char *text = "[\"plain\",\"esc\\u0061ped\"]";
    struct tnd_arena arena = {.allocator = tnd_allocator_or_default(NULL)};
    struct tnd_json_token token;
    struct tnd_json json;

    tnd_json_init(&json, text, strlen(text), 0, "text", &arena);
    ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_ARRAY, &token, NULL), 0);
    ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_STRING, &token, NULL), 0);
    ck_assert_ptr_eq(token.text, text + 2);
    ck_assert(tnd_json_is(&token, "plain"));
    ck_assert_str_eq(tnd_json_string(&json, &token), "plain");
    ck_assert_int_eq(tnd_json_expect(&json, TND_JSON_STRING, &token, NULL), 0);
    ck_assert(token.copied);
    ck_assert(!tnd_json_is(&token, "escape"));
    ck_assert_ptr_eq(tnd_json_string(&json, &token), token.text);
    ck_assert_str_eq(token.text, "escaped");
    tnd_arena_finish(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");

    tcase_add_test(tests, good_texts);
    tcase_add_test(tests, bad_texts);
    tcase_add_test(tests, nul_bytes);
    tcase_add_test(tests, cut_anywhere);
    tcase_add_test(tests, depth);
    tcase_add_test(tests, whole_numbers);
    tcase_add_test(tests, skipping);
    tcase_add_test(tests, slices_and_copies);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
