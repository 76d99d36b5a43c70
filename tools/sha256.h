/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_SHA256_H
#define TOOLS_SHA256_H

/* SHA-256 by libcrypto, which is opened only where it is needed: linking it would cost every start of the command. */

#include <stdbool.h>
#include <stddef.h>

#define SHA256_BYTES 32

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

#endif
