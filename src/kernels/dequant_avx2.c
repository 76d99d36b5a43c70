/* SPDX-License-Identifier: Apache-2.0 */

/* GGML's block formats with AVX2 and F16C. One that models use much is a function that unpacks its quants to bytes, in
 * order, and puts them, sixteen a step; scaling, rounding and storing are the same for all. Nothing is looked at after
 * rounding: blocks whose scales keep every value within the range of the new type are decoded here, any other one,
 * which real models do not have, by plain C. The rest of the formats is decoded by plain C and only narrowed here. */

#include "kernels/lists.h"

#if defined(__x86_64__)
#include "base/bytes.h"
#include "kernels/avx2.h"
#include "kernels/copy.h"
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

INLINE struct group scale_at(const float *scale)
{
    return (struct group){_mm256_broadcast_ss(scale), _mm256_set1_ps(-0.0f)};
}

INLINE __m256 f16_at(const uint8_t *at)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)tnd_le16(at)));
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
INLINE bool in_range(const struct sink *sink, const uint8_t *scale, unsigned reach)
{
    unsigned limit = sink->to == TND_F16 ? TND_F16_INF - (reach << 10) : TND_F16_INF;

    return (tnd_le16(scale) & 0x7FFFu) < limit;
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

INLINE __m256i high_nibbles(__m256i bytes)
{
    return low_bits(_mm256_srli_epi16(bytes, 4), 4);
}

/* The low halves of sixteen bytes, then the high halves. */
INLINE __m256i nibbles_at(const uint8_t *at)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)at);

    return low_bits(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), 4);
}

/* A byte of ones for each of 32 bits that is set. */
INLINE __m256i bits_at(const uint8_t *at)
{
    const __m256i byte_of_bit = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)tnd_le32(at)), byte_of_bit);

    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}

INLINE __m256i look_up(__m128i table, __m256i codes)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
}

/* Scales of groups: d times eight, or sixteen, integers. */
INLINE void scale8(float *scales, __m256 d, __m256i factors)
{
    _mm256_store_ps(scales, _mm256_mul_ps(d, _mm256_cvtepi32_ps(factors)));
}

INLINE void scale16(float *scales, __m256 d, __m128i factors)
{
    scale8(scales, d, _mm256_cvtepi8_epi32(factors));
    scale8(scales + 8, d, _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(factors, factors)));
}

INLINE __m256 negated(__m256 value)
{
    return _mm256_xor_ps(value, _mm256_set1_ps(-0.0f));
}

/* The formats, as quant.h tells them. False, and nothing put: a scale out of range. */

INLINE bool q4_0(const uint8_t *block, struct sink *sink)
{
    struct group group = {f16_at(block), _mm256_set1_ps(-0.0f)};

    if (!in_range(sink, block, 3))
        return false;
    put32(sink, _mm256_sub_epi8(nibbles_at(block + 2), bytes_of(8)), group, group);
    return true;
}

INLINE bool q4_1(const uint8_t *block, struct sink *sink)
{
    struct group group = {f16_at(block), f16_at(block + 2)};

    if (!in_range(sink, block, 4) || !in_range(sink, block + 2, 4))
        return false;
    put32(sink, nibbles_at(block + 4), group, group);
    return true;
}

INLINE bool q5_0(const uint8_t *block, struct sink *sink)
{
    struct group group = {f16_at(block), _mm256_set1_ps(-0.0f)};
    __m256i less16 = _mm256_andnot_si256(bits_at(block + 2), bytes_of(-16));

    if (!in_range(sink, block, 4))
        return false;
    put32(sink, _mm256_or_si256(nibbles_at(block + 6), less16), group, group);
    return true;
}

INLINE bool q5_1(const uint8_t *block, struct sink *sink)
{
    struct group group = {f16_at(block), f16_at(block + 2)};
    __m256i high = _mm256_and_si256(bits_at(block + 4), bytes_of(16));

    if (!in_range(sink, block, 5) || !in_range(sink, block + 2, 5))
        return false;
    put32(sink, _mm256_or_si256(nibbles_at(block + 8), high), group, group);
    return true;
}

