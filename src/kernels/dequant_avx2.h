/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_DEQUANT_AVX2_H
#define TND_KERNELS_DEQUANT_AVX2_H

/* What the decoders of GGML's block formats with AVX2 and F16C have in common. A format is a function that unpacks its
 * quants to bytes, in order, and puts them, sixteen a step; scaling, rounding and storing are the same for all. Nothing
 * is looked at after rounding: blocks whose scales keep every value within the range of the new type are decoded here,
 * any other one, which real models do not have, by plain C. Included once by each file of such formats. */

#include "base/bytes.h"
#include "kernels/avx2.h"
#include "kernels/copy.h"
#include "kernels/kernel.h"
#include "kernels/quant.h"

/* Where a block's values go. */
struct sink {
    uint8_t *at;
    enum tnd_dtype to;
    bool stream;
};

/* What a group's values have in common, in every lane. */
struct group {
    __m256 scale, offset;
};

INLINE struct group group_at(const float *scale, const float *offset)
{
    return (struct group){_mm256_broadcast_ss(scale), _mm256_broadcast_ss(offset)};
}

/* No offset: as in quant.h, -0. */
INLINE struct group scale_only(__m256 scale)
{
    return (struct group){scale, _mm256_set1_ps(-0.0f)};
}

INLINE struct group scale_at(const float *scale)
{
    return scale_only(_mm256_broadcast_ss(scale));
}

INLINE __m256 f16_of(uint16_t half)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)half));
}

INLINE __m256 f16_at(const uint8_t *at)
{
    return f16_of(tnd_le16(at));
}

INLINE __m256 eight_values(__m128i quants, struct group group)
{
    __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(quants));

    return _mm256_add_ps(_mm256_mul_ps(values, group.scale), group.offset);
}

INLINE void put16(struct sink *sink, __m128i quants, struct group group)
{
    struct floats values = {eight_values(quants, group), eight_values(_mm_unpackhi_epi64(quants, quants), group)};

    if (sink->to == TND_F32) {
        store(sink->at, _mm256_castps_si256(values.low), sink->stream);
        store(sink->at + VECTOR_BYTES, _mm256_castps_si256(values.high), sink->stream);
        sink->at += 2 * VECTOR_BYTES;
    } else {
        store(sink->at, round_to(sink->to, values), sink->stream);
        sink->at += VECTOR_BYTES;
    }
}

INLINE void put32(struct sink *sink, __m256i quants, struct group low, struct group high)
{
    put16(sink, _mm256_castsi256_si128(quants), low);
    put16(sink, _mm256_extracti128_si256(quants, 1), high);
}

/* Whether an F16 scale keeps all of a block within range: values are at most 2^reach times the largest scale. None gets
 * lost below: a value that is not zero is no smaller than the smallest F16, of which all scales are multiples. */
INLINE bool half_in_range(const struct sink *sink, uint16_t scale, unsigned reach)
{
    unsigned limit = sink->to == TND_F16 ? TND_F16_INF - (reach << 10) : TND_F16_INF;

    return (scale & 0x7FFFu) < limit;
}

INLINE bool in_range(const struct sink *sink, const uint8_t *scale, unsigned reach)
{
    return half_in_range(sink, tnd_le16(scale), reach);
}

/* Bytes, bits. */

INLINE __m256i bytes_of(int value)
{
    return _mm256_set1_epi8((char)value);
}

INLINE __m256i load32(const uint8_t *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

/* The low bits of each byte. */
INLINE __m256i low_bits(__m256i bytes, int bits)
{
    return _mm256_and_si256(bytes, bytes_of((1 << bits) - 1));
}

/* The low halves of sixteen bytes, then the high halves. */
INLINE __m256i nibbles_at(const uint8_t *at)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)at);

    return low_bits(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), 4);
}

/* A byte of ones for each of 32 bits that is set. */
INLINE __m256i bytes_of_bits(uint32_t bits)
{
    const __m256i byte_of_bit = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte_of_bit);

    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}

INLINE __m256i bits_at(const uint8_t *at)
{
    return bytes_of_bits(tnd_le32(at));
}

/* 32 pairs of bits, one after the other, to bytes. */
INLINE __m256i bytes_of_pairs(uint64_t pairs)
{
    __m256i fours = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)pairs));

    fours = _mm256_or_si256(fours, _mm256_slli_epi32(fours, 12));
    return low_bits(_mm256_or_si256(fours, _mm256_slli_epi32(fours, 6)), 2);
}

INLINE __m256i look_up(__m128i table, __m256i codes)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
}

/* Scales of groups: d times eight integers. */
INLINE void scale8(float *scales, __m256 d, __m256i factors)
{
    _mm256_store_ps(scales, _mm256_mul_ps(d, _mm256_cvtepi32_ps(factors)));
}

/* A block that has a scale out of range. */
static __attribute__((noinline, cold)) void by_plain_c(enum tnd_dtype from, enum tnd_dtype to, void *destination,
                                                       const uint8_t *block, size_t elements,
                                                       struct tnd_range_counts *counts)
{
    tnd_kernel_find(from, to, TND_ISA_C)->run(destination, block, elements, counts);
}

INLINE void dequant(bool (*format)(const uint8_t *block, struct sink *sink), enum tnd_dtype from, enum tnd_dtype to,
                    size_t block_elements, size_t block_bytes, uint8_t *destination, const uint8_t *source,
                    size_t elements, struct tnd_range_counts *counts)
{
    size_t put_bytes = block_elements * (to == TND_F32 ? 4 : 2);
    size_t blocks = elements / block_elements;
    bool stream = blocks * put_bytes >= TND_STREAM_BYTES_MIN && (uintptr_t)destination % VECTOR_BYTES == 0;

    while (blocks) {
        struct sink sink = {destination, to, stream};

        for (; blocks && format(source, &sink); blocks--)
            source += block_bytes;
        destination = sink.at;
        if (blocks) { /* outside the loop: a call in it would cost the constants their registers */
            by_plain_c(from, to, destination, source, block_elements, counts);
            blocks--;
            source += block_bytes;
            destination += put_bytes;
        }
    }
    if (stream)
        _mm_sfence(); /* streamed stores are not ordered by a lock's release */
}

/* A format's three functions, and their lines in the file's list. */
#define DEQUANT_FUNCTION(from, format, to)                                                                             \
    TARGET static void format##_to_##to(void *destination, const void *source, size_t elements,                        \
                                        struct tnd_range_counts *counts)                                               \
    {                                                                                                                  \
        dequant(format, TND_##from, TND_##to, tnd_##format##_elements, tnd_##format##_bytes, destination, source,      \
                elements, counts);                                                                                     \
    }
#define DEQUANT_ENTRY(from, format, to) {TND_##from, TND_##to, TND_ISA_AVX2, format##_to_##to},

#define DEQUANT_FUNCTIONS(from, format)                                                                                \
    DEQUANT_FUNCTION(from, format, F32)                                                                                \
    DEQUANT_FUNCTION(from, format, F16)                                                                                \
    DEQUANT_FUNCTION(from, format, BF16)
#define DEQUANT_ENTRIES(from, format)                                                                                  \
    DEQUANT_ENTRY(from, format, F32) DEQUANT_ENTRY(from, format, F16) DEQUANT_ENTRY(from, format, BF16)

#endif
