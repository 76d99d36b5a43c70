/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: no text makes the JSON parser look beyond it, lose count of brackets or go on for ever. Every other value is
 * passed over by tnd_json_skip(). */

#include "format/json.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tnd_arena arena = {.allocator = tnd_allocator_or_default(NULL)};
    uint8_t *text = malloc(size + 1); /* its own end, for a sanitizer to watch */
    struct tnd_json_token token = {.type = TND_JSON_NULL};
    struct tnd_err err = {0};
    struct tnd_json json;
    uint64_t number;
    int r = 0;

    if (size)
        memcpy(text, data, size);
    tnd_json_init(&json, text, size, 8, PATH, &arena);
    for (size_t i = 0; r == 0 && (i == 0 || token.type != TND_JSON_END); i++) {
        must(i <= size + 1);
        r = tnd_json_next(&json, &token, &err);
        if (r == 0 && (token.type == TND_JSON_KEY || token.type == TND_JSON_STRING))
            must(strlen(tnd_json_string(&json, &token)) <= token.bytes);
        if (r == 0 && tnd_json_u64(&token, &number))
            must(token.bytes > 0);
        if (r == 0 && i % 2)
            r = tnd_json_skip(&json, &token, &err);
    }
    if (r < 0)
        check_refusal(r, &err);
    tnd_arena_finish(&arena);
    free(text);
    return 0;
}
