/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_HANG_H
#define TND_PIPELINE_HANG_H

/* Devices that never give a read back: a transfer none of whose reads comes back for read_timeout_ns is given up, and
 * with it the buffers that the kernel may still write to. Belongs to the driver. */

#include "pipeline/pipeline.h"

/* How long a wait may be (timeout_ns < 0: no limit) before a transfer is to be looked at again. */
int64_t tnd_hang_due(const struct tnd_pipeline *pipeline, int64_t timeout_ns);
/* Gives up the transfers that are due; called when no read has come back. */
void tnd_hang_give_up(struct tnd_pipeline *pipeline);

#endif
