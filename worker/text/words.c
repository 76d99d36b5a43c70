/* SPDX-License-Identifier: Apache-2.0 */
#include "text/words.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* The longest words take a few steps a byte; the longest text is below a hundredth of this. */
#define STEPS_MAX 1000000000

/* White_Space: PCRE2's own \s has U+180E besides. */
#define SPACE "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SHORTENED "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
/* What the two after GPT-2 have in common behind letters and digits. */
#define REST "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

static const char *const expressions[WORDS_RULE_COUNT] = {
    [WORDS_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|[" SPACE "]+(?![^" SPACE
                   "])|[" SPACE "]+",
    /* Each digit is split off first: the space before one is the end of its text. */
    [WORDS_SMOLLM] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}]+|[" SPACE "]+(?![^" SPACE
                     "\\p{N}])|[" SPACE "]+",
    [WORDS_QWEN2] = SHORTENED "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" REST,
    [WORDS_LLAMA3] = SHORTENED "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" REST,
};

struct words {
    pcre2_code *code;
    pcre2_match_context *context;
};

struct words_state {
    pcre2_match_data *data;
};

int words_create(enum word_rule rule, struct words **ret_words, struct failure *failure)
{
    struct words *words = calloc(1, sizeof(*words));
    PCRE2_SIZE offset;
    int error;

    if (!words)
        return fail(failure, -ENOMEM, "no memory for an expression");
    words->code = pcre2_compile((PCRE2_SPTR)expressions[rule], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                                &offset, NULL);
    words->context = pcre2_match_context_create(NULL);
    if (!words->code || !words->context) {
        words_destroy(&words);
        return fail(failure, -ENOTSUP, "PCRE2 does not take the expression that splits words: error %d", error);
    }
    pcre2_set_match_limit(words->context, STEPS_MAX);
    pcre2_jit_compile(words->code, PCRE2_JIT_COMPLETE); /* where there is none the same matches come slower */
    *ret_words = words;
    return 0;
}

void words_destroy(struct words **words)
{
    if (*words) {
        pcre2_code_free((*words)->code);
        pcre2_match_context_free((*words)->context);
        free(*words);
    }
    *words = NULL;
}

int words_state_create(const struct words *words, struct words_state **ret_state, struct failure *failure)
{
    struct words_state *state = calloc(1, sizeof(*state));

    if (state)
        state->data = pcre2_match_data_create_from_pattern(words->code, NULL);
    if (!state || !state->data) {
        words_state_destroy(&state);
        return fail(failure, -ENOMEM, "no memory for an expression's matches");
    }
    *ret_state = state;
    return 0;
}

void words_state_destroy(struct words_state **state)
{
    if (*state) {
        pcre2_match_data_free((*state)->data);
        free(*state);
    }
    *state = NULL;
}

int64_t words_next(const struct words *words, struct words_state *state, const char *text, size_t bytes, size_t at,
                   struct failure *failure)
{
    int r = pcre2_match(words->code, (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK, state->data, words->context);
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(state->data);

    if (r == PCRE2_ERROR_NOMATCH)
        return (int64_t)bytes;
    if (r == PCRE2_ERROR_NOMEMORY)
        return fail(failure, -ENOMEM, "no memory to split %zu bytes of text into words", bytes);
    if (r < 0)
        return fail(failure, -EFBIG, "the text's words behind byte %zu take too many steps: PCRE2's error %d", at, r);
    return (int64_t)(found[0] > at ? found[0] : found[1]); /* what no expression takes is a word as well */
}

int words_rule_of(const char *expression)
{
    static const struct {
        enum word_rule rule;
        const char *expression;
    } known[] = {
        {WORDS_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
        {WORDS_QWEN2, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                      "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
        {WORDS_LLAMA3, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
                       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (strcmp(known[i].expression, expression) == 0)
            return (int)known[i].rule;
    }
    return -1;
}
