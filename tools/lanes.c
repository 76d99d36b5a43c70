/* SPDX-License-Identifier: Apache-2.0 */
#include "lanes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define BINS_MAX 160
#define BIN_NS_MIN 100000
#define ENGINES (TND_ENGINE_NIL + 1)

/* Spans are made twice by the same walk: once to count them, once to keep them. */
struct builder {
    struct lanes *lanes;
    const struct trace *trace;
    size_t engine_lanes[ENGINES]; /* SIZE_MAX: it read nothing */
    size_t slot_first, slot_count, worker_first;
    uint64_t *slot_read_ns; /* [slots] end of the slot's last read; 0: nothing waits there */
    struct span busy[ENGINES];
};

const char *span_kind_name(enum span_kind kind)
{
    static const char *const names[SPAN_KIND_COUNT] = {"phase", "busy", "read", "wait", "copy",
                                                        "convert", "digest", "upload", "touch", "absent", "fetching",
                                                        "resident", "acquired"};

    return names[kind];
}

/* The library's clock and ours are the same; nothing is before the first call. */
static uint64_t since_start(const struct lanes *lanes, uint64_t ns)
{
    return ns > lanes->session->start_ns ? ns - lanes->session->start_ns : 0;
}

static void add(struct lanes *lanes, size_t lane_index, const struct span *span)
{
    struct lane *lane = &lanes->lanes[lane_index];

    if (lane->spans)
        lane->spans[lane->count] = *span;
    lane->count++;
    if (span->end_ns > lanes->end_ns)
        lanes->end_ns = span->end_ns;
}

/* ---- The walk ---------------------------------------------------------------------------------------------- */

static void add_phase(struct lanes *lanes, const char *name, uint64_t start_ns, uint64_t ns)
{
    add(lanes, 0, &(struct span){.kind = SPAN_PHASE, .name = name, .start_ns = start_ns, .end_ns = start_ns + ns,
                                 .count = 1});
}

static void add_phases(struct lanes *lanes)
{
    const struct tnd_load_stats *stats = &lanes->stats;
    uint64_t load_ns = since_start(lanes, lanes->session->load_ns);

    add_phase(lanes, "open", 0, stats->open_ns);
    if (lanes->session->loader_ns > 0) /* else it was there already */
        add_phase(lanes, "set up", since_start(lanes, lanes->session->loader_ns), stats->setup_ns);
    add_phase(lanes, "plan", load_ns, stats->plan_ns);
    if (stats->ready_ns > stats->plan_ns)
        add_phase(lanes, "load", load_ns + stats->plan_ns, stats->ready_ns - stats->plan_ns);
}

static void end_busy(struct builder *builder, size_t engine)
{
    struct span *busy = &builder->busy[engine];

    if (busy->count > 0)
        add(builder->lanes, builder->engine_lanes[engine], busy);
    busy->count = 0;
}

static void add_read(struct builder *builder, const struct span *span)
{
    const struct tnd_trace_event *event = span->event;
    struct span *busy = &builder->busy[event->engine];

    if (busy->count == 0 || span->start_ns > busy->end_ns) {
        end_busy(builder, event->engine);
        *busy = (struct span){.kind = SPAN_BUSY, .name = span_kind_name(SPAN_BUSY), .start_ns = span->start_ns,
                              .end_ns = span->end_ns};
    }
    if (span->end_ns > busy->end_ns)
        busy->end_ns = span->end_ns;
    busy->bytes += span->bytes;
    busy->count++;
    add(builder->lanes, builder->slot_first + event->slot, span);
    builder->slot_read_ns[event->slot] = span->end_ns;
}

static void add_work(struct builder *builder, const struct span *span)
{
    const struct tnd_trace_event *event = span->event;
    uint64_t *read_ns;

    if (span->kind != SPAN_UPLOAD)
        add(builder->lanes, builder->worker_first + event->worker, span);
    if (span->kind == SPAN_TOUCH)
        return;
    read_ns = &builder->slot_read_ns[event->slot];
    if (*read_ns > 0 && *read_ns < span->start_ns) {
        struct span wait = *span;

        wait.kind = SPAN_WAIT;
        wait.name = span_kind_name(SPAN_WAIT);
        wait.start_ns = *read_ns;
        wait.end_ns = span->start_ns;
        add(builder->lanes, builder->slot_first + event->slot, &wait);
    }
    *read_ns = 0;
    add(builder->lanes, builder->slot_first + event->slot, span);
}

