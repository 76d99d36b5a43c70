/* SPDX-License-Identifier: Apache-2.0 */
#include "strip.h"

#include <inttypes.h>
#include <stdlib.h>

#include "picture.h"
#include "text.h"

#define PLOT_TOP 112

/* What happens to a layer, at the same moment in this order. */
enum change_kind { CHANGE_RELEASED, CHANGE_EVICTED, CHANGE_FETCHING, CHANGE_FETCHED, CHANGE_ACQUIRED };

struct change {
    uint64_t ns; /* since the start of the load */
    uint32_t layer_index;
    enum change_kind kind;
};

struct changes {
    struct change *changes;
    size_t count;
};

/* ---- Changes ----------------------------------------------------------------------------------------------- */

static int compare_changes(const void *a, const void *b)
{
    const struct change *x = a, *y = b;

    if (x->layer_index != y->layer_index)
        return x->layer_index > y->layer_index ? 1 : -1;
    if (x->ns != y->ns)
        return x->ns > y->ns ? 1 : -1;
    return (int)x->kind - (int)y->kind;
}

static void add(struct changes *changes, uint64_t ns, uint32_t layer_index, enum change_kind kind)
{
    changes->changes[changes->count++] = (struct change){.ns = ns, .layer_index = layer_index, .kind = kind};
}

static void add_event(struct changes *changes, const struct consumer *consumer, const struct tnd_trace_event *event)
{
    uint32_t index = course_index(consumer->course, event->tensor->layer);
    uint64_t load_ns = consumer->load_ns;

    if (index == UINT32_MAX)
        return; /* shared */
    if (event->kind == TND_TRACE_EVICT) {
        add(changes, event->end_ns - load_ns, index, CHANGE_EVICTED);
        return;
    }
    add(changes, event->start_ns - load_ns, index, CHANGE_FETCHING);
    add(changes, event->end_ns - load_ns, index, CHANGE_FETCHED);
}

static bool make_changes(struct changes *changes, const struct consumer *consumer, const struct trace *trace)
{
    changes->changes = calloc(2 * (trace->count + consumer->stay_count) + 1, sizeof(*changes->changes));
    if (!changes->changes)
        return false;
    for (size_t i = 0; i < trace->count; i++)
        add_event(changes, consumer, &trace->events[i]);
    for (size_t i = 0; i < consumer->stay_count; i++) {
        const struct stay *stay = &consumer->stays[i];

        add(changes, stay->start_ns, stay->layer_index, CHANGE_ACQUIRED);
        add(changes, stay->end_ns, stay->layer_index, CHANGE_RELEASED);
    }
    qsort(changes->changes, changes->count, sizeof(*changes->changes), compare_changes);
    return true;
}

/* ---- Lanes ------------------------------------------------------------------------------------------------- */

static enum span_kind state_after(enum change_kind change)
{
    switch (change) {
    case CHANGE_EVICTED:
        return SPAN_ABSENT;
    case CHANGE_FETCHING:
        return SPAN_FETCH;
    case CHANGE_ACQUIRED:
        return SPAN_ACQUIRED;
    case CHANGE_RELEASED:
    case CHANGE_FETCHED:
        break;
    }
    return SPAN_RESIDENT;
}

/* The layer is in one state from start to end; the row has no gaps. */
static void add_span(struct lane *lane, enum span_kind kind, uint64_t start_ns, uint64_t end_ns)
{
    if (end_ns > start_ns)
        lane->spans[lane->count++] = (struct span){.kind = kind, .name = span_kind_name(kind), .start_ns = start_ns,
                                                   .end_ns = end_ns, .count = 1};
}

