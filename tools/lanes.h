/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_LANES_H
#define TOOLS_LANES_H

/* A load as lanes of spans that do not overlap: what each engine, slot and worker did when. What --trace and --svg
 * show, each in its own form. Times count from the first call to the library. */

#include <stddef.h>
#include <stdint.h>

#include "session.h"
#include "trace.h"

enum span_kind {
    SPAN_PHASE, /* opening the model, setting up, planning, loading */
    SPAN_BUSY,  /* an engine had reads in flight */
    SPAN_READ,
    SPAN_WAIT,  /* a slot's bytes were there, and no worker or device had taken them yet */
    SPAN_COPY,
    SPAN_CONVERT,
    SPAN_DIGEST,
    SPAN_UPLOAD, /* a device took a slot's bytes */
    SPAN_TOUCH,
    SPAN_ABSENT, /* what a layer of a walk is, from here on */
    SPAN_FETCH,
    SPAN_RESIDENT,
    SPAN_ACQUIRED,
    SPAN_KIND_COUNT
};

struct span {
    enum span_kind kind;
    const char *name; /* of a phase, else the kind's */
    uint64_t start_ns, end_ns;
    uint64_t bytes; /* 0: not told */
    uint64_t count; /* of reads, when busy; else 1 */
    const struct tnd_trace_event *event; /* NULL for phases and busy engines */
};

enum lane_group { LANE_PHASES, LANE_ENGINES, LANE_SLOTS, LANE_WORKERS, LANE_LAYERS, LANE_GROUP_COUNT };

struct lane {
    enum lane_group group;
    size_t number; /* in its group */
    char name[24]; /* "slot 3" */
    struct span *spans; /* [count], ascending */
    size_t count;
};

/* What was in flight in a stretch of time. */
struct bin {
    double bytes; /* a read's bytes come evenly from its start to its end */
    double read_ns; /* of all reads: ÷ bin_ns is the mean number in flight */
};

struct lanes {
    const struct session *session;
    struct tnd_load_stats stats;
    uint64_t dropped; /* events that are missing */
    struct lane *lanes; /* [lane_count], by group and number; those with no span too */
    size_t lane_count;
    struct bin *bins; /* [bin_count] */
    size_t bin_count;
    uint64_t bin_ns;
    uint64_t *starts, *ends; /* [read_count] of reads, each ascending */
    size_t read_count;
    uint64_t end_ns; /* of the last thing there is */
    uint64_t first_layer_ns, ready_ns; /* 0: never */
    void *memory; /* behind all spans */
};

/* Of a load that went well; trace has stopped, and its events get into the order of their start. Returns 0, or an exit
 * code when a sentence has been written. The result points to session and trace. */
int lanes_make(struct lanes *lanes, const struct session *session, struct trace *trace);
/* Takes {0} too. */
void lanes_finish(struct lanes *lanes);

const char *span_kind_name(enum span_kind kind);

#endif
