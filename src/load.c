/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "loader.h"
#include "model/model.h"
#include "options.h"

#define DISK_PERCENT_MIN 85
#define COPY_BYTES_PER_NS_MIN 3 /* slow machines copy 5 GB/s and more a core */

/* ---- Start ------------------------------------------------------------------------------------------------- */

static int prepare_digests(struct tnd_load *load, struct tnd_err *err)
{
    struct tnd_transfer *transfer = &load->transfer;
    int r;

    if (load->loader->options.engine == TND_ENGINE_MMAP) /* a mapping that is touched after a cut is a signal */
        return tnd_fail(err, -EINVAL, "the mmap engine hands out the file itself, and makes no digests of it");
    if (load->device != &tnd_device_host)
        return tnd_fail(err, -EINVAL, "digests are made of bytes in host memory, and this load ends elsewhere");
    if (load->plan.by_layer) /* what is read twice would be in them twice */
        return tnd_fail(err, -EINVAL, "a load that is lazy or has a window makes no digests");
    r = tnd_digests_init(&load->digests, &load->plan, transfer->spans, err);
    if (r >= 0)
        transfer->digests = &load->digests;
    return r;
}

/* A device that can be used already says now when it has no room. */
static int prepare_upload(struct tnd_load *load, struct tnd_err *err)
{
    int r = tnd_upload_init(&load->transfer, load->device, &load->block, load->layout.bytes, load->layout.slot_count,
                            err);

    return r < 0 ? r : tnd_upload_begin(&load->transfer, err);
}

static int prepare(struct tnd_load *load, const struct tnd_load_options *options, struct tnd_err *err)
{
    struct tnd_plan_options planned = tnd_plan_options_of(&load->loader->options, options);
    struct tnd_transfer *transfer = &load->transfer;
    uint64_t (*now_ns)(void) = load->loader->pipeline.options.now_ns;
    int r;

    planned.on_device = load->device != &tnd_device_host;
    r = tnd_plan_init(&load->plan, load->model, &planned, err);
    if (r < 0)
        return r;
    load->plan.sizes.pool_bytes = tnd_pool_start_bytes(&load->loader->options, &load->plan.sizes,
                                                       planned.on_device);
    transfer->plan = &load->plan;
    /* Before the load is on the loader's list, where others look at how far it is. */
    r = tnd_readiness_init(&transfer->readiness, &load->plan, options, now_ns, err);
    if (r >= 0)
        r = tnd_load_take_destination(load, options, err);
    if (r >= 0 && options->digest == TND_DIGEST_XXH3)
        r = prepare_digests(load, err);
    transfer->in_place = options->in_place;
    transfer->trace = load->loader->trace;
    if (load->device != &tnd_device_host)
        return r < 0 ? r : prepare_upload(load, err);
    transfer->fresh = load->block.data;
    /* On demand much of it may never be needed; a window will be. */
    transfer->touches_all = options->lazy != TND_LAZY_DEMAND || load->layout.slot_count;
    return r;
}

/* Where the load will end. A GPU that was asked for, if there is one, has to have started to be known to be one. */
static int choose_device(struct tnd_load *load, const struct tnd_load_options *options, struct tnd_err *err)
{
    struct tnd_loader *loader = load->loader;
    struct tnd_device *device = loader->pipeline.options.device;
    bool need_not = loader->options.device == TND_DEVICE_AUTO;
    int r = device && device->ops->ready ? device->ops->ready(device, need_not, err) : 0;

    load->device = device && r >= 0 ? device : &tnd_device_host;
    if (need_not && options->place)
        return tnd_fail(err, -EINVAL, "place() has to know whose memory is wanted: not with TND_DEVICE_AUTO");
    if (r < 0 && !need_not)
        return r;
    if (r < 0 || loader->device_err.result < 0)
        tnd_reasons_add(&load->transfer.reasons, "to the host: %s", r < 0 ? err->text : loader->device_err.text);
    *err = (struct tnd_err){0};
    return 0;
}

