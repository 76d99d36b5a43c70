/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_VOCABULARY_H
#define WORKER_TEXT_VOCABULARY_H

/* Tokens and the bytes that they stand for, and the pairs of tokens that become one. Filled once, then only read. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "failure.h"

#define WORD_MARK "\xE2\x96\x81" /* U+2581, which vocabularies of SPELLING_WORDS take for a space */

enum {
    VOCABULARY_TOKENS_MAX = 1 << 20,
    VOCABULARY_MERGES_MAX = 1 << 21,
    VOCABULARY_TOKEN_BYTES_MAX = 1 << 12,
    VOCABULARY_BYTES_MAX = 1 << 28, /* of all tokens */
};

/* By GGUF's numbers. */
enum token_kind {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2, /* stands for what has no token */
    TOKEN_CONTROL = 3, /* of the text's frame, never of what it says */
    TOKEN_ADDED = 4,   /* is found in a text before all else */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

/* How tokens are spelled. */
enum spelling {
    SPELLING_BYTES, /* each byte as a character of its own: GPT-2's */
    SPELLING_WORDS, /* U+2581 for a space, <0x0A> for a byte: SentencePiece's */
};

struct token {
    uint32_t start; /* of its text in vocabulary.bytes */
    uint16_t bytes;
    uint8_t kind;
    bool foreign;                   /* no text is spelled so: the token stands for it, but is never found */
    bool strips_left, strips_right; /* an added one or one of control takes the space beside it */
    uint32_t priority;              /* SPELLING_WORDS of a GGUF: less is better, by its score */
};

struct merge {
    int32_t left, right; /* left < 0: an empty slot */
    int32_t token;       /* what they become */
    uint32_t rank;       /* less comes first */
};

struct vocabulary {
    enum spelling spelling;
    uint32_t count;
    struct token *tokens; /* [count] */
    char *bytes;          /* one token's text after the other */
    size_t byte_count, byte_capacity;
    uint32_t token_bytes_max; /* of the longest */
    int32_t byte_tokens[256]; /* -1: none */
    int32_t unknown;          /* for what has no token; -1: nothing is */
    bool unknown_joins;       /* one for all of it that stands together */

    struct slot { /* of the tokens that ordinary text is made of: an open hash by their bytes */
        uint32_t hash;
        int32_t token; /* < 0: empty */
    } *slots;
    uint64_t seed; /* of both hashes */
    uint32_t slot_mask;

    struct merge *merges; /* an open hash by the pair; NULL: pairs merge by what their bytes spell, and its priority */
    uint32_t merge_mask;

    int32_t *marks; /* [mark_count] control and added tokens by their bytes, which are found before all else */
    uint32_t mark_count;
    bool mark_begins[256]; /* one of them begins with this byte */
};

/* Room for count tokens, all unused. -EFBIG, -ENOMEM. */
int vocabulary_init(struct vocabulary *vocabulary, enum spelling spelling, uint64_t count, struct failure *failure);
void vocabulary_finish(struct vocabulary *vocabulary); /* takes one that is all zero */

/* Says what a token is. text: as it is spelled. score: more is better.
 * Returns 0, -EBADMSG, -EFBIG, -ENOMEM. */
int vocabulary_set(struct vocabulary *vocabulary, uint32_t token, const char *text, size_t bytes, enum token_kind kind,
                   float score, struct failure *failure);
/* Once all tokens are set; before that nothing is found. */
int vocabulary_index(struct vocabulary *vocabulary, struct failure *failure);

/* Room for the pairs, then each in its order: as the tokens are spelled. -EBADMSG names no token. */
int vocabulary_merges_init(struct vocabulary *vocabulary, uint64_t count, struct failure *failure);
int vocabulary_merge_add(struct vocabulary *vocabulary, uint32_t rank, const char *left, size_t left_bytes,
                         const char *right, size_t right_bytes, struct failure *failure);

/* The token of ordinary text (normal or added) that stands for these bytes, the first of several; -1: none. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *bytes, size_t count);
/* NULL: the pair does not become one. */
const struct merge *vocabulary_merge(const struct vocabulary *vocabulary, int32_t left, int32_t right);
/* The longest added token, or of control where those count too, that the text starts with; -1: none. */
int32_t vocabulary_mark(const struct vocabulary *vocabulary, const char *text, size_t bytes, bool control);
/* The control or added token of that very text; -1: none. */
int32_t vocabulary_mark_find(const struct vocabulary *vocabulary, const char *text);
/* Whether no token of ordinary text has a space behind another character: then none reaches over a word's beginning. */
bool vocabulary_words_apart(const struct vocabulary *vocabulary);

#endif
