/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "library.h"
#include "text.h"
#include "tundish.h"

#define SHOWN_ITEMS 4       /* of a long array */
#define SHOWN_CHARACTERS 60 /* of a long string, a chat template say */
#define NAME_COLUMNS 40

static void print_array(struct tnd_value array);

static void print_value(const struct tnd_value *value)
{
    char digits[40];

    switch (value->type) {
    case TND_VALUE_STRING:
        putchar('"');
        text_print(stdout, value->as.string.data, value->as.string.bytes, SHOWN_CHARACTERS);
        putchar('"');
        break;
    case TND_VALUE_ARRAY:
        print_array(*value);
        break;
    case TND_VALUE_BOOL:
        fputs(value->as.b ? "true" : "false", stdout);
        break;
    case TND_VALUE_F32:
        json_format_float(digits, sizeof(digits), (float)value->as.f);
        fputs(digits, stdout);
        break;
    case TND_VALUE_F64:
        json_format_double(digits, sizeof(digits), value->as.f);
        fputs(digits, stdout);
        break;
    case TND_VALUE_I8:
    case TND_VALUE_I16:
    case TND_VALUE_I32:
    case TND_VALUE_I64:
        printf("%" PRId64, value->as.i);
        break;
    default:
        printf("%" PRIu64, value->as.u);
        break;
    }
}

static void print_array(struct tnd_value array)
{
    uint64_t count = array.as.array.count;
    struct tnd_value item;

    putchar('[');
    for (uint64_t i = 0; i < SHOWN_ITEMS && tnd_value_next(&array, &item) > 0; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        print_value(&item);
    }
    if (count > SHOWN_ITEMS)
        printf(", …] %" PRIu64 " items", count);
    else
        putchar(']');
}

static void print_summary(const struct tnd_model *model)
{
    uint32_t types[TND_DTYPE_COUNT] = {0};
    uint32_t count = tnd_model_tensor_count(model);
    const struct tnd_file *file;
    const char *separator = "types    ";

    printf("model    %s, %s, %s, %s\n", tnd_model_format(model), text_count(count, "tensor").s,
           text_bytes(tnd_model_bytes(model)).s, text_count(tnd_model_layer_count(model), "layer").s);
    for (uint32_t i = 0; (file = tnd_model_file(model, i)); i++) {
        printf("file     ");
        text_print(stdout, file->path, strlen(file->path), SIZE_MAX);
        printf(", %" PRIu64 " bytes\n", file->bytes);
    }
    for (uint32_t i = 0; i < count; i++)
        types[tnd_model_tensor(model, i)->dtype]++;
    for (unsigned type = 0; type < TND_DTYPE_COUNT; type++) {
        if (types[type] == 0)
            continue;
        printf("%s%s %" PRIu32, separator, tnd_dtype_name((enum tnd_dtype)type), types[type]);
        separator = ", ";
    }
    if (count > 0)
        putchar('\n');
}

static void pad(size_t columns, size_t width)
{
    if (columns < width)
        printf("%*s", (int)(width - columns), "");
}

static void print_meta(const struct tnd_model *model)
{
    uint32_t count = tnd_model_meta_count(model);

    printf("\nmetadata, %s\n", text_count(count, "key").s);
    for (uint32_t i = 0; i < count; i++) {
        const struct tnd_meta *meta = tnd_model_meta(model, i);

        printf("  ");
        pad(text_print(stdout, meta->key, meta->key_bytes, 200), NAME_COLUMNS);
        printf("  ");
        print_value(&meta->value);
        putchar('\n');
    }
}

