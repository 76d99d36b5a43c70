/* SPDX-License-Identifier: Apache-2.0 */
#include "decoder/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder/config.h"
#include "kernels/matrix.h"

#define NAME_BYTES 128

struct search {
    const struct tnd_model *model;
    struct decoder_config *config;
    bool gguf;
    struct failure *failure;
};

uint32_t weights_extent(const struct decoder_config *config, enum extent extent)
{
    switch (extent) {
    case EXTENT_ONE: return 1;
    case EXTENT_WIDTH: return config->width;
    case EXTENT_FEED_FORWARD: return config->feed_forward;
    case EXTENT_QUERY: return config->heads * config->head_dim;
    case EXTENT_KEY: return config->kv_heads * config->head_dim;
    case EXTENT_VOCABULARY: return config->vocabulary;
    case EXTENT_ROPE: return config->rope_dims / 2;
    }
    return 0;
}

/* ---- One tensor -------------------------------------------------------------------------------------------- */

static int check_shape(const struct search *search, const struct weight_spec *spec, const struct tnd_tensor *tensor)
{
    uint64_t rows = weights_extent(search->config, spec->rows), columns = weights_extent(search->config, spec->columns);

    if (spec->rows == EXTENT_ONE && (tensor->dims != 1 || tensor->shape[0] != columns))
        return fail(search->failure, -EBADMSG,
                    "tensor %s has %" PRIu64 " elements in %u dimensions, expected %" PRIu64 " in one", tensor->name,
                    tensor->elements, tensor->dims, columns);
    if (spec->rows == EXTENT_ONE)
        return 0;
    if (tensor->dims != 2)
        return fail(search->failure, -EBADMSG, "tensor %s has %u dimensions, expected 2", tensor->name, tensor->dims);
    if (tensor->shape[0] != rows || tensor->shape[1] != columns)
        return fail(search->failure, -EBADMSG,
                    "tensor %s has the shape [%" PRIu64 ", %" PRIu64 "], expected [%" PRIu64 ", %" PRIu64 "]",
                    tensor->name, tensor->shape[0], tensor->shape[1], rows, columns);
    return 0;
}

/* Rows must be of whole blocks; safetensors' types have blocks of one. */
static int check_type(const struct search *search, const struct weight_spec *spec, const struct tnd_tensor *tensor)
{
    uint32_t block = 1, block_bytes = 0;

    tnd_dtype_block(tensor->dtype, &block, &block_bytes);
    if (!matrix_supports(tensor->dtype) || weights_extent(search->config, spec->columns) % block != 0)
        return fail(search->failure, -ENOTSUP, "tensor %s is of type %s, which is not computed with", tensor->name,
                    tnd_dtype_name(tensor->dtype));
    return 0;
}

/* Returns 1, 0 when there is no such tensor, else as weights_find(). */
static int find(const struct search *search, const struct weight_spec *spec, const char *name, uint32_t *ret_index)
{
    int64_t index = tnd_model_tensor_find(search->model, name);
    const struct tnd_tensor *tensor;
    int r;

    if (index < 0)
        return 0;
    tensor = tnd_model_tensor(search->model, (uint32_t)index);
    r = check_shape(search, spec, tensor);
    if (r >= 0)
        r = check_type(search, spec, tensor);
    if (r < 0)
        return r;
    *ret_index = (uint32_t)index;
    return 1;
}

/* ---- All of them ------------------------------------------------------------------------------------------- */

static int find_in_layer(const struct search *search, uint32_t layer, uint32_t weights[WEIGHT_COUNT])
{
    for (int i = 0; i < WEIGHT_COUNT; i++) {
        const struct weight_spec *spec = &weight_specs[i];
        char name[NAME_BYTES];
        int r;

        weights[i] = WEIGHT_NONE;
        if (spec->bias && !search->config->biases)
            continue;
        snprintf(name, sizeof(name), "%s.%u.%s", search->gguf ? "blk" : "model.layers", layer,
                 search->gguf ? spec->gguf : spec->huggingface);
        r = find(search, spec, name, &weights[i]);
        if (r <= 0)
            return r < 0 ? r : fail(search->failure, -EBADMSG, "tensor %s is missing", name);
    }
    return 0;
}

/* The vocabulary is as large as the embedding has rows. */
static int settle_vocabulary(const struct search *search)
{
    const struct weight_spec *spec = &shared_weight_specs[WEIGHT_EMBEDDING];
    int64_t index = tnd_model_tensor_find(search->model, search->gguf ? spec->gguf : spec->huggingface);
    const struct tnd_tensor *tensor = index < 0 ? NULL : tnd_model_tensor(search->model, (uint32_t)index);

    if (search->config->vocabulary > 0 || !tensor || tensor->dims != 2)
        return 0; /* told, or the next to look says what is wrong */
    if (tensor->shape[0] < 1 || tensor->shape[0] > INT32_MAX)
        return fail(search->failure, -EBADMSG, "tensor %s has %" PRIu64 " rows, expected 1 to %d", tensor->name,
                    tensor->shape[0], INT32_MAX);
    search->config->vocabulary = (uint32_t)tensor->shape[0];
    return 0;
}

