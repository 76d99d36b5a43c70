/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COURSE_H
#define TOOLS_COURSE_H

/* What there is to walk through: the layers of a load. */

#include <stdbool.h>
#include <stdint.h>

#include "session.h"

struct course {
    uint32_t *layers; /* [layer_count] their numbers, ascending */
    uint32_t layer_count;
    uint64_t layer_bytes;      /* of all layers in memory */
    uint64_t layer_file_bytes; /* and in the files */
    bool even; /* layers have one size there */
    bool shared_in, shared_out;
};

/* Of what the session would load; its model is open. Returns 0, or an exit code when a sentence has been written: also
 * when there is no layer. */
int course_make(struct course *course, const struct session *session);
/* Takes {0} too. */
void course_finish(struct course *course);

/* Where the layer stands, UINT32_MAX when it is none of them. */
uint32_t course_index(const struct course *course, int32_t layer);

#endif
