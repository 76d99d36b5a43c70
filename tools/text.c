/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

#include "tundish.h"

struct text text_bytes(uint64_t bytes)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    struct text text;
    double value = (double)bytes;
    size_t unit = 0;

    if (bytes < 1000) {
        snprintf(text.s, sizeof(text.s), "%" PRIu64 " B", bytes);
        return text;
    }
    value /= 1000;
    while (value >= 999.995 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    snprintf(text.s, sizeof(text.s), "%.2f %s", value, units[unit]);
    return text;
}

struct text text_ns(uint64_t ns)
{
    struct text text;

    if (ns >= 100000000)
        snprintf(text.s, sizeof(text.s), "%.2f s", (double)ns / 1e9);
    else if (ns >= 100000)
        snprintf(text.s, sizeof(text.s), "%.1f ms", (double)ns / 1e6);
    else
        snprintf(text.s, sizeof(text.s), "%.0f us", (double)ns / 1e3);
    return text;
}

struct text text_count(uint64_t count, const char *noun)
{
    struct text text;

    snprintf(text.s, sizeof(text.s), "%" PRIu64 " %s%s", count, noun, count == 1 ? "" : "s");
    return text;
}

void text_shape(FILE *out, const uint64_t *shape, uint32_t dims)
{
    fputc('[', out);
    for (uint32_t i = 0; i < dims; i++)
        fprintf(out, "%s%" PRIu64, i > 0 ? ", " : "", shape[i]);
    fputc(']', out);
}

int text_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t text_utf8(const unsigned char *data, size_t bytes)
{
    unsigned char low = 0x80, high = 0xBF; /* what the second byte may be */
    size_t length;

    if (bytes == 0 || (data[0] >= 0x80 && data[0] < 0xC2) || data[0] > 0xF4)
        return 0;
    if (data[0] < 0x80)
        return 1;
    length = data[0] < 0xE0 ? 2 : data[0] < 0xF0 ? 3 : 4;
    if (length > bytes)
        return 0;
    if (data[0] == 0xE0)
        low = 0xA0; /* shorter forms exist */
    else if (data[0] == 0xED)
        high = 0x9F; /* surrogates */
    else if (data[0] == 0xF0)
        low = 0x90;
    else if (data[0] == 0xF4)
        high = 0x8F; /* beyond U+10FFFF */
    if (data[1] < low || data[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((data[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

size_t text_shown(const unsigned char *data, size_t bytes)
{
    size_t length = text_utf8(data, bytes);

    if (length == 1)
        return data[0] >= 0x20 && data[0] != 0x7F;
    return length == 2 && data[0] == 0xC2 && data[1] < 0xA0 ? 0 : length; /* U+0080 … U+009F are control characters */
}

size_t text_print(FILE *out, const char *data, size_t bytes, size_t max)
{
    const unsigned char *at = (const unsigned char *)data;
    size_t columns = 0;

    for (size_t i = 0, length; i < bytes; i += length) {
        if (i >= max) {
            fputs("…", out);
            return columns + 1;
        }
        length = text_shown(at + i, bytes - i);
        if (length == 0) {
            fprintf(out, "\\x%02x", at[i]);
            length = 1;
            columns += 4;
        } else {
            fwrite(at + i, 1, length, out);
            columns++;
        }
    }
    return columns;
}

/* stderr is line-buffered, so this is one write, whole beside what other processes say on the same terminal. */
static void print_sentence(const char *sentence)
{
    flockfile(stderr);
    fputs("tundish: ", stderr);
    text_print(stderr, sentence, strlen(sentence), SIZE_MAX);
    fputc('\n', stderr);
    funlockfile(stderr);
}

int fail(enum exit_code code, const char *format, ...)
{
    char sentence[PATH_MAX + 512];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    print_sentence(sentence);
    return (int)code;
}

static enum exit_code exit_code_of(int result)
{
    switch (result) {
    case -EINVAL:
        return EXIT_USAGE;
    case -EBADMSG:
    case -EFBIG:
        return EXIT_MALFORMED;
    case -ENOTSUP:
        return EXIT_UNSUPPORTED;
    case -ENOMEM:
    case -ENODEV:
    case -ENOSPC:
        return EXIT_RESOURCE;
    case -ENOENT:
    case -EACCES:
        return EXIT_NOT_FOUND;
    case -ECANCELED:
        return EXIT_INTERRUPTED;
    default:
        return EXIT_FAILED;
    }
}

int fail_result(int result, const char *sentence)
{
    if (!sentence)
        sentence = tnd_last_error();
    if (sentence[0] == '\0')
        sentence = tnd_strerror(result);
    print_sentence(sentence);
    return (int)exit_code_of(result);
}
