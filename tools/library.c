/* SPDX-License-Identifier: Apache-2.0 */
#include "library.h"

#include <stdio.h>

/* Lines come from any thread; one call a line keeps them whole. */
static void log_line(void *cookie, enum tnd_log_level level, const char *line)
{
    static const char *const names[] = {"?", "error", "warning", "info", "debug"};

    (void)cookie;
    if (level <= TND_LOG_INFO)
        fprintf(stderr, "tundish: %s: %s\n", names[level], line);
}

struct tnd_loader_options options_loader(const struct options *options)
{
    return (struct tnd_loader_options){
        .size = sizeof(struct tnd_loader_options),
        .engine = (enum tnd_engine)options->engine,
        .direct = (enum tnd_switch)options->direct,
        .chunk_bytes = (uint32_t)options->chunk_bytes,
        .depth = (uint32_t)options->depth,
        .pool_bytes_max = options->pool_bytes,
        .thread_count = (uint32_t)options->threads,
        .memory_bytes_max = options->memory_bytes,
        .read_timeout_ns = options->read_timeout_s * 1000000000,
        .log = options->verbose ? log_line : NULL,
        .device = (enum tnd_device_choice)options->device,
        .cuda_ordinal = options->cuda_ordinal,
        .stream_count = (uint32_t)options->streams,
    };
}

struct tnd_load_options options_load(const struct options *options)
{
    static const enum tnd_dtype dtypes[] = {TND_DTYPE_NONE, TND_F16, TND_BF16, TND_F32};

    return (struct tnd_load_options){
        .size = sizeof(struct tnd_load_options),
        .order = (enum tnd_order)options->order,
        .only = options->only,
        .layer_first = options->layer_first,
        .layer_count = options->layer_count,
        .in_place = (enum tnd_switch)options->in_place,
        .dtype = dtypes[options->dtype],
        .digest = (enum tnd_digest)options->digest,
        .lazy = options->lazy ? TND_LAZY_DEMAND : options->by_layer ? TND_LAZY_BACKGROUND : TND_LAZY_OFF,
        .resident_bytes = options->resident_bytes,
        .ahead = options->ahead == OPTION_AUTO ? 0 : options->ahead == 0 ? TND_AHEAD_NONE : (uint32_t)options->ahead,
    };
}

struct tnd_model_options options_model(const struct options *options)
{
    return (struct tnd_model_options){
        .size = sizeof(struct tnd_model_options),
        .log = options->verbose ? log_line : NULL,
    };
}
