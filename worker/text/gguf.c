/* SPDX-License-Identifier: Apache-2.0 */

/* A tokenizer of a GGUF's metadata: tokenizer.ggml.* and tokenizer.chat_template. */

#include <errno.h>
#include <string.h>

#include "text/parts.h"

#define KEY(name) "tokenizer.ggml." name

/* How the models of a GGUF's tokenizer.ggml.pre split words. */
static const struct split {
    const char *name;
    enum word_rule rule;
    bool normalizes, whole_words, begins;
} splits[] = {
    {.name = "gpt-2", .rule = WORDS_GPT2},
    {.name = "smollm", .rule = WORDS_SMOLLM},
    {.name = "starcoder", .rule = WORDS_SMOLLM},
    {.name = "refact", .rule = WORDS_SMOLLM},
    {.name = "qwen2", .rule = WORDS_QWEN2, .normalizes = true},
    {.name = "deepseek-r1-qwen", .rule = WORDS_QWEN2, .normalizes = true},
    {.name = "llama-bpe", .rule = WORDS_LLAMA3, .whole_words = true, .begins = true},
    {.name = "llama3", .rule = WORDS_LLAMA3, .whole_words = true, .begins = true},
    {.name = "llama-v3", .rule = WORDS_LLAMA3, .whole_words = true, .begins = true},
};

static bool is_text(const struct tnd_value *value, const char *text)
{
    return value->as.string.bytes == strlen(text) && memcmp(value->as.string.data, text, strlen(text)) == 0;
}

/* A value of that type: 0 it is there, -ENOENT, -EBADMSG another type. */
static int find_value(const struct tnd_model *model, const char *key, enum tnd_value_type type,
                      struct tnd_value *ret_value, struct failure *failure)
{
    const struct tnd_meta *meta = tnd_model_meta_find(model, key);

    /* Constants are returned: the compiler sees that *ret_value is set where it is used. */
    if (!meta) {
        fail(failure, -ENOENT, "the model has no %s", key);
        return -ENOENT;
    }
    if (meta->value.type != type) {
        fail(failure, -EBADMSG, "%s is of type %d, expected %d", key, (int)meta->value.type, (int)type);
        return -EBADMSG;
    }
    *ret_value = meta->value;
    return 0;
}

/* An array that has to be there; count: of how many items, 0 any. */
static int find_array(const struct tnd_model *model, const char *key, enum tnd_value_type type, uint64_t count,
                      struct tnd_value *ret_array, struct failure *failure)
{
    int r = find_value(model, key, TND_VALUE_ARRAY, ret_array, failure);

    if (r < 0)
        return r == -ENOENT ? -EBADMSG : r;
    if (ret_array->as.array.type != type)
        return fail(failure, -EBADMSG, "%s is an array of type %d, expected %d", key, (int)ret_array->as.array.type,
                    (int)type);
    if (count && ret_array->as.array.count != count)
        return fail(failure, -EBADMSG, "%s has %llu items, expected one for each of %llu tokens", key,
                    (unsigned long long)ret_array->as.array.count, (unsigned long long)count);
    return 0;
}

/* Leaves *flag as it is where the key is not there. */
static int read_flag(const struct tnd_model *model, const char *key, bool *flag, struct failure *failure)
{
    struct tnd_value value;
    int r = find_value(model, key, TND_VALUE_BOOL, &value, failure);

    if (r == 0)
        *flag = value.as.b;
    return r == -ENOENT ? 0 : r;
}

/* *ret_token: -1 where the key is not there. */
static int read_token(const struct tnd_model *model, const char *key, uint32_t count, int32_t *ret_token,
                      struct failure *failure)
{
    struct tnd_value value;
    int r = find_value(model, key, TND_VALUE_U32, &value, failure);

    *ret_token = -1;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (value.as.u >= count)
        return fail(failure, -EBADMSG, "%s is %llu, of %u tokens", key, (unsigned long long)value.as.u, count);
    *ret_token = (int32_t)value.as.u;
    return 0;
}

static int read_tokens(struct vocabulary *vocabulary, const struct tnd_model *model, enum spelling spelling,
                       struct failure *failure)
{
    struct tnd_value texts, kinds, scores = {.type = TND_VALUE_ARRAY}, text, kind, score;
    int r = find_array(model, KEY("tokens"), TND_VALUE_STRING, 0, &texts, failure);

    if (r == 0)
        r = find_array(model, KEY("token_type"), TND_VALUE_I32, texts.as.array.count, &kinds, failure);
    if (r == 0 && spelling == SPELLING_WORDS)
        r = find_array(model, KEY("scores"), TND_VALUE_F32, texts.as.array.count, &scores, failure);
    if (r == 0)
        r = vocabulary_init(vocabulary, spelling, texts.as.array.count, failure);
    for (uint32_t i = 0; r == 0 && tnd_value_next(&texts, &text) && tnd_value_next(&kinds, &kind); i++) {
        int64_t number = kind.as.i >= TOKEN_NORMAL && kind.as.i <= TOKEN_BYTE ? kind.as.i : 0;

        score.as.f = 0;
        tnd_value_next(&scores, &score);
        r = vocabulary_set(vocabulary, i, text.as.string.data, text.as.string.bytes, (enum token_kind)number,
                           (float)score.as.f, failure);
    }
    return r < 0 ? r : vocabulary_index(vocabulary, failure);
}

