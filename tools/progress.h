/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

/* How far a load is, on stderr: on a terminal one line that is written over at each tick, else a line every 50 tensors
 * at most, with -v a line a tensor. */

#include <stdint.h>

#include "options.h"
#include "tundish.h"

#define PROGRESS_TICK_NS 100000000 /* 10 Hz: what an eye follows, and what a waiting loop may cost */

enum progress_mode { PROGRESS_NONE, PROGRESS_LINE, PROGRESS_STEPS, PROGRESS_TENSORS };

struct progress {
    struct tnd_load *load;
    enum progress_mode mode;
    uint64_t tick_ns;      /* elapsed_ns of the last tick that was one */
    uint32_t steps_shown;  /* tensors that were ready when the last line was written */
    uint32_t *pending;     /* tensors without their line */
    uint32_t pending_count;
};

/* Both decide nothing: out of memory means no lines a tensor. A tick that comes too early is none. */
void progress_start(struct progress *progress, const struct options *options, struct tnd_load *load);
void progress_tick(struct progress *progress);
/* The last line, which stays when the load went well; frees. */
void progress_end(struct progress *progress, bool arrived);

#endif
