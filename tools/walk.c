/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"

#include <fcntl.h>
#include <unistd.h>

#include "commands.h"
#include "strip.h"
#include "text.h"
#include "trace.h"
#include "whole_file.h"

#define CACHED_PERCENT_MIN 80 /* from here on a load reads from the page cache by itself */

/* ---- The passes -------------------------------------------------------------------------------------------- */

/* All layers: no window. */
static uint64_t resident_bytes(const struct options *options, const struct course *course)
{
    if (options->resident_percent == 100)
        return 0;
    if (options->resident_percent > 0)
        return (uint64_t)((double)course->layer_bytes * (double)options->resident_percent / 100);
    return options->resident_bytes;
}

/* What a pass brings into the page cache would make the next one another thing. */
static void drop_pages(const struct tnd_model *model)
{
    for (uint32_t i = 0; i < tnd_model_file_count(model); i++) {
        int fd = open(tnd_model_file(model, i)->path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
            continue;
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

static int run_pass(struct walk *walk, struct consumer *consumer, uint64_t tokens, uint64_t compute_ns)
{
    if (walk->cold)
        drop_pages(walk->session.model);
    consumer->session = &walk->session;
    consumer->course = &walk->course;
    consumer->tokens = tokens;
    consumer->compute_ns = compute_ns;
    return consumer_run(consumer);
}

static struct prediction predict_pass(const struct walk *walk, const struct consumer *consumer)
{
    const struct options *options = walk->options;

    return predict(&(struct prediction_input){
        .layers = walk->course.layer_count,
        .resident_layers = consumer->stats.resident_layers,
        .ahead = consumer->stats.ahead,
        .tokens = consumer->tokens,
        .read_ns = walk->read_ns,
        .compute_ns = consumer->compute_ns,
        .layer_bytes = walk->course.layer_file_bytes / walk->course.layer_count,
        .even = walk->course.even,
        .eager = consumer == &walk->ahead && !options->lazy && consumer->stats.resident_bytes == 0,
    });
}

static int run_ahead(struct walk *walk, struct trace *trace)
{
    int code;

    walk->ahead.keeps_stays = trace != NULL;
    if (trace)
        trace_start(trace);
    code = run_pass(walk, &walk->ahead, walk->options->tokens, walk->compute_ns);
    if (trace)
        trace_stop(trace);
    if (code == 0)
        walk->predicted_ahead = predict_pass(walk, &walk->ahead);
    return code;
}

static int run_alone(struct walk *walk)
{
    struct options options = *walk->session.options;
    int code;

    options.ahead = 0;
    options.lazy = true;
    walk->session.options = &options;
    code = run_pass(walk, &walk->alone, options.tokens, walk->compute_ns);
    walk->session.options = walk->options;
    if (code == 0)
        walk->predicted_alone = predict_pass(walk, &walk->alone);
    walk->compared = code == 0;
    return code;
}

/* Of a pass that does not compute: the layers' share of the time in which reads were in flight. */
static uint64_t read_ns_of(const struct walk *walk)
{
    const struct tnd_load_stats *stats = &walk->measuring.load_stats;
    double share = (double)walk->course.layer_file_bytes / (double)(stats->bytes_read ? stats->bytes_read : 1);

    return (uint64_t)(share * (double)stats->read_busy_ns) / walk->course.layer_count;
}

/* All passes start alike: from the page cache if it has most of the model, else from the disk. */
static void choose_state(struct walk *walk)
{
    struct tnd_probe probe = {.size = sizeof(probe)};

    walk->cold = tnd_probe(walk->options->model, &probe) < 0 || probe.cached_percent < CACHED_PERCENT_MIN;
}

static int run_passes(struct walk *walk, struct trace *trace)
{
    int code;

    choose_state(walk);
    code = run_pass(walk, &walk->measuring, 1, 0);
    if (code != 0)
        return code;
    walk->read_ns = read_ns_of(walk);
    walk->compute_ns = walk->options->compute_us == OPTION_AUTO ? (uint64_t)(COMPUTE_SHARE * (double)walk->read_ns)
                                                                : walk->options->compute_us * 1000;
    code = run_ahead(walk, trace);
    return code == 0 && walk->ahead.stats.ahead != 0 ? run_alone(walk) : code;
}

static int write_strip(const struct walk *walk, struct trace *trace, const struct whole_file *file)
{
    struct strip strip;
    int code = strip_make(&strip, &walk->ahead, trace);

    if (code == 0)
        code = whole_file_write(file, strip_write, &strip);
    strip_finish(&strip);
    return code;
}

/* ---- The command ------------------------------------------------------------------------------------------- */

static void walk_finish(struct walk *walk)
{
    session_finish(&walk->session);
    consumer_finish(&walk->measuring);
    consumer_finish(&walk->ahead);
    consumer_finish(&walk->alone);
    course_finish(&walk->course);
}

int command_walk(const struct options *given)
{
    struct options options = *given; /* with the share of the layers as bytes */
    struct walk walk = {.options = &options, .session = {.options = &options}};
    struct whole_file svg = WHOLE_FILE_NONE;
    struct trace trace;
    int code = options.svg ? whole_file_prepare(&svg, "the picture", options.svg) : 0;

    options.by_layer = true;
    trace_init(&trace, TRACE_LAYERS);
    if (options.svg)
        walk.session.trace = &trace;
    if (code == 0)
        code = session_open(&walk.session);
    if (code == 0)
        code = course_make(&walk.course, &walk.session);
    options.resident_bytes = resident_bytes(given, &walk.course);
    if (code == 0)
        code = run_passes(&walk, walk.session.trace);
    if (code == 0 && options.svg)
        code = write_strip(&walk, &trace, &svg);
    if (code == 0 && options.json)
        walk_report_json(&walk);
    else if (code == 0)
        walk_report_text(&walk);
    walk_finish(&walk);
    trace_finish(&trace); /* told of until the loader has gone */
    whole_file_finish(&svg);
    return code;
}
