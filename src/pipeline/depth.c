/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/depth.h"

#define STRETCH_BYTES ((uint64_t)32 << 20)
#define GAIN_MIN 1.10 /* less is noise: a deeper queue must earn its colder buffers */
#define LOSS_MIN 0.85 /* of the rate, at half the depth, before more depth is worth a try */

void tnd_depth_init(struct tnd_depth *depth, uint32_t start, uint32_t depth_max)
{
    *depth = (struct tnd_depth){
        .depth = start,
        .depth_max = depth_max,
        .phase = depth_max > start && start > 1 ? TND_DEPTH_START : TND_DEPTH_SETTLED,
        .best_depth = start,
    };
}

void tnd_depth_interrupted(struct tnd_depth *depth)
{
    depth->start_ns = 0;
    depth->bytes = 0;
    depth->warm = false;
}

static void settle(struct tnd_depth *depth)
{
    depth->depth = depth->best_depth;
    depth->phase = TND_DEPTH_SETTLED;
}

/* The best depth may be beaten by its double. */
static void go_up(struct tnd_depth *depth)
{
    depth->phase = TND_DEPTH_UP;
    depth->depth = depth->best_depth * 2 < depth->depth_max ? depth->best_depth * 2 : depth->depth_max;
    if (depth->depth == depth->best_depth)
        settle(depth);
}

static void stretch_over(struct tnd_depth *depth, double rate)
{
    switch (depth->phase) {
    case TND_DEPTH_START:
        depth->best_rate = rate;
        depth->depth /= 2;
        depth->phase = TND_DEPTH_HALF;
        break;
    case TND_DEPTH_HALF:
        if (rate < depth->best_rate * LOSS_MIN)
            go_up(depth);
        else
            settle(depth);
        break;
    case TND_DEPTH_UP:
        if (rate < depth->best_rate * GAIN_MIN) {
            settle(depth);
            break;
        }
        depth->best_depth = depth->depth;
        depth->best_rate = rate;
        go_up(depth);
        break;
    case TND_DEPTH_SETTLED:
        break;
    }
}

void tnd_depth_finished(struct tnd_depth *depth, uint32_t read_bytes, uint64_t now_ns)
{
    if (depth->phase == TND_DEPTH_SETTLED)
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
