/* SPDX-License-Identifier: Apache-2.0 */
#include "hash.h"

#include <assert.h>
#include <dlfcn.h>
#include <string.h>

#include "text.h"

#define SHA256_BYTES 32

/* libcrypto's functions; its types are opaque here. Once open it stays: it has exit handlers of its own. */
static struct {
    void *library;
    void *(*context_create)(void);
    void (*context_destroy)(void *context);
    const void *(*algorithm)(void);
    int (*start)(void *context, const void *algorithm, void *engine);
    int (*update)(void *context, const void *data, size_t bytes);
    int (*finish)(void *context, unsigned char *digest, unsigned *ret_bytes);
} crypto;

/* A pointer to data into one to a function, which C has no cast for. */
static bool find(const char *name, void *ret_function)
{
    void *symbol = dlsym(crypto.library, name);

    memcpy(ret_function, &symbol, sizeof(symbol));
    return symbol != NULL;
}

static int sha256_open(void)
{
    if (!crypto.library)
        crypto.library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!crypto.library)
        return fail(EXIT_RESOURCE, "a SHA-256 needs libcrypto.so.3 of OpenSSL, package libssl3: %s", dlerror());
    if (!find("EVP_MD_CTX_new", &crypto.context_create) || !find("EVP_MD_CTX_free", &crypto.context_destroy) ||
        !find("EVP_sha256", &crypto.algorithm) || !find("EVP_DigestInit_ex", &crypto.start) ||
        !find("EVP_DigestUpdate", &crypto.update) || !find("EVP_DigestFinal_ex", &crypto.finish))
        return fail(EXIT_RESOURCE, "the libcrypto.so.3 here lacks SHA-256; package libssl3 has it: %s", dlerror());
    return 0;
}

static void *sha256_begin(void)
{
    void *context = crypto.context_create();

    if (context && crypto.start(context, crypto.algorithm(), NULL) == 1)
        return context;
    crypto.context_destroy(context); /* takes NULL */
    return NULL;
}

static bool sha256_update(void *context, const void *data, size_t bytes)
{
    return crypto.update(context, data, bytes) == 1;
}

static bool sha256_end(void *context, unsigned char *digest)
{
    unsigned bytes = SHA256_BYTES;
    bool good = !digest || crypto.finish(context, digest, &bytes) == 1;

    assert(!good || bytes == SHA256_BYTES);
    crypto.context_destroy(context);
    return good;
}

const struct hash hash_sha256 = {
    .name = "sha256",
    .title = "SHA-256",
    .bytes = SHA256_BYTES,
    .open = sha256_open,
    .begin = sha256_begin,
    .update = sha256_update,
    .end = sha256_end,
};
