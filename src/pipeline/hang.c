/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/hang.h"

#include "base/clock.h"

/* Twice too late is too late: a process that was stopped for a while finds its clock ahead of reads that are long
 * done. */
#define SUSPECT_NS TND_NS_PER_S

/* The chunk that has been reading for a transfer for longest; NULL when none is. */
static struct tnd_chunk *oldest_read(const struct tnd_pool *pool, const struct tnd_transfer *transfer)
{
    struct tnd_chunk *oldest = NULL;

    for (uint32_t i = 0; i < pool->chunk_count; i++) {
        struct tnd_chunk *chunk = &pool->chunks[i];

        if (chunk->state == TND_CHUNK_READING && chunk->transfer == transfer &&
            (!oldest || chunk->window < oldest->window))
            oldest = chunk;
    }
    return oldest;
}

static void give_up(struct tnd_pipeline *pipeline, struct tnd_transfer *transfer, uint64_t now_ns)
{
    struct tnd_chunk *chunk;

    while ((chunk = oldest_read(&pipeline->pool, transfer))) {
        bool taken_back = tnd_io_give_up(pipeline->io, &chunk->read);

        tnd_transfer_give_up(transfer, chunk->window, &chunk->read, now_ns - transfer->progress_ns, taken_back);
        tnd_chunk_drop(chunk);
        tnd_pool_move(&pipeline->pool, chunk, taken_back ? TND_CHUNK_FREE : TND_CHUNK_FAILED);
        transfer->reading--;
        pipeline->reading--;
    }
}

void tnd_hang_give_up(struct tnd_pipeline *pipeline)
{
    uint64_t now = pipeline->options.now_ns();

    for (struct tnd_transfer *transfer = pipeline->active; transfer; transfer = transfer->next) {
        if (!transfer->reading || now - transfer->progress_ns < pipeline->options.read_timeout_ns)
            continue;
        if (!transfer->suspected_ns)
            transfer->suspected_ns = now;
        else if (now - transfer->suspected_ns >= SUSPECT_NS)
            give_up(pipeline, transfer, now);
    }
}

int64_t tnd_hang_due(const struct tnd_pipeline *pipeline, int64_t timeout_ns)
{
    uint64_t now = pipeline->options.now_ns();

    for (const struct tnd_transfer *transfer = pipeline->active; transfer; transfer = transfer->next) {
        uint64_t due = transfer->suspected_ns ? transfer->suspected_ns + SUSPECT_NS
                                              : transfer->progress_ns + pipeline->options.read_timeout_ns;
        int64_t left = due > now ? (int64_t)(due - now) : 0;

        if (transfer->reading && (timeout_ns < 0 || left < timeout_ns))
            timeout_ns = left;
    }
    return timeout_ns;
}
