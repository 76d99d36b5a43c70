/* SPDX-License-Identifier: Apache-2.0 */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

/* Names come from files: nothing that moves a terminal's cursor or that JSON has no room for, also where a sequence was
 * cut. */
static void make_plain(char *text, size_t bytes)
{
    for (size_t i = 0, length; i < bytes; i += length) {
        bool whole;

        length = utf8_sequence(text + i, bytes - i, &whole);
        for (size_t k = i; k < i + length && (!whole || (length == 1 && (text[k] < 0x20 || text[k] == 0x7F))); k++)
            text[k] = '?';
    }
}

int fail(struct failure *failure, int result, const char *format, ...)
{
    va_list arguments;

    if (!failure)
        return result;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof(failure->text), format, arguments);
    va_end(arguments);
    make_plain(failure->text, strlen(failure->text));
    return result;
}
