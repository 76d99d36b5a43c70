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

/* From the first call to the library on; until session_wait() cpu_ns holds the beginning. */
static void clocks_start(struct session *session)
{
    session->start_ns = clock_ns(CLOCK_MONOTONIC);
    session->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void clocks_stop(struct session *session)
{
    session->wall_ns = clock_ns(CLOCK_MONOTONIC) - session->start_ns;
    session->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - session->cpu_ns;
}

int session_open(struct session *session)
{
    struct tnd_model_options options = options_model(session->options);
    int r;

    if (session->model)
        return 0;
    if (session->options->engine == TND_ENGINE_MMAP)
        interrupt_on_cut(session->options->model);
    clocks_start(session);
    r = tnd_model_open(session->options->model, &options, &session->model);
    return r < 0 ? fail_result(r, NULL) : 0;
}

static int create_loader(struct session *session)
{
    struct tnd_loader_options options = options_loader(session->options);

    options.foreground = session->turn != NULL;
    if (session->trace) {
        options.trace = trace_record;
        options.trace_cookie = session->trace;
    }
    session->loader_ns = clock_ns(CLOCK_MONOTONIC);
    return tnd_loader_create(&options, &session->loader);
}

static int start_load(struct session *session)
{
    struct tnd_load_options options = options_load(session->options);

    session->load_ns = clock_ns(CLOCK_MONOTONIC);
    options.place = session->place;
    options.place_cookie = session->cookie;
    return tnd_load_start(session->loader, session->model, &options, &session->load);
}

int session_start(struct session *session)
{
    int code = session_open(session);
    int r;

    if (code != 0)
        return code;
    interrupt_hold();
    r = session->loader ? 0 : create_loader(session);
    if (r >= 0)
        r = start_load(session);
    interrupt_release();
    return r < 0 ? fail_result(r, NULL) : 0;
}

/* Returns what ended the load. */
static int wait_ended(struct session *session, struct progress *progress)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    bool cancelled = false;

    for (;;) {
        int r = session->turn ? session->turn(session, session->cookie)
                              : tnd_load_wait(session->load, PROGRESS_TICK_NS);

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

int session_wait(struct session *session)
{
    struct progress progress;
    int r;

    progress_start(&progress, session->options, session->load);
    r = wait_ended(session, &progress);
    clocks_stop(session);
    progress_end(&progress, r >= 0);
    if (interrupted()) /* also when the load was faster than the cancel */
        return fail_interrupted(session);
    if (r < 0) {
        const char *sentence = tnd_load_error(session->load);

        return fail_result(r, sentence[0] != '\0' ? sentence : NULL);
    }
    return 0;
}

int session_load(struct session *session)
{
    int code = session_start(session);

    return code != 0 ? code : session_wait(session);
}

void session_unload(struct session *session)
{
    tnd_load_destroy(&session->load);
    tnd_model_close(&session->model);
    session->loader_ns = 0;
}

void session_finish(struct session *session)
{
    session_unload(session);
    tnd_loader_destroy(&session->loader);
}
