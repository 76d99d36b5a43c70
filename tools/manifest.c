/* SPDX-License-Identifier: Apache-2.0 */
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

#define MAGIC "tundish-manifest "
#define VERSION "1"

/* ---- Writing ----------------------------------------------------------------------------------------------- */

/* Whether what is there may be replaced: nothing, or a manifest. A model named by mistake is neither. */
static bool may_replace(const struct whole_file *file)
{
    char start[sizeof(MAGIC) - 1];
    int fd = openat(file->folder, file->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t bytes;

    if (fd < 0)
        return errno == ENOENT;
    bytes = read(fd, start, sizeof(start));
    close(fd);
    return bytes == 0 || (bytes == (ssize_t)sizeof(start) && !memcmp(start, MAGIC, sizeof(start)));
}

int manifest_prepare(struct whole_file *file, const char *path)
{
    int code = whole_file_prepare(file, "the manifest", path);

    if (code == 0 && !may_replace(file))
        return fail(EXIT_USAGE, "cannot write the manifest %s: it is there and no manifest, so it stays", path);
    return code;
}

static void write_name(FILE *out, const char *name, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)name;

    for (size_t i = 0, length; i < bytes; i += length) {
        bool end = i == 0 || i + 1 == bytes;

        length = text_utf8(at + i, bytes - i);
        if (length == 1 && at[i] == '\\') {
            fputs("\\\\", out);
        } else if (length == 0 || at[i] < 0x20 || at[i] == 0x7F || (at[i] == ' ' && end) ||
                   (length == 2 && at[i] == 0xC2 && at[i + 1] < 0xA0)) {
            length = length > 0 ? length : 1;
            for (size_t k = 0; k < length; k++)
                fprintf(out, "\\x%02x", at[i + k]);
        } else {
            fwrite(at + i, 1, length, out);
        }
    }
}

static void write_manifest(FILE *out, const void *cookie)
{
    const struct digests *digests = cookie;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < digests->count; i++)
        bytes += digests->items[i].tensor->bytes;
    fprintf(out, MAGIC VERSION " %s\ntensors %" PRIu32 " bytes %" PRIu64 "\n", digests->hash->name, digests->count,
            bytes);
    for (uint32_t i = 0; i < digests->count; i++) {
        const struct tnd_tensor *tensor = digests->items[i].tensor;

        fprintf(out, "%s  %s  %" PRIu64 "  ", hash_text(digests->hash, digests->items[i].sum).s,
                tnd_dtype_name(tensor->dtype), tensor->bytes);
        write_name(out, tensor->name, tensor->name_bytes);
        fputc('\n', out);
    }
}

int manifest_write(const struct whole_file *file, const struct digests *digests)
{
    return whole_file_write(file, write_manifest, digests);
}

/* ---- Reading ----------------------------------------------------------------------------------------------- */

/* What is left of the file, and which line that begins with. */
struct reader {
    const char *path;
    char *at, *end;
    uint32_t line;
};

__attribute__((format(printf, 2, 3))) static int malformed(const struct reader *reader, const char *format, ...)
{
    char what[160];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return fail(EXIT_MALFORMED, "%s: line %" PRIu32 ": %s", reader->path, reader->line, what);
}

/* Takes a line, whose line feed becomes a NUL, and a carriage return before it too: an editor or a mail may have put
 * that there, and no name holds one. NULL when none is left, none that ends, or one with a NUL inside. */
static char *line_take(struct reader *reader)
{
    char *line = reader->at;
    char *end = memchr(line, '\n', (size_t)(reader->end - line));

    reader->line++;
    if (!end)
        return NULL;
    reader->at = end + 1;
    if (end > line && end[-1] == '\r')
        end--;
    *end = '\0';
    return memchr(line, '\0', (size_t)(end - line)) ? NULL : line;
}

static char *digits_take(char *at, uint64_t *ret_value)
{
    char *first = at;

    *ret_value = 0;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(*ret_value, 10U, ret_value) ||
            __builtin_add_overflow(*ret_value, (uint64_t)(*at - '0'), ret_value))
            return NULL;
    return at > first ? at : NULL;
}

static char *word_take(char *at, const char *word)
{
    size_t bytes = strlen(word);

    return at && strncmp(at, word, bytes) == 0 ? at + bytes : NULL;
}

