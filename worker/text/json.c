/* SPDX-License-Identifier: Apache-2.0 */

/* A tokenizer of tokenizer.json, as the Hugging Face package "tokenizers" writes it, with tokenizer_config.json. */

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "text/parts.h"

/* The largest ones known have 33 MB, and 3 MB. */
enum { TOKENIZER_BYTES_MAX = 64 << 20, CONFIG_BYTES_MAX = 8 << 20, STEPS_MAX = 8 };

static const cJSON *get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* A member's string, "" where it is none. */
static const char *get_text(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(get(object, key));

    return text ? text : "";
}

static bool get_flag(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(get(object, key));
}

static bool is_type(const cJSON *object, const char *type)
{
    return strcmp(get_text(object, "type"), type) == 0;
}

/* A token's number, -1 where it is none that a vocabulary may have. */
static int32_t get_token(const cJSON *number)
{
    if (!cJSON_IsNumber(number) || !(number->valuedouble >= 0) || number->valuedouble >= VOCABULARY_TOKENS_MAX ||
        number->valuedouble != number->valueint)
        return -1;
    return number->valueint;
}

/* What a normalizer and the like does, one after the other: the members of a Sequence, else the one thing. */
struct steps {
    const cJSON *at[STEPS_MAX];
    size_t count;
};

static int find_steps(const cJSON *whole, const char *members, struct steps *ret_steps, struct failure *failure)
{
    const cJSON *step;

    *ret_steps = (struct steps){.count = 0};
    if (!is_type(whole, "Sequence")) {
        if (cJSON_IsObject(whole))
            ret_steps->at[ret_steps->count++] = whole;
        return 0;
    }
    cJSON_ArrayForEach(step, get(whole, members)) {
        if (ret_steps->count == STEPS_MAX)
            return fail(failure, -ENOTSUP, "tokenizer.json has more than %d %s in turn", STEPS_MAX, members);
        ret_steps->at[ret_steps->count++] = step;
    }
    return 0;
}

static bool is_space_to_mark(const cJSON *step)
{
    return is_type(step, "Replace") && strcmp(get_text(get(step, "pattern"), "String"), " ") == 0 &&
           strcmp(get_text(step, "content"), WORD_MARK) == 0;
}

/* Form C, or a space before the text and U+2581 for each. *ret_marks: spaces are replaced. */
static int read_normalizer(struct tokenizer *tokenizer, const cJSON *root, bool *ret_marks, struct failure *failure)
{
    struct steps steps;
    int r = find_steps(get(root, "normalizer"), "normalizers", &steps, failure);

    *ret_marks = false;
    for (size_t i = 0; i < steps.count && r == 0; i++) {
        const cJSON *step = steps.at[i];

        if (is_type(step, "NFC"))
            tokenizer->normalizes = true;
        else if (is_type(step, "Prepend") && strcmp(get_text(step, "prepend"), WORD_MARK) == 0)
            tokenizer->space_prefix = SPACE_ALWAYS;
        else if (is_space_to_mark(step))
            *ret_marks = true;
        else
            r = fail(failure, -ENOTSUP, "tokenizer.json: its normalizer '%.40s' is not handled",
                     get_text(step, "type"));
    }
    return r;
}

/* Split by one of the known expressions, of which each match is a word. -1: another. */
static int rule_of_split(const cJSON *step)
{
    bool removes = strcmp(get_text(step, "behavior"), "Removed") == 0 && get_flag(step, "invert");
    bool isolates = strcmp(get_text(step, "behavior"), "Isolated") == 0 && !get_flag(step, "invert");

    return is_type(step, "Split") && (removes || isolates) ? words_rule_of(get_text(get(step, "pattern"), "Regex"))
                                                           : -1;
}

/* [Split, ByteLevel], [Digits, ByteLevel] or [ByteLevel]. -1: none of these. */
static int rule_of_steps(const struct steps *steps)
{
    const cJSON *last = steps->count ? steps->at[steps->count - 1] : NULL;

    if (!is_type(last, "ByteLevel") || get_flag(last, "add_prefix_space"))
        return -1;
    if (cJSON_IsFalse(get(last, "use_regex")))
        return steps->count == 2 ? rule_of_split(steps->at[0]) : -1;
    if (steps->count == 2 && is_type(steps->at[0], "Digits") && get_flag(steps->at[0], "individual_digits"))
        return WORDS_SMOLLM;
    return steps->count == 1 ? WORDS_GPT2 : -1;
}

