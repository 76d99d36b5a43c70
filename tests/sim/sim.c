/* SPDX-License-Identifier: Apache-2.0 */
#include "sim.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "kernels/kernel.h"
#include "model/dtype.h"
#include "options.h"

#define STAGES_MAX 64

uint64_t sim_seed, sim_clock_ns, sim_fail_answer, sim_cancel_step;
uint8_t sim_tape[SIM_TAPE_BYTES];
static uint64_t random_state;

void sim_reseed(uint64_t seed)
{
    sim_seed = random_state = seed;
}

/* splitmix64 */
uint64_t sim_draw(void)
{
    uint64_t z = (random_state += 0x9E3779B97F4A7C15u);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t sim_draw_below(uint64_t limit)
{
    return sim_draw() % limit;
}

uint64_t sim_now(void)
{
    return sim_clock_ns;
}

void sim_init(void)
{
    for (uint64_t i = 0; i < SIM_TAPE_BYTES; i++)
        sim_tape[i] = (uint8_t)((i * 0x9E3779B1u) >> 11 ^ i);
}

/* ---- The engine -------------------------------------------------------------------------------------------- */

/* On a copy: a layer that is picked is being fetched. */
static bool would_pick(const struct tnd_residency *residency)
{
    struct tnd_stage_use stages[STAGES_MAX];
    uint32_t free_slots[STAGES_MAX];
    struct tnd_residency copy = *residency;
    struct tnd_pick pick;

    CHECK(copy.stage_count <= STAGES_MAX && copy.free_count <= STAGES_MAX, "%u stages", copy.stage_count);
    memcpy(stages, copy.stages, copy.stage_count * sizeof(*stages));
    for (uint32_t i = 0; i < copy.free_count; i++)
        free_slots[i] = copy.free_slots[i];
    copy.stages = stages;
    copy.free_slots = free_slots;
    return tnd_residency_pick(&copy, sim_clock_ns, &pick);
}

/* Whether a window of it would be begun if it were its turn. */
static bool is_hungry(const struct tnd_pipeline *pipeline, const struct tnd_transfer *transfer)
{
    const struct tnd_transfer *active = pipeline->active;

    while (active && active != transfer)
        active = active->next;
    if (!active || tnd_transfer_stopped(transfer))
        return false;
    return transfer->fetches ? would_pick(&transfer->readiness.residency)
                             : transfer->window_next < transfer->plan->window_count;
}

/* Loads take turns, a window each: nobody has two while another one has something to read. */
static void check_turn(struct sim *sim, const struct tnd_chunk *chunk)
{
    uint32_t (*passed_by)[SIM_LOADS_MAX] = sim->engine.passed_by;
    uint32_t who = 0;

    while (&sim->loads[who].load->transfer != chunk->transfer)
        who++;
    for (uint32_t other = 0; other < sim->load_count; other++) {
        bool waits = other != who && is_hungry(chunk->pipeline, &sim->loads[other].load->transfer);

        passed_by[who][other] = 0;
        passed_by[other][who] = waits ? passed_by[other][who] + 1 : 0;
        CHECK(passed_by[other][who] < 2, "load %u has had two turns, load %u none", who, other);
    }
}

static void engine_submit(struct tnd_io_engine *base, struct tnd_io_read *read)
{
    struct sim_engine *engine = (struct sim_engine *)base;
    const struct tnd_chunk *chunk = (const struct tnd_chunk *)((char *)read - offsetof(struct tnd_chunk, read));

    CHECK(engine->pending_count < SIM_PENDING_MAX, "too many reads");
    if (!read->retries && !read->bytes_done) { /* what was begun may be read to its end */
        CHECK(!tnd_transfer_stopped(chunk->transfer), "a read is begun after the end");
        check_turn((struct sim *)((char *)engine - offsetof(struct sim, engine)), chunk);
    }
    if (read->was_direct) {
        CHECK((read->offset + read->bytes_done) % 512 == 0, "offset %llu",
              (unsigned long long)read->offset + read->bytes_done);
        CHECK((uintptr_t)(read->buffer + read->bytes_done) % 512 == 0, "address %p", (void *)read->buffer);
        CHECK((read->bytes - read->bytes_done) % 512 == 0, "length %u", read->bytes - read->bytes_done);
    }
    engine->pending[engine->pending_count++] = read;
}

void sim_deliver(const struct tnd_io_read *read, uint32_t bytes)
{
    uint32_t from = read->bytes_done, to = read->bytes_done + bytes;

    if (read->buffer) {
        memcpy(read->buffer + from, sim_tape + read->offset + from, bytes);
        return;
    }
    for (uint32_t s = 0; s < read->span_count; s++) {
        const struct tnd_span *span = &read->spans[s];
        uint32_t start = (uint32_t)tnd_max(from, span->window_offset);
        uint32_t end = (uint32_t)tnd_min(to, span->window_offset + span->bytes);

        if (start < end)
            memcpy(span->destination + (start - span->window_offset), sim_tape + read->offset + start, end - start);
    }
}

static int64_t answer(struct sim_engine *engine, struct tnd_io_read *read)
{
    uint64_t start = read->offset + read->bytes_done;
    uint64_t end = tnd_min(engine->cut_at, engine->file_bytes);
    uint64_t dice = sim_draw_below(1000);
    uint32_t bytes = read->bytes - read->bytes_done;

    if (++engine->answers == sim_fail_answer || dice < engine->error_per_mille) {
        engine->errors_given++;
        return -EIO;
    }
    dice -= engine->error_per_mille;
    if (dice < engine->again_per_mille)
        return sim_draw() & 1 ? -EAGAIN : -EINTR;
    dice -= engine->again_per_mille;
    if (start >= end)
        return 0;
    bytes = (uint32_t)tnd_min(bytes, end - start);
    if (dice < engine->short_per_mille)
        bytes = (uint32_t)(1 + sim_draw_below(bytes));
    sim_deliver(read, bytes);
    return bytes;
}

static uint64_t count_to_reap(const struct sim_engine *engine)
{
    uint64_t dice = engine->pause_per_mille ? sim_draw_below(1000) : 1000;

    if (!engine->pending_count || dice < engine->pause_per_mille)
        return 0;
    if (dice < 2 * engine->pause_per_mille)
        return engine->pending_count;
    return sim_draw_below(engine->pending_count + 1);
}

static struct tnd_io_read *engine_reap(struct tnd_io_engine *base)
{
    struct sim_engine *engine = (struct sim_engine *)base;
    struct tnd_io_read *done = NULL;
    uint64_t count = count_to_reap(engine);

    while (count--) {
        uint32_t index = (uint32_t)sim_draw_below(engine->pending_count);
        struct tnd_io_read *read = engine->pending[index];

        engine->pending[index] = engine->pending[--engine->pending_count];
        if (sim_draw_below(1000) < engine->hang_per_mille) {
            engine->hung[engine->hung_count++] = read;
            continue;
        }
        read->answer = answer(engine, read);
        read->next = done;
        done = read;
    }
    return done;
}

/* The hung reads come after all. */
static void thaw(struct sim_engine *engine)
{
    while (engine->hung_count)
        engine->pending[engine->pending_count++] = engine->hung[--engine->hung_count];
    engine->hang_per_mille = 0;
}

static void engine_destroy(struct tnd_io_engine *base)
{
    CHECK(((struct sim_engine *)base)->pending_count == 0, "destroyed with reads in flight");
}

/* ---- The model --------------------------------------------------------------------------------------------- */

/* What tensors are made of: bytes, elements and blocks of several sizes, whole pages of them or none to a window. */
static const enum tnd_dtype dtypes[] = {TND_U8, TND_F32, TND_F16, TND_F64, TND_Q8_0, TND_Q6_K, TND_Q8_K, TND_MXFP4};

void sim_model_begin(struct tnd_model *model, uint32_t tensor_count)
{
    struct tnd_err err = {0};

    memset(model, 0, sizeof(*model));
    model->arena.allocator = tnd_allocator_or_default(NULL);
    model->files = tnd_arena_alloc(&model->arena, 1, sizeof(*model->files));
    model->file_count = 1;
    CHECK(tnd_model_reserve(model, tensor_count, 0, &err) == 0, "%s", err.text);
}

void sim_model_add(struct tnd_model *model, const char *name, enum tnd_dtype dtype, uint64_t bytes, uint64_t offset)
{
    const struct tnd_dtype_info *block = tnd_dtype_info(dtype);
    uint64_t *shape = tnd_arena_alloc(&model->arena, 1, sizeof(*shape));
    struct tnd_err err = {0};
    struct tnd_tensor tensor = {.dtype = dtype, .dims = 1, .shape = shape, .bytes = bytes, .offset = offset};

    shape[0] = tensor.elements = bytes / block->block_bytes * block->block_elements;
    tensor.name = tnd_arena_string(&model->arena, name, strlen(name));
    tensor.name_bytes = strlen(name);
    CHECK(tnd_model_add_tensor(model, &tensor, &err) == 0, "%s", err.text);
}

void sim_model_end(struct sim *sim, struct tnd_model *model, uint32_t layer_count, uint64_t bytes)
{
    struct stat info;

    CHECK(bytes <= SIM_TAPE_BYTES, "a model of %llu bytes", (unsigned long long)bytes);
    sim->engine.file_bytes = tnd_max(sim->engine.file_bytes, bytes); /* one endless tape for all of them */
    model->layer_count = layer_count;
    model->files[0].file = (struct tnd_file){.path = "simulated", .bytes = bytes};
    model->files[0].fd = memfd_create("simulated", 0);
    CHECK(ftruncate(model->files[0].fd, (off_t)bytes) == 0, "memfd");
    fstat(model->files[0].fd, &info);
    model->files[0].identity = (struct tnd_file_identity){
        .device = info.st_dev,
        .inode = info.st_ino,
        .bytes = info.st_size,
        .modified = info.st_mtim,
    };
}

void sim_model_make(struct sim *sim, struct tnd_model *model, const struct sim_model_shape *shape)
{
    static const uint64_t scales[] = {1, 100, 5000, 70000, 300000};
    uint32_t count = 1 + (uint32_t)sim_draw_below(shape->tensors_max);
    uint64_t offset = sim_draw_below(5000);
    uint64_t alignment = (uint64_t)1 << sim_draw_below(8);
    char name[64];

    sim_model_begin(model, count);
    for (uint32_t i = 0; i < count; i++) {
        enum tnd_dtype dtype =
            sim_draw_below(4) ? TND_U8 : dtypes[sim_draw_below(sizeof(dtypes) / sizeof(dtypes[0]))];
        uint32_t block_bytes = tnd_dtype_info(dtype)->block_bytes;
        uint64_t bytes = sim_draw_below(scales[sim_draw_below(shape->scale_count)]) / block_bytes * block_bytes;

        offset = tnd_round_up(offset, alignment) + (sim_draw_below(4) ? 0 : alignment * sim_draw_below(100));
        snprintf(name, sizeof(name), sim_draw_below(5) ? "blk.%u.w%u" : "shared%u.%u",
                 (unsigned)sim_draw_below(shape->layer_count), i);
        sim_model_add(model, name, dtype, bytes, offset);
        offset += bytes;
    }
    sim_model_end(sim, model, shape->layer_count, offset);
}

static void free_model(struct tnd_model *model)
{
    close(model->files[0].fd);
    tnd_arena_finish(&model->arena);
}

/* ---- The loader -------------------------------------------------------------------------------------------- */

void sim_choose(struct sim *sim, uint64_t seed, uint32_t loads_max)
{
    struct sim_engine *engine = &sim->engine;

    sim_reseed(seed);
    sim_clock_ns = 1;
    sim->load_count = 1 + (uint32_t)sim_draw_below(loads_max);
    sim->hostile = sim_draw_below(3) == 0;
    engine->ops.scatters = sim_draw_below(3) == 0;
    engine->short_per_mille = (uint32_t)sim_draw_below(300);
    engine->again_per_mille = (uint32_t)sim_draw_below(100);
    engine->error_per_mille = sim->hostile ? (uint32_t)sim_draw_below(50) : 0;
    engine->hang_per_mille = sim_draw_below(8) == 0 ? (uint32_t)sim_draw_below(50) : 0;
    sim->options.chunk_bytes = (uint32_t)65536 << sim_draw_below(3);
    sim->options.depth = 1 + (uint32_t)sim_draw_below(8);
    sim->options.pool_bytes_max = sim->options.chunk_bytes * (1 + sim_draw_below(6));
    sim->direct = sim_draw_below(2) ? TND_ON : TND_OFF;
    sim->depth_max = sim->options.depth + (uint32_t)sim_draw_below(3);
}

void sim_start(struct sim *sim)
{
    struct tnd_loader *loader = &sim->loader;
    struct tnd_io_engine_ops *ops = &sim->engine.ops;
    struct tnd_pipeline_options options = {0};
    struct tnd_err err = {0};

    ops->name = "simulated";
    ops->submit = ops->submit ? ops->submit : engine_submit;
    ops->reap = ops->reap ? ops->reap : engine_reap;
    ops->destroy = engine_destroy;
    sim->engine.engine.ops = ops;
    sim->engine.cut_at = UINT64_MAX;

    sim->options.size = sizeof(sim->options);
    sim->options.foreground = true;
    sim->options.thread_count = 1;
    CHECK(tnd_loader_options_init(&loader->options, &sim->options, &err) == 0, "%s", err.text);
    loader->allocator = tnd_allocator_or_default(NULL);
    CHECK(tnd_workers_create(&loader->workers, &loader->allocator, 0) == 0, "workers");
    options.io.allocator = loader->allocator;
    options.io.only_engine = &sim->engine.engine;
    options.io.direct = sim->direct;
    options.chunk_bytes = loader->options.chunk_bytes;
    options.depth = loader->options.depth;
    options.depth_max = sim->depth_max;
    options.pool_bytes_max = loader->options.pool_bytes_max;
    options.workers = loader->workers;
    options.now_ns = sim_now;
    options.read_timeout_ns = TND_NS_PER_S;
    CHECK(tnd_pipeline_init(&loader->pipeline, &options, &err) == 0, "%s", err.text);
    CHECK(tnd_pipeline_start(&loader->pipeline, &err) == 0, "%s", err.text);
    loader->driven_by = pthread_self();
    atomic_store(&loader->driven, TND_DRIVEN);
    pthread_mutex_init(&loader->loads_mutex, NULL);
}

void sim_pass_time(struct sim *sim, uint64_t ns_max)
{
    struct sim_engine *engine = &sim->engine;

    sim_clock_ns += sim_draw_below(ns_max);
    if (engine->hang_per_mille && sim_draw_below(200) == 0)
        sim_clock_ns += TND_NS_PER_S / 2;
    if (engine->hung_count && sim_draw_below(1000) == 0)
        engine->pending[engine->pending_count++] = engine->hung[--engine->hung_count];
}

void sim_check_pool(const struct tnd_pipeline *pipeline)
{
    uint32_t sum = 0;

    for (int i = 0; i < TND_CHUNK_STATE_COUNT; i++)
        sum += pipeline->pool.counts[i];
    CHECK(sum == pipeline->pool.chunk_count, "%u of %u chunks", sum, pipeline->pool.chunk_count);
    CHECK(pipeline->reading <= pipeline->options.depth_max, "%u reads", pipeline->reading);
    CHECK(pipeline->reading == pipeline->pool.counts[TND_CHUNK_READING], "%u reads", pipeline->reading);
}

uint8_t *sim_expected(const struct sim_load *one, uint32_t tensor)
{
    const struct tnd_tensor *read = &one->model.tensors[tensor];
    const struct tnd_kernel *kernel = tnd_plan_kernel(&one->load->plan, tensor);
    struct tnd_range_counts range = {0};
    uint8_t *expected = malloc(tnd_plan_bytes(&one->load->plan, tensor) + 1);

    if (kernel)
        tnd_kernel_find(kernel->from, kernel->to, TND_ISA_C)
            ->run(expected, sim_tape + read->offset, read->elements, &range);
    else
        memcpy(expected, sim_tape + read->offset, read->bytes);
    return expected;
}

void sim_compare(const struct sim_load *one, uint32_t tensor, const uint8_t *data)
{
    const struct tnd_plan *plan = &one->load->plan;
    const struct tnd_tensor *read = &one->model.tensors[tensor];
    uint8_t *expected;

    if (!tnd_plan_kernel(plan, tensor)) {
        CHECK(memcmp(data, sim_tape + read->offset, read->bytes) == 0, "tensor %s", read->name);
        return;
    }
    expected = sim_expected(one, tensor);
    CHECK(memcmp(data, expected, tnd_plan_bytes(plan, tensor)) == 0, "tensor %s, %s to %s", read->name,
          tnd_dtype_name(read->dtype), tnd_dtype_name(tnd_plan_dtype(plan, tensor)));
    free(expected);
}

void sim_tear_down(struct sim *sim)
{
    struct tnd_loader *loader = &sim->loader;
    struct tnd_pipeline *pipeline = &loader->pipeline;
    struct sim_engine *engine = &sim->engine;
    struct tnd_io *io = pipeline->io;
    bool late = sim_draw_below(2);

    if (!late) {
        thaw(engine);
        for (uint32_t step = 0; pipeline->pool.counts[TND_CHUNK_FAILED]; step++) {
            CHECK(step < SIM_STEPS_MAX, "no end");
            sim_clock_ns += 1000000;
            tnd_pipeline_wait(pipeline, 0);
            tnd_pipeline_tick(pipeline);
        }
    }
    for (uint32_t i = 0; i < sim->load_count; i++) {
        struct sim_load *one = &sim->loads[i];

        one->kept = one->load->transfer.stats.reads_given_up ? one->load : NULL;
        tnd_load_destroy(&one->load);
    }
    late = pipeline->pool.counts[TND_CHUNK_FAILED] > 0;
    CHECK(pipeline->pool.counts[TND_CHUNK_FREE] + pipeline->pool.counts[TND_CHUNK_FAILED] ==
              pipeline->pool.chunk_count, "a chunk is lost");
    tnd_pipeline_stop(pipeline);
    thaw(engine);
    while (engine->pending_count)
        answer(engine, engine->pending[--engine->pending_count]);
    if (late) { /* what nobody else gives back */
        pipeline->pool.counts[TND_CHUNK_FREE] = pipeline->pool.chunk_count;
        pipeline->pool.counts[TND_CHUNK_FAILED] = 0;
        tnd_pool_finish(&pipeline->pool);
        tnd_io_destroy(&io);
    }
    for (uint32_t i = 0; i < sim->load_count; i++) {
        struct sim_load *one = &sim->loads[i];

        if (one->kept) {
            tnd_device_host.ops->block_free(&tnd_device_host, &one->kept->block);
            tnd_plan_finish(&one->kept->plan);
            tnd_free(&loader->allocator, one->kept);
        }
        free_model(&one->model);
    }
    tnd_workers_destroy(&loader->workers);
    tnd_pipeline_finish(pipeline);
}

uint64_t sim_each_fault(uint64_t seed, void (*run)(uint64_t seed, uint64_t *ret_steps, uint64_t *ret_answers))
{
    uint64_t steps, answers, runs = 0;

    for (sim_fail_answer = 1, answers = UINT64_MAX; sim_fail_answer <= answers; sim_fail_answer++, runs++)
        run(seed, &steps, &answers);
    sim_fail_answer = 0;
    for (sim_cancel_step = 1, steps = UINT64_MAX; sim_cancel_step <= steps; sim_cancel_step++, runs++)
        run(seed, &steps, &answers);
    sim_cancel_step = 0;
    return runs;
}
