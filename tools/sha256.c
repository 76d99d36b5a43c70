/* SPDX-License-Identifier: Apache-2.0 */
#include "sha256.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

#define STEP_BYTES ((size_t)8 << 20)
#define READ_BYTES ((size_t)1 << 20) /* of a file, a piece that the caches hold */

/* A pointer to data into one to a function, which C has no cast for. */
static bool find(void *library, const char *name, void *ret_function)
{
    void *symbol = dlsym(library, name);

    memcpy(ret_function, &symbol, sizeof(symbol));
    return symbol != NULL;
}

int sha256_open(struct sha256 *sha256)
{
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);

    *sha256 = (struct sha256){.library = library};
    if (!library)
        return fail(EXIT_RESOURCE, "a SHA-256 needs libcrypto.so.3 of OpenSSL, package libssl3: %s", dlerror());
    if (!find(library, "EVP_MD_CTX_new", &sha256->context_create) ||
        !find(library, "EVP_MD_CTX_free", &sha256->context_destroy) ||
        !find(library, "EVP_sha256", &sha256->algorithm) || !find(library, "EVP_DigestInit_ex", &sha256->start) ||
        !find(library, "EVP_DigestUpdate", &sha256->update) ||
        !find(library, "EVP_DigestFinal_ex", &sha256->finish))
        return fail(EXIT_RESOURCE, "the libcrypto.so.3 here lacks SHA-256; package libssl3 has it: %s", dlerror());
    return 0;
}

bool sha256_digest(const struct sha256 *sha256, const void *data, size_t bytes, bool (*stop)(void),
                   unsigned char digest[SHA256_BYTES])
{
    void *context = sha256->context_create();
    const char *at = data;
    bool good = context && sha256->start(context, sha256->algorithm(), NULL) == 1;
    unsigned digest_bytes;

    while (good && bytes > 0) {
        size_t step = bytes < STEP_BYTES ? bytes : STEP_BYTES;

        good = !stop() && sha256->update(context, at, step) == 1;
        at += step;
        bytes -= step;
    }
    good = good && sha256->finish(context, digest, &digest_bytes) == 1;
    assert(!good || digest_bytes == SHA256_BYTES);
    if (context)
        sha256->context_destroy(context);
    return good;
}

int sha256_digest_fd(const struct sha256 *sha256, int fd, bool (*stop)(void), unsigned char digest[SHA256_BYTES],
                     uint64_t *ret_bytes)
{
    void *context = sha256->context_create();
    char *buffer = malloc(READ_BYTES);
    unsigned digest_bytes;
    int r = buffer ? 0 : -ENOMEM;

    *ret_bytes = 0;
    if (r == 0 && (!context || sha256->start(context, sha256->algorithm(), NULL) != 1))
        r = -EIO;
    while (r == 0) {
        ssize_t got = read(fd, buffer, READ_BYTES);

        if (got == 0)
            break;
        if (stop())
            r = -ECANCELED;
        else if (got < 0)
            r = errno == EINTR ? 0 : -errno;
        else if (sha256->update(context, buffer, (size_t)got) != 1)
            r = -EIO;
        *ret_bytes += got > 0 ? (uint64_t)got : 0;
    }
    if (r == 0 && sha256->finish(context, digest, &digest_bytes) != 1)
        r = -EIO;
    if (context)
        sha256->context_destroy(context);
    free(buffer);
    return r;
}

struct sha256_text sha256_text(const unsigned char digest[SHA256_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    struct sha256_text text;

    for (size_t i = 0; i < SHA256_BYTES; i++) {
        text.s[2 * i] = hex[digest[i] >> 4];
        text.s[2 * i + 1] = hex[digest[i] & 15];
    }
    text.s[2 * SHA256_BYTES] = '\0';
    return text;
}

bool sha256_parse(const char *text, unsigned char digest[SHA256_BYTES])
{
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        int high = text_hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : text_hex_digit(text[2 * i + 1]); /* the text may end at the first one that is none */

        if (low < 0)
            return false;
        digest[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}
