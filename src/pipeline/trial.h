/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_PIPELINE_TRIAL_H
#define TND_PIPELINE_TRIAL_H

/* Whether reads land in place or in the pool, where both are possible: it differs between machines, so the first large
 * load does a stretch of each and the faster one stays for all that follow. Pure: told of reads, asks no clock. */

#include <stdbool.h>
#include <stdint.h>

#define TND_TRIAL_LOAD_BYTES_MIN ((uint64_t)256 << 20) /* smaller loads go through the pool without a trial */

enum tnd_trial_phase { TND_TRIAL_WARM_UP, TND_TRIAL_POOL, TND_TRIAL_PLACE, TND_TRIAL_WAIT, TND_TRIAL_DECIDED };

struct tnd_trial_side {
    uint64_t issued, finished; /* bytes */
    uint64_t first_bytes, first_ns, last_ns;
};

struct tnd_trial {
    enum tnd_trial_phase phase;
    struct tnd_trial_side pool, place;
    double pool_rate, place_rate; /* bytes a ns, once decided */
};

/* Whether a read for which both would do goes in place now. load_bytes: of its load; 0: it only follows what others
 * found. */
bool tnd_trial_places(const struct tnd_trial *trial, uint64_t load_bytes);
/* Such a read was issued. */
void tnd_trial_issued(struct tnd_trial *trial, uint64_t load_bytes, bool in_place, uint32_t read_bytes);
/* Whether a trial is under way. */
bool tnd_trial_running(const struct tnd_trial *trial);

/* Such a read has finished, or failed; whether that decided it. */
bool tnd_trial_finished(struct tnd_trial *trial, bool in_place, uint32_t read_bytes, uint64_t now_ns);

#endif
