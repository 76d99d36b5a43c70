/* SPDX-License-Identifier: Apache-2.0 */

/* The forward pass. Layers outside, chunks of the tokens inside: a layer is taken once however long the prompt is. */

#include <errno.h>
#include <math.h>
#include <string.h>

#include "decoder/decoder.h"
#include "decoder/state.h"
#include "kernels/matrix.h"
#include "kernels/vector.h"

#define ACQUIRE_NS 20000000 /* decoder_stop() is looked at that often while a layer is waited for */

/* Tokens that go through a layer together. */
struct chunk {
    struct decoder *decoder;
    uint32_t layer;
    uint32_t row;      /* of the run's first token of the chunk: in hidden, cosines and sines */
    uint32_t position; /* of the same token in the sequence */
    uint32_t count;
    const float *norm; /* of the next normalise() */
};

/* ---- Weights ----------------------------------------------------------------------------------------------- */

static int stopped(const struct decoder *decoder, struct failure *failure)
{
    return atomic_load(&decoder->stopped) ? fail(failure, -ECANCELED, "stopped") : 0;
}

static int acquire(const struct decoder *decoder, int32_t layer, struct failure *failure)
{
    int r;

    do {
        r = stopped(decoder, failure);
        if (r < 0)
            return r;
        r = tnd_layer_acquire(decoder->load, layer, ACQUIRE_NS);
    } while (r == -ETIMEDOUT);
    return r < 0 ? fail(failure, r, "%s", tnd_last_error()) : 0;
}

static void release(const struct decoder *decoder, int32_t layer)
{
    tnd_layer_release(decoder->load, layer);
}

/* Of a tensor that is acquired. */
static int weight(const struct decoder *decoder, uint32_t index, struct matrix *ret_matrix, struct failure *failure)
{
    const struct tnd_tensor *tensor = tnd_model_tensor(decoder->model, index);
    struct matrix matrix = {
        .dtype = tensor->dtype,
        .rows = tensor->dims == 2 ? (uint32_t)tensor->shape[0] : 1,
        .columns = (uint32_t)tensor->shape[tensor->dims - 1],
    };
    int r = tnd_load_tensor_data(decoder->load, index, &matrix.data);

    if (r < 0)
        return fail(failure, r, "tensor %s: %s", tensor->name, tnd_strerror(r));
    *ret_matrix = matrix;
    return 0;
}

/* The values of a vector that is acquired. */
static int vector(const struct decoder *decoder, uint32_t index, float *ret_values, struct failure *failure)
{
    struct matrix matrix;
    int r = weight(decoder, index, &matrix, failure);

    if (r >= 0)
        matrix_row(&matrix, 0, ret_values);
    return r;
}

/* ---- Steps of a chunk, each for some of its tokens --------------------------------------------------------- */

static void normalise(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct chunk *chunk = cookie;
    const struct decoder *decoder = chunk->decoder;
    uint32_t width = decoder->config.width;

    (void)member;
    for (uint32_t i = from; i < to; i++)
        vector_rms_norm(decoder->hidden + (size_t)(chunk->row + i) * width, chunk->norm, width,
                        decoder->config.norm_epsilon, decoder->normed + (size_t)i * width);
}

/* The residual connection. */
static void add_projected(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct chunk *chunk = cookie;
    const struct decoder *decoder = chunk->decoder;
    uint32_t width = decoder->config.width;

    (void)member;
    for (uint32_t i = from; i < to; i++)
        vector_add(decoder->projected + (size_t)i * width, width,
                   decoder->hidden + (size_t)(chunk->row + i) * width);
}

/* Where a head's keys or values of a position lie. */
static size_t cache_at(const struct chunk *chunk, uint32_t kv_head, uint32_t position)
{
    const struct decoder *decoder = chunk->decoder;
    size_t head = (size_t)chunk->layer * decoder->config.kv_heads + kv_head;

    return (head * decoder->context + position) * decoder->config.head_dim;
}

