/* SPDX-License-Identifier: Apache-2.0 */
#include "text/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/merging.h"
#include "text/nfc.h"
#include "text/parts.h"
#include "utf8.h"

/* Tokens of control that end a text or a turn, by what they are called. */
static const char *const end_texts[] = {"<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"};

/* A text on its way into tokens. */
struct encoding {
    const struct tokenizer *tokenizer;
    struct words_state *words_state;
    struct merger merger;
    struct tokens tokens;
    struct failure *failure;
};

void tokenizer_add_end(struct tokenizer *tokenizer, int32_t token)
{
    if (token >= 0 && tokenizer->end_count < TOKENIZER_ENDS_MAX && !tokenizer_ends(tokenizer, token))
        tokenizer->ends[tokenizer->end_count++] = token;
}

int tokenizer_set_chat_template(struct tokenizer *tokenizer, const char *text, size_t bytes, struct failure *failure)
{
    if (bytes > CHAT_TEMPLATE_BYTES_MAX)
        return fail(failure, -EFBIG, "the chat template has %zu bytes, at most %d", bytes, CHAT_TEMPLATE_BYTES_MAX);
    free(tokenizer->chat_template);
    tokenizer->chat_template = strndup(text, bytes);
    return tokenizer->chat_template ? 0 : fail(failure, -ENOMEM, "no memory for a chat template");
}

/* What follows from the vocabulary. */
static void complete(struct tokenizer *tokenizer)
{
    const struct vocabulary *vocabulary = &tokenizer->vocabulary;

    for (size_t i = 0; i < sizeof(end_texts) / sizeof(*end_texts); i++) {
        int32_t token = vocabulary_mark_find(vocabulary, end_texts[i]);

        if (token >= 0 && vocabulary->tokens[token].kind == TOKEN_CONTROL)
            tokenizer_add_end(tokenizer, token);
    }
    tokenizer->words_apart = vocabulary->spelling == SPELLING_WORDS && vocabulary_find(vocabulary, " ", 1) >= 0 &&
                             vocabulary_words_apart(vocabulary);
}

int tokenizer_open(const struct tnd_model *model, const char *folder, struct tokenizer **ret_tokenizer,
                   struct failure *failure)
{
    struct tokenizer *tokenizer = calloc(1, sizeof(*tokenizer));
    int r;

    if (!tokenizer)
        return fail(failure, -ENOMEM, "no memory for a tokenizer");
    tokenizer->bos = -1;
    r = tokenizer_read_gguf(tokenizer, model, failure);
    if (r == -ENOENT)
        r = tokenizer_read_json(tokenizer, folder, failure);
    if (r < 0) {
        tokenizer_close(&tokenizer);
        return r;
    }
    complete(tokenizer);
    *ret_tokenizer = tokenizer;
    return 0;
}

void tokenizer_close(struct tokenizer **tokenizer)
{
    if (*tokenizer) {
        vocabulary_finish(&(*tokenizer)->vocabulary);
        words_destroy(&(*tokenizer)->words);
        free((*tokenizer)->chat_template);
        free(*tokenizer);
    }
    *tokenizer = NULL;
}

uint32_t tokenizer_count(const struct tokenizer *tokenizer)
{
    return tokenizer->vocabulary.count;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

bool tokenizer_ends(const struct tokenizer *tokenizer, int32_t token)
{
    for (uint32_t i = 0; i < tokenizer->end_count; i++) {
        if (tokenizer->ends[i] == token)
            return true;
    }
    return false;
}

const char *tokenizer_piece(const struct tokenizer *tokenizer, int32_t token, size_t *ret_bytes)
{
    const struct vocabulary *vocabulary = &tokenizer->vocabulary;
    const struct token *entry = token >= 0 && (uint32_t)token < vocabulary->count ? &vocabulary->tokens[token] : NULL;

    *ret_bytes = 0;
    if (!entry || (entry->kind != TOKEN_NORMAL && entry->kind != TOKEN_ADDED && entry->kind != TOKEN_BYTE))
        return "";
    *ret_bytes = entry->bytes;
    return vocabulary->bytes + entry->start;
}

static int encode_word(struct encoding *encoding, const char *word, size_t bytes)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    int32_t token = tokenizer->whole_words ? vocabulary_find(&tokenizer->vocabulary, word, bytes) : -1;

    if (token >= 0)
        return tokens_push(&encoding->tokens, token, encoding->failure);
    return merger_encode(&encoding->merger, &tokenizer->vocabulary, word, bytes, &encoding->tokens,
                         encoding->failure);
}

