/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_SHA256_H
#define TOOLS_SHA256_H

/* SHA-256 by libcrypto, which is opened only where it is needed: linking it would cost every start of the command. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32

struct sha256_text {
    char s[2 * SHA256_BYTES + 1]; /* lower-case hexadecimal digits */
};

/* libcrypto's functions; its types are opaque here. */
struct sha256 {
    void *library;
    void *(*context_create)(void);
    void (*context_destroy)(void *context);
    const void *(*algorithm)(void);
    int (*start)(void *context, const void *algorithm, void *engine);
    int (*update)(void *context, const void *data, size_t bytes);
    int (*finish)(void *context, unsigned char *digest, unsigned *ret_bytes);
};

/* Returns 0, or an exit code when a sentence has been written. */
int sha256_open(struct sha256 *sha256);

/* Digests data, in steps small enough to see *stop soon. Returns false when stopped or failed. Threads: any. */
bool sha256_digest(const struct sha256 *sha256, const void *data, size_t bytes, bool (*stop)(void),
                   unsigned char digest[SHA256_BYTES]);

/* The same of what is left to read from fd. Returns 0, -ECANCELED when stopped, else -errno; -EIO when libcrypto fails.
 * ret_bytes: how many were read. */
int sha256_digest_fd(const struct sha256 *sha256, int fd, bool (*stop)(void), unsigned char digest[SHA256_BYTES],
                     uint64_t *ret_bytes);

struct sha256_text sha256_text(const unsigned char digest[SHA256_BYTES]);

/* Reads 64 hexadecimal digits at text. False when there is anything else. */
bool sha256_parse(const char *text, unsigned char digest[SHA256_BYTES]);

#endif
