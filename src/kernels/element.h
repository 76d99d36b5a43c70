/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_ELEMENT_H
#define TND_KERNELS_ELEMENT_H

/* One element of a float type into another, in C that CUDA compiles too. The types are constants wherever these are
 * called; inlining leaves the lines of one pair. */

#include <stdbool.h>

#include "kernels/float.h"
#include "tundish.h"

struct tnd_element {
    uint32_t bits;    /* in the new type */
    bool overflowed;  /* finite, became infinite */
    bool underflowed; /* not zero, became zero */
};

/* What every source but F64 fits in. */
TND_KERNEL_INLINE float tnd_f32_of_element(enum tnd_dtype from, uint32_t bits)
{
    switch (from) {
    case TND_F16:
        return tnd_f32_of_f16((uint16_t)bits);
    case TND_BF16:
        return tnd_f32_of_bf16((uint16_t)bits);
    case TND_F8_E4M3:
        return tnd_f32_of_e4m3((uint8_t)bits);
    case TND_F8_E5M2:
        return tnd_f32_of_e5m2((uint8_t)bits);
    default:
        return tnd_f32_of_bits(bits);
    }
}

/* finite, zero: the old value. */
TND_KERNEL_INLINE struct tnd_element tnd_element_of(enum tnd_dtype to, uint32_t bits, bool finite, bool zero)
{
    uint32_t infinity = to == TND_F16 ? TND_F16_INF : to == TND_BF16 ? TND_BF16_INF : TND_F32_INF;
    uint32_t rest = bits & (to == TND_F32 ? 0x7FFFFFFFu : 0x7FFFu);
    struct tnd_element element;

    element.bits = bits;
    element.overflowed = finite && rest == infinity;
    element.underflowed = !zero && rest == 0;
    return element;
}

TND_KERNEL_INLINE struct tnd_element tnd_element_of_f32(enum tnd_dtype to, float value)
{
    uint32_t bits = tnd_f32_bits(value), rest = bits & 0x7FFFFFFFu;
    uint32_t narrow;

    if (to == TND_F16)
        narrow = tnd_f16_of_f32(value);
    else if (to == TND_BF16)
        narrow = tnd_bf16_of_f32(value);
    else
        narrow = rest > TND_F32_INF ? TND_F32_NAN : bits;
    return tnd_element_of(to, narrow, rest < TND_F32_INF, rest == 0);
}

TND_KERNEL_INLINE struct tnd_element tnd_element_of_f64(enum tnd_dtype to, uint64_t bits)
{
    uint64_t rest = bits & INT64_MAX;
    uint32_t narrow;

    if (to == TND_F16)
        narrow = tnd_narrow_f64(bits, 5, 10);
    else if (to == TND_BF16)
        narrow = tnd_narrow_f64(bits, 8, 7);
    else
        narrow = tnd_narrow_f64(bits, 8, 23);
    return tnd_element_of(to, narrow, rest < TND_F64_INF, rest == 0);
}

#endif
