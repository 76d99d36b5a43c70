/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "library.h"
#include "text.h"

static double per_s(double amount, uint64_t ns)
{
    return ns > 0 ? amount * 1e9 / (double)ns : 0;
}

const char *report_limit_name(enum tnd_limit limit)
{
    switch (limit) {
    case TND_LIMIT_DISK:
        return "disk";
    case TND_LIMIT_COPY:
        return "copy";
    case TND_LIMIT_CONVERT:
        return "convert";
    case TND_LIMIT_MEMORY:
        return "memory";
    case TND_LIMIT_H2D:
        return "h2d";
    }
    return "?";
}

/* 0 where nothing was read. */
static double cpu_s_per_gb(const struct session *session, const struct tnd_load_stats *stats)
{
    return stats->bytes_read > 0 ? (double)session->cpu_ns / (double)stats->bytes_read : 0;
}

static void print_model(const struct session *session, const struct tnd_load_stats *stats)
{
    uint32_t all = tnd_model_tensor_count(session->model);

    printf("model    ");
    text_print(stdout, session->options->model, strlen(session->options->model), SIZE_MAX);
    printf(": %s, ", tnd_model_format(session->model));
    if (stats->tensors < all)
        printf("%" PRIu32 " of its %" PRIu32 " tensors", stats->tensors, all);
    else
        printf("%s", text_count(all, "tensor").s);
    printf(" in %s, %s\n", text_count(stats->layers, "layer").s, text_bytes(stats->model_bytes).s);
}

static void print_speed(const struct session *session, const struct tnd_load_stats *stats)
{
    double tensors_per_s = per_s(stats->tensors, session->wall_ns);

    printf("loaded   in %s: %.2f GB/s, %.*f tensors/s\n", text_ns(session->wall_ns).s,
           per_s((double)stats->model_bytes, session->wall_ns) / 1e9, tensors_per_s < 10 ? 1 : 0, tensors_per_s);
    printf("of that  opening %s, planning %s, setting up %s, reading and placing %s\n", text_ns(stats->open_ns).s,
           text_ns(stats->plan_ns).s, text_ns(stats->setup_ns).s, text_ns(stats->ready_ns).s);
    if (stats->first_layer_ns > 0)
        printf("first    layer 0 and what stands before it after %s of %s\n", text_ns(stats->first_layer_ns).s,
               text_ns(stats->ready_ns).s);
}

/* Tensors of each type that were to become another and stayed what they are. */
static void count_kept(const struct session *session, uint32_t *counts)
{
    enum tnd_dtype wanted = options_load(session->options).dtype;
    const struct tnd_tensor *tensor;
    const void *data;

    memset(counts, 0, TND_DTYPE_COUNT * sizeof(*counts));
    for (uint32_t i = 0; wanted != TND_DTYPE_NONE && (tensor = tnd_model_tensor(session->model, i)); i++) {
        enum tnd_dtype dtype;
        uint64_t bytes;

        if (tnd_load_tensor_data(session->load, i, &data) == 0 &&
            tnd_load_tensor_type(session->load, i, &dtype, &bytes) == 0 && dtype != wanted)
            counts[dtype]++;
    }
}

static void print_conversion(const struct session *session, const struct tnd_load_stats *stats)
{
    uint32_t kept[TND_DTYPE_COUNT];

    count_kept(session, kept);
    if (stats->converted_bytes > 0)
        printf("became   %s: %s converted in passing; %" PRIu64 " values overflowed to infinity, %" PRIu64
               " vanished to zero\n",
               tnd_dtype_name(options_load(session->options).dtype), text_bytes(stats->converted_bytes).s,
               stats->overflowed, stats->underflowed);
    for (int i = 0; i < TND_DTYPE_COUNT; i++)
        if (kept[i] > 0)
            printf("kept     %s as %s, which is not converted\n", text_count(kept[i], "tensor").s,
                   tnd_dtype_name((enum tnd_dtype)i));
}

