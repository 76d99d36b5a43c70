/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: no file makes a tokenizer crash, each bad one is refused with a sentence that says what is wrong, and a stream
 * never cuts a character.
 * Method: small GGUFs and tokenizer.jsons written here, with one thing wrong each, and then with bytes changed at
 * random from a fixed seed; whatever opens encodes and decodes. What a stream tells is compared with what Python's
 * bytes.decode(errors="replace") says, noted here. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text/chat.h"
#include "text/tokenizer.h"
/* Behind failure.h: it has a macro fail(). */
#include "support/suite.h"

#define KEY(name) "tokenizer.ggml." name
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

enum { MUTATIONS = 4000, ANY = 1 << 20 };

static char folder[] = "/tmp/tundish-text-XXXXXX";

/* ---- Files ------------------------------------------------------------------------------------------------- */

struct file {
    uint8_t bytes[1 << 16];
    size_t count;
    uint64_t metas;
};

static void put(struct file *file, const void *bytes, size_t count)
{
    ck_assert_uint_le(count, sizeof(file->bytes) - file->count);
    memcpy(file->bytes + file->count, bytes, count);
    file->count += count;
}

static void put_number(struct file *file, uint64_t number, size_t bytes)
{
    put(file, &number, bytes);
}

static void put_text(struct file *file, const char *text)
{
    put_number(file, strlen(text), 8);
    put(file, text, strlen(text));
}

static void put_key(struct file *file, const char *key, uint32_t type)
{
    put_text(file, key);
    put_number(file, type, 4);
    file->metas++;
}

static void put_meta_text(struct file *file, const char *key, const char *text)
{
    put_key(file, key, TND_VALUE_STRING);
    put_text(file, text);
}

static void put_meta_number(struct file *file, const char *key, uint32_t number)
{
    put_key(file, key, TND_VALUE_U32);
    put_number(file, number, 4);
}

static void put_array(struct file *file, const char *key, uint32_t type, uint64_t count)
{
    put_key(file, key, TND_VALUE_ARRAY);
    put_number(file, type, 4);
    put_number(file, count, 8);
}

static void put_texts(struct file *file, const char *key, const char *const *texts, size_t count)
{
    put_array(file, key, TND_VALUE_STRING, count);
    for (size_t i = 0; i < count; i++)
        put_text(file, texts[i]);
}

static void write_file(const char *name, const void *bytes, size_t count)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

static void remove_file(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    unlink(path);
}

/* The head before what was put, a tensor behind it. */
static void write_gguf(const struct file *file)
{
    static struct file whole;

    whole.count = 0;
    put(&whole, "GGUF", 4);
    put_number(&whole, 3, 4);
    put_number(&whole, 1, 8);
    put_number(&whole, file->metas, 8);
    put(&whole, file->bytes, file->count);
    put_text(&whole, "t");
    put_number(&whole, 1, 4);
    put_number(&whole, 8, 8);
    put_number(&whole, 0, 4);
    put_number(&whole, 0, 8);
    while (whole.count % 32)
        put_number(&whole, 0, 1);
    put_number(&whole, 0, 8), put_number(&whole, 0, 8), put_number(&whole, 0, 8), put_number(&whole, 0, 8);
    write_file("model.gguf", whole.bytes, whole.count);
}

/* Opens folder/model.gguf's tokenizer; ANY - 1: it is no model at all. */
static int open_gguf(struct tokenizer **ret_tokenizer, struct failure *failure)
{
    struct tnd_model *model;
    char path[256];
    int r;

    snprintf(path, sizeof(path), "%s/model.gguf", folder);
    if (tnd_model_open(path, NULL, &model) < 0)
        return ANY - 1;
    r = tokenizer_open(model, folder, ret_tokenizer, failure);
    tnd_model_close(&model);
    return r;
}

/* ---- A byte-pair vocabulary and what may be wrong with it ------------------------------------------------------ */

#define SPACE_AB "\xC4\xA0" "ab" /* as GPT-2 spells " ab" */

static const char *const tokens[] = {"a", "b", "c", "\xC4\xA0", "ab", SPACE_AB, "abc", "<|im_end|>", "<tool>"};
static const uint32_t kinds[] = {1, 1, 1, 1, 1, 1, 1, 3, 4};
static const char *const merges[] = {"a b", "\xC4\xA0 ab", "ab c"};

