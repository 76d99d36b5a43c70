/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_FORMAT_FORMAT_H
#define TND_FORMAT_FORMAT_H

/* Formats turn untrusted bytes into the model's catalogue. They do no I/O: bytes come from a header source. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

#define TND_HEADER_BYTES_MAX ((uint64_t)128 << 20)

/* The first bytes of a file, brought on demand. data never moves; [0, have) is there. */
struct tnd_header {
    const uint8_t *data;
    uint64_t have;
    uint64_t file_bytes;
    const char *path; /* for sentences */
    uint32_t part;       /* of a set, from 1: the first file's metadata are the model's */
    uint32_t part_count; /* by the name of a split GGUF; 0 when the name says nothing */
    /* Brings [0, need): need ≤ file_bytes, which the format has checked. -EFBIG over TND_HEADER_BYTES_MAX, -EIO,
     * -EBADMSG when the file ends before file_bytes. */
    int (*fetch)(struct tnd_header *header, uint64_t need, struct tnd_err *err);
};

/* Sees that [0, offset + bytes) is there; -EBADMSG when the file is shorter. what: "the tensor count", … */
int tnd_header_need(struct tnd_header *header, uint64_t offset, uint64_t bytes, const char *what, struct tnd_err *err);

/* "PATH: byte OFFSET: …": fills err and returns result. Very long paths lose their front. */
int tnd_fail_at(struct tnd_err *err, int result, const char *path, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Put "PATH: " and "PATH: byte OFFSET: KIND 'NAME': " before the sentence that err has, and return result.
 * A NULL kind leaves that part out. */
int tnd_fail_file(struct tnd_err *err, int result, const char *path);
int tnd_fail_in(struct tnd_err *err, int result, const char *path, uint64_t offset, const char *kind, const char *name,
                size_t name_bytes);

/* How much of a name a sentence shows, for %.*s: whole characters only. */
int tnd_shown(const char *name, size_t name_bytes);

bool tnd_name_ends(const char *path, const char *ending);

struct tnd_format {
    const char *name;
    /* Whether the file is meant to be of this format, by first bytes ([0, have), at least min(9, file)) and name. */
    bool (*probe)(const struct tnd_header *header);
    /* Adds the file's tensors and metadata to the model and sets model->format. */
    int (*parse)(struct tnd_header *header, struct tnd_model *model, uint32_t file_index, struct tnd_err *err);
};

extern const struct tnd_format tnd_format_gguf;
extern const struct tnd_format tnd_format_safetensors;

/* The first format whose probe says yes, or NULL. */
const struct tnd_format *tnd_format_find(const struct tnd_header *header);

#endif
