/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DIGESTS_H
#define TOOLS_DIGESTS_H

/* The digest of each tensor of a load, taken on several threads while the rest is on its way; what digest and verify
 * share. A tensor that has its digest gives its memory back, and reading rests while too much waits for its own: what
 * is held at once is the largest tensor, 256 MiB or what the machine has left, and the buffers. */

#include <stdint.h>

#include "hash.h"
#include "session.h"

struct digest {
    const struct tnd_tensor *tensor;
    const void *data; /* its first elements, as many as --values asks for */
    uint32_t index;   /* in the model */
    enum tnd_dtype dtype; /* as it lies in memory, and … */
    uint64_t bytes;       /* … so many of them */
    unsigned char sum[HASH_BYTES_MAX];
};

struct stream;

struct digests {
    const struct hash *hash;
    struct digest *items; /* [count], in the order of the model's own list */
    uint32_t count;
    struct stream *stream;
};

/* Opens the algorithm, before minutes of loading; loads; digests. Returns 0, or an exit code when a sentence has been
 * written; either way session_finish() and then digests_finish() follow. */
int digests_take(struct digests *digests, const struct hash *hash, struct session *session);

void digests_finish(struct digests *digests);

#endif