static void print_way(const struct tnd_load_stats *stats)
{
    uint64_t in_place = stats->bytes_read - stats->pool_bytes_read;

    printf("how      engine %s, %s, %s, %" PRIu32 " in flight at the most, ", stats->engine,
           stats->direct ? "direct I/O" : "through the page cache", text_count(stats->read_count, "read").s,
           stats->depth_max);
    if (in_place == 0)
        printf("all through the pool\n");
    else if (stats->pool_bytes_read == 0)
        printf("all in place\n");
    else
        printf("%.0f %% in place, the rest through the pool\n", 100 * (double)in_place / (double)stats->bytes_read);
    printf("limit    %s: reads under way %s, copying %s, ", report_limit_name(stats->limit),
           text_ns(stats->read_busy_ns).s, text_ns(stats->copy_busy_ns).s);
    if (stats->convert_busy_ns > 0)
        printf("converting %s, ", text_ns(stats->convert_busy_ns).s);
    if (stats->h2d_busy_ns > 0)
        printf("the GPU copying and converting %s, ", text_ns(stats->h2d_busy_ns).s);
    if (stats->digest_busy_ns > 0)
        printf("digests %s, ", text_ns(stats->digest_busy_ns).s);
    printf("touching memory %s, over all threads\n", text_ns(stats->alloc_ns).s);
}

/* All runs do not fit on a line when there are thousands. */
static void print_runs(const uint64_t *runs_ns, size_t run_count)
{
    uint64_t best = UINT64_MAX, worst = 0;
    double sum = 0;

    for (size_t i = 0; i < run_count; i++) {
        best = runs_ns[i] < best ? runs_ns[i] : best;
        worst = runs_ns[i] > worst ? runs_ns[i] : worst;
        sum += (double)runs_ns[i];
    }
    printf("runs     %zu, of which this is the last: first %s, best %s, mean %s, worst %s\n", run_count,
           text_ns(runs_ns[0]).s, text_ns(best).s, text_ns((uint64_t)(sum / (double)run_count)).s, text_ns(worst).s);
}

void report_text(const struct session *session, const uint64_t *runs_ns, size_t run_count)
{
    struct tnd_load_stats stats;
    const char *reason;

    tnd_load_stats(session->load, &stats);
    print_model(session, &stats);
    print_speed(session, &stats);
    print_way(&stats);
    print_conversion(session, &stats);
    printf("cpu      %s, %.3f s per GB of the %s read\n", text_ns(session->cpu_ns).s, cpu_s_per_gb(session, &stats),
           text_bytes(stats.bytes_read).s);
    printf("memory   %s at the most: tensors %s, pool %s\n", text_bytes(stats.peak_host_bytes).s,
           text_bytes(stats.destination_bytes).s, text_bytes(stats.pool_bytes).s);
    if (stats.device_bytes > 0)
        printf("device   %s: tensors %s, tiles to convert in %s; %s pinned at the most\n", stats.device,
               text_bytes(stats.device_bytes).s, text_bytes(stats.tile_bytes).s,
               text_bytes(stats.peak_pinned_bytes).s);
    if (run_count > 1)
        print_runs(runs_ns, run_count);
    for (uint32_t i = 0; (reason = tnd_load_reason(session->load, i)); i++) {
        printf("why      ");
        text_print(stdout, reason, strlen(reason), SIZE_MAX);
        putchar('\n');
    }
}

static void json_amounts(struct json *json, const struct tnd_load_stats *stats)
{
    json_uint(json, "model_bytes", stats->model_bytes);
    json_uint(json, "bytes_read", stats->bytes_read);
    json_uint(json, "pool_bytes_read", stats->pool_bytes_read);
    json_uint(json, "read_count", stats->read_count);
    json_uint(json, "depth_max", stats->depth_max);
    json_uint(json, "retries", stats->retries);
    json_uint(json, "reads_given_up", stats->reads_given_up);
    json_uint(json, "tensors", stats->tensors);
    json_uint(json, "layers", stats->layers);
}

