/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_CONVERT_X86_H
#define TND_KERNELS_CONVERT_X86_H

/* What the converters for x86 have in common: a stretch is cut into cache lines of results, and a file's own step() and
 * part() compute a line. Included once by each such file, which has defined TARGET, the attribute of functions that
 * need more than every processor has, and INLINE, which is that and inlining: types are constants in every call, and
 * one plain loop is left for each pair.
 *
 * Conversions round as an operand says and neither flush subnormals nor read them as zero, whatever MXCSR holds. What
 * is left to do by hand is rare and recognised by the results: zero, infinite, NaN. */

#include <immintrin.h>
#include <stdbool.h>

#include "kernels/copy.h"
#include "kernels/float.h"
#include "kernels/kernel.h"

#define LINE_BYTES 64

/* A line of results. stream: past the cache; it is aligned then. */
INLINE void step(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source, bool stream,
                 struct tnd_range_counts *counts);
/* Less than a line; may be nothing. */
INLINE void part(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source, size_t elements,
                 struct tnd_range_counts *counts);

INLINE size_t element_bytes(enum tnd_dtype dtype)
{
    return dtype == TND_F32 ? 4 : dtype == TND_F16 || dtype == TND_BF16 ? 2 : 1;
}

/* Of the two results of 16 bits, without sign. */
INLINE uint16_t infinity_of(enum tnd_dtype to)
{
    return to == TND_BF16 ? TND_BF16_INF : TND_F16_INF;
}

INLINE uint16_t nan_of(enum tnd_dtype to)
{
    return to == TND_BF16 ? TND_BF16_NAN : TND_F16_NAN;
}

/* Whole lines; returns how many elements are left. */
INLINE size_t lines(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source,
                    size_t elements, bool stream, struct tnd_range_counts *counts)
{
    size_t each = LINE_BYTES / element_bytes(to);

    for (; elements >= each; elements -= each) {
        step(from, to, destination, source, stream, counts);
        destination += LINE_BYTES;
        source += each * element_bytes(from);
    }
    return elements;
}

INLINE void convert(enum tnd_dtype from, enum tnd_dtype to, uint8_t *destination, const uint8_t *source,
                    size_t elements, struct tnd_range_counts *counts)
{
    size_t from_bytes = element_bytes(from), to_bytes = element_bytes(to), head, left;

    if (elements * to_bytes < TND_STREAM_BYTES_MIN) {
        left = lines(from, to, destination, source, elements, false, counts);
    } else {
        head = -(uintptr_t)destination % LINE_BYTES / to_bytes;
        part(from, to, destination, source, head, counts);
        left = lines(from, to, destination + head * to_bytes, source + head * from_bytes, elements - head, true,
                     counts);
        _mm_sfence(); /* streamed stores are not ordered by a lock's release */
    }
    part(from, to, destination + (elements - left) * to_bytes, source + (elements - left) * from_bytes, left, counts);
}

/* The function of a pair, and its line in the file's list. */
#define CONVERT_FUNCTION(from, to)                                                                                     \
    TARGET static void from##_to_##to(void *destination, const void *source, size_t elements,                          \
                                      struct tnd_range_counts *counts)                                                 \
    {                                                                                                                  \
        convert(TND_##from, TND_##to, destination, source, elements, counts);                                          \
    }
#define CONVERT_ENTRY(isa, from, to) {TND_##from, TND_##to, isa, from##_to_##to}

#endif
