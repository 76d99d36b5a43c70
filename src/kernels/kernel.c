/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernel.h"

#include "kernels/lists.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static const struct tnd_kernel *const lists[] = {
    tnd_kernels_convert,
    tnd_kernels_dequant,
#if defined(__x86_64__)
    tnd_kernels_convert_avx2,
    tnd_kernels_convert_avx512,
    tnd_kernels_dequant_avx2,
    tnd_kernels_dequant_avx2_iq,
#endif
};

void tnd_kernel_thread_init(void)
{
#if defined(__x86_64__)
    _mm_setcsr(0x1F80); /* all exceptions masked, to nearest even, nothing flushed to zero */
#endif
}

#define LIST_COUNT (sizeof(lists) / sizeof(lists[0]))

const struct tnd_kernel *tnd_kernel_at(size_t index)
{
    for (size_t i = 0; i < LIST_COUNT; i++)
        for (const struct tnd_kernel *kernel = lists[i]; kernel->run; kernel++)
            if (index-- == 0)
                return kernel;
    return NULL;
}

const struct tnd_kernel *tnd_kernel_find(enum tnd_dtype from, enum tnd_dtype to, enum tnd_isa isa)
{
    const struct tnd_kernel *best = NULL;

    for (size_t i = 0; i < LIST_COUNT; i++)
        for (const struct tnd_kernel *kernel = lists[i]; kernel->run; kernel++)
            if (kernel->from == from && kernel->to == to && kernel->isa <= isa && (!best || kernel->isa > best->isa))
                best = kernel;
    return best;
}