/* Spaces are marked by the normalizer, or by a Metaspace that splits nothing. */
static int read_marked(struct tokenizer *tokenizer, const struct steps *steps, bool marks, struct failure *failure)
{
    const cJSON *step = steps->count == 1 ? steps->at[0] : NULL;
    const char *scheme = get_text(step, "prepend_scheme");

    if (marks && !steps->count)
        return 0;
    if (marks || !is_type(step, "Metaspace") || !cJSON_IsFalse(get(step, "split")) ||
        strcmp(get_text(step, "replacement"), WORD_MARK) != 0)
        return fail(failure, -ENOTSUP, "tokenizer.json: its pre_tokenizer '%.40s' is not handled as it is set",
                    get_text(step, "type"));
    tokenizer->space_prefix = strcmp(scheme, "always") == 0  ? SPACE_ALWAYS
                              : strcmp(scheme, "first") == 0 ? SPACE_FIRST
                                                             : SPACE_NEVER;
    tokenizer->space_once = true;
    return 0;
}

/* How text becomes words, and by that how tokens are spelled. */
static int read_splits(struct tokenizer *tokenizer, const cJSON *root, enum spelling *ret_spelling,
                       struct failure *failure)
{
    struct steps steps;
    bool marks;
    int rule, r = read_normalizer(tokenizer, root, &marks, failure);

    if (r == 0)
        r = find_steps(get(root, "pre_tokenizer"), "pretokenizers", &steps, failure);
    if (r < 0)
        return r;
    rule = rule_of_steps(&steps);
    *ret_spelling = rule >= 0 ? SPELLING_BYTES : SPELLING_WORDS;
    if (rule < 0)
        return read_marked(tokenizer, &steps, marks, failure);
    if (marks || tokenizer->space_prefix != SPACE_NEVER)
        return fail(failure, -ENOTSUP, "tokenizer.json: a normalizer that marks spaces, and bytes as characters");
    return words_create((enum word_rule)rule, &tokenizer->words, failure);
}

/* One more than the highest number of a token; -EBADMSG. */
static int64_t count_tokens(const cJSON *vocab, const cJSON *added, struct failure *failure)
{
    int32_t highest = -1;
    const cJSON *item;

    cJSON_ArrayForEach(item, vocab) {
        if (get_token(item) < 0)
            return fail(failure, -EBADMSG, "tokenizer.json: token '%.40s' has no number below %d", item->string,
                        VOCABULARY_TOKENS_MAX);
        highest = get_token(item) > highest ? get_token(item) : highest;
    }
    cJSON_ArrayForEach(item, added) {
        if (get_token(get(item, "id")) < 0 || !cJSON_IsString(get(item, "content")))
            return fail(failure, -EBADMSG, "tokenizer.json: an added token has no content, or no id below %d",
                        VOCABULARY_TOKENS_MAX);
        highest = get_token(get(item, "id")) > highest ? get_token(get(item, "id")) : highest;
    }
    return (int64_t)highest + 1;
}

static int add_token(struct vocabulary *vocabulary, const cJSON *item, struct failure *failure)
{
    const char *text = get_text(item, "content");
    uint32_t token = (uint32_t)get_token(get(item, "id"));
    int r;

    if (get_flag(item, "single_word"))
        return fail(failure, -ENOTSUP, "tokenizer.json: the added token '%.40s' is to be found as a whole word only",
                    text);
    r = vocabulary_set(vocabulary, token, text, strlen(text), get_flag(item, "special") ? TOKEN_CONTROL : TOKEN_ADDED,
                       0, failure);
    if (r == 0) {
        vocabulary->tokens[token].strips_left = get_flag(item, "lstrip");
        vocabulary->tokens[token].strips_right = get_flag(item, "rstrip");
    }
    return r;
}

static bool is_byte(const char *text)
{
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>';
}