/* What differs from the good one. */
struct wrong {
    const char *model, *pre;
    uint32_t kind_type, token_type_count, token_array_type, last_kind;
    const char *merge, *token;
    uint32_t eos;
    bool no_merges, no_kinds;
    int result;
    const char *sentence;
};

static void put_vocabulary(struct file *file, const struct wrong *wrong)
{
    const char *changed[COUNT(tokens)], *merged[COUNT(merges)];
    size_t kind_count = wrong->token_type_count ? wrong->token_type_count : COUNT(kinds);

    memcpy(changed, tokens, sizeof(tokens));
    memcpy(merged, merges, sizeof(merges));
    if (wrong->token)
        changed[1] = wrong->token;
    if (wrong->merge)
        merged[1] = wrong->merge;
    put_meta_text(file, KEY("model"), wrong->model ? wrong->model : "gpt2");
    put_meta_text(file, KEY("pre"), wrong->pre ? wrong->pre : "gpt-2");
    if (wrong->token_array_type) {
        put_array(file, KEY("tokens"), wrong->token_array_type, 2);
        put_number(file, 0, 8);
    } else {
        put_texts(file, KEY("tokens"), changed, COUNT(tokens));
    }
    if (!wrong->no_kinds) {
        put_array(file, KEY("token_type"), wrong->kind_type ? wrong->kind_type : TND_VALUE_I32, kind_count);
        for (size_t i = 0; i < kind_count; i++)
            put_number(file, wrong->last_kind && i + 1 == kind_count ? wrong->last_kind : kinds[i % COUNT(kinds)], 4);
    }
    if (!wrong->no_merges)
        put_texts(file, KEY("merges"), merged, COUNT(merges));
    put_meta_number(file, KEY("eos_token_id"), wrong->eos ? wrong->eos : 7);
}

static void check_encoded(const struct tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *expected,
                          size_t count)
{
    struct failure failure;
    int32_t *found = NULL;

    ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), flags, &found, &failure), (int64_t)count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(found[i] == expected[i], "%s: token %zu is %d", text, i, found[i]);
    free(found);
}

START_TEST(good_vocabulary)
{
    static struct file file;
    struct tokenizer *tokenizer;
    struct failure failure;
    size_t bytes;

    file = (struct file){.count = 0};
    put_vocabulary(&file, &(struct wrong){.result = 0});
    write_gguf(&file);
    ck_assert_msg(open_gguf(&tokenizer, &failure) == 0, "%s", failure.text);
    ck_assert_uint_eq(tokenizer_count(tokenizer), COUNT(tokens));
    ck_assert_int_eq(tokenizer_bos(tokenizer), -1);
    ck_assert(tokenizer_ends(tokenizer, 7) && !tokenizer_ends(tokenizer, 0) && !tokenizer_ends(tokenizer, -1));
    check_encoded(tokenizer, "abc ab", TOKENIZER_BEGIN, (const int32_t[]){6, 5}, 2);
    check_encoded(tokenizer, "a<tool>b", 0, (const int32_t[]){0, 8, 1}, 3);
    check_encoded(tokenizer, "a<|im_end|>b", TOKENIZER_SPECIAL, (const int32_t[]){0, 7, 1}, 3);
    check_encoded(tokenizer, "a<|im_end|>b", 0, (const int32_t[]){0, 1}, 2); /* its characters have no tokens here */
    ck_assert(strncmp(tokenizer_piece(tokenizer, 5, &bytes), " ab", 3) == 0 && bytes == 3);
    ck_assert(tokenizer_piece(tokenizer, 7, &bytes) && bytes == 0);
    ck_assert(tokenizer_piece(tokenizer, 9, &bytes) && bytes == 0);
    ck_assert(tokenizer_piece(tokenizer, -1, &bytes) && bytes == 0);
    tokenizer_close(&tokenizer);
    ck_assert_ptr_null(tokenizer);
    tokenizer_close(&tokenizer);
}
END_TEST

