/* SPDX-License-Identifier: Apache-2.0 */
#include "format/json.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "format/format.h"

/* What may come next. FIRST_…: right after a bracket, where it may also close. */
enum expects { VALUE, FIRST_ELEMENT, FIRST_KEY, KEY, COMMA_OR_END, NOTHING };

void tnd_json_init(struct tnd_json *json, const void *bytes, uint64_t count, uint64_t base, const char *path,
                   struct tnd_arena *arena)
{
    *json = (struct tnd_json){
        .bytes = bytes, .count = count, .base = base, .path = path, .arena = arena, .expects = VALUE};
}

static int fail_here(const struct tnd_json *json, const char *what, struct tnd_err *err)
{
    uint64_t offset = json->base + json->at;

    if (json->at == json->count)
        return tnd_fail_at(err, -EBADMSG, json->path, offset, "expected %s, found the end of the JSON text", what);
    if (json->bytes[json->at] > 0x20 && json->bytes[json->at] < 0x7F)
        return tnd_fail_at(err, -EBADMSG, json->path, offset, "expected %s, found '%c'", what, json->bytes[json->at]);
    return tnd_fail_at(err, -EBADMSG, json->path, offset, "expected %s, found byte 0x%02x", what,
                       json->bytes[json->at]);
}

static void skip_space(struct tnd_json *json)
{
    while (json->at < json->count) {
        uint8_t c = json->bytes[json->at];

        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return;
        json->at++;
    }
}

static uint8_t peek(const struct tnd_json *json)
{
    return json->at < json->count ? json->bytes[json->at] : 0; /* 0 starts no token */
}

/* Four hex digits at `at`, -1 when they are not. */
static int32_t hex4(const uint8_t *at, const uint8_t *end)
{
    int32_t value = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = at[i] >= '0' && at[i] <= '9'   ? at[i] - '0'
                    : at[i] >= 'a' && at[i] <= 'f' ? at[i] - 'a' + 10
                    : at[i] >= 'A' && at[i] <= 'F' ? at[i] - 'A' + 10
                                                   : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    if (c < 0x800) {
        *out++ = (char)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *out++ = (char)(0xE0 | c >> 12);
        } else {
            *out++ = (char)(0xF0 | c >> 18);
            *out++ = (char)(0x80 | (c >> 12 & 0x3F));
        }
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
    }
    *out++ = (char)(0x80 | (c & 0x3F));
    return out;
}

/* Writes what the escape at `at` (its backslash) stands for; NULL when it is none. */
static const uint8_t *unescape(const uint8_t *at, const uint8_t *end, char **out)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *letter = strchr(letters, at[1]); /* a backslash is never the last byte: a quote stands behind it */
    int32_t high, low;

    if (at[1] && letter) {
        *(*out)++ = meant[letter - letters];
        return at + 2;
    }
    high = at[1] == 'u' ? hex4(at + 2, end) : -1;
    if (high < 0 || (high >= 0xDC00 && high < 0xE000))
        return NULL;
    if (high < 0xD800 || high >= 0xE000) {
        *out = put_utf8(*out, (uint32_t)high);
        return at + 6;
    }
    if (end - at < 12 || at[6] != '\\' || at[7] != 'u')
        return NULL;
    low = hex4(at + 8, end);
    if (low < 0xDC00 || low >= 0xE000)
        return NULL;
    *out = put_utf8(*out, 0x10000 + (((uint32_t)high - 0xD800) << 10) + ((uint32_t)low - 0xDC00));
    return at + 12;
}

/* Replaces the token's slice by a copy without escapes, which is never longer. */
static int copy_unescaped(struct tnd_json *json, struct tnd_json_token *token, struct tnd_err *err)
{
    const uint8_t *at = (const uint8_t *)token->text, *end = at + token->bytes;
    char *copy = tnd_arena_alloc(json->arena, token->bytes + 1, 1), *out = copy;

    if (!copy)
        return tnd_fail_at(err, -ENOMEM, json->path, token->at, "not enough memory for a string of %llu bytes",
                           (unsigned long long)token->bytes);
    while (at < end) {
        const uint8_t *next;

        if (*at != '\\') {
            *out++ = (char)*at++;
            continue;
        }
        next = unescape(at, end, &out);
        if (!next) {
            json->at = (uint64_t)(at - json->bytes);
            return fail_here(json, "an escape of RFC 8259 and whole surrogate pairs", err);
        }
        at = next;
    }
    token->text = copy;
    token->bytes = (size_t)(out - copy);
    token->copied = true;
    return 0;
}

