/* SPDX-License-Identifier: Apache-2.0 */

/* Layers as a consumer uses them. */

#include "load.h"
#include "loader.h"

int tnd_layer_acquire(struct tnd_load *load, int32_t layer, int64_t timeout_ns)
{
    uint32_t stage = 0;
    int r = tnd_load_stage_of(load, layer, &stage);

    return r < 0 ? r : tnd_load_await(load, &(struct tnd_awaited){.stage = stage, .acquire = true}, timeout_ns);
}

/* Lets the driver look at what a consumer has changed. Under the readiness's mutex. */
static void tell_driver(struct tnd_load *load)
{
    if (load->plan.by_layer && tnd_residency_wants(&load->transfer.readiness.residency))
        tnd_pipeline_kick(&load->loader->pipeline);
}

int tnd_layer_release(struct tnd_load *load, int32_t layer)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    uint32_t stage = 0;
    bool was_acquired;
    int r = tnd_load_stage_of(load, layer, &stage);

    if (r < 0)
        return r;
    pthread_mutex_lock(&readiness->mutex);
    was_acquired = tnd_residency_release(&readiness->residency, stage);
    tell_driver(load);
    pthread_mutex_unlock(&readiness->mutex);
    return was_acquired ? 0 : tnd_load_fail_argument("that layer is not acquired");
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
    tell_driver(load);
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
    tnd_residency_demand(&readiness->residency, stage);
    tell_driver(load);
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