START_TEST(bad_vocabularies)
{
    static const struct wrong wrongs[] = {
        {.model = "bert", .result = -ENOTSUP, .sentence = "'bert' is not handled"},
        {.pre = "jais-2", .result = -ENOTSUP, .sentence = "'jais-2' is not handled"},
        {.no_kinds = true, .result = -EBADMSG, .sentence = "no tokenizer.ggml.token_type"},
        {.no_merges = true, .result = -EBADMSG, .sentence = "no tokenizer.ggml.merges"},
        {.kind_type = TND_VALUE_U32, .result = -EBADMSG, .sentence = "array of type 4, expected 5"},
        {.kind_type = TND_VALUE_F32, .result = -EBADMSG, .sentence = "array of type 6, expected 5"},
        {.token_type_count = 8, .result = -EBADMSG, .sentence = "8 items, expected one for each of 9"},
        {.token_type_count = 10, .result = -EBADMSG, .sentence = "10 items, expected one for each of 9"},
        {.token_array_type = TND_VALUE_I32, .result = -EBADMSG, .sentence = "array of type 5, expected 8"},
        {.last_kind = 7, .result = -EBADMSG, .sentence = "token 8 is of kind"},
        {.last_kind = UINT32_MAX, .result = -EBADMSG, .sentence = "token 8 is of kind"},
        {.last_kind = 6, .result = -EBADMSG, .sentence = "token 8 is a byte"},
        {.merge = "ab", .result = -EBADMSG, .sentence = "item 1 has no space"},
        {.merge = "", .result = -EBADMSG, .sentence = "item 1 has no space"},
        {.merge = "a x", .result = -EBADMSG, .sentence = "no token for the second"},
        {.merge = "x a", .result = -EBADMSG, .sentence = "no token for the first"},
        {.merge = "a a", .result = -EBADMSG, .sentence = "no token for the two together"},
        {.merge = "a ", .result = -EBADMSG, .sentence = "no token for the second"},
        {.merge = "a <|im_end|>", .result = -EBADMSG, .sentence = "no token for the second"},
        {.merge = "\xFF b", .result = -EBADMSG, .sentence = "no token for the first"},
        {.token = "\xFF\xFE", .result = -EBADMSG, .sentence = "no token for the second"},
        {.token = "a", .result = -EBADMSG, .sentence = "no token for the second"},
        {.token = "", .result = -EBADMSG, .sentence = "no token for the second"},
        {.eos = 9, .result = -EBADMSG, .sentence = "eos_token_id is 9, of 9 tokens"},
        {.eos = UINT32_MAX, .result = -EBADMSG, .sentence = "of 9 tokens"},
        {.model = "llama", .result = -EBADMSG, .sentence = "no tokenizer.ggml.scores"},
    };

    for (size_t i = 0; i < COUNT(wrongs); i++) {
        static struct file file;
        struct tokenizer *tokenizer = NULL;
        struct failure failure = {{0}};
        int r;

        file = (struct file){.count = 0};
        put_vocabulary(&file, &wrongs[i]);
        write_gguf(&file);
        r = open_gguf(&tokenizer, &failure);
        ck_assert_msg(r == wrongs[i].result, "case %zu: %d, not %d: %s", i, r, wrongs[i].result, failure.text);
        ck_assert_msg(strstr(failure.text, wrongs[i].sentence), "case %zu: '%s' without '%s'", i, failure.text,
                      wrongs[i].sentence);
        ck_assert_ptr_null(tokenizer);
    }
}
END_TEST

/* ---- SentencePiece --------------------------------------------------------------------------------------------- */

#define WORD_A "\xE2\x96\x81" "a"

static void put_pieces(struct file *file, size_t score_count, float score)
{
    static const char *const pieces[] = {"<unk>", "<s>", "</s>", "<0xE6>", "\xE2\x96\x81", "a", WORD_A};
    static const uint32_t piece_kinds[] = {2, 3, 3, 6, 1, 1, 1};

    put_meta_text(file, KEY("model"), "llama");
    put_texts(file, KEY("tokens"), pieces, COUNT(pieces));
    put_array(file, KEY("token_type"), TND_VALUE_I32, COUNT(pieces));
    for (size_t i = 0; i < COUNT(pieces); i++)
        put_number(file, piece_kinds[i], 4);
    put_array(file, KEY("scores"), TND_VALUE_F32, score_count);
    for (size_t i = 0; i < score_count; i++)
        put(file, &score, sizeof(score));
    put_meta_number(file, KEY("bos_token_id"), 1);
    put_meta_number(file, KEY("unknown_token_id"), 0);
}

