/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/depth.h"

#define STRETCH_BYTES ((uint64_t)64 << 20)
#define GAIN_MIN 1.10 /* less is noise: a deeper queue must earn its colder buffers */

void tnd_depth_init(struct tnd_depth *depth, uint32_t start, uint32_t depth_max)
{
    *depth = (struct tnd_depth){.depth = start, .depth_max = depth_max, .settled = depth_max <= start};
}

void tnd_depth_interrupted(struct tnd_depth *depth)
{
    depth->start_ns = 0;
    depth->bytes = 0;
    depth->warm = false;
}

static void stretch_over(struct tnd_depth *depth, double rate)
{
    if (depth->best_depth && rate < depth->best_rate * GAIN_MIN) {
        depth->depth = depth->best_depth;
        depth->settled = true;
        return;
    }
    depth->best_depth = depth->depth;
    depth->best_rate = rate;
    if (depth->depth >= depth->depth_max)
        depth->settled = true;
    else
        depth->depth = depth->depth * 2 < depth->depth_max ? depth->depth * 2 : depth->depth_max;
}

void tnd_depth_finished(struct tnd_depth *depth, uint32_t read_bytes, uint64_t now_ns)
{
    if (depth->settled)
        return;
    if (!depth->start_ns) {
        depth->start_ns = now_ns;
        return;
    }
    depth->bytes += read_bytes;
    if (depth->bytes < STRETCH_BYTES || now_ns <= depth->start_ns)
        return;
    if (depth->warm)
        stretch_over(depth, (double)depth->bytes / (double)(now_ns - depth->start_ns));
    depth->warm = !depth->warm;
    depth->start_ns = now_ns;
    depth->bytes = 0;
}