/* Out of the loader's list, if it was on it. What it leaks stays in the loader's sum. */
static void leave(struct tnd_load *load)
{
    struct tnd_load **at;

    pthread_mutex_lock(&load->loader->loads_mutex);
    if (load->transfer.stats.reads_given_up)
        load->loader->leaked_bytes += load->host_bytes;
    for (at = &load->loader->loads; *at; at = &(*at)->next)
        if (*at == load) {
            *at = load->next;
            break;
        }
    pthread_mutex_unlock(&load->loader->loads_mutex);
}

static void load_free(struct tnd_load *load)
{
    struct tnd_loader *loader = load->own_loader;
    struct tnd_model *model = load->own_model;
    struct tnd_allocator allocator = load->allocator;

    if (load->transfer.stats.reads_given_up) { /* they may still come: what they read into, and the file, stay */
        tnd_loader_destroy(&loader);
        return;
    }
    tnd_digests_finish(&load->digests);
    tnd_upload_finish(&load->transfer);
    load->device->ops->block_free(load->device, &load->block);
    for (uint32_t i = 0; i < load->transfer.file_count; i++)
        tnd_file_unmap(&load->transfer.files[i]);
    tnd_plan_finish(&load->plan);
    tnd_free(&allocator, load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
}

static int load_start(struct tnd_loader *loader, const struct tnd_model *model, const struct tnd_load_options *given,
                      struct tnd_load **ret_load, struct tnd_err *err)
{
    struct tnd_load_options options;
    struct tnd_load *load;
    uint64_t start_ns = loader->pipeline.options.now_ns();
    int r = tnd_load_options_init(&options, given, err);

    if (r < 0)
        return r;
    load = tnd_zalloc(&loader->allocator, 1, sizeof(*load));
    if (!load)
        return tnd_fail(err, -ENOMEM, "no memory for a load");
    load->allocator = loader->allocator;
    load->loader = loader;
    load->model = model;
    r = choose_device(load, &options, err);
    if (r >= 0)
        r = prepare(load, &options, err);
    if (r < 0) {
        leave(load);
        if (load->transfer.readiness.plan)
            tnd_readiness_finish(&load->transfer.readiness);
        load_free(load);
        return r;
    }
    load->plan_ns = loader->pipeline.options.now_ns() - start_ns;
    load->transfer.readiness.start_ns = start_ns;
    tnd_pipeline_add(&loader->pipeline, &load->transfer);
    *ret_load = load;
    return 0;
}

int tnd_load_start(struct tnd_loader *loader, const struct tnd_model *model, const struct tnd_load_options *options,
                   struct tnd_load **ret_load)
{
    struct tnd_err err = {0};

    return load_start(loader, model, options, ret_load, &err) < 0 ? tnd_err_publish(&err) : 0;
}

int tnd_load_file(const char *path, const struct tnd_load_options *options, struct tnd_load **ret_load)
{
    struct tnd_loader *loader = NULL;
    struct tnd_model *model = NULL;
    struct tnd_load *load = NULL;
    struct tnd_load_options given;
    struct tnd_err err = {0};
    int r = tnd_load_options_init(&given, options, &err);

    if (r >= 0 && given.resident_bytes)
        r = tnd_fail(&err, -EINVAL, "tnd_load_file() waits for all layers, which a load with a window never has");
    if (r < 0)
        return tnd_err_publish(&err);
    r = tnd_model_open(path, NULL, &model);
    if (r >= 0)
        r = tnd_loader_create(NULL, &loader);
    if (r >= 0)
        r = tnd_load_start(loader, model, options, &load);
    if (r >= 0)
        r = tnd_load_wait(load, -1);
    if (r < 0) {
        tnd_load_destroy(&load);
        tnd_loader_destroy(&loader);
        tnd_model_close(&model);
        return r;
    }
    load->own_loader = loader;
    load->own_model = model;
    *ret_load = load;
    return 0;
}

/* ---- End --------------------------------------------------------------------------------------------------- */

void tnd_load_cancel(struct tnd_load *load)
{
    atomic_store(&load->transfer.canceled, true);
    tnd_pipeline_kick(&load->loader->pipeline);
}

void tnd_load_destroy(struct tnd_load **load)
{
    struct tnd_load *dead = load ? *load : NULL;

    if (!dead)
        return;
    tnd_load_cancel(dead);
    tnd_load_await(dead, &(struct tnd_awaited){.stage = TND_STAGE_NONE}, -1);
    tnd_transfer_touch_join(&dead->transfer);
    tnd_readiness_finish(&dead->transfer.readiness);
    leave(dead);
    load_free(dead);
    *load = NULL;
}

/* ---- Look -------------------------------------------------------------------------------------------------- */

/* A layer in a window is there for whoever has acquired it, and for nobody else. */
static int check_acquired(struct tnd_load *load, uint32_t tensor_index)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    uint32_t stage = tnd_plan_stage(&load->plan, tensor_index);
    uint32_t acquired;

    if (!load->layout.slot_count || load->model->tensors[tensor_index].layer < 0)
        return 0;
    pthread_mutex_lock(&readiness->mutex);
    acquired = readiness->residency.stages[stage].acquired;
    pthread_mutex_unlock(&readiness->mutex);
    return acquired ? 0 : tnd_load_fail_argument("the tensor is of a layer in a window, and that is not acquired");
}

