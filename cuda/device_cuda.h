/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_CUDA_DEVICE_CUDA_H
#define TND_CUDA_DEVICE_CUDA_H

/* A GPU as device.h's device: what its files share.
 *
 *   service.c      its own thread: starts the GPU up, then does what callers' threads ask for, whose current device is
 *                  none of ours (a call of CUDA's may even start the GPU that happens to be current there)
 *   buffers.c      the pool's buffers, pinned
 *   device_cuda.c  chunks, tickets, events: the driver's
 *
 * Errors become a sentence with CUDA's words. After one that CUDA cannot recover from it gives the same answer to all
 * later calls, and so does this. */

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "device/device.h"
#include "kernels.h"
#include "kernels/kernel.h"
#include "range.h"

#define TND_CUDA_STREAMS_MAX 8
#define TND_CUDA_TICKETS TND_DEVICE_TICKETS
#define TND_CUDA_TILE_BYTES ((uint32_t)4 << 20)
#define TND_CUDA_TILES_MAX (2 * TND_CUDA_STREAMS_MAX) /* one is filled while a stream converts another */

/* Something for the device's thread to do. */
struct tnd_cuda_call {
    int (*run)(struct tnd_cuda_call *call, struct tnd_err *err);
    struct tnd_cuda *cuda;
    struct tnd_cuda_call *next;
    struct tnd_err *err;
    int result;
    bool over;
};

/* A place() under way. */
struct tnd_cuda_ticket {
    cudaEvent_t copied, converted;
    bool converts; /* converted was recorded */
    uint32_t stream; /* that converts */
    struct tnd_range_counts range;
};

struct tnd_cuda_tile {
    uint8_t *data;
    cudaEvent_t copied, converted;
};

enum tnd_cuda_buffer_kind { TND_CUDA_PAGEABLE, TND_CUDA_REGISTERED, TND_CUDA_ALLOCATED };

struct tnd_cuda_buffer {
    struct tnd_cuda_call call; /* to pin it */
    enum tnd_cuda_buffer_kind kind;
    uint8_t *memory, *own; /* the caller's, and in its place */
    size_t bytes;
    struct tnd_cuda_buffer *next;
};

struct tnd_device_event {
    cudaEvent_t event;
};

struct tnd_cuda {
    struct tnd_device device;
    struct tnd_cuda_options options;
    char name[16];
    nvtxDomainHandle_t profile;
    pid_t process; /* that started it */

    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t called_cond, over_cond;
    struct tnd_cuda_call *calls, **calls_tail; /* under mutex */
    bool started, stopping;                    /* under mutex */
    struct tnd_err start_err;                  /* before started its thread's, then nobody's */
    char complaint[384];                       /* under mutex; once it is there it stays */

    /* The start-up's; read only then. */
    int node; /* of the host's memory, nearest; -1: they are all the same */
    cudaStream_t copy, back, compute[TND_CUDA_STREAMS_MAX];
    struct tnd_cuda_tile tiles[TND_CUDA_TILES_MAX];
    uint32_t tile_count;
    uint8_t *tile_memory;
    struct tnd_cuda_counts *counts;    /* [stream_count] on the device: since the start */
    struct tnd_cuda_counts *snapshots; /* [TND_CUDA_TICKETS] pinned: counts as they were when a ticket was over */

    /* The driver's. */
    struct tnd_cuda_ticket tickets[TND_CUDA_TICKETS]; /* by number, modulo */
    uint64_t given, over;
    uint32_t tile_next;
    cudaEvent_t so_far[TND_CUDA_STREAMS_MAX];
    struct tnd_cuda_counts before[TND_CUDA_STREAMS_MAX]; /* the snapshot before */
    struct tnd_cuda_buffer *buffers;

    /* Its thread's, for others to read. */
    _Atomic(enum tnd_pinning) pinning; /* what is tried next */
    uint64_t pinned_bytes;             /* its own */
    atomic_uint_fast64_t pinned_bytes_max;
};

/* What CUDA answered to a call: 0, or -ENOMEM or -EIO with its words, which takes the error off this thread. */
int tnd_cuda_check(const struct tnd_cuda *cuda, cudaError_t error, const char *call, struct tnd_err *err);

/* Makes the GPU the calling thread's: the device's own or the driver. */
int tnd_cuda_use(const struct tnd_cuda *cuda, struct tnd_err *err);

/* Runs a call on the device's thread, once it has started, and waits for it. Returns its result, or why the device did
 * not start. Threads: any. */
int tnd_cuda_call(struct tnd_cuda *cuda, struct tnd_cuda_call *call, struct tnd_err *err);
/* The same without waiting: the start-up includes it. False when it is too late for that. */
bool tnd_cuda_call_at_start(struct tnd_cuda *cuda, struct tnd_cuda_call *call);
int tnd_cuda_ready(struct tnd_device *device, bool wait, struct tnd_err *err);
void tnd_cuda_destroy(struct tnd_device *device);

uint8_t *tnd_cuda_buffer_take(struct tnd_device *device, uint8_t *memory, size_t bytes);
void tnd_cuda_buffer_give(struct tnd_device *device, uint8_t *buffer);

extern const struct tnd_device_ops tnd_cuda_ops;

static inline struct tnd_cuda *tnd_cuda_of(struct tnd_device *device)
{
    return (struct tnd_cuda *)device;
}

#endif
