/* SPDX-License-Identifier: Apache-2.0 */
#include "prediction.h"

/* N layers are taken in turn, over and over, each computed with for C; reading one takes the disk R; W of them have a
 * place; at each acquire of layer i those up to i + a are fetched, each into the place of the layer whose next use is
 * farthest, but of none from i to i + a. Reads and computing go on side by side.
 *
 * First token. All N layers are read, one after the other, from the start on: the first is waited for as long as it
 * takes, each other one R - C, if that is more than nothing. Where nothing is fetched ahead each takes R.
 *
 * Later tokens, W < N. The layer just left is the one whose next use is farthest, so that in a row of misses each takes
 * the place of layer i - 1, and the layers in memory are the a + 1 from i to i + a, which move, and W - a - 1 that
 * stay. The misses end where those that stay begin, and begin again behind them; the moving ones have become the front
 * part of what then stays. So
 *      m = N - W            misses follow each other, then
 *      h = W - a - 1        hits, and it begins anew, with period
 *      P = m + h = N - 1 - a.
 * A token has N / P periods, and m N / P misses: with a = 0 Belady's (N - W) N / (N - 1).
 *
 * Stalls of a period, a >= 1. The first of its misses is fetched from the acquire of the layer a before it on, but not
 * before the last miss of the period before has been read, h + 1 layers before it: g = min(a, h + 1) layers are
 * computed meanwhile. Until the j-th miss is needed these and the j - 1 misses before it are computed, and j are read:
 * it is late by j R - (g + j - 1) C. That is linear in j, so the last miss or the first is the
 * latest, and the period's stalls are
 *      S = max(0, R - g C, m R - (g + m - 1) C).
 * a = 0: each read begins when it is waited for, S = m R. tests/cli/test_walk.py steps through the same, layer by
 * layer.
 *
 * Late hits. With R <= C there are none. With R > C each layer of the first token but the first is late, and of a
 * period the misses with j (R - C) > (g - 1) C, each of which is later than the one before it. */
static double credit_of_period(double hits, double ahead)
{
    return ahead < hits + 1 ? ahead : hits + 1;
}

static double late_of_period(double misses, double hits, double ahead, double read_ns, double compute_ns)
{
    double late = 0;

    for (double j = 1; j <= misses && ahead > 0; j++)
        late += j * (read_ns - compute_ns) > (credit_of_period(hits, ahead) - 1) * compute_ns;
    return read_ns > compute_ns ? late : 0;
}

static double stalls_of_period(double misses, double hits, double ahead, double read_ns, double compute_ns)
{
    double credit = credit_of_period(hits, ahead);
    double first = read_ns - credit * compute_ns;
    double last = misses * read_ns - (credit + misses - 1) * compute_ns;
    double latest = first > last ? first : last;

    if (ahead == 0)
        return misses * read_ns;
    return latest > 0 ? latest : 0;
}

static double stalls_of_first_token(const struct prediction_input *input)
{
    double read_ns = (double)input->read_ns, late_ns = read_ns - (double)input->compute_ns;

    if (input->ahead == 0 && !input->eager)
        late_ns = read_ns;
    return read_ns + (input->layers - 1) * (late_ns > 0 ? late_ns : 0);
}

struct prediction predict(const struct prediction_input *input)
{
    uint32_t layers = input->layers, places = input->resident_layers;
    uint32_t ahead = input->ahead < places ? input->ahead : places - 1;
    double first_ns = stalls_of_first_token(input), token_ns = 0, reads = 0, late = 0;
    double later = (double)(input->tokens - 1);
    bool waits = input->ahead == 0 && !input->eager; /* for each layer that is not there */
    double first_late = !waits && input->read_ns > input->compute_ns ? layers - 1 : 0;
    uint64_t sync_loads, late_hits;

    if (places < layers) {
        double misses = layers - places, hits = places - ahead - 1;
        double periods = layers / (misses + hits);

        reads = misses * periods;
        token_ns = periods * stalls_of_period(misses, hits, ahead, (double)input->read_ns, (double)input->compute_ns);
        late = periods * late_of_period(misses, hits, ahead, (double)input->read_ns, (double)input->compute_ns);
    }
    sync_loads = waits ? (uint64_t)(layers + later * reads) : 1;
    late_hits = (uint64_t)(first_late + later * late);
    return (struct prediction){
        .reads_per_token = reads,
        .bytes_reread = (uint64_t)(later * reads * (double)input->layer_bytes),
        .first_stalled_ns = (uint64_t)first_ns,
        .token_stalled_ns = (uint64_t)token_ns,
        .stalled_ns = (uint64_t)(first_ns + later * token_ns),
        .sync_loads = sync_loads,
        .hits = input->tokens * layers - sync_loads - late_hits,
        .late_hits = late_hits,
        .even = input->even,
    };
}