int tnd_load_tensor_data(struct tnd_load *load, uint32_t tensor_index, const void **ret_data)
{
    int r;

    if (tensor_index >= load->model->tensor_count)
        return tnd_load_fail_argument("there is no such tensor in the model");
    if (atomic_load(&load->transfer.readiness.tensor_left[tensor_index]) == TND_NOT_LOADED)
        return tnd_load_fail_argument("that tensor or layer is not part of this load");
    r = check_acquired(load, tensor_index);
    if (r >= 0)
        r = tnd_load_await(load, &(struct tnd_awaited){
            .stage = tnd_plan_stage(&load->plan, tensor_index),
            .left = &load->transfer.readiness.tensor_left[tensor_index],
        }, 0);
    if (r >= 0)
        *ret_data = load->transfer.places[tensor_index];
    return r;
}

int tnd_load_tensor_read(struct tnd_load *load, uint32_t tensor_index, uint64_t offset_bytes, void *buffer,
                         size_t bytes)
{
    const void *data;
    uint64_t tensor_bytes;
    int r = tnd_load_tensor_data(load, tensor_index, &data);

    if (r < 0)
        return r;
    tensor_bytes = tnd_plan_bytes(&load->plan, tensor_index);
    if (offset_bytes > tensor_bytes || bytes > tensor_bytes - offset_bytes)
        return tnd_load_fail_argument("the bytes asked for are not all in the tensor");
    if (bytes == 0) /* of a tensor that perhaps has no place */
        return 0;
    if (load->device != &tnd_device_host) {
        struct tnd_err err = {0};

        r = load->device->ops->read(load->device, buffer, (const uint8_t *)data + offset_bytes, bytes, &err);
        return r < 0 ? tnd_err_publish(&err) : 0;
    }
    memcpy(buffer, (const uint8_t *)data + offset_bytes, bytes);
    return 0;
}

int tnd_load_tensor_digest(struct tnd_load *load, uint32_t tensor_index, uint64_t *ret_digest)
{
    int r;

    if (!load->transfer.digests)
        return tnd_load_fail_argument("this load makes no digests");
    r = tnd_load_wait_tensor(load, tensor_index, 0);
    if (r >= 0)
        r = tnd_load_wait(load, 0);
    if (r < 0)
        return r;
    *ret_digest = load->digests.tensors[tensor_index].value;
    return 0;
}

int tnd_load_tensor_type(struct tnd_load *load, uint32_t tensor_index, enum tnd_dtype *ret_dtype, uint64_t *ret_bytes)
{
    if (tnd_plan_tensor_type(&load->plan, tensor_index, ret_dtype, ret_bytes) < 0)
        return tnd_load_fail_argument("there is no such tensor in the model");
    return 0;
}

int tnd_load_event_fd(struct tnd_load *load)
{
    return tnd_readiness_event_fd(&load->transfer.readiness);
}

