/* SPDX-License-Identifier: Apache-2.0 */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

/* Of ASCII, or of the 32 that Unicode has beside them. */
static bool is_control(const char *sequence, size_t length)
{
    uint32_t character = utf8_character(sequence, length);

    return character < 0x20 || (character >= 0x7F && character < 0xA0);
}

/* Names come from files: nothing that moves a terminal's cursor or that JSON has no room for, also where a sequence was
 * cut. */
static void make_plain(char *text, size_t bytes)
{
    for (size_t i = 0, length; i < bytes; i += length) {
        bool whole;

        length = utf8_sequence(text + i, bytes - i, &whole);
        if (!whole || is_control(text + i, length))
            memset(text + i, '?', length);
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
