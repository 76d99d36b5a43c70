/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_GENERATE_SAMPLER_H
#define WORKER_GENERATE_SAMPLER_H

/* Chooses the next token. The same logits, options and seed give the same tokens. */

#include <stdint.h>

struct sampler_options {
    float temperature; /* 0: the likeliest token, the first of equals */
    float top_p;       /* of the likeliest, as many as have this share of the probability; 0 or 1: all */
    uint32_t top_k;    /* of the likeliest, so many, before top_p; 0: all */
    uint64_t seed;
};

struct candidate {
    float logit;
    int32_t token;
};

struct sampler {
    struct sampler_options options;
    uint64_t state;
    struct candidate *candidates; /* [vocabulary] */
    uint32_t vocabulary;
};

/* Returns: 0, -EINVAL an option that is negative, no number or beyond 1 where it is a share, -ENOMEM. */
int sampler_init(struct sampler *sampler, const struct sampler_options *options, uint32_t vocabulary);
void sampler_finish(struct sampler *sampler);

/* logits: [vocabulary]. -1: the largest one is no finite number. */
int32_t sampler_next(struct sampler *sampler, const float *logits);

#endif
