/* SPDX-License-Identifier: Apache-2.0 */
#include "server/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/dialect.h"
#include "server/log.h"
#include "server/state.h"
#include "server/status.h"
#include "utf8.h"

enum {
    BACKLOG = 128,
    EVENTS_MAX = 32,
    KEEPALIVE_S = 15, /* of silence before a peer is asked whether it is there; three times */
    DRAIN_S = 20,     /* for what was asked for before the signal */
    CUT_S = 1,        /* … and for those that were cut short to read so */
    TELL_S = 2,       /* that a load that failed late is answered, before the worker ends */
};

/* ---- Descriptors -------------------------------------------------------------------------------------------- */

int server_watch(struct server *server, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -ENOMEM : 0;
}

void server_unwatch(struct server *server, const struct source *source)
{
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}

static int parse_address(const char *host, uint16_t port, struct sockaddr_storage *ret_address, socklen_t *ret_bytes)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret_address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_address;

    *ret_address = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *ret_bytes = sizeof(*v4);
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *ret_bytes = sizeof(*v6);
    } else {
        return -EINVAL;
    }
    return 0;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t bytes = sizeof(address);

    if (getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

/* What connections take over: a peer that is gone without a word is found out too. */
static void set_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_REUSEADDR, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

static int listen_on(struct server *server, struct failure *failure)
{
    const char *host = server->options.host;
    struct sockaddr_storage address;
    socklen_t bytes;

    if (parse_address(host, server->options.port, &address, &bytes) < 0)
        return fail(failure, -EINVAL, "%s is no address in numbers, as 127.0.0.1 or ::1 are", host);
    server->listen_fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listen_fd < 0)
        return fail(failure, -ENODEV, "no socket to be had: %s", strerror(errno));
    set_options(server->listen_fd);
    if (bind(server->listen_fd, (struct sockaddr *)&address, bytes) < 0 || listen(server->listen_fd, BACKLOG) < 0)
        return fail(failure, -ENODEV, "cannot listen on port %u of %s: %s", server->options.port, host,
                    strerror(errno));
    server->port = port_of(server->listen_fd);
    return 0;
}

/* ---- Events ------------------------------------------------------------------------------------------------- */

static void post_event(struct server *server, const char *event)
{
    if (server->callback)
        callback_post(server->callback, status_event(server, event));
}

static void note_ready(struct server *server)
{
    server->ready_ns = clock_ns() - server->start_ns;
    log_line(server->options.worker_id, "ready after %.3f s", (double)server->ready_ns / 1e9);
    post_event(server, "ready");
}

/* Who asks after readiness gets to know it; before that there is nobody to wait for. */
static void note_failed(struct server *server)
{
    server->failed = true;
    server->drain_at_ns = clock_ns() + (server->ready_ns ? TELL_S * CLOCK_S : 0);
    post_event(server, "failed");
}

void server_look(struct server *server)
{
    engine_status(server->engine, &server->status);
    if (server->ready_ns == 0 && status_is_ready(server))
        note_ready(server);
    if (!server->failed && server->status.phase == ENGINE_FAILED)
        note_failed(server);
}

static void drain(struct server *server)
{
    server->draining = true;
    server->drain_at_ns = UINT64_MAX;
    server->end_at_ns = clock_ns() + DRAIN_S * CLOCK_S;
    http_close_socket(server->http);
    log_line(server->options.worker_id, "ends once what was asked for is answered");
}