void tnd_load_progress(struct tnd_load *load, struct tnd_progress *ret_progress)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    bool ended = atomic_load(&readiness->ended);

    *ret_progress = (struct tnd_progress){
        .bytes_ready = atomic_load(&readiness->bytes_ready),
        .bytes = load->plan.sizes.tensor_bytes,
        .tensors_ready = atomic_load(&readiness->tensors_ready),
        .tensors = load->plan.tensor_count,
        .elapsed_ns = (ended ? readiness->end_ns : readiness->now_ns()) - readiness->start_ns,
        .ended = ended,
    };
}

static const char *engine_of_most(const struct tnd_transfer_stats *stats)
{
    static const char *const names[] = {"auto", "uring", "threads", "mmap", "nil"};
    enum tnd_engine most = TND_ENGINE_URING;

    for (int i = TND_ENGINE_URING; i <= TND_ENGINE_NIL; i++)
        if (stats->engine_bytes[i] > stats->engine_bytes[most])
            most = (enum tnd_engine)i;
    return names[most];
}

/* What took longest. While reads were under way nearly all the time it was the disk; else the device, or what the
 * workers did, unless they copied slower than any core copies, which means that they waited for pages. */
static enum tnd_limit limit_of(const struct tnd_load_stats *stats)
{
    uint64_t copyable_ns = stats->pool_bytes_read / COPY_BYTES_PER_NS_MIN;

    if (!stats->ready_ns || stats->read_busy_ns * 100 >= stats->ready_ns * DISK_PERCENT_MIN)
        return TND_LIMIT_DISK;
    if (stats->h2d_busy_ns > 0)
        return TND_LIMIT_H2D;
    if (stats->convert_busy_ns > stats->copy_busy_ns && stats->convert_busy_ns > stats->alloc_ns)
        return TND_LIMIT_CONVERT;
    return stats->copy_busy_ns > copyable_ns || stats->alloc_ns > stats->copy_busy_ns ? TND_LIMIT_MEMORY
                                                                                        : TND_LIMIT_COPY;
}

void tnd_load_stats(struct tnd_load *load, struct tnd_load_stats *ret_stats)
{
    struct tnd_transfer *transfer = &load->transfer;
    struct tnd_readiness *readiness = &transfer->readiness;
    bool ended = atomic_load(&readiness->ended);
    bool on_host = load->device == &tnd_device_host;
    struct tnd_transfer_stats none = {0};
    const struct tnd_transfer_stats *stats = ended ? &transfer->stats : &none;
    uint64_t first_layer_ns;

    *ret_stats = (struct tnd_load_stats){
        .model_bytes = load->plan.sizes.tensor_bytes,
        .bytes_read = stats->bytes_read,
        .read_count = stats->read_count,
        .pool_bytes_read = stats->pool_bytes_read,
        .open_ns = load->model->open_ns,
        .plan_ns = load->plan_ns,
        .setup_ns = load->loader->setup_ns,
        .read_busy_ns = stats->read_busy_ns,
        .copy_busy_ns = stats->work.copy_ns,
        .convert_busy_ns = stats->work.convert_ns,
        .digest_busy_ns = stats->work.digest_ns,
        .h2d_busy_ns = stats->h2d_busy_ns,
        .alloc_ns = atomic_load(&transfer->touch_ns),
        .overlap_ns = stats->overlap_ns,
        .destination_bytes = load->host_bytes,
        .pool_bytes = atomic_load(&load->loader->pipeline.pool.bytes),
        .tensors = load->plan.tensor_count,
        .layers = load->plan.sizes.layer_count,
        .depth_max = stats->depth_max,
        .converted_bytes = stats->work.converted_bytes,
        .overflowed = stats->work.range.overflowed,
        .underflowed = stats->work.range.underflowed,
        .retries = stats->retries,
        .reads_given_up = stats->reads_given_up,
        .direct = stats->direct_bytes_read * 2 > stats->bytes_read,
        .engine = stats->read_count ? engine_of_most(stats) : "none",
        .device_bytes = on_host ? 0 : load->layout.bytes,
    };
    snprintf(ret_stats->device, sizeof(ret_stats->device), "%s",
             on_host ? "host" : load->loader->cuda ? load->loader->device_name : load->device->ops->name);
    if (!on_host && load->loader->cuda) {
        struct tnd_cuda_usage usage;

        tnd_cuda_usage(load->loader->cuda, &usage);
        ret_stats->tile_bytes = usage.tile_bytes;
        ret_stats->peak_pinned_bytes = usage.pinned_bytes;
    }
    if (ended && readiness->end.result >= 0)
        ret_stats->ready_ns = readiness->end_ns - readiness->start_ns;
    first_layer_ns = atomic_load(&readiness->first_layer_ns);
    if (first_layer_ns)
        ret_stats->first_layer_ns = first_layer_ns - readiness->start_ns;
    ret_stats->peak_host_bytes = ret_stats->destination_bytes + ret_stats->pool_bytes;
    ret_stats->limit = limit_of(ret_stats);
}

