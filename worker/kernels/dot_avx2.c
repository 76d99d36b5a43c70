/* SPDX-License-Identifier: Apache-2.0 */
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

#include "kernels/dot_avx2.h"

/* Products are added up in pairs, in sixteen bits, which quants of seven bits do not overflow. Without their bias wide
 * ones have seven bits and a sign, which goes over to the activations. */
INLINE __m256i dot(const bool wide, const struct dot_weights *weights, const struct dot_values *x, uint32_t half)
{
    __m256i sum = wide ? _mm256_setzero_si256() : _mm256_load_si256((const __m256i *)(x->start + half));

    for (int step = 0; step < DOT_STEPS; step++) {
        __m256i weight = _mm256_load_si256((const __m256i *)weights->quants[step][half]);
        __m256i value = _mm256_load_si256((const __m256i *)x->quants[step][half]);
        __m256i pairs;

        if (wide) {
            weight = _mm256_xor_si256(weight, _mm256_set1_epi8((char)DOT_BIAS_WIDE));
            value = _mm256_sign_epi8(value, weight);
            weight = _mm256_abs_epi8(weight);
        }
        pairs = _mm256_maddubs_epi16(weight, value);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return sum;
}

const struct dot_variant dot_avx2 = {"avx2", floats, spans, dot_quantise_avx2, dot_unpack_avx2};
