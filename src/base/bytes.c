/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

/* The bytes a lead byte is followed by, and the range of the first of them: RFC 3629, section 4. */
static size_t utf8_tail(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 1;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *low = 0xA0;
        if (lead == 0xED)
            *high = 0x9F;
        return 2;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *low = 0x90;
        if (lead == 0xF4)
            *high = 0x8F;
        return 3;
    }
    return 0;
}

bool tnd_utf8_valid(const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    const uint8_t *end = at + count;

    while (at < end) {
        uint8_t low, high;
        size_t tail;

        if (*at < 0x80) {
            at++;
            continue;
        }
        tail = utf8_tail(*at, &low, &high);
        if (!tail || (size_t)(end - at) <= tail || at[1] < low || at[1] > high)
            return false;
        for (size_t i = 2; i <= tail; i++)
            if (at[i] < 0x80 || at[i] > 0xBF)
                return false;
        at += tail + 1;
    }
    return true;
}