INLINE bool q8_0(const uint8_t *block, struct sink *sink)
{
    struct group group = {f16_at(block), _mm256_set1_ps(-0.0f)};

    if (!in_range(sink, block, 7))
        return false;
    put32(sink, load32(block + 2), group, group);
    return true;
}

INLINE bool q2_k(const uint8_t *block, struct sink *sink)
{
    __m128i packed = _mm_loadu_si128((const __m128i *)block), mask = _mm_set1_epi8(15);
    _Alignas(VECTOR_BYTES) float scales[16], offsets[16];

    if (!in_range(sink, block + 80, 6) || !in_range(sink, block + 82, 6))
        return false;
    scale16(scales, f16_at(block + 80), _mm_and_si128(packed, mask));
    scale16(offsets, negated(f16_at(block + 82)), _mm_and_si128(_mm_srli_epi16(packed, 4), mask));
    for (int half = 0; half < 2; half++) {
        __m256i bytes = load32(block + 16 + 32 * half);

        for (int i = 8 * half; i < 8 * half + 8; i += 2) {
            put32(sink, low_bits(bytes, 2), group_at(&scales[i], &offsets[i]),
                  group_at(&scales[i + 1], &offsets[i + 1]));
            bytes = _mm256_srli_epi16(bytes, 2);
        }
    }
    return true;
}

/* Sixteen times six bits: eight bytes have the low four bits of two each, four bytes the high two bits of four each. */
INLINE __m128i q3_k_factors(const uint8_t *at)
{
    uint64_t low = tnd_le64(at);
    __m128i nibbles = _mm_and_si128(_mm_set_epi64x((long long)(low >> 4), (long long)low), _mm_set1_epi8(15));
    __m128i high = _mm_srlv_epi32(_mm_set1_epi32((int)tnd_le32(at + 8)), _mm_set_epi32(6, 4, 2, 0));

    high = _mm_slli_epi16(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    return _mm_sub_epi8(_mm_or_si128(nibbles, high), _mm_set1_epi8(32));
}

INLINE bool q3_k(const uint8_t *block, struct sink *sink)
{
    __m256i high = load32(block);
    _Alignas(VECTOR_BYTES) float scales[16];

    if (!in_range(sink, block + 108, 7))
        return false;
    scale16(scales, f16_at(block + 108), q3_k_factors(block + 96));
    for (int half = 0; half < 2; half++) {
        __m256i low = load32(block + 32 + 32 * half);

        for (int i = 8 * half; i < 8 * half + 8; i += 2) {
            __m256i bits = _mm256_or_si256(low_bits(low, 2), _mm256_slli_epi16(low_bits(high, 1), 2));

            put32(sink, _mm256_sub_epi8(bits, bytes_of(4)), scale_at(&scales[i]), scale_at(&scales[i + 1]));
            low = _mm256_srli_epi16(low, 2);
            high = _mm256_srli_epi16(high, 1);
        }
    }
    return true;
}

/* Eight scales, then eight minima. */
INLINE __m128i q4_k_factors(const uint8_t *at)
{
    uint32_t scales = tnd_le32(at), minima = tnd_le32(at + 4), low = tnd_le32(at + 8);
    uint32_t last_scales = (low & 0x0F0F0F0F) | (scales >> 2 & 0x30303030);
    uint32_t last_minima = (low >> 4 & 0x0F0F0F0F) | (minima >> 2 & 0x30303030);

    return _mm_set_epi32((int)last_minima, (int)(minima & 0x3F3F3F3F), (int)last_scales, (int)(scales & 0x3F3F3F3F));
}

INLINE void q4_k_scales(const uint8_t *block, float *scales, float *offsets)
{
    __m128i factors = q4_k_factors(block + 4);

    scale8(scales, f16_at(block), _mm256_cvtepi8_epi32(factors));
    scale8(offsets, negated(f16_at(block + 2)), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(factors, factors)));
}

INLINE bool q4_k(const uint8_t *block, struct sink *sink)
{
    _Alignas(VECTOR_BYTES) float scales[8], offsets[8];

    if (!in_range(sink, block, 10) || !in_range(sink, block + 2, 10))
        return false;
    q4_k_scales(block, scales, offsets);
    for (int i = 0; i < 8; i += 2) {
        struct group low = group_at(&scales[i], &offsets[i]), high = group_at(&scales[i + 1], &offsets[i + 1]);
        __m256i bytes = load32(block + 16 + 16 * i);

        put32(sink, low_bits(bytes, 4), low, low);
        put32(sink, high_nibbles(bytes), high, high);
    }
    return true;
}

