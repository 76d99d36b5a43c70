/* SPDX-License-Identifier: Apache-2.0 */
#include "decoder/architecture.h"

#include <string.h>

static const struct architecture architectures[] = {
    {.name = "llama", .biases = false, .gguf_rope_halves = false},
    {.name = "qwen2", .biases = true, .gguf_rope_halves = true},
};

const struct weight_spec weight_specs[WEIGHT_COUNT] = {
    [WEIGHT_ATTENTION_NORM] = {"attn_norm.weight", "input_layernorm.weight", EXTENT_ONE, EXTENT_WIDTH, false},
    [WEIGHT_QUERY] = {"attn_q.weight", "self_attn.q_proj.weight", EXTENT_QUERY, EXTENT_WIDTH, false},
    [WEIGHT_KEY] = {"attn_k.weight", "self_attn.k_proj.weight", EXTENT_KEY, EXTENT_WIDTH, false},
    [WEIGHT_VALUE] = {"attn_v.weight", "self_attn.v_proj.weight", EXTENT_KEY, EXTENT_WIDTH, false},
    [WEIGHT_QUERY_BIAS] = {"attn_q.bias", "self_attn.q_proj.bias", EXTENT_ONE, EXTENT_QUERY, true},
    [WEIGHT_KEY_BIAS] = {"attn_k.bias", "self_attn.k_proj.bias", EXTENT_ONE, EXTENT_KEY, true},
    [WEIGHT_VALUE_BIAS] = {"attn_v.bias", "self_attn.v_proj.bias", EXTENT_ONE, EXTENT_KEY, true},
    [WEIGHT_ATTENTION_OUTPUT] = {"attn_output.weight", "self_attn.o_proj.weight", EXTENT_WIDTH, EXTENT_QUERY, false},
    [WEIGHT_FEED_FORWARD_NORM] = {"ffn_norm.weight", "post_attention_layernorm.weight", EXTENT_ONE, EXTENT_WIDTH,
                                  false},
    [WEIGHT_GATE] = {"ffn_gate.weight", "mlp.gate_proj.weight", EXTENT_FEED_FORWARD, EXTENT_WIDTH, false},
    [WEIGHT_UP] = {"ffn_up.weight", "mlp.up_proj.weight", EXTENT_FEED_FORWARD, EXTENT_WIDTH, false},
    [WEIGHT_DOWN] = {"ffn_down.weight", "mlp.down_proj.weight", EXTENT_WIDTH, EXTENT_FEED_FORWARD, false},
};

const struct weight_spec shared_weight_specs[SHARED_WEIGHT_COUNT] = {
    [WEIGHT_EMBEDDING] = {"token_embd.weight", "model.embed_tokens.weight", EXTENT_VOCABULARY, EXTENT_WIDTH, false},
    [WEIGHT_OUTPUT_NORM] = {"output_norm.weight", "model.norm.weight", EXTENT_ONE, EXTENT_WIDTH, false},
    [WEIGHT_OUTPUT] = {"output.weight", "lm_head.weight", EXTENT_VOCABULARY, EXTENT_WIDTH, false},
    [WEIGHT_ROPE_FACTORS] = {"rope_freqs.weight", NULL, EXTENT_ONE, EXTENT_ROPE, false},
};

const struct architecture *architecture_find(const char *name, size_t bytes)
{
    for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++)
        if (strlen(architectures[i].name) == bytes && memcmp(architectures[i].name, name, bytes) == 0)
            return &architectures[i];
    return NULL;
}
