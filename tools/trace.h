/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_TRACE_H
#define TOOLS_TRACE_H

/* Keeps what the library tells of a load while it runs: as little work as can be, for the load waits for it. */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tundish.h"

#define TRACE_EVENTS_MAX ((size_t)1 << 21) /* 112 MiB of them: models of two terabytes in chunks of 2 MiB */

/* Kinds of events, each 1 << enum tnd_trace_kind. */
#define TRACE_WORK (1U << TND_TRACE_READ | 1U << TND_TRACE_COPY | 1U << TND_TRACE_CONVERT | 1U << TND_TRACE_DIGEST | \
                    1U << TND_TRACE_UPLOAD | 1U << TND_TRACE_TOUCH)
#define TRACE_LAYERS (1U << TND_TRACE_FETCH | 1U << TND_TRACE_EVICT)

struct trace {
    uint32_t kinds; /* others are ignored */
    pthread_mutex_t mutex; /* of what follows, while it records */
    bool recording;
    struct tnd_trace_event *events;
    size_t count, capacity;
    uint64_t dropped; /* over the limit, or out of memory */
};

void trace_init(struct trace *trace, uint32_t kinds);
void trace_finish(struct trace *trace);

/* Forgets what it has and records; what comes after trace_stop() is ignored. */
void trace_start(struct trace *trace);
void trace_stop(struct trace *trace);

/* A tnd_trace_fn; cookie: the trace. */
void trace_record(void *cookie, const struct tnd_trace_event *event);

#endif