/* The string whose quote is at hand; leaves the position behind its other quote. */
static int take_string(struct tnd_json *json, struct tnd_json_token *token, struct tnd_err *err)
{
    const uint8_t *first = json->bytes + json->at + 1, *end = json->bytes + json->count, *at = first;
    bool escapes = false;
    uint8_t seen = 0;

    for (; at < end && *at != '"' && *at >= 0x20; at++) {
        seen |= *at;
        if (*at == '\\') {
            escapes = true;
            if (++at == end)
                break;
            if (*at < 0x20)
                break;
        }
    }
    token->text = (const char *)first;
    token->bytes = (size_t)(at - first);
    if (at == end || *at != '"') {
        json->at = (uint64_t)(at - json->bytes);
        return fail_here(json, "a string's text or closing quote", err);
    }
    json->at = (uint64_t)(at - json->bytes) + 1;
    if (seen >= 0x80 && !tnd_utf8_valid(first, token->bytes))
        return tnd_fail_at(err, -EBADMSG, json->path, token->at, "expected a string in UTF-8, found other bytes");
    return escapes ? copy_unescaped(json, token, err) : 0;
}

static bool take_digits(struct tnd_json *json)
{
    uint64_t first = json->at;

    while (peek(json) >= '0' && peek(json) <= '9')
        json->at++;
    return json->at > first;
}

static int take_number(struct tnd_json *json, struct tnd_json_token *token, struct tnd_err *err)
{
    uint64_t first = json->at;

    token->type = TND_JSON_NUMBER;
    if (peek(json) == '-')
        json->at++;
    if (peek(json) == '0')
        json->at++;
    else if (!take_digits(json))
        return fail_here(json, "a digit", err);
    if (peek(json) == '.') {
        json->at++;
        if (!take_digits(json))
            return fail_here(json, "a digit", err);
    }
    if (peek(json) == 'e' || peek(json) == 'E') {
        json->at++;
        if (peek(json) == '+' || peek(json) == '-')
            json->at++;
        if (!take_digits(json))
            return fail_here(json, "a digit", err);
    }
    token->text = (const char *)json->bytes + first;
    token->bytes = json->at - first;
    return 0;
}

static int take_word(struct tnd_json *json, const char *word, enum tnd_json_type type, struct tnd_json_token *token,
                     struct tnd_err *err)
{
    size_t bytes = strlen(word);

    if (json->count - json->at < bytes || memcmp(json->bytes + json->at, word, bytes) != 0)
        return fail_here(json, "a JSON value", err);
    token->type = type;
    json->at += bytes;
    return 0;
}

static int open_bracket(struct tnd_json *json, bool object, struct tnd_json_token *token, struct tnd_err *err)
{
    if (json->depth == TND_JSON_DEPTH_MAX)
        return tnd_fail_at(err, -EFBIG, json->path, token->at, "JSON is nested deeper than %u", TND_JSON_DEPTH_MAX);
    json->in_object[json->depth++] = object;
    json->at++;
    token->type = object ? TND_JSON_OBJECT : TND_JSON_ARRAY;
    json->expects = object ? FIRST_KEY : FIRST_ELEMENT;
    return 0;
}

static int close_bracket(struct tnd_json *json, struct tnd_json_token *token)
{
    token->type = json->in_object[--json->depth] ? TND_JSON_OBJECT_END : TND_JSON_ARRAY_END;
    json->at++;
    json->expects = json->depth ? COMMA_OR_END : NOTHING;
    return 0;
}

static int take_value(struct tnd_json *json, struct tnd_json_token *token, struct tnd_err *err)
{
    uint8_t c = peek(json);

    if (c == '{' || c == '[')
        return open_bracket(json, c == '{', token, err);
    json->expects = json->depth ? COMMA_OR_END : NOTHING;
    switch (c) {
    case '"':
        token->type = TND_JSON_STRING;
        return take_string(json, token, err);
    case 't':
        return take_word(json, "true", TND_JSON_TRUE, token, err);
    case 'f':
        return take_word(json, "false", TND_JSON_FALSE, token, err);
    case 'n':
        return take_word(json, "null", TND_JSON_NULL, token, err);
    default:
        if (c != '-' && (c < '0' || c > '9'))
            return fail_here(json, "a JSON value", err);
        return take_number(json, token, err);
    }
}

static int take_key(struct tnd_json *json, struct tnd_json_token *token, struct tnd_err *err)
{
    int r;

    if (peek(json) != '"')
        return fail_here(json, "a key in quotes", err);
    token->type = TND_JSON_KEY;
    r = take_string(json, token, err);
    if (r < 0)
        return r;
    skip_space(json);
    if (peek(json) != ':')
        return fail_here(json, "':'", err);
    json->at++;
    json->expects = VALUE;
    return 0;
}

