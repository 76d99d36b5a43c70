/* SPDX-License-Identifier: Apache-2.0 */
#include "picture.h"

#include <inttypes.h>
#include <string.h>

#include "text.h"
#include "tundish.h"

/* In units of the picture, which are pixels where it is shown at its own size. */
#define WIDTH 1000
#define GAP 6 /* between groups of lanes */
#define BAR_WIDTH_MIN 0.3 /* of what is drawn on its own … */
#define BAR_WIDTH_SHOWN 0.5 /* … and as which it is drawn, for eyes */
#define BARS_MAX 5000
#define SLOTS_MAX 40 /* when there are more, so many are drawn; one is as good as another */
#define TICKS_MAX 10
#define NAME_BYTES_MAX 120

/* Told apart by those who see no red or no green too (Okabe and Ito's palette); waiting is no work, and pale. */
static const struct {
    const char *colour, *legend;
} looks[SPAN_KIND_COUNT] = {
    [SPAN_PHASE] = {"#6b6b6b", "phases of the load"},
    [SPAN_BUSY] = {"#56b4e9", "reads under way"},
    [SPAN_READ] = {"#0072b2", "read"},
    [SPAN_WAIT] = {"#cfcfcf", "wait for a worker"},
    [SPAN_COPY] = {"#009e73", "copy"},
    [SPAN_CONVERT] = {"#e69f00", "convert"},
    [SPAN_DIGEST] = {"#d55e00", "digest"},
    [SPAN_UPLOAD] = {"#f0e442", "copy to the GPU"},
    [SPAN_TOUCH] = {"#cc79a7", "touch memory"},
    [SPAN_ABSENT] = {"#efefef", "absent"},
    [SPAN_FETCH] = {"#e69f00", "fetching"},
    [SPAN_RESIDENT] = {"#9ecae1", "resident"},
    [SPAN_ACQUIRED] = {"#0072b2", "acquired"},
};

/* Spans of a lane that are drawn as one, for most of its time of one kind. */
struct bar {
    uint64_t start_ns, end_ns;
    enum span_kind kind;
    uint64_t count, kind_count; /* of spans, of those of its kind */
    const struct span *longest; /* of its kind */
};

/* What is left to draw of a lane. */
struct bars {
    const struct span *next, *end;
};

static bool is_drawn(const struct lane *lane)
{
    return lane->count > 0 && (lane->group != LANE_SLOTS || lane->number < SLOTS_MAX);
}

/* ---- Text -------------------------------------------------------------------------------------------------- */

/* A name as anywhere else, and what XML wants besides: U+FFFE and U+FFFF may not stand in it at all. */
static void put_name(FILE *out, const char *data, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)data;

    for (size_t i = 0, length; i < bytes; i += length) {
        if (i >= NAME_BYTES_MAX) {
            fputs("…", out);
            return;
        }
        length = text_shown(at + i, bytes - i);
        if (length == 0 || (length == 3 && memcmp(at + i, "\xEF\xBF", 2) == 0 && at[i + 2] >= 0xBE)) {
            fprintf(out, "\\x%02x", at[i]);
            length = 1;
        } else if (length == 1 && strchr("<>&\"", at[i])) {
            fprintf(out, "&#%u;", at[i]);
        } else {
            fwrite(at + i, 1, length, out);
        }
    }
}

/* The last component of a path, without the slashes behind it. */
static void put_file_name(FILE *out, const char *path)
{
    size_t end = strlen(path), start;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/'; start--)
        ;
    put_name(out, path + start, end - start);
}

void picture_legend(const struct picture *picture)
{
    bool seen[SPAN_KIND_COUNT] = {false};
    int x = 24;

    for (size_t i = 0; i < picture->lanes->lane_count; i++)
        for (size_t k = 0; k < picture->lanes->lanes[i].count; k++)
            seen[picture->lanes->lanes[i].spans[k].kind] = true;
    fprintf(picture->out, "<g id=\"legend\">\n");
    for (unsigned kind = 0; kind < SPAN_KIND_COUNT; kind++) {
        if (!seen[kind])
            continue;
        fprintf(picture->out, "<rect x=\"%d\" y=\"82\" width=\"12\" height=\"11\" fill=\"%s\"/>"
                "<text x=\"%d\" y=\"92\">%s</text>\n", x, looks[kind].colour, x + 17, looks[kind].legend);
        x += 42 + (int)(6.2 * (double)strlen(looks[kind].legend));
    }
    fprintf(picture->out, "</g>\n");
}

/* ---- Axes -------------------------------------------------------------------------------------------------- */

double picture_x(const struct picture *picture, uint64_t ns)
{
    return PICTURE_LEFT + (PICTURE_RIGHT - PICTURE_LEFT) * ((double)ns / (double)(picture->lanes->end_ns + 1));
}

/* The unit that all times on the axis have. */
static double axis_unit(const struct picture *picture, const char **ret_name)
{
    uint64_t end_ns = picture->lanes->end_ns;

    *ret_name = end_ns >= 1000000000 ? "s" : end_ns >= 1000000 ? "ms" : "us";
    return end_ns >= 1000000000 ? 1e9 : end_ns >= 1000000 ? 1e6 : 1e3;
}

