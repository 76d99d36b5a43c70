/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "io/io.h"
#include "pipeline/pipeline.h"

#define CHUNK_BYTES_MIN ((uint32_t)64 << 10)
#define CHUNK_BYTES_DEFAULT ((uint32_t)2 << 20)
#define IN_FLIGHT_BYTES ((uint32_t)8 << 20) /* what drains a disk while its buffers still fit the cache */
#define DEPTH_MIN 4
#define DEPTH_MAX 256
#define DEPTH_RAISE_MAX 4 /* times the default: 32 MiB in flight drain several disks of 14 GB/s */
#define POOL_BYTES_MAX_DEFAULT ((uint64_t)128 << 20)
#define POOL_BYTES_LIMIT ((uint64_t)64 << 30)
#define THREADS_DEFAULT_MAX 8
#define READ_TIMEOUT_NS_DEFAULT (30 * TND_NS_PER_S)
#define THREADS_MAX 256
#define STREAMS_DEFAULT 2 /* one converts while the other is filled for */
#define STREAMS_MAX 8

int tnd_options_copy(void *options, size_t bytes, const void *given, const char *what, struct tnd_err *err)
{
    size_t size;

    memset(options, 0, bytes);
    if (!given)
        return 0;
    memcpy(&size, given, sizeof(size));
    if (size < sizeof(size) || size > 4096)
        return tnd_fail(err, -EINVAL, "%s.size is %zu: set it to sizeof(struct %s)", what, size, what);
    memcpy(options, given, tnd_min(size, bytes));
    return 0;
}

static int check_range(const char *name, uint64_t value, uint64_t low, uint64_t high, struct tnd_err *err)
{
    if (value >= low && value <= high)
        return 0;
    return tnd_fail(err, -EINVAL, "%s is %llu, outside %llu … %llu", name, (unsigned long long)value,
                    (unsigned long long)low, (unsigned long long)high);
}

int tnd_loader_options_init(struct tnd_loader_options *options, const struct tnd_loader_options *given,
                            struct tnd_err *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int r = tnd_options_copy(options, sizeof(*options), given, "tnd_loader_options", err);

    if (r < 0)
        return r;
    if (!options->chunk_bytes)
        options->chunk_bytes = CHUNK_BYTES_DEFAULT;
    if (!options->depth)
        options->depth = (uint32_t)tnd_max(DEPTH_MIN, IN_FLIGHT_BYTES / options->chunk_bytes);
    if (!options->pool_bytes_max)
        options->pool_bytes_max = tnd_max(POOL_BYTES_MAX_DEFAULT, options->chunk_bytes);
    if (!options->thread_count)
        options->thread_count = (uint32_t)tnd_min(THREADS_DEFAULT_MAX, cores > 0 ? (uint64_t)cores : 1);
    if (!options->stream_count)
        options->stream_count = STREAMS_DEFAULT;
    if (!options->read_timeout_ns)
        options->read_timeout_ns = READ_TIMEOUT_NS_DEFAULT;
    if (options->engine > TND_ENGINE_NIL || options->direct > TND_OFF)
        return tnd_fail(err, -EINVAL, "engine or direct is no value of its type");
    if (options->device > TND_DEVICE_CUDA || options->pinning > TND_PIN_OFF)
        return tnd_fail(err, -EINVAL, "device or pinning is no value of its type");
    if (options->engine == TND_ENGINE_MMAP && options->direct == TND_ON)
        return tnd_fail(err, -EINVAL, "the mmap engine has no direct I/O");
    if (!tnd_is_power_of_two(options->chunk_bytes))
        return tnd_fail(err, -EINVAL, "chunk_bytes is %u, not a power of two", options->chunk_bytes);
    r = check_range("chunk_bytes", options->chunk_bytes, CHUNK_BYTES_MIN, TND_READ_BYTES_MAX, err);
    if (r >= 0)
        r = check_range("depth", options->depth, 1, DEPTH_MAX, err);
    if (r >= 0)
        r = check_range("pool_bytes_max", options->pool_bytes_max, options->chunk_bytes, POOL_BYTES_LIMIT, err);
    if (r >= 0)
        r = check_range("thread_count", options->thread_count, 1, THREADS_MAX, err);
    if (r >= 0)
        r = check_range("stream_count", options->stream_count, 1, STREAMS_MAX, err);
    if (r >= 0)
        r = check_range("read_timeout_ns", options->read_timeout_ns, 1, INT64_MAX, err);
    return r;
}

