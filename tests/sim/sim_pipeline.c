/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: whatever the order and the outcome of reads and copies, a load ends, with the right bytes or the right error,
 * and no buffer is used by two at once.
 * Method: the whole pipeline on one thread, with an engine that answers late, out of order, short, with EAGAIN, with
 * an error or not before everybody has given up, workers that run when the schedule says so, a clock of our own,
 * several loads at once, tiny pools and cancels; all of it drawn from a seed. Each tensor is compared when it is
 * announced, not only at the end.
 *
 *   sim_pipeline [COUNT [FIRST]]     a failing seed N is run again with: sim_pipeline 1 N
 *
 * Without FIRST a few schedules are then run over and over with one fault each: every answer fails once, every step is
 * the one at which everything is canceled. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "kernels/hash.h"
#include "kernels/kernel.h"
#include "load.h"
#include "loader.h"
#include "model/dtype.h"
#include "model/model.h"
#include "options.h"

#define LOADS_MAX 3
#define STEPS_MAX 200000
#define FAULT_SEEDS 40 /* at the most; a tenth of the others */

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "seed %llu, answer %llu fails, canceled at step %llu: %s:%d: %s: ",                        \
                    (unsigned long long)seed_now, (unsigned long long)fail_answer, (unsigned long long)cancel_step,    \
                    __FILE__, __LINE__, #condition);                                                                   \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t seed_now, random_state, clock_ns;