INLINE bool q5_k(const uint8_t *block, struct sink *sink)
{
    __m256i fifth = load32(block + 16);
    _Alignas(VECTOR_BYTES) float scales[8], offsets[8];

    if (!in_range(sink, block, 11) || !in_range(sink, block + 2, 11))
        return false;
    q4_k_scales(block, scales, offsets);
    for (int i = 0; i < 8; i += 2) {
        struct group low = group_at(&scales[i], &offsets[i]), high = group_at(&scales[i + 1], &offsets[i + 1]);
        __m256i bytes = load32(block + 48 + 16 * i);
        __m256i of_low = _mm256_slli_epi16(low_bits(fifth, 1), 4);
        __m256i of_high = _mm256_slli_epi16(_mm256_and_si256(fifth, bytes_of(2)), 3);

        put32(sink, _mm256_or_si256(low_bits(bytes, 4), of_low), low, low);
        put32(sink, _mm256_or_si256(high_nibbles(bytes), of_high), high, high);
        fifth = _mm256_srli_epi16(fifth, 2);
    }
    return true;
}

INLINE bool q6_k(const uint8_t *block, struct sink *sink)
{
    _Alignas(VECTOR_BYTES) float scales[16];

    if (!in_range(sink, block + 208, 12))
        return false;
    scale16(scales, f16_at(block + 208), _mm_loadu_si128((const __m128i *)(block + 192)));
    for (int half = 0; half < 2; half++) {
        __m256i first = load32(block + 64 * half), second = load32(block + 64 * half + 32);
        __m256i high = load32(block + 128 + 32 * half);
        __m256i low[4] = {low_bits(first, 4), low_bits(second, 4), high_nibbles(first), high_nibbles(second)};

        for (int i = 0; i < 4; i++) {
            const float *scale = &scales[8 * half + 2 * i];
            __m256i bits = _mm256_or_si256(low[i], _mm256_slli_epi16(low_bits(high, 2), 4));

            put32(sink, _mm256_sub_epi8(bits, bytes_of(32)), scale_at(scale), scale_at(scale + 1));
            high = _mm256_srli_epi16(high, 2);
        }
    }
    return true;
}

INLINE __m128i iq4_levels(void)
{
    return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

INLINE bool iq4_nl(const uint8_t *block, struct sink *sink)
{
    struct group group = {f16_at(block), _mm256_set1_ps(-0.0f)};

    if (!in_range(sink, block, 7))
        return false;
    put32(sink, look_up(iq4_levels(), nibbles_at(block + 2)), group, group);
    return true;
}

INLINE bool iq4_xs(const uint8_t *block, struct sink *sink)
{
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(tnd_le16(block + 2)), _mm256_slli_epi32(index, 1));
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)tnd_le32(block + 4)), _mm256_slli_epi32(index, 2));
    _Alignas(VECTOR_BYTES) float scales[8];

    if (!in_range(sink, block, 12))
        return false;
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    scale8(scales, f16_at(block), _mm256_sub_epi32(_mm256_or_si256(high, low), _mm256_set1_epi32(32)));
    for (int i = 0; i < 8; i++) {
        struct group group = scale_at(&scales[i]);

        put32(sink, look_up(iq4_levels(), nibbles_at(block + 8 + 16 * i)), group, group);
    }
    return true;
}

