/* SPDX-License-Identifier: Apache-2.0 */
#include "support/blocks.h"

#include <string.h>

uint64_t random_bits(void)
{
    static uint64_t state = 1;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Zeros, subnormals, also around 2^-21, whose eighth is the smallest, the largest, infinities, NaNs, and both sides of
 * every power of two from 2^4 on, where blocks begin to hold values beyond F16. */
static uint16_t extreme_half(void)
{
    static const uint16_t halves[] = {0x0000, 0x0001, 0x0004, 0x0005, 0x0007, 0x0008, 0x0009, 0x03FF,
                                      0x0400, 0x3C00, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7FFF};
    uint64_t bits = random_bits();
    uint16_t sign = bits >> 8 & 0x8000;

    if (bits & 1)
        return (uint16_t)(sign | (0x7C00 - (bits >> 1 & 15) * 0x400 - (bits >> 5 & 1)));
    return sign | halves[(bits >> 32) % (sizeof(halves) / sizeof(halves[0]))];
}

void fill_blocks(uint8_t *source, size_t bytes, enum fill fill)
{
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = random_bits();

        if (fill == FILL_ZEROS || fill == FILL_ONES)
            word = fill == FILL_ONES ? UINT64_MAX : 0;
        if (fill == FILL_WEIGHTS)
            word &= 0xBBBBBBBBBBBBBBBB; /* F16 below 1 */
        if (fill == FILL_SMALL)
            word &= 0x0FFF0FFF0FFFFFFF; /* F16 near its smallest, also where the parts of one lie apart (IQ1_M) */
        memcpy(source + i, &word, bytes - i < sizeof(word) ? bytes - i : sizeof(word));
    }
    if (fill == FILL_EXTREMES)
        for (size_t i = 0; i + 1 < bytes; i += 2)
            if (random_bits() >> 62 == 0) {
                uint16_t half = extreme_half();

                memcpy(source + i, &half, sizeof(half));
            }
}
