/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_CLOCK_H
#define WORKER_SERVER_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_S UINT64_C(1000000000)
#define CLOCK_MS UINT64_C(1000000)

static inline uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_S + (uint64_t)now.tv_nsec;
}

#endif
