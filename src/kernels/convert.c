/* SPDX-License-Identifier: Apache-2.0 */

/* One float format into another in plain C: what runs everywhere, and what every other variant equals bit for bit. */

#include "base/bytes.h"
#include "kernels/element.h"
#include "kernels/lists.h"

/* The two types are constants wherever these are called; inlining leaves one plain loop for each pair. */

TND_KERNEL_INLINE size_t element_bytes(enum tnd_dtype dtype)
{
    return dtype == TND_F64 ? 8 : dtype == TND_F32 ? 4 : dtype == TND_F16 || dtype == TND_BF16 ? 2 : 1;
}

TND_KERNEL_INLINE uint32_t load(enum tnd_dtype from, const uint8_t *at)
{
    return element_bytes(from) == 4 ? tnd_le32(at) : element_bytes(from) == 2 ? tnd_le16(at) : *at;
}

TND_KERNEL_INLINE void convert(enum tnd_dtype from, enum tnd_dtype to, void *destination, const uint8_t *source,
                               size_t elements, struct tnd_range_counts *counts)
{
    uint64_t overflowed = 0, underflowed = 0;

    for (size_t i = 0; i < elements; i++) {
        const uint8_t *at = source + i * element_bytes(from);
        struct tnd_element element = from == TND_F64 ? tnd_element_of_f64(to, tnd_le64(at))
                                                     : tnd_element_of_f32(to, tnd_f32_of_element(from, load(from, at)));

        overflowed += element.overflowed;
        underflowed += element.underflowed;
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
