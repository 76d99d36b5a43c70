/* SPDX-License-Identifier: Apache-2.0 */
#include "decoder/decoder.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "decoder/config.h"
#include "decoder/state.h"
#include "kernels/matrix.h"

#define ALIGNMENT 64

/* ---- Memory of a sequence ---------------------------------------------------------------------------------- */

enum { BUFFERS_MAX = 24 };

struct buffer {
    void *pointer; /* to a pointer of whichever type: copied, never looked through */
    uint64_t bytes;
};

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t scratch_bytes(const struct decoder *decoder)
{
    const struct decoder_config *config = &decoder->config;
    uint64_t columns = max(max(config->width, config->feed_forward), weights_extent(config, EXTENT_QUERY));

    return max(matrix_scratch_bytes(decoder->team, (uint32_t)columns, CHUNK_TOKENS), 1);
}

/* What there is, and how large. The limits of the configuration keep the products within 64 bits. */
static size_t list_buffers(struct decoder *decoder, struct buffer buffers[BUFFERS_MAX])
{
    const struct decoder_config *config = &decoder->config;
    uint64_t chunk = CHUNK_TOKENS * sizeof(float), context = decoder->context, width = config->width;
    uint64_t query = weights_extent(config, EXTENT_QUERY), key = weights_extent(config, EXTENT_KEY);
    uint64_t rope = weights_extent(config, EXTENT_ROPE) * sizeof(float);
    uint64_t cache = config->layers * key * context * sizeof(uint16_t);
    uint64_t members = decoder->team ? team_size(decoder->team) : 0;
    const struct buffer list[] = {
        {&decoder->keys, cache},
        {&decoder->values, cache},
        {&decoder->hidden, context * width * sizeof(float)},
        {&decoder->frequencies, rope},
        {&decoder->cosines, context * rope},
        {&decoder->sines, context * rope},
        {&decoder->norm, width * sizeof(float)},
        {&decoder->feed_forward_norm, width * sizeof(float)},
        {&decoder->query_bias, query * sizeof(float)},
        {&decoder->key_bias, key * sizeof(float)},
        {&decoder->value_bias, key * sizeof(float)},
        {&decoder->normed, chunk * width},
        {&decoder->projected, chunk * width},
        {&decoder->query, chunk * query},
        {&decoder->attended, chunk * query},
        {&decoder->key, chunk * key},
        {&decoder->value, chunk * key},
        {&decoder->gate, chunk * config->feed_forward},
        {&decoder->up, chunk * config->feed_forward},
        {&decoder->scores, members * context * sizeof(float)},
        {&decoder->logits, config->vocabulary * sizeof(float)},
        {&decoder->scratch, decoder->team ? scratch_bytes(decoder) : 0},
    };
    size_t count = sizeof(list) / sizeof(list[0]);

    static_assert(sizeof(list) / sizeof(list[0]) <= BUFFERS_MAX, "room for the list");
    for (size_t i = 0; i < count; i++)
        buffers[i] = list[i];
    return count;
}

static void detach(struct decoder *decoder)
{
    struct buffer buffers[BUFFERS_MAX];
    size_t count = list_buffers(decoder, buffers);

    for (size_t i = 0; i < count; i++) {
        void *memory, *none = NULL;

        memcpy(&memory, buffers[i].pointer, sizeof(memory));
        memcpy(buffers[i].pointer, &none, sizeof(none));
        free(memory);
    }
    decoder->load = NULL;
    decoder->team = NULL;
    decoder->context = decoder->length = 0;
    decoder->has_frequencies = false;
}

static int take_memory(struct decoder *decoder, struct failure *failure)
{
    struct buffer buffers[BUFFERS_MAX];
    size_t count = list_buffers(decoder, buffers);
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = (buffers[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        void *memory = aligned_alloc(ALIGNMENT, bytes);

        sum += bytes;
        memcpy(buffers[i].pointer, &memory, sizeof(memory));
        if (!memory)
            return fail(failure, -ENOMEM, "out of memory for a sequence of %u tokens: %llu bytes and more",
                        decoder->context, (unsigned long long)sum);
    }
    return 0;
}

/* ---- Life -------------------------------------------------------------------------------------------------- */

int decoder_open(const struct tnd_model *model, const char *folder, struct decoder **ret_decoder,
                 struct failure *failure)
{
    struct decoder *decoder = calloc(1, sizeof(*decoder));
    int r;

    if (!decoder)
        return fail(failure, -ENOMEM, "out of memory for a decoder");
    decoder->model = model;
    r = config_read(model, folder, &decoder->config, failure);
    if (r >= 0)
        r = weights_find(model, &decoder->config, &decoder->weights, failure);
    if (r < 0) {
        decoder_close(&decoder);
        return r;
    }
    *ret_decoder = decoder;
    return 0;
}

void decoder_close(struct decoder **decoder)
{
    if (!*decoder)
        return;
    detach(*decoder);
    weights_finish(&(*decoder)->weights);
    free(*decoder);
    *decoder = NULL;
}

const struct decoder_config *decoder_config(const struct decoder *decoder)
{
    return &decoder->config;
}

int decoder_attach(struct decoder *decoder, struct tnd_load *load, struct team *team, uint32_t context_tokens,
                   struct failure *failure)
{
    int r;

    if (context_tokens < 1 || context_tokens > decoder->config.context)
        return fail(failure, -EINVAL, "a context of %u tokens, expected 1 to the model's %u", context_tokens,
                    decoder->config.context);
    detach(decoder);
    decoder->load = load;
    decoder->team = team;
    decoder->context = context_tokens;
    r = take_memory(decoder, failure);
    if (r < 0)
        detach(decoder);
    return r;
}

void decoder_truncate(struct decoder *decoder, uint32_t token_count)
{
    if (token_count < decoder->length)
        decoder->length = token_count;
}

uint32_t decoder_length(const struct decoder *decoder)
{
    return decoder->length;
}

void decoder_stop(struct decoder *decoder, bool stopped)
{
    atomic_store(&decoder->stopped, stopped);
}