/* Returns the first change of another layer. */
static const struct change *fill_lane(struct lane *lane, const struct change *change, const struct change *end,
                                      uint64_t end_ns)
{
    enum span_kind state = SPAN_ABSENT;
    uint64_t since_ns = 0;

    for (; change < end && change->layer_index == lane->number; change++) {
        uint64_t ns = change->ns < end_ns ? change->ns : end_ns; /* what was still under way when the walk was over */
        enum span_kind next = state_after(change->kind);

        if (next == state || (state == SPAN_ACQUIRED && change->kind != CHANGE_RELEASED))
            continue;
        add_span(lane, state, since_ns, ns);
        state = next;
        since_ns = ns;
    }
    add_span(lane, state, since_ns, end_ns);
    return change;
}

static bool make_lanes(struct lanes *lanes, const struct consumer *consumer, const struct changes *changes)
{
    const struct change *change = changes->changes, *end = change + changes->count;
    const struct course *course = consumer->course;
    struct span *spans = calloc(changes->count + course->layer_count, sizeof(*spans));

    lanes->memory = spans;
    lanes->lanes = calloc(course->layer_count, sizeof(*lanes->lanes));
    if (!spans || !lanes->lanes)
        return false;
    lanes->lane_count = course->layer_count;
    for (uint32_t i = 0; i < course->layer_count; i++) {
        struct lane *lane = &lanes->lanes[i];

        lane->group = LANE_LAYERS;
        lane->number = i;
        lane->spans = spans;
        snprintf(lane->name, sizeof(lane->name), "layer %" PRIu32, course->layers[i]);
        change = fill_lane(lane, change, end, lanes->end_ns);
        spans += lane->count;
    }
    return true;
}

int strip_make(struct strip *strip, const struct consumer *consumer, const struct trace *trace)
{
    struct changes changes = {.count = 0};
    bool made;

    *strip = (struct strip){.consumer = consumer};
    strip->lanes = (struct lanes){.session = consumer->session, .end_ns = consumer->total.wall_ns,
                                  .dropped = trace->dropped + consumer->stays_dropped};
    made = make_changes(&changes, consumer, trace) && make_lanes(&strip->lanes, consumer, &changes);
    free(changes.changes);
    return made ? 0 : fail(EXIT_RESOURCE, "out of memory for the picture");
}

void strip_finish(struct strip *strip)
{
    lanes_finish(&strip->lanes);
}

/* ---- The picture ------------------------------------------------------------------------------------------- */

static void put_title(const struct picture *picture, const struct consumer *consumer)
{
    const struct tnd_layer_stats *stats = &consumer->stats;

    fprintf(picture->out, "<text x=\"24\" y=\"53\" font-size=\"13\">%s of", text_count(consumer->tokens, "token").s);
    fprintf(picture->out, " %s in %s, %s of it stalled · places for %" PRIu32 ", %" PRIu32 " fetched ahead</text>\n",
            text_count(consumer->course->layer_count, "layer").s, text_ns(consumer->total.wall_ns).s,
            text_ns(consumer->total.stalled_ns).s, stats->resident_layers, stats->ahead);
    fprintf(picture->out, "<text x=\"24\" y=\"71\" fill=\"#555\">computing %s a layer · %" PRIu64 " hits, %" PRIu64
            " late, %" PRIu64 " synchronous loads · %s read again", text_ns(consumer->compute_ns).s,
            consumer->total.hits, consumer->total.late_hits, consumer->total.sync_loads,
            text_bytes(consumer->total.bytes_reread).s);
    if (picture->lanes->dropped > 0)
        fprintf(picture->out, " · %s missing", text_count(picture->lanes->dropped, "event").s);
    fprintf(picture->out, "</text>\n");
}

void strip_write(FILE *out, const void *cookie)
{
    const struct strip *strip = cookie;
    struct picture picture = {.out = out, .lanes = &strip->lanes, .plot_top = PLOT_TOP, .lanes_top = PLOT_TOP};

    picture_begin(&picture, "walked through");
    put_title(&picture, strip->consumer);
    picture_legend(&picture);
    picture_time_axis(&picture);
    picture_lanes(&picture);
    picture_end(&picture);
}
