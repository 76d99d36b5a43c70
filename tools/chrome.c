/* SPDX-License-Identifier: Apache-2.0 */
#include "chrome.h"

#include <string.h>

#include "json.h"
#include "lanes.h"

#define MARKS_LANE 0 /* of the phases: counters and marks are its process's */

static const char *const group_names[LANE_GROUP_COUNT] = {"load", "engines", "slots", "workers", "layers"};

static uint64_t process_of(enum lane_group group)
{
    return (uint64_t)group + 1;
}

static void microseconds(struct json *json, const char *key, uint64_t ns)
{
    json_double(json, key, (double)ns / 1e3);
}

/* What every event has; the caller closes it. No two threads share a number, whatever their process. */
static void event_begin(struct json *json, const char *phase, const char *name, enum lane_group group,
                        size_t lane_index, uint64_t ns)
{
    json_object_begin(json, NULL);
    json_string(json, "ph", phase);
    json_string(json, "name", name);
    json_uint(json, "pid", process_of(group));
    json_uint(json, "tid", (uint64_t)lane_index + 1);
    microseconds(json, "ts", ns);
}

static void name_event(struct json *json, const char *what, enum lane_group group, size_t lane_index,
                       const char *name)
{
    event_begin(json, "M", what, group, lane_index, 0);
    json_object_begin(json, "args");
    json_string(json, "name", name);
    json_object_end(json);
    json_object_end(json);
}

static void sort_event(struct json *json, const char *what, enum lane_group group, size_t lane_index, size_t place)
{
    event_begin(json, "M", what, group, lane_index, 0);
    json_object_begin(json, "args");
    json_uint(json, "sort_index", (uint64_t)place);
    json_object_end(json);
    json_object_end(json);
}

static void name_lanes(struct json *json, const struct lanes *lanes)
{
    for (size_t i = 0; i < lanes->lane_count; i++) {
        const struct lane *lane = &lanes->lanes[i];

        if (i == 0 || lane->group != lanes->lanes[i - 1].group) {
            name_event(json, "process_name", lane->group, i, group_names[lane->group]);
            sort_event(json, "process_sort_index", lane->group, i, lane->group);
        }
        name_event(json, "thread_name", lane->group, i, lane->name);
        sort_event(json, "thread_sort_index", lane->group, i, i);
    }
}

static void write_arguments(struct json *json, const struct lanes *lanes, const struct span *span)
{
    const struct tnd_trace_event *event = span->event;

    json_object_begin(json, "args");
    if (event && event->tensor) {
        json_bytes(json, "tensor", event->tensor->name, event->tensor->name_bytes);
        if (tnd_model_file_count(lanes->session->model) > 1)
            json_string(json, "file", tnd_model_file(lanes->session->model, event->tensor->file)->path);
    }
    if (event)
        json_uint(json, event->tensor ? "offset" : "destination_offset", event->offset);
    if (span->bytes > 0)
        json_uint(json, "bytes", span->bytes);
    if (span->kind == SPAN_BUSY)
        json_uint(json, "reads", span->count);
    json_object_end(json);
}

static void write_spans(struct json *json, const struct lanes *lanes)
{
    for (size_t i = 0; i < lanes->lane_count; i++) {
        const struct lane *lane = &lanes->lanes[i];

        for (size_t k = 0; k < lane->count; k++) {
            const struct span *span = &lane->spans[k];

            event_begin(json, "X", span->name, lane->group, i, span->start_ns);
            microseconds(json, "dur", span->end_ns - span->start_ns);
            json_string(json, "cat", span_kind_name(span->kind));
            write_arguments(json, lanes, span);
            json_object_end(json);
        }
    }
}

static void write_rate(struct json *json, uint64_t ns, double gb_per_s)
{
    event_begin(json, "C", "GB/s", LANE_PHASES, MARKS_LANE, ns);
    json_object_begin(json, "args");
    json_double(json, "GB/s", gb_per_s);
    json_object_end(json);
    json_object_end(json);
}

/* A counter holds until its next value: the last bin is followed by zero. */
static void write_rates(struct json *json, const struct lanes *lanes)
{
    for (size_t i = 0; i < lanes->bin_count; i++)
        write_rate(json, i * lanes->bin_ns, lanes->bins[i].bytes / (double)lanes->bin_ns);
    write_rate(json, lanes->bin_count * lanes->bin_ns, 0);
}

static void write_depth(struct json *json, uint64_t ns, uint64_t depth)
{
    event_begin(json, "C", "reads in flight", LANE_PHASES, MARKS_LANE, ns);
    json_object_begin(json, "args");
    json_uint(json, "reads", depth);
    json_object_end(json);
    json_object_end(json);
}

/* A read that took no time shows twice at its moment: there, and gone. */
static void write_depths(struct json *json, const struct lanes *lanes)
{
    size_t started = 0, ended = 0;

    while (ended < lanes->read_count) {
        bool starts = started < lanes->read_count && lanes->starts[started] <= lanes->ends[ended];
        uint64_t ns = starts ? lanes->starts[started] : lanes->ends[ended];

        while (ended < started && lanes->ends[ended] <= ns)
            ended++;
        while (started < lanes->read_count && lanes->starts[started] <= ns)
            started++;
        write_depth(json, ns, started - ended);
    }
}

static void write_mark(struct json *json, const char *name, uint64_t ns)
{
    if (ns == 0)
        return;
    event_begin(json, "i", name, LANE_PHASES, MARKS_LANE, ns);
    json_string(json, "s", "g"); /* a line through all lanes */
    json_object_end(json);
}

void chrome_write(FILE *out, const void *cookie)
{
    const struct lanes *lanes = cookie;
    struct json json;

    json_begin(&json, out);
    json_object_begin(&json, NULL);
    json_string(&json, "displayTimeUnit", "ms");
    json_object_begin(&json, "otherData");
    json_string(&json, "model", lanes->session->options->model);
    json_string(&json, "tundish", tnd_version());
    json_string(&json, "engine", lanes->stats.engine);
    json_uint(&json, "model_bytes", lanes->stats.model_bytes);
    json_uint(&json, "wall_ns", lanes->session->wall_ns);
    json_uint(&json, "dropped_events", lanes->dropped);
    json_object_end(&json);
    json_array_begin(&json, "traceEvents");
    name_lanes(&json, lanes);
    write_spans(&json, lanes);
    write_rates(&json, lanes);
    write_depths(&json, lanes);
    write_mark(&json, "first layer", lanes->first_layer_ns);
    write_mark(&json, "ready", lanes->ready_ns);
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}