/* Line 1. */
static int parse_magic(struct manifest *manifest, struct reader *reader)
{
    char *line = line_take(reader);
    char *version = line ? word_take(line, MAGIC) : NULL;
    char *algorithm = version ? strchr(version, ' ') : NULL;

    if (!algorithm || algorithm == version)
        return malformed(reader, "expected \"" MAGIC VERSION " %s\"", hashes[0]->name);
    *algorithm++ = '\0';
    if (strcmp(version, VERSION) != 0)
        return fail(EXIT_UNSUPPORTED, "%s: a manifest of version %.20s, this tundish reads version " VERSION,
                    reader->path, version);
    manifest->hash = hash_find(algorithm);
    if (!manifest->hash)
        return fail(EXIT_UNSUPPORTED, "%s: digests by %.40s; 'tundish digest --help' lists the algorithms it knows",
                    reader->path, algorithm);
    return 0;
}

/* Line 2. */
static int parse_sums(struct reader *reader, uint64_t *ret_count, uint64_t *ret_bytes)
{
    char *line = line_take(reader);
    char *at = line ? word_take(line, "tensors ") : NULL;

    at = at ? digits_take(at, ret_count) : NULL;
    at = word_take(at, " bytes ");
    at = at ? digits_take(at, ret_bytes) : NULL;
    if (!at || *at != '\0')
        return malformed(reader, "expected \"tensors COUNT bytes COUNT\"");
    if (*ret_count > MANIFEST_TENSORS_MAX)
        return malformed(reader, "more tensors than the %d that a manifest may list", MANIFEST_TENSORS_MAX);
    return 0;
}

/* In place: what is written out is never longer. False for an escape that is none, or what should have been one. */
static bool unescape(char *name, size_t *ret_bytes)
{
    const char *from = name;
    char *to = name;

    while (*from != '\0') {
        int high, low;

        if ((unsigned char)*from < 0x20 || *from == 0x7F)
            return false;
        if (*from != '\\') {
            *to++ = *from++;
        } else if (from[1] == '\\') {
            *to++ = '\\';
            from += 2;
        } else {
            high = from[1] == 'x' ? text_hex_digit(from[2]) : -1;
            low = high < 0 ? -1 : text_hex_digit(from[3]);
            if (low < 0)
                return false;
            *to++ = (char)(unsigned char)(high << 4 | low);
            from += 4;
        }
    }
    *ret_bytes = (size_t)(to - name);
    return true;
}

static int parse_entry(const struct hash *hash, struct reader *reader, struct manifest_entry *entry)
{
    char *before = reader->at, *line = line_take(reader), *at;

    if (!line && reader->at > before)
        return malformed(reader, "a NUL, expected text");
    if (!line)
        return malformed(reader, before < reader->end ? "no line feed at its end: the file is cut"
                                                      : "the file ends here, expected another tensor");
    if (!hash_parse(hash, line, entry->sum))
        return malformed(reader, "expected %u hexadecimal digits of %s", 2 * hash->bytes, hash->title);
    at = word_take(line + 2 * hash->bytes, "  ");
    entry->dtype = at;
    at = at ? strchr(at, ' ') : NULL;
    if (!at || at == entry->dtype || !word_take(at, "  "))
        return malformed(reader, "expected two spaces, a type and two spaces behind the digest");
    *at = '\0';
    at = digits_take(at + 2, &entry->bytes);
    at = word_take(at, "  ");
    if (!at)
        return malformed(reader, "expected a number of bytes and two spaces behind the type");
    entry->name = at;
    entry->line = reader->line;
    if (!unescape(at, &entry->name_bytes))
        return malformed(reader, "expected a name with \\\\ for a backslash and \\xNN for a control character");
    return 0;
}

static int entry_compare(const struct manifest_entry *entry, const char *name, size_t name_bytes)
{
    size_t shorter = entry->name_bytes < name_bytes ? entry->name_bytes : name_bytes;
    int order = shorter > 0 ? memcmp(entry->name, name, shorter) : 0;

    return order != 0 ? order : (entry->name_bytes > name_bytes) - (entry->name_bytes < name_bytes);
}

static int by_name(const void *a, const void *b, void *cookie)
{
    const struct manifest_entry *entries = cookie, *left = &entries[*(const uint32_t *)a],
                                *right = &entries[*(const uint32_t *)b];
    int order = entry_compare(left, right->name, right->name_bytes);

    return order != 0 ? order : (left->line > right->line) - (left->line < right->line);
}