const char *tnd_load_reason(struct tnd_load *load, uint32_t reason_index)
{
    const struct tnd_reasons *reasons = &load->transfer.reasons;

    if (!atomic_load(&load->transfer.readiness.ended) || reason_index >= reasons->count)
        return NULL;
    return reasons->text[reason_index];
}

const char *tnd_load_error(struct tnd_load *load)
{
    return atomic_load(&load->transfer.readiness.ended) ? load->transfer.readiness.end.text : "";
}

const struct tnd_model *tnd_load_model(const struct tnd_load *load)
{
    return load->model;
}

/* ---- Plan -------------------------------------------------------------------------------------------------- */

static int plan_create(const struct tnd_model *model, const struct tnd_loader_options *loader_given,
                       const struct tnd_load_options *load_given, struct tnd_plan *plan, struct tnd_err *err)
{
    struct tnd_loader_options loader_options;
    struct tnd_load_options load_options;
    struct tnd_plan_options planned;
    struct tnd_layout layout;
    bool *mapped;
    int r = tnd_loader_options_init(&loader_options, loader_given, err);

    if (r >= 0)
        r = tnd_load_options_init(&load_options, load_given, err);
    if (r < 0)
        return r;
    planned = tnd_plan_options_of(&loader_options, &load_options);
    planned.on_device = loader_options.device == TND_DEVICE_CUDA;
    r = tnd_plan_init(plan, model, &planned, err);
    if (r < 0)
        return r;
    mapped = tnd_load_mapped_tensors(plan, loader_options.engine);
    if (!mapped)
        r = tnd_fail(err, -ENOMEM, "no memory to lay out %u tensors", plan->tensor_count);
    if (r >= 0)
        r = tnd_residency_check_order(plan, &load_options, err);
    if (r >= 0)
        r = tnd_layout_init(&layout, plan, mapped, load_options.in_place, load_options.resident_bytes, err);
    if (r < 0) {
        tnd_plan_finish(plan);
        return r;
    }
    plan->sizes.destination_bytes = layout.bytes;
    plan->sizes.pool_bytes = tnd_pool_start_bytes(&loader_options, &plan->sizes, plan->on_device);
    plan->sizes.available_bytes = tnd_budget_bytes(&loader_options);
    return 0;
}

int tnd_plan_create(const struct tnd_model *model, const struct tnd_loader_options *loader_options,
                    const struct tnd_load_options *load_options, struct tnd_plan **ret_plan)
{
    const struct tnd_allocator *allocator = &model->arena.allocator;
    struct tnd_plan *plan = tnd_zalloc(allocator, 1, sizeof(*plan));
    struct tnd_err err = {0};

    if (!plan)
        tnd_fail(&err, -ENOMEM, "no memory for a plan");
    else
        plan_create(model, loader_options, load_options, plan, &err);
    if (err.result < 0) {
        tnd_free(allocator, plan);
        return tnd_err_publish(&err);
    }
    *ret_plan = plan;
    return 0;
}

void tnd_plan_destroy(struct tnd_plan **plan)
{
    struct tnd_allocator allocator;

    if (!plan || !*plan)
        return;
    allocator = (*plan)->arena.allocator;
    tnd_plan_finish(*plan);
    tnd_free(&allocator, *plan);
    *plan = NULL;
}