int tnd_json_next(struct tnd_json *json, struct tnd_json_token *ret_token, struct tnd_err *err)
{
    bool object = json->depth && json->in_object[json->depth - 1];

    skip_space(json);
    if (json->expects == COMMA_OR_END && peek(json) == ',') {
        json->at++;
        json->expects = object ? KEY : VALUE;
        skip_space(json);
    }
    *ret_token = (struct tnd_json_token){.at = json->base + json->at};
    switch ((enum expects)json->expects) {
    case FIRST_ELEMENT:
        if (peek(json) == ']')
            return close_bracket(json, ret_token);
        return take_value(json, ret_token, err);
    case VALUE:
        return take_value(json, ret_token, err);
    case FIRST_KEY:
        if (peek(json) == '}')
            return close_bracket(json, ret_token);
        return take_key(json, ret_token, err);
    case KEY:
        return take_key(json, ret_token, err);
    case COMMA_OR_END:
        if (peek(json) == (object ? '}' : ']'))
            return close_bracket(json, ret_token);
        return fail_here(json, object ? "',' or '}'" : "',' or ']'", err);
    case NOTHING:
        break;
    }
    return json->at == json->count ? 0 : fail_here(json, "the end of the JSON text", err);
}

int tnd_json_expect(struct tnd_json *json, enum tnd_json_type type, struct tnd_json_token *ret_token,
                    struct tnd_err *err)
{
    static const char *const words[] = {"the end", "an object", "'}'",      "an array", "']'", "a key",
                                        "a string", "a number", "'true'", "'false'",  "'null'"};
    int r = tnd_json_next(json, ret_token, err);

    return r < 0 || ret_token->type == type ? r : tnd_json_fail(json, ret_token, words[type], err);
}

int tnd_json_skip(struct tnd_json *json, const struct tnd_json_token *first, struct tnd_err *err)
{
    uint32_t outside = json->depth - 1;
    struct tnd_json_token token;
    int r = 0;

    if (first->type != TND_JSON_OBJECT && first->type != TND_JSON_ARRAY)
        return 0;
    while (r == 0 && json->depth > outside)
        r = tnd_json_next(json, &token, err);
    return r;
}

int tnd_json_add_key(const struct tnd_json *json, struct tnd_json_keys *keys, const struct tnd_json_token *key,
                     struct tnd_err *err)
{
    for (uint32_t i = 0; i < keys->count; i++)
        if (keys->keys[i].bytes == key->bytes && !memcmp(keys->keys[i].text, key->text, key->bytes))
            return tnd_fail_at(err, -EBADMSG, json->path, key->at, "key '%.*s' is there twice, expected once",
                               tnd_shown(key->text, key->bytes), key->text);
    if (keys->count == TND_JSON_KEYS_MAX)
        return tnd_fail_at(err, -EFBIG, json->path, key->at, "one more key in this object, expected at most %u",
                           TND_JSON_KEYS_MAX);
    keys->keys[keys->count].text = key->text;
    keys->keys[keys->count++].bytes = key->bytes;
    return 0;
}

int tnd_json_fail(const struct tnd_json *json, const struct tnd_json_token *token, const char *what,
                  struct tnd_err *err)
{
    static const char *const words[] = {"the end", "an object", "the end of an object", "an array",
                                        "the end of an array", "key", "string", "number", "true", "false", "null"};

    if (token->bytes && token->type != TND_JSON_KEY)
        return tnd_fail_at(err, -EBADMSG, json->path, token->at, "expected %s, found %s '%.*s'", what,
                           words[token->type], tnd_shown(token->text, token->bytes), token->text);
    return tnd_fail_at(err, -EBADMSG, json->path, token->at, "expected %s, found %s", what, words[token->type]);
}

bool tnd_json_u64(const struct tnd_json_token *token, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (token->type != TND_JSON_NUMBER)
        return false;
    for (size_t i = 0; i < token->bytes; i++) {
        char c = token->text[i];

        if (c < '0' || c > '9' || tnd_mul_overflows(value, 10, &value) ||
            tnd_add_overflows(value, (uint64_t)(c - '0'), &value))
            return false;
    }
    *ret_value = value;
    return true;
}

bool tnd_json_is(const struct tnd_json_token *token, const char *word)
{
    return token->bytes == strlen(word) && !memcmp(token->text, word, token->bytes);
}

const char *tnd_json_string(const struct tnd_json *json, const struct tnd_json_token *token)
{
    return token->copied ? token->text : tnd_arena_string(json->arena, token->text, token->bytes);
}
