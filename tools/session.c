/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <time.h>

#include "interrupt.h"
#include "library.h"
#include "progress.h"
#include "text.h"

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int start(struct session *session)
{
    struct tnd_model_options model_options = options_model(session->options);
    struct tnd_loader_options loader_options = options_loader(session->options);
    struct tnd_load_options load_options = options_load(session->options);
    int r;

    r = tnd_model_open(session->options->model, &model_options, &session->model);
    if (r < 0)
        return r;
    interrupt_hold();
    if (!session->loader)
        r = tnd_loader_create(&loader_options, &session->loader);
    if (r >= 0)
        r = tnd_load_start(session->loader, session->model, &load_options, &session->load);
    interrupt_release();
    return r;
}

/* Returns what ended the load. */
static int wait_ended(struct session *session, struct progress *progress)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    bool cancelled = false;

    for (;;) {
        int r = tnd_load_wait(session->load, PROGRESS_TICK_NS);

        if (r != -ETIMEDOUT && r != -EAGAIN)
            return r;
        if (interrupted() && !cancelled) {
            tnd_load_cancel(session->load);
            cancelled = true;
        } else if (r == -EAGAIN) {
            nanosleep(&pause, NULL); /* a failed load drains, and the wait does not wait for that */
        }
        if (!cancelled)
            progress_tick(progress);
    }
}

static int fail_interrupted(struct session *session)
{
    struct tnd_progress at;

    tnd_load_progress(session->load, &at);
    return fail(EXIT_INTERRUPTED, "interrupted: %s had %u of %u tensors", session->options->model, at.tensors_ready,
                at.tensors);
}

int session_load(struct session *session)
{
    uint64_t wall = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    struct progress progress;
    int r = start(session);

    if (r < 0)
        return fail_result(r, NULL);
    progress_start(&progress, session->options, session->load);
    r = wait_ended(session, &progress);
    session->wall_ns = clock_ns(CLOCK_MONOTONIC) - wall;
    session->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    progress_end(&progress, r >= 0);
    if (interrupted()) /* also when the load was faster than the cancel */
        return fail_interrupted(session);
    if (r < 0) {
        const char *sentence = tnd_load_error(session->load);

        return fail_result(r, sentence[0] != '\0' ? sentence : NULL);
    }
    return 0;
}

void session_unload(struct session *session)
{
    tnd_load_destroy(&session->load);
    tnd_model_close(&session->model);
}

void session_finish(struct session *session)
{
    session_unload(session);
    tnd_loader_destroy(&session->loader);
}
