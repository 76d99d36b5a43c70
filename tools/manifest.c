/* SPDX-License-Identifier: Apache-2.0 */
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

#define MAGIC "tundish-manifest "
#define VERSION "1"
#define ALGORITHM "sha256"
#define TEMPORARY_TRIES 100

/* ---- Writing ----------------------------------------------------------------------------------------------- */

static int fail_place(const char *path, int error)
{
    bool absent = error == ENOENT || error == ENOTDIR || error == EACCES || error == EPERM || error == EROFS ||
                  error == ELOOP || error == ENAMETOOLONG;

    return fail(absent ? EXIT_NOT_FOUND : EXIT_FAILED, "cannot write the manifest %s: %s", path, strerror(error));
}

/* Where a link leads, so that it stays one; path itself when nothing is there yet. */
static void target_of(const char *path, char target[PATH_MAX])
{
    if (!realpath(path, target))
        snprintf(target, PATH_MAX, "%s", path);
}

/* Whether what is there may be replaced: nothing, or a manifest. A model named by mistake is neither. */
static bool may_replace(const char *target)
{
    char start[sizeof(MAGIC) - 1];
    int fd = open(target, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t bytes = fd < 0 ? 0 : read(fd, start, sizeof(start));

    if (fd >= 0)
        close(fd);
    return bytes == 0 || (bytes == (ssize_t)sizeof(start) && !memcmp(start, MAGIC, sizeof(start)));
}

int manifest_check_place(const char *path)
{
    char target[PATH_MAX];
    struct stat status;

    if (path[0] == '\0' || strlen(path) >= PATH_MAX)
        return fail_place(path, path[0] == '\0' ? ENOENT : ENAMETOOLONG);
    target_of(path, target);
    if (stat(target, &status) == 0 && !S_ISREG(status.st_mode))
        return fail(EXIT_NOT_FOUND, "cannot write the manifest %s: it is there and no regular file", path);
    if (!may_replace(target))
        return fail(EXIT_USAGE, "cannot write the manifest %s: it is there and no manifest, so it stays", path);
    if (access(dirname(target), W_OK) < 0)
        return fail_place(path, errno);
    return 0;
}

/* A file of its own beside the target, with the permissions that a new file gets. */
static FILE *temporary_open(const char *target, char *temporary, size_t temporary_bytes)
{
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        int written = snprintf(temporary, temporary_bytes, "%s.%ld.%d.tmp", target, (long)getpid(), i);
        FILE *file;

        if (written < 0 || (size_t)written >= temporary_bytes) {
            errno = ENAMETOOLONG;
            return NULL;
        }
        file = fopen(temporary, "wxe");
        if (file || errno != EEXIST)
            return file;
    }
    return NULL;
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

static void write_manifest(FILE *out, const struct digests *digests)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < digests->count; i++)
        bytes += digests->items[i].tensor->bytes;
    fprintf(out, MAGIC VERSION " " ALGORITHM "\ntensors %" PRIu32 " bytes %" PRIu64 "\n", digests->count, bytes);
    for (uint32_t i = 0; i < digests->count; i++) {
        const struct tnd_tensor *tensor = digests->items[i].tensor;

        fprintf(out, "%s  %s  %" PRIu64 "  ", sha256_text(digests->items[i].sha256).s, tnd_dtype_name(tensor->dtype),
                tensor->bytes);
        write_name(out, tensor->name, tensor->name_bytes);
        fputc('\n', out);
    }
}

