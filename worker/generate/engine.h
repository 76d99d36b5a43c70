/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_GENERATE_ENGINE_H
#define WORKER_GENERATE_ENGINE_H

/* A model that answers prompts: model, load, tokenizer, decoder and team in one. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "failure.h"
#include "text/chat.h"
#include "tundish.h"

struct engine;

struct engine_options {
    const char *path;          /* as for tnd_model_open() */
    uint64_t resident_bytes;   /* of memory that layers come and go in; 0: the whole model */
    uint32_t resident_percent; /* the same as a share of what all layers take; 0: resident_bytes tells */
    enum tnd_engine io;
    enum tnd_lazy lazy;
    uint32_t thread_count;     /* 0: as many as cores */
    uint32_t context_tokens;   /* 0: the model's own, 4096 at most */
};

enum engine_phase {
    ENGINE_OPENING, /* headers, configuration, vocabulary */
    ENGINE_LOADING, /* weights are on their way: prompts are taken and computed with what is there */
    ENGINE_LOADED,  /* all is there; with a window: each layer once was, which takes a prompt */
    ENGINE_FAILED,
};

struct engine_status {
    enum engine_phase phase;
    bool first_layer;          /* shared-in and the first layer are there */
    struct tnd_progress progress;
    uint64_t load_ns;          /* engine_create() → all is there; 0 before */
    int result;                /* of ENGINE_FAILED, and its sentence */
    struct failure failure;
};

/* Returns at once; a thread of its own opens and loads. options are copied. 0, -ENOMEM, -EAGAIN no thread. */
int engine_create(const struct engine_options *options, struct engine **ret_engine);
/* Stops what is under way and waits for it; takes NULL. */
void engine_destroy(struct engine **engine);

void engine_status(struct engine *engine, struct engine_status *ret_status); /* any thread */
/* Waits until the phase is at least this or failed; timeout_ns < 0: no limit. 0, -ETIMEDOUT, or the failure's result.
 * Any thread. */
int engine_wait(struct engine *engine, enum engine_phase phase, int64_t timeout_ns, struct failure *failure);
/* Readable once the phase or the number of layers has changed since it was last read. The engine's own. */
int engine_event_fd(struct engine *engine);

struct generation_request {
    const char *prompt;        /* any bytes; NULL with messages */
    size_t prompt_bytes;
    const struct chat_message *messages;
    size_t message_count;
    uint32_t tokens_max;       /* 0: as many as fit the context */
    float temperature;         /* 0: the likeliest token each time */
    float top_p;               /* 0 or 1: all */
    uint32_t top_k;            /* 0: all */
    uint64_t seed;
    const atomic_bool *canceled; /* NULL: by engine_stop() only; else whoever asks to end it sets this before that */
    const char *const *stops;  /* [stop_count] texts that end the generation, and are not told */
    size_t stop_count;         /* none is "" or begins inside a UTF-8 sequence */
};

enum generation_finish { GENERATION_STOP, GENERATION_LENGTH, GENERATION_CANCELED };

struct generation_result {
    uint32_t prompt_tokens, tokens; /* without the one that ended it */
    enum generation_finish finish;
    uint64_t load_ns;          /* engine_create() → all is there; 0 while it is not */
    uint64_t first_token_ns;   /* engine_generate() → the first token */
    uint64_t ns;               /* … → the end */
    double tokens_per_s;       /* after the first one */
};

/* Told as it comes: whole UTF-8 sequences, never nothing. False ends the generation. */
typedef bool (*generation_fn)(void *cookie, const char *text, size_t bytes);

/* One at a time, by any thread: a second caller gets -EAGAIN. Waits for ENGINE_LOADING. What a prompt begins with that
 * the last sequence began with too is not computed again.
 * Returns: 0, -EINVAL, -EFBIG the prompt does not fit the context, -ENOTSUP no chat template, -EBADMSG the model's
 *          logits are no numbers, -ENOMEM, or what the load failed with. */
int engine_generate(struct engine *engine, const struct generation_request *request, generation_fn tell, void *cookie,
                    struct generation_result *ret_result, struct failure *failure);
/* Ends the generation that is under way, if one is: GENERATION_CANCELED. Any thread. */
void engine_stop(struct engine *engine);

#endif
