/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "library.h"
#include "text.h"
#include "tundish.h"

/* Clearing fresh huge pages: measured on one core, and twice that on two; more cores were not measured. */
#define FIRST_TOUCH_BYTES_PER_S 6.2e9
/* Written by a core: what it stores at the most, and the few narrow types reach. */
#define CONVERT_BYTES_PER_S 25e9
#define WORKERS_DEFAULT_MAX 8

/* The time that no loader can beat: what takes longest of reading, copying to a GPU, converting and bringing in memory,
 * which overlap, and the first chunk, which nothing overlaps with. A GPU is given what the file has, and is taken to
 * convert faster than that comes. */
struct prediction {
    double disk_bytes_per_s, h2d_bytes_per_s, convert_bytes_per_s, first_touch_bytes_per_s;
    uint64_t disk_ns, h2d_ns, convert_ns, first_touch_ns, first_chunk_ns, light_ns;
};

static uint64_t ns_at(uint64_t bytes, double bytes_per_s)
{
    return bytes_per_s > 0 ? (uint64_t)((double)bytes / bytes_per_s * 1e9) : 0;
}

static uint64_t longest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct prediction predict(const struct options *options, const struct tnd_plan *plan,
                                 const struct tnd_plan_sizes *sizes)
{
    const struct tnd_window *first = tnd_plan_window(plan, 0);
    struct prediction prediction = {.disk_bytes_per_s = options->disk_bytes_per_s};
    double cores = (double)sysconf(_SC_NPROCESSORS_ONLN), threads = (double)options->threads;
    double most = threads > 0 ? threads : WORKERS_DEFAULT_MAX, workers = cores < most ? cores : most;

    prediction.disk_ns = ns_at(sizes->read_bytes, prediction.disk_bytes_per_s);
    if (options->device == TND_DEVICE_CUDA) {
        prediction.h2d_bytes_per_s = options->h2d_bytes_per_s;
        prediction.h2d_ns = ns_at(sizes->tensor_bytes, prediction.h2d_bytes_per_s);
    } else {
        prediction.convert_bytes_per_s = workers * CONVERT_BYTES_PER_S;
        prediction.convert_ns = ns_at(sizes->loaded_bytes - (sizes->tensor_bytes - sizes->converted_bytes),
                                      prediction.convert_bytes_per_s);
        prediction.first_touch_bytes_per_s = (workers > 1 ? 2 : 1) * FIRST_TOUCH_BYTES_PER_S;
        prediction.first_touch_ns = ns_at(sizes->destination_bytes, prediction.first_touch_bytes_per_s);
    }
    if (first)
        prediction.first_chunk_ns = ns_at(first->bytes, prediction.disk_bytes_per_s);
    prediction.light_ns = longest(prediction.disk_ns, prediction.h2d_ns);
    prediction.light_ns = longest(prediction.light_ns, prediction.convert_ns);
    prediction.light_ns = longest(prediction.light_ns, prediction.first_touch_ns) + prediction.first_chunk_ns;
    return prediction;
}

static void print_prediction(const struct prediction *prediction)
{
    printf("time     at least %s = max(read %s at %.2f GB/s", text_ns(prediction->light_ns).s,
           text_ns(prediction->disk_ns).s, prediction->disk_bytes_per_s / 1e9);
    if (prediction->h2d_ns > 0)
        printf(", copy to the GPU %s at %.1f GB/s", text_ns(prediction->h2d_ns).s, prediction->h2d_bytes_per_s / 1e9);
    if (prediction->convert_ns > 0)
        printf(", convert %s at %.1f GB/s", text_ns(prediction->convert_ns).s, prediction->convert_bytes_per_s / 1e9);
    if (prediction->first_touch_ns > 0)
        printf(", touch memory %s at %.1f GB/s", text_ns(prediction->first_touch_ns).s,
               prediction->first_touch_bytes_per_s / 1e9);
    printf(") + first chunk %s\n", text_ns(prediction->first_chunk_ns).s);
}

static void print_pieces(const struct tnd_model *model, const struct tnd_plan *plan, const struct tnd_window *window)
{
    for (uint32_t i = 0; i < window->piece_count; i++) {
        const struct tnd_piece *piece = tnd_plan_piece(plan, window->piece_first + i);
        const struct tnd_tensor *tensor = tnd_model_tensor(model, piece->tensor);

        printf("%16" PRIu32 " %12" PRIu32 "  ", piece->window_offset, piece->bytes);
        text_print(stdout, tensor->name, tensor->name_bytes, 200);
        printf(" from %" PRIu64 "\n", piece->tensor_offset);
    }
}

static void print_windows(const struct options *options, const struct tnd_model *model, const struct tnd_plan *plan)
{
    const struct tnd_window *window;

    printf("\n read  file       offset        bytes  pieces  first tensor\n");
    for (uint32_t i = 0; (window = tnd_plan_window(plan, i)); i++) {
        const struct tnd_piece *piece = tnd_plan_piece(plan, window->piece_first);
        const struct tnd_tensor *tensor = piece ? tnd_model_tensor(model, piece->tensor) : NULL;

        printf("%5" PRIu32 " %5" PRIu32 " %12" PRIu64 " %12" PRIu32 " %7" PRIu32 "  ", i, window->file, window->offset,
               window->bytes, window->piece_count);
        if (tensor)
            text_print(stdout, tensor->name, tensor->name_bytes, 200);
        putchar('\n');
        if (options->verbose)
            print_pieces(model, plan, window);
    }
}

