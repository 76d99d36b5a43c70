/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_DEPTH_H
#define TND_PIPELINE_DEPTH_H

/* How many reads to keep in flight: a start that drains one disk, doubled while that brings more, since an array of
 * disks wants more than one. Deeper than the disk wants only makes the buffers colder, so whether to go deeper is asked
 * by going half as deep first: a disk that gives as much then has enough. Pure: told of reads, asks no clock. */

#include <stdbool.h>
#include <stdint.h>

enum tnd_depth_phase { TND_DEPTH_START, TND_DEPTH_HALF, TND_DEPTH_UP, TND_DEPTH_SETTLED };

struct tnd_depth {
    uint32_t depth; /* to keep now */
    uint32_t depth_max;
    enum tnd_depth_phase phase;
    /* The stretch being measured. */
    uint64_t bytes, start_ns;
    bool warm; /* the first stretch at a depth still has the reads of the one before: not counted */
    /* The best depth so far, and what it brought. */
    uint32_t best_depth;
    double best_rate; /* bytes a ns */
};

/* A fixed depth when depth_max is not more than depth. */
void tnd_depth_init(struct tnd_depth *depth, uint32_t start, uint32_t depth_max);

/* A read has finished while there was more to read. */
void tnd_depth_finished(struct tnd_depth *depth, uint32_t read_bytes, uint64_t now_ns);

/* The flow stopped or began: what was measured of the stretch does not count. */
void tnd_depth_interrupted(struct tnd_depth *depth);

#endif
