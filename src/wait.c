/* SPDX-License-Identifier: Apache-2.0 */

/* Waiting for what a load brings, and asking for it where it does not come unasked. */

#include <errno.h>

#include "base/clock.h"
#include "load.h"
#include "loader.h"
#include "model/model.h"

int tnd_load_fail_argument(const char *sentence)
{
    struct tnd_err err;

    tnd_fail(&err, -EINVAL, "%s", sentence);
    return tnd_err_publish(&err);
}

/* Under the readiness's mutex: -EAGAIN when it is not there yet, and asked for. */
static int ask(struct tnd_load *load, const struct tnd_awaited *awaited, struct tnd_refusal *refusal,
               struct tnd_err *err)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    struct tnd_residency *residency = &readiness->residency;
    int r;

    if (awaited->acquire) {
        r = tnd_residency_acquire(residency, awaited->stage, awaited->marked, refusal,
                                  readiness->now_ns(), err);
        if (r)
            return r < 0 ? r : 0;
        r = tnd_readiness_look(readiness, NULL);
    } else {
        r = tnd_readiness_look(readiness, awaited->left);
    }
    if (r != -EAGAIN) {
        *err = readiness->end;
        return r;
    }
    if (atomic_load(&load->transfer.canceled)) /* only the end is to come */
        return r;
    if (tnd_residency_take_failure(residency, awaited->stage, err))
        return err->result;
    if (awaited->stage == TND_STAGE_NONE)
        tnd_residency_demand_all(residency);
    else
        tnd_residency_demand(residency, awaited->stage);
    return -EAGAIN;
}

void tnd_load_tell_driver(struct tnd_load *load)
{
    if (load->plan.by_layer && tnd_residency_wants(&load->transfer.readiness.residency))
        tnd_pipeline_kick(&load->loader->pipeline);
}

/* Asks, and with until_ns again whenever something has changed, until then; 0: once. Returns what was answered
 * last. */
static int ask_and_wait(struct tnd_load *load, const struct tnd_awaited *awaited, struct tnd_refusal *refusal,
                        uint64_t until_ns, struct tnd_err *err)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    int r;

    pthread_mutex_lock(&readiness->mutex);
    do {
        r = ask(load, awaited, refusal, err);
        tnd_load_tell_driver(load);
    } while (r == -EAGAIN && until_ns && tnd_readiness_wait(readiness, until_ns));
    pthread_mutex_unlock(&readiness->mutex);
    return r;
}

/* The same for a thread that has to step the loader meanwhile. */
static int ask_and_step(struct tnd_load *load, const struct tnd_awaited *awaited, struct tnd_refusal *refusal,
                        uint64_t until_ns, struct tnd_err *err)
{
    int r;

    while ((r = ask_and_wait(load, awaited, refusal, 0, err)) == -EAGAIN) {
        uint64_t now = tnd_now_ns();
        int stepped;

        if (now >= until_ns)
            return -EAGAIN;
        stepped = tnd_loader_step(load->loader, until_ns == UINT64_MAX ? -1 : (int64_t)(until_ns - now));
        if (stepped < 0) {
            *err = (struct tnd_err){0}; /* it has told its own */
            return stepped;
        }
    }
    return r;
}

/* Counts a thread in that waits: it is told of changes, and what it waits for does not leave again before it has seen
 * it. */
static void begin_waiting(struct tnd_load *load, const struct tnd_awaited *awaited)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;

    pthread_mutex_lock(&readiness->mutex);
    atomic_fetch_add(&readiness->waiting, 1);
    if (awaited->stage != TND_STAGE_NONE)
        readiness->residency.stages[awaited->stage].waiting++;
    pthread_mutex_unlock(&readiness->mutex);
}

