/* SPDX-License-Identifier: Apache-2.0 */
#include "server/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN ((size_t)64)

/* Room for so many more, and the NUL. */
static bool reserve(struct buffer *buffer, size_t bytes)
{
    size_t room = buffer->room ? buffer->room : ROOM_MIN;
    char *text;

    while (!buffer->failed && room - buffer->count <= bytes)
        if (__builtin_mul_overflow(room, (size_t)2, &room))
            buffer->failed = true;
    if (buffer->failed || room == buffer->room)
        return !buffer->failed;
    text = realloc(buffer->text, room);
    if (!text) {
        buffer->failed = true;
        return false;
    }
    buffer->text = text;
    buffer->room = room;
    return true;
}

void buffer_add(struct buffer *buffer, const char *text, size_t bytes)
{
    if (!reserve(buffer, bytes))
        return;
    if (bytes > 0)
        memcpy(buffer->text + buffer->count, text, bytes);
    buffer->count += bytes;
    buffer->text[buffer->count] = '\0';
}

void buffer_add_text(struct buffer *buffer, const char *text)
{
    buffer_add(buffer, text, strlen(text));
}

void buffer_format(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    int bytes;

    va_start(arguments, format);
    bytes = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (bytes < 0 || !reserve(buffer, (size_t)bytes))
        return;
    va_start(arguments, format);
    vsnprintf(buffer->text + buffer->count, (size_t)bytes + 1, format, arguments);
    va_end(arguments);
    buffer->count += (size_t)bytes;
}

void buffer_clear(struct buffer *buffer)
{
    buffer->count = 0;
    if (buffer->text)
        buffer->text[0] = '\0';
}

void buffer_release(struct buffer *buffer)
{
    free(buffer->text);
    *buffer = (struct buffer){0};
}

char *buffer_take(struct buffer *buffer)
{
    char *text;

    buffer_add(buffer, "", 0); /* an empty text is one too */
    text = buffer->failed ? NULL : buffer->text;
    if (text)
        *buffer = (struct buffer){0};
    else
        buffer_release(buffer);
    return text;
}
