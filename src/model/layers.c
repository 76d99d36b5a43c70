/* SPDX-License-Identifier: Apache-2.0 */
#include "model/layers.h"

#include <string.h>

/* What stands before a layer's number: GGUF, then Hugging Face's families. */
static const char *const layer_prefixes[] = {
    "blk.", "blocks.", "layers.", "h.", "model.layers.", "model.language_model.layers.",
    "language_model.model.layers.", "language_model.layers.", "transformer.h.", "transformer.blocks.",
    "transformer.layers.", "transformer.encoder.layers.", "gpt_neox.layers.", "backbone.layers.",
    "model.decoder.layers.", "decoder.layers.", "model.encoder.layers.", "encoder.layer.", "encoder.layers.",
    "bert.encoder.layer.", "roberta.encoder.layer.", "deberta.encoder.layer.", "distilbert.transformer.layer.",
    "model.blocks.",
};

/* Final norms and heads: used after the last layer. Everything else shared is used before the first. */
static const char *const out_prefixes[] = {
    "output.", "output_norm.", "lm_head.", "norm.", "model.norm.", "model.language_model.norm.",
    "language_model.model.norm.", "language_model.lm_head.", "ln_f.", "transformer.ln_f.", "transformer.norm_f.",
    "gpt_neox.final_layer_norm.", "embed_out.", "backbone.norm_f.", "model.final_layernorm.",
    "model.decoder.final_layer_norm.", "decoder.final_layer_norm.", "final_layer_norm.", "model.final_norm.",
    "cls.", "classifier.", "pooler.", "bert.pooler.", "score.",
};

static const char *after_prefix(const char *name, const char *prefix)
{
    size_t bytes = strlen(prefix);

    return strncmp(name, prefix, bytes) ? NULL : name + bytes;
}

/* The number at text up to a dot, without leading zeros; -1 when there is none below TND_LAYERS_MAX. */
static int32_t layer_number(const char *text)
{
    int32_t number = 0;
    const char *c = text;

    for (; *c >= '0' && *c <= '9'; c++) {
        number = number * 10 + (*c - '0');
        if (number >= TND_LAYERS_MAX)
            return -1;
    }
    if (c == text || *c != '.' || (*text == '0' && c - text > 1))
        return -1;
    return number;
}

int32_t tnd_layer_of_name(const char *name, enum tnd_role *ret_role)
{
    for (size_t i = 0; i < sizeof(layer_prefixes) / sizeof(layer_prefixes[0]); i++) {
        const char *rest = after_prefix(name, layer_prefixes[i]);
        int32_t layer = rest ? layer_number(rest) : -1;

        if (layer >= 0) {
            *ret_role = TND_IN_LAYER;
            return layer;
        }
    }
    *ret_role = TND_SHARED_IN;
    for (size_t i = 0; i < sizeof(out_prefixes) / sizeof(out_prefixes[0]); i++)
        if (after_prefix(name, out_prefixes[i]))
            *ret_role = TND_SHARED_OUT;
    return -1;
}