static void turn(const struct chunk *chunk, uint32_t i, float *heads, uint32_t count)
{
    const struct decoder *decoder = chunk->decoder;
    const struct decoder_config *config = &decoder->config;
    size_t angle = (size_t)(chunk->row + i) * (config->rope_dims / 2);

    for (uint32_t head = 0; head < count; head++)
        vector_rope(heads + (size_t)head * config->head_dim, config->rope_dims, decoder->cosines + angle,
                    decoder->sines + angle, config->rope_halves);
}

/* Query, key and value get their biases and turn with their positions; key and value go where they stay. */
static void place(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct chunk *chunk = cookie;
    const struct decoder *decoder = chunk->decoder;
    const struct decoder_config *config = &decoder->config;
    uint32_t query_size = weights_extent(config, EXTENT_QUERY), key_size = weights_extent(config, EXTENT_KEY);

    (void)member;
    for (uint32_t i = from; i < to; i++) {
        float *query = decoder->query + (size_t)i * query_size;
        float *key = decoder->key + (size_t)i * key_size, *value = decoder->value + (size_t)i * key_size;

        if (config->biases) {
            vector_add(decoder->query_bias, query_size, query);
            vector_add(decoder->key_bias, key_size, key);
            vector_add(decoder->value_bias, key_size, value);
        }
        turn(chunk, i, query, config->heads);
        turn(chunk, i, key, config->kv_heads);
        for (uint32_t head = 0; head < config->kv_heads; head++) {
            size_t at = cache_at(chunk, head, chunk->position + i);

            vector_to_f16(key + (size_t)head * config->head_dim, config->head_dim, decoder->keys + at);
            vector_to_f16(value + (size_t)head * config->head_dim, config->head_dim, decoder->values + at);
        }
    }
}

/* One head of one token looks at all positions up to its own. */
static void attend_head(const struct chunk *chunk, uint32_t head, uint32_t i, float *scores)
{
    const struct decoder *decoder = chunk->decoder;
    const struct decoder_config *config = &decoder->config;
    uint32_t head_dim = config->head_dim, count = chunk->position + i + 1;
    size_t at = ((size_t)i * config->heads + head) * head_dim;
    size_t cached = cache_at(chunk, head / (config->heads / config->kv_heads), 0);
    const uint16_t *keys = decoder->keys + cached, *values = decoder->values + cached;
    float scale = 1 / sqrtf((float)head_dim), *attended = decoder->attended + at;

    vector_dots_f16(decoder->query + at, keys, count, head_dim, scores);
    for (uint32_t p = 0; p < count; p++)
        scores[p] *= scale;
    vector_softmax(scores, count);
    vector_weighted_sum_f16(scores, values, count, head_dim, attended);
}

/* Of heads × tokens: the tokens of one head follow each other, for they look at the same keys. */
static void attend(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct chunk *chunk = cookie;
    float *scores = chunk->decoder->scores + (size_t)member * chunk->decoder->context;

    for (uint32_t i = from; i < to; i++)
        attend_head(chunk, i / chunk->count, i % chunk->count, scores);
}

static void activate(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct chunk *chunk = cookie;
    const struct decoder *decoder = chunk->decoder;
    uint32_t size = decoder->config.feed_forward;

    (void)member;
    for (uint32_t i = from; i < to; i++) {
        float *gate = decoder->gate + (size_t)i * size;

        vector_silu_multiply(gate, decoder->up + (size_t)i * size, size, gate);
    }
}

/* ---- A layer ----------------------------------------------------------------------------------------------- */

