/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TESTS_SIM_H
#define TND_TESTS_SIM_H

/* What the simulations share: random numbers and a clock of their own, a tape that all files have, an engine that
 * answers from it late, out of order, short, with EAGAIN, with an error or not before everybody has given up, models,
 * and a loader without threads. All of it is drawn from a seed. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/io.h"
#include "load.h"
#include "loader.h"
#include "model/model.h"

#define SIM_LOADS_MAX 3
#define SIM_STEPS_MAX 200000
#define SIM_PENDING_MAX 512
#define SIM_TAPE_BYTES (32 << 20)

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "seed %llu, answer %llu fails, canceled at step %llu: %s:%d: %s: ",                        \
                    (unsigned long long)sim_seed, (unsigned long long)sim_fail_answer,                                 \
                    (unsigned long long)sim_cancel_step, __FILE__, __LINE__, #condition);                              \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

extern uint64_t sim_seed, sim_clock_ns;
/* Planted in a schedule: the n-th answer is an error, everything is canceled at the n-th step; 0: never. */
extern uint64_t sim_fail_answer, sim_cancel_step;
/* What every file has, from its first byte on. */
extern uint8_t sim_tape[SIM_TAPE_BYTES];

/* Starts the random numbers. */
void sim_reseed(uint64_t seed);
uint64_t sim_draw(void);
uint64_t sim_draw_below(uint64_t limit);
uint64_t sim_now(void);

struct sim_engine {
    struct tnd_io_engine engine;
    struct tnd_io_engine_ops ops;
    struct tnd_io_read *pending[SIM_PENDING_MAX];
    uint32_t pending_count;
    struct tnd_io_read *hung[SIM_PENDING_MAX];
    uint32_t hung_count;
    uint64_t file_bytes;
    uint32_t short_per_mille, again_per_mille, error_per_mille, hang_per_mille;
    uint32_t pause_per_mille; /* nothing comes back; else, when not 0, all of it as often */
    uint64_t cut_at; /* where a file ends earlier than it said; UINT64_MAX: nowhere */
    uint32_t errors_given;
    uint64_t answers;
    uint32_t passed_by[SIM_LOADS_MAX][SIM_LOADS_MAX]; /* [who waits][who] windows begun while who waits had one too */
};

struct sim_load {
    struct tnd_load *load;
    struct tnd_model model;
    bool canceled;
    struct tnd_load *kept; /* what a load with reads that may still come leaves behind */
};

struct sim {
    struct tnd_loader loader;
    struct tnd_loader_options options;
    enum tnd_switch direct;
    uint32_t depth_max;
    struct sim_engine engine;
    struct sim_load loads[SIM_LOADS_MAX];
    uint32_t load_count;
    bool hostile, cut; /* reads fail; the file ends early */
};

/* How models are drawn. */
struct sim_model_shape {
    uint32_t tensors_max, layer_count;
    uint32_t scale_count; /* of the sizes that tensors are drawn from, the smallest first; at most 5 */
};

/* Writes the tape. Once, before all else. */
void sim_init(void);
/* Starts the random numbers and draws the loader and the engine's behaviour. */
void sim_choose(struct sim *sim, uint64_t seed, uint32_t loads_max);
void sim_start(struct sim *sim);
/* Tensors of all sizes one after the other, some with holes between, in layers that do not lie in order. */
void sim_model_make(struct sim *sim, struct tnd_model *model, const struct sim_model_shape *shape);
/* For models of other shapes: an empty one, and the end of it. */
void sim_model_begin(struct tnd_model *model, uint32_t tensor_count);
void sim_model_add(struct tnd_model *model, const char *name, enum tnd_dtype dtype, uint64_t bytes, uint64_t offset);
void sim_model_end(struct sim *sim, struct tnd_model *model, uint32_t layer_count, uint64_t bytes);
/* One read of the engine comes back from being hung, now and then; the clock goes on. */
void sim_pass_time(struct sim *sim, uint64_t ns_max);
/* Invariants of pool and reads. Those of a read that begins are looked at when it is submitted. */
void sim_check_pool(const struct tnd_pipeline *pipeline);
/* What a tensor is to be in memory; to be freed by free(). */
uint8_t *sim_expected(const struct sim_load *one, uint32_t tensor);
void sim_compare(const struct sim_load *one, uint32_t tensor, const uint8_t *data);
/* Takes loads, which have ended, and pipeline down. Reads that were given up come back before that, or after all of
 * it: what they write to must be there then too. */
void sim_tear_down(struct sim *sim);
/* Gives what a read wants of [bytes_done, bytes_done + bytes). */
void sim_deliver(const struct tnd_io_read *read, uint32_t bytes);
/* Runs a seed over and over: its first answer fails, its second, … until none is left; then all is canceled at each
 * step. run() returns how many steps it took and how many answers were given. Returns how many runs that were. */
uint64_t sim_each_fault(uint64_t seed, void (*run)(uint64_t seed, uint64_t *ret_steps, uint64_t *ret_answers));

#endif
