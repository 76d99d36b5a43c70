/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_MANIFEST_H
#define TOOLS_MANIFEST_H

/* The digests of a model's tensors in a text file, for later and elsewhere:
 *
 *   tundish-manifest 1 sha256                          version of the format, algorithm
 *   tensors 2 bytes 4294                               how many follow, and their bytes in all
 *   9f86…0a08  F16  4096  blk.0.attn_q.weight          digest, type, bytes, name, two spaces between them
 *   6030…8b45  F32  198  a\x20name\x0awith\\escapes\x20
 *
 * in the order of the model's own list. Each line ends in a line feed, which may have a carriage return before it. A
 * name is UTF-8; a backslash in it is written as \\, control characters (U+0000 … U+001F, U+007F … U+009F), a space at
 * either end and bytes that are no UTF-8 as \xNN, a byte each. docs/formats.md says the same to others. */

#include "digests.h"
#include "whole_file.h"

#define MANIFEST_BYTES_MAX ((size_t)256 << 20)
#define MANIFEST_TENSORS_MAX 1000000 /* as many as the library opens */

struct manifest_entry {
    char *name; /* unescaped; may hold NUL */
    size_t name_bytes;
    char *dtype;
    uint64_t bytes;
    uint32_t line;
    unsigned char sum[HASH_BYTES_MAX];
};

struct manifest {
    const struct hash *hash;
    char *text; /* the file; what entries point to */
    size_t text_bytes;
    struct manifest_entry *entries; /* [count], as the file has them */
    uint32_t *by_name;              /* [count], for manifest_find() */
    uint32_t count;
};

/* Whether a manifest could be written there: asked before the digests are taken. All return 0, or an exit code when a
 * sentence has been written. */
int manifest_prepare(struct whole_file *file, const char *path);
int manifest_write(const struct whole_file *file, const struct digests *digests);

/* Malformed: EXIT_MALFORMED with the line; another version or algorithm: EXIT_UNSUPPORTED. */
int manifest_read(struct manifest *manifest, const char *path);
void manifest_finish(struct manifest *manifest);

/* The position of that name in entries, or -1. */
int64_t manifest_find(const struct manifest *manifest, const char *name, size_t name_bytes);

#endif
