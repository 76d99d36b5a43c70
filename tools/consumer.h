/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_CONSUMER_H
#define TOOLS_CONSUMER_H

/* One that takes a model's layers in turn, token after token, as inference does: acquires a layer, computes on one core
 * for so long, releases it. Tells what it had to wait for. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "course.h"
#include "session.h"
#include "tundish.h"

/* Of a token, or of all. */
struct counts {
    uint64_t sync_loads, hits, late_hits;
    uint64_t stalled_ns;
    uint64_t bytes_reread;
    uint64_t first_layer_ns; /* from the start until the first layer could be computed with */
    uint64_t wall_ns;        /* the first token's is from the start of the load on */
};

struct layer_stalls {
    uint64_t stalls, stalled_ns;
};

/* While a layer was acquired, since the start of the load. */
struct stay {
    uint32_t layer_index; /* of the course */
    uint64_t start_ns, end_ns;
};

#define REASONS_MAX 8
#define STAYS_MAX ((size_t)1 << 20) /* 24 MiB of them */

struct consumer {
    struct session *session; /* its model is open */
    const struct course *course;
    uint64_t tokens, compute_ns; /* compute: for a layer */
    bool keeps_stays;

    uint64_t load_ns; /* CLOCK_MONOTONIC: the start of the load */
    struct counts total, *per_token; /* [tokens] */
    struct layer_stalls *per_layer;  /* [layer_count] */
    struct stay *stays; /* [stay_count] */
    size_t stay_count;
    uint64_t stays_dropped; /* over the limit */
    struct tnd_layer_stats stats;
    struct tnd_load_stats load_stats;
    char *reasons[REASONS_MAX]; /* why the load went the way it went; NULL behind the last */
    uint32_t cached_percent; /* of the model, in the page cache before the load */
    int code;                /* of the walk */
};

/* Starts the session's load, walks, gives the load back. Returns 0, or an exit code when a sentence has been
 * written. */
int consumer_run(struct consumer *consumer);
/* Takes {0} too. */
void consumer_finish(struct consumer *consumer);

#endif
