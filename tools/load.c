/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <stdlib.h>

#include "chrome.h"
#include "lanes.h"
#include "report.h"
#include "session.h"
#include "svg.h"
#include "text.h"
#include "whole_file.h"

/* Where what was traced goes, in two forms. */
struct outputs {
    struct whole_file trace, svg;
};

static int outputs_prepare(struct outputs *outputs, const struct options *options)
{
    int code = options->trace ? whole_file_prepare(&outputs->trace, "the trace", options->trace) : 0;

    if (code == 0 && options->svg)
        code = whole_file_prepare(&outputs->svg, "the picture", options->svg);
    return code;
}

static int outputs_write(const struct outputs *outputs, const struct session *session)
{
    struct lanes lanes;
    int code;

    trace_stop(session->trace); /* touching memory may go on */
    code = lanes_make(&lanes, session, session->trace);
    if (code == 0 && session->options->trace)
        code = whole_file_write(&outputs->trace, chrome_write, &lanes);
    if (code == 0 && session->options->svg)
        code = whole_file_write(&outputs->svg, svg_write, &lanes);
    lanes_finish(&lanes);
    return code;
}

static int run_all(struct session *session, uint64_t *runs_ns, uint64_t count)
{
    int code = 0;

    for (size_t i = 0; i < count && code == 0; i++) {
        session_unload(session); /* before the next one needs the memory */
        if (session->trace)
            trace_start(session->trace);
        code = session_load(session);
        runs_ns[i] = session->wall_ns;
    }
    return code;
}

int command_load(const struct options *options)
{
    struct session session = {.options = options};
    struct outputs outputs = {.trace = WHOLE_FILE_NONE, .svg = WHOLE_FILE_NONE};
    uint64_t *runs_ns = calloc(options->repeat, sizeof(*runs_ns));
    struct trace trace;
    int code = runs_ns ? 0 : fail(EXIT_RESOURCE, "out of memory for the times of the runs");

    trace_init(&trace, TRACE_WORK);
    if (options->trace || options->svg)
        session.trace = &trace;
    if (code == 0)
        code = outputs_prepare(&outputs, options);
    if (code == 0)
        code = run_all(&session, runs_ns, options->repeat);
    if (code == 0 && session.trace)
        code = outputs_write(&outputs, &session);
    if (code == 0 && options->json)
        report_json(&session, runs_ns, options->repeat);
    else if (code == 0)
        report_text(&session, runs_ns, options->repeat);
    session_finish(&session);
    trace_finish(&trace); /* told of until the loader has gone */
    whole_file_finish(&outputs.trace);
    whole_file_finish(&outputs.svg);
    free(runs_ns);
    return code;
}
