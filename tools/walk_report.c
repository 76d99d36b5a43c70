/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "text.h"

#define COLUMNS_MAX 4
#define WORST_MAX 5

/* What a consumer spent, and did not compute in. */
static uint64_t overhead_ns(const struct consumer *consumer, const struct counts *counts, uint64_t tokens)
{
    return counts->wall_ns - tokens * consumer->course->layer_count * consumer->compute_ns;
}

static uint64_t stalls_of(const struct counts *counts)
{
    return counts->late_hits + counts->sync_loads;
}

/* ---- For people -------------------------------------------------------------------------------------------- */

static void print_window(const struct walk *walk)
{
    const struct tnd_layer_stats *stats = &walk->ahead.stats;

    printf("model    ");
    text_print(stdout, walk->options->model, strlen(walk->options->model), SIZE_MAX);
    printf(": %s, %s of %s\n", tnd_model_format(walk->session.model), text_count(stats->layers, "layer").s,
           text_bytes(walk->course.layer_bytes).s);
    if (stats->resident_bytes > 0)
        printf("window   places for %" PRIu32 " of them in %s, ", stats->resident_layers,
               text_bytes(stats->resident_bytes).s);
    else
        printf("window   none, all of them stay, ");
    printf("%s shared beside\n", text_bytes(stats->shared_bytes).s);
}

static void print_passes(const struct walk *walk)
{
    double bytes = (double)walk->course.layer_file_bytes;

    printf("reading  %s a layer, %.2f GB/s: measured by one token without computing\n", text_ns(walk->read_ns).s,
           walk->read_ns > 0 ? bytes / ((double)walk->read_ns * walk->course.layer_count) : 0);
    printf("consumer %s, computing %s a layer", text_count(walk->ahead.tokens, "token").s,
           text_ns(walk->compute_ns).s);
    if (walk->options->compute_us == OPTION_AUTO)
        printf(", %.2f times what reading takes", COMPUTE_SHARE);
    printf("\ncached   %" PRIu32 " %% of the model before that token, %" PRIu32 " %% before the walk",
           walk->measuring.cached_percent, walk->ahead.cached_percent);
    if (walk->compared)
        printf(", %" PRIu32 " %% before the one without prefetch", walk->alone.cached_percent);
    printf("\nhow      engine %s, %s\n", walk->ahead.load_stats.engine,
           walk->ahead.load_stats.direct ? "direct I/O" : "through the page cache");
    for (uint32_t i = 0; i < REASONS_MAX && walk->ahead.reasons[i]; i++)
        printf("because  %s\n", walk->ahead.reasons[i]);
    putchar('\n');
}

/* A consumer, and what was predicted of it. */
struct column {
    const struct consumer *consumer;
    const struct prediction *predicted;
};

static void print_row(const char *name, const struct text *cells, size_t count)
{
    while (cells[count - 1].s[0] == '\0')
        count--; /* no blanks at the end of a line */
    printf("%-22s", name);
    for (size_t i = 0; i < count; i++)
        printf(" %13s", cells[i].s);
    putchar('\n');
}

static void print_heads(const struct column *columns, size_t count)
{
    struct text cells[COLUMNS_MAX];

    for (size_t i = 0; i < count; i++) {
        snprintf(cells[2 * i].s, sizeof(cells->s), "ahead %" PRIu32, columns[i].consumer->stats.ahead);
        snprintf(cells[2 * i + 1].s, sizeof(cells->s), "predicted");
    }
    print_row("", cells, 2 * count);
}

static struct text number(uint64_t value)
{
    struct text text;

    snprintf(text.s, sizeof(text.s), "%" PRIu64, value);
    return text;
}

enum figure { FIGURE_SYNC_LOADS, FIGURE_HITS, FIGURE_LATE_HITS, FIGURE_STALLS, FIGURE_FIRST_STALLED,
              FIGURE_LATER_STALLED, FIGURE_STALLED, FIGURE_REREAD, FIGURE_OVERHEAD, FIGURE_FIRST_LAYER, FIGURE_WALL,
              FIGURE_COUNT };

static struct text measured(const struct consumer *consumer, enum figure figure)
{
    const struct counts *total = &consumer->total;
    uint64_t first_ns = consumer->per_token[0].stalled_ns;