/* The end of the word at `at`: spaces, then others. */
static size_t spaced_end(const char *text, size_t bytes, size_t at)
{
    while (at < bytes && text[at] == ' ')
        at++;
    while (at < bytes && text[at] != ' ')
        at++;
    return at;
}

static int encode_words(struct encoding *encoding, const char *text, size_t bytes)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    int r = 0;

    for (size_t at = 0; at < bytes && r == 0;) {
        int64_t end = (int64_t)bytes;

        if (tokenizer->words)
            end = words_next(tokenizer->words, encoding->words_state, text, bytes, at, encoding->failure);
        else if (tokenizer->words_apart)
            end = (int64_t)spaced_end(text, bytes, at);
        if (end < 0)
            return (int)end;
        r = encode_word(encoding, text + at, (size_t)end - at);
        at = (size_t)end;
    }
    return r;
}

static bool space_stands(const char *text, size_t bytes)
{
    return text[0] == ' ' || (bytes >= 3 && memcmp(text, WORD_MARK, 3) == 0);
}

/* SPELLING_WORDS: with the space before it, and U+2581 as one. */
static int encode_spaced(struct encoding *encoding, const char *text, size_t bytes, bool prefix)
{
    char *spaced = malloc(bytes + 1);
    size_t count = 0;
    int r;

    if (!spaced)
        return fail(encoding->failure, -ENOMEM, "no memory for %zu bytes of text", bytes);
    if (prefix && !(encoding->tokenizer->space_once && space_stands(text, bytes)))
        spaced[count++] = ' ';
    while (bytes) {
        const char *mark = memmem(text, bytes, WORD_MARK, 3);
        size_t before = mark ? (size_t)(mark - text) : bytes;

        memcpy(spaced + count, text, before);
        count += before;
        text += before;
        bytes -= before;
        if (mark) {
            spaced[count++] = ' ';
            text += 3;
            bytes -= 3;
        }
    }
    r = encode_words(encoding, spaced, count);
    free(spaced);
    return r;
}

/* text: whole UTF-8, at least a byte. */
static int encode_valid(struct encoding *encoding, const char *text, size_t bytes, bool prefix)
{
    char *normalized = NULL;
    int64_t r = (int64_t)bytes;

    if (encoding->tokenizer->normalizes)
        r = nfc_normalize(text, bytes, &normalized, encoding->failure);
    if (r < 0)
        return (int)r;
    if (encoding->tokenizer->vocabulary.spelling == SPELLING_WORDS)
        r = encode_spaced(encoding, normalized ? normalized : text, (size_t)r, prefix);
    else
        r = encode_words(encoding, normalized ? normalized : text, (size_t)r);
    free(normalized);
    return (int)r;
}

/* Bytes of no sequence: their tokens, or else one U+FFFD. */
static int encode_invalid(struct encoding *encoding, const char *text, size_t bytes)
{
    const int32_t *byte_tokens = encoding->tokenizer->vocabulary.byte_tokens;
    int r = 0;

    for (size_t i = 0; i < bytes; i++) {
        if (byte_tokens[(uint8_t)text[i]] < 0)
            return encode_valid(encoding, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT), false);
    }
    for (size_t i = 0; i < bytes && r == 0; i++)
        r = tokens_push(&encoding->tokens, byte_tokens[(uint8_t)text[i]], encoding->failure);
    return r;
}