static void json_times(struct json *json, const struct session *session, const struct tnd_load_stats *stats)
{
    json_uint(json, "wall_ns", session->wall_ns);
    json_uint(json, "cpu_ns", session->cpu_ns);
    json_uint(json, "open_ns", stats->open_ns);
    json_uint(json, "plan_ns", stats->plan_ns);
    json_uint(json, "setup_ns", stats->setup_ns);
    json_uint(json, "first_layer_ns", stats->first_layer_ns);
    json_uint(json, "ready_ns", stats->ready_ns);
    json_uint(json, "read_busy_ns", stats->read_busy_ns);
    json_uint(json, "convert_busy_ns", stats->convert_busy_ns);
    json_uint(json, "digest_busy_ns", stats->digest_busy_ns);
    json_uint(json, "copy_busy_ns", stats->copy_busy_ns);
    json_uint(json, "h2d_busy_ns", stats->h2d_busy_ns);
    json_uint(json, "alloc_ns", stats->alloc_ns);
    json_uint(json, "overlap_ns", stats->overlap_ns);
    json_double(json, "bytes_per_s", per_s((double)stats->model_bytes, session->wall_ns));
    json_double(json, "tensors_per_s", per_s(stats->tensors, session->wall_ns));
    json_double(json, "cpu_s_per_gb", cpu_s_per_gb(session, stats));
}

static void json_kept(struct json *json, const struct session *session)
{
    uint32_t kept[TND_DTYPE_COUNT];

    count_kept(session, kept);
    json_object_begin(json, "kept");
    for (int i = 0; i < TND_DTYPE_COUNT; i++)
        if (kept[i] > 0)
            json_uint(json, tnd_dtype_name((enum tnd_dtype)i), kept[i]);
    json_object_end(json);
}

static void json_digests(struct json *json, const struct session *session)
{
    const struct tnd_tensor *tensor;
    uint64_t digest;
    char text[17];

    json_array_begin(json, "digests");
    for (uint32_t i = 0; session->options->digest && (tensor = tnd_model_tensor(session->model, i)); i++) {
        if (tnd_load_tensor_digest(session->load, i, &digest) < 0)
            continue; /* --only or --layers left it out */
        snprintf(text, sizeof(text), "%016" PRIx64, digest);
        json_object_begin(json, NULL);
        json_bytes(json, "name", tensor->name, tensor->name_bytes);
        json_string(json, "xxh3", text);
        json_object_end(json);
    }
    json_array_end(json);
}

static void json_memory(struct json *json, const struct tnd_load_stats *stats)
{
    json_uint(json, "peak_host_bytes", stats->peak_host_bytes);
    json_uint(json, "destination_bytes", stats->destination_bytes);
    json_uint(json, "pool_bytes", stats->pool_bytes);
    json_uint(json, "peak_pinned_bytes", stats->peak_pinned_bytes);
    json_uint(json, "device_bytes", stats->device_bytes);
    json_uint(json, "tile_bytes", stats->tile_bytes);
    json_uint(json, "converted_bytes", stats->converted_bytes);
    json_uint(json, "overflowed", stats->overflowed);
    json_uint(json, "underflowed", stats->underflowed);
}

void report_json(const struct session *session, const uint64_t *runs_ns, size_t run_count)
{
    struct tnd_load_stats stats;
    const char *reason;
    struct json json;

    tnd_load_stats(session->load, &stats);
    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_string(&json, "model", session->options->model);
    json_string(&json, "format", tnd_model_format(session->model));
    json_amounts(&json, &stats);
    json_times(&json, session, &stats);
    json_memory(&json, &stats);
    json_string(&json, "engine", stats.engine);
    json_bool(&json, "direct", stats.direct);
    json_string(&json, "device", stats.device);
    json_string(&json, "limit", report_limit_name(stats.limit));
    json_array_begin(&json, "reasons");
    for (uint32_t i = 0; (reason = tnd_load_reason(session->load, i)); i++)
        json_string(&json, NULL, reason);
    json_array_end(&json);
    json_kept(&json, session);
    json_digests(&json, session);
    json_array_begin(&json, "runs");
    for (size_t i = 0; i < run_count; i++)
        json_uint(&json, NULL, runs_ns[i]);
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}
