/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_SESSION_H
#define TOOLS_SESSION_H

/* One model on its way into memory, with progress, SIGINT and clocks; what load and digest share. A loader serves all
 * loads of a session. */

#include <stdint.h>

#include "options.h"
#include "tundish.h"

struct session {
    const struct options *options;
    struct tnd_loader *loader;
    struct tnd_model *model;
    struct tnd_load *load;
    uint64_t wall_ns; /* first call to the library → all is there */
    uint64_t cpu_ns;  /* of the process, over the same span */
};

/* Opens the model and loads it. Returns 0, or an exit code when a sentence has been written. */
int session_load(struct session *session);

/* Gives load and model back; the loader stays for the next load. */
void session_unload(struct session *session);

void session_finish(struct session *session);

#endif