START_TEST(pieces_without_all_bytes)
{
    static struct file file;
    struct tokenizer *tokenizer;
    struct failure failure;

    file = (struct file){.count = 0};
    put_pieces(&file, 7, -1);
    write_gguf(&file);
    ck_assert_msg(open_gguf(&tokenizer, &failure) == 0, "%s", failure.text);
    check_encoded(tokenizer, "a", TOKENIZER_BEGIN, (const int32_t[]){1, 6}, 2);
    check_encoded(tokenizer, "a\xE6", 0, (const int32_t[]){6, 3}, 2);          /* cut, and its byte has a token */
    check_encoded(tokenizer, "a\xE6\x97\xA5xy", 0, (const int32_t[]){6, 0}, 2); /* one for all that is unknown */
    check_encoded(tokenizer, "a\xE7", 0, (const int32_t[]){6, 0}, 2);
    check_encoded(tokenizer, "", 0, NULL, 0);
    tokenizer_close(&tokenizer);
}
END_TEST

START_TEST(bad_scores)
{
    static const struct {
        size_t count;
        float score;
        const char *sentence;
    } wrongs[] = {{6, 0, "6 items"}, {8, 0, "8 items"}, {0, 0, "0 items"}, {7, __builtin_nanf(""), "not a number"}};

    for (size_t i = 0; i < COUNT(wrongs); i++) {
        static struct file file;
        struct tokenizer *tokenizer = NULL;
        struct failure failure = {{0}};

        file = (struct file){.count = 0};
        put_pieces(&file, wrongs[i].count, wrongs[i].score);
        write_gguf(&file);
        ck_assert_int_eq(open_gguf(&tokenizer, &failure), -EBADMSG);
        ck_assert_msg(strstr(failure.text, wrongs[i].sentence), "%s", failure.text);
    }
}
END_TEST

/* ---- tokenizer.json -------------------------------------------------------------------------------------------- */

static const char good_json[] =
    "{\"normalizer\":{\"type\":\"NFC\"},"
    "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true},{\"id\":9,\"content\":\"<t>\",\"special\":false,"
    "\"lstrip\":true,\"rstrip\":true}],"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":null,\"vocab\":{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"1\":4,"
    "\"\xC4\xA0" "ab\":5},\"merges\":[\"a b\",[\"\xC4\xA0\",\"ab\"]]}}";

/* Writes good_json with the first `from` as `to`. */
static void write_changed(const char *from, const char *to)
{
    char json[4096];
    const char *at = strstr(good_json, from);

    ck_assert_msg(at != NULL, "%s", from);
    snprintf(json, sizeof(json), "%.*s%s%s", (int)(at - good_json), good_json, to, at + strlen(from));
    write_file("tokenizer.json", json, strlen(json));
}

static void write_plain_gguf(void)
{
    static struct file file;

    file = (struct file){.count = 0};
    put_meta_text(&file, "general.architecture", "llama");
    write_gguf(&file);
}

