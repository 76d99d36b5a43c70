/* SPDX-License-Identifier: Apache-2.0 */

/* Layers as a consumer uses them. */

#include "device/device.h"
#include "load.h"
#include "loader.h"

int tnd_layer_acquire(struct tnd_load *load, int32_t layer, int64_t timeout_ns)
{
    uint32_t stage = 0;
    int r = tnd_load_stage_of(load, layer, &stage);

    return r < 0 ? r : tnd_load_await(load, &(struct tnd_awaited){.stage = stage, .acquire = true}, timeout_ns);
}

static bool is_marked(struct tnd_load *load, uint32_t stage)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    bool marked;

    pthread_mutex_lock(&readiness->mutex);
    marked = readiness->residency.stages[stage].marked;
    pthread_mutex_unlock(&readiness->mutex);
    return marked;
}

int tnd_layer_acquire_on(struct tnd_load *load, int32_t layer, void *stream, int64_t timeout_ns)
{
    const struct tnd_upload *upload = &load->transfer.upload;
    struct tnd_err err = {0};
    uint32_t stage = 0;
    int r = tnd_load_stage_of(load, layer, &stage);

    if (r >= 0)
        r = tnd_load_await(load, &(struct tnd_awaited){.stage = stage, .acquire = true, .marked = true}, timeout_ns);
    if (r < 0)
        return r;
    if (!is_marked(load, stage)) /* nothing of it had to be queued */
        return 0;
    if (upload->device->ops->stream_wait(upload->device, stream, upload->marks[stage], &err) < 0) {
        tnd_layer_release(load, layer);
        return tnd_err_publish(&err);
    }
    return 0;
}

/* Marks when a stream is done with what it acquired. One event a slot: a second stream's covers the first's, for which
 * it waits. */
static int mark_free(struct tnd_load *load, uint32_t slot, void *stream, struct tnd_err *err)
{
    const struct tnd_upload *upload = &load->transfer.upload;
    int r = upload->device->ops->stream_wait(upload->device, stream, upload->slot_free[slot], err);

    return r < 0 ? r : upload->device->ops->stream_mark(upload->device, stream, upload->slot_free[slot], err);
}

/* on: a stream, that is not done with the layer yet. */
static int release(struct tnd_load *load, int32_t layer, bool on, void *stream)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    struct tnd_err err = {0};
    uint32_t stage = 0;
    bool was_acquired;
    int r = tnd_load_stage_of(load, layer, &stage);

    if (r < 0)
        return r;
    pthread_mutex_lock(&readiness->mutex);
    was_acquired = readiness->residency.stages[stage].acquired > 0;
    if (was_acquired && on && readiness->residency.stages[stage].slot != TND_SLOT_NONE)
        r = mark_free(load, readiness->residency.stages[stage].slot, stream, &err);
    if (was_acquired && r >= 0)
        readiness->residency.stages[stage].acquired--;
    tnd_load_tell_driver(load);
    pthread_mutex_unlock(&readiness->mutex);
    if (r < 0)
        return tnd_err_publish(&err);
    return was_acquired ? 0 : tnd_load_fail_argument("that layer is not acquired");
}

int tnd_layer_release(struct tnd_load *load, int32_t layer)
{
    return release(load, layer, false, NULL);
}

int tnd_layer_release_on(struct tnd_load *load, int32_t layer, void *stream)
{
    return release(load, layer, true, stream);
}

int tnd_layer_pin(struct tnd_load *load, int32_t layer, bool pinned)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    uint32_t stage = 0;
    int r = tnd_load_stage_of(load, layer, &stage);

    if (r < 0)
        return r;
    pthread_mutex_lock(&readiness->mutex);
    readiness->residency.stages[stage].pinned = pinned;
    tnd_readiness_stir(readiness); /* it may have been the last place: then there is nothing to wait for */
    tnd_load_tell_driver(load);
    pthread_mutex_unlock(&readiness->mutex);
    return 0;
}

int tnd_load_prefetch(struct tnd_load *load, int32_t layer)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    uint32_t stage = 0;
    int r = tnd_load_stage_of(load, layer, &stage);

    if (r < 0)
        return r;
    pthread_mutex_lock(&readiness->mutex);
    tnd_residency_hint(&readiness->residency, stage);
    tnd_load_tell_driver(load);
    pthread_mutex_unlock(&readiness->mutex);
    return 0;
}

void tnd_layer_stats(struct tnd_load *load, struct tnd_layer_stats *ret_stats)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;

    pthread_mutex_lock(&readiness->mutex);
    *ret_stats = readiness->residency.stats;
    ret_stats->ahead = readiness->residency.ahead;
    pthread_mutex_unlock(&readiness->mutex);
}
