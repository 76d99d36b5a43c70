/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_MEM_H
#define TND_BASE_MEM_H

/* Memory of three kinds: small blocks from the caller's hooks, an arena of them that is freed at once, and large
 * anonymous mappings that reads land in. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tundish.h"

#define TND_HUGE_PAGE_BYTES ((size_t)2 << 20)

/* The caller's hooks, or malloc and free when NULL or without functions. */
struct tnd_allocator tnd_allocator_or_default(const struct tnd_allocator *allocator);

/* Zeroed; NULL when there is none, or when count * bytes overflows. */
void *tnd_zalloc(const struct tnd_allocator *allocator, size_t count, size_t bytes);
void tnd_free(const struct tnd_allocator *allocator, void *memory); /* takes NULL */

struct tnd_arena_block;

/* Grows only; finish frees all of it. Zero-initialise, with the allocator set. */
struct tnd_arena {
    struct tnd_allocator allocator;
    struct tnd_arena_block *blocks;
    size_t used, size; /* of the newest block */
};

void tnd_arena_finish(struct tnd_arena *arena);
/* Aligned to 16, zeroed. */
void *tnd_arena_alloc(struct tnd_arena *arena, size_t count, size_t bytes);
/* A copy with a NUL behind it. */
char *tnd_arena_string(struct tnd_arena *arena, const void *bytes, size_t count);

/* Anonymous memory, aligned to 2 MiB. Untouched: the first write brings the
 * pages. */
struct tnd_mapping {
    uint8_t *data;
    size_t bytes; /* as asked for; whole huge pages are mapped */
};

/* huge: for what is filled from end to end; else only the pages that are touched are taken. */
int tnd_mapping_init(struct tnd_mapping *mapping, size_t bytes, bool huge);
void tnd_mapping_finish(struct tnd_mapping *mapping);

/* Keeps memory that reads land in from children (before Linux 6.5 one that shares pages with a direct read in flight
 * can take its data), or gives it to them. address: a mapping's. */
void tnd_hide_from_children(void *address, size_t bytes, bool hide);

/* Brings the pages of a range without changing their bytes. */
void tnd_populate(void *address, size_t bytes);

/* The two that tnd_memory_available() is the least of; UINT64_MAX when nothing says. */
uint64_t tnd_memory_of_system(void); /* MemAvailable */
uint64_t tnd_memory_of_cgroup(void); /* what the limits of this process's cgroup and its parents leave */

/* What a new allocation may take: the least of MemAvailable and what this process's cgroup (v2 or v1) leaves. */
uint64_t tnd_memory_available(void);

#endif
