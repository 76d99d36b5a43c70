/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

/* What people read: sizes, names from files that nobody vouches for, and the one sentence of a failure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_MALFORMED = 3,
    EXIT_MISMATCH = 4,
    EXIT_UNSUPPORTED = 5,
    EXIT_RESOURCE = 6,
    EXIT_NOT_FOUND = 7,
    EXIT_INTERRUPTED = 130,
};

struct text {
    char s[40];
};

/* "491.40 MB", decimal units; below 1000 "512 B". */
struct text text_bytes(uint64_t bytes);
/* "0.312 s", "4.1 ms", "35 us". */
struct text text_ns(uint64_t ns);
/* "1 tensor", "291 tensors". */
struct text text_count(uint64_t count, const char *noun);
/* "[151936, 896]", outermost first; "[]" for a scalar. */
void text_shape(FILE *out, const uint64_t *shape, uint32_t dims);
/* Writes at most max bytes of a name or value, and "…" where that cuts it; control characters, which could drive a
 * terminal, and bytes that are no UTF-8 become \xNN. Returns the columns taken, one a character. */
size_t text_print(FILE *out, const char *data, size_t bytes, size_t max);

/* The bytes of the character at the front of data that may stand as it is; 0 where text_print() writes \xNN. */
size_t text_shown(const unsigned char *data, size_t bytes);

/* 0 … 15, or -1 for a character that is no hexadecimal digit. */
int text_hex_digit(char c);

/* The bytes of one well-formed UTF-8 character at the front of data, 0 when there is none. */
size_t text_utf8(const unsigned char *data, size_t bytes);

/* "tundish: " and the sentence, as one line, on stderr. Returns code. */
__attribute__((format(printf, 2, 3))) int fail(enum exit_code code, const char *format, ...);

/* The same for a result of the library. sentence: the library's own, NULL = tnd_last_error(). */
int fail_result(int result, const char *sentence);

#endif