/* splitmix64 */
static uint64_t draw(void)
{
    uint64_t z = (random_state += 0x9E3779B97F4A7C15u);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t draw_below(uint64_t limit)
{
    return draw() % limit;
}

static uint64_t now_fake(void)
{
    return clock_ns;
}

/* What every file has, from its first byte on. */
#define TAPE_BYTES (32 << 20)
static uint8_t tape[TAPE_BYTES];

static void fill_tape(void)
{
    for (uint64_t i = 0; i < TAPE_BYTES; i++)
        tape[i] = (uint8_t)((i * 0x9E3779B1u) >> 11 ^ i);
}

/* Planted in a schedule: the n-th answer is an error, everything is canceled at the n-th step; 0: never. */
static uint64_t fail_answer, cancel_step;

/* ---- The engine -------------------------------------------------------------------------------------------- */

#define PENDING_MAX 512

struct fake {
    struct tnd_io_engine engine;
    struct tnd_io_engine_ops ops;
    struct tnd_io_read *pending[PENDING_MAX];
    uint32_t pending_count;
    struct tnd_io_read *hung[PENDING_MAX];
    uint32_t hung_count;
    uint64_t file_bytes;
    uint32_t short_per_mille, again_per_mille, error_per_mille, hang_per_mille;
    uint64_t cut_at; /* where a file ends earlier than it said; UINT64_MAX: nowhere */
    uint32_t errors_given;
    uint64_t answers;
};

static void fake_submit(struct tnd_io_engine *engine, struct tnd_io_read *read)
{
    struct fake *fake = (struct fake *)engine;

    CHECK(fake->pending_count < PENDING_MAX, "too many reads");
    if (read->was_direct) {
        CHECK((read->offset + read->bytes_done) % 512 == 0, "offset %llu",
              (unsigned long long)read->offset + read->bytes_done);
        CHECK((uintptr_t)(read->buffer + read->bytes_done) % 512 == 0, "address %p", (void *)read->buffer);
        CHECK((read->bytes - read->bytes_done) % 512 == 0, "length %u", read->bytes - read->bytes_done);
    }
    fake->pending[fake->pending_count++] = read;
}

static void deliver(const struct tnd_io_read *read, uint32_t bytes)
{
    uint32_t from = read->bytes_done, to = read->bytes_done + bytes;

    if (read->buffer) {
        memcpy(read->buffer + from, tape + read->offset + from, bytes);
        return;
    }
    for (uint32_t s = 0; s < read->span_count; s++) {
        const struct tnd_span *span = &read->spans[s];
        uint32_t start = (uint32_t)tnd_max(from, span->window_offset);
        uint32_t end = (uint32_t)tnd_min(to, span->window_offset + span->bytes);

        if (start < end)
            memcpy(span->destination + (start - span->window_offset), tape + read->offset + start, end - start);
    }
}

static int64_t answer(struct fake *fake, struct tnd_io_read *read)
{
    uint64_t start = read->offset + read->bytes_done;
    uint64_t end = tnd_min(fake->cut_at, fake->file_bytes);
    uint64_t dice = draw_below(1000);
    uint32_t bytes = read->bytes - read->bytes_done;

    if (++fake->answers == fail_answer || dice < fake->error_per_mille) {
        fake->errors_given++;
        return -EIO;
    }
    dice -= fake->error_per_mille;
    if (dice < fake->again_per_mille)
        return draw() & 1 ? -EAGAIN : -EINTR;
    dice -= fake->again_per_mille;
    if (start >= end)
        return 0;
    bytes = (uint32_t)tnd_min(bytes, end - start);
    if (dice < fake->short_per_mille)
        bytes = (uint32_t)(1 + draw_below(bytes));
    deliver(read, bytes);
    return bytes;
}

static struct tnd_io_read *fake_reap(struct tnd_io_engine *engine)
{
    struct fake *fake = (struct fake *)engine;
    struct tnd_io_read *done = NULL;
    uint64_t count = fake->pending_count ? draw_below(fake->pending_count + 1) : 0;

    while (count--) {
        uint32_t index = (uint32_t)draw_below(fake->pending_count);
        struct tnd_io_read *read = fake->pending[index];

        fake->pending[index] = fake->pending[--fake->pending_count];
        if (draw_below(1000) < fake->hang_per_mille) {
            fake->hung[fake->hung_count++] = read;
            continue;
        }
        read->answer = answer(fake, read);
        read->next = done;
        done = read;
    }
    return done;
}

/* The hung reads come after all. */
static void thaw(struct fake *fake)
{
    while (fake->hung_count)
        fake->pending[fake->pending_count++] = fake->hung[--fake->hung_count];
    fake->hang_per_mille = 0;
}

static void fake_destroy(struct tnd_io_engine *engine)
{
    CHECK(((struct fake *)engine)->pending_count == 0, "destroyed with reads in flight");
}

/* ---- The model --------------------------------------------------------------------------------------------- */

/* What tensors are made of: bytes, elements and blocks of several sizes, whole pages of them or none to a window. */
static const enum tnd_dtype dtypes[] = {TND_U8, TND_F32, TND_F16, TND_F64, TND_Q8_0, TND_Q6_K, TND_Q8_K, TND_MXFP4};

/* Tensors of all sizes one after the other, some with holes between, in layers that do not lie in order. */
static void make_model(struct tnd_model *model, uint64_t *ret_bytes)
{
    uint32_t count = 1 + (uint32_t)draw_below(40);
    uint64_t offset = draw_below(5000);
    uint64_t alignment = (uint64_t)1 << draw_below(8);
    struct stat info;
    struct tnd_err err = {0};
    char name[64];

    memset(model, 0, sizeof(*model));
    model->arena.allocator = tnd_allocator_or_default(NULL);
    model->files = tnd_arena_alloc(&model->arena, 1, sizeof(*model->files));
    model->file_count = 1;
    CHECK(tnd_model_reserve(model, count, 0, &err) == 0, "%s", err.text);
    for (uint32_t i = 0; i < count; i++) {
        static const uint64_t scales[] = {1, 100, 5000, 70000, 300000};
        enum tnd_dtype dtype = draw_below(4) ? TND_U8 : dtypes[draw_below(sizeof(dtypes) / sizeof(dtypes[0]))];
        const struct tnd_dtype_info *block = tnd_dtype_info(dtype);
        uint64_t blocks = draw_below(scales[draw_below(5)]) / block->block_bytes;
        uint64_t bytes = blocks * block->block_bytes, elements = blocks * block->block_elements;
        uint64_t *shape = tnd_arena_alloc(&model->arena, 1, sizeof(*shape));
        struct tnd_tensor tensor = {.dtype = dtype, .dims = 1, .shape = shape, .elements = elements, .bytes = bytes};

        offset = tnd_round_up(offset, alignment) + (draw_below(4) ? 0 : alignment * draw_below(100));
        shape[0] = elements;
        snprintf(name, sizeof(name), draw_below(5) ? "blk.%u.w%u" : "shared%u.%u", (unsigned)draw_below(6), i);
        tensor.name = tnd_arena_string(&model->arena, name, strlen(name));
        tensor.name_bytes = strlen(name);
        tensor.offset = offset;
        CHECK(tnd_model_add_tensor(model, &tensor, &err) == 0, "%s", err.text);
        offset += bytes;
    }
    *ret_bytes = offset;
    model->layer_count = 6;
    model->files[0].file = (struct tnd_file){.path = "simulated", .bytes = offset};
    model->files[0].fd = memfd_create("simulated", 0);
    CHECK(ftruncate(model->files[0].fd, (off_t)offset) == 0, "memfd");
    fstat(model->files[0].fd, &info);
    model->files[0].identity = (struct tnd_file_identity){
        .device = info.st_dev,
        .inode = info.st_ino,
        .bytes = info.st_size,
        .modified = info.st_mtim,
    };
}

static void free_model(struct tnd_model *model)
{
    close(model->files[0].fd);
    tnd_arena_finish(&model->arena);
}

/* ---- Loads ------------------------------------------------------------------------------------------------- */

struct watched {
    struct tnd_load *load;
    struct tnd_model *model;
    bool *seen; /* [tensor_count] compared when it was announced */
    bool canceled;
    struct tnd_load *kept; /* what a load with reads that may still come leaves behind */
    uint8_t *memory; /* the caller's, for about half of the tensors; canaries around each */
    uint64_t memory_used, memory_bytes;
};

#define CANARY 0xC5
#define CANARY_BYTES 64

static void *place(void *cookie, const struct tnd_tensor *tensor)
{
    struct watched *watched = cookie;
    uint64_t at = tnd_round_up(watched->memory_used + CANARY_BYTES, 8);

    if (draw_below(2) || at + tensor->bytes + CANARY_BYTES > watched->memory_bytes)
        return NULL;
    if (draw_below(2)) /* as the file has it, so that it can land in place */
        at = tnd_round_up(at, 4096) + tensor->offset % 4096;
    if (at % tnd_dtype_info(tensor->dtype)->element_alignment ||
        at + tensor->bytes + CANARY_BYTES > watched->memory_bytes)
        return NULL;
    watched->memory_used = at + tensor->bytes;
    return watched->memory + at;
}

static void compare(const struct watched *watched, uint32_t index, const uint8_t *data)
{
    const struct tnd_tensor *tensor = &watched->model->tensors[index];
    const struct tnd_plan *plan = &watched->load->plan;
    const struct tnd_kernel *kernel = tnd_plan_kernel(plan, index);
    struct tnd_range_counts range = {0};
    uint8_t *expected;

    if (!kernel) {
        CHECK(memcmp(data, tape + tensor->offset, tensor->bytes) == 0, "tensor %s", tensor->name);
        return;
    }
    expected = malloc(tnd_plan_bytes(plan, index) + 1);
    tnd_kernel_find(kernel->from, kernel->to, TND_ISA_C)
        ->run(expected, tape + tensor->offset, tensor->elements, &range);
    CHECK(memcmp(data, expected, tnd_plan_bytes(plan, index)) == 0, "tensor %s, %s to %s", tensor->name,
          tnd_dtype_name(kernel->from), tnd_dtype_name(kernel->to));
    free(expected);
}

static void check_digest(const struct watched *watched, uint32_t index)
{
    uint64_t digest, bytes = tnd_plan_bytes(&watched->load->plan, index);

    if (!watched->load->transfer.digests)
        return;
    CHECK(tnd_load_tensor_digest(watched->load, index, &digest) == 0, "tensor %u", index);
    CHECK(digest == tnd_xxh3(watched->load->transfer.places[index], bytes), "tensor %u of %llu bytes", index,
          (unsigned long long)bytes);
}

static void compare_ready(struct watched *watched)
{
    for (uint32_t i = 0; i < watched->model->tensor_count; i++) {
        const void *data;

        if (watched->seen[i] || tnd_load_tensor_data(watched->load, i, &data) < 0)
            continue;
        watched->seen[i] = true;
        compare(watched, i, data);
    }
}

/* Every byte of the caller's memory that no placed tensor covers. */
static void check_canaries(const struct watched *watched)
{
    bool *covered = calloc(watched->memory_bytes, sizeof(*covered));

    for (uint32_t i = 0; i < watched->load->plan.tensor_count; i++) {
        uint32_t index = watched->load->plan.tensors[i];
        uint64_t at = (uint64_t)(watched->load->transfer.places[index] - watched->memory);

        if (at < watched->memory_bytes)
            memset(covered + at, true, tnd_plan_bytes(&watched->load->plan, index));
    }
    for (uint64_t at = 0; at < watched->memory_bytes; at++)
        CHECK(covered[at] || watched->memory[at] == CANARY, "written to at %llu", (unsigned long long)at);
    free(covered);
}

static void check_pool(const struct tnd_pipeline *pipeline)
{
    uint32_t sum = 0;

    for (int i = 0; i < TND_CHUNK_STATE_COUNT; i++)
        sum += pipeline->pool.counts[i];
    CHECK(sum == pipeline->pool.chunk_count, "%u of %u chunks", sum, pipeline->pool.chunk_count);
    CHECK(pipeline->reading <= pipeline->options.depth_max, "%u reads", pipeline->reading);
    CHECK(pipeline->reading == pipeline->pool.counts[TND_CHUNK_READING], "%u reads", pipeline->reading);
}

/* Takes loads and pipeline down. Reads that were given up come back before that, or after all of it: what they write
 * to must be there then too. */
static void tear_down(struct tnd_loader *loader, struct watched *watched, uint32_t load_count, struct fake *fake)
{
    struct tnd_pipeline *pipeline = &loader->pipeline;
    struct tnd_io *io = pipeline->io;
    bool late = draw_below(2);

    if (!late) {
        thaw(fake);
        for (uint32_t step = 0; pipeline->pool.counts[TND_CHUNK_FAILED]; step++) {
            CHECK(step < STEPS_MAX, "no end");
            clock_ns += 1000000;
            tnd_pipeline_wait(pipeline, 0);
            tnd_pipeline_tick(pipeline);
        }
    }
    for (uint32_t i = 0; i < load_count; i++) {
        struct watched *one = &watched[i];

        one->kept = one->load->transfer.stats.reads_given_up ? one->load : NULL;
        tnd_load_destroy(&one->load);
    }
    late = pipeline->pool.counts[TND_CHUNK_FAILED] > 0;
    CHECK(pipeline->pool.counts[TND_CHUNK_FREE] + pipeline->pool.counts[TND_CHUNK_FAILED] ==
              pipeline->pool.chunk_count, "a chunk is lost");
    tnd_pipeline_stop(pipeline);
    thaw(fake);
    while (fake->pending_count)
        answer(fake, fake->pending[--fake->pending_count]);
    if (late) { /* what nobody else gives back */
        pipeline->pool.counts[TND_CHUNK_FREE] = pipeline->pool.chunk_count;
        pipeline->pool.counts[TND_CHUNK_FAILED] = 0;
        tnd_pool_finish(&pipeline->pool);
        tnd_io_destroy(&io);
    }
    for (uint32_t i = 0; i < load_count; i++) {
        struct watched *one = &watched[i];

        if (one->kept) {
            tnd_device_host.ops->block_free(&tnd_device_host, &one->kept->block);
            tnd_plan_finish(&one->kept->plan);
            tnd_free(&loader->allocator, one->kept);
        }
        free_model(one->model);
        free(one->seen);
        free(one->memory);
    }
    tnd_workers_destroy(&loader->workers);
    tnd_pipeline_finish(pipeline);
}

/* Returns how many steps it took and how many answers were given. */
static void run_seed(uint64_t seed, uint64_t *ret_steps, uint64_t *ret_answers)
{
    struct tnd_loader loader = {0};
    struct tnd_pipeline_options options = {0};
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .foreground = true};
    struct tnd_model models[LOADS_MAX];
    struct watched watched[LOADS_MAX] = {0};
    uint32_t load_count;
    struct fake fake = {.cut_at = UINT64_MAX};
    struct tnd_err err = {0};
    bool hostile, cut = false;

    seed_now = random_state = seed;
    clock_ns = 1;
    load_count = 1 + (uint32_t)draw_below(LOADS_MAX);
    hostile = draw_below(3) == 0;
    fake.ops = (struct tnd_io_engine_ops){.name = "fake", .destroy = fake_destroy, .submit = fake_submit,
                                          .reap = fake_reap, .scatters = draw_below(3) == 0};
    fake.engine.ops = &fake.ops;
    fake.short_per_mille = (uint32_t)draw_below(300);
    fake.again_per_mille = (uint32_t)draw_below(100);
    fake.error_per_mille = hostile ? (uint32_t)draw_below(50) : 0;
    fake.hang_per_mille = draw_below(8) == 0 ? (uint32_t)draw_below(50) : 0;

    loader_options.chunk_bytes = (uint32_t)65536 << draw_below(3);
    loader_options.depth = 1 + (uint32_t)draw_below(8);
    loader_options.pool_bytes_max = loader_options.chunk_bytes * (1 + draw_below(6));
    loader_options.thread_count = 1;
    CHECK(tnd_loader_options_init(&loader.options, &loader_options, &err) == 0, "%s", err.text);
    loader.allocator = tnd_allocator_or_default(NULL);
    CHECK(tnd_workers_create(&loader.workers, &loader.allocator, 0) == 0, "workers");
    options.io.allocator = loader.allocator;
    options.io.only_engine = &fake.engine;
    options.io.direct = draw_below(2) ? TND_ON : TND_OFF;
    options.chunk_bytes = loader.options.chunk_bytes;
    options.depth = loader.options.depth;
    options.depth_max = options.depth + (uint32_t)draw_below(3);
    options.pool_bytes_max = loader.options.pool_bytes_max;
    options.workers = loader.workers;
    options.now_ns = now_fake;
    options.read_timeout_ns = TND_NS_PER_S;
    CHECK(tnd_pipeline_init(&loader.pipeline, &options, &err) == 0, "%s", err.text);
    CHECK(tnd_pipeline_start(&loader.pipeline, &err) == 0, "%s", err.text);
    loader.driven_by = pthread_self();
    atomic_store(&loader.driven, TND_DRIVEN);
    pthread_mutex_init(&loader.loads_mutex, NULL);

    fake.file_bytes = 0;
    for (uint32_t i = 0; i < load_count; i++) {
        uint64_t bytes;

        make_model(&models[i], &bytes);
        fake.file_bytes = tnd_max(fake.file_bytes, bytes); /* one endless tape for all of them */
    }
    if (hostile && draw_below(2)) {
        fake.cut_at = draw_below(fake.file_bytes + 1);
        cut = true;
    }
    for (uint32_t i = 0; i < load_count; i++) {
        struct watched *one = &watched[i];
        struct tnd_load_options load_options = {.size = sizeof(load_options)};
        static const struct tnd_dtype_rule rule = {.pattern = "blk.?.w1*", .dtype = TND_F32};

        one->model = &models[i];
        one->seen = calloc(models[i].tensor_count, sizeof(bool));
        one->memory_bytes = 512 << 10;
        one->memory = aligned_alloc(4096, one->memory_bytes);
        memset(one->memory, CANARY, one->memory_bytes);
        load_options.order = draw_below(2) ? TND_ORDER_USE : TND_ORDER_FILE;
        load_options.in_place = (enum tnd_switch)draw_below(3);
        load_options.digest = draw_below(4) ? TND_DIGEST_OFF : TND_DIGEST_XXH3;
        if (draw_below(4) == 0) { /* not more: the references take their time */
            load_options.dtype = (enum tnd_dtype[]){TND_DTYPE_NONE, TND_F32, TND_F16, TND_BF16}[draw_below(4)];
            load_options.rules = &rule;
            load_options.rule_count = (uint32_t)draw_below(2);
        }
        if (draw_below(2)) {
            load_options.place = place;
            load_options.place_cookie = one;
        }
        CHECK(tnd_load_start(&loader, &models[i], &load_options, &one->load) == 0, "%s", tnd_last_error());
    }

    for (uint32_t step = 1;; step++) {
        bool all = true;

        CHECK(step < STEPS_MAX, "no end");
        *ret_steps = step;
        for (uint32_t i = 0; i < load_count && step == cancel_step; i++) {
            watched[i].canceled = true;
            tnd_load_cancel(watched[i].load);
        }
        clock_ns += draw_below(400000);
        if (fake.hang_per_mille && draw_below(200) == 0)
            clock_ns += TND_NS_PER_S / 2;
        if (fake.hung_count && draw_below(1000) == 0)
            fake.pending[fake.pending_count++] = fake.hung[--fake.hung_count];
        switch (draw_below(4)) {
        case 0:
            tnd_pipeline_tick(&loader.pipeline);
            break;
        case 1:
            tnd_pipeline_wait(&loader.pipeline, 0);
            break;
        case 2:
            tnd_workers_run_one(loader.workers);
            break;
        default:
            if (draw_below(2000) == 0) {
                struct watched *one = &watched[draw_below(load_count)];

                one->canceled = true;
                tnd_load_cancel(one->load);
            }
        }
        check_pool(&loader.pipeline);
        for (uint32_t i = 0; i < load_count; i++) {
            compare_ready(&watched[i]);
            all = all && tnd_load_wait(watched[i].load, 0) != -EAGAIN;
        }
        if (all)
            break;
    }
    while (tnd_workers_run_one(loader.workers))
        ;
    for (uint32_t i = 0; i < load_count; i++) {
        struct watched *one = &watched[i];
        int r = tnd_load_wait(one->load, 0);

        if (r == 0)
            for (uint32_t t = 0; t < one->model->tensor_count; t++) {
                CHECK(one->seen[t], "tensor %u never arrived", t);
                check_digest(one, t);
            }
        else if (r == -ECANCELED)
            CHECK(one->canceled, "%s", tnd_load_error(one->load));
        else if (r == -EBADMSG)
            CHECK(cut, "%s", tnd_load_error(one->load));
        else
            CHECK(r == -EIO && (fake.errors_given || cut || fake.hang_per_mille), "%d: %s", r,
                  tnd_load_error(one->load));
        for (uint32_t t = 0; t < one->model->tensor_count; t++)
            if (one->seen[t]) /* and nothing wrote to it since */
                compare(one, t, one->load->transfer.places[t]);
        check_canaries(one);
    }
    *ret_answers = fake.answers;
    tear_down(&loader, watched, load_count, &fake);
}

/* The same schedule with its first answer failing, its second, … until none is left; then canceled at each step. */
static uint64_t run_each_fault(uint64_t seed)
{
    uint64_t steps, answers, runs = 0;

    for (fail_answer = 1, answers = UINT64_MAX; fail_answer <= answers; fail_answer++, runs++)
        run_seed(seed, &steps, &answers);
    fail_answer = 0;
    for (cancel_step = 1, steps = UINT64_MAX; cancel_step <= steps; cancel_step++, runs++)
        run_seed(seed, &steps, &answers);
    cancel_step = 0;
    return runs;
}

int main(int argc, char **argv)
{
    uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t steps, answers, runs = 0;

    fill_tape();
    for (uint64_t i = 0; i < count; i++, runs++)
        run_seed(first + i, &steps, &answers);
    for (uint64_t i = 0; argc <= 2 && i < tnd_min(FAULT_SEEDS, count / 10); i++)
        runs += run_each_fault(i + 1);
    printf("%llu passed, 0 failed, 0 skipped\n", (unsigned long long)runs);
    return 0;
}