    switch (figure) {
    case FIGURE_SYNC_LOADS:
        return number(total->sync_loads);
    case FIGURE_HITS:
        return number(total->hits);
    case FIGURE_LATE_HITS:
        return number(total->late_hits);
    case FIGURE_STALLS:
        return number(stalls_of(total));
    case FIGURE_FIRST_STALLED:
        return text_ns(first_ns);
    case FIGURE_LATER_STALLED:
        return consumer->tokens > 1 ? text_ns((total->stalled_ns - first_ns) / (consumer->tokens - 1))
                                    : (struct text){"-"};
    case FIGURE_STALLED:
        return text_ns(total->stalled_ns);
    case FIGURE_REREAD:
        return text_bytes(total->bytes_reread);
    case FIGURE_OVERHEAD:
        return text_ns(overhead_ns(consumer, total, consumer->tokens));
    case FIGURE_FIRST_LAYER:
        return text_ns(total->first_layer_ns);
    case FIGURE_WALL:
        return text_ns(total->wall_ns);
    case FIGURE_COUNT:
        break;
    }
    return (struct text){""};
}

static struct text predicted(const struct column *column, enum figure figure)
{
    switch (figure) {
    case FIGURE_SYNC_LOADS:
        return number(column->predicted->sync_loads);
    case FIGURE_HITS:
        return column->predicted->even ? number(column->predicted->hits) : (struct text){"-"};
    case FIGURE_LATE_HITS:
        return column->predicted->even ? number(column->predicted->late_hits) : (struct text){"-"};
    case FIGURE_STALLS:
        return column->predicted->even ? number(column->predicted->sync_loads + column->predicted->late_hits)
                                       : (struct text){"-"};
    case FIGURE_FIRST_STALLED:
        return text_ns(column->predicted->first_stalled_ns);
    case FIGURE_LATER_STALLED:
        return column->consumer->tokens > 1 ? text_ns(column->predicted->token_stalled_ns) : (struct text){"-"};
    case FIGURE_STALLED:
        return text_ns(column->predicted->stalled_ns);
    case FIGURE_REREAD:
        return text_bytes(column->predicted->bytes_reread);
    case FIGURE_OVERHEAD: /* with what comes before the first layer left out */
        return text_ns(column->predicted->stalled_ns);
    default:
        return (struct text){""};
    }
}

static void print_table(const struct column *columns, size_t count)
{
    static const char *const names[FIGURE_COUNT] = {
        [FIGURE_SYNC_LOADS] = "synchronous loads", [FIGURE_HITS] = "hits", [FIGURE_LATE_HITS] = "late hits",
        [FIGURE_STALLS] = "stalls", [FIGURE_FIRST_STALLED] = "stalled, first token",
        [FIGURE_LATER_STALLED] = "stalled, each later", [FIGURE_STALLED] = "stalled in all",
        [FIGURE_REREAD] = "read again", [FIGURE_OVERHEAD] = "overhead", [FIGURE_FIRST_LAYER] = "first layer after",
        [FIGURE_WALL] = "wall",
    };
    struct text cells[COLUMNS_MAX];

    print_heads(columns, count);
    for (unsigned figure = 0; figure < FIGURE_COUNT; figure++) {
        for (size_t i = 0; i < count; i++) {
            cells[2 * i] = measured(columns[i].consumer, (enum figure)figure);
            cells[2 * i + 1] = predicted(&columns[i], (enum figure)figure);
        }
        print_row(names[figure], cells, 2 * count);
    }
}

/* The layers that were waited for the longest. */
static void print_worst(const struct consumer *consumer)
{
    uint64_t below_ns = UINT64_MAX;

    for (unsigned rank = 0; rank < WORST_MAX; rank++) {
        uint64_t worst_ns = 0;
        uint32_t worst = 0;

        for (uint32_t i = 0; i < consumer->course->layer_count; i++)
            if (consumer->per_layer[i].stalled_ns > worst_ns && consumer->per_layer[i].stalled_ns < below_ns) {
                worst_ns = consumer->per_layer[i].stalled_ns;
                worst = i;
            }
        if (worst_ns == 0)
            break;
        printf("%s layer %" PRIu32 ": %s, %s", rank == 0 ? "\nworst   " : ";", consumer->course->layers[worst],
               text_count(consumer->per_layer[worst].stalls, "stall").s, text_ns(worst_ns).s);
        below_ns = worst_ns;
    }
    if (below_ns < UINT64_MAX)
        putchar('\n');
}