static void run_chunk(struct chunk *chunk, const struct matrix weights[WEIGHT_COUNT])
{
    struct decoder *decoder = chunk->decoder;
    struct team *team = decoder->team;
    uint32_t count = chunk->count;
    void *scratch = decoder->scratch;

    chunk->norm = decoder->norm;
    team_run(team, count, 1, normalise, chunk);
    matrix_multiply(team, &weights[WEIGHT_QUERY], decoder->normed, count, decoder->query, scratch);
    matrix_multiply(team, &weights[WEIGHT_KEY], decoder->normed, count, decoder->key, scratch);
    matrix_multiply(team, &weights[WEIGHT_VALUE], decoder->normed, count, decoder->value, scratch);
    team_run(team, count, 1, place, chunk);
    team_run(team, count * decoder->config.heads, 1, attend, chunk);
    matrix_multiply(team, &weights[WEIGHT_ATTENTION_OUTPUT], decoder->attended, count, decoder->projected, scratch);
    team_run(team, count, 1, add_projected, chunk);

    chunk->norm = decoder->feed_forward_norm;
    team_run(team, count, 1, normalise, chunk);
    matrix_multiply(team, &weights[WEIGHT_GATE], decoder->normed, count, decoder->gate, scratch);
    matrix_multiply(team, &weights[WEIGHT_UP], decoder->normed, count, decoder->up, scratch);
    team_run(team, count, 1, activate, chunk);
    matrix_multiply(team, &weights[WEIGHT_DOWN], decoder->gate, count, decoder->projected, scratch);
    team_run(team, count, 1, add_projected, chunk);
}

static int find_weights(const struct decoder *decoder, uint32_t layer, struct matrix weights[WEIGHT_COUNT],
                        struct failure *failure)
{
    float *const vectors[WEIGHT_COUNT] = {
        [WEIGHT_ATTENTION_NORM] = decoder->norm,
        [WEIGHT_FEED_FORWARD_NORM] = decoder->feed_forward_norm,
        [WEIGHT_QUERY_BIAS] = decoder->query_bias,
        [WEIGHT_KEY_BIAS] = decoder->key_bias,
        [WEIGHT_VALUE_BIAS] = decoder->value_bias,
    };
    const uint32_t *indices = decoder->weights.layers[layer];
    int r = 0;

    for (int i = 0; i < WEIGHT_COUNT && r >= 0; i++) {
        if (indices[i] == WEIGHT_NONE)
            continue;
        r = vectors[i] ? vector(decoder, indices[i], vectors[i], failure)
                       : weight(decoder, indices[i], &weights[i], failure);
    }
    return r;
}

static int run_layer(struct decoder *decoder, uint32_t layer, uint32_t token_count, struct failure *failure)
{
    struct matrix weights[WEIGHT_COUNT] = {0};
    int r = acquire(decoder, (int32_t)layer, failure);

    if (r < 0)
        return r;
    r = find_weights(decoder, layer, weights, failure);
    for (uint32_t row = 0; row < token_count && r >= 0; row += CHUNK_TOKENS) {
        struct chunk chunk = {.decoder = decoder, .layer = layer, .row = row, .position = decoder->length + row};

        chunk.count = token_count - row < CHUNK_TOKENS ? token_count - row : CHUNK_TOKENS;
        r = stopped(decoder, failure);
        if (r >= 0)
            run_chunk(&chunk, weights);
    }
    release(decoder, (int32_t)layer);
    return r;
}

/* ---- Before the first, after the last ---------------------------------------------------------------------- */

static int find_frequencies(struct decoder *decoder, struct failure *failure)
{
    uint32_t index = decoder->weights.shared[WEIGHT_ROPE_FACTORS];
    int r = index == WEIGHT_NONE ? 0 : vector(decoder, index, decoder->frequencies, failure);

    if (r < 0)
        return r;
    rope_frequencies(&decoder->config, index == WEIGHT_NONE ? NULL : decoder->frequencies, decoder->frequencies);
    decoder->has_frequencies = true;
    return 0;
}

