/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a tensor's name puts it into its layer, or before or behind all of them.
 * Method: names from the model families, and numbers that look like layers but are none. */

#include "memory_file.h"
#include "model/layers.h"

static const struct {
    const char *name;
    int32_t layer;
    enum tnd_role role;
} cases[] = {
    {"blk.0.attn_q.weight", 0, TND_IN_LAYER},
    {"blk.31.ffn_down.weight", 31, TND_IN_LAYER},
    {"model.layers.7.self_attn.q_proj.weight", 7, TND_IN_LAYER},
    {"model.language_model.layers.12.mlp.up_proj.weight", 12, TND_IN_LAYER},
    {"transformer.h.5.attn.c_attn.weight", 5, TND_IN_LAYER},
    {"h.5.attn.c_attn.weight", 5, TND_IN_LAYER},
    {"gpt_neox.layers.43.attention.dense.bias", 43, TND_IN_LAYER},
    {"encoder.layer.11.output.dense.weight", 11, TND_IN_LAYER},
    {"layers.3.w1.weight", 3, TND_IN_LAYER},
    {"blocks.2.weight", 2, TND_IN_LAYER},
    {"token_embd.weight", -1, TND_SHARED_IN},
    {"model.embed_tokens.weight", -1, TND_SHARED_IN},
    {"embeddings.word_embeddings.weight", -1, TND_SHARED_IN},
    {"output.weight", -1, TND_SHARED_OUT},
    {"output_norm.weight", -1, TND_SHARED_OUT},
    {"lm_head.weight", -1, TND_SHARED_OUT},
    {"model.norm.weight", -1, TND_SHARED_OUT},
    {"transformer.ln_f.bias", -1, TND_SHARED_OUT},
    /* Not layers. */
    {"blk..weight", -1, TND_SHARED_IN},
    {"blk.1", -1, TND_SHARED_IN},
    {"blk.01.weight", -1, TND_SHARED_IN},
    {"blk.-1.weight", -1, TND_SHARED_IN},
    {"blk.1x.weight", -1, TND_SHARED_IN},
    {"blk.65535.weight", 65535, TND_IN_LAYER},
    {"blk.65536.weight", -1, TND_SHARED_IN},
    {"blk.99999999999999999999.weight", -1, TND_SHARED_IN},
    {"", -1, TND_SHARED_IN},
};

START_TEST(names)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum tnd_role role = TND_IN_LAYER;
        int32_t layer = tnd_layer_of_name(cases[i].name, &role);

        ck_assert_msg(layer == cases[i].layer && role == cases[i].role, "'%s': layer %d, role %d", cases[i].name,
                      layer, (int)role);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("layers");
    TCase *tests = tcase_create("layers");

    tcase_add_test(tests, names);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
