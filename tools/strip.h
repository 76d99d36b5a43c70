/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_STRIP_H
#define TOOLS_STRIP_H

/* Where a walk's layers were, as a picture: a row for each, absent, being fetched, resident or acquired. */

#include <stdio.h>

#include "consumer.h"
#include "lanes.h"
#include "trace.h"

struct strip {
    const struct consumer *consumer;
    struct lanes lanes;
};

/* Of a walk that kept its stays; trace: its layers, stopped. Returns 0, or an exit code when a sentence has been
 * written. */
int strip_make(struct strip *strip, const struct consumer *consumer, const struct trace *trace);
void strip_finish(struct strip *strip);

/* cookie: struct strip. As whole_file_write() calls it. */
void strip_write(FILE *out, const void *cookie);

#endif
