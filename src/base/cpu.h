/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_CPU_H
#define TND_BASE_CPU_H

/* What this processor, and the system on it, let a kernel use; each level holds the ones before it. */
enum tnd_isa {
    TND_ISA_C,      /* what the compiler takes for granted */
    TND_ISA_AVX2,   /* AVX2, F16C */
    TND_ISA_AVX512, /* AVX-512 F, BW, DQ and VL */
    TND_ISA_COUNT
};

/* The highest level that works here. Threads: any. */
enum tnd_isa tnd_isa_best(void);
/* "c", "avx2", "avx512". */
const char *tnd_isa_name(enum tnd_isa isa);

#endif
