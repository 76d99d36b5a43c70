/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_KERNELS_FLOAT_H
#define TND_KERNELS_FLOAT_H

/* Floating-point formats as their bits, in C that CUDA compiles too. IEEE 754 binary16 and binary32; BF16 is the upper
 * half of binary32. All rounding is to nearest even; a NaN that comes out is the canonical quiet one. */

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define TND_KERNEL_FN static __host__ __device__ inline
#define TND_KERNEL_INLINE static __host__ __device__ __forceinline__
#else
#define TND_KERNEL_FN static inline
#define TND_KERNEL_INLINE static inline __attribute__((always_inline)) /* what it does depends on constants */
#endif

#define TND_F16_NAN 0x7E00u
#define TND_F16_INF 0x7C00u
#define TND_BF16_NAN 0x7FC0u
#define TND_BF16_INF 0x7F80u
#define TND_F32_NAN 0x7FC00000u
#define TND_F32_INF 0x7F800000u
#define TND_F64_INF 0x7FF0000000000000u

TND_KERNEL_FN uint32_t tnd_f32_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

TND_KERNEL_FN float tnd_f32_of_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Two bytes, little-endian, of any address. */
TND_KERNEL_FN uint16_t tnd_le16_at(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

/* Exact; a NaN keeps its sign and payload. */
TND_KERNEL_FN float tnd_f32_of_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t rest = half & 0x7FFFu;

    if (rest >= TND_F16_INF)
        return tnd_f32_of_bits(sign | TND_F32_INF | (rest & 0x3FFu) << 13);
    if (rest >= 0x400u)
        return tnd_f32_of_bits(sign | ((rest << 13) + 0x38000000u));
    /* Subnormal: rest * 2^-24, which both the product and binary32 hold exactly. */
    return tnd_f32_of_bits(sign | tnd_f32_bits((float)rest * 0x1p-24f));
}

/* Exact; a NaN keeps its sign and payload. */
TND_KERNEL_FN float tnd_f32_of_bf16(uint16_t half)
{
    return tnd_f32_of_bits((uint32_t)half << 16);
}

/* OCP E4M3: exact; no infinities, and one NaN of either sign. */
TND_KERNEL_FN float tnd_f32_of_e4m3(uint8_t byte)
{
    uint32_t sign = (uint32_t)(byte & 0x80u) << 24;
    uint32_t rest = byte & 0x7Fu;

    if (rest == 0x7Fu)
        return tnd_f32_of_bits(TND_F32_NAN);
    if (rest >= 8u)
        return tnd_f32_of_bits(sign | ((rest << 20) + 0x3C000000u));
    return tnd_f32_of_bits(sign | tnd_f32_bits((float)rest * 0x1p-9f));
}

/* OCP E5M2, which is the upper half of binary16: exact. */
TND_KERNEL_FN float tnd_f32_of_e5m2(uint8_t byte)
{
    return tnd_f32_of_f16((uint16_t)(byte << 8));
}

/* value / 2^shift to nearest even; shift: 1 to 63, value + 2^shift below 2^64. */
TND_KERNEL_FN uint64_t tnd_shift_rounded(uint64_t value, uint32_t shift)
{
    return (value + ((uint64_t)1 << (shift - 1)) - 1 + (value >> shift & 1)) >> shift;
}

TND_KERNEL_FN uint16_t tnd_f16_of_f32(float value)
{
    uint32_t bits = tnd_f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t rest = bits & 0x7FFFFFFFu;
    uint32_t mantissa, shift;

    if (rest > TND_F32_INF)
        return TND_F16_NAN;
    if (rest >= 0x477FF000u) /* 65520: half a step above the largest, and all beyond */
        return (uint16_t)(sign | TND_F16_INF);
    if (rest >= 0x38800000u) { /* 2^-14: normal */
        rest += 0xFFFu + (rest >> 13 & 1u);
        return (uint16_t)(sign | ((rest - 0x38000000u) >> 13));
    }
    if (rest <= 0x33000000u) /* 2^-25: the tie between zero and the smallest goes to zero */
        return (uint16_t)sign;
    /* Subnormal: the 24-bit mantissa shifted right by 14 to 24; in 32 bits, which is what a GPU has. */
    mantissa = (rest & 0x7FFFFFu) | 0x800000u;
    shift = 126u - (rest >> 23);
    return (uint16_t)(sign | (mantissa + (1u << (shift - 1)) - 1 + (mantissa >> shift & 1)) >> shift);
}

TND_KERNEL_FN uint16_t tnd_bf16_of_f32(float value)
{
    uint32_t bits = tnd_f32_bits(value);

    if ((bits & 0x7FFFFFFFu) > TND_F32_INF)
        return TND_BF16_NAN;
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* The bits of a binary64 rounded, once, to a narrower format of a sign, exponent_bits and mantissa_bits. */
TND_KERNEL_FN uint32_t tnd_narrow_f64(uint64_t bits, uint32_t exponent_bits, uint32_t mantissa_bits)
{
    uint32_t sign = (uint32_t)(bits >> 63) << (exponent_bits + mantissa_bits);
    uint32_t infinity = ((1u << exponent_bits) - 1u) << mantissa_bits;
    uint32_t rebias = 1023u - ((1u << (exponent_bits - 1)) - 1u); /* between the two formats' exponents */
    uint32_t shift = 52u - mantissa_bits;
    uint64_t rest = bits & ~((uint64_t)1 << 63);
    uint32_t exponent = (uint32_t)(rest >> 52);

    if (rest > TND_F64_INF)
        return infinity | 1u << (mantissa_bits - 1);
    if (exponent >= rebias + (1u << exponent_bits) - 1u)
        return sign | infinity;
    if (exponent > rebias) /* normal; a carry out of the mantissa is right for the exponent, up to infinity */
        return sign | (uint32_t)tnd_shift_rounded(rest - ((uint64_t)rebias << 52), shift);
    shift += rebias + 1u - exponent;
    if (shift > 53u) /* below half of the smallest; 2^53 is what the mantissa stays under */
        return sign;
    return sign | (uint32_t)tnd_shift_rounded((rest & 0xFFFFFFFFFFFFFu) | (uint64_t)1 << 52, shift);
}

#endif
