/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_WALK_H
#define TOOLS_WALK_H

/* A walk: three passes over the same layers with the same loader, each a load of its own, and what arithmetic says of
 * the last two. */

#include "consumer.h"
#include "options.h"
#include "prediction.h"
#include "session.h"

/* Of what it takes to read a layer: a consumer that a disk just keeps up with. */
#define COMPUTE_SHARE 1.05

struct walk {
    const struct options *options; /* as they were given */
    struct session session;        /* its model stays open */
    struct course course;
    uint64_t read_ns, compute_ns;  /* of a layer */
    struct consumer measuring;     /* one token without computing: read_ns */
    struct consumer ahead, alone;  /* as asked for, and the same with nothing fetched ahead */
    struct prediction predicted_ahead, predicted_alone;
    bool cold;     /* the page cache is emptied of the model before each pass */
    bool compared; /* nothing ahead was not what was asked for, so that alone says more */
};

/* What it was like: for people, or as one JSON object. */
void walk_report_text(const struct walk *walk);
void walk_report_json(const struct walk *walk);

#endif
