/* SPDX-License-Identifier: Apache-2.0 */
#define TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))
#define INLINE TARGET static inline __attribute__((always_inline))

#include "kernels/dot_avx2.h"

INLINE __m256i dot(const bool wide, const struct dot_weights *weights, const struct dot_values *x, uint32_t half)
{
    __m256i sum = _mm256_load_si256((const __m256i *)(x->start + half));

    (void)wide; /* four products are added up in 32 bits */
    for (int step = 0; step < DOT_STEPS; step++)
        sum = _mm256_dpbusd_avx_epi32(sum, _mm256_load_si256((const __m256i *)weights->quants[step][half]),
                                      _mm256_load_si256((const __m256i *)x->quants[step][half]));
    return sum;
}

const struct dot_variant dot_avxvnni = {"avxvnni", floats, spans, dot_quantise_avx2, dot_unpack_avx2};