static int read_tokens(struct vocabulary *vocabulary, const cJSON *root, enum spelling spelling,
                       struct failure *failure)
{
    const cJSON *model = get(root, "model"), *vocab = get(model, "vocab"), *added = get(root, "added_tokens"), *item;
    bool bytes = spelling == SPELLING_WORDS && get_flag(model, "byte_fallback");
    int64_t count = count_tokens(vocab, added, failure);
    int r = count < 0 ? (int)count : vocabulary_init(vocabulary, spelling, (uint64_t)count, failure);

    for (item = vocab ? vocab->child : NULL; item && r == 0; item = item->next)
        r = vocabulary_set(vocabulary, (uint32_t)item->valueint, item->string, strlen(item->string),
                           bytes && is_byte(item->string) ? TOKEN_BYTE : TOKEN_NORMAL, 0, failure);
    for (item = added ? added->child : NULL; item && r == 0; item = item->next)
        r = add_token(vocabulary, item, failure);
    return r < 0 ? r : vocabulary_index(vocabulary, failure);
}

/* "left right" or ["left", "right"]. */
static int add_merge(struct vocabulary *vocabulary, uint32_t rank, const cJSON *item, struct failure *failure)
{
    const char *left = cJSON_GetStringValue(cJSON_IsArray(item) ? item->child : item), *right = NULL;
    size_t left_bytes = 0;

    if (left && cJSON_IsArray(item)) {
        right = cJSON_GetStringValue(item->child->next);
        left_bytes = strlen(left);
    } else if (left) {
        right = strchr(left, ' ');
        left_bytes = right ? (size_t)(right++ - left) : 0;
    }
    if (!right)
        return fail(failure, -EBADMSG, "tokenizer.json: merge %u is no pair of tokens", rank);
    return vocabulary_merge_add(vocabulary, rank, left, left_bytes, right, strlen(right), failure);
}

static int read_merges(struct vocabulary *vocabulary, const cJSON *model, struct failure *failure)
{
    const cJSON *merges = get(model, "merges"), *item;
    uint32_t rank = 0;
    int r;

    if (!cJSON_IsArray(merges))
        return fail(failure, -EBADMSG, "tokenizer.json: its model has no list of merges");
    r = vocabulary_merges_init(vocabulary, (uint64_t)cJSON_GetArraySize(merges), failure);
    for (item = merges->child; item && r == 0; item = item->next)
        r = add_merge(vocabulary, rank++, item, failure);
    return r;
}

/* The token of that spelling, whatever it is for; -1: none. */
static int32_t find_token(const cJSON *root, const char *text)
{
    const cJSON *item = *text ? get(get(get(root, "model"), "vocab"), text) : NULL;

    if (item)
        return get_token(item);
    cJSON_ArrayForEach(item, get(root, "added_tokens")) {
        if (*text && strcmp(get_text(item, "content"), text) == 0)
            return get_token(get(item, "id"));
    }
    return -1;
}

static int read_model(struct tokenizer *tokenizer, const cJSON *root, struct failure *failure)
{
    struct vocabulary *vocabulary = &tokenizer->vocabulary;
    const cJSON *model = get(root, "model");
    enum spelling spelling;
    int r;

    if (!is_type(model, "BPE"))
        return fail(failure, -ENOTSUP, "tokenizer.json: a model of type '%.40s' is not handled, BPE is",
                    get_text(model, "type"));
    if (*get_text(model, "continuing_subword_prefix") || *get_text(model, "end_of_word_suffix"))
        return fail(failure, -ENOTSUP, "tokenizer.json: tokens that are spelled with a prefix or suffix inside words");
    if (!cJSON_IsObject(get(model, "vocab")))
        return fail(failure, -EBADMSG, "tokenizer.json: its model has no object vocab");
    r = read_splits(tokenizer, root, &spelling, failure);
    if (r == 0)
        r = read_tokens(vocabulary, root, spelling, failure);
    if (r == 0)
        r = read_merges(vocabulary, model, failure);
    tokenizer->whole_words = get_flag(model, "ignore_merges");
    vocabulary->unknown = find_token(root, get_text(model, "unk_token"));
    vocabulary->unknown_joins = get_flag(model, "fuse_unk");
    return r;
}

