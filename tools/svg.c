/* SPDX-License-Identifier: Apache-2.0 */
#include "svg.h"

#include <inttypes.h>

#include "lanes.h"
#include "library.h"
#include "picture.h"
#include "report.h"
#include "text.h"

#define RATE_TOP 132
#define RATE_HEIGHT 100
#define DEPTH_TOP (RATE_TOP + RATE_HEIGHT + 12)
#define DEPTH_HEIGHT 28
#define LANES_TOP (DEPTH_TOP + DEPTH_HEIGHT + 14)

/* ---- Text -------------------------------------------------------------------------------------------------- */

static void put_title(const struct picture *picture)
{
    const struct lanes *lanes = picture->lanes;
    const struct tnd_load_stats *stats = &lanes->stats;
    enum tnd_dtype dtype = options_load(lanes->session->options).dtype;
    double seconds = (double)lanes->session->wall_ns / 1e9;

    fprintf(picture->out, "<text x=\"24\" y=\"53\" font-size=\"13\">%s", text_bytes(stats->model_bytes).s);
    if (dtype != TND_DTYPE_NONE)
        fprintf(picture->out, " to %s", tnd_dtype_name(dtype));
    fprintf(picture->out, " in %s: %.2f GB/s · engine %s, %s · limit: %s</text>\n",
            text_ns(lanes->session->wall_ns).s, (double)stats->model_bytes / 1e9 / seconds, stats->engine,
            stats->direct ? "direct I/O" : "through the page cache", report_limit_name(stats->limit));
    fprintf(picture->out, "<text x=\"24\" y=\"71\" fill=\"#555\">opening %s, planning %s, setting up %s · %s",
            text_ns(stats->open_ns).s, text_ns(stats->plan_ns).s, text_ns(stats->setup_ns).s,
            text_count(stats->tensors, "tensor").s);
    fprintf(picture->out, " in %s", text_count(lanes->read_count, "read").s);
    if (picture->lanes_left_out > 0)
        fprintf(picture->out, " · %s not drawn", text_count(picture->lanes_left_out, "slot").s);
    if (lanes->dropped > 0)
        fprintf(picture->out, " · %s missing", text_count(lanes->dropped, "event").s);
    fprintf(picture->out, "</text>\n");
}

static void put_marks(const struct picture *picture)
{
    double first = picture_x(picture, picture->lanes->first_layer_ns);
    double ready = picture_x(picture, picture->lanes->ready_ns);
    bool room = ready - first > 300;

    fprintf(picture->out, "<g id=\"marks\">\n");
    picture_mark(picture, "first layer", picture->lanes->first_layer_ns, room ? RATE_TOP - 6 : RATE_TOP - 19, !room);
    picture_mark(picture, "ready", picture->lanes->ready_ns, RATE_TOP - 6, true);
    fprintf(picture->out, "</g>\n");
}

/* ---- Areas ------------------------------------------------------------------------------------------------- */

static double bin_rate(const struct lanes *lanes, size_t i)
{
    return lanes->bins[i].bytes / (double)lanes->bin_ns; /* bytes a nanosecond: GB/s */
}

static double bin_depth(const struct lanes *lanes, size_t i)
{
    return lanes->bins[i].read_ns / (double)lanes->bin_ns;
}

/* Steps from bin to bin, down to the bottom at both ends. full: what reaches the top. */
static void put_area(const struct picture *picture, double (*value)(const struct lanes *lanes, size_t i), int top,
                     int height, double full, const char *colour)
{
    const struct lanes *lanes = picture->lanes;

    fprintf(picture->out, "<path fill=\"%s\" d=\"M%d %d", colour, PICTURE_LEFT, top + height);
    for (size_t i = 0; i < lanes->bin_count; i++) {
        uint64_t end_ns = (i + 1) * lanes->bin_ns;

        fprintf(picture->out, "V%.5gH%.5g", top + height * (1 - value(lanes, i) / full),
                picture_x(picture, end_ns < lanes->end_ns ? end_ns : lanes->end_ns));
    }
    fprintf(picture->out, "V%dZ\"/>\n", top + height);
}

