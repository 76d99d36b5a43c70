/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_DECODER_DECODER_H
#define WORKER_DECODER_DECODER_H

/* The forward pass of a decoder-only transformer over a load's layers, for one sequence.
 *
 * A layer is acquired when it is computed with, so that a prompt is worked through while the rest arrives, and through
 * a window that is smaller than the model.
 *
 * Threads: one at a time; decoder_stop() from any. */

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "kernels/team.h"
#include "tundish.h"

/* What a model says of itself, in a GGUF's metadata or in config.json. */
struct decoder_config {
    const char *architecture; /* "llama", "qwen2" */
    uint32_t layers, width, feed_forward, heads, kv_heads, head_dim, vocabulary, context;
    float norm_epsilon, rope_base;
    uint32_t rope_dims;  /* of each head, the first ones: those that are rotated */
    bool rope_halves;    /* element i turns with i + rope_dims / 2; else 2i with 2i + 1 */
    bool biases;         /* of query, key and value */
    enum { HEAD_AS_FOUND, HEAD_TIED, HEAD_OWN } head; /* the embedding where no other is found, always, never */
    enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } rope_scaling;
    float rope_factor;   /* of the last two; the rest of ROPE_LLAMA3 */
    float rope_low_factor, rope_high_factor;
    uint32_t rope_context; /* that the model was first trained with */
};

struct decoder;

/* Reads the configuration and finds every tensor; reads no weights. folder: where the model's first file lies.
 * Returns:  0, -ENOTSUP another architecture or something of it that is not handled, -EBADMSG a key or tensor is
 *           missing or has another shape, -EFBIG a number over its limit, -ENOENT no config.json, -EACCES, -ENOMEM,
 *           -EIO. */
int decoder_open(const struct tnd_model *model, const char *folder, struct decoder **ret_decoder,
                 struct failure *failure);
void decoder_close(struct decoder **decoder); /* takes NULL */
const struct decoder_config *decoder_config(const struct decoder *decoder);

/* Takes what a sequence of up to context_tokens needs (keys and values in F16). load: of the same model, in
 * TND_ORDER_USE and in native types, with or without a window; it outlives the decoder or the next decoder_attach().
 * team: of the caller's.
 * Returns: 0, -EINVAL more than the model's context, -ENOMEM. */
int decoder_attach(struct decoder *decoder, struct tnd_load *load, struct team *team, uint32_t context_tokens,
                   struct failure *failure);

/* Appends tokens to the sequence and computes: ret_logits [vocabulary] after the last one, or NULL.
 * Returns: 0, -EINVAL a token outside the vocabulary, -EFBIG beyond the context, -ECANCELED decoder_stop(), else what
 *          the load failed with. After a failure the sequence is as it was before. */
int decoder_run(struct decoder *decoder, const int32_t *tokens, uint32_t token_count, float *ret_logits,
                struct failure *failure);

/* The sequence's first tokens stay, the rest is forgotten. */
void decoder_truncate(struct decoder *decoder, uint32_t token_count);
uint32_t decoder_length(const struct decoder *decoder);

/* decoder_run() under way ends soon, and so does every next one until false is set. */
void decoder_stop(struct decoder *decoder, bool stopped);

#endif