double picture_step(double amount, double unit, unsigned parts_max)
{
    double step = unit;

    for (unsigned i = 0; step * parts_max < amount; i++)
        step *= i % 3 == 1 ? 2.5 : 2;
    return step;
}

void picture_time_axis(const struct picture *picture)
{
    uint64_t end_ns = picture->lanes->end_ns;
    double step = picture_step((double)end_ns, 100, TICKS_MAX);
    const char *name;
    double unit = axis_unit(picture, &name);

    fprintf(picture->out, "<g id=\"time\" stroke=\"#e2e2e2\">\n");
    for (unsigned i = 0; i * step <= (double)end_ns; i++) {
        double x = picture_x(picture, (uint64_t)(i * step));

        fprintf(picture->out, "<line x1=\"%.5g\" y1=\"%d\" x2=\"%.5g\" y2=\"%d\"/><text x=\"%.5g\" y=\"%d\" "
                "text-anchor=\"middle\" stroke=\"none\">%.*f %s</text>\n", x, picture->plot_top, x,
                picture->lanes_bottom + 4, x, picture->lanes_bottom + 18, step < unit ? 1 : 0, i * step / unit, name);
    }
    fprintf(picture->out, "</g>\n");
}

void picture_mark(const struct picture *picture, const char *name, uint64_t ns, int y, bool text_before)
{
    double x = picture_x(picture, ns), at;
    const char *unit;

    if (ns == 0)
        return;
    at = (double)ns / axis_unit(picture, &unit);
    fprintf(picture->out, "<line x1=\"%.5g\" y1=\"%d\" x2=\"%.5g\" y2=\"%d\" stroke=\"#222\" "
            "stroke-dasharray=\"4 3\"/><text x=\"%.5g\" y=\"%d\" text-anchor=\"%s\">%s %.3g %s</text>\n", x, y - 9,
            x, picture->lanes_bottom + 4, text_before ? x - 4 : x + 4, y, text_before ? "end" : "start", name, at,
            unit);
}

/* ---- Lanes ------------------------------------------------------------------------------------------------- */

static double width_of(const struct picture *picture, uint64_t ns)
{
    return picture_x(picture, ns) - PICTURE_LEFT;
}

/* The next bar of a lane: spans without room between them until they are wide enough to be seen. False at its end. */
static bool next_bar(const struct picture *picture, struct bars *bars, struct bar *ret_bar)
{
    uint64_t kind_ns[SPAN_KIND_COUNT] = {0}, kind_count[SPAN_KIND_COUNT] = {0};
    const struct span *longest[SPAN_KIND_COUNT] = {NULL};
    struct bar bar = {0};

    if (bars->next == bars->end)
        return false;
    bar.start_ns = bar.end_ns = bars->next->start_ns;
    do {
        const struct span *span = bars->next++;
        uint64_t ns = span->end_ns - span->start_ns;

        if (!longest[span->kind] || ns > longest[span->kind]->end_ns - longest[span->kind]->start_ns)
            longest[span->kind] = span;
        kind_ns[span->kind] += ns;
        kind_count[span->kind]++;
        bar.count++;
        bar.end_ns = span->end_ns;
    } while (bars->next < bars->end && width_of(picture, bar.end_ns - bar.start_ns) < picture->bar_width_min &&
             width_of(picture, bars->next->start_ns - bar.end_ns) < picture->bar_width_min);
    for (unsigned kind = 0; kind < SPAN_KIND_COUNT; kind++)
        if (longest[kind] && (!bar.longest || kind_ns[kind] > kind_ns[bar.kind])) {
            bar.kind = (enum span_kind)kind;
            bar.longest = longest[kind];
        }
    bar.kind_count = kind_count[bar.kind];
    *ret_bar = bar;
    return true;
}

static struct bars bars_of(const struct lane *lane)
{
    return (struct bars){.next = lane->spans, .end = lane->spans + lane->count};
}

/* What a reader sees who points at it. */
static void put_bar_title(const struct picture *picture, const struct bar *bar)
{
    const struct span *span = bar->longest;
    bool several = bar->kind_count > 1;

    fprintf(picture->out, "<title>");
    if (several)
        fprintf(picture->out, "%" PRIu64 ", most of the time ", bar->count);
    fprintf(picture->out, "%s, %.3f to %.3f ms", span->name,
            (double)(several ? bar->start_ns : span->start_ns) / 1e6,
            (double)(several ? bar->end_ns : span->end_ns) / 1e6);
    if (!several && span->bytes > 0)
        fprintf(picture->out, ", %s", text_bytes(span->bytes).s);
    if (!several && span->kind == SPAN_BUSY)
        fprintf(picture->out, " in %s", text_count(span->count, "read").s);
    if (!several && span->event && span->event->tensor) {
        fprintf(picture->out, ", ");
        put_name(picture->out, span->event->tensor->name, span->event->tensor->name_bytes);
    }
    fprintf(picture->out, "</title>");
}

