/* SPDX-License-Identifier: Apache-2.0 */
#include "loader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "options.h"

static void *driver_main(void *argument)
{
    struct tnd_loader *loader = argument;
    struct tnd_err err = {0};

    tnd_pipeline_start(&loader->pipeline, &err);
    pthread_mutex_lock(&loader->start_mutex);
    loader->start_err = err;
    loader->started = true;
    pthread_cond_signal(&loader->started_cond);
    pthread_mutex_unlock(&loader->start_mutex);
    if (err.result < 0)
        return NULL;
    while (!atomic_load(&loader->stopping) || !tnd_pipeline_idle(&loader->pipeline)) {
        tnd_pipeline_tick(&loader->pipeline);
        tnd_pipeline_wait(&loader->pipeline, atomic_load(&loader->stopping) ? 0 : -1);
    }
    tnd_pipeline_stop(&loader->pipeline); /* the ring goes on the thread that owns it */
    return NULL;
}

static int driver_start(struct tnd_loader *loader, struct tnd_err *err)
{
    int r = tnd_workers_create(&loader->workers, &loader->allocator, loader->options.thread_count);

    loader->pipeline.options.workers = loader->workers;
    if (r >= 0 && !loader->options.foreground)
        r = tnd_thread_create(&loader->driver, driver_main, loader);
    if (r < 0)
        return tnd_fail(err, -ENOMEM, "no thread could be started");
    if (loader->options.foreground)
        return 0;
    pthread_mutex_lock(&loader->start_mutex);
    while (!loader->started)
        pthread_cond_wait(&loader->started_cond, &loader->start_mutex);
    *err = loader->start_err;
    pthread_mutex_unlock(&loader->start_mutex);
    if (err->result < 0)
        pthread_join(loader->driver, NULL);
    return err->result;
}

static struct tnd_pipeline_options pipeline_options(const struct tnd_loader *loader,
                                                    const struct tnd_loader_options *given)
{
    const struct tnd_loader_options *options = &loader->options;

    return (struct tnd_pipeline_options){
        .io =
            {
                .engine = options->engine,
                .direct = options->direct,
                .allocator = loader->allocator,
                .log = loader->log,
            },
        .chunk_bytes = options->chunk_bytes,
        .depth = options->depth,
        .depth_max = tnd_depth_max(options, given ? given->depth : 0),
        .pool_bytes_max = options->pool_bytes_max,
        .read_timeout_ns = options->read_timeout_ns,
    };
}

static void loader_free(struct tnd_loader *loader)
{
    struct tnd_allocator allocator = loader->allocator;

    tnd_pipeline_stop(&loader->pipeline);
    tnd_workers_destroy(&loader->workers);
    if (loader->cuda)
        loader->cuda->ops->destroy(loader->cuda); /* its start-up may be using the waker yet */
    tnd_pipeline_finish(&loader->pipeline);
    pthread_cond_destroy(&loader->started_cond);
    pthread_mutex_destroy(&loader->start_mutex);
    pthread_mutex_destroy(&loader->loads_mutex);
    tnd_free(&allocator, loader);
}

/* Starts a GPU up, if one is wanted; a loader that may do without keeps why there is none. */
static int device_start(struct tnd_loader *loader, struct tnd_err *err)
{
    struct tnd_pipeline_options *wired = &loader->pipeline.options;
    struct tnd_cuda_options options = {
        .allocator = loader->allocator,
        .waker = &loader->pipeline.waker,
        .ordinal = loader->options.cuda_ordinal,
        .stream_count = loader->options.stream_count,
        .pinning = loader->options.pinning,
    };
    int r;

    if (loader->options.device == TND_DEVICE_HOST)
        return 0;
    snprintf(loader->device_name, sizeof(loader->device_name), "cuda:%u", options.ordinal);
    r = tnd_cuda_create(&options, &loader->cuda, &loader->device_err);
    wired->device = loader->cuda;
    if (r >= 0 || loader->options.device == TND_DEVICE_AUTO)
        return 0;
    return tnd_fail(err, r, "%s: %s", loader->device_name, loader->device_err.text);
}

