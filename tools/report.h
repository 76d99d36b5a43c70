/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_REPORT_H
#define TOOLS_REPORT_H

/* What a load was like: for people, or as one JSON object with every key that scripts may rely on. */

#include <stddef.h>
#include <stdint.h>

#include "session.h"

/* runs_ns: wall time of each run, the session's being the last. */
void report_text(const struct session *session, const uint64_t *runs_ns, size_t run_count);
void report_json(const struct session *session, const uint64_t *runs_ns, size_t run_count);

/* "disk", … as in "limited by: disk". */
const char *report_limit_name(enum tnd_limit limit);

#endif
