/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <stdlib.h>

#include "report.h"
#include "session.h"
#include "text.h"

int command_load(const struct options *options)
{
    struct session session = {.options = options};
    uint64_t *runs_ns = calloc(options->repeat, sizeof(*runs_ns));
    int code = 0;

    if (!runs_ns)
        return fail(EXIT_RESOURCE, "out of memory for the times of the runs");
    for (size_t i = 0; i < options->repeat && code == 0; i++) {
        session_unload(&session); /* before the next one needs the memory */
        code = session_load(&session);
        runs_ns[i] = session.wall_ns;
    }
    if (code == 0 && options->json)
        report_json(&session, runs_ns, options->repeat);
    else if (code == 0)
        report_text(&session, runs_ns, options->repeat);
    session_finish(&session);
    free(runs_ns);
    return code;
}
