/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DIGESTS_H
#define TOOLS_DIGESTS_H

/* The SHA-256 of each tensor that a load has, taken on several threads; what digest and verify share. */

#include <stdint.h>

#include "session.h"
#include "sha256.h"

struct digest {
    const struct tnd_tensor *tensor;
    const void *data;
    unsigned char sha256[SHA256_BYTES];
};

struct digests {
    struct sha256 sha256;
    struct digest *items; /* [count], in the order of the model's own list */
    uint32_t count;
};

/* Opens libcrypto, before minutes of loading; loads; digests. Returns 0, or an exit code when a sentence has been
 * written; either way digests_finish() and session_finish() follow. */
int digests_take(struct digests *digests, struct session *session);

/* libcrypto stays: it has exit handlers of its own. */
void digests_finish(struct digests *digests);

#endif