/* The first one drains, the second cuts short. */
static void signaled(struct server *server, struct source *source)
{
    struct signalfd_siginfo info;

    if (read(source->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (server->draining)
        server->end_at_ns = clock_ns();
    else
        server->drain_at_ns = clock_ns();
}

/* Jobs have changed: http_step() looks. */
static void woken(struct server *server, struct source *source)
{
    eventfd_t count;

    (void)server;
    eventfd_read(source->fd, &count);
}

static void engine_changed(struct server *server, struct source *source)
{
    uint64_t count;

    if (read(source->fd, &count, sizeof(count)) > 0)
        server_look(server);
}

/* On the generating thread. */
static void job_done(void *cookie, const struct job *job)
{
    struct server *server = cookie;
    cJSON *result;

    metrics_generation(&server->metrics, job->generation.prompt_tokens, job->generation.tokens,
                       job->generation.first_token_ns);
    if (!server->callback || !job->id || job->result == -ECANCELED)
        return;
    result = execute_result(job);
    cJSON_AddStringToObject(result, "event", "result");
    cJSON_AddStringToObject(result, "worker_id", server->options.worker_id);
    callback_post(server->callback, dialect_print(result));
}

/* ---- The loop ----------------------------------------------------------------------------------------------- */

/* Whether nobody waits for a job or an answer. Requests that have not come as a whole hold up nothing. */
static bool is_idle(struct server *server)
{
    unsigned waiting, running;

    jobs_count(server->jobs, &waiting, &running);
    return waiting + running == 0 && http_answering_count(server->http) == 0;
}

/* How long until something is to be done without an event; -1: never. */
static int timeout_ms(struct server *server)
{
    uint64_t at_ns = server->draining ? server->end_at_ns : server->drain_at_ns, now_ns = clock_ns();
    int left_ms = -1, http_ms = http_timeout_ms(server->http);

    if (at_ns != UINT64_MAX)
        left_ms = at_ns > now_ns ? (int)((at_ns - now_ns) / CLOCK_MS) + 1 : 0;
    return left_ms < 0 || (http_ms >= 0 && http_ms < left_ms) ? http_ms : left_ms;
}

static void turn(struct server *server, int wait_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(server->epoll_fd, events, EVENTS_MAX, wait_ms);

    /* No source goes away here: only http_step() lets MHD end requests. */
    for (int i = 0; i < count; i++) {
        struct source *source = events[i].data.ptr;

        source->ready(server, source);
    }
    http_step(server->http);
}

/* Those that are left are told why there is no more. */
static void cut_short(struct server *server)
{
    uint64_t until_ns = clock_ns() + CUT_S * CLOCK_S;

    jobs_stop(server->jobs);
    while (!is_idle(server) && clock_ns() < until_ns)
        turn(server, 10);
}

static void serve(struct server *server)
{
    while (!server->draining || (!is_idle(server) && server->end_at_ns > clock_ns())) {
        turn(server, timeout_ms(server));
        if (!server->draining && server->drain_at_ns <= clock_ns())
            drain(server);
    }
    cut_short(server);
}

/* ---- What main calls ---------------------------------------------------------------------------------------- */

static int open_descriptors(struct server *server)
{
    sigset_t set;
    int r;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server->signals = (struct source){signaled, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
    server->wakes = (struct source){woken, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    r = server_watch(server, &server->signals, EPOLLIN);
    return r < 0 ? r : server_watch(server, &server->wakes, EPOLLIN);
}

/* Of a path: what stands after its last slash, but those at its end; the caller frees it. NULL: no memory. */
static char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *name = strdup(slash && slash[1] != '\0' ? slash + 1 : path);

    if (name)
        utf8_make_plain(name, strlen(name)); /* a path is bytes; JSON and metrics take no such */
    return name;
}

int server_create(const struct server_options *options, struct server **ret_server, struct failure *failure)
{
    struct server *server = calloc(1, sizeof(*server));
    int r;

    if (!server)
        return fail(failure, -ENOMEM, "no memory");
    server->options = *options;
    server->model_name = name_of(options->model);
    server->listen_fd = server->epoll_fd = server->signals.fd = server->wakes.fd = -1;
    server->drain_at_ns = server->end_at_ns = UINT64_MAX;
    metrics_init(&server->metrics);
    r = server->model_name ? listen_on(server, failure) : fail(failure, -ENOMEM, "no memory");
    if (r == 0 && open_descriptors(server) < 0)
        r = fail(failure, -ENOMEM, "no descriptors to be had: %s", strerror(errno));
    if (r < 0)
        server_destroy(&server);
    else
        *ret_server = server;
    return r;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void server_destroy(struct server **ref_server)
{
    struct server *server = *ref_server;

    if (!server)
        return;
    http_destroy(&server->http);
    jobs_destroy(&server->jobs);
    engine_destroy(&server->engine);
    callback_destroy(&server->callback);
    metrics_finish(&server->metrics);
    close_if_open(server->listen_fd);
    close_if_open(server->wakes.fd);
    close_if_open(server->signals.fd);
    close_if_open(server->epoll_fd);
    free(server->model_name);
    free(server);
    *ref_server = NULL;
}

uint16_t server_port(const struct server *server)
{
    return server->port;
}

/* HTTP first: who asks during the rest waits for it in the socket. */
static int start(struct server *server)
{
    const struct jobs_hooks hooks = {job_done, server->wakes.fd, server};
    const struct engine_options options = {
        .path = server->options.model,
        .resident_bytes = server->options.resident_bytes,
    };
    int r = http_create(server, &server->http);

    if (r == 0 && server->options.callback_url)
        r = callback_create(server->options.callback_url, server->options.worker_id, &server->callback);
    server->start_ns = clock_ns();
    if (r == 0)
        r = engine_create(&options, &server->engine);
    if (r == 0)
        r = jobs_create(server->engine, &hooks, &server->jobs);
    if (r < 0)
        return r;
    server->engine_events = (struct source){engine_changed, engine_event_fd(server->engine)};
    return server_watch(server, &server->engine_events, EPOLLIN);
}

int server_run(struct server *server, struct failure *failure)
{
    int r = start(server);

    if (r < 0)
        return fail(failure, r, "cannot start: %s", strerror(-r));
    serve(server);
    if (!server->failed)
        return 0;
    return fail(failure, server->status.result, "%s", server->status.failure.text);
}
