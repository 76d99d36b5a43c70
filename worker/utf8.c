/* SPDX-License-Identifier: Apache-2.0 */
#include "utf8.h"

#include <string.h>

/* Of ASCII, or of the 32 that Unicode has beside them. */
static bool is_control(const char *sequence, size_t length)
{
    uint32_t character = utf8_character(sequence, length);

    return character < 0x20 || (character >= 0x7F && character < 0xA0);
}

void utf8_make_plain(char *text, size_t bytes)
{
    for (size_t i = 0, length; i < bytes; i += length) {
        bool whole;

        length = utf8_sequence(text + i, bytes - i, &whole);
        if (!whole || is_control(text + i, length))
            memset(text + i, '?', length);
    }
}
