/* SPDX-License-Identifier: Apache-2.0 */

/* GGML's block formats with AVX2 and F16C: the plain ones, the K formats, the ternary ones and FP4. */

#include "kernels/lists.h"

#if defined(__x86_64__)
#include "kernels/dequant_avx2.h"

INLINE __m256i high_nibbles(__m256i bytes)
{
    return low_bits(_mm256_srli_epi16(bytes, 4), 4);
}

/* Scales of groups: d times sixteen integers. */
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
    struct group group = scale_only(f16_at(block));

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
    struct group group = scale_only(f16_at(block));
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
    struct group group = scale_only(f16_at(block));

    if (!in_range(sink, block, 7))
        return false;
    put32(sink, load32(block + 2), group, group);
    return true;
}

INLINE bool q8_1(const uint8_t *block, struct sink *sink)
{
    struct group group = scale_only(f16_at(block));

    if (!in_range(sink, block, 7))
        return false;
    put32(sink, load32(block + 4), group, group);
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

INLINE bool q8_k(const uint8_t *block, struct sink *sink)
{
    float scale = tnd_f32_of_bits(tnd_le32(block)), size = scale < 0 ? -scale : scale;
    struct group group = scale_at(&scale);

    /* Times 1 no smaller than the type's smallest, times 128 far below its largest; BF16 has the range of F32. */
    if (!(size >= (sink->to == TND_F16 ? 0x1p-24f : 0x1p-126f) && size <= (sink->to == TND_F16 ? 0x1p8f : 0x1p119f)))
        return false;
    for (int i = 0; i < 8; i++)
        put32(sink, load32(block + 4 + 32 * i), group, group);
    return true;
}

/* Less one: what 3 times a byte has above the byte is 0 up to 85, and 2 from 171 on. */
INLINE __m256i tq1_digits(__m256i bytes)
{
    __m256i is_0 = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, bytes_of(85)), bytes);
    __m256i is_2 = _mm256_cmpeq_epi8(_mm256_max_epu8(bytes, bytes_of(171)), bytes);

    return _mm256_sub_epi8(is_0, is_2);
}

/* What a byte has below: the fraction that is left. */
INLINE __m256i tq1_next(__m256i bytes)
{
    return _mm256_add_epi8(_mm256_add_epi8(bytes, bytes), bytes);
}

INLINE bool tq1_0(const uint8_t *block, struct sink *sink)
{
    struct group group = scale_only(f16_at(block + 52));
    __m256i bytes = load32(block), next, last;

    if (!in_range(sink, block + 52, 0))
        return false;
    for (int i = 0; i < 5; i++) {
        put32(sink, tq1_digits(bytes), group, group);
        bytes = tq1_next(bytes);
    }
    /* The sixteen bytes, and from two digits on the four bytes too: two rounds a step. */
    bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(block + 32)));
    bytes = _mm256_blend_epi32(bytes, tq1_next(bytes), 0xF0);
    for (int i = 0; i < 2; i++) {
        put32(sink, tq1_digits(bytes), group, group);
        bytes = tq1_next(tq1_next(bytes));
    }
    last = _mm256_set1_epi32((int)tnd_le32(block + 48));
    next = tq1_next(last);
    last = _mm256_blend_epi32(last, next, 0x20);
    next = tq1_next(next);
    last = _mm256_blend_epi32(last, next, 0x40);
    last = _mm256_blend_epi32(last, tq1_next(next), 0x80);
    put32(sink, tq1_digits(_mm256_blend_epi32(bytes, last, 0xF0)), group, group);
    return true;
}

INLINE bool tq2_0(const uint8_t *block, struct sink *sink)
{
    struct group group = scale_only(f16_at(block + 64));

    if (!in_range(sink, block + 64, 1))
        return false;
    for (int half = 0; half < 2; half++) {
        __m256i bytes = load32(block + 32 * half);

        for (int i = 0; i < 4; i++) {
            put32(sink, _mm256_sub_epi8(low_bits(bytes, 2), bytes_of(1)), group, group);
            bytes = _mm256_srli_epi16(bytes, 2);
        }
    }
    return true;
}

