/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_DIGEST_H
#define TND_PIPELINE_DIGEST_H

/* XXH3 of each tensor as it lies at its destination, made in passing: a worker that has placed a piece hashes it while
 * its bytes are in the cache, when all before it are hashed; else the worker of the piece before does. */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "io/io.h"
#include "plan/plan.h"

struct tnd_tensor_digest {
    uint64_t value;  /* once all pieces are in it */
    void *state;     /* between the pieces of a tensor that has several; NULL otherwise */
    uint32_t next;   /* under mutex: the piece whose turn it is */
    bool busy;       /* under mutex: a worker hashes */
};

struct tnd_digests {
    const struct tnd_plan *plan;
    const struct tnd_span *spans;
    struct tnd_tensor_digest *tensors; /* [model tensor_count] */
    uint32_t *piece_after;      /* [plan piece_count] the next one of the same tensor */
    bool *placed;               /* [plan piece_count] under mutex */
    pthread_mutex_t mutex;
};

/* spans: [plan piece_count]. The arrays live in the plan's arena. -ENOMEM. */
int tnd_digests_init(struct tnd_digests *digests, struct tnd_plan *plan, const struct tnd_span *spans,
                     struct tnd_err *err);
void tnd_digests_finish(struct tnd_digests *digests);

/* A piece lies at its destination. hot: its bytes as they lie there, where they are nearer; else NULL. Threads: any. */
void tnd_digests_placed(struct tnd_digests *digests, uint32_t piece_index, const uint8_t *hot);

#endif