static int find_shared(const struct search *search, uint32_t shared[SHARED_WEIGHT_COUNT])
{
    int r = settle_vocabulary(search);

    for (int i = 0; i < SHARED_WEIGHT_COUNT && r >= 0; i++) {
        const struct weight_spec *spec = &shared_weight_specs[i];
        const char *name = search->gguf ? spec->gguf : spec->huggingface;

        shared[i] = WEIGHT_NONE;
        r = name ? find(search, spec, name, &shared[i]) : 0;
        if (r == 0 && (i == WEIGHT_EMBEDDING || i == WEIGHT_OUTPUT_NORM))
            r = fail(search->failure, -EBADMSG, "tensor %s is missing", name);
    }
    if (r < 0)
        return r;
    if (shared[WEIGHT_OUTPUT] == WEIGHT_NONE && search->config->head == HEAD_OWN)
        return fail(search->failure, -EBADMSG, "tensor %s is missing, and tie_word_embeddings in config.json is false",
                    shared_weight_specs[WEIGHT_OUTPUT].huggingface);
    if (shared[WEIGHT_OUTPUT] == WEIGHT_NONE || search->config->head == HEAD_TIED)
        shared[WEIGHT_OUTPUT] = shared[WEIGHT_EMBEDDING];
    return 0;
}

/* ---- No other ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *end)
{
    size_t bytes = strlen(name), end_bytes = strlen(end);

    return bytes >= end_bytes && strcmp(name + bytes - end_bytes, end) == 0;
}

/* What follows the layer's number in a tensor's name; NULL when something else stands before it. */
static const char *name_in_layer(const struct search *search, const struct tnd_tensor *tensor)
{
    char prefix[NAME_BYTES];
    int bytes = snprintf(prefix, sizeof(prefix), "%s.%d.", search->gguf ? "blk" : "model.layers", tensor->layer);

    return strncmp(tensor->name, prefix, (size_t)bytes) == 0 ? tensor->name + bytes : NULL;
}

static bool is_known(const struct search *search, const struct tnd_tensor *tensor)
{
    const struct weight_spec *specs = tensor->layer >= 0 ? weight_specs : shared_weight_specs;
    int count = tensor->layer >= 0 ? WEIGHT_COUNT : SHARED_WEIGHT_COUNT;
    const char *name = tensor->layer >= 0 ? name_in_layer(search, tensor) : tensor->name;

    for (int i = 0; i < count && name; i++) {
        const char *known = search->gguf ? specs[i].gguf : specs[i].huggingface;

        if (known && strcmp(name, known) == 0)
            return search->config->biases || !specs[i].bias;
    }
    return ends_with(tensor->name, ".rotary_emb.inv_freq"); /* old files keep it; it follows from the configuration */
}

/* A tensor that nobody computes with would make the answers wrong, without a word. */
static int refuse_others(const struct search *search)
{
    uint32_t count = tnd_model_tensor_count(search->model);

    for (uint32_t i = 0; i < count; i++) {
        const struct tnd_tensor *tensor = tnd_model_tensor(search->model, i);

        if (!is_known(search, tensor))
            return fail(search->failure, -ENOTSUP, "tensor %.128s is none of a %s that is handled", tensor->name,
                        search->config->architecture);
        if (tensor->layer >= (int64_t)search->config->layers)
            return fail(search->failure, -EBADMSG, "tensor %s is of layer %d, expected %u layers", tensor->name,
                        tensor->layer, search->config->layers);
    }
    return 0;
}

int weights_find(const struct tnd_model *model, struct decoder_config *config, struct weights *weights,
                 struct failure *failure)
{
    const struct search search = {.model = model, .config = config, .gguf = config_is_gguf(model), .failure = failure};
    int r = refuse_others(&search);

    if (r < 0)
        return r;
    weights->layers = calloc(config->layers, sizeof(*weights->layers));
    if (!weights->layers)
        return fail(failure, -ENOMEM, "out of memory for the list of %u layers", config->layers);
    r = find_shared(&search, weights->shared);
    for (uint32_t i = 0; i < config->layers && r >= 0; i++)
        r = find_in_layer(&search, i, weights->layers[i]);
    if (r < 0)
        weights_finish(weights);
    return r;
}

void weights_finish(struct weights *weights)
{
    free(weights->layers);
    *weights = (struct weights){0};
}
