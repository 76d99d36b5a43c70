/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_CLOCK_H
#define TND_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define TND_NS_PER_S ((uint64_t)1000000000)

static inline uint64_t tnd_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * TND_NS_PER_S + (uint64_t)now.tv_nsec;
}

#endif