void walk_report_text(const struct walk *walk)
{
    const struct column columns[] = {{&walk->ahead, &walk->predicted_ahead}, {&walk->alone, &walk->predicted_alone}};

    print_window(walk);
    print_passes(walk);
    print_table(columns, walk->compared ? 2 : 1);
    print_worst(&walk->ahead);
}

/* ---- JSON -------------------------------------------------------------------------------------------------- */

static void json_counts(struct json *json, const struct consumer *consumer, const struct counts *counts,
                        uint64_t tokens)
{
    json_uint(json, "layers", consumer->course->layer_count);
    json_uint(json, "tokens", tokens);
    json_uint(json, "sync_loads", counts->sync_loads);
    json_uint(json, "hits", counts->hits);
    json_uint(json, "late_hits", counts->late_hits);
    json_uint(json, "stalls", stalls_of(counts));
    json_uint(json, "stalled_ns", counts->stalled_ns);
    json_uint(json, "bytes_reread", counts->bytes_reread);
    json_uint(json, "overhead_ns", overhead_ns(consumer, counts, tokens));
    json_uint(json, "first_layer_ns", counts->first_layer_ns);
    json_uint(json, "wall_ns", counts->wall_ns);
    json_uint(json, "resident_bytes", consumer->stats.resident_bytes);
    json_uint(json, "shared_bytes", consumer->stats.shared_bytes);
}

static void json_prediction(struct json *json, const struct prediction *predicted)
{
    json_object_begin(json, "predicted");
    json_double(json, "reads_per_token", predicted->reads_per_token);
    json_uint(json, "bytes_reread", predicted->bytes_reread);
    json_uint(json, "first_stalled_ns", predicted->first_stalled_ns);
    json_uint(json, "token_stalled_ns", predicted->token_stalled_ns);
    json_uint(json, "stalled_ns", predicted->stalled_ns);
    json_uint(json, "sync_loads", predicted->sync_loads);
    if (predicted->even) {
        json_uint(json, "hits", predicted->hits);
        json_uint(json, "late_hits", predicted->late_hits);
    } else {
        json_null(json, "hits");
        json_null(json, "late_hits");
    }
    json_object_end(json);
}

static void json_pass(struct json *json, const struct consumer *consumer, const struct prediction *predicted)
{
    json_counts(json, consumer, &consumer->total, consumer->tokens);
    json_uint(json, "resident_layers", consumer->stats.resident_layers);
    json_uint(json, "ahead", consumer->stats.ahead);
    json_uint(json, "cached_percent", consumer->cached_percent);
    json_string(json, "engine", consumer->load_stats.engine);
    json_bool(json, "direct", consumer->load_stats.direct);
    json_string(json, "device", consumer->load_stats.device);
    json_array_begin(json, "reasons");
    for (uint32_t i = 0; i < REASONS_MAX && consumer->reasons[i]; i++)
        json_string(json, NULL, consumer->reasons[i]);
    json_array_end(json);
    json_prediction(json, predicted);
}

static void json_parts(struct json *json, const struct consumer *consumer)
{
    json_array_begin(json, "per_token");
    for (uint64_t i = 0; i < consumer->tokens; i++) {
        json_object_begin(json, NULL);
        json_counts(json, consumer, &consumer->per_token[i], 1);
        json_object_end(json);
    }
    json_array_end(json);
    json_array_begin(json, "per_layer");
    for (uint32_t i = 0; i < consumer->course->layer_count; i++) {
        json_object_begin(json, NULL);
        json_uint(json, "layer", consumer->course->layers[i]);
        json_uint(json, "stalls", consumer->per_layer[i].stalls);
        json_uint(json, "stalled_ns", consumer->per_layer[i].stalled_ns);
        json_object_end(json);
    }
    json_array_end(json);
}

void walk_report_json(const struct walk *walk)
{
    struct json json;

    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_string(&json, "model", walk->options->model);
    json_pass(&json, &walk->ahead, &walk->predicted_ahead);
    json_uint(&json, "compute_ns", walk->compute_ns);
    json_object_begin(&json, "measured");
    json_uint(&json, "read_ns", walk->read_ns);
    json_uint(&json, "cached_percent", walk->measuring.cached_percent);
    json_object_end(&json);
    if (walk->compared) {
        json_object_begin(&json, "without_prefetch");
        json_pass(&json, &walk->alone, &walk->predicted_alone);
        json_object_end(&json);
    } else {
        json_null(&json, "without_prefetch");
    }
    json_parts(&json, &walk->ahead);
    json_object_end(&json);
    json_end(&json);
}
