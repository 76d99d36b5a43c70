/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

static void flush(struct json *json)
{
    fwrite(json->buffer, 1, json->used, json->out); /* what fails shows in ferror() at the end */
    json->used = 0;
}

static void put(struct json *json, const char *data, size_t bytes)
{
    if (bytes > sizeof(json->buffer) - json->used)
        flush(json);
    if (bytes > sizeof(json->buffer)) {
        fwrite(data, 1, bytes, json->out);
        return;
    }
    memcpy(json->buffer + json->used, data, bytes);
    json->used += bytes;
}

static void put_char(struct json *json, char c)
{
    put(json, &c, 1);
}

void json_begin(struct json *json, FILE *out)
{
    json->out = out; /* the buffer needs no clearing */
    json->used = 0;
    json->depth = 0;
    json->comma = false;
}

void json_end(struct json *json)
{
    assert(json->depth == 0);
    put_char(json, '\n');
    flush(json);
}

static void put_escape(struct json *json, unsigned char byte)
{
    static const char hex[] = "0123456789abcdef";
    char escape[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};

    if (byte == '"' || byte == '\\' || byte == '\n') {
        escape[1] = byte == '\n' ? 'n' : (char)byte;
        put(json, escape, 2);
    } else {
        put(json, escape, sizeof(escape));
    }
}

static bool needs_escape(unsigned char byte)
{
    return byte < 0x20 || byte == '"' || byte == '\\' || byte == 0x7F;
}

static void put_escaped(struct json *json, const unsigned char *data, size_t bytes)
{
    size_t plain = 0; /* where what needs no escape began */

    for (size_t i = 0; i < bytes; i++) {
        if (!needs_escape(data[i]))
            continue;
        put(json, (const char *)data + plain, i - plain);
        plain = i + 1;
        put_escape(json, data[i]);
    }
    put(json, (const char *)data + plain, bytes - plain);
}

/* One pass over a string says how it is written. */
enum spelling { PLAIN, ESCAPED, BASE64 };

static enum spelling spelling_of(const unsigned char *data, size_t bytes)
{
    enum spelling spelling = PLAIN;

    for (size_t i = 0, length; i < bytes; i += length) {
        length = data[i] < 0x80 ? 1 : text_utf8(data + i, bytes - i);
        if (length == 0)
            return BASE64;
        if (needs_escape(data[i]))
            spelling = ESCAPED;
    }
    return spelling;
}

static void item(struct json *json, const char *key)
{
    if (json->comma)
        put_char(json, ',');
    json->comma = true;
    if (key) {
        put_char(json, '"');
        put_escaped(json, (const unsigned char *)key, strlen(key));
        put(json, "\":", 2);
    }
}

void json_key(struct json *json, const char *data, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)data;

    item(json, NULL);
    put_char(json, '"');
    for (size_t i = 0, length; i < bytes; i += length) {
        length = text_utf8(at + i, bytes - i);
        if (length > 0) {
            put_escaped(json, at + i, length);
        } else {
            put(json, "\xEF\xBF\xBD", 3);
            length = 1;
        }
    }
    put(json, "\":", 2);
    json->comma = false;
}

static void container_begin(struct json *json, const char *key, char bracket)
{
    item(json, key);
    put_char(json, bracket);
    json->comma = false;
    json->depth++;
}

static void container_end(struct json *json, char bracket)
{
    assert(json->depth > 0);
    put_char(json, bracket);
    json->comma = true;
    json->depth--;
}

void json_object_begin(struct json *json, const char *key)
{
    container_begin(json, key, '{');
}

void json_object_end(struct json *json)
{
    container_end(json, '}');
}

void json_array_begin(struct json *json, const char *key)
{
    container_begin(json, key, '[');
}

void json_array_end(struct json *json)
{
    container_end(json, ']');
}

void json_null(struct json *json, const char *key)
{
    item(json, key);
    put(json, "null", 4);
}

void json_bool(struct json *json, const char *key, bool value)
{
    item(json, key);
    put(json, value ? "true" : "false", value ? 4 : 5);
}

void json_uint(struct json *json, const char *key, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    item(json, key);
    put(json, digits + at, sizeof(digits) - at);
}

void json_int(struct json *json, const char *key, int64_t value)
{
    if (value >= 0) {
        json_uint(json, key, (uint64_t)value);
        return;
    }
    item(json, key);
    put_char(json, '-');
    json->comma = false;
    json_uint(json, NULL, 0 - (uint64_t)value);
}

void json_format_float(char *buffer, size_t buffer_bytes, float value)
{
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(buffer, buffer_bytes, "%.*g", digits, (double)value);
        if (strtof(buffer, NULL) == value)
            return;
    }
}

void json_format_double(char *buffer, size_t buffer_bytes, double value)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buffer, buffer_bytes, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value)
            return;
    }
}

void json_float(struct json *json, const char *key, float value)
{
    char digits[40];

    if (!isfinite(value)) {
        json_null(json, key);
        return;
    }
    if (fabsf(value) < 1e6F && value == (float)(int32_t)value && !(value == 0 && signbit(value))) {
        json_int(json, key, (int32_t)value); /* token scores: a hundred thousand small whole numbers */
        return;
    }
    json_format_float(digits, sizeof(digits), value);
    item(json, key);
    put(json, digits, strlen(digits));
}

void json_double(struct json *json, const char *key, double value)
{
    char digits[40];

    if (!isfinite(value)) {
        json_null(json, key);
        return;
    }
    json_format_double(digits, sizeof(digits), value);
    item(json, key);
    put(json, digits, strlen(digits));
}

static void put_base64(struct json *json, const unsigned char *data, size_t bytes)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < bytes; i += 3) {
        size_t left = bytes - i;
        uint32_t bits = (uint32_t)data[i] << 16;
        char four[4];

        if (left > 1)
            bits |= (uint32_t)data[i + 1] << 8;
        if (left > 2)
            bits |= data[i + 2];
        four[0] = alphabet[bits >> 18];
        four[1] = alphabet[bits >> 12 & 63];
        four[2] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
        four[3] = left > 2 ? alphabet[bits & 63] : '=';
        put(json, four, 4);
    }
}

void json_bytes(struct json *json, const char *key, const char *data, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)data;
    enum spelling spelling = spelling_of(at, bytes);

    item(json, key);
    if (spelling == BASE64) {
        put(json, "{\"base64\":\"", 11);
        put_base64(json, at, bytes);
        put(json, "\"}", 2);
        return;
    }
    put_char(json, '"');
    if (spelling == PLAIN)
        put(json, data, bytes);
    else
        put_escaped(json, at, bytes);
    put_char(json, '"');
}

void json_string(struct json *json, const char *key, const char *value)
{
    json_bytes(json, key, value, strlen(value));
}
