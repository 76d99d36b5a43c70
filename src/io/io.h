/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_IO_IO_H
#define TND_IO_IO_H

/* Reads: an engine behind each file, and the rules of completion that hold for all engines.
 *
 * io.c routes a read to its file's engine, and finishes what engines only begin: a short read continues at the aligned
 * offset before the cut, EAGAIN is repeated, a refused direct read or a refused ring moves the file one step down the
 * ladder (ring direct → ring buffered → threads) and reads again. What tnd_io_poll() gives back is whole or failed.
 *
 * Threads: all of it belongs to the driver; others signal the waker. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/waker.h"
#include "io/file.h"

#define TND_READ_BYTES_MAX ((uint32_t)64 << 20) /* far below the 2 GiB - 4 KiB that one read can return */
#define TND_READ_STALLS_MAX 64                  /* EAGAIN, or continuations that brought nothing, in a row */

struct tnd_kernel;

/* A part of a read with a place of its own. */
struct tnd_span {
    uint8_t *destination;
    uint32_t window_offset; /* from the start of the read */
    uint32_t bytes;
    const struct tnd_kernel *kernel; /* the pipeline converts it; reads that scatter have spans without one */
    bool in_block; /* destination is the load's own; neighbours of the caller's may be allocations of their own */
};

struct tnd_io_engine;

struct tnd_io_read {
    /* The caller's. Either buffer, and all bytes land there, or buffer NULL and the spans (in ascending, disjoint
     * order) take theirs, which only tnd_io_can_scatter() files do. */
    struct tnd_io_file *file;
    uint64_t offset;
    uint32_t bytes;        /* aligned for the file */
    uint32_t bytes_wanted; /* up to the last byte that matters; beyond it the file may end */
    uint8_t *buffer;
    int buffer_index; /* in tnd_io_register(), -1 when not registered */
    const struct tnd_span *spans;
    uint32_t span_count;

    /* The answer: 0 or -errno. -EBADMSG: the file ends at error_offset. */
    int result;
    uint64_t error_offset;

    /* Engine's and io's own. */
    struct tnd_io_engine *engine;
    uint32_t bytes_done;
    uint32_t retries; /* continued or repeated, for the count */
    uint32_t stalls;  /* since the last byte that came */
    uint64_t not_before_ns;
    struct tnd_io_read *next;
    int64_t answer; /* what the engine got for [offset + bytes_done, …): bytes or -errno */
    bool was_direct;
    atomic_bool given_up; /* nobody waits for it any more: it is not continued, and fails when it comes back */
};

/* Whether a span's place is the file's own mapping: nothing is to be written there. */
static inline bool tnd_span_is_mapped(const struct tnd_io_read *read, const struct tnd_span *span)
{
    return read->file->map && span->destination == read->file->map + read->offset + span->window_offset;
}

struct tnd_io_engine_ops {
    const char *name;
    bool scatters; /* buffered reads may go to spans */
    void (*destroy)(struct tnd_io_engine *engine);
    /* Optional: nobody waits for this read any more. True when it was not begun, is taken out, and never answers; else
     * the engine goes on without what the read holds. */
    bool (*give_up)(struct tnd_io_engine *engine, struct tnd_io_read *read);
    /* Optional: in place of destroy while reads are in it that may never come back. Ends what can be ended without
     * them; what they use, the engine itself too, stays as it is for good. */
    void (*abandon)(struct tnd_io_engine *engine);
    /* Takes the rest of a read: [bytes_done, bytes). It answers later, in whatever order. */
    void (*submit)(struct tnd_io_engine *engine, struct tnd_io_read *read);
    /* What is done, linked by next. Never waits. */
    struct tnd_io_read *(*reap)(struct tnd_io_engine *engine);
    /* Optional, for an engine whose reads end in the kernel: sends what was submitted and waits at most timeout_ns
     * (< 0: no limit) for the first one done or the waker; true when the waker's descriptor is readable. An engine
     * without it signals the waker. */
    bool (*wait)(struct tnd_io_engine *engine, int64_t timeout_ns);
    /* Optional: makes buffer index known to the kernel; refusals are no errors: false. */
    bool (*register_buffer)(struct tnd_io_engine *engine, uint32_t index, void *data, size_t bytes);
};

