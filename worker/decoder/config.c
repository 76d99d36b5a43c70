/* SPDX-License-Identifier: Apache-2.0 */
#include "decoder/config.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder/architecture.h"
#include "file.h"

/* With these no product of sizes leaves 64 bits. */
#define LAYERS_MAX 4096
#define WIDTH_MAX (1U << 18)
#define FEED_FORWARD_MAX (1U << 22)
#define HEADS_MAX 4096
#define HEAD_DIM_MAX 4096
#define VOCABULARY_MAX (1U << 24)
#define CONTEXT_MAX (1U << 24)

#define JSON_BYTES_MAX (1U << 20) /* real ones have a few thousand */
#define KEY_BYTES 128
#define SHOWN_BYTES 64 /* of a text that a file holds */

/* Where numbers are looked up: either in metadata, under the architecture's name, or in JSON. */
struct source {
    const struct tnd_model *model;
    const char *architecture;
    const cJSON *json; /* NULL: metadata */
};

/* A number's two names. */
struct key {
    const char *gguf, *json; /* NULL: has none there */
};

/* ---- One number -------------------------------------------------------------------------------------------- */

static void key_name(const struct source *source, const struct key *key, char name[KEY_BYTES])
{
    if (source->json)
        snprintf(name, KEY_BYTES, "%s in config.json", key->json);
    else
        snprintf(name, KEY_BYTES, "%s.%s", source->architecture, key->gguf);
}

/* Returns 1, 0 when the value is no number. */
static int value_number(const struct tnd_value *value, double *ret_number)
{
    switch (value->type) {
    case TND_VALUE_U8: case TND_VALUE_U16: case TND_VALUE_U32: case TND_VALUE_U64:
        *ret_number = (double)value->as.u;
        return 1;
    case TND_VALUE_I8: case TND_VALUE_I16: case TND_VALUE_I32: case TND_VALUE_I64:
        *ret_number = (double)value->as.i;
        return 1;
    case TND_VALUE_F32: case TND_VALUE_F64:
        *ret_number = value->as.f;
        return 1;
    default:
        return 0;
    }
}

/* Returns 1, 0 when there is no such key, else -EBADMSG, -ENOTSUP. */
static int find_number(const struct source *source, const struct key *key, double *ret_number, struct failure *failure)
{
    const struct tnd_meta *meta;
    const cJSON *item;
    char name[KEY_BYTES];

    if (!(source->json ? key->json : key->gguf))
        return 0;
    key_name(source, key, name);
    if (source->json) {
        item = cJSON_GetObjectItemCaseSensitive(source->json, key->json);
        if (!item || cJSON_IsNull(item))
            return 0;
        *ret_number = cJSON_GetNumberValue(item);
        return cJSON_IsNumber(item) ? 1 : fail(failure, -EBADMSG, "%s is no number", name);
    }
    meta = tnd_model_meta_find(source->model, name);
    if (!meta)
        return 0;
    if (meta->value.type == TND_VALUE_ARRAY)
        return fail(failure, -ENOTSUP, "%s is an array: layers that differ are not handled", name);
    return value_number(&meta->value, ret_number) ? 1 : fail(failure, -EBADMSG, "%s is no number", name);
}

/* Returns 1, 0 when there is no such key, else as find_number(), and -EFBIG. */
static int find_count(const struct source *source, const struct key *key, uint32_t max, uint32_t *ret_count,
                      struct failure *failure)
{
    char name[KEY_BYTES];
    double number = 0;
    int r = find_number(source, key, &number, failure);

    if (r <= 0)
        return r;
    key_name(source, key, name);
    if (!(number >= 1) || number != floor(number))
        return fail(failure, -EBADMSG, "%s is %g, expected a whole number from 1 on", name, number);
    if (number > max)
        return fail(failure, -EFBIG, "%s is %.0f, expected at most %u", name, number, max);
    *ret_count = (uint32_t)number;
    return 1;
}

/* The same for a number with a fraction, which is to be above min and no more than max. */
static int find_real(const struct source *source, const struct key *key, double min, double max, float *ret_number,
                     struct failure *failure)
{
    char name[KEY_BYTES];
    double number = 0;
    int r = find_number(source, key, &number, failure);

    if (r <= 0)
        return r;
    key_name(source, key, name);
    if (!(number > min && number <= max))
        return fail(failure, -EBADMSG, "%s is %g, expected above %g and at most %g", name, number, min, max);
    *ret_number = (float)number;
    return 1;
}

