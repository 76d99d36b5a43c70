/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_PREDICTION_H
#define TOOLS_PREDICTION_H

/* What a consumer that takes layers in turn has to wait for, by arithmetic: what a walk is told beside. */

#include <stdbool.h>
#include <stdint.h>

struct prediction_input {
    uint32_t layers, resident_layers, ahead;
    uint64_t tokens;
    uint64_t read_ns, compute_ns; /* of a layer */
    uint64_t layer_bytes; /* in the files, on the average */
    bool eager; /* all layers stay, and are read whether asked for or not */
    bool even;  /* layers have one size: only then is it known which of them are late */
};

struct prediction {
    double reads_per_token; /* of layers, in each token but the first, on the average */
    uint64_t bytes_reread;
    uint64_t first_stalled_ns, token_stalled_ns; /* in the first token, in each later one on the average */
    uint64_t stalled_ns;
    uint64_t sync_loads;
    uint64_t hits, late_hits; /* even */
    bool even;
};

struct prediction predict(const struct prediction_input *input);

#endif