INLINE __m128i fp4_levels(void)
{
    return _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
}

INLINE bool mxfp4(const uint8_t *block, struct sink *sink)
{
    float scale = tnd_mxfp4_affine(block, 0).scale;
    struct group group = scale_at(&scale);

    /* F16: from 1 * 2^-24, its smallest, to 12 * 2^12. BF16 holds all values of F32 with so few bits. */
    if (sink->to == TND_F16 && !(scale >= 0x1p-24f && scale <= 0x1p12f))
        return false;
    put32(sink, look_up(fp4_levels(), nibbles_at(block + 1)), group, group);
    return true;
}

/* A scale's seven bits, seven further up, are 2^-8 of it as F16. All of them, up to 240 * 12, are in range. */
INLINE bool nvfp4(const uint8_t *block, struct sink *sink)
{
    __m128i codes = _mm_cvtepu8_epi16(_mm_cvtsi32_si128((int)tnd_le32(block)));
    __m128i halves = _mm_slli_epi16(_mm_and_si128(codes, _mm_set1_epi16(0x7F)), 7);
    __m128i zero = _mm_cmpeq_epi16(codes, _mm_set1_epi16(0x7F));
    _Alignas(16) float scales[4];

    _mm_store_ps(scales, _mm_mul_ps(_mm_cvtph_ps(_mm_andnot_si128(zero, halves)), _mm_set1_ps(0x1p7f)));
    for (int i = 0; i < 4; i += 2) {
        __m256i codes_of_two = in_order(nibbles_at(block + 4 + 8 * i));

        put32(sink, look_up(fp4_levels(), codes_of_two), scale_at(&scales[i]), scale_at(&scales[i + 1]));
    }
    return true;
}

INLINE bool q1_0(const uint8_t *block, struct sink *sink)
{
    struct group group = scale_only(f16_at(block));

    if (!in_range(sink, block, 0))
        return false;
    for (int i = 0; i < 4; i++) {
        __m256i ones = bits_at(block + 2 + 4 * i);

        put32(sink, _mm256_sub_epi8(bytes_of(-1), _mm256_add_epi8(ones, ones)), group, group);
    }
    return true;
}

INLINE bool q2_0(const uint8_t *block, struct sink *sink)
{
    struct group group = scale_only(f16_at(block));

    if (!in_range(sink, block, 1))
        return false;
    for (int i = 0; i < 2; i++)
        put32(sink, _mm256_sub_epi8(bytes_of_pairs(tnd_le64(block + 2 + 8 * i)), bytes_of(1)), group, group);
    return true;
}

#define FORMATS(X)                                                                                                     \
    X(Q4_0, q4_0)                                                                                                      \
    X(Q4_1, q4_1)                                                                                                      \
    X(Q5_0, q5_0)                                                                                                      \
    X(Q5_1, q5_1)                                                                                                      \
    X(Q8_0, q8_0)                                                                                                      \
    X(Q8_1, q8_1)                                                                                                      \
    X(Q2_K, q2_k)                                                                                                      \
    X(Q3_K, q3_k)                                                                                                      \
    X(Q4_K, q4_k)                                                                                                      \
    X(Q5_K, q5_k)                                                                                                      \
    X(Q6_K, q6_k)                                                                                                      \
    X(Q8_K, q8_k)                                                                                                      \
    X(TQ1_0, tq1_0)                                                                                                    \
    X(TQ2_0, tq2_0)                                                                                                    \
    X(MXFP4, mxfp4)                                                                                                    \
    X(NVFP4, nvfp4)                                                                                                    \
    X(Q1_0, q1_0)                                                                                                      \
    X(Q2_0, q2_0)

FORMATS(DEQUANT_FUNCTIONS)

const struct tnd_kernel tnd_kernels_dequant_avx2[] = {FORMATS(DEQUANT_ENTRIES){0}};

#endif