START_TEST(json)
{
    static const struct {
        const char *from, *to;
        int result;
        const char *sentence;
    } cases[] = {
        {"{", "{", 0, ""},
        {"{", "[", -EBADMSG, "no object of JSON"},
        {"}}", "}", -EBADMSG, "no object of JSON"},
        {"BPE", "Unigram", -ENOTSUP, "'Unigram'"},
        {"NFC", "Lowercase", -ENOTSUP, "'Lowercase'"},
        {"Digits", "Whitespace", -ENOTSUP, "pre_tokenizer"},
        {"\"individual_digits\":true", "\"individual_digits\":false", -ENOTSUP, "pre_tokenizer"},
        {"\"add_prefix_space\":false", "\"add_prefix_space\":true", -ENOTSUP, "pre_tokenizer"},
        {"[{\"type\":\"Digits\"", "7,\"x\":[{\"type\":\"Digits\"", -ENOTSUP, "pre_tokenizer"},
        {"\"a\":0", "\"a\":-1", -EBADMSG, "token 'a' has no number"},
        {"\"a\":0", "\"a\":0.5", -EBADMSG, "token 'a' has no number"},
        {"\"a\":0", "\"a\":1e300", -EBADMSG, "token 'a' has no number"},
        {"\"a\":0", "\"a\":1048576", -EBADMSG, "token 'a' has no number"},
        {"\"a\":0", "\"a\":\"0\"", -EBADMSG, "token 'a' has no number"},
        {"\"a\":0", "\"a\":1", -EBADMSG, "no token for the first"},
        {"\"id\":6", "\"id\":-6", -EBADMSG, "no id below"},
        {"\"id\":6", "\"id\":0", -EBADMSG, "no token for the first"},
        {"\"content\":\"<t>\"", "\"content\":7", -EBADMSG, "no content"},
        {"\"lstrip\":true", "\"single_word\":true", -ENOTSUP, "whole word"},
        {"\"merges\":[", "\"merges\":{\"a\":1},\"x\":[", -EBADMSG, "no list of merges"},
        {"\"a b\"", "\"ab\"", -EBADMSG, "merge 0 is no pair"},
        {"\"a b\"", "[\"a\"]", -EBADMSG, "merge 0 is no pair"},
        {"\"a b\"", "[]", -EBADMSG, "merge 0 is no pair"},
        {"\"a b\"", "[1,2]", -EBADMSG, "merge 0 is no pair"},
        {"\"a b\"", "[\"a\",\"c\"]", -EBADMSG, "no token for the second"},
        {"\"vocab\":{", "\"vocab\":[],\"x\":{", -EBADMSG, "no object vocab"},
        {"\"unk_token\":null", "\"end_of_word_suffix\":\"</w>\"", -ENOTSUP, "suffix"},
        {"\"added_tokens\":[", "\"added_tokens\":7,\"x\":[", 0, ""},
        {"\"single\":[", "\"single\":7,\"x\":[", 0, ""},
    };

    write_plain_gguf();
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tokenizer *tokenizer = NULL;
        struct failure failure = {{0}};
        int r;

        write_changed(cases[i].from, cases[i].to);
        r = open_gguf(&tokenizer, &failure);
        ck_assert_msg(r == cases[i].result, "case %zu: %d, not %d: %s", i, r, cases[i].result, failure.text);
        ck_assert_msg(strstr(failure.text, cases[i].sentence), "case %zu: '%s' without '%s'", i, failure.text,
                      cases[i].sentence);
        tokenizer_close(&tokenizer);
    }
    remove_file("tokenizer.json");
}
END_TEST

START_TEST(json_tokens)
{
    struct tokenizer *tokenizer;
    struct failure failure;

    write_plain_gguf();
    write_changed("{", "{");
    ck_assert_msg(open_gguf(&tokenizer, &failure) == 0, "%s", failure.text);
    ck_assert_uint_eq(tokenizer_count(tokenizer), 10);
    check_encoded(tokenizer, "ab ab11", TOKENIZER_BEGIN, (const int32_t[]){6, 3, 5, 4, 4}, 5);
    check_encoded(tokenizer, "a \n <t>\t\xE3\x80\x80" "b<s>", 0, (const int32_t[]){0, 9, 1}, 3);
    tokenizer_close(&tokenizer);
    remove_file("tokenizer.json");
    ck_assert_int_eq(open_gguf(&tokenizer, &failure), -ENOENT);
    ck_assert_msg(strstr(failure.text, "tokenizer.json"), "%s", failure.text);
    write_changed("{", "{");
    write_file("tokenizer_config.json", "{", 1);
    ck_assert_int_eq(open_gguf(&tokenizer, &failure), -EBADMSG);
    ck_assert_msg(strstr(failure.text, "tokenizer_config.json"), "%s", failure.text);
    remove_file("tokenizer_config.json");
    remove_file("tokenizer.json");
}
END_TEST

/* ---- Any file ---------------------------------------------------------------------------------------------------- */

static uint32_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(*seed >> 33);
}

