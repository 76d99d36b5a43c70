/* SPDX-License-Identifier: Apache-2.0 */
#include "hub.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

#define WORD_BYTES_MAX 96
#define PATH_BYTES 2048

struct name {
    char org[WORD_BYTES_MAX + 1], repo[WORD_BYTES_MAX + 1];
    const char *file; /* in the snapshot, NULL when none was named */
};

/* Letters, digits and ._-, at least one, not . or ..; returns what follows. */
static const char *take_word(const char *text, char *ret_word)
{
    size_t bytes = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    if (!bytes || bytes > WORD_BYTES_MAX)
        return NULL;
    memcpy(ret_word, text, bytes);
    ret_word[bytes] = 0;
    return strcmp(ret_word, ".") && strcmp(ret_word, "..") ? text + bytes : NULL;
}

static bool parse_name(const char *text, struct name *name)
{
    const char *rest = take_word(text, name->org);

    if (!rest || *rest != '/')
        return false;
    rest = take_word(rest + 1, name->repo);
    if (!rest || (*rest && *rest != ':') || (*rest == ':' && !rest[1]))
        return false;
    name->file = *rest ? rest + 1 : NULL;
    return true;
}

static bool cache_folder(char *folder, size_t bytes)
{
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"HF_HUB_CACHE", ""},
        {"HF_HOME", "/hub"},
        {"XDG_CACHE_HOME", "/huggingface/hub"},
        {"HOME", "/.cache/huggingface/hub"},
    };

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *value = getenv(places[i].variable);

        if (value && *value)
            return snprintf(folder, bytes, "%s%s", value, places[i].below) < (int)bytes;
    }
    return false;
}

/* The snapshot that refs/main names. */
static bool read_revision(const char *repo, char *ret_revision)
{
    char path[PATH_BYTES + 16], line[WORD_BYTES_MAX + 2] = "";
    const char *rest;
    ssize_t bytes;
    int fd;

    snprintf(path, sizeof(path), "%s/refs/main", repo);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* whatever lies there: nothing to wait for */
    if (fd < 0)
        return false;
    bytes = read(fd, line, sizeof(line) - 1);
    close(fd);
    if (bytes <= 0)
        return false;
    line[strcspn(line, "\r\n")] = 0;
    rest = take_word(line, ret_revision);
    return rest && !*rest;
}

int hub_resolve(const char **model, char *path, size_t path_bytes)
{
    struct name name;
    struct stat status;
    char cache[PATH_BYTES / 2], repo[PATH_BYTES], revision[WORD_BYTES_MAX + 1];
    int bytes;

    if (!*model || lstat(*model, &status) == 0 || !parse_name(*model, &name))
        return EXIT_DONE; /* a path, there or not */
    if (!cache_folder(cache, sizeof(cache)))
        return fail(EXIT_NOT_FOUND, "%s: no such file, and no folder of a Hugging Face cache is set", *model);
    snprintf(repo, sizeof(repo), "%s/models--%s--%s", cache, name.org, name.repo);
    if (!read_revision(repo, revision))
        return fail(EXIT_NOT_FOUND,
                    "%s: no such file, and not in the Hugging Face cache %s: 'hf download %s/%s' would bring it",
                    *model, cache, name.org, name.repo);
    bytes = snprintf(path, path_bytes, "%s/snapshots/%s%s%s", repo, revision, name.file ? "/" : "",
                     name.file ? name.file : "");
    if (bytes < 0 || (size_t)bytes >= path_bytes)
        return fail(EXIT_NOT_FOUND, "%s: its path in the Hugging Face cache is too long", *model);
    if (access(path, F_OK) < 0)
        return fail(EXIT_NOT_FOUND,
                    "%s: not in the snapshot %s of the Hugging Face cache: 'hf download %s/%s%s%s' would bring it",
                    *model, revision, name.org, name.repo, name.file ? " " : "", name.file ? name.file : "");
    *model = path;
    return EXIT_DONE;
}
