/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_LOG_H
#define TND_BASE_LOG_H

#include "tundish.h"

/* The caller's logger; a NULL function is a valid one. */
struct tnd_log {
    tnd_log_fn write;
    void *cookie;
};

void tnd_log_line(const struct tnd_log *log, enum tnd_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The caller's tracer; a NULL function is a valid one. */
struct tnd_trace {
    tnd_trace_fn write;
    void *cookie;
};

static inline void tnd_trace_tell(const struct tnd_trace *trace, const struct tnd_trace_event *event)
{
    if (trace->write)
        trace->write(trace->cookie, event);
}

#endif