static void use(struct tokenizer *tokenizer)
{
    static const char text[] = "abc ab<|im_end|> 1a\xE6\x97\xA5\xFF\xC4\xA0 a\xCC\x81<tool> <t> <s>  \xE2\x96\x81" "ab";
    static const struct chat_message messages[] = {{"system", "ab"}, {"user", "a <|im_end|>"}};
    struct failure failure = {{0}};
    struct tokenizer_stream stream;
    char *told = malloc(tokenizer_stream_room(tokenizer));
    int32_t *found = NULL;
    int64_t count;

    for (unsigned flags = 0; flags < 8; flags++) {
        count = tokenizer_encode(tokenizer, text, sizeof(text) - 1, flags, &found, &failure);
        ck_assert_int_ge(count, 0);
        for (int64_t i = 0; i < count; i++)
            ck_assert(found[i] >= 0 && (uint32_t)found[i] < tokenizer_count(tokenizer));
        free(found);
        found = NULL;
    }
    tokenizer_stream_init(&stream, tokenizer, true);
    for (int32_t i = -1; i <= (int32_t)tokenizer_count(tokenizer) && i < 1000; i++)
        ck_assert_uint_le(tokenizer_stream_next(&stream, i, told), tokenizer_stream_room(tokenizer));
    tokenizer_stream_end(&stream, told);
    if (chat_encode(tokenizer, messages, 2, &found, &failure) >= 0)
        free(found);
    else
        ck_assert_uint_gt(strlen(failure.text), 0);
    free(told);
}

/* Changes, cuts and doubles bytes of the good file and opens what comes out. Returns how many opened. */
static int mutate(const char *name, const uint8_t *good, size_t count, uint64_t seed)
{
    static const uint8_t extremes[] = {0, 1, 0x7F, 0xFF, '"', '[', '{', '9'};
    static uint8_t changed[2 << 16];
    int opened = 0;

    for (int i = 0; i < MUTATIONS; i++) {
        struct tokenizer *tokenizer = NULL;
        struct failure failure = {{0}};
        size_t bytes = count;
        int r;

        memcpy(changed, good, count);
        for (uint32_t left = 1 + draw(&seed) % 4; left; left--) {
            size_t at = draw(&seed) % bytes, run = 1 + draw(&seed) % 8;

            if (draw(&seed) % 4) {
                changed[at] = (uint8_t)(draw(&seed) % 3 ? draw(&seed) : extremes[draw(&seed) % sizeof(extremes)]);
            } else if (draw(&seed) % 2 && bytes - at > run) {
                memmove(changed + at, changed + at + run, bytes - at - run);
                bytes -= run;
            } else {
                memmove(changed + at + run, changed + at, bytes - at);
                bytes += run;
            }
        }
        write_file(name, changed, bytes);
        r = open_gguf(&tokenizer, &failure);
        if (r == 0) {
            use(tokenizer);
            opened++;
        } else if (r != ANY - 1) {
            ck_assert_msg(failure.text[0] && !tokenizer, "mutation %d of %s: %d without a sentence", i, name, r);
        }
        tokenizer_close(&tokenizer);
    }
    return opened;
}

static size_t read_written(uint8_t *bytes, size_t room)
{
    char path[256];
    FILE *file;
    size_t count;

    snprintf(path, sizeof(path), "%s/model.gguf", folder);
    file = fopen(path, "rb");
    count = fread(bytes, 1, room, file);
    fclose(file);
    return count;
}

START_TEST(changed_ggufs)
{
    static const char template[] = "{'<|im_start|>system\\nab<|im_end|>'}{{bos_token}}| trim";
    static struct file file;
    static uint8_t good[1 << 16];

    file = (struct file){.count = 0};
    put_vocabulary(&file, &(struct wrong){.pre = "qwen2"});
    put_meta_text(&file, "tokenizer.chat_template", template);
    write_gguf(&file);
    ck_assert_int_gt(mutate("model.gguf", good, read_written(good, sizeof(good)), 1), MUTATIONS / 20);
    file = (struct file){.count = 0};
    put_pieces(&file, 7, -1);
    put_meta_text(&file, "tokenizer.chat_template", template);
    write_gguf(&file);
    ck_assert_int_gt(mutate("model.gguf", good, read_written(good, sizeof(good)), 2), MUTATIONS / 20);
}
END_TEST

START_TEST(changed_jsons)
{
    write_plain_gguf();
    ck_assert_int_gt(mutate("tokenizer.json", (const uint8_t *)good_json, strlen(good_json), 3), MUTATIONS / 20);
    remove_file("tokenizer.json");
}
END_TEST

/* ---- Streams and limits ------------------------------------------------------------------------------------------ */

