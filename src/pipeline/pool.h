/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_POOL_H
#define TND_PIPELINE_POOL_H

/* The chunks and their buffers. Small and hot: the buffer that was freed last is taken first, since its lines are still
 * in the cache, and a buffer gets its pages only when a read first needs it. Belongs to the driver. */

#include <stdatomic.h>

#include "pipeline/chunk.h"

struct tnd_pool {
    struct tnd_allocator allocator;
    struct tnd_io *io;
    struct tnd_device *device; /* that has a say in the buffers; NULL: none */
    struct tnd_mapping memory; /* [chunk_count][chunk_bytes], brought in one by one */
    struct tnd_chunk *chunks;
    uint32_t chunk_count;
    uint32_t chunk_bytes;
    uint32_t start_count;  /* buffers that are given without asking whether more would help */
    uint32_t backed_count; /* buffers that have their pages */
    struct tnd_chunk *free_backed, *free_bare; /* last in, first out */
    uint32_t counts[TND_CHUNK_STATE_COUNT];    /* sum: chunk_count */
    atomic_uint_fast64_t bytes;                /* backed_count * chunk_bytes, for other threads to read */
};

/* device: whose copies come from the buffers, NULL for the host. */
int tnd_pool_init(struct tnd_pool *pool, const struct tnd_allocator *allocator, struct tnd_io *io,
                  struct tnd_device *device, uint32_t chunk_bytes, uint32_t start_count, uint32_t count_max,
                  struct tnd_err *err);
void tnd_pool_finish(struct tnd_pool *pool);

/* A chunk to read with, state FREE still; NULL when all that may be used are. With a buffer, unless bare.
 * A new buffer beyond start_count is brought in only while no chunk is READY: else the workers are what is slow, and
 * another buffer would only make the pool colder. */
struct tnd_chunk *tnd_pool_take(struct tnd_pool *pool, bool bare);
/* Moves a chunk along, and back to the pool when to is FREE. An illegal move is our own mistake: it aborts. */
void tnd_pool_move(struct tnd_pool *pool, struct tnd_chunk *chunk, enum tnd_chunk_state to);

#endif