struct tnd_io_engine {
    const struct tnd_io_engine_ops *ops;
};

struct tnd_io_options {
    enum tnd_engine engine;
    enum tnd_switch direct;
    uint32_t alignment;    /* that reads will have: a file that wants more is read through the page cache */
    uint32_t depth;        /* reads in flight at the most */
    uint32_t buffer_count; /* that tnd_io_register() will be told of */
    struct tnd_allocator allocator;
    struct tnd_log log;
    struct tnd_waker *waker; /* ends a wait of tnd_io_poll() */
    uint64_t (*now_ns)(void);          /* NULL: the monotonic clock */
    struct tnd_io_engine *only_engine; /* a test's own: every read goes there. Destroyed with the io */
};

struct tnd_io;

int tnd_io_create(struct tnd_io **ret_io, const struct tnd_io_options *options, struct tnd_err *err);
/* No read may be in flight. */
void tnd_io_destroy(struct tnd_io **io);
/* In place of destroy when reads are in flight that were given up. */
void tnd_io_abandon(struct tnd_io **io);

/* Chooses engine and direct I/O for a file of a load, by residency, file system and what the kernel lets; -ENODEV when
 * an engine was demanded and is refused. The reasons are kept in file->reasons. */
int tnd_io_attach(struct tnd_io *io, struct tnd_io_file *file, struct tnd_err *err);
/* With no read of it left. */
void tnd_io_detach(struct tnd_io *io, struct tnd_io_file *file);

/* What is read of this file from now on will be read again: through the page cache, unless direct reads were
 * demanded. */
void tnd_io_through_cache(struct tnd_io *io, struct tnd_io_file *file);

/* Whether reads of this file can go to spans straight: a copy out of the page cache, which any address suits. */
bool tnd_io_can_scatter(const struct tnd_io_file *file);

void tnd_io_submit(struct tnd_io *io, struct tnd_io_read *read);
/* Gives up a read that does not come back. True when nothing will write to its memory any more, since it was still
 * waiting for its turn: it is not given out again. Else it is, as failed, if it ever comes back. */
bool tnd_io_give_up(struct tnd_io *io, struct tnd_io_read *read);
/* Which engine answered a finished read last. A test's own counts as nil. */
enum tnd_engine tnd_io_engine_of(const struct tnd_io *io, const struct tnd_io_read *read);
/* Sends what was submitted. Up to count_max finished reads, waiting at most timeout_ns (< 0: no limit) for the first
 * one or for the waker, which the caller has prepared when it lets this wait. */
uint32_t tnd_io_poll(struct tnd_io *io, int64_t timeout_ns, struct tnd_io_read **ret_reads, uint32_t count_max);
/* Tells the ring of a buffer that reads land in. Returns index when the kernel took it, else -1. */
int tnd_io_register(struct tnd_io *io, uint32_t index, void *data, size_t bytes);

/* Engines. */

/* One whose reads are done by run() on a few threads: what it returns is the read's answer. */
int tnd_io_threaded_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, const char *name,
                           bool scatters, int64_t (*run)(struct tnd_io_read *read), struct tnd_err *err);
/* What is left of a read into its buffer, by one system call: bytes or -errno. */
int64_t tnd_io_pread(const struct tnd_io_read *read);
int tnd_io_uring_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err);
int tnd_io_threads_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err);
int tnd_io_mmap_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err);
int tnd_io_nil_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err);

/* What the kernel lets this process do with a ring; each 0 or -errno, and 0 behind the first that failed. */
struct tnd_io_uring_probe {
    int setup;     /* io_uring_setup */
    int enter;     /* a NOP there and back */
    int registers; /* buffers of chunk_bytes, one after the other */
    size_t bytes_registered;
};

/* Tries a ring, and whether it takes data as buffers, as a loader's pool would be given to it. */
void tnd_io_uring_probe(void *data, size_t bytes, size_t chunk_bytes, struct tnd_io_uring_probe *ret_probe);

#endif