static int loader_create(const struct tnd_loader_options *given, struct tnd_loader **ret_loader, struct tnd_err *err)
{
    struct tnd_loader_options options;
    struct tnd_allocator allocator;
    struct tnd_loader *loader;
    struct tnd_pipeline_options wired;
    uint64_t start_ns = tnd_now_ns();
    int r = tnd_loader_options_init(&options, given, err);

    if (r < 0)
        return r;
    allocator = tnd_allocator_or_default(options.allocator);
    loader = tnd_zalloc(&allocator, 1, sizeof(*loader));
    if (!loader)
        return tnd_fail(err, -ENOMEM, "no memory for a loader");
    loader->options = options;
    loader->allocator = allocator;
    loader->log = (struct tnd_log){.write = options.log, .cookie = options.log_cookie};
    wired = pipeline_options(loader, given);
    loader->trace = (struct tnd_trace){.write = options.trace, .cookie = options.trace_cookie};
    r = tnd_pipeline_init(&loader->pipeline, &wired, err);
    if (r < 0) {
        tnd_free(&allocator, loader);
        return r;
    }
    pthread_mutex_init(&loader->loads_mutex, NULL);
    pthread_mutex_init(&loader->start_mutex, NULL);
    pthread_cond_init(&loader->started_cond, NULL);
    r = device_start(loader, err);
    if (r >= 0)
        r = driver_start(loader, err);
    if (r < 0) {
        loader_free(loader);
        return r;
    }
    loader->setup_ns = tnd_now_ns() - start_ns;
    *ret_loader = loader;
    return 0;
}

int tnd_loader_create(const struct tnd_loader_options *options, struct tnd_loader **ret_loader)
{
    struct tnd_err err = {0};

    return loader_create(options, ret_loader, &err) < 0 ? tnd_err_publish(&err) : 0;
}

void tnd_loader_destroy(struct tnd_loader **loader)
{
    struct tnd_loader *dead = loader ? *loader : NULL;

    if (!dead)
        return;
    atomic_store(&dead->stopping, true);
    if (!dead->options.foreground) {
        tnd_pipeline_kick(&dead->pipeline);
        pthread_join(dead->driver, NULL);
    }
    loader_free(dead);
    *loader = NULL;
}

/* The first thread that asks becomes the driver of a foreground loader. */
static bool drives_here(struct tnd_loader *loader)
{
    int nobody = TND_DRIVEN_BY_NOBODY;

    if (atomic_compare_exchange_strong(&loader->driven, &nobody, TND_DRIVEN_SOON)) {
        loader->driven_by = pthread_self();
        atomic_store(&loader->driven, TND_DRIVEN);
        return true;
    }
    return atomic_load(&loader->driven) == TND_DRIVEN && pthread_equal(loader->driven_by, pthread_self());
}

bool tnd_loader_steps_here(struct tnd_loader *loader)
{
    return loader->options.foreground && drives_here(loader);
}

static int loader_step(struct tnd_loader *loader, int64_t timeout_ns, struct tnd_err *err)
{
    bool moved;
    int r;

    if (!loader->options.foreground)
        return tnd_fail(err, -EINVAL, "only a foreground loader is stepped");
    if (!drives_here(loader))
        return tnd_fail(err, -EINVAL, "another thread drives this loader");
    if (!loader->pipeline.started) {
        r = tnd_pipeline_start(&loader->pipeline, err);
        if (r < 0) {
            tnd_pipeline_reject(&loader->pipeline, err);
            return r;
        }
    }
    moved = tnd_pipeline_tick(&loader->pipeline);
    moved |= tnd_pipeline_wait(&loader->pipeline, moved ? 0 : timeout_ns);
    moved |= tnd_pipeline_tick(&loader->pipeline);
    moved |= tnd_pipeline_wait(&loader->pipeline, 0); /* sends what that queued: the disk works while the caller does */
    return moved;
}

int tnd_loader_step(struct tnd_loader *loader, int64_t timeout_ns)
{
    struct tnd_err err = {0};
    int r = loader_step(loader, timeout_ns, &err);

    return r < 0 ? tnd_err_publish(&err) : r;
}
