/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_DECODER_ARCHITECTURE_H
#define WORKER_DECODER_ARCHITECTURE_H

/* What the known architectures differ in, and what their tensors are called. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct architecture {
    const char *name;      /* general.architecture, and model_type in config.json */
    bool biases;           /* of query, key and value */
    bool gguf_rope_halves; /* a GGUF's query and key are in the order of the checkpoint; else permuted into pairs */
};

/* NULL when it is not known. name: any bytes. */
const struct architecture *architecture_find(const char *name, size_t bytes);

/* The tensors of a layer. */
enum weight {
    WEIGHT_ATTENTION_NORM, WEIGHT_QUERY, WEIGHT_KEY, WEIGHT_VALUE, WEIGHT_QUERY_BIAS, WEIGHT_KEY_BIAS,
    WEIGHT_VALUE_BIAS, WEIGHT_ATTENTION_OUTPUT, WEIGHT_FEED_FORWARD_NORM, WEIGHT_GATE, WEIGHT_UP, WEIGHT_DOWN,
    WEIGHT_COUNT
};

/* A size that the configuration tells. EXTENT_ONE: the tensor is a vector. */
enum extent { EXTENT_ONE, EXTENT_WIDTH, EXTENT_FEED_FORWARD, EXTENT_QUERY, EXTENT_KEY, EXTENT_VOCABULARY, EXTENT_ROPE };

struct weight_spec {
    const char *gguf, *huggingface; /* after "blk.N." and "model.layers.N." for one of a layer; NULL: has none */
    enum extent rows, columns;
    bool bias;
};

extern const struct weight_spec weight_specs[WEIGHT_COUNT];

/* The tensors of no layer. */
enum shared_weight { WEIGHT_EMBEDDING, WEIGHT_OUTPUT_NORM, WEIGHT_OUTPUT, WEIGHT_ROPE_FACTORS, SHARED_WEIGHT_COUNT };

extern const struct weight_spec shared_weight_specs[SHARED_WEIGHT_COUNT];

#endif
