/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_UTF8_H
#define WORKER_UTF8_H

/* UTF-8 as Unicode's table of well-formed byte sequences has it: no surrogates, nothing longer than needed. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the sequence that a byte begins; 0: none begins with it. */
static inline unsigned utf8_length(uint8_t first)
{
    return first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
}

/* Whether next may come after the first `bytes` (≥ 1) bytes of a sequence. */
static inline bool utf8_follows(const char *sequence, size_t bytes, char next)
{
    uint8_t first = (uint8_t)sequence[0], c = (uint8_t)next;

    if (bytes == 1 && first >= 0xE0) {
        uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;

        return low <= c && c <= high;
    }
    return c >> 6 == 2;
}

/* The bytes of the sequence at text (count ≥ 1), or of as much of one as stands there. */
static inline size_t utf8_sequence(const char *text, size_t count, bool *ret_whole)
{
    size_t length = utf8_length((uint8_t)text[0]), at = 1;

    while (at < length && at < count && utf8_follows(text, at, text[at]))
        at++;
    *ret_whole = at == length;
    return at;
}

/* The character of a whole sequence. */
static inline uint32_t utf8_character(const char *text, size_t length)
{
    uint32_t character = (uint8_t)text[0] & (length == 1 ? 0x7Fu : 0x7Fu >> length);

    for (size_t i = 1; i < length; i++)
        character = character << 6 | ((uint8_t)text[i] & 0x3F);
    return character;
}

/* Writes a character as 1 to 4 bytes and returns how many. */
static inline size_t utf8_put(char *text, uint32_t character)
{
    size_t length = character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;

    if (length == 1) {
        text[0] = (char)character;
        return 1;
    }
    for (size_t i = length - 1; i > 0; i--, character >>= 6)
        text[i] = (char)(0x80 | (character & 0x3F));
    text[0] = (char)((0xF00 >> length & 0xFF) | character);
    return length;
}

/* Nothing that moves a terminal's cursor or that JSON has no room for, also where a sequence was cut: '?' instead. */
void utf8_make_plain(char *text, size_t bytes);

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

#endif
