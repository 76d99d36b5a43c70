/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_CHUNK_H
#define TND_PIPELINE_CHUNK_H

/* One window on its way. */

#include "io/io.h"
#include "kernels/kernel.h"
#include "pipeline/workers.h"

/* FREE → READING → READY → WORKING → FREE, for a device COPYING in place of WORKING; a read that failed, or landed in
 * its place and wants no digest, goes READING → FREE. One that does not come back is given up: READING → FAILED, and →
 * FREE only if it ever does. What a read lands in, a pool buffer or its place, is the kernel's while READING or FAILED,
 * a worker's while WORKING, the device's while COPYING. */
enum tnd_chunk_state {
    TND_CHUNK_FREE,
    TND_CHUNK_READING,
    TND_CHUNK_READY,
    TND_CHUNK_WORKING,
    TND_CHUNK_COPYING,
    TND_CHUNK_FAILED,
    TND_CHUNK_STATE_COUNT
};

/* Where a window's bytes go first. */
enum tnd_landing {
    TND_LAND_POOL,  /* a buffer of the pool; a worker copies or converts the pieces to their places */
    TND_LAND_PLACE, /* one read over the window's own place in the destination */
    TND_LAND_MAP,   /* the file's own mapping; pieces that lie elsewhere are read there */
    TND_LAND_SPANS, /* a buffered read that scatters the pieces to their places */
};

struct tnd_transfer;

struct tnd_chunk_work {
    uint64_t copy_ns, convert_ns, digest_ns;
    uint64_t converted_bytes; /* as they lay in the file */
    struct tnd_range_counts range;
};

struct tnd_chunk {
    enum tnd_chunk_state state;
    enum tnd_landing landing;
    bool tried; /* the landing was chosen by the trial, which counts the read */
    struct tnd_transfer *transfer;
    struct tnd_pipeline *pipeline;
    uint32_t window;
    uint8_t *buffer; /* [chunk_bytes] of the pool; NULL before it was ever needed */
    int buffer_index;
    struct tnd_io_read read;
    struct tnd_job job;
    uint64_t ticket; /* COPYING: the device's */
    uint64_t begun_ns, range; /* READING, COPYING: since when, and the device's number for its profiler */
    struct tnd_chunk_work work; /* what the worker did */
    struct tnd_chunk *next;
};

/* On a worker: takes the pieces of a READY chunk to their places, and into their digests, and tells the driver. */
void tnd_chunk_work(struct tnd_job *job, uint32_t worker);

/* On the driver: a chunk's read or upload begins, and is over, which the tracer is told. */
void tnd_chunk_begin(struct tnd_chunk *chunk, enum tnd_trace_kind kind, uint64_t now_ns);
void tnd_chunk_end(const struct tnd_chunk *chunk, enum tnd_trace_kind kind, uint64_t now_ns);
/* It came to nothing. */
void tnd_chunk_drop(const struct tnd_chunk *chunk);

#endif
