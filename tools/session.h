/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_SESSION_H
#define TOOLS_SESSION_H

/* One model on its way into memory, with progress, SIGINT and clocks; what load, digest and verify share. A loader
 * serves all loads of a session. */

#include <stdint.h>

#include "options.h"
#include "trace.h"
#include "tundish.h"

struct session {
    const struct options *options;
    struct tnd_loader *loader;
    struct tnd_model *model;
    struct tnd_load *load;
    struct trace *trace; /* told what the loader does, from its creation on; NULL: nobody is */
    /* CLOCK_MONOTONIC: the first call to the library, the call that made the loader (0: an earlier run's), and
     * tnd_load_start(). */
    uint64_t start_ns, loader_ns, load_ns;
    uint64_t wall_ns; /* first call to the library → all is there */
    uint64_t cpu_ns;  /* of the process, over the same span */

    /* For one that uses tensors as they arrive, and sets the pace: the memory for each, and what is called over and
     * over in place of waiting. The loader is then a foreground one, which turn() steps or lets rest; it takes no
     * longer than PROGRESS_TICK_NS and returns as tnd_load_wait(), -ETIMEDOUT while the load goes on. */
    tnd_place_fn place;
    int (*turn)(struct session *session, void *cookie);
    void *cookie; /* of both */
};

/* These return 0, or an exit code when a sentence has been written; session_finish() follows either way. */

/* Opens the model, unless it is. */
int session_open(struct session *session);
/* Opens the model and starts to load it. */
int session_start(struct session *session);
/* Waits until the load has ended. */
int session_wait(struct session *session);
/* All of that. */
int session_load(struct session *session);

/* Gives load and model back; the loader stays for the next load. */
void session_unload(struct session *session);

void session_finish(struct session *session);

#endif
