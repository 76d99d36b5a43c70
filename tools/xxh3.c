/* SPDX-License-Identifier: Apache-2.0 */
#include "hash.h"

#include <string.h>
#include <xxhash.h>

static int xxh3_open(void)
{
    return 0;
}

static void *xxh3_begin(void)
{
    XXH3_state_t *state = XXH3_createState();

    if (state && XXH3_64bits_reset(state) == XXH_OK)
        return state;
    XXH3_freeState(state); /* takes NULL */
    return NULL;
}

static bool xxh3_update(void *state, const void *data, size_t bytes)
{
    return XXH3_64bits_update(state, data, bytes) == XXH_OK;
}

static bool xxh3_end(void *state, unsigned char *digest)
{
    XXH64_canonical_t canonical;

    if (digest) {
        XXH64_canonicalFromHash(&canonical, XXH3_64bits_digest(state));
        memcpy(digest, canonical.digest, sizeof(canonical.digest));
    }
    return XXH3_freeState(state) == XXH_OK;
}

const struct hash hash_xxh3 = {
    .name = "xxh3",
    .title = "XXH3",
    .bytes = sizeof(XXH64_canonical_t),
    .open = xxh3_open,
    .begin = xxh3_begin,
    .update = xxh3_update,
    .end = xxh3_end,
};
