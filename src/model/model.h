/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_MODEL_MODEL_H
#define TND_MODEL_MODEL_H

/* The catalogue that formats fill and everybody else reads. Built by one thread, then immutable. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "tundish.h"

#define TND_TENSORS_MAX 1000000
#define TND_METAS_MAX 1000000

/* What must not change between open and ready. */
struct tnd_file_identity {
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec modified;
};

struct tnd_model_file {
    struct tnd_file file; /* what others see */
    int fd;               /* buffered, read-only; -1 before it is open */
    struct tnd_file_identity identity;
    struct tnd_mapping header; /* the bytes that names and metadata point into */
};

/* Open addressing over names: 1 + position of the entry, 0 = free; mask + 1 slots, at most half of them taken. */
struct tnd_name_index {
    uint32_t *slots;
    uint32_t mask;
};

struct tnd_model {
    struct tnd_arena arena; /* everything below lives here */
    struct tnd_log log;
    const char *format;
    struct tnd_model_file *files; /* [file_count] */
    uint32_t file_count;
    struct tnd_tensor *tensors; /* [tensor_count] */
    uint32_t tensor_count, tensor_room;
    struct tnd_meta *metas; /* [meta_count] */
    uint32_t meta_count, meta_room;
    struct tnd_name_index tensor_names, meta_names;
    uint32_t layer_count;
    uint64_t bytes;
    uint64_t open_ns;
};

/* The sentences of the functions below have no file and no place in it; whoever calls them knows and says it. */

/* Room for count more entries, which a format asks for once it knows, so that adding need not move anything. -ENOMEM,
 * or -EFBIG over TND_TENSORS_MAX or TND_METAS_MAX in all. */
int tnd_model_reserve(struct tnd_model *model, uint64_t tensor_count, uint64_t meta_count, struct tnd_err *err);

/* Adds a tensor whose name, shape, dtype, file and offset are checked and set (name and shape in the model's arena)
 * and which tnd_tensor_measure() has seen; fills in layer and role. The model's layer_count and bytes grow with it.
 * -EBADMSG for a name that is there already, -EFBIG, -ENOMEM. */
int tnd_model_add_tensor(struct tnd_model *model, const struct tnd_tensor *tensor, struct tnd_err *err);

/* Adds a key and its value; the key lies in the model's arena, what the value points to lives as long as the model.
 * -EBADMSG for a key that is there already, -EFBIG, -ENOMEM. */
int tnd_model_add_meta(struct tnd_model *model, const struct tnd_meta *meta, struct tnd_err *err);

/* tnd_model_tensor_find() for a name that may have a NUL inside. */
int64_t tnd_model_find_name(const struct tnd_model *model, const char *name, size_t name_bytes);

/* Elements and bytes of a shape. rows_whole: each row must fill whole blocks (GGUF), else only the whole (safetensors).
 * -EBADMSG on overflow or a part of a block. */
int tnd_tensor_measure(struct tnd_tensor *tensor, bool rows_whole, struct tnd_err *err);

/* -EBADMSG when two tensors of a file share bytes or one ends beyond it. Empty tensors take no bytes, wherever. */
int tnd_model_check_ranges(const struct tnd_model *model, uint32_t file_index, struct tnd_err *err);

/* -EBADMSG unless the tensors of a file follow each other from data_offset to its end, without hole or overlap. */
int tnd_model_check_tiling(const struct tnd_model *model, uint32_t file_index, uint64_t data_offset,
                           struct tnd_err *err);

#endif
