/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_BUFFER_H
#define WORKER_SERVER_BUFFER_H

/* Text that grows. All zero is an empty one. */

#include <stdbool.h>
#include <stddef.h>

struct buffer {
    char *text; /* ends in a NUL that count does not count; NULL while nothing was added */
    size_t count, room;
    bool failed; /* no memory: stays so, and what is added is lost */
};

void buffer_add(struct buffer *buffer, const char *text, size_t bytes);
void buffer_add_text(struct buffer *buffer, const char *text);
__attribute__((format(printf, 2, 3))) void buffer_format(struct buffer *buffer, const char *format, ...);
/* Keeps its memory. */
void buffer_clear(struct buffer *buffer);
void buffer_release(struct buffer *buffer);
/* The text, which the caller frees; the buffer is empty then. NULL: no memory. */
char *buffer_take(struct buffer *buffer);

#endif
