/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_LISTS_H
#define TND_KERNELS_LISTS_H

/* The lists that kernel.c puts together: one for each file of kernels, ended by an entry without run. */

#include "kernels/kernel.h"

extern const struct tnd_kernel tnd_kernels_convert[];
extern const struct tnd_kernel tnd_kernels_dequant[];
#if defined(__x86_64__)
extern const struct tnd_kernel tnd_kernels_convert_avx2[];
extern const struct tnd_kernel tnd_kernels_convert_avx512[];
extern const struct tnd_kernel tnd_kernels_dequant_avx2[];
extern const struct tnd_kernel tnd_kernels_dequant_avx2_iq[];
#endif

#endif