/* The name, too, has to survive a loss of power; a file system that cannot say so has done what it can. */
static void sync_folder(char *target)
{
    int fd = open(dirname(target), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int manifest_write(const char *path, const struct digests *digests)
{
    char target[PATH_MAX], temporary[PATH_MAX + 32];
    FILE *file;
    int error = 0;

    target_of(path, target);
    file = temporary_open(target, temporary, sizeof(temporary));
    if (!file)
        return fail_place(path, errno);
    write_manifest(file, digests);
    if (fflush(file) != 0 || fsync(fileno(file)) < 0)
        error = errno;
    else if (ferror(file))
        error = EIO;
    if (fclose(file) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(temporary, target) < 0)
        error = errno;
    if (error != 0) {
        unlink(temporary);
        return fail_place(path, error);
    }
    sync_folder(target);
    return 0;
}

/* ---- Reading ----------------------------------------------------------------------------------------------- */

/* What is left of the file, and which line that begins with. */
struct reader {
    const char *path;
    char *at, *end;
    uint32_t line;
};

static int malformed(const struct reader *reader, const char *what)
{
    return fail(EXIT_MALFORMED, "%s: line %" PRIu32 ": %s", reader->path, reader->line, what);
}

/* Takes a line, whose line feed becomes a NUL. NULL when none is left, none that ends, or one with a NUL inside. */
static char *line_take(struct reader *reader)
{
    char *line = reader->at;
    char *feed = memchr(line, '\n', (size_t)(reader->end - line));

    reader->line++;
    if (!feed)
        return NULL;
    *feed = '\0';
    reader->at = feed + 1;
    return memchr(line, '\0', (size_t)(feed - line)) ? NULL : line;
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

static int parse_head(struct reader *reader, uint64_t *ret_count, uint64_t *ret_bytes)
{
    char *line = line_take(reader);
    char *at = line ? word_take(line, MAGIC) : NULL;
    char *algorithm = at ? strchr(at, ' ') : NULL;

    if (!algorithm || algorithm == at)
        return malformed(reader, "expected \"" MAGIC VERSION " " ALGORITHM "\"");
    *algorithm++ = '\0';
    if (strcmp(at, VERSION) != 0)
        return fail(EXIT_UNSUPPORTED, "%s: a manifest of version %.20s, this tundish reads version " VERSION,
                    reader->path, at);
    if (strcmp(algorithm, ALGORITHM) != 0)
        return fail(EXIT_UNSUPPORTED, "%s: digests by %.40s, this tundish compares " ALGORITHM, reader->path,
                    algorithm);
    line = line_take(reader);
    at = line ? word_take(line, "tensors ") : NULL;
    at = at ? digits_take(at, ret_count) : NULL;
    at = word_take(at, " bytes ");
    at = at ? digits_take(at, ret_bytes) : NULL;
    if (!at || *at != '\0')
        return malformed(reader, "expected \"tensors COUNT bytes COUNT\"");
    if (*ret_count > MANIFEST_TENSORS_MAX)
        return malformed(reader, "more tensors than the 1000000 that a manifest may list");
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

static int parse_entry(struct reader *reader, struct manifest_entry *entry)
{
    char *before = reader->at, *line = line_take(reader), *at;

    if (!line && reader->at > before)
        return malformed(reader, "a NUL, expected text");
    if (!line)
        return malformed(reader, before < reader->end ? "no line feed at its end: the file is cut"
                                                      : "the file ends here, expected another tensor");
    if (!sha256_parse(line, entry->sha256))
        return malformed(reader, "expected the 64 hexadecimal digits of a SHA-256");
    at = word_take(line + 2 * SHA256_BYTES, "  ");
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
    int code = parse_head(reader, &count, &bytes);

    if (code != 0)
        return code;
    manifest->entries = calloc(count + 1, sizeof(*manifest->entries));
    manifest->by_name = calloc(count + 1, sizeof(*manifest->by_name));
    if (!manifest->entries || !manifest->by_name)
        return fail(EXIT_RESOURCE, "out of memory for a manifest of %" PRIu64 " tensors", count);
    for (; manifest->count < count; manifest->count++) {
        code = parse_entry(reader, &manifest->entries[manifest->count]);
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
    reader.at = manifest->text;
    reader.end = manifest->text + manifest->text_bytes;
    return code != 0 ? code : parse(manifest, &reader);
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
