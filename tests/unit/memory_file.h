/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_MEMORY_FILE_H
#define TND_TEST_MEMORY_FILE_H

/* Files that are built byte by byte in memory and parsed from there. A parser sees only what it has asked for: bytes
 * beyond it are 0xEE, bytes beyond the file are not allocated, so that a sanitizer catches a look ahead. */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"
#include "support/suite.h"

struct memory_file {
    uint8_t *data;
    size_t bytes, room;
};

static inline void put(struct memory_file *file, const void *bytes, size_t count)
{
    if (file->bytes + count > file->room) {
        file->room = 2 * (file->bytes + count);
        file->data = realloc(file->data, file->room);
        ck_assert_ptr_nonnull(file->data);
    }
    if (count)
        memcpy(file->data + file->bytes, bytes, count);
    file->bytes += count;
}

static inline void put_u8(struct memory_file *file, uint8_t value)
{
    put(file, &value, sizeof(value));
}

static inline void put_u32(struct memory_file *file, uint32_t value)
{
    put(file, &value, sizeof(value));
}

static inline void put_u64(struct memory_file *file, uint64_t value)
{
    put(file, &value, sizeof(value));
}

static inline void put_words(struct memory_file *file, const char *words)
{
    put(file, words, strlen(words));
}

/* A u64 length, then the text. */
static inline void put_text(struct memory_file *file, const char *text)
{
    put_u64(file, strlen(text));
    put_words(file, text);
}

static inline void put_zeros(struct memory_file *file, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put_u8(file, 0);
}

static inline void drop(struct memory_file *file)
{
    free(file->data);
    *file = (struct memory_file){0};
}

struct memory_header {
    struct tnd_header header;
    const struct memory_file *file;
    uint8_t *seen; /* [file->bytes] */
};

static inline int memory_fetch(struct tnd_header *header, uint64_t need, struct tnd_err *err)
{
    struct memory_header *memory = (struct memory_header *)header;

    (void)err;
    ck_assert_uint_le(need, header->file_bytes);
    ck_assert_uint_gt(need, header->have);
    memcpy(memory->seen + header->have, memory->file->data + header->have, need - header->have);
    header->have = need;
    return 0;
}

/* A model of one file, and what a parser made of it. */
struct parsed {
    struct tnd_model model;
    struct tnd_model_file file;
    struct memory_header memory;
    struct tnd_err err;
    int result;
};

static inline void parse_memory(struct parsed *parsed, const struct tnd_format *format, const struct memory_file *file,
                                const char *path)
{
    *parsed = (struct parsed){.file = {.file = {.path = path, .bytes = file->bytes}, .fd = -1}};
    parsed->model.arena.allocator = tnd_allocator_or_default(NULL);
    parsed->model.files = &parsed->file;
    parsed->model.file_count = 1;
    parsed->memory.file = file;
    parsed->memory.seen = malloc(file->bytes ? file->bytes : 1);
    ck_assert_ptr_nonnull(parsed->memory.seen);
    memset(parsed->memory.seen, 0xEE, file->bytes ? file->bytes : 1);
    parsed->memory.header = (struct tnd_header){
        .data = parsed->memory.seen, .file_bytes = file->bytes, .path = path, .fetch = memory_fetch};
    parsed->result = format->parse(&parsed->memory.header, &parsed->model, 0, &parsed->err);
}

static inline void parsed_finish(struct parsed *parsed)
{
    tnd_arena_finish(&parsed->model.arena);
    free(parsed->memory.seen);
}

/* The file is refused with that result and a sentence that names file, byte and these words. */
static inline void assert_refused(const struct tnd_format *format, const struct memory_file *file, const char *path,
                                  int result, uint64_t offset, const char *words)
{
    struct parsed parsed;
    char place[64];

    parse_memory(&parsed, format, file, path);
    snprintf(place, sizeof(place), ": byte %llu: ", (unsigned long long)offset);
    ck_assert_msg(parsed.result == result, "%s: result %d, expected %d: %s", words, parsed.result, result,
                  parsed.err.text);
    ck_assert_msg(strstr(parsed.err.text, place) != NULL, "expected '%s' in: %s", place, parsed.err.text);
    ck_assert_msg(strstr(parsed.err.text, words) != NULL, "expected '%s' in: %s", words, parsed.err.text);
    ck_assert_msg(!strncmp(parsed.err.text, path, strlen(path)), "expected the path in: %s", parsed.err.text);
    ck_assert_ptr_null(strchr(parsed.err.text, '\n'));
    parsed_finish(&parsed);
}

#endif
