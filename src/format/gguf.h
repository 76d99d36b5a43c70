/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_FORMAT_GGUF_H
#define TND_FORMAT_GGUF_H

/* What the two halves of the GGUF reader share: gguf.c (head and tensors), gguf_meta.c (keys and values). */

#include "base/bytes.h"
#include "format/format.h"

#define TND_GGUF_KEY_BYTES_MAX 65535
#define TND_GGUF_NAME_BYTES_MAX 64
#define TND_GGUF_DIMS_MAX 4
#define TND_GGUF_ARRAY_DEPTH_MAX 4 /* arrays inside each other; none is known that uses more than one */
#define TND_GGUF_ALIGNMENT_DEFAULT 32

struct tnd_gguf {
    struct tnd_header *header;
    struct tnd_model *model;
    struct tnd_model *metas; /* where the metadata go: the model, for further parts one of their own */
    uint32_t file_index;
    uint32_t alignment; /* of the data, by the metadata */
    uint64_t at;        /* of the next byte to be read */
    uint64_t split_at;  /* of the last value of a split.* key */
};

/* Sees that the next bytes are there. */
static inline int tnd_gguf_need(struct tnd_gguf *gguf, uint64_t bytes, const char *what, struct tnd_err *err)
{
    if (bytes <= gguf->header->have - gguf->at)
        return 0;
    return tnd_header_need(gguf->header, gguf->at, bytes, what, err);
}

int tnd_gguf_u32(struct tnd_gguf *gguf, const char *what, uint32_t *ret_value, struct tnd_err *err);
int tnd_gguf_u64(struct tnd_gguf *gguf, const char *what, uint64_t *ret_value, struct tnd_err *err);

/* A count of things that take so many bytes each at least: -EBADMSG when the rest of the file cannot hold them. */
int tnd_gguf_count(struct tnd_gguf *gguf, const char *what, uint64_t bytes_min, uint64_t *ret_count,
                   struct tnd_err *err);

/* A u64 length and the text, at most max bytes of UTF-8. The text points into the header. */
int tnd_gguf_text(struct tnd_gguf *gguf, const char *what, uint64_t max, const char **ret_text, size_t *ret_bytes,
                  struct tnd_err *err);

/* The metadata entries behind the head; adds them to metas. */
int tnd_gguf_metas(struct tnd_gguf *gguf, uint64_t count, struct tnd_err *err);

#endif
