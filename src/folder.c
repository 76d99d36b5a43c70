/* SPDX-License-Identifier: Apache-2.0 */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
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

/* Keeps at most two paths of each kind, however many entries there are. */
static int note(struct found *found, struct tnd_arena *arena, const char *folder, const char *name)
{
    enum kind kind = kind_of(name);
    char path[PATH_MAX];
    uint32_t part, part_count;
    const char **place;

    if (kind == KIND_COUNT || name[0] == '.') /* some systems leave ._model.gguf beside model.gguf */
        return 0;
    if (snprintf(path, sizeof(path), "%s%s%s", folder, tnd_name_ends(folder, "/") ? "" : "/", name) >= PATH_MAX)
        return -ENOENT;
    if (tnd_split_name(path, &part, &part_count))
        tnd_split_rename(path, 1);
    if (found->first[kind] && (found->second[kind] || !strcmp(found->first[kind], path)))
        return 0;
    place = found->first[kind] ? &found->second[kind] : &found->first[kind];
    *place = tnd_arena_string(arena, path, strlen(path));
    return *place ? 0 : -ENOMEM;
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
        if (entry->d_type != DT_DIR)
            r = note(&found, arena, folder, entry->d_name);
    if (r == 0 && errno)
        r = tnd_errno_public(-errno);
    closedir(entries);
    return r < 0 ? tnd_fail(err, r, "%s: cannot list it: %s", folder, tnd_strerror(r))
                 : choose(&found, folder, ret_path, err);
}