INLINE bool mxfp4(const uint8_t *block, struct sink *sink)
{
    const __m128i levels = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    float scale = tnd_mxfp4_affine(block, 0).scale;
    struct group group = scale_at(&scale);

    /* F16: from 1 * 2^-24, its smallest, to 12 * 2^12. BF16 holds all values of F32 with so few bits. */
    if (sink->to == TND_F16 && !(scale >= 0x1p-24f && scale <= 0x1p12f))
        return false;
    put32(sink, look_up(levels, nibbles_at(block + 1)), group, group);
    return true;
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

/* A format without a function of its own. */
static void in_two_steps(enum tnd_dtype from, enum tnd_dtype to, size_t block_elements, size_t block_bytes,
                         uint8_t *destination, const uint8_t *source, size_t elements, struct tnd_range_counts *counts)
{
    const struct tnd_kernel *decode = tnd_kernel_find(from, TND_F32, TND_ISA_C);
    const struct tnd_kernel *narrow = tnd_kernel_find(TND_F32, to, TND_ISA_AVX2);
    float values[8 * TND_QUANT_ELEMENTS_MAX]; /* enough that they are streamed on */

    while (elements) {
        size_t part = tnd_min(elements, sizeof(values) / sizeof(values[0]));

        decode->run(values, source, part, counts);
        narrow->run(destination, values, part, counts);
        source += part / block_elements * block_bytes;
        destination += part * sizeof(uint16_t);
        elements -= part;
    }
}

#define FORMATS(X)                                                                                                     \
    X(Q4_0, q4_0)                                                                                                      \
    X(Q4_1, q4_1)                                                                                                      \
    X(Q5_0, q5_0)                                                                                                      \
    X(Q5_1, q5_1)                                                                                                      \
    X(Q8_0, q8_0)                                                                                                      \
    X(Q2_K, q2_k)                                                                                                      \
    X(Q3_K, q3_k)                                                                                                      \
    X(Q4_K, q4_k)                                                                                                      \
    X(Q5_K, q5_k)                                                                                                      \
    X(Q6_K, q6_k)                                                                                                      \
    X(IQ4_NL, iq4_nl)                                                                                                  \
    X(IQ4_XS, iq4_xs)                                                                                                  \
    X(MXFP4, mxfp4)

#define OTHER_FORMATS(X)                                                                                               \
    X(Q8_1, q8_1)                                                                                                      \
    X(Q8_K, q8_k)                                                                                                      \
    X(IQ1_S, iq1_s)                                                                                                    \
    X(IQ1_M, iq1_m)                                                                                                    \
    X(IQ2_XXS, iq2_xxs)                                                                                                \
    X(IQ2_XS, iq2_xs)                                                                                                  \
    X(IQ2_S, iq2_s)                                                                                                    \
    X(IQ3_XXS, iq3_xxs)                                                                                                \
    X(IQ3_S, iq3_s)                                                                                                    \
    X(TQ1_0, tq1_0)                                                                                                    \
    X(TQ2_0, tq2_0)                                                                                                    \
    X(NVFP4, nvfp4)                                                                                                    \
    X(Q1_0, q1_0)                                                                                                      \
    X(Q2_0, q2_0)

#define FUNCTION(from, format, to)                                                                                     \
    TARGET static void format##_to_##to(void *destination, const void *source, size_t elements,                        \
                                        struct tnd_range_counts *counts)                                               \
    {                                                                                                                  \
        dequant(format, TND_##from, TND_##to, tnd_##format##_elements, tnd_##format##_bytes, destination, source,      \
                elements, counts);                                                                                     \
    }
#define OTHER_FUNCTION(from, format, to)                                                                               \
    static void format##_to_##to(void *destination, const void *source, size_t elements,                               \
                                 struct tnd_range_counts *counts)                                                      \
    {                                                                                                                  \
        in_two_steps(TND_##from, TND_##to, tnd_##format##_elements, tnd_##format##_bytes, destination, source,         \
                     elements, counts);                                                                                \
    }
#define ENTRY(from, format, to) {TND_##from, TND_##to, TND_ISA_AVX2, format##_to_##to},

#define FUNCTIONS(from, format) FUNCTION(from, format, F32) FUNCTION(from, format, F16) FUNCTION(from, format, BF16)
#define OTHER_FUNCTIONS(from, format) OTHER_FUNCTION(from, format, F16) OTHER_FUNCTION(from, format, BF16)
#define ENTRIES(from, format) ENTRY(from, format, F32) ENTRY(from, format, F16) ENTRY(from, format, BF16)
#define OTHER_ENTRIES(from, format) ENTRY(from, format, F16) ENTRY(from, format, BF16)

FORMATS(FUNCTIONS)
OTHER_FORMATS(OTHER_FUNCTIONS)

const struct tnd_kernel tnd_kernels_dequant_avx2[] = {FORMATS(ENTRIES) OTHER_FORMATS(OTHER_ENTRIES){0}};

#endif