static void print_plan(const struct options *options, const struct tnd_model *model, const struct tnd_plan *plan)
{
    struct tnd_plan_sizes sizes;

    tnd_plan_sizes(plan, &sizes);
    printf("tensors  %" PRIu32 " in %s, %s", sizes.tensor_count, text_count(sizes.layer_count, "layer").s,
           text_bytes(sizes.tensor_bytes).s);
    if (sizes.converted_bytes > 0)
        printf(", of which %s are converted: then %s", text_bytes(sizes.converted_bytes).s,
               text_bytes(sizes.loaded_bytes).s);
    putchar('\n');
    printf("reads    %" PRIu32 " of %s together, holding %s of tensors\n", sizes.window_count,
           text_bytes(sizes.read_bytes).s, text_count(sizes.piece_count, "piece").s);
    printf("memory   tensors %s, pool %s, of %s there is\n", text_bytes(sizes.destination_bytes).s,
           text_bytes(sizes.pool_bytes).s, text_bytes(sizes.available_bytes).s);
    if (options->disk_bytes_per_s > 0) {
        struct prediction prediction = predict(options, plan, &sizes);

        print_prediction(&prediction);
    }
    print_windows(options, model, plan);
}

static void json_prediction(struct json *json, const struct prediction *prediction)
{
    json_object_begin(json, "predicted");
    json_double(json, "disk_bytes_per_s", prediction->disk_bytes_per_s);
    json_double(json, "h2d_bytes_per_s", prediction->h2d_bytes_per_s);
    json_double(json, "convert_bytes_per_s", prediction->convert_bytes_per_s);
    json_double(json, "first_touch_bytes_per_s", prediction->first_touch_bytes_per_s);
    json_uint(json, "disk_ns", prediction->disk_ns);
    json_uint(json, "h2d_ns", prediction->h2d_ns);
    json_uint(json, "convert_ns", prediction->convert_ns);
    json_uint(json, "first_touch_ns", prediction->first_touch_ns);
    json_uint(json, "first_chunk_ns", prediction->first_chunk_ns);
    json_uint(json, "light_ns", prediction->light_ns);
    json_string(json, "formula", "max(disk_ns, h2d_ns, convert_ns, first_touch_ns) + first_chunk_ns");
    json_object_end(json);
}

static void json_window(struct json *json, const struct tnd_model *model, const struct tnd_plan *plan,
                        const struct tnd_window *window)
{
    json_object_begin(json, NULL);
    json_uint(json, "file", window->file);
    json_uint(json, "offset", window->offset);
    json_uint(json, "bytes", window->bytes);
    json_array_begin(json, "pieces");
    for (uint32_t i = 0; i < window->piece_count; i++) {
        const struct tnd_piece *piece = tnd_plan_piece(plan, window->piece_first + i);
        const struct tnd_tensor *tensor = tnd_model_tensor(model, piece->tensor);

        json_object_begin(json, NULL);
        json_bytes(json, "tensor", tensor->name, tensor->name_bytes);
        json_uint(json, "tensor_offset", piece->tensor_offset);
        json_uint(json, "window_offset", piece->window_offset);
        json_uint(json, "bytes", piece->bytes);
        json_object_end(json);
    }
    json_array_end(json);
    json_object_end(json);
}

static void json_plan(const struct options *options, const struct tnd_model *model, const struct tnd_plan *plan)
{
    const struct tnd_window *window;
    struct tnd_plan_sizes sizes;
    struct json json;

    tnd_plan_sizes(plan, &sizes);
    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_uint(&json, "tensor_bytes", sizes.tensor_bytes);
    json_uint(&json, "loaded_bytes", sizes.loaded_bytes);
    json_uint(&json, "converted_bytes", sizes.converted_bytes);
    json_uint(&json, "read_bytes", sizes.read_bytes);
    json_uint(&json, "destination_bytes", sizes.destination_bytes);
    json_uint(&json, "pool_bytes", sizes.pool_bytes);
    json_uint(&json, "available_bytes", sizes.available_bytes);
    json_uint(&json, "tensors", sizes.tensor_count);
    json_uint(&json, "layers", sizes.layer_count);
    json_uint(&json, "reads", sizes.window_count);
    json_uint(&json, "pieces", sizes.piece_count);
    if (options->disk_bytes_per_s > 0) {
        struct prediction prediction = predict(options, plan, &sizes);

        json_prediction(&json, &prediction);
    } else {
        json_null(&json, "predicted");
    }
    json_array_begin(&json, "windows");
    for (uint32_t i = 0; (window = tnd_plan_window(plan, i)); i++)
        json_window(&json, model, plan, window);
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}

int command_plan(const struct options *options)
{
    struct tnd_model_options model_options = options_model(options);
    struct tnd_loader_options loader_options = options_loader(options);
    struct tnd_load_options load_options = options_load(options);
    struct tnd_model *model = NULL;
    struct tnd_plan *plan = NULL;
    int code = 0;
    int r;

    r = tnd_model_open(options->model, &model_options, &model);
    if (r >= 0)
        r = tnd_plan_create(model, &loader_options, &load_options, &plan);
    if (r < 0)
        code = fail_result(r, NULL);
    else if (options->json)
        json_plan(options, model, plan);
    else
        print_plan(options, model, plan);
    tnd_plan_destroy(&plan);
    tnd_model_close(&model);
    return code;
}