static int check_target(enum tnd_dtype dtype, struct tnd_err *err)
{
    if (dtype == TND_DTYPE_NONE || dtype == TND_F32 || dtype == TND_F16 || dtype == TND_BF16)
        return 0;
    return tnd_fail(err, -EINVAL, "tensors can become F32, F16 or BF16, not %s", tnd_dtype_name(dtype));
}

int tnd_load_options_init(struct tnd_load_options *options, const struct tnd_load_options *given, struct tnd_err *err)
{
    int r = tnd_options_copy(options, sizeof(*options), given, "tnd_load_options", err);

    if (r < 0)
        return r;
    if (options->order > TND_ORDER_FILE || options->in_place > TND_OFF || options->digest > TND_DIGEST_XXH3)
        return tnd_fail(err, -EINVAL, "order, in_place or digest is no value of its type");
    if (options->lazy > TND_LAZY_DEMAND)
        return tnd_fail(err, -EINVAL, "lazy is no value of its type");
    if ((options->lazy || options->resident_bytes) && options->order == TND_ORDER_FILE)
        return tnd_fail(err, -EINVAL, "a load that is lazy or has a window goes in the order of use");
    if (options->place && options->resident_bytes)
        return tnd_fail(err, -EINVAL, "layers in a window have no place of the caller's: place and resident_bytes");
    if (!options->layer_order_count != !options->layer_order)
        return tnd_fail(err, -EINVAL, "layer_order and layer_order_count: one is given, the other is not");
    r = check_target(options->dtype, err);
    for (uint32_t i = 0; i < options->rule_count && r >= 0; i++)
        r = options->rules && options->rules[i].pattern ? check_target(options->rules[i].dtype, err)
                                                        : tnd_fail(err, -EINVAL, "rule %u has no pattern", i);
    return r;
}

struct tnd_plan_options tnd_plan_options_of(const struct tnd_loader_options *loader,
                                            const struct tnd_load_options *load)
{
    return (struct tnd_plan_options){
        .order = load->order,
        .only = load->only,
        .layer_first = load->layer_first,
        .layer_count = load->layer_count,
        .dtype = load->dtype,
        .rules = load->rules,
        .rule_count = load->rule_count,
        .by_layer = load->lazy || load->resident_bytes,
        .chunk_bytes = loader->chunk_bytes,
        .alignment = TND_PLAN_ALIGNMENT,
    };
}

uint64_t tnd_pool_start_bytes(const struct tnd_loader_options *options, const struct tnd_plan_sizes *sizes,
                              bool on_device)
{
    uint64_t start = (uint64_t)(options->depth + TND_SPARE_BUFFERS) * options->chunk_bytes;

    if (options->engine == TND_ENGINE_MMAP && !sizes->converted_bytes && !on_device)
        return 0;
    return tnd_min(tnd_min(start, tnd_round_down(options->pool_bytes_max, options->chunk_bytes)),
                   tnd_round_up(sizes->read_bytes, options->chunk_bytes));
}

uint32_t tnd_depth_max(const struct tnd_loader_options *options, uint32_t given)
{
    uint64_t buffers = options->pool_bytes_max / options->chunk_bytes;

    if (given || buffers <= options->depth + TND_SPARE_BUFFERS)
        return options->depth;
    return (uint32_t)tnd_min(options->depth * DEPTH_RAISE_MAX, buffers - TND_SPARE_BUFFERS);
}

uint64_t tnd_budget_bytes(const struct tnd_loader_options *options)
{
    uint64_t available = tnd_memory_available();

    return options->memory_bytes_max ? tnd_min(available, options->memory_bytes_max) : available;
}