/* Counts it out: now that may leave for what others wait for. */
static void end_waiting(struct tnd_load *load, const struct tnd_awaited *awaited, const struct tnd_refusal *refusal)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;

    pthread_mutex_lock(&readiness->mutex);
    atomic_fetch_sub(&readiness->waiting, 1);
    if (awaited->stage != TND_STAGE_NONE)
        readiness->residency.stages[awaited->stage].waiting--;
    if (awaited->acquire)
        tnd_residency_stop_waiting(&readiness->residency, awaited->stage, refusal);
    tnd_load_tell_driver(load);
    pthread_mutex_unlock(&readiness->mutex);
}

int tnd_load_await(struct tnd_load *load, const struct tnd_awaited *awaited, int64_t timeout_ns)
{
    uint64_t until = timeout_ns < 0 ? UINT64_MAX : tnd_now_ns() + (uint64_t)timeout_ns;
    struct tnd_refusal refusal = {0};
    struct tnd_err err = {0};
    int r = awaited->acquire ? -EAGAIN : tnd_readiness_look(&load->transfer.readiness, awaited->left);

    if (r == 0)
        return 0;
    r = ask_and_wait(load, awaited, timeout_ns ? &refusal : NULL, 0, &err);
    if (r == -EAGAIN && timeout_ns) {
        begin_waiting(load, awaited);
        r = tnd_loader_steps_here(load->loader) ? ask_and_step(load, awaited, &refusal, until, &err)
                                                : ask_and_wait(load, awaited, &refusal, until, &err);
        end_waiting(load, awaited, &refusal);
        r = r == -EAGAIN ? -ETIMEDOUT : r;
    }
    if (r < 0 && err.result)
        tnd_err_publish(&err);
    return r;
}

int tnd_load_wait(struct tnd_load *load, int64_t timeout_ns)
{
    if (load->layout.slot_count && !atomic_load(&load->transfer.canceled) &&
        !atomic_load(&load->transfer.readiness.ended))
        return tnd_load_fail_argument("a load with a window never has all of its layers");
    return tnd_load_await(load, &(struct tnd_awaited){.stage = TND_STAGE_NONE}, timeout_ns);
}

/* A stage of this load that is waited for, not acquired. */
static int wait_in_stage(struct tnd_load *load, uint32_t stage, const atomic_uint *left, int64_t timeout_ns)
{
    if (atomic_load(left) == TND_NOT_LOADED)
        return tnd_load_fail_argument("that tensor or layer is not part of this load");
    if (load->layout.slot_count && stage > 0 && stage + 1 < load->plan.stage_count)
        return tnd_load_fail_argument("a layer in a window is acquired, not waited for");
    return tnd_load_await(load, &(struct tnd_awaited){.stage = stage, .left = left}, timeout_ns);
}

int tnd_load_wait_tensor(struct tnd_load *load, uint32_t tensor_index, int64_t timeout_ns)
{
    if (tensor_index >= load->model->tensor_count)
        return tnd_load_fail_argument("there is no such tensor in the model");
    return wait_in_stage(load, tnd_plan_stage(&load->plan, tensor_index),
                         &load->transfer.readiness.tensor_left[tensor_index], timeout_ns);
}

int tnd_load_stage_of(const struct tnd_load *load, int32_t layer, uint32_t *ret_stage)
{
    if (layer < TND_LAYER_SHARED_OUT || layer >= (int64_t)load->model->layer_count)
        return tnd_load_fail_argument("there is no such layer in the model");
    *ret_stage = tnd_plan_stage_of_layer(&load->plan, layer);
    if (!load->plan.stages[*ret_stage].tensor_count)
        return tnd_load_fail_argument("that layer is not part of this load");
    return 0;
}

int tnd_load_wait_layer(struct tnd_load *load, int32_t layer, int64_t timeout_ns)
{
    uint32_t stage = 0;
    int r = tnd_load_stage_of(load, layer, &stage);

    return r < 0 ? r : wait_in_stage(load, stage, &load->transfer.readiness.stage_left[stage], timeout_ns);
}
