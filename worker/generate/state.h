/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_GENERATE_STATE_H
#define WORKER_GENERATE_STATE_H

#include <pthread.h>

#include "decoder/decoder.h"
#include "generate/engine.h"

struct engine {
    struct engine_options options; /* with a path of its own */
    uint64_t created_ns;
    pthread_t thread;
    bool has_thread;
    int event_fd, quit_fd;

    pthread_mutex_t mutex;   /* of what follows, up to the next empty line */
    pthread_cond_t changed;
    enum engine_phase phase;
    int result;              /* of ENGINE_FAILED */
    struct failure failure;
    uint64_t load_ns;
    bool first_layer;
    bool busy, stopped;      /* a generation is under way, and is to end */
    bool closing;
    struct tnd_load *load;   /* set once */

    /* Made by the thread before ENGINE_LOADING; used by the generation that is under way. */
    struct tnd_model *model;
    struct tnd_loader *loader;
    struct tokenizer *tokenizer;
    struct decoder *decoder;
    struct team *team;
    uint32_t context;
    int32_t *sequence;       /* [context] the decoder's tokens */
    float *logits;           /* [vocabulary] */
};

uint64_t engine_now_ns(void);
/* Nothing more is to come of it. Threads: any. */
void engine_set_failed(struct engine *engine, int result, const struct failure *failure);

/* The thread: opens, loads, and watches the load until engine_destroy(). */
void *loading_run(void *cookie);

#endif
