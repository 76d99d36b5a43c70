/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/hash.h"

/* Compiled in: a shared library would cost every start more than the code costs here. */
#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(sizeof(XXH3_state_t) <= TND_XXH3_STATE_BYTES, "room for a state");
_Static_assert(_Alignof(XXH3_state_t) <= TND_XXH3_STATE_ALIGNMENT, "alignment of a state");

uint64_t tnd_xxh3(const void *bytes, size_t count)
{
    return XXH3_64bits(bytes, count);
}

void tnd_xxh3_begin(void *state)
{
    XXH3_64bits_reset(state);
}

void tnd_xxh3_add(void *state, const void *bytes, size_t count)
{
    XXH3_64bits_update(state, bytes, count);
}

uint64_t tnd_xxh3_end(const void *state)
{
    return XXH3_64bits_digest(state);
}
