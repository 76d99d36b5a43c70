/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_PARTS_H
#define WORKER_TEXT_PARTS_H

/* What a tokenizer consists of, for those who fill it and those who use it. */

#include "text/tokenizer.h"
#include "text/vocabulary.h"
#include "text/words.h"

enum {
    CHAT_TEMPLATE_BYTES_MAX = 1 << 20,
    TOKENIZER_ENDS_MAX = 16,
};

/* Where a space is put before a text, so that its first word reads like any other. */
enum space_prefix {
    SPACE_NEVER,
    SPACE_FIRST,  /* at the beginning */
    SPACE_ALWAYS, /* there and behind each control and added token */
};

struct tokenizer {
    struct vocabulary vocabulary;
    struct words *words;    /* NULL: all of a text is one word */
    bool words_apart;       /* with SPELLING_WORDS: may be split where a word begins, and gives the same tokens */
    bool whole_words;       /* a word that is a token is not made of others */
    bool normalizes;        /* to Unicode's form C */
    bool begins;            /* with bos */
    enum space_prefix space_prefix;
    bool space_once;        /* not before a text that begins with one */
    int32_t bos;            /* -1: none */
    int32_t ends[TOKENIZER_ENDS_MAX];
    uint32_t end_count;
    char *chat_template; /* NULL: none */
};

/* Fill a tokenizer that is all zero but for bos, which is -1.
 * Return 0, -ENOENT no tokenizer there, else as tokenizer_open(); what is filled by then is the caller's to free. */
int tokenizer_read_gguf(struct tokenizer *tokenizer, const struct tnd_model *model, struct failure *failure);
int tokenizer_read_json(struct tokenizer *tokenizer, const char *folder, struct failure *failure);

/* Bytes of the white space that a text begins with, and of the text without the one that it ends with. */
size_t space_before(const char *text, size_t bytes);
size_t space_behind(const char *text, size_t bytes);

/* A text ends at this token as well; -1: nothing. */
void tokenizer_add_end(struct tokenizer *tokenizer, int32_t token);
/* Takes a copy. 0, -EFBIG, -ENOMEM. */
int tokenizer_set_chat_template(struct tokenizer *tokenizer, const char *text, size_t bytes, struct failure *failure);

#endif
