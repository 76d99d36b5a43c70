/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_DECODER_STATE_H
#define WORKER_DECODER_STATE_H

#include <stdatomic.h>

#include "decoder/decoder.h"
#include "decoder/weights.h"

/* Tokens that go through a layer's matrices together. Bits do not depend on it. */
#define CHUNK_TOKENS 128

struct decoder {
    const struct tnd_model *model;
    struct decoder_config config;
    struct weights weights;
    atomic_bool stopped;

    /* From decoder_attach() on. */
    struct tnd_load *load;
    struct team *team;
    uint32_t context; /* tokens that there is room for */
    uint32_t length;  /* of the sequence */

    uint16_t *keys, *values; /* F16: [layer][kv_head][context][head_dim] */
    float *hidden;           /* [context][width], of the tokens that are being run */
    float *frequencies;      /* [rope_dims / 2], once has_frequencies */
    float *cosines, *sines;  /* [context][rope_dims / 2], of the positions that are being run */
    bool has_frequencies;

    /* Of a layer, decoded. */
    float *norm, *feed_forward_norm; /* [width] */
    float *query_bias, *key_bias, *value_bias;

    /* Of a chunk: [CHUNK_TOKENS][…]. */
    float *normed, *projected; /* width */
    float *query, *attended;   /* heads × head_dim */
    float *key, *value;        /* kv_heads × head_dim */
    float *gate, *up;          /* feed_forward */
    float *scores;             /* [members of the team][context] */
    float *logits;             /* [vocabulary] */
    float *scratch;            /* matrix_multiply()'s */
};

/* Angles by which the elements of a head turn with each position, [rope_dims / 2]. factors: of the model's file, or
 * NULL. */
void rope_frequencies(const struct decoder_config *config, const float *factors, float *ret_frequencies);

#endif