static void find_angles(struct decoder *decoder, uint32_t token_count)
{
    uint32_t half = decoder->config.rope_dims / 2;

    for (uint32_t t = 0; t < token_count; t++)
        for (uint32_t i = 0; i < half; i++) {
            double angle = (double)(decoder->length + t) * (double)decoder->frequencies[i];

            decoder->cosines[(size_t)t * half + i] = (float)cos(angle);
            decoder->sines[(size_t)t * half + i] = (float)sin(angle);
        }
}

static int embed(struct decoder *decoder, const int32_t *tokens, uint32_t token_count, struct failure *failure)
{
    struct matrix embedding;
    int r = acquire(decoder, TND_LAYER_SHARED_IN, failure);

    if (r < 0)
        return r;
    r = decoder->has_frequencies ? 0 : find_frequencies(decoder, failure);
    if (r >= 0)
        r = weight(decoder, decoder->weights.shared[WEIGHT_EMBEDDING], &embedding, failure);
    for (uint32_t t = 0; t < token_count && r >= 0; t++)
        matrix_row(&embedding, (uint32_t)tokens[t], decoder->hidden + (size_t)t * decoder->config.width);
    release(decoder, TND_LAYER_SHARED_IN);
    return r;
}

/* With both groups of shared tensors acquired: the head may be the embedding. */
static int multiply_head(struct decoder *decoder, uint32_t token_count, float *ret_logits, struct failure *failure)
{
    struct chunk last = {.decoder = decoder, .row = token_count - 1, .count = 1, .norm = decoder->norm};
    struct matrix head;
    int r = vector(decoder, decoder->weights.shared[WEIGHT_OUTPUT_NORM], decoder->norm, failure);

    if (r >= 0)
        r = weight(decoder, decoder->weights.shared[WEIGHT_OUTPUT], &head, failure);
    if (r < 0)
        return r;
    normalise(&last, 0, 0, 1);
    matrix_multiply(decoder->team, &head, decoder->normed, 1, decoder->logits, decoder->scratch);
    memcpy(ret_logits, decoder->logits, decoder->config.vocabulary * sizeof(*ret_logits));
    return 0;
}

static int find_logits(struct decoder *decoder, uint32_t token_count, float *ret_logits, struct failure *failure)
{
    int r = acquire(decoder, TND_LAYER_SHARED_IN, failure);

    if (r < 0)
        return r;
    r = acquire(decoder, TND_LAYER_SHARED_OUT, failure);
    if (r >= 0) {
        r = multiply_head(decoder, token_count, ret_logits, failure);
        release(decoder, TND_LAYER_SHARED_OUT);
    }
    release(decoder, TND_LAYER_SHARED_IN);
    return r;
}

/* ---- All of it --------------------------------------------------------------------------------------------- */

static int check_tokens(const struct decoder *decoder, const int32_t *tokens, uint32_t token_count,
                        struct failure *failure)
{
    if (token_count == 0)
        return fail(failure, -EINVAL, "no token to run");
    if (token_count > decoder->context - decoder->length)
        return fail(failure, -EFBIG, "%u tokens after %u, expected at most %u in all", token_count, decoder->length,
                    decoder->context);
    for (uint32_t i = 0; i < token_count; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= decoder->config.vocabulary)
            return fail(failure, -EINVAL, "token %d, expected one below %u", tokens[i], decoder->config.vocabulary);
    return 0;
}

int decoder_run(struct decoder *decoder, const int32_t *tokens, uint32_t token_count, float *ret_logits,
                struct failure *failure)
{
    int r = check_tokens(decoder, tokens, token_count, failure);

    if (r >= 0)
        r = embed(decoder, tokens, token_count, failure);
    if (r >= 0)
        find_angles(decoder, token_count);
    for (uint32_t layer = 0; layer < decoder->config.layers && r >= 0; layer++)
        r = run_layer(decoder, layer, token_count, failure);
    if (r >= 0 && ret_logits)
        r = find_logits(decoder, token_count, ret_logits, failure);
    if (r >= 0)
        decoder->length += token_count;
    return r;
}
