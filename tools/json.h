/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

/* Writes JSON as it is told, keeping no more than a buffer of it. What comes out is always valid: strings that are no
 * UTF-8 become {"base64":"…"}, floats that are not finite become null. key: NULL inside an array and at the top. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *out;
    size_t used; /* of buffer */
    uint32_t depth;
    bool comma; /* something stands before the next item of the innermost container */
    char buffer[1 << 14]; /* one call to stdio for thousands of tokens */
};

void json_begin(struct json *json, FILE *out);
/* Every container must be closed; ends the line. Until then nothing else may go to out. */
void json_end(struct json *json);

void json_object_begin(struct json *json, const char *key);
void json_object_end(struct json *json);
void json_array_begin(struct json *json, const char *key);
void json_array_end(struct json *json);

void json_null(struct json *json, const char *key);
void json_bool(struct json *json, const char *key, bool value);
void json_uint(struct json *json, const char *key, uint64_t value);
void json_int(struct json *json, const char *key, int64_t value);
/* The shortest digits that give the value back, as a float or as a double. */
void json_float(struct json *json, const char *key, float value);
void json_double(struct json *json, const char *key, double value);
void json_string(struct json *json, const char *key, const char *value);
void json_bytes(struct json *json, const char *key, const char *data, size_t bytes);

/* A key out of a file, for the item that follows with key NULL. A key cannot be an object: what is no UTF-8 in it
 * becomes U+FFFD. */
void json_key(struct json *json, const char *data, size_t bytes);

/* Digits of a finite value into buffer; what json_float and json_double write. */
void json_format_float(char *buffer, size_t buffer_bytes, float value);
void json_format_double(char *buffer, size_t buffer_bytes, double value);

#endif