static void walk(struct builder *builder)
{
    static const enum span_kind kinds[] = {[TND_TRACE_READ] = SPAN_READ, [TND_TRACE_COPY] = SPAN_COPY,
                                           [TND_TRACE_CONVERT] = SPAN_CONVERT, [TND_TRACE_DIGEST] = SPAN_DIGEST,
                                           [TND_TRACE_UPLOAD] = SPAN_UPLOAD, [TND_TRACE_TOUCH] = SPAN_TOUCH};

    memset(builder->slot_read_ns, 0, builder->slot_count * sizeof(*builder->slot_read_ns));
    add_phases(builder->lanes);
    for (size_t i = 0; i < builder->trace->count; i++) {
        const struct tnd_trace_event *event = &builder->trace->events[i];
        struct span span = {.kind = kinds[event->kind], .name = span_kind_name(kinds[event->kind]),
                            .start_ns = since_start(builder->lanes, event->start_ns),
                            .end_ns = since_start(builder->lanes, event->end_ns), .bytes = event->bytes, .count = 1,
                            .event = event};

        if (span.kind == SPAN_READ)
            add_read(builder, &span);
        else
            add_work(builder, &span);
    }
    for (size_t i = 0; i < ENGINES; i++)
        end_busy(builder, i);
}

/* ---- Lanes ------------------------------------------------------------------------------------------------- */

static void name_lane(struct lanes *lanes, size_t lane_index, enum lane_group group, const char *name)
{
    struct lane *lane = &lanes->lanes[lane_index];

    lane->group = group;
    snprintf(lane->name, sizeof(lane->name), "%s", name);
}

static size_t number_lanes(struct lanes *lanes, size_t first, enum lane_group group, const char *name, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct lane *lane = &lanes->lanes[first + i];

        lane->group = group;
        lane->number = i;
        snprintf(lane->name, sizeof(lane->name), "%s %zu", name, i);
    }
    return first + count;
}

/* Returns false without memory. */
static bool make_lanes(struct builder *builder)
{
    static const char *const engines[ENGINES] = {"auto", "uring", "threads", "mmap", "nil"};
    const struct trace *trace = builder->trace;
    struct lanes *lanes = builder->lanes;
    size_t slots = 0, workers = 0, at = 0;
    bool reads[ENGINES] = {false};

    for (size_t i = 0; i < trace->count; i++) {
        const struct tnd_trace_event *event = &trace->events[i];

        reads[event->engine] |= event->kind == TND_TRACE_READ;
        if (event->slot != UINT32_MAX && event->slot >= slots)
            slots = event->slot + (size_t)1;
        if (event->worker != UINT32_MAX && event->worker >= workers)
            workers = event->worker + (size_t)1;
    }
    lanes->lanes = calloc(1 + ENGINES + slots + workers, sizeof(*lanes->lanes));
    builder->slot_read_ns = calloc(slots + 1, sizeof(*builder->slot_read_ns));
    if (!lanes->lanes || !builder->slot_read_ns)
        return false;
    name_lane(lanes, at++, LANE_PHASES, "phases");
    for (size_t i = 0; i < ENGINES; i++)
        if (reads[i]) {
            builder->engine_lanes[i] = at;
            name_lane(lanes, at++, LANE_ENGINES, engines[i]);
        }
    builder->slot_first = at;
    builder->slot_count = slots;
    builder->worker_first = number_lanes(lanes, builder->slot_first, LANE_SLOTS, "slot", slots);
    lanes->lane_count = number_lanes(lanes, builder->worker_first, LANE_WORKERS, "worker", workers);
    return true;
}

static bool make_spans(struct builder *builder)
{
    struct lanes *lanes = builder->lanes;
    size_t total = 0;
    struct span *spans;

    walk(builder);
    for (size_t i = 0; i < lanes->lane_count; i++)
        total += lanes->lanes[i].count;
    spans = lanes->memory = calloc(total, sizeof(*spans));
    if (!spans)
        return false;
    for (size_t i = 0; i < lanes->lane_count; i++) {
        lanes->lanes[i].spans = spans;
        spans += lanes->lanes[i].count;
        lanes->lanes[i].count = 0;
    }
    walk(builder);
    return true;
}