static void put_bars(const struct picture *picture, const struct lane *lane, enum span_kind kind)
{
    struct bars bars = bars_of(lane);
    bool begun = false;
    struct bar bar;

    while (next_bar(picture, &bars, &bar)) {
        double width = width_of(picture, bar.end_ns - bar.start_ns);

        if (bar.kind != kind)
            continue;
        if (!begun)
            fprintf(picture->out, "<g fill=\"%s\">", looks[kind].colour);
        begun = true;
        fprintf(picture->out, "<rect x=\"%.5g\" width=\"%.3g\" height=\"%d\">",
                picture_x(picture, bar.start_ns), width > BAR_WIDTH_SHOWN ? width : BAR_WIDTH_SHOWN,
                picture->bar_height);
        put_bar_title(picture, &bar);
        fprintf(picture->out, "</rect>\n");
    }
    if (begun)
        fprintf(picture->out, "</g>\n");
}

static void put_lane(const struct picture *picture, const struct lane *lane, int y)
{
    fprintf(picture->out, "<g class=\"lane\" transform=\"translate(0 %d)\">"
            "<rect x=\"%d\" width=\"%d\" height=\"%d\" fill=\"#000\" fill-opacity=\"0.035\"/>"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", y + 2, PICTURE_LEFT,
            PICTURE_RIGHT - PICTURE_LEFT, picture->bar_height, PICTURE_LEFT - 6, picture->bar_height - 2, lane->name);
    for (unsigned kind = 0; kind < SPAN_KIND_COUNT; kind++)
        put_bars(picture, lane, (enum span_kind)kind);
    fprintf(picture->out, "</g>\n");
}

/* Lays the lanes out, those only in which something was; put: draws them too. Returns where they end. */
static int lay_lanes(const struct picture *picture, bool put)
{
    const struct lanes *lanes = picture->lanes;
    enum lane_group group = LANE_PHASES;
    int y = picture->lanes_top;

    for (size_t i = 0; i < lanes->lane_count; i++) {
        const struct lane *lane = &lanes->lanes[i];

        if (!is_drawn(lane))
            continue;
        y += lane->group != group ? GAP : 0;
        group = lane->group;
        if (put)
            put_lane(picture, lane, y);
        y += picture->lane_height;
    }
    return y;
}

static size_t count_bars(const struct picture *picture)
{
    size_t count = 0;

    for (size_t i = 0; i < picture->lanes->lane_count; i++) {
        struct bars bars = bars_of(&picture->lanes->lanes[i]);
        struct bar bar;

        while (is_drawn(&picture->lanes->lanes[i]) && next_bar(picture, &bars, &bar))
            count++;
    }
    return count;
}

/* ---- All of it --------------------------------------------------------------------------------------------- */

/* Many lanes are lower, many bars wider: what is drawn stays within what a browser draws at once. */
static void choose_sizes(struct picture *picture)
{
    size_t drawn = 0;

    for (size_t i = 0; i < picture->lanes->lane_count; i++) {
        drawn += is_drawn(&picture->lanes->lanes[i]);
        picture->lanes_left_out += picture->lanes->lanes[i].count > 0 && !is_drawn(&picture->lanes->lanes[i]);
    }
    picture->lane_height = drawn <= 32 ? 14 : 11;
    picture->bar_height = picture->lane_height - 3;
    picture->lanes_bottom = lay_lanes(picture, false);
    picture->bar_width_min = BAR_WIDTH_MIN;
    while (picture->bar_width_min < PICTURE_RIGHT - PICTURE_LEFT && count_bars(picture) > BARS_MAX)
        picture->bar_width_min *= 1.5;
}

void picture_begin(struct picture *picture, const char *done)
{
    const char *model = picture->lanes->session->options->model;
    int height;

    choose_sizes(picture);
    height = picture->lanes_bottom + 34;
    fprintf(picture->out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" role=\"img\" font-family=\"system-ui, 'Segoe UI', Roboto, Helvetica, Arial, "
            "sans-serif\" font-size=\"12\" fill=\"#222\">\n<title>", WIDTH, height, WIDTH, height);
    put_file_name(picture->out, model);
    fprintf(picture->out, " %s by tundish %s</title>\n<rect x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"8\" "
            "fill=\"#fff\" stroke=\"#ccc\"/>\n<text x=\"24\" y=\"32\" font-size=\"17\" font-weight=\"bold\">", done,
            tnd_version(), WIDTH - 1, height - 1);
    put_file_name(picture->out, model);
    fprintf(picture->out, "</text>\n");
}

void picture_lanes(const struct picture *picture)
{
    fprintf(picture->out, "<g font-size=\"%d\">\n", picture->bar_height);
    lay_lanes(picture, true);
    fprintf(picture->out, "</g>\n");
}

void picture_end(const struct picture *picture)
{
    fprintf(picture->out, "</svg>\n");
}
