/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_BLOCKS_H
#define TND_TEST_BLOCKS_H

/* Bytes to try kernels on. */

#include <stddef.h>
#include <stdint.h>

enum fill { FILL_ZEROS, FILL_ONES, FILL_RANDOM, FILL_WEIGHTS, FILL_SMALL, FILL_EXTREMES, FILL_COUNT };

/* The same ones in each run. */
uint64_t random_bits(void);

/* Where a format keeps its scales, FILL_EXTREMES makes extreme ones in some of the blocks; F16 lies on even bytes. */
void fill_blocks(uint8_t *source, size_t bytes, enum fill fill);

#endif