static int sort_names(struct manifest *manifest, struct reader *reader)
{
    for (uint32_t i = 0; i < manifest->count; i++)
        manifest->by_name[i] = i;
    qsort_r(manifest->by_name, manifest->count, sizeof(*manifest->by_name), by_name, manifest->entries);
    for (uint32_t i = 1; i < manifest->count; i++) {
        const struct manifest_entry *entry = &manifest->entries[manifest->by_name[i]],
                                    *before = &manifest->entries[manifest->by_name[i - 1]];

        reader->line = entry->line;
        if (entry_compare(before, entry->name, entry->name_bytes) == 0)
            return malformed(reader, "a name that an earlier line has, expected each once");
    }
    return 0;
}

static int parse(struct manifest *manifest, struct reader *reader)
{
    uint64_t count = 0, bytes = 0, sum = 0;
    int code = parse_magic(manifest, reader);

    if (code == 0)
        code = parse_sums(reader, &count, &bytes);
    if (code != 0)
        return code;
    manifest->entries = calloc(count + 1, sizeof(*manifest->entries));
    manifest->by_name = calloc(count + 1, sizeof(*manifest->by_name));
    if (!manifest->entries || !manifest->by_name)
        return fail(EXIT_RESOURCE, "out of memory for a manifest of %" PRIu64 " tensors", count);
    for (; manifest->count < count; manifest->count++) {
        code = parse_entry(manifest->hash, reader, &manifest->entries[manifest->count]);
        if (code != 0)
            return code;
        if (__builtin_add_overflow(sum, manifest->entries[manifest->count].bytes, &sum))
            return malformed(reader, "more than 2^64 bytes in all");
    }
    reader->line++;
    if (reader->at < reader->end)
        return malformed(reader, "more than the tensors that line 2 counts");
    reader->line = 2;
    if (sum != bytes)
        return malformed(reader, "another sum of bytes than its tensors have");
    return sort_names(manifest, reader);
}

static int read_whole(struct manifest *manifest, const char *path, int fd)
{
    struct stat status;
    ssize_t got = 1;

    if (fstat(fd, &status) < 0)
        return fail(EXIT_FAILED, "%s: cannot ask for its size: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return fail(EXIT_NOT_FOUND, "%s: is no regular file, expected a manifest", path);
    if ((uint64_t)status.st_size > MANIFEST_BYTES_MAX)
        return fail(EXIT_MALFORMED, "%s: %" PRIu64 " bytes, expected a manifest of at most %zu", path,
                    (uint64_t)status.st_size, MANIFEST_BYTES_MAX);
    manifest->text = malloc((size_t)status.st_size + 1);
    if (!manifest->text)
        return fail(EXIT_RESOURCE, "%s: out of memory for its %" PRIu64 " bytes", path, (uint64_t)status.st_size);
    while (got > 0 && manifest->text_bytes < (size_t)status.st_size) {
        got = read(fd, manifest->text + manifest->text_bytes, (size_t)status.st_size - manifest->text_bytes);
        if (got < 0)
            return fail(EXIT_FAILED, "%s: cannot read: %s", path, strerror(errno));
        manifest->text_bytes += (size_t)got;
    }
    manifest->text[manifest->text_bytes] = '\0';
    return 0;
}

int manifest_read(struct manifest *manifest, const char *path)
{
    struct reader reader = {.path = path};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int code;

    if (fd < 0)
        return fail(EXIT_NOT_FOUND, "%s: cannot open the manifest: %s", path, strerror(errno));
    code = read_whole(manifest, path, fd);
    close(fd);
    if (code != 0)
        return code;
    reader.at = manifest->text;
    reader.end = manifest->text + manifest->text_bytes;
    return parse(manifest, &reader);
}

void manifest_finish(struct manifest *manifest)
{
    free(manifest->text);
    free(manifest->entries);
    free(manifest->by_name);
    *manifest = (struct manifest){0};
}

int64_t manifest_find(const struct manifest *manifest, const char *name, size_t name_bytes)
{
    uint32_t low = 0, high = manifest->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = entry_compare(&manifest->entries[manifest->by_name[middle]], name, name_bytes);

        if (order == 0)
            return manifest->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}
