/* SPDX-License-Identifier: Apache-2.0 */

/* Tokens into text as they come. */

#include <string.h>

#include "text/parts.h"
#include "utf8.h"

void tokenizer_stream_init(struct tokenizer_stream *stream, const struct tokenizer *tokenizer, bool at_start)
{
    *stream = (struct tokenizer_stream){.tokenizer = tokenizer,
                                        .begun = !at_start || tokenizer->space_prefix == SPACE_NEVER};
}

static size_t put_replacement(char *text)
{
    memcpy(text, UTF8_REPLACEMENT, (sizeof(UTF8_REPLACEMENT) - 1));
    return (sizeof(UTF8_REPLACEMENT) - 1);
}

size_t tokenizer_stream_end(struct tokenizer_stream *stream, char *text)
{
    size_t held = stream->held_bytes;

    stream->held_bytes = 0;
    return held ? put_replacement(text) : 0;
}

/* A byte behind what is held. */
static size_t put_byte(struct tokenizer_stream *stream, char byte, char *text)
{
    size_t written = 0, length;

    if (stream->held_bytes && !utf8_follows(stream->held, stream->held_bytes, byte))
        written = tokenizer_stream_end(stream, text);
    length = utf8_length((uint8_t)(stream->held_bytes ? stream->held[0] : byte));
    if (length == 0)
        return written + put_replacement(text + written);
    stream->held[stream->held_bytes++] = byte;
    if (stream->held_bytes < length)
        return written;
    memcpy(text + written, stream->held, length);
    stream->held_bytes = 0;
    return written + length;
}

size_t tokenizer_stream_next(struct tokenizer_stream *stream, int32_t token, char *text)
{
    size_t bytes, written = 0;
    const char *piece = tokenizer_piece(stream->tokenizer, token, &bytes);
    size_t at = bytes && !stream->begun && piece[0] == ' ' ? 1 : 0;

    stream->begun = stream->begun || bytes;
    for (; at < bytes; at++)
        written += put_byte(stream, piece[at], text + written);
    return written;
}

size_t tokenizer_stream_room(const struct tokenizer *tokenizer)
{
    /* Each byte may be one U+FFFD, and what is held another. */
    return (sizeof(UTF8_REPLACEMENT) - 1) * (1 + (size_t)tokenizer->vocabulary.token_bytes_max);
}
