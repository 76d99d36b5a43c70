/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_FORMAT_SET_H
#define TND_FORMAT_SET_H

/* Models in several files: the names of a split GGUF's parts, and the index of sharded safetensors. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "format/format.h"
#include "model/model.h"

#define TND_FILES_MAX 1000 /* of one model; each takes up to two descriptors while it is loaded */

/* A path that ends in -NNNNN-of-MMMMM.gguf, five digits each, 1 ≤ N ≤ M. */
bool tnd_split_name(const char *path, uint32_t *ret_part, uint32_t *ret_part_count);
/* Makes such a path that of another part. */
void tnd_split_rename(char *path, uint32_t part);
/* The path of another part, in the arena; NULL without memory. */
const char *tnd_split_path(struct tnd_arena *arena, const char *path, uint32_t part);

/* model.safetensors.index.json: {"metadata": anything, "weight_map": {tensor: file, …}}, each file one path component
 * in the index's own folder. Hugging Face's transformers write it beside the shards. */
struct tnd_index_entry {
    const char *tensor; /* NUL-terminated */
    size_t tensor_bytes;
    uint32_t file; /* in files */
    uint64_t at;   /* where in the index, for sentences */
};

struct tnd_index {
    const char *path;
    const char **files; /* [file_count] in the order they are first named */
    uint32_t file_count;
    struct tnd_index_entry *entries; /* [entry_count] */
    uint32_t entry_count, entry_room;
};

/* Reads all of an index; names and arrays go to the arena. -EBADMSG, -EFBIG, -ENOMEM. */
int tnd_index_parse(struct tnd_index *index, struct tnd_header *header, struct tnd_arena *arena, struct tnd_err *err);

/* Whether the model, with the index's files as its own in that order, has each tensor where the index says. -EBADMSG.
 */
int tnd_index_check(const struct tnd_index *index, const struct tnd_model *model, struct tnd_err *err);

#endif