/* ---- Rates ------------------------------------------------------------------------------------------------- */

static int compare_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* 1, 2, 5, 10, … */
static uint64_t round_bin(uint64_t ns)
{
    uint64_t bin = BIN_NS_MIN;

    for (unsigned i = 0; bin < ns; i++)
        bin = i % 3 == 1 ? bin / 2 * 5 : bin * 2;
    return bin;
}

static void add_to_bins(struct lanes *lanes, const struct span *read)
{
    uint64_t ns = read->end_ns - read->start_ns;
    size_t first = (size_t)(read->start_ns / lanes->bin_ns), last = (size_t)(read->end_ns / lanes->bin_ns);

    if (ns == 0) {
        lanes->bins[last].bytes += (double)read->bytes;
        return;
    }
    for (size_t i = first; i <= last; i++) {
        uint64_t from = i * lanes->bin_ns, to = from + lanes->bin_ns;
        double part;

        from = from > read->start_ns ? from : read->start_ns;
        to = to < read->end_ns ? to : read->end_ns;
        part = to > from ? (double)(to - from) : 0;
        lanes->bins[i].bytes += (double)read->bytes * part / (double)ns;
        lanes->bins[i].read_ns += part;
    }
}

static bool make_rates(struct lanes *lanes, const struct trace *trace)
{
    lanes->bin_ns = round_bin(lanes->end_ns / BINS_MAX);
    lanes->bin_count = (size_t)(lanes->end_ns / lanes->bin_ns) + 1;
    lanes->bins = calloc(lanes->bin_count, sizeof(*lanes->bins));
    lanes->starts = calloc(2 * trace->count + 1, sizeof(*lanes->starts));
    if (!lanes->bins || !lanes->starts)
        return false;
    lanes->ends = lanes->starts + trace->count;
    for (size_t i = 0; i < lanes->lane_count; i++)
        for (size_t k = 0; lanes->lanes[i].group == LANE_SLOTS && k < lanes->lanes[i].count; k++) {
            const struct span *span = &lanes->lanes[i].spans[k];

            if (span->kind != SPAN_READ)
                continue;
            add_to_bins(lanes, span);
            lanes->starts[lanes->read_count] = span->start_ns;
            lanes->ends[lanes->read_count++] = span->end_ns;
        }
    qsort(lanes->starts, lanes->read_count, sizeof(*lanes->starts), compare_ns);
    qsort(lanes->ends, lanes->read_count, sizeof(*lanes->ends), compare_ns);
    return true;
}

/* ---- All of it --------------------------------------------------------------------------------------------- */

static int compare_events(const void *a, const void *b)
{
    const struct tnd_trace_event *x = a, *y = b;

    if (x->start_ns != y->start_ns)
        return x->start_ns > y->start_ns ? 1 : -1;
    return (int)x->kind - (int)y->kind; /* a read before what is done with it */
}

static uint64_t since_load(const struct lanes *lanes, uint64_t ns)
{
    return ns > 0 ? since_start(lanes, lanes->session->load_ns) + ns : 0;
}

int lanes_make(struct lanes *lanes, const struct session *session, struct trace *trace)
{
    struct builder builder = {.lanes = lanes, .trace = trace};
    bool made;

    *lanes = (struct lanes){.session = session, .dropped = trace->dropped, .end_ns = session->wall_ns};
    tnd_load_stats(session->load, &lanes->stats);
    lanes->first_layer_ns = since_load(lanes, lanes->stats.first_layer_ns);
    lanes->ready_ns = since_load(lanes, lanes->stats.ready_ns);
    if (trace->count > 0)
        qsort(trace->events, trace->count, sizeof(*trace->events), compare_events);
    made = make_lanes(&builder) && make_spans(&builder) && make_rates(lanes, trace);
    free(builder.slot_read_ns);
    return made ? 0 : fail(EXIT_RESOURCE, "out of memory for the trace");
}

void lanes_finish(struct lanes *lanes)
{
    free(lanes->lanes);
    free(lanes->bins);
    free(lanes->starts);
    free(lanes->memory);
    *lanes = (struct lanes){0};
}
