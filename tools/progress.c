/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

#define STEP_TENSORS 50

static bool is_terminal(void)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) && (!no_color || no_color[0] == '\0') && term && strcmp(term, "dumb") != 0;
}

static enum progress_mode choose_mode(const struct options *options)
{
    if (options->verbose)
        return PROGRESS_TENSORS;
    if (is_terminal())
        return PROGRESS_LINE;
    return options->json ? PROGRESS_NONE : PROGRESS_STEPS;
}

void progress_start(struct progress *progress, const struct options *options, struct tnd_load *load)
{
    uint32_t count = tnd_model_tensor_count(tnd_load_model(load));

    *progress = (struct progress){.load = load, .mode = choose_mode(options)};
    if (progress->mode != PROGRESS_TENSORS)
        return;
    progress->pending = malloc(count * sizeof(*progress->pending) + 1);
    if (!progress->pending)
        return;
    for (uint32_t i = 0; i < count; i++)
        progress->pending[i] = i;
    progress->pending_count = count;
}

/* "[151/291] 0.9 s  1.26 GB/s  170 tensors/s  eta 0.4 s" */
static void show(const struct tnd_progress *at, const char *before, const char *after)
{
    double seconds = (double)at->elapsed_ns / 1e9;
    double rate = at->elapsed_ns > 0 ? (double)at->bytes_ready / seconds : 0;
    char eta[32] = "";

    if (rate > 0 && at->bytes_ready < at->bytes)
        snprintf(eta, sizeof(eta), "  eta %.1f s", (double)(at->bytes - at->bytes_ready) / rate);
    fprintf(stderr, "%s[%" PRIu32 "/%" PRIu32 "] %.1f s  %.2f GB/s  %.0f tensors/s%s%s", before, at->tensors_ready,
            at->tensors, seconds, rate / 1e9, at->elapsed_ns > 0 ? at->tensors_ready / seconds : 0.0, eta, after);
}

static void show_tensor(const struct progress *progress, uint32_t index, uint64_t elapsed_ns)
{
    const struct tnd_tensor *tensor = tnd_model_tensor(tnd_load_model(progress->load), index);

    flockfile(stderr); /* the library's log may come from other threads */
    fprintf(stderr, "%8.3f s  ", (double)elapsed_ns / 1e9);
    text_print(stderr, tensor->name, tensor->name_bytes, 200);
    fprintf(stderr, "  %s  ", tnd_dtype_name(tensor->dtype));
    text_shape(stderr, tensor->shape, tensor->dims);
    fprintf(stderr, "  %s\n", text_bytes(tensor->bytes).s);
    funlockfile(stderr);
}

static void show_tensors(struct progress *progress, uint64_t elapsed_ns)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < progress->pending_count; i++) {
        const void *data;
        int r = tnd_load_tensor_data(progress->load, progress->pending[i], &data);

        if (r == 0)
            show_tensor(progress, progress->pending[i], elapsed_ns);
        else if (r != -EINVAL) /* not part of this load */
            progress->pending[kept++] = progress->pending[i];
    }
    progress->pending_count = kept;
}

static void update(struct progress *progress, const struct tnd_progress *at)
{
    switch (progress->mode) {
    case PROGRESS_NONE:
        break;
    case PROGRESS_LINE:
        show(at, "\r", "\033[K");
        fflush(stderr); /* it waits for a line's end */
        break;
    case PROGRESS_STEPS:
        if (at->tensors_ready >= progress->steps_shown + STEP_TENSORS) {
            show(at, "", "\n");
            progress->steps_shown = at->tensors_ready;
        }
        break;
    case PROGRESS_TENSORS:
        if (at->tensors_ready > progress->steps_shown)
            show_tensors(progress, at->elapsed_ns);
        progress->steps_shown = at->tensors_ready;
        break;
    }
}

void progress_tick(struct progress *progress)
{
    struct tnd_progress at;

    tnd_load_progress(progress->load, &at);
    if (at.elapsed_ns < progress->tick_ns + PROGRESS_TICK_NS)
        return;
    progress->tick_ns = at.elapsed_ns;
    update(progress, &at);
}

void progress_end(struct progress *progress, bool arrived)
{
    struct tnd_progress at;

    if (arrived) {
        tnd_load_progress(progress->load, &at);
        update(progress, &at);
        if (progress->mode == PROGRESS_LINE)
            fputc('\n', stderr);
    } else if (progress->mode == PROGRESS_LINE) {
        fputs("\r\033[K", stderr); /* the sentence that follows stands alone */
    }
    free(progress->pending);
    progress->pending = NULL;
}
