/* SPDX-License-Identifier: Apache-2.0 */
#include "hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

#define STEP_BYTES ((size_t)8 << 20)
#define READ_BYTES ((size_t)1 << 20) /* of a file, a piece that the caches hold */

const struct hash *const hashes[HASH_COUNT] = {&hash_sha256, &hash_xxh3};

const struct hash *hash_find(const char *name)
{
    for (size_t i = 0; i < HASH_COUNT; i++)
        if (strcmp(hashes[i]->name, name) == 0)
            return hashes[i];
    return NULL;
}

/* good: whether the digest is wanted; the state goes either way. */
static bool end(const struct hash *hash, void *state, bool good, unsigned char *digest)
{
    return state && hash->end(state, good ? digest : NULL) && good;
}

bool hash_memory(const struct hash *hash, const void *data, size_t bytes, bool (*stop)(void), unsigned char *digest)
{
    void *state = hash->begin();
    const char *at = data;
    bool good = state != NULL;

    while (good && bytes > 0) {
        size_t step = bytes < STEP_BYTES ? bytes : STEP_BYTES;

        good = !stop() && hash->update(state, at, step);
        at += step;
        bytes -= step;
    }
    return end(hash, state, good, digest);
}

int hash_fd(const struct hash *hash, int fd, bool (*stop)(void), unsigned char *digest, uint64_t *ret_bytes)
{
    void *state = hash->begin();
    char *buffer = malloc(READ_BYTES);
    int r = !buffer ? -ENOMEM : !state ? -EIO : 0;

    *ret_bytes = 0;
    while (r == 0) {
        ssize_t got = read(fd, buffer, READ_BYTES);

        if (got == 0)
            break;
        if (stop())
            r = -ECANCELED;
        else if (got < 0)
            r = errno == EINTR ? 0 : -errno;
        else if (!hash->update(state, buffer, (size_t)got))
            r = -EIO;
        *ret_bytes += got > 0 ? (uint64_t)got : 0;
    }
    free(buffer);
    if (!end(hash, state, r == 0, digest) && r == 0)
        r = -EIO;
    return r;
}

struct hash_text hash_text(const struct hash *hash, const unsigned char *digest)
{
    static const char hex[] = "0123456789abcdef";
    struct hash_text text;

    for (size_t i = 0; i < hash->bytes; i++) {
        text.s[2 * i] = hex[digest[i] >> 4];
        text.s[2 * i + 1] = hex[digest[i] & 15];
    }
    text.s[2 * hash->bytes] = '\0';
    return text;
}

bool hash_parse(const struct hash *hash, const char *text, unsigned char *digest)
{
    for (size_t i = 0; i < hash->bytes; i++) {
        int high = text_hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : text_hex_digit(text[2 * i + 1]); /* the text may end at the first one that is none */

        if (low < 0)
            return false;
        digest[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}
