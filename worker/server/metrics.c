/* SPDX-License-Identifier: Apache-2.0 */
#include "server/metrics.h"

#include <inttypes.h>

/* Those that are answered; the last one stands for any other. 499: the request ended without our whole answer: its
 * client was gone, or what it sent was no HTTP, which MHD answers by itself. */
static const unsigned statuses[METRICS_STATUSES] = {200, 400, 404, 405, 413, 429, 499, 500, 503, 0};
static const double bounds_s[METRICS_BUCKETS] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};

void metrics_init(struct metrics *metrics)
{
    *metrics = (struct metrics){0};
    pthread_mutex_init(&metrics->lock, NULL);
}

void metrics_finish(struct metrics *metrics)
{
    pthread_mutex_destroy(&metrics->lock);
}

void metrics_request(struct metrics *metrics, unsigned path_index, unsigned status)
{
    unsigned index = 0;

    while (statuses[index] != status && statuses[index] != 0)
        index++;
    pthread_mutex_lock(&metrics->lock);
    metrics->requests[path_index][index]++;
    pthread_mutex_unlock(&metrics->lock);
}

void metrics_generation(struct metrics *metrics, uint32_t prompt_tokens, uint32_t tokens, uint64_t first_token_ns)
{
    double first_token_s = (double)first_token_ns / 1e9;
    unsigned bucket = 0;

    while (bucket < METRICS_BUCKETS && first_token_s > bounds_s[bucket])
        bucket++;
    pthread_mutex_lock(&metrics->lock);
    metrics->generations++;
    metrics->prompt_tokens += prompt_tokens;
    metrics->generated_tokens += tokens;
    if (tokens > 0) {
        metrics->first_token_buckets[bucket]++;
        metrics->first_token_count++;
        metrics->first_token_s += first_token_s;
    }
    pthread_mutex_unlock(&metrics->lock);
}

void metrics_label(struct buffer *text, const char *value)
{
    buffer_add_text(text, "\"");
    for (; *value != '\0'; value++) {
        if (*value == '"' || *value == '\\')
            buffer_add_text(text, "\\");
        if (*value == '\n')
            buffer_add_text(text, "\\n");
        else
            buffer_add(text, value, 1);
    }
    buffer_add_text(text, "\"");
}

static void write_head(struct buffer *text, const char *name, const char *kind, const char *help)
{
    buffer_format(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

void metrics_value(struct buffer *text, const char *name, const char *kind, const char *help, double value)
{
    write_head(text, name, kind, help);
    buffer_format(text, "%s %.17g\n", name, value);
}

static void write_requests(const struct metrics *metrics, const char *const *paths, unsigned path_count,
                           struct buffer *text)
{
    write_head(text, "tundish_requests_total", "counter",
               "Requests by path and status; 499: ended without our whole answer.");
    for (unsigned path = 0; path < path_count; path++) {
        for (unsigned index = 0; index < METRICS_STATUSES; index++) {
            if (metrics->requests[path][index] == 0)
                continue;
            buffer_add_text(text, "tundish_requests_total{path=");
            metrics_label(text, paths[path]);
            buffer_format(text, ",status=\"%u\"} %" PRIu64 "\n", statuses[index], metrics->requests[path][index]);
        }
    }
}

static void write_first_token(const struct metrics *metrics, struct buffer *text)
{
    static const char name[] = "tundish_first_token_seconds";
    uint64_t count = 0;

    write_head(text, name, "histogram", "From the start of a generation to its first token.");
    for (unsigned bucket = 0; bucket < METRICS_BUCKETS; bucket++) {
        count += metrics->first_token_buckets[bucket];
        buffer_format(text, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds_s[bucket], count);
    }
    buffer_format(text, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, metrics->first_token_count);
    buffer_format(text, "%s_sum %.9f\n%s_count %" PRIu64 "\n", name, metrics->first_token_s, name,
                  metrics->first_token_count);
}

void metrics_write(struct metrics *metrics, const char *const *paths, unsigned path_count, struct buffer *text)
{
    pthread_mutex_lock(&metrics->lock);
    write_requests(metrics, paths, path_count, text);
    write_head(text, "tundish_tokens_total", "counter", "Tokens of prompts, and those generated.");
    buffer_format(text, "tundish_tokens_total{kind=\"prompt\"} %" PRIu64 "\n", metrics->prompt_tokens);
    buffer_format(text, "tundish_tokens_total{kind=\"generated\"} %" PRIu64 "\n", metrics->generated_tokens);
    metrics_value(text, "tundish_generations_total", "counter", "Generations that ended, however they did.",
                  (double)metrics->generations);
    write_first_token(metrics, text);
    pthread_mutex_unlock(&metrics->lock);
}
