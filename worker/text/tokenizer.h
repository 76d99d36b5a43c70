/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_TOKENIZER_H
#define WORKER_TEXT_TOKENIZER_H

/* Text into a model's tokens, and back.
 *
 * Threads: a tokenizer is immutable once open, and used by any number of threads. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "failure.h"
#include "tundish.h"

struct tokenizer;

enum { TOKENIZER_TEXT_BYTES_MAX = 1 << 23 };

/* Of a GGUF's metadata (tokenizer.ggml.*), or else of tokenizer.json and tokenizer_config.json in folder, which is
 * where the model's first file lies. The model may be closed afterwards.
 * Returns:  0, -ENOENT neither is there, -ENOTSUP a kind that is not handled, -EBADMSG, -EFBIG, -ENOMEM, -EIO. */
int tokenizer_open(const struct tnd_model *model, const char *folder, struct tokenizer **ret_tokenizer,
                   struct failure *failure);
void tokenizer_close(struct tokenizer **tokenizer); /* takes NULL */

uint32_t tokenizer_count(const struct tokenizer *tokenizer);
int32_t tokenizer_bos(const struct tokenizer *tokenizer); /* -1: none */
/* Whether a text ends at this token: of the sequence, of the turn. */
bool tokenizer_ends(const struct tokenizer *tokenizer, int32_t token);

enum {
    TOKENIZER_BEGIN = 1,   /* the token that begins a text, where the model wants one */
    TOKENIZER_SPECIAL = 2, /* the text's <|im_start|> and the like are tokens, not characters: only of templates */
    TOKENIZER_BEHIND = 4,  /* the text stands behind other tokens, not at the beginning */
};

/* text: any bytes; what is no UTF-8 becomes byte tokens where the vocabulary has them, else U+FFFD.
 * Returns the count and *ret_tokens, which the caller frees, NULL when there are none; -EFBIG, -ENOMEM. */
int64_t tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                         int32_t **ret_tokens, struct failure *failure);

/* The bytes that a token stands for in the middle of a text: "" for the special ones and outside the vocabulary.
 * Memory: the tokenizer's. */
const char *tokenizer_piece(const struct tokenizer *tokenizer, int32_t token, size_t *ret_bytes);

/* Tokens into text as they come: what is told never ends inside a UTF-8 sequence. */
struct tokenizer_stream {
    const struct tokenizer *tokenizer;
    bool begun;      /* what a vocabulary puts before the first word was taken off */
    char held[8];    /* the beginning of a sequence */
    size_t held_bytes;
};
void tokenizer_stream_init(struct tokenizer_stream *stream, const struct tokenizer *tokenizer, bool at_start);
/* Writes what the token adds, as whole sequences, with U+FFFD for bytes that belong to none; at most
 * tokenizer_stream_room() bytes. Returns how many. */
size_t tokenizer_stream_next(struct tokenizer_stream *stream, int32_t token, char *text);
/* What is still held becomes U+FFFD. */
size_t tokenizer_stream_end(struct tokenizer_stream *stream, char *text);
size_t tokenizer_stream_room(const struct tokenizer *tokenizer);

#endif
