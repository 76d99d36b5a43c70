/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_BYTES_H
#define TND_BASE_BYTES_H

/* Arithmetic on lengths that a file claims, and little-endian reads from any address. */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TND_MIB ((uint64_t)1 << 20)

static inline bool tnd_add_overflows(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
    return __builtin_add_overflow(a, b, ret_sum);
}

static inline bool tnd_mul_overflows(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    return __builtin_mul_overflow(a, b, ret_product);
}

/* alignment is a power of two; tnd_round_up wraps within one alignment of 2^64, which callers rule out. */
static inline uint64_t tnd_round_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

static inline uint64_t tnd_round_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static inline bool tnd_is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

static inline uint64_t tnd_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t tnd_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint16_t tnd_le16(const void *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static inline uint32_t tnd_le32(const void *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static inline uint64_t tnd_le64(const void *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are handed out in the files' byte order");

/* Whether the bytes are UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, at most U+10FFFF. */
bool tnd_utf8_valid(const void *bytes, size_t count);

#endif
