/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/trial.h"

#define WARM_UP_BYTES ((uint64_t)32 << 20)
#define SIDE_BYTES ((uint64_t)32 << 20)

bool tnd_trial_places(const struct tnd_trial *trial, uint64_t load_bytes)
{
    if (trial->phase == TND_TRIAL_DECIDED)
        return trial->place_rate > trial->pool_rate;
    return trial->phase == TND_TRIAL_PLACE && load_bytes >= TND_TRIAL_LOAD_BYTES_MIN;
}

void tnd_trial_issued(struct tnd_trial *trial, uint64_t load_bytes, bool in_place, uint32_t read_bytes)
{
    if (trial->phase == TND_TRIAL_DECIDED || load_bytes < TND_TRIAL_LOAD_BYTES_MIN)
        return;
    if (in_place) {
        trial->place.issued += read_bytes;
        if (trial->place.issued >= SIDE_BYTES)
            trial->phase = TND_TRIAL_WAIT;
        return;
    }
    trial->pool.issued += read_bytes;
    if (trial->phase == TND_TRIAL_WARM_UP && trial->pool.issued >= WARM_UP_BYTES)
        trial->phase = TND_TRIAL_POOL;
    if (trial->phase == TND_TRIAL_POOL && trial->pool.issued >= WARM_UP_BYTES + SIDE_BYTES)
        trial->phase = TND_TRIAL_PLACE;
}

bool tnd_trial_running(const struct tnd_trial *trial)
{
    return trial->phase != TND_TRIAL_DECIDED && trial->pool.issued;
}

static double rate(const struct tnd_trial_side *side)
{
    uint64_t ns = side->last_ns - side->first_ns;

    return ns ? (double)(side->finished - side->first_bytes) / (double)ns : 0;
}

bool tnd_trial_finished(struct tnd_trial *trial, bool in_place, uint32_t read_bytes, uint64_t now_ns)
{
    struct tnd_trial_side *side = in_place ? &trial->place : &trial->pool;

    if (trial->phase == TND_TRIAL_DECIDED || trial->phase == TND_TRIAL_WARM_UP)
        return false;
    if (!in_place && trial->place.finished) /* the pool's turn was before */
        return false;
    if (!side->finished) { /* the time before it is not this side's */
        side->first_bytes = read_bytes;
        side->first_ns = now_ns;
    }
    side->finished += read_bytes;
    side->last_ns = now_ns;
    if (trial->phase != TND_TRIAL_WAIT || trial->place.finished < trial->place.issued)
        return false;
    trial->pool_rate = rate(&trial->pool);
    trial->place_rate = rate(&trial->place);
    trial->phase = TND_TRIAL_DECIDED;
    return true;
}