static int missing(const struct source *source, const struct key *key, struct failure *failure)
{
    char name[KEY_BYTES];

    key_name(source, key, name);
    return fail(failure, -EBADMSG, "%s is missing", name);
}

/* ---- All of them ------------------------------------------------------------------------------------------- */

static const struct key width_key = {"embedding_length", "hidden_size"};
static const struct key heads_key = {"attention.head_count", "num_attention_heads"};
static const struct key kv_heads_key = {"attention.head_count_kv", "num_key_value_heads"};
static const struct key head_dim_key = {"attention.key_length", "head_dim"};
static const struct key value_length_key = {"attention.value_length", NULL};
static const struct key rope_dims_key = {"rope.dimension_count", NULL};
static const struct key epsilon_key = {"attention.layer_norm_rms_epsilon", "rms_norm_eps"};

static int read_sizes(const struct source *source, struct decoder_config *config, struct failure *failure)
{
    const struct {
        struct key key;
        uint32_t max, *count;
        bool optional;
    } sizes[] = {
        {{"block_count", "num_hidden_layers"}, LAYERS_MAX, &config->layers, false},
        {width_key, WIDTH_MAX, &config->width, false},
        {{"feed_forward_length", "intermediate_size"}, FEED_FORWARD_MAX, &config->feed_forward, false},
        {heads_key, HEADS_MAX, &config->heads, false},
        {kv_heads_key, HEADS_MAX, &config->kv_heads, true},
        {{"context_length", "max_position_embeddings"}, CONTEXT_MAX, &config->context, false},
        {{"vocab_size", "vocab_size"}, VOCABULARY_MAX, &config->vocabulary, true},
        {head_dim_key, HEAD_DIM_MAX, &config->head_dim, true},
        {rope_dims_key, HEAD_DIM_MAX, &config->rope_dims, true},
    };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int r = find_count(source, &sizes[i].key, sizes[i].max, sizes[i].count, failure);

        if (r < 0)
            return r;
        if (r == 0 && !sizes[i].optional)
            return missing(source, &sizes[i].key, failure);
    }
    return 0;
}

/* What is not told follows from the rest. */
static int settle_heads(const struct source *source, struct decoder_config *config, struct failure *failure)
{
    char name[KEY_BYTES];
    uint32_t value_length = 0;
    int r = find_count(source, &value_length_key, HEAD_DIM_MAX, &value_length, failure);

    if (r < 0)
        return r;
    key_name(source, &heads_key, name);
    if (config->kv_heads == 0)
        config->kv_heads = config->heads;
    if (config->heads % config->kv_heads != 0)
        return fail(failure, -EBADMSG, "%s is %u, expected a multiple of the %u heads of key and value", name,
                    config->heads, config->kv_heads);
    if (config->head_dim == 0 && config->width % config->heads != 0)
        return fail(failure, -EBADMSG, "%s is %u, expected a divisor of the width %u", name, config->heads,
                    config->width);
    if (config->head_dim == 0)
        config->head_dim = config->width / config->heads;
    if (config->head_dim > HEAD_DIM_MAX)
        return fail(failure, -EFBIG, "%s is %u: heads of %u elements, expected at most %u", name, config->heads,
                    config->head_dim, HEAD_DIM_MAX);
    if (value_length > 0 && value_length != config->head_dim)
        return fail(failure, -ENOTSUP, "%s.%s is %u and a key has %u: heads whose sizes differ are not handled",
                    source->architecture, value_length_key.gguf, value_length, config->head_dim);
    if (config->rope_dims == 0)
        config->rope_dims = config->head_dim;
    if (config->rope_dims % 2 != 0 || config->rope_dims > config->head_dim)
        return fail(failure, -EBADMSG, "%u elements of a head are to be rotated, expected an even number of at most %u",
                    config->rope_dims, config->head_dim);
    return 0;
}

static int read_numbers(const struct source *source, struct decoder_config *config, struct failure *failure)
{
    int r = read_sizes(source, config, failure);

    if (r >= 0)
        r = settle_heads(source, config, failure);
    if (r < 0)
        return r;
    r = find_real(source, &epsilon_key, 0, 1, &config->norm_epsilon, failure);
    if (r < 0)
        return r;
    return r > 0 ? 0 : missing(source, &epsilon_key, failure);
}

/* ---- GGUF -------------------------------------------------------------------------------------------------- */

/* Returns 1, 0 when there is no such key, -EBADMSG. */
static int find_text(const struct tnd_model *model, const char *key, const char **ret_data, size_t *ret_bytes,
                     struct failure *failure)
{
    const struct tnd_meta *meta = tnd_model_meta_find(model, key);

