/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_FORMAT_JSON_H
#define TND_FORMAT_JSON_H

/* A pull parser for JSON that nobody vouches for: RFC 8259 to the letter, one token a call, no tree. Strings are
 * slices of the text; only those with escapes are copied, into the arena. Whether a key comes twice is the caller's
 * to find out, who knows how many there may be. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define TND_JSON_DEPTH_MAX 127 /* objects and arrays inside each other: as deep as common readers go */

enum tnd_json_type {
    TND_JSON_END, /* the text is over, and was whole */
    TND_JSON_OBJECT, TND_JSON_OBJECT_END,
    TND_JSON_ARRAY, TND_JSON_ARRAY_END,
    TND_JSON_KEY, TND_JSON_STRING,
    TND_JSON_NUMBER, TND_JSON_TRUE, TND_JSON_FALSE, TND_JSON_NULL,
};

struct tnd_json_token {
    enum tnd_json_type type;
    bool copied;      /* lies in the arena, with a NUL behind it */
    const char *text; /* keys and strings without their quotes, numbers as written */
    size_t bytes;
    uint64_t at;      /* offset of its first byte in the file */
};

struct tnd_json {
    const uint8_t *bytes; /* [count], unchanged while tokens are in use */
    uint64_t count, at;
    uint64_t base;    /* offset of the text in the file */
    const char *path; /* for sentences */
    struct tnd_arena *arena;
    int expects;      /* which tokens may come next */
    uint32_t depth;
    bool in_object[TND_JSON_DEPTH_MAX]; /* [depth]: else in an array */
};

void tnd_json_init(struct tnd_json *json, const void *bytes, uint64_t count, uint64_t base, const char *path,
                   struct tnd_arena *arena);

/* The keys of one object so far, for finding one that comes twice. Set count to 0. */
#define TND_JSON_KEYS_MAX 64
struct tnd_json_keys {
    uint32_t count;
    struct {
        const char *text;
        size_t bytes;
    } keys[TND_JSON_KEYS_MAX];
};

/* Adds a key. Returns 0, -EBADMSG when it is there already, -EFBIG over TND_JSON_KEYS_MAX. */
int tnd_json_add_key(const struct tnd_json *json, struct tnd_json_keys *keys, const struct tnd_json_token *key,
                     struct tnd_err *err);

/* The next token. Returns 0, -EBADMSG with the offset, -EFBIG over TND_JSON_DEPTH_MAX, -ENOMEM. */
int tnd_json_next(struct tnd_json *json, struct tnd_json_token *ret_token, struct tnd_err *err);

/* The next token, which must be of that type. */
int tnd_json_expect(struct tnd_json *json, enum tnd_json_type type, struct tnd_json_token *ret_token,
                    struct tnd_err *err);

/* Passes over the rest of a value whose first token is there. */
int tnd_json_skip(struct tnd_json *json, const struct tnd_json_token *first, struct tnd_err *err);

/* -EBADMSG: "expected WHAT, found …". */
int tnd_json_fail(const struct tnd_json *json, const struct tnd_json_token *token, const char *what,
                  struct tnd_err *err);

/* A number of the token as written: digits only, below 2^64. */
bool tnd_json_u64(const struct tnd_json_token *token, uint64_t *ret_value);

/* Whether the token's text is that word. */
bool tnd_json_is(const struct tnd_json_token *token, const char *word);

/* The token's text with a NUL behind it, in the arena. NULL without memory. */
const char *tnd_json_string(const struct tnd_json *json, const struct tnd_json_token *token);

#endif
