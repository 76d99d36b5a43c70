/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_KERNELS_CPU_H
#define WORKER_KERNELS_CPU_H

/* What this processor, and the system on it, let a kernel use. */

#include <stdbool.h>

enum cpu_level {
    CPU_C,       /* what the compiler takes for granted */
    CPU_AVX2,    /* AVX2, FMA, F16C */
    CPU_AVXVNNI, /* the same and AVX-VNNI */
    CPU_AVX512,  /* AVX-512 F, BW, DQ, VL and VNNI, and those of CPU_AVX2 */
};

bool cpu_has(enum cpu_level level);

#endif
