/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define SHOWN_BYTES_MAX 120 /* of a name: leaves room for the rest of the sentence */
#define PATH_BYTES_MAX 200  /* of a path: its end tells more than its beginning */

static const struct tnd_format *const formats[] = {
    &tnd_format_gguf, /* first: a magic number is surer than a name */
    &tnd_format_safetensors,
};

const struct tnd_format *tnd_format_find(const struct tnd_header *header)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (formats[i]->probe(header))
            return formats[i];
    return NULL;
}

int tnd_header_need(struct tnd_header *header, uint64_t offset, uint64_t bytes, const char *what, struct tnd_err *err)
{
    uint64_t need;

    if (tnd_add_overflows(offset, bytes, &need) || need > header->file_bytes)
        return tnd_fail_at(err, -EBADMSG, header->path, offset,
                           "%s should take %llu bytes, but the file ends at byte %llu",
                           what, (unsigned long long)bytes, (unsigned long long)header->file_bytes);
    return need <= header->have ? 0 : header->fetch(header, need, err);
}

bool tnd_name_ends(const char *path, const char *ending)
{
    size_t path_bytes = strlen(path), ending_bytes = strlen(ending);

    return path_bytes >= ending_bytes && !strcmp(path + path_bytes - ending_bytes, ending);
}

int tnd_shown(const char *name, size_t name_bytes)
{
    size_t shown = tnd_min(name_bytes, SHOWN_BYTES_MAX);

    while (shown && shown < name_bytes && ((uint8_t)name[shown] & 0xC0) == 0x80)
        shown--;
    return (int)shown;
}

/* The path's end, and what stands for the front of a very long one. */
static const char *path_end(const char *path, const char **ret_front)
{
    size_t bytes = strlen(path);

    *ret_front = bytes > PATH_BYTES_MAX ? "..." : "";
    if (bytes > PATH_BYTES_MAX)
        path += bytes - PATH_BYTES_MAX;
    while (**ret_front && ((uint8_t)*path & 0xC0) == 0x80)
        path++;
    return path;
}

int tnd_fail_at(struct tnd_err *err, int result, const char *path, uint64_t offset, const char *format, ...)
{
    char rest[sizeof(err->text)];
    const char *front, *end = path_end(path, &front);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(rest, sizeof(rest), format, arguments);
    va_end(arguments);
    return tnd_fail(err, result, "%s%s: byte %llu: %s", front, end, (unsigned long long)offset, rest);
}

int tnd_fail_file(struct tnd_err *err, int result, const char *path)
{
    struct tnd_err cause;
    const char *front, *end = path_end(path, &front);

    if (!err)
        return result;
    cause = *err;
    return tnd_fail(err, result, "%s%s: %s", front, end, cause.text);
}

int tnd_fail_in(struct tnd_err *err, int result, const char *path, uint64_t offset, const char *kind, const char *name,
                size_t name_bytes)
{
    struct tnd_err cause;

    if (!err)
        return result;
    cause = *err;
    if (!kind)
        return tnd_fail_at(err, result, path, offset, "%s", cause.text);
    return tnd_fail_at(err, result, path, offset, "%s '%.*s': %s", kind, tnd_shown(name, name_bytes), name, cause.text);
}
