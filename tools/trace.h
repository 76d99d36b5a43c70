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

struct trace {
    pthread_mutex_t mutex; /* of what follows, while it records */
    bool recording;
    struct tnd_trace_event *events;
    size_t count, capacity;
    uint64_t dropped; /* over the limit, or out of memory */
};

void trace_init(struct trace *trace);
void trace_finish(struct trace *trace);

/* Forgets what it has and records; what comes after trace_stop() is ignored. */
void trace_start(struct trace *trace);
void trace_stop(struct trace *trace);

/* A tnd_trace_fn; cookie: the trace. */
void trace_record(void *cookie, const struct tnd_trace_event *event);

#endif