/* As Python's bytes.decode("utf-8", errors="replace") says. */
static const struct {
    const char *bytes, *text;
} decoded[] = {
#define R "\xEF\xBF\xBD"
    {"a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x91\xA9z", "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x91\xA9z"},
    {"\x80\xBF", R R}, {"\xC0\xAF", R R}, {"\xE0\x80\xAF", R R R}, {"\xF0\x80\x80\xAF", R R R R},
    {"\xED\xA0\x80", R R R}, {"\xF4\x90\x80\x80", R R R R}, {"\xF5\x80", R R}, {"\xFF", R},
    {"\xE6\x97", R}, {"\xE6\x97" "a", R "a"}, {"\xF0\x9F\x91", R}, {"\xF0\x9F\xC3\xA9", R "\xC3\xA9"},
    {"\xC3\xC3\xA9", R "\xC3\xA9"}, {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF" "A", R R R R "A"}, {"\xC3", R}, {"", ""},
};

START_TEST(streams)
{
    static struct file file;
    struct tokenizer *tokenizer;
    struct failure failure;

    file = (struct file){.count = 0};
    put_meta_text(&file, KEY("model"), "llama");
    put_array(&file, KEY("tokens"), TND_VALUE_STRING, 256);
    for (int i = 0; i < 256; i++) {
        char text[8];

        snprintf(text, sizeof(text), "<0x%02X>", (unsigned)i);
        put_text(&file, text);
    }
    put_array(&file, KEY("token_type"), TND_VALUE_I32, 256);
    for (int i = 0; i < 256; i++)
        put_number(&file, 6, 4);
    put_array(&file, KEY("scores"), TND_VALUE_F32, 256);
    for (int i = 0; i < 256; i++)
        put_number(&file, 0, 4);
    write_gguf(&file);
    ck_assert_msg(open_gguf(&tokenizer, &failure) == 0, "%s", failure.text);
    for (size_t i = 0; i < COUNT(decoded); i++) {
        struct tokenizer_stream stream;
        char text[64];
        size_t bytes = 0;

        tokenizer_stream_init(&stream, tokenizer, true);
        for (const char *at = decoded[i].bytes; *at; at++)
            bytes += tokenizer_stream_next(&stream, (uint8_t)*at, text + bytes);
        bytes += tokenizer_stream_end(&stream, text + bytes);
        ck_assert_msg(bytes == strlen(decoded[i].text) && memcmp(text, decoded[i].text, bytes) == 0, "case %zu: %.*s",
                      i, (int)bytes, text);
        ck_assert_uint_eq(tokenizer_stream_end(&stream, text), 0);
    }
    tokenizer_close(&tokenizer);
}
END_TEST

START_TEST(limits)
{
    static struct file file;
    struct tokenizer *tokenizer;
    struct failure failure = {{0}};
    int32_t *found;
    char *text = calloc(1, TOKENIZER_TEXT_BYTES_MAX + 1);

    file = (struct file){.count = 0};
    put_vocabulary(&file, &(struct wrong){.result = 0});
    write_gguf(&file);
    ck_assert_int_eq(open_gguf(&tokenizer, &failure), 0);
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, TOKENIZER_TEXT_BYTES_MAX + 1, 0, &found, &failure), -EFBIG);
    ck_assert_msg(strstr(failure.text, "at most 8388608"), "%s", failure.text);
    memset(text, 'a', 5000);
    text[5000] = 0;
    tokenizer_close(&tokenizer);
    file = (struct file){.count = 0};
    put_vocabulary(&file, &(struct wrong){.token = text});
    write_gguf(&file);
    ck_assert_int_eq(open_gguf(&tokenizer, &failure), -EFBIG);
    ck_assert_msg(strstr(failure.text, "token 1 has 5000 bytes, at most 4096"), "%s", failure.text);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");
    TCase *tests = tcase_create("text");
    int status;

    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    tcase_add_test(tests, good_vocabulary);
    tcase_add_test(tests, bad_vocabularies);
    tcase_add_test(tests, pieces_without_all_bytes);
    tcase_add_test(tests, bad_scores);
    tcase_add_test(tests, json);
    tcase_add_test(tests, json_tokens);
    tcase_add_test(tests, changed_ggufs);
    tcase_add_test(tests, changed_jsons);
    tcase_add_test(tests, streams);
    tcase_add_test(tests, limits);
    suite_add_tcase(suite, tests);
    status = run_suite(suite);
    remove_file("model.gguf");
    remove_file("tokenizer.json");
    remove_file("tokenizer_config.json");
    rmdir(folder);
    return status;
}
