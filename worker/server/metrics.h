/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_METRICS_H
#define WORKER_SERVER_METRICS_H

/* What is counted, in Prometheus' text. Threads: any. */

#include <pthread.h>
#include <stdint.h>

#include "server/buffer.h"

enum { METRICS_PATHS_MAX = 12, METRICS_STATUSES = 12, METRICS_BUCKETS = 12 };

struct metrics {
    pthread_mutex_t lock;
    uint64_t requests[METRICS_PATHS_MAX][METRICS_STATUSES];
    uint64_t prompt_tokens, generated_tokens, generations;
    uint64_t first_token_buckets[METRICS_BUCKETS + 1]; /* not cumulative; the last: beyond all */
    uint64_t first_token_count;
    double first_token_s;
};

void metrics_init(struct metrics *metrics);
void metrics_finish(struct metrics *metrics);
/* path_index: below METRICS_PATHS_MAX. */
void metrics_request(struct metrics *metrics, unsigned path_index, unsigned status);
void metrics_generation(struct metrics *metrics, uint32_t prompt_tokens, uint32_t tokens, uint64_t first_token_ns);
/* paths: the names, [path_count]. */
void metrics_write(struct metrics *metrics, const char *const *paths, unsigned path_count, struct buffer *text);

/* One value with its help; kind: "counter", "gauge". */
void metrics_value(struct buffer *text, const char *name, const char *kind, const char *help, double value);
/* A label's value, in its quotes. */
void metrics_label(struct buffer *text, const char *value);

#endif
