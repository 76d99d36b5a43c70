/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <stdlib.h>

#define EVENTS_AT_FIRST 4096

void trace_init(struct trace *trace, uint32_t kinds)
{
    *trace = (struct trace){.kinds = kinds};
    pthread_mutex_init(&trace->mutex, NULL);
}

void trace_finish(struct trace *trace)
{
    pthread_mutex_destroy(&trace->mutex);
    free(trace->events);
}

void trace_start(struct trace *trace)
{
    pthread_mutex_lock(&trace->mutex);
    trace->recording = true;
    trace->count = 0;
    trace->dropped = 0;
    pthread_mutex_unlock(&trace->mutex);
}

void trace_stop(struct trace *trace)
{
    pthread_mutex_lock(&trace->mutex);
    trace->recording = false;
    pthread_mutex_unlock(&trace->mutex);
}

/* Under the mutex: a block of this size is moved by its page table, not copied. */
static bool make_room(struct trace *trace)
{
    size_t capacity = trace->capacity > 0 ? 2 * trace->capacity : EVENTS_AT_FIRST;
    struct tnd_trace_event *events;

    if (trace->count < trace->capacity)
        return true;
    if (capacity > TRACE_EVENTS_MAX)
        return false;
    events = realloc(trace->events, capacity * sizeof(*events));
    if (!events)
        return false;
    trace->events = events;
    trace->capacity = capacity;
    return true;
}

void trace_record(void *cookie, const struct tnd_trace_event *event)
{
    struct trace *trace = cookie;

    if (!(trace->kinds & 1U << event->kind))
        return;
    pthread_mutex_lock(&trace->mutex);
    if (trace->recording && trace->dropped == 0 && make_room(trace)) /* what is kept has no gaps */
        trace->events[trace->count++] = *event;
    else if (trace->recording)
        trace->dropped++;
    pthread_mutex_unlock(&trace->mutex);
}
