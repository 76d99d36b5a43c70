/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <stdio.h>

#include "digests.h"
#include "json.h"
#include "manifest.h"
#include "session.h"
#include "text.h"
#include "values.h"
#include "whole_file.h"

/* null where the type's elements cannot be told. */
static void json_values(struct json *json, const char *key, const struct digest *item, uint64_t count)
{
    if (!values_readable(item->dtype)) {
        json_null(json, key);
        return;
    }
    json_array_begin(json, key);
    for (uint64_t i = 0; i < count && i < item->tensor->elements; i++)
        values_json(json, item->dtype, item->data, i);
    json_array_end(json);
}

static void print_digests(const struct digests *digests, const struct options *options)
{
    struct json json;

    for (uint32_t i = 0; i < digests->count; i++) {
        const struct digest *item = &digests->items[i];

        printf("%s  ", hash_text(digests->hash, item->sum).s);
        text_print(stdout, item->tensor->name, item->tensor->name_bytes, SIZE_MAX);
        putchar('\n');
        if (options->values > 0) {
            printf("    ");
            json_begin(&json, stdout);
            json_values(&json, NULL, item, options->values);
            json_end(&json);
        }
    }
}

static void json_digests(const struct digests *digests, const struct options *options)
{
    struct json json;

    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_array_begin(&json, "tensors");
    for (uint32_t i = 0; i < digests->count; i++) {
        const struct digest *item = &digests->items[i];
        const struct tnd_tensor *tensor = item->tensor;

        json_object_begin(&json, NULL);
        json_bytes(&json, "name", tensor->name, tensor->name_bytes);
        json_string(&json, "dtype", tnd_dtype_name(item->dtype));
        json_array_begin(&json, "shape");
        for (uint32_t k = 0; k < tensor->dims; k++)
            json_uint(&json, NULL, tensor->shape[k]);
        json_array_end(&json);
        json_uint(&json, "bytes", item->bytes);
        json_string(&json, digests->hash->name, hash_text(digests->hash, item->sum).s);
        if (options->values > 0)
            json_values(&json, "values", item, options->values);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}

int command_digest(const struct options *options)
{
    struct session session = {.options = options};
    struct digests digests = {0};
    struct whole_file manifest = WHOLE_FILE_NONE;
    int code = options->manifest_out ? manifest_prepare(&manifest, options->manifest_out) : 0;

    if (code == 0)
        code = digests_take(&digests, hashes[options->algo], &session);
    if (code == 0 && options->manifest_out)
        code = manifest_write(&manifest, &digests);
    if (code == 0 && options->json)
        json_digests(&digests, options);
    else if (code == 0)
        print_digests(&digests, options);
    whole_file_finish(&manifest);
    session_finish(&session);
    digests_finish(&digests);
    return code;
}
