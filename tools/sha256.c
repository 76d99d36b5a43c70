/* SPDX-License-Identifier: Apache-2.0 */
#include "sha256.h"

#include <assert.h>
#include <dlfcn.h>
#include <string.h>

#include "text.h"

#define STEP_BYTES ((size_t)8 << 20)

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
        return fail(EXIT_RESOURCE, "digest needs libcrypto.so.3 of OpenSSL, package libssl3: %s", dlerror());
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
