/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_LOADER_H
#define TND_LOADER_H

#include <pthread.h>

#include "device/device.h"
#include "pipeline/pipeline.h"
#include "tundish.h"

enum { TND_DRIVEN_BY_NOBODY, TND_DRIVEN_SOON, TND_DRIVEN };

struct tnd_loader {
    struct tnd_loader_options options; /* defaults filled in */
    struct tnd_allocator allocator;
    struct tnd_log log;
    struct tnd_trace trace;
    struct tnd_workers *workers;
    struct tnd_pipeline pipeline;
    uint64_t setup_ns;
    atomic_bool stopping;
    struct tnd_device *cuda; /* NULL: the host, because it was asked for, or … */
    struct tnd_err device_err; /* … why there is no GPU, when one would have been taken */
    char device_name[16];

    /* With a thread of its own. */
    pthread_t driver;
    pthread_mutex_t start_mutex;
    pthread_cond_t started_cond;
    bool started;            /* under start_mutex */
    struct tnd_err start_err; /* under start_mutex */

    /* Without: whoever steps or waits first. */
    atomic_int driven;
    pthread_t driven_by; /* once TND_DRIVEN */

    /* What all loads together have taken. */
    pthread_mutex_t loads_mutex;
    struct tnd_load *loads; /* under loads_mutex: linked by next */
    uint64_t leaked_bytes;  /* under loads_mutex: of loads that reads may still write to */
};

/* Whether this thread has to step the loader itself while it waits; makes it the driver when there is none yet. */
bool tnd_loader_steps_here(struct tnd_loader *loader);

#endif
