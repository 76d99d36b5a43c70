/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_GPU_H
#define TOOLS_GPU_H

/* What there is of NVIDIA's: cards, driver, library. Nothing is started for it. */

#include <stdbool.h>
#include <stdint.h>

struct gpu {
    uint32_t count;           /* cards on the PCI bus, as far as /sys shows it */
    bool driver;              /* the kernel has it */
    char driver_version[32];  /* "" without one, "?" when it does not say */
    bool library;             /* libcuda.so.1 can be opened */
    char library_reason[256]; /* why not */
};

void gpu_look(struct gpu *gpu);

#endif
