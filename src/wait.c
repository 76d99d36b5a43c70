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
static int ask(struct tnd_load *load, const struct tnd_awaited *awaited, struct tnd_err *err)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    struct tnd_residency *residency = &readiness->residency;
    int r;

    if (awaited->acquire) {
        r = tnd_residency_acquire(residency, awaited->stage, awaited->marked, readiness->now_ns(), err);
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

/* One turn: asks, and waits until that may have changed. Returns what was answered; -EAGAIN once it is until_ns. */
static int ask_and_wait(struct tnd_load *load, const struct tnd_awaited *awaited, bool waits, uint64_t until_ns,
                        struct tnd_err *err)
{
    struct tnd_readiness *readiness = &load->transfer.readiness;
    struct tnd_stage_use *use = NULL;
    bool wants;
    int r;

    if (awaited->stage != TND_STAGE_NONE)
        use = &readiness->residency.stages[awaited->stage];
    pthread_mutex_lock(&readiness->mutex);
    atomic_fetch_add(&readiness->waiting, 1);
    if (use)
        use->waiting++; /* it does not leave again before this thread has seen it */
    for (;;) {
        r = ask(load, awaited, err);
        wants = load->plan.by_layer && tnd_residency_wants(&readiness->residency);
        if (wants)
            tnd_pipeline_kick(&load->loader->pipeline);
        if (r != -EAGAIN || !waits || !tnd_readiness_wait(readiness, until_ns))
            break;
    }
    if (use)
        use->waiting--;
    atomic_fetch_sub(&readiness->waiting, 1);
    pthread_mutex_unlock(&readiness->mutex);
    return r;
}

/* The same for a thread that has to step the loader meanwhile. */
static int ask_and_step(struct tnd_load *load, const struct tnd_awaited *awaited, uint64_t until_ns,
                        struct tnd_err *err)
{
    int r;

    while ((r = ask_and_wait(load, awaited, false, 0, err)) == -EAGAIN) {
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

int tnd_load_await(struct tnd_load *load, const struct tnd_awaited *awaited, int64_t timeout_ns)
{
    uint64_t until = timeout_ns < 0 ? UINT64_MAX : tnd_now_ns() + (uint64_t)timeout_ns;
    struct tnd_err err = {0};
    int r = awaited->acquire ? -EAGAIN : tnd_readiness_look(&load->transfer.readiness, awaited->left);

    if (r == 0)
        return 0;
    if (timeout_ns && tnd_loader_steps_here(load->loader))
        r = ask_and_step(load, awaited, until, &err);
    else
        r = ask_and_wait(load, awaited, timeout_ns != 0, until, &err);
    if (r == -EAGAIN)
        return timeout_ns ? -ETIMEDOUT : -EAGAIN;
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
