/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "device/device.h"

/* [from][to] */
static const bool legal[TND_CHUNK_STATE_COUNT][TND_CHUNK_STATE_COUNT] = {
    [TND_CHUNK_FREE] = {[TND_CHUNK_READING] = true},
    [TND_CHUNK_READING] = {[TND_CHUNK_READY] = true, [TND_CHUNK_FREE] = true, [TND_CHUNK_FAILED] = true},
    [TND_CHUNK_READY] = {[TND_CHUNK_WORKING] = true, [TND_CHUNK_COPYING] = true, [TND_CHUNK_FREE] = true},
    [TND_CHUNK_WORKING] = {[TND_CHUNK_FREE] = true},
    [TND_CHUNK_COPYING] = {[TND_CHUNK_FREE] = true},
    [TND_CHUNK_FAILED] = {[TND_CHUNK_FREE] = true},
};

int tnd_pool_init(struct tnd_pool *pool, const struct tnd_allocator *allocator, struct tnd_io *io,
                  struct tnd_device *device, uint32_t chunk_bytes, uint32_t start_count, uint32_t count_max,
                  struct tnd_err *err)
{
    *pool = (struct tnd_pool){
        .allocator = *allocator,
        .io = io,
        .device = device && device->ops->buffer_take ? device : NULL,
        .chunk_count = count_max,
        .chunk_bytes = chunk_bytes,
        .start_count = start_count < count_max ? start_count : count_max,
    };
    atomic_init(&pool->bytes, 0);
    pool->chunks = tnd_zalloc(allocator, count_max, sizeof(*pool->chunks));
    if (!pool->chunks || tnd_mapping_init(&pool->memory, (size_t)count_max * chunk_bytes, true) < 0) {
        tnd_pool_finish(pool);
        return tnd_fail(err, -ENOMEM, "no memory for a pool of %u buffers of %u bytes", count_max, chunk_bytes);
    }
    tnd_hide_from_children(pool->memory.data, pool->memory.bytes, true);
    for (uint32_t i = count_max; i-- > 0;) {
        pool->chunks[i].next = pool->free_bare;
        pool->free_bare = &pool->chunks[i];
    }
    pool->counts[TND_CHUNK_FREE] = count_max;
    return 0;
}

void tnd_pool_finish(struct tnd_pool *pool)
{
    if (pool->counts[TND_CHUNK_FAILED]) /* the kernel may write to their buffers yet: never given back */
        return;
    assert(pool->counts[TND_CHUNK_FREE] == pool->chunk_count || !pool->memory.data);
    for (uint32_t i = 0; pool->device && pool->chunks && i < pool->chunk_count; i++)
        if (pool->chunks[i].buffer)
            pool->device->ops->buffer_give(pool->device, pool->chunks[i].buffer);
    tnd_mapping_finish(&pool->memory);
    tnd_free(&pool->allocator, pool->chunks);
    pool->chunks = NULL;
}

static struct tnd_chunk *stack_take(struct tnd_chunk **stack)
{
    struct tnd_chunk *chunk = *stack;

    if (chunk)
        *stack = chunk->next;
    return chunk;
}

static void back(struct tnd_pool *pool, struct tnd_chunk *chunk)
{
    uint32_t index = pool->backed_count++;

    chunk->buffer = pool->memory.data + (size_t)index * pool->chunk_bytes;
    if (pool->device)
        chunk->buffer = pool->device->ops->buffer_take(pool->device, chunk->buffer, pool->chunk_bytes);
    else
        tnd_populate(chunk->buffer, pool->chunk_bytes);
    chunk->buffer_index = tnd_io_register(pool->io, index, chunk->buffer, pool->chunk_bytes);
    atomic_store_explicit(&pool->bytes, (uint64_t)pool->backed_count * pool->chunk_bytes, memory_order_relaxed);
}

struct tnd_chunk *tnd_pool_take(struct tnd_pool *pool, bool bare)
{
    struct tnd_chunk *chunk;

    if (bare) {
        chunk = stack_take(&pool->free_bare);
        return chunk ? chunk : stack_take(&pool->free_backed);
    }
    chunk = stack_take(&pool->free_backed);
    if (chunk)
        return chunk;
    if (pool->backed_count >= pool->start_count && pool->counts[TND_CHUNK_READY])
        return NULL;
    chunk = stack_take(&pool->free_bare);
    if (chunk)
        back(pool, chunk);
    return chunk;
}

void tnd_pool_move(struct tnd_pool *pool, struct tnd_chunk *chunk, enum tnd_chunk_state to)
{
    assert(legal[chunk->state][to]);
    pool->counts[chunk->state]--;
    pool->counts[to]++;
    chunk->state = to;
    if (to != TND_CHUNK_FREE)
        return;
#ifdef TND_POISON
    if (chunk->buffer) /* whoever still reads it shall see it */
        memset(chunk->buffer, 0xDB, pool->chunk_bytes);
#endif
    chunk->transfer = NULL;
    chunk->next = chunk->buffer ? pool->free_backed : pool->free_bare;
    *(chunk->buffer ? &pool->free_backed : &pool->free_bare) = chunk;
}
