/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_MERGING_H
#define WORKER_TEXT_MERGING_H

/* Byte-pair encoding of one word: of all neighbours that become one token the pair that comes first does, the leftmost
 * of several, until none is left. A heap of pairs: n log n of a word's length. */

#include "text/vocabulary.h"

/* Tokens as they come. */
struct tokens {
    int32_t *at;
    size_t count, capacity;
};
int tokens_push(struct tokens *tokens, int32_t token, struct failure *failure); /* 0, -ENOMEM */

/* What stands in a word: begins as a byte or a character, takes in its right neighbours. */
struct symbol {
    int32_t token;     /* -1: none has these bytes */
    uint32_t start;    /* its bytes in the word */
    uint32_t bytes;    /* 0: it was taken in */
    uint32_t previous, next; /* UINT32_MAX: none */
};

struct pair {
    uint64_t order; /* priority, then the left symbol: least first */
    int32_t token;  /* what the two become */
    uint32_t bytes; /* of the two: what they have later, they are not the same */
};

/* Memory for words, used again and again. */
struct merger {
    struct symbol *symbols;
    struct pair *pairs; /* a binary heap */
    size_t capacity, symbol_count, pair_count;
};
void merger_finish(struct merger *merger); /* takes one that is all zero */

/* Adds the word's tokens. A character that has none becomes its bytes' tokens, or else the unknown one. word: whole
 * UTF-8. 0, -ENOMEM. */
int merger_encode(struct merger *merger, const struct vocabulary *vocabulary, const char *word, size_t bytes,
                  struct tokens *tokens, struct failure *failure);

#endif