/* A template that begins with a special token: that is bos. */
static void read_template(struct tokenizer *tokenizer, const cJSON *root, const cJSON *template)
{
    const cJSON *single = get(template, "single");
    const char *text = get_text(get(single ? single->child : NULL, "SpecialToken"), "id");

    if (*text) {
        tokenizer->bos = find_token(root, text);
        tokenizer->begins = tokenizer->bos >= 0;
    }
}

/* "text" or {"content": "text"}. */
static int32_t named_token(const cJSON *root, const cJSON *config, const char *key)
{
    const cJSON *name = get(config, key);

    return find_token(root, cJSON_IsString(name) ? name->valuestring : get_text(name, "content"));
}

/* One text, or several of which one is the default. "": none. */
static const char *default_template(const cJSON *config)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, get(config, "chat_template")) {
        if (strcmp(get_text(item, "name"), "default") == 0)
            return get_text(item, "template");
    }
    return get_text(config, "chat_template");
}

/* Newer folders have the template in a file of its own. */
static int read_template_file(struct tokenizer *tokenizer, const char *folder, struct failure *failure)
{
    size_t bytes;
    char *text;
    int r = file_read(folder, "chat_template.jinja", CHAT_TEMPLATE_BYTES_MAX, &text, &bytes, failure);

    if (r == 0) {
        r = tokenizer_set_chat_template(tokenizer, text, bytes, failure);
        free(text);
    }
    return r == -ENOENT ? 0 : r;
}

static int read_config(struct tokenizer *tokenizer, const cJSON *root, const char *folder, struct failure *failure)
{
    cJSON *config = NULL;
    int r = file_read_json(folder, "tokenizer_config.json", CONFIG_BYTES_MAX, &config, failure);
    const char *template = default_template(config);
    int32_t bos = named_token(root, config, "bos_token");

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    tokenizer->bos = bos >= 0 ? bos : tokenizer->bos;
    if (cJSON_IsBool(get(config, "add_bos_token")))
        tokenizer->begins = get_flag(config, "add_bos_token");
    tokenizer_add_end(tokenizer, named_token(root, config, "eos_token"));
    r = *template ? tokenizer_set_chat_template(tokenizer, template, strlen(template), failure) : 0;
    cJSON_Delete(config);
    return r;
}

/* A token, or several. */
static void add_ends(struct tokenizer *tokenizer, const cJSON *ends)
{
    const cJSON *item;

    tokenizer_add_end(tokenizer, get_token(ends));
    cJSON_ArrayForEach(item, ends) {
        tokenizer_add_end(tokenizer, get_token(item));
    }
}

/* Chats may end otherwise than texts: generation_config.json lists all of it. */
static int read_ends(struct tokenizer *tokenizer, const char *folder, struct failure *failure)
{
    cJSON *config = NULL;
    int r = file_read_json(folder, "generation_config.json", CONFIG_BYTES_MAX, &config, failure);

    if (r == 0)
        add_ends(tokenizer, get(config, "eos_token_id"));
    cJSON_Delete(config);
    return r == -ENOENT ? 0 : r;
}

int tokenizer_read_json(struct tokenizer *tokenizer, const char *folder, struct failure *failure)
{
    struct steps processors;
    cJSON *root = NULL;
    int r = file_read_json(folder, "tokenizer.json", TOKENIZER_BYTES_MAX, &root, failure);

    if (r == 0)
        r = read_model(tokenizer, root, failure);
    if (r == 0)
        r = find_steps(get(root, "post_processor"), "processors", &processors, failure);
    for (size_t i = 0; r == 0 && i < processors.count; i++) {
        if (is_type(processors.at[i], "TemplateProcessing"))
            read_template(tokenizer, root, processors.at[i]);
    }
    if (r == 0)
        r = read_config(tokenizer, root, folder, failure);
    if (r == 0 && !tokenizer->chat_template)
        r = read_template_file(tokenizer, folder, failure);
    if (r == 0)
        r = read_ends(tokenizer, folder, failure);
    cJSON_Delete(root);
    return r;
}
