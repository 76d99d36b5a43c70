/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_PICTURE_H
#define TOOLS_PICTURE_H

/* Lanes over time as a picture, around what else a picture shows. No script, its own background, at most a few thousand
 * bars: what would be too narrow to see is drawn together. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lanes.h"

/* In units of the picture, which are pixels where it is shown at its own size. */
#define PICTURE_LEFT 80 /* of the plot: lanes have their names there */
#define PICTURE_RIGHT 976

struct picture {
    FILE *out;
    const struct lanes *lanes;
    int plot_top, lanes_top; /* where the lines of the time axis begin, and the lanes */
    double bar_width_min;
    int lane_height, bar_height, lanes_bottom;
    size_t lanes_left_out;
};

/* The picture's size, background and heading. done: what was done with the model, "loaded". */
void picture_begin(struct picture *picture, const char *done);
/* Of the kinds of spans that there are. */
void picture_legend(const struct picture *picture);
void picture_time_axis(const struct picture *picture);
void picture_lanes(const struct picture *picture);
/* A line through all at a moment; nothing at 0. y: of its text. */
void picture_mark(const struct picture *picture, const char *name, uint64_t ns, int y, bool text_before);
void picture_end(const struct picture *picture);

double picture_x(const struct picture *picture, uint64_t ns);
/* The least of 1, 2, 5, 10, … times unit that divides amount into no more than so many. */
double picture_step(double amount, double unit, unsigned parts_max);

#endif
