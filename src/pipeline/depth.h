/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_DEPTH_H
#define TND_PIPELINE_DEPTH_H

/* How many reads to keep in flight: from a start that drains one disk, doubled while that brings more. An array of
 * disks wants more than one, and more than a disk wants only makes the buffers colder. Pure: told of reads, asks no
 * clock. */

#include <stdbool.h>
#include <stdint.h>

struct tnd_depth {
    uint32_t depth; /* to keep now */
    uint32_t depth_max;
    bool settled;
    /* The stretch being measured. */
    uint64_t bytes, start_ns;
    bool warm; /* the first stretch at a depth still has the reads of the one before: not counted */
    /* The best stretch so far. */
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