static void print_tensors(const struct tnd_model *model)
{
    uint32_t count = tnd_model_tensor_count(model);
    bool several = tnd_model_file_count(model) > 1;

    printf("\n%slayer  type           bytes        offset  %-*s  shape\n", several ? " file " : "", NAME_COLUMNS,
           "name");
    for (uint32_t i = 0; i < count; i++) {
        const struct tnd_tensor *tensor = tnd_model_tensor(model, i);

        if (several)
            printf("%5" PRIu32 " ", tensor->file);
        if (tensor->layer >= 0)
            printf("%5" PRId32, tensor->layer);
        else
            printf("%5s", tensor->role == TND_SHARED_OUT ? "out" : "in");
        printf("  %-8s %11" PRIu64 " %13" PRIu64 "  ", tnd_dtype_name(tensor->dtype), tensor->bytes, tensor->offset);
        pad(text_print(stdout, tensor->name, tensor->name_bytes, 200), NAME_COLUMNS);
        printf("  ");
        text_shape(stdout, tensor->shape, tensor->dims);
        putchar('\n');
    }
}

static void json_value(struct json *json, const struct tnd_value *value)
{
    struct tnd_value rest = *value, item;

    switch (value->type) {
    case TND_VALUE_STRING:
        json_bytes(json, NULL, value->as.string.data, value->as.string.bytes);
        break;
    case TND_VALUE_ARRAY: /* the library bounds how deep they nest */
        json_array_begin(json, NULL);
        while (tnd_value_next(&rest, &item) > 0)
            json_value(json, &item);
        json_array_end(json);
        break;
    case TND_VALUE_BOOL:
        json_bool(json, NULL, value->as.b);
        break;
    case TND_VALUE_F32:
        json_float(json, NULL, (float)value->as.f);
        break;
    case TND_VALUE_F64:
        json_double(json, NULL, value->as.f);
        break;
    case TND_VALUE_I8:
    case TND_VALUE_I16:
    case TND_VALUE_I32:
    case TND_VALUE_I64:
        json_int(json, NULL, value->as.i);
        break;
    default:
        json_uint(json, NULL, value->as.u);
        break;
    }
}

static void json_tensor(struct json *json, const struct tnd_model *model, const struct tnd_tensor *tensor)
{
    json_object_begin(json, NULL);
    json_bytes(json, "name", tensor->name, tensor->name_bytes);
    json_string(json, "dtype", tnd_dtype_name(tensor->dtype));
    json_array_begin(json, "shape");
    for (uint32_t i = 0; i < tensor->dims; i++)
        json_uint(json, NULL, tensor->shape[i]);
    json_array_end(json);
    json_uint(json, "bytes", tensor->bytes);
    json_string(json, "file", tnd_model_file(model, tensor->file)->path);
    json_uint(json, "offset", tensor->offset);
    json_int(json, "layer", tensor->layer);
    json_object_end(json);
}

static void json_info(const struct tnd_model *model)
{
    const struct tnd_tensor *tensor;
    const struct tnd_file *file;
    const struct tnd_meta *meta;
    struct json json;

    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_string(&json, "format", tnd_model_format(model));
    json_array_begin(&json, "files");
    for (uint32_t i = 0; (file = tnd_model_file(model, i)); i++) {
        json_object_begin(&json, NULL);
        json_string(&json, "path", file->path);
        json_uint(&json, "bytes", file->bytes);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_array_begin(&json, "tensors");
    for (uint32_t i = 0; (tensor = tnd_model_tensor(model, i)); i++)
        json_tensor(&json, model, tensor);
    json_array_end(&json);
    json_object_begin(&json, "metadata");
    for (uint32_t i = 0; (meta = tnd_model_meta(model, i)); i++) {
        json_key(&json, meta->key, meta->key_bytes);
        json_value(&json, &meta->value);
    }
    json_object_end(&json);
    json_uint(&json, "layers", tnd_model_layer_count(model));
    json_object_end(&json);
    json_end(&json);
}

int command_info(const struct options *options)
{
    struct tnd_model_options model_options = options_model(options);
    struct tnd_model *model = NULL;
    int r = tnd_model_open(options->model, &model_options, &model);

    if (r < 0)
        return fail_result(r, NULL);
    if (options->json) {
        json_info(model);
    } else {
        print_summary(model);
        print_meta(model);
        print_tensors(model);
    }
    tnd_model_close(&model);
    return 0;
}
