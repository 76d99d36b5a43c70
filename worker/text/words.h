/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_WORDS_H
#define WORKER_TEXT_WORDS_H

/* Text into the words that tokens do not reach across: the expressions of GPT-2 and those after it. */

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

enum word_rule { WORDS_GPT2, WORDS_SMOLLM, WORDS_QWEN2, WORDS_LLAMA3, WORDS_RULE_COUNT };

struct words; /* an expression: immutable, of any number of threads */
struct words_state; /* one thread's */

int words_create(enum word_rule rule, struct words **ret_words, struct failure *failure); /* 0, -ENOMEM, -ENOTSUP */
void words_destroy(struct words **words); /* takes NULL */
int words_state_create(const struct words *words, struct words_state **ret_state, struct failure *failure);
void words_state_destroy(struct words_state **state); /* takes NULL */

/* The end of the word that begins at `at` < bytes, which is where the one before it ended. text: whole UTF-8.
 * Returns the offset, or -EFBIG the text takes too many steps, -ENOMEM. */
int64_t words_next(const struct words *words, struct words_state *state, const char *text, size_t bytes, size_t at,
                   struct failure *failure);

/* The rule that a tokenizer.json means with an expression; -1: none of these. */
int words_rule_of(const char *expression);

#endif
