/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_HASH_H
#define TND_KERNELS_HASH_H

/* XXH3, 64 bits, seed 0, of bytes that come in parts. */

#include <stddef.h>
#include <stdint.h>

#define TND_XXH3_STATE_BYTES 576
#define TND_XXH3_STATE_ALIGNMENT 64

/* All at once. */
uint64_t tnd_xxh3(const void *bytes, size_t count);

/* In parts. state: [TND_XXH3_STATE_BYTES] on TND_XXH3_STATE_ALIGNMENT; nothing to give back. */
void tnd_xxh3_begin(void *state);
void tnd_xxh3_add(void *state, const void *bytes, size_t count);
uint64_t tnd_xxh3_end(const void *state);

#endif