/* Between control and added tokens: any bytes. */
static int encode_text(struct encoding *encoding, const char *text, size_t bytes, bool prefix)
{
    size_t from = 0, at = 0;
    int r = 0;

    while (at < bytes && r == 0) {
        bool whole;
        size_t length = utf8_sequence(text + at, bytes - at, &whole);

        at += length;
        if (whole && at < bytes)
            continue;
        if (!whole)
            at -= length;
        if (at > from)
            r = encode_valid(encoding, text + from, at - from, prefix && from == 0);
        if (!whole && r == 0) {
            r = encode_invalid(encoding, text + at, length);
            at += length;
        }
        from = at;
    }
    return r;
}

static bool is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
           code == 0x205F || code == 0x3000;
}

size_t space_before(const char *text, size_t bytes)
{
    size_t at = 0;

    while (at < bytes) {
        bool whole;
        size_t length = utf8_sequence(text + at, bytes - at, &whole);

        if (!whole || !is_space(utf8_character(text + at, length)))
            return at;
        at += length;
    }
    return at;
}

size_t space_behind(const char *text, size_t bytes)
{
    while (bytes) {
        size_t at = bytes - 1;
        bool whole;

        while (at > 0 && bytes - at < 3 && ((uint8_t)text[at] & 0xC0) == 0x80)
            at--;
        if (utf8_sequence(text + at, bytes - at, &whole) != bytes - at || !whole ||
            !is_space(utf8_character(text + at, bytes - at)))
            return bytes;
        bytes = at;
    }
    return bytes;
}

/* Where the next control or added token stands, from `at` on; bytes when there is none. */
static size_t find_mark(const struct vocabulary *vocabulary, const char *text, size_t bytes, size_t at, bool control,
                        int32_t *ret_mark)
{
    *ret_mark = -1;
    for (; at < bytes; at++) {
        if (!vocabulary->mark_begins[(uint8_t)text[at]])
            continue;
        *ret_mark = vocabulary_mark(vocabulary, text + at, bytes - at, control);
        if (*ret_mark >= 0)
            break;
    }
    return at;
}

static int encode_marked(struct encoding *encoding, const char *text, size_t bytes, unsigned flags)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    const struct vocabulary *vocabulary = &tokenizer->vocabulary;
    size_t at = 0;
    int r = 0;

    while (at < bytes && r == 0) {
        int32_t mark;
        size_t end = find_mark(vocabulary, text, bytes, at, flags & TOKENIZER_SPECIAL, &mark);
        size_t count = mark >= 0 && vocabulary->tokens[mark].strips_left ? space_behind(text + at, end - at) : end - at;

        r = encode_text(encoding, text + at, count,
                        tokenizer->space_prefix == SPACE_ALWAYS ||
                            (tokenizer->space_prefix == SPACE_FIRST && at == 0 && !(flags & TOKENIZER_BEHIND)));
        at = end;
        if (mark >= 0 && r == 0) {
            r = tokens_push(&encoding->tokens, mark, encoding->failure);
            at += vocabulary->tokens[mark].bytes;
            if (vocabulary->tokens[mark].strips_right)
                at += space_before(text + at, bytes - at);
        }
    }
    return r;
}

int64_t tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                         int32_t **ret_tokens, struct failure *failure)
{
    struct encoding encoding = {.tokenizer = tokenizer, .failure = failure};
    int r = 0;

    if (bytes > TOKENIZER_TEXT_BYTES_MAX)
        return fail(failure, -EFBIG, "a text of %zu bytes, at most %d", bytes, TOKENIZER_TEXT_BYTES_MAX);
    if (tokenizer->words)
        r = words_state_create(tokenizer->words, &encoding.words_state, failure);
    if (r == 0 && (flags & TOKENIZER_BEGIN) && tokenizer->begins && tokenizer->bos >= 0)
        r = tokens_push(&encoding.tokens, tokenizer->bos, failure);
    if (r == 0)
        r = encode_marked(&encoding, text, bytes, flags);
    words_state_destroy(&encoding.words_state);
    merger_finish(&encoding.merger);
    if (r < 0) {
        free(encoding.tokens.at);
        return r;
    }
    *ret_tokens = encoding.tokens.at;
    return (int64_t)encoding.tokens.count;
}
