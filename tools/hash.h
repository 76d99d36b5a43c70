/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_HASH_H
#define TOOLS_HASH_H

/* Hash algorithms behind one table, which digest, verify and the manifest read. SHA-256 shows that bytes are those that
 * somebody vouched for; XXH3 costs a fraction of it and shows that nothing happened to them by accident. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_BYTES_MAX 32

struct hash {
    const char *name;  /* in options, manifests and JSON */
    const char *title; /* in sentences */
    uint32_t bytes;    /* of a digest, which is written as twice as many hexadecimal digits */

    /* Comes before all else. Returns 0, or an exit code when a sentence has been written. */
    int (*open)(void);
    /* A digest on its way, NULL when it cannot. Threads: any, each its own. */
    void *(*begin)(void);
    bool (*update)(void *state, const void *data, size_t bytes);
    /* Frees state; digest NULL: only that. */
    bool (*end)(void *state, unsigned char *digest);
};

/* By libcrypto, which is opened only where it is needed: linking it would cost every start of the command. */
extern const struct hash hash_sha256;
/* The one of 64 bits, most significant byte first, as xxhsum -H3 writes it. */
extern const struct hash hash_xxh3;

/* Those that there are, in the order in which --algo lists them. */
#define HASH_COUNT 2
extern const struct hash *const hashes[HASH_COUNT];

/* NULL when there is none of that name. */
const struct hash *hash_find(const char *name);

/* The digest of data, in steps small enough to see *stop soon. False when stopped or failed. Threads: any. */
bool hash_memory(const struct hash *hash, const void *data, size_t bytes, bool (*stop)(void), unsigned char *digest);

/* The same of what is left to read from fd. Returns 0, -ECANCELED when stopped, else -errno; -EIO when the algorithm
 * fails. ret_bytes: how many were read. */
int hash_fd(const struct hash *hash, int fd, bool (*stop)(void), unsigned char *digest, uint64_t *ret_bytes);

struct hash_text {
    char s[2 * HASH_BYTES_MAX + 1]; /* lower-case hexadecimal digits */
};
struct hash_text hash_text(const struct hash *hash, const unsigned char *digest);

/* Reads as many hexadecimal digits at text as a digest has. False when there is anything else. */
bool hash_parse(const struct hash *hash, const char *text, unsigned char *digest);

#endif