/* A mean over the time in which something was read, as a line. */
static void put_mean(const struct picture *picture, double full)
{
    const struct lanes *lanes = picture->lanes;
    uint64_t from = lanes->starts[0], to = lanes->ends[lanes->read_count - 1];
    double bytes = 0, y, rate;

    for (size_t i = 0; i < lanes->bin_count; i++)
        bytes += lanes->bins[i].bytes;
    rate = to > from ? bytes / (double)(to - from) : 0;
    y = RATE_TOP + RATE_HEIGHT * (1 - rate / full);
    if (rate > 0)
        fprintf(picture->out, "<line x1=\"%.5g\" y1=\"%.5g\" x2=\"%.5g\" y2=\"%.5g\" stroke=\"#d55e00\" "
                "stroke-width=\"1.5\"/><text x=\"%.5g\" y=\"%.5g\" text-anchor=\"end\" fill=\"#a34700\" "
                "stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\" font-weight=\"bold\">mean %.2f</text>\n",
                picture_x(picture, from), y, picture_x(picture, to), y, picture_x(picture, to) - 6, y + 15, rate);
}

static void put_rate(const struct picture *picture)
{
    const struct lanes *lanes = picture->lanes;
    double most = 0, step;
    unsigned steps = 1;

    for (size_t i = 0; i < lanes->bin_count; i++)
        most = bin_rate(lanes, i) > most ? bin_rate(lanes, i) : most;
    step = picture_step(most, 0.001, 5);
    while (steps * step < most)
        steps++;
    fprintf(picture->out, "<g id=\"rate\">\n<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-weight=\"bold\">GB/s"
            "</text>\n", PICTURE_LEFT - 6, RATE_TOP - 10);
    put_area(picture, bin_rate, RATE_TOP, RATE_HEIGHT, steps * step, "#9ecae1");
    for (unsigned i = 0; i <= steps; i++) {
        double y = RATE_TOP + RATE_HEIGHT * (1 - (double)i / steps);

        fprintf(picture->out, "<line x1=\"%d\" y1=\"%.5g\" x2=\"%d\" y2=\"%.5g\" stroke=\"#000\" "
                "stroke-opacity=\"0.12\"/><text x=\"%d\" y=\"%.5g\" text-anchor=\"end\">%g</text>\n", PICTURE_LEFT, y,
                PICTURE_RIGHT, y, PICTURE_LEFT - 6, y + 4, i * step);
    }
    if (lanes->read_count > 0)
        put_mean(picture, steps * step);
    fprintf(picture->out, "</g>\n");
}

static void put_depth(const struct picture *picture)
{
    uint32_t most = picture->lanes->stats.depth_max > 0 ? picture->lanes->stats.depth_max : 1;

    fprintf(picture->out, "<g id=\"depth\">\n<text x=\"%d\" y=\"%d\" text-anchor=\"end\">in flight</text>"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">of %" PRIu32 "</text>\n", PICTURE_LEFT - 6, DEPTH_TOP + 12,
            PICTURE_LEFT - 6, DEPTH_TOP + 25, most);
    put_area(picture, bin_depth, DEPTH_TOP, DEPTH_HEIGHT, most, "#c7c7dd");
    fprintf(picture->out, "<path d=\"M%d %dH%dM%d %dH%d\" stroke=\"#000\" stroke-opacity=\"0.12\"/>\n</g>\n",
            PICTURE_LEFT, DEPTH_TOP, PICTURE_RIGHT, PICTURE_LEFT, DEPTH_TOP + DEPTH_HEIGHT, PICTURE_RIGHT);
}

/* ---- All of it --------------------------------------------------------------------------------------------- */

void svg_write(FILE *out, const void *cookie)
{
    struct picture picture = {.out = out, .lanes = cookie, .plot_top = RATE_TOP, .lanes_top = LANES_TOP};

    picture_begin(&picture, "loaded");
    put_title(&picture);
    picture_legend(&picture);
    picture_time_axis(&picture);
    put_rate(&picture);
    put_depth(&picture);
    picture_lanes(&picture);
    put_marks(&picture);
    picture_end(&picture);
}
