/* SPDX-License-Identifier: Apache-2.0 */

/* One float format into another in plain C: what runs everywhere, and what every other variant equals bit for bit. */

#include "base/bytes.h"
#include "kernels/float.h"
#include "kernels/lists.h"

/* The two types are constants wherever these are called; inlining leaves one plain loop for each pair. */
#define INLINE static inline __attribute__((always_inline))

struct element {
    uint32_t bits; /* in the new type */
    bool finite;   /* both of the old value */
    bool zero;
};

/* What every source but F64 fits in. */
INLINE float decode(enum tnd_dtype from, const uint8_t *at)
{
    switch (from) {
    case TND_F16:
        return tnd_f32_of_f16(tnd_le16(at));
    case TND_BF16:
        return tnd_f32_of_bf16(tnd_le16(at));
    case TND_F8_E4M3:
        return tnd_f32_of_e4m3(*at);
    case TND_F8_E5M2:
        return tnd_f32_of_e5m2(*at);
    default:
        return tnd_f32_of_bits(tnd_le32(at));
    }
}

INLINE struct element element_of_f32(enum tnd_dtype to, float value)
{
    uint32_t bits = tnd_f32_bits(value), rest = bits & 0x7FFFFFFFu;
    struct element element = {.finite = rest < TND_F32_INF, .zero = rest == 0};

    if (to == TND_F16)
        element.bits = tnd_f16_of_f32(value);
    else if (to == TND_BF16)
        element.bits = tnd_bf16_of_f32(value);
    else
        element.bits = rest > TND_F32_INF ? TND_F32_NAN : bits;
    return element;
}

INLINE struct element element_of_f64(enum tnd_dtype to, uint64_t bits)
{
    uint64_t rest = bits & INT64_MAX;
    struct element element = {.finite = rest < TND_F64_INF, .zero = rest == 0};

    if (to == TND_F16)
        element.bits = tnd_narrow_f64(bits, 5, 10);
    else if (to == TND_BF16)
        element.bits = tnd_narrow_f64(bits, 8, 7);
    else
        element.bits = tnd_narrow_f64(bits, 8, 23);
    return element;
}

INLINE size_t element_bytes(enum tnd_dtype dtype)
{
    return dtype == TND_F64 ? 8 : dtype == TND_F32 ? 4 : dtype == TND_F16 || dtype == TND_BF16 ? 2 : 1;
}

INLINE void convert(enum tnd_dtype from, enum tnd_dtype to, void *destination, const uint8_t *source, size_t elements,
                    struct tnd_range_counts *counts)
{
    uint32_t infinity = to == TND_F16 ? TND_F16_INF : to == TND_BF16 ? TND_BF16_INF : TND_F32_INF;
    uint32_t magnitude = to == TND_F32 ? 0x7FFFFFFFu : 0x7FFFu;
    uint64_t overflowed = 0, underflowed = 0;

    for (size_t i = 0; i < elements; i++) {
        const uint8_t *at = source + i * element_bytes(from);
        struct element element =
            from == TND_F64 ? element_of_f64(to, tnd_le64(at)) : element_of_f32(to, decode(from, at));

        overflowed += element.finite && (element.bits & magnitude) == infinity;
        underflowed += !element.zero && (element.bits & magnitude) == 0;
        if (to == TND_F32)
            ((uint32_t *)destination)[i] = element.bits;
        else
            ((uint16_t *)destination)[i] = (uint16_t)element.bits;
    }
    counts->overflowed += overflowed;
    counts->underflowed += underflowed;
}

#define FUNCTION(from, to)                                                                                             \
    static void from##_to_##to(void *destination, const void *source, size_t elements,                                 \
                               struct tnd_range_counts *counts)                                                        \
    {                                                                                                                  \
        convert(TND_##from, TND_##to, destination, source, elements, counts);                                          \
    }
#define ENTRY(from, to) {TND_##from, TND_##to, TND_ISA_C, from##_to_##to}

FUNCTION(F64, F32)
FUNCTION(F64, F16)
FUNCTION(F64, BF16)
FUNCTION(F32, F16)
FUNCTION(F32, BF16)
FUNCTION(F16, F32)
FUNCTION(F16, BF16)
FUNCTION(BF16, F32)
FUNCTION(BF16, F16)
FUNCTION(F8_E4M3, F32)
FUNCTION(F8_E4M3, F16)
FUNCTION(F8_E4M3, BF16)
FUNCTION(F8_E5M2, F32)
FUNCTION(F8_E5M2, F16)
FUNCTION(F8_E5M2, BF16)

const struct tnd_kernel tnd_kernels_convert[] = {
    ENTRY(F64, F32),
    ENTRY(F64, F16),
    ENTRY(F64, BF16),
    ENTRY(F32, F16),
    ENTRY(F32, BF16),
    ENTRY(F16, F32),
    ENTRY(F16, BF16),
    ENTRY(BF16, F32),
    ENTRY(BF16, F16),
    ENTRY(F8_E4M3, F32),
    ENTRY(F8_E4M3, F16),
    ENTRY(F8_E4M3, BF16),
    ENTRY(F8_E5M2, F32),
    ENTRY(F8_E5M2, F16),
    ENTRY(F8_E5M2, BF16),
    {0},
};
