/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; Debian 12's libc headers have it, older ones do not */
#endif

#define CGROUP_UNLIMITED ((uint64_t)1 << 62) /* v1 writes "none" as nearly 2^63 */
#define ARENA_BLOCK_BYTES ((size_t)64 << 10)

struct tnd_arena_block {
    struct tnd_arena_block *next;
    _Alignas(16) uint8_t data[];
};

static void *default_alloc(void *cookie, size_t bytes)
{
    (void)cookie;
    return malloc(bytes);
}

static void default_free(void *cookie, void *memory)
{
    (void)cookie;
    free(memory);
}

struct tnd_allocator tnd_allocator_or_default(const struct tnd_allocator *allocator)
{
    if (allocator && allocator->alloc && allocator->free)
        return *allocator;
    return (struct tnd_allocator){.alloc = default_alloc, .free = default_free};
}

void *tnd_zalloc(const struct tnd_allocator *allocator, size_t count, size_t bytes)
{
    uint64_t total;
    void *memory;

    if (tnd_mul_overflows(count, bytes, &total))
        return NULL;
    memory = allocator->alloc(allocator->cookie, total ? total : 1);
    return memory ? memset(memory, 0, total) : NULL;
}

void tnd_free(const struct tnd_allocator *allocator, void *memory)
{
    if (memory)
        allocator->free(allocator->cookie, memory);
}

void tnd_arena_finish(struct tnd_arena *arena)
{
    while (arena->blocks) {
        struct tnd_arena_block *next = arena->blocks->next;

        tnd_free(&arena->allocator, arena->blocks);
        arena->blocks = next;
    }
    arena->used = arena->size = 0;
}

void *tnd_arena_alloc(struct tnd_arena *arena, size_t count, size_t bytes)
{
    uint64_t total;

    if (tnd_mul_overflows(count, bytes, &total) || total > SIZE_MAX / 2)
        return NULL;
    total = tnd_round_up(total ? total : 1, 16);
    if (total > arena->size - arena->used) {
        size_t size = total > ARENA_BLOCK_BYTES ? total : ARENA_BLOCK_BYTES;
        struct tnd_arena_block *block = tnd_zalloc(&arena->allocator, 1, sizeof(*block) + size);

        if (!block)
            return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
        arena->size = size;
    }
    arena->used += total;
    return arena->blocks->data + arena->used - total;
}

char *tnd_arena_string(struct tnd_arena *arena, const void *bytes, size_t count)
{
    char *copy = tnd_arena_alloc(arena, count + 1, 1);

    if (copy && count)
        memcpy(copy, bytes, count);
    return copy;
}

int tnd_mapping_init(struct tnd_mapping *mapping, size_t bytes, bool huge)
{
    size_t whole = tnd_round_up(bytes ? bytes : 1, TND_HUGE_PAGE_BYTES);
    uint8_t *raw, *data;

    if (bytes > SIZE_MAX / 2)
        return -ENOMEM;
    raw = mmap(NULL, whole + TND_HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
               -1, 0);
    if (raw == MAP_FAILED)
        return -ENOMEM;
    data = (uint8_t *)tnd_round_up((uintptr_t)raw, TND_HUGE_PAGE_BYTES);
    if (data > raw)
        munmap(raw, (size_t)(data - raw));
    if (data < raw + TND_HUGE_PAGE_BYTES)
        munmap(data + whole, (size_t)(raw + TND_HUGE_PAGE_BYTES - data));
    madvise(data, whole, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); /* a refusal costs speed, not correctness */
    *mapping = (struct tnd_mapping){.data = data, .bytes = bytes};
    return 0;
}

void tnd_mapping_finish(struct tnd_mapping *mapping)
{
    if (mapping->data)
        munmap(mapping->data, tnd_round_up(mapping->bytes ? mapping->bytes : 1, TND_HUGE_PAGE_BYTES));
    *mapping = (struct tnd_mapping){0};
}

void tnd_hide_from_children(void *address, size_t bytes, bool hide)
{
    madvise(address, tnd_round_up(bytes ? bytes : 1, TND_HUGE_PAGE_BYTES), hide ? MADV_DONTFORK : MADV_DOFORK);
}

void tnd_populate(void *address, size_t bytes)
{
    const uintptr_t page = 4096;
    uintptr_t first = tnd_round_down((uintptr_t)address, page);

    /* A kernel without it (before 5.14) faults the pages in at the first write instead. */
    madvise((void *)first, tnd_round_up((uintptr_t)address + bytes, page) - first, MADV_POPULATE_WRITE);
}

/* The number behind key in a small text file, or UINT64_MAX: no file, no key, "max". An empty key takes the first. */
static uint64_t number_in(const char *path, const char *key)
{
    char text[4096];
    ssize_t got;
    const char *at;
    char *end;
    uint64_t value;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return UINT64_MAX;
    got = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (got <= 0)
        return UINT64_MAX;
    text[got] = 0;
    at = strstr(text, key);
    if (!at)
        return UINT64_MAX;
    at += strlen(key);
    value = strtoull(at, &end, 10);
    return end == at ? UINT64_MAX : value;
}

/* What the cgroup at root/path and its parents leave; page cache counts as free, it is dropped when needed. */
static uint64_t cgroup_left(const char *root, char *path, const char *limit_file, const char *usage_file,
                            const char *cache_key)
{
    uint64_t left = UINT64_MAX;

    for (;;) {
        char name[1024];
        uint64_t limit, used, cache;
        char *slash;

        snprintf(name, sizeof(name), "%s%s/%s", root, path, limit_file);
        limit = number_in(name, "");
        snprintf(name, sizeof(name), "%s%s/%s", root, path, usage_file);
        used = number_in(name, "");
        snprintf(name, sizeof(name), "%s%s/memory.stat", root, path);
        cache = number_in(name, cache_key);
        if (limit < CGROUP_UNLIMITED && used != UINT64_MAX) {
            if (cache != UINT64_MAX)
                used -= tnd_min(used, cache);
            left = tnd_min(left, limit - tnd_min(limit, used));
        }
        slash = strrchr(path, '/');
        if (!slash)
            return left;
        *slash = 0;
    }
}

/* The path of this process in the hierarchy whose line in /proc/self/cgroup holds marker. */
static bool cgroup_path(const char *marker, char *path, size_t path_bytes)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");

    while (file && !found && fgets(line, sizeof(line), file)) {
        char *at = strstr(line, marker);

        if (at) {
            snprintf(path, path_bytes, "%s", at + strlen(marker));
            path[strcspn(path, "\n")] = 0;
            if (!strcmp(path, "/"))
                path[0] = 0;
            found = true;
        }
    }
    if (file)
        fclose(file);
    return found;
}

uint64_t tnd_memory_of_system(void)
{
    uint64_t available = number_in("/proc/meminfo", "MemAvailable:");

    return available == UINT64_MAX ? available : available * 1024;
}

uint64_t tnd_memory_of_cgroup(void)
{
    uint64_t left = UINT64_MAX;
    char path[768];

    if (cgroup_path("0::", path, sizeof(path)))
        left = tnd_min(left, cgroup_left("/sys/fs/cgroup", path, "memory.max", "memory.current", "\ninactive_file "));
    if (cgroup_path(":memory:", path, sizeof(path)))
        left = tnd_min(left, cgroup_left("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
                                         "memory.usage_in_bytes", "total_inactive_file "));
    return left;
}

uint64_t tnd_memory_available(void)
{
    return tnd_min(tnd_memory_of_system(), tnd_memory_of_cgroup());
}
