/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_FETCH_H
#define TND_PIPELINE_FETCH_H

/* The driver's side of a load that goes layer by layer: which window is read next, and what becomes of a stage whose
 * last window has come back. What is wanted is the residency's to say. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct tnd_transfer;

/* One stage on its way, or where it went. */
struct tnd_fetch {
    uint32_t window_next; /* of the stage's windows */
    uint32_t flying;      /* windows that are being read or worked */
    uint32_t slot;        /* that its spans and places point to */
    uint64_t bytes_arrived;
    uint64_t begun_ns;
    bool failed;
    bool changed; /* its file has: what else arrives of it makes it no better */
};

/* The next window to read; begins with another stage where that is due, and lets one leave for it. False: none now. */
bool tnd_fetch_next(struct tnd_transfer *transfer, uint32_t *ret_window);
/* Its read was submitted. */
void tnd_fetch_issued(struct tnd_transfer *transfer, uint32_t window);
/* The bytes of a window are in their places. */
void tnd_fetch_arrived(struct tnd_transfer *transfer, uint32_t window);
/* All of a stage was read: whether it may be used. Fails it, and tells that, when its files are no longer what they
 * were, which a stage that comes again long after its load began has to look at. */
int tnd_fetch_check(struct tnd_transfer *transfer, uint32_t stage);
/* They never will be: its stage fails, once nothing of it is under way. */
void tnd_fetch_failed(struct tnd_transfer *transfer, uint32_t window, const struct tnd_err *err);

#endif