/* Each "left right"; a space may stand at the beginning. */
static int read_merges(struct vocabulary *vocabulary, const struct tnd_model *model, struct failure *failure)
{
    struct tnd_value merges, merge;
    int r = find_array(model, KEY("merges"), TND_VALUE_STRING, 0, &merges, failure);

    if (r == 0)
        r = vocabulary_merges_init(vocabulary, merges.as.array.count, failure);
    for (uint32_t rank = 0; r == 0 && tnd_value_next(&merges, &merge); rank++) {
        const char *text = merge.as.string.data;
        size_t bytes = merge.as.string.bytes;
        const char *space = bytes > 1 ? memchr(text + 1, ' ', bytes - 1) : NULL;

        if (!space)
            return fail(failure, -EBADMSG, KEY("merges") ": item %u has no space between two tokens", rank);
        r = vocabulary_merge_add(vocabulary, rank, text, (size_t)(space - text), space + 1,
                                 bytes - (size_t)(space + 1 - text), failure);
    }
    return r;
}

static int read_byte_pairs(struct tokenizer *tokenizer, const struct tnd_model *model, struct failure *failure)
{
    struct tnd_value pre;
    const struct split *split = NULL;
    int r = find_value(model, KEY("pre"), TND_VALUE_STRING, &pre, failure);

    if (r == -ENOENT)
        return fail(failure, -ENOTSUP, "the model does not say how its tokenizer splits words: no " KEY("pre"));
    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(splits) / sizeof(*splits); i++) {
        if (is_text(&pre, splits[i].name))
            split = &splits[i];
    }
    if (!split)
        return fail(failure, -ENOTSUP, KEY("pre") " '%.*s' is not handled",
                    (int)(pre.as.string.bytes < 40 ? pre.as.string.bytes : 40), pre.as.string.data);
    tokenizer->normalizes = split->normalizes;
    tokenizer->whole_words = split->whole_words;
    tokenizer->begins = split->begins;
    r = words_create(split->rule, &tokenizer->words, failure);
    if (r == 0)
        r = read_tokens(&tokenizer->vocabulary, model, SPELLING_BYTES, failure);
    return r < 0 ? r : read_merges(&tokenizer->vocabulary, model, failure);
}

static int read_sentence_pieces(struct tokenizer *tokenizer, const struct tnd_model *model, struct failure *failure)
{
    struct vocabulary *vocabulary = &tokenizer->vocabulary;
    bool space = true;
    int r = read_flag(model, KEY("add_space_prefix"), &space, failure);

    tokenizer->begins = true;
    tokenizer->space_prefix = space ? SPACE_ALWAYS : SPACE_NEVER;
    if (r == 0)
        r = read_tokens(vocabulary, model, SPELLING_WORDS, failure);
    if (r == 0)
        r = read_token(model, KEY("unknown_token_id"), vocabulary->count, &vocabulary->unknown, failure);
    vocabulary->unknown_joins = true;
    return r;
}

static int read_frame(struct tokenizer *tokenizer, const struct tnd_model *model, struct failure *failure)
{
    static const char *const ends[] = {KEY("eos_token_id"), KEY("eot_token_id"), KEY("eom_token_id")};
    struct tnd_value template;
    int r = read_flag(model, KEY("add_bos_token"), &tokenizer->begins, failure);

    if (r == 0)
        r = read_token(model, KEY("bos_token_id"), tokenizer->vocabulary.count, &tokenizer->bos, failure);
    for (size_t i = 0; i < sizeof(ends) / sizeof(*ends) && r == 0; i++) {
        int32_t token = -1;

        r = read_token(model, ends[i], tokenizer->vocabulary.count, &token, failure);
        tokenizer_add_end(tokenizer, token);
    }
    if (r < 0)
        return r;
    r = find_value(model, "tokenizer.chat_template", TND_VALUE_STRING, &template, failure);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    return tokenizer_set_chat_template(tokenizer, template.as.string.data, template.as.string.bytes, failure);
}

int tokenizer_read_gguf(struct tokenizer *tokenizer, const struct tnd_model *model, struct failure *failure)
{
    struct tnd_value kind;
    int r = find_value(model, KEY("model"), TND_VALUE_STRING, &kind, failure);

    if (r < 0)
        return r;
    if (is_text(&kind, "gpt2"))
        r = read_byte_pairs(tokenizer, model, failure);
    else if (is_text(&kind, "llama"))
        r = read_sentence_pieces(tokenizer, model, failure);
    else
        return fail(failure, -ENOTSUP, KEY("model") " '%.*s' is not handled, gpt2 and llama are",
                    (int)(kind.as.string.bytes < 40 ? kind.as.string.bytes : 40), kind.as.string.data);
    return r < 0 ? r : read_frame(tokenizer, model, failure);
}