    if (!meta)
        return 0;
    if (meta->value.type != TND_VALUE_STRING)
        return fail(failure, -EBADMSG, "%s is no string", key);
    *ret_data = meta->value.as.string.data;
    *ret_bytes = meta->value.as.string.bytes;
    return 1;
}

static bool is_text(const char *data, size_t bytes, const char *text)
{
    return bytes == strlen(text) && memcmp(data, text, bytes) == 0;
}

static int shown(size_t bytes)
{
    return bytes < SHOWN_BYTES ? (int)bytes : SHOWN_BYTES;
}

static int gguf_rope_scaling(const struct source *source, struct decoder_config *config, struct failure *failure)
{
    const struct key factor_key = {"rope.scaling.factor", NULL}, old_factor_key = {"rope.scale_linear", NULL};
    char name[KEY_BYTES];
    const char *type = NULL;
    size_t bytes = 0;
    int r;

    snprintf(name, sizeof(name), "%s.rope.scaling.type", source->architecture);
    r = find_text(source->model, name, &type, &bytes, failure);
    if (r < 0)
        return r;
    if (r > 0 && is_text(type, bytes, "none"))
        return 0;
    if (r > 0 && !is_text(type, bytes, "linear"))
        return fail(failure, -ENOTSUP, "%s is '%.*s': only none and linear are handled", name, shown(bytes), type);
    r = find_real(source, &factor_key, 0, 1e6, &config->rope_factor, failure);
    if (r == 0)
        r = find_real(source, &old_factor_key, 0, 1e6, &config->rope_factor, failure);
    if (r > 0)
        config->rope_scaling = ROPE_LINEAR;
    return r < 0 ? r : 0;
}

static int read_gguf(const struct tnd_model *model, struct decoder_config *config, struct failure *failure)
{
    const struct key rope_base_key = {"rope.freq_base", NULL};
    const struct architecture *architecture;
    struct source source = {.model = model};
    const char *name = NULL;
    size_t bytes = 0;
    int r = find_text(model, "general.architecture", &name, &bytes, failure);

    if (r <= 0)
        return r < 0 ? r : fail(failure, -EBADMSG, "general.architecture is missing");
    architecture = architecture_find(name, bytes);
    if (!architecture)
        return fail(failure, -ENOTSUP, "general.architecture is '%.*s', which is not handled", shown(bytes), name);
    source.architecture = architecture->name;
    config->architecture = architecture->name;
    config->biases = architecture->biases;
    config->rope_halves = architecture->gguf_rope_halves;
    r = read_numbers(&source, config, failure);
    if (r >= 0)
        r = find_real(&source, &rope_base_key, 0, 1e12, &config->rope_base, failure);
    return r < 0 ? r : gguf_rope_scaling(&source, config, failure);
}

/* ---- config.json ------------------------------------------------------------------------------------------- */

/* What would change the sums, and is not computed. */
static int json_refuse(const cJSON *json, struct failure *failure)
{
    const cJSON *act = cJSON_GetObjectItemCaseSensitive(json, "hidden_act");

    if (cJSON_IsString(act) && strcmp(act->valuestring, "silu") != 0)
        return fail(failure, -ENOTSUP, "hidden_act in config.json is '%.*s': only silu is handled", SHOWN_BYTES,
                    act->valuestring);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "use_sliding_window")))
        return fail(failure, -ENOTSUP, "use_sliding_window in config.json is true, which is not handled");
    return 0;
}

static int json_llama3(const struct source *rope, struct decoder_config *config, struct failure *failure)
{
    const struct key keys[] = {{NULL, "low_freq_factor"}, {NULL, "high_freq_factor"},
                               {NULL, "original_max_position_embeddings"}};
    int r = find_real(rope, &keys[0], 0, 1e6, &config->rope_low_factor, failure);

    if (r <= 0)
        return r < 0 ? r : missing(rope, &keys[0], failure);
    r = find_real(rope, &keys[1], 0, 1e6, &config->rope_high_factor, failure);
    if (r <= 0)
        return r < 0 ? r : missing(rope, &keys[1], failure);
    r = find_count(rope, &keys[2], CONTEXT_MAX, &config->rope_context, failure);
    if (r <= 0)
        return r < 0 ? r : missing(rope, &keys[2], failure);
    if (config->rope_high_factor <= config->rope_low_factor)
        return fail(failure, -EBADMSG, "high_freq_factor in config.json is %g, expected above low_freq_factor, %g",
                    (double)config->rope_high_factor, (double)config->rope_low_factor);
    config->rope_scaling = ROPE_LLAMA3;
    return 0;
}

