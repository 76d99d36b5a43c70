/* SPDX-License-Identifier: Apache-2.0 */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format/set.h"

/* Best first: a folder with the one on top may hold any number of the others. */
enum kind { USUAL_INDEX, INDEX, USUAL_FILE, GGUF, SAFETENSORS, KIND_COUNT };

struct found {
    const char *first[KIND_COUNT];  /* a path of each kind */
    const char *second[KIND_COUNT]; /* another one */
};

static enum kind kind_of(const char *name)
{
    if (!strcmp(name, "model.safetensors.index.json"))
        return USUAL_INDEX;
    if (tnd_name_ends(name, ".safetensors.index.json"))
        return INDEX;
    if (!strcmp(name, "model.safetensors"))
        return USUAL_FILE;
    if (tnd_name_ends(name, ".gguf"))
        return GGUF;
    return tnd_name_ends(name, ".safetensors") ? SAFETENSORS : KIND_COUNT;
}

static int note(struct found *found, struct tnd_arena *arena, const char *folder, const char *name)
{
    enum kind kind = kind_of(name);
    size_t bytes = strlen(folder) + strlen(name) + 2;
    uint32_t part, part_count;
    const char *path;
    char *joined;

    if (kind == KIND_COUNT)
        return 0;
    joined = tnd_arena_alloc(arena, bytes, 1);
    if (!joined)
        return -ENOMEM;
    snprintf(joined, bytes, "%s%s%s", folder, tnd_name_ends(folder, "/") ? "" : "/", name);
    path = tnd_split_name(joined, &part, &part_count) ? tnd_split_path(arena, joined, 1) : joined;
    if (!path)
        return -ENOMEM;
    if (!found->first[kind])
        found->first[kind] = path;
    else if (strcmp(found->first[kind], path))
        found->second[kind] = path;
    return 0;
}

static int choose(const struct found *found, const char *folder, const char **ret_path, struct tnd_err *err)
{
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        if (!found->first[kind])
            continue;
        if (found->second[kind])
            return tnd_fail(err, -ENOENT, "%s: holds several models, %s and %s among them: name one", folder,
                            found->first[kind], found->second[kind]);
        *ret_path = found->first[kind];
        return 0;
    }
    return tnd_fail(err, -ENOENT, "%s: a folder without a model (.gguf, .safetensors or an index of them)", folder);
}

int tnd_folder_find(struct tnd_arena *arena, const char *folder, const char **ret_path, struct tnd_err *err)
{
    DIR *entries = opendir(folder);
    struct found found = {0};
    const struct dirent *entry;
    int r = 0;

    if (!entries)
        return tnd_fail(err, tnd_errno_public(-errno), "%s: cannot open: %s", folder, strerror(errno));
    while (r == 0 && (errno = 0, entry = readdir(entries)))
        r = note(&found, arena, folder, entry->d_name);
    if (r == 0 && errno)
        r = tnd_errno_public(-errno);
    closedir(entries);
    return r < 0 ? tnd_fail(err, r, "%s: cannot list it: %s", folder, tnd_strerror(r))
                 : choose(&found, folder, ret_path, err);
}
