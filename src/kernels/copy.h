/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_COPY_H
#define TND_KERNELS_COPY_H

#include <stddef.h>

#define TND_STREAM_BYTES_MIN 4096 /* below, the fence costs more than the stores save */

/* memcpy for a destination that this core will not read again: long copies are stored past the cache, which leaves it
 * to the buffers that reads land in. Visible to other threads as after any store once they synchronise. */
void tnd_copy_stream(void *destination, const void *source, size_t bytes);

#endif