/* NULL also where it is null. */
static const cJSON *find_item(const cJSON *json, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);

    return cJSON_IsNull(item) ? NULL : item;
}

/* At the top, or, in newer files, among the parameters. */
static int json_refuse_partial(const cJSON *json, struct failure *failure)
{
    const cJSON *partial = cJSON_GetObjectItemCaseSensitive(json, "partial_rotary_factor");

    if (cJSON_IsNumber(partial) && partial->valuedouble != 1)
        return fail(failure, -ENOTSUP, "partial_rotary_factor in config.json is %g: only 1 is handled",
                    partial->valuedouble);
    return 0;
}

/* rope_scaling, which newer files call rope_parameters; its type was once called just that. */
static int json_rope(const cJSON *json, struct decoder_config *config, struct failure *failure)
{
    const struct key base_key = {NULL, "rope_theta"}, factor_key = {NULL, "factor"};
    const cJSON *item = find_item(json, "rope_parameters");
    struct source source = {.json = json};
    const cJSON *type;
    int r = find_real(&source, &base_key, 0, 1e12, &config->rope_base, failure);

    if (!item)
        item = find_item(json, "rope_scaling");
    if (r >= 0)
        r = json_refuse_partial(json, failure);
    if (r < 0 || !item)
        return r < 0 ? r : 0;
    if (!cJSON_IsObject(item))
        return fail(failure, -EBADMSG, "%s in config.json is no object", item->string);
    source.json = item;
    r = find_real(&source, &base_key, 0, 1e12, &config->rope_base, failure);
    if (r >= 0)
        r = json_refuse_partial(item, failure);
    if (r < 0)
        return r;
    type = find_item(item, "rope_type");
    if (!type)
        type = find_item(item, "type");
    if (!cJSON_IsString(type))
        return fail(failure, -EBADMSG, "rope_type of %s in config.json is missing or no string", item->string);
    if (strcmp(type->valuestring, "default") == 0)
        return 0;
    if (strcmp(type->valuestring, "linear") != 0 && strcmp(type->valuestring, "llama3") != 0)
        return fail(failure, -ENOTSUP, "rope_type of %s in config.json is '%.*s': only linear and llama3 are handled",
                    item->string, SHOWN_BYTES, type->valuestring);
    r = find_real(&source, &factor_key, 0, 1e6, &config->rope_factor, failure);
    if (r <= 0)
        return r < 0 ? r : missing(&source, &factor_key, failure);
    config->rope_scaling = ROPE_LINEAR;
    return strcmp(type->valuestring, "linear") == 0 ? 0 : json_llama3(&source, config, failure);
}

static int read_json(const cJSON *json, struct decoder_config *config, struct failure *failure)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json, "model_type");
    const struct source source = {.json = json};
    const struct architecture *architecture;
    const cJSON *tied;
    int r;

    if (!cJSON_IsString(type))
        return fail(failure, -EBADMSG, "model_type in config.json is missing or no string");
    architecture = architecture_find(type->valuestring, strlen(type->valuestring));
    if (!architecture)
        return fail(failure, -ENOTSUP, "model_type in config.json is '%.*s', which is not handled", SHOWN_BYTES,
                    type->valuestring);
    config->architecture = architecture->name;
    config->biases = architecture->biases;
    config->rope_halves = true;
    tied = cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings");
    config->head = cJSON_IsTrue(tied) ? HEAD_TIED : cJSON_IsFalse(tied) ? HEAD_OWN : HEAD_AS_FOUND;
    r = json_refuse(json, failure);
    if (r >= 0)
        r = read_numbers(&source, config, failure);
    return r < 0 ? r : json_rope(json, config, failure);
}

static int read_folder(const char *folder, struct decoder_config *config, struct failure *failure)
{
    cJSON *json = NULL;
    int r = file_read_json(folder, "config.json", JSON_BYTES_MAX, &json, failure);

    if (r >= 0)
        r = read_json(json, config, failure);
    cJSON_Delete(json);
    return r;
}

/* ---- Either ------------------------------------------------------------------------------------------------ */

bool config_is_gguf(const struct tnd_model *model)
{
    return strncmp(tnd_model_format(model), "GGUF", 4) == 0;
}

int config_read(const struct tnd_model *model, const char *folder, struct decoder_config *ret_config,
                struct failure *failure)
{
    struct decoder_config config = {.rope_base = 10000};
    int r = config_is_gguf(model) ? read_gguf(model, &config, failure) : read_folder(folder, &config, failure);

    if (r >= 0)
        *ret_config = config;
    return r;
}
