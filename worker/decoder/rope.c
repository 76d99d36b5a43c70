/* SPDX-License-Identifier: Apache-2.0 */

/* How fast the elements of a head turn: plain, or slowed down for contexts longer than those of the training. */

#include <math.h>

#include "decoder/state.h"

/* Slow elements, which do not turn once in the first training's context, are slowed down by the whole factor, fast
 * ones not at all, those between in proportion. */
static double llama3_frequency(const struct decoder_config *config, double frequency)
{
    double turns = (double)config->rope_context * frequency / (2 * M_PI);
    double low = (double)config->rope_low_factor, high = (double)config->rope_high_factor;
    double slow = frequency / (double)config->rope_factor;
    double share;

    if (turns <= low)
        return slow;
    if (turns >= high)
        return frequency;
    share = (turns - low) / (high - low);
    return (1 - share) * slow + share * frequency;
}

void rope_frequencies(const struct decoder_config *config, const float *factors, float *ret_frequencies)
{
    for (uint32_t i = 0; i < config->rope_dims / 2; i++) {
        double frequency = pow((double)config->rope_base, -2.0 * i / config->rope_dims);

        if (factors)
            frequency /= (double)factors[i];
        if (config->rope_scaling == ROPE_LINEAR)
            frequency /= (double)config->rope_factor;
        else if (config->rope_scaling == ROPE_LLAMA3)
            frequency = llama3_frequency(config, frequency);
        ret_frequencies[i] = (float)frequency;
    }
}
