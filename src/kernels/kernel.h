/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_KERNEL_H
#define TND_KERNELS_KERNEL_H

/* Elements of one type into elements of another. One list serves dispatch, tests and benches.
 *
 * All kernels of a pair of types give the same bits in the environment that tnd_kernel_thread_init() sets: decoded in
 * F32 (F64 for F64 sources), rounded once to nearest even, subnormals exact, a NaN written as 0x7E00 (F16), 0x7FC0
 * (BF16), 0x7FC00000 (F32). */

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "tundish.h"

/* What the narrower type could not hold. */
struct tnd_range_counts {
    uint64_t overflowed;  /* finite, became infinite */
    uint64_t underflowed; /* not zero, became zero */
};

struct tnd_kernel {
    enum tnd_dtype from, to;
    enum tnd_isa isa;
    /* elements: a multiple of from's block. source: any address. destination: on to's element; it does not overlap the
     * source, and is taken as memory that this core will not read again: long stretches are stored past the cache and
     * are visible to other threads as after any store once they synchronise. Adds to *counts. */
    void (*run)(void *destination, const void *source, size_t elements, struct tnd_range_counts *counts);
};

/* Once on each thread that runs kernels: a thread inherits rounding, and what becomes of subnormals, from the one that
 * made it, which may have been told otherwise. */
void tnd_kernel_thread_init(void);

/* The best kernel for a pair of types at a level not above isa; NULL when that pair is not converted. */
const struct tnd_kernel *tnd_kernel_find(enum tnd_dtype from, enum tnd_dtype to, enum tnd_isa isa);
/* All of them; NULL beyond the last. */
const struct tnd_kernel *tnd_kernel_at(size_t index);

#endif
