/* SPDX-License-Identifier: Apache-2.0 */
#include "server/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/exchange.h"

enum {
    CONNECTIONS_MAX = 256,
    CONNECTIONS_KEPT = 16, /* … of them without prompts: all prompts may wait, and /livez is answered */
    CONNECTION_BYTES = 24 << 10, /* its request's head, and a block of its answer */
    RECEIVE_S = 10, /* for a whole request, however slowly it comes, counted from the answer before it */
    STALLED_S = 30, /* of a client that does not take its answer */
};

/* ---- Paths -------------------------------------------------------------------------------------------------- */

static const struct route routes[] = {
    {"/livez", status_livez, &dialect_execute},
    {"/readyz", status_health, &dialect_execute},
    {"/health", status_health, &dialect_execute},
    {"/load", status_load, &dialect_execute},
    {"/metrics", status_metrics, &dialect_execute},
    {"/execute", NULL, &dialect_execute},
    {"/v1/models", status_models, &dialect_completions},
    {"/v1/models/", status_model, &dialect_completions},
    {"/v1/completions", NULL, &dialect_completions},
    {"/v1/chat/completions", NULL, &dialect_chat},
    {NULL, NULL, &dialect_completions}, /* no such path below /v1/ */
    {NULL, NULL, &dialect_execute},     /* … nor elsewhere */
};

#define ROUTE_COUNT (sizeof(routes) / sizeof(routes[0]))

_Static_assert(ROUTE_COUNT <= METRICS_PATHS_MAX, "each path is counted");

static bool is_route(const struct route *route, const char *path, const char *model_name)
{
    size_t bytes = strlen(route->path);

    if (route->path[bytes - 1] != '/')
        return strcmp(route->path, path) == 0;
    return strncmp(route->path, path, bytes) == 0 && strcmp(path + bytes, model_name) == 0;
}

static const struct route *find_route(const char *path, const char *model_name)
{
    const struct route *route = routes;

    while (route->path && !is_route(route, path, model_name))
        route++;
    return !route->path && strncmp(path, "/v1/", 4) != 0 ? route + 1 : route;
}

unsigned http_route_index(const struct route *route)
{
    return (unsigned)(route - routes);
}

const char *const *http_paths(unsigned *ret_count)
{
    static const char *paths[ROUTE_COUNT];

    for (unsigned i = 0; i < ROUTE_COUNT; i++)
        paths[i] = routes[i].path ? routes[i].path : i + 1 < ROUTE_COUNT ? "/v1/..." : "...";
    *ret_count = ROUTE_COUNT;
    return paths;
}

/* ---- Connections that owe a request ------------------------------------------------------------------------- */

struct peer {
    int fd;
    bool listed;
    uint64_t until_ns;
    struct peer *previous, *next;
};

struct http {
    struct server *server;
    struct MHD_Daemon *daemon;
    unsigned request_count, answering_count, connection_count;
    bool ending;
    struct exchange *waiting;
    struct peer *peers, *peers_last; /* the one whose time is over first is first */
};

static void peer_remove(struct http *http, struct peer *peer)
{
    if (!peer->listed)
        return;
    *(peer->previous ? &peer->previous->next : &http->peers) = peer->next;
    *(peer->next ? &peer->next->previous : &http->peers_last) = peer->previous;
    peer->previous = peer->next = NULL;
    peer->listed = false;
}

static void peer_add(struct http *http, struct peer *peer)
{
    peer_remove(http, peer);
    peer->until_ns = clock_ns() + RECEIVE_S * CLOCK_S;
    peer->previous = http->peers_last;
    *(peer->previous ? &peer->previous->next : &http->peers) = peer;
    http->peers_last = peer;
    peer->listed = true;
}

static struct peer *peer_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void notify_connection(void *cookie, struct MHD_Connection *connection, void **context,
                              enum MHD_ConnectionNotificationCode code)
{
    struct http *http = cookie;
    struct peer *peer = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        http->connection_count++;
        *context = peer = calloc(1, sizeof(*peer));
        if (!peer)
            return; /* one without a time limit of its own */
        peer->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        peer_add(http, peer);
    } else {
        http->connection_count--;
        if (peer)
            peer_remove(http, peer);
        free(peer);
    }
}

void http_received(struct http *http, struct exchange *exchange)
{
    struct peer *peer = peer_of(exchange->connection);

    if (peer)
        peer_remove(http, peer);
    http->answering_count += !exchange->received;
    exchange->received = true;
}

/* MHD then sees the end of what they send. */
static void expire_peers(struct http *http)
{
    uint64_t now_ns = clock_ns();

    while (http->peers && http->peers->until_ns <= now_ns) {
        shutdown(http->peers->fd, SHUT_RDWR);
        peer_remove(http, http->peers);
    }
}

/* ---- Requests ----------------------------------------------------------------------------------------------- */

static enum MHD_Result handle(void *cookie, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *bytes, size_t *byte_count, void **context)
{
    struct http *http = cookie;
    struct exchange *exchange = *context;

    (void)version;
    if (!exchange) {
        *context = exchange = exchange_create(http->server, connection, find_route(url, http->server->model_name),
                                              method, url);
        if (!exchange)
            return MHD_NO;
        http->request_count++;
        return exchange_begin(exchange);
    }
    if (*byte_count == 0)
        return exchange_advance(exchange);
    exchange_receive(exchange, bytes, *byte_count);
    *byte_count = 0;
    return MHD_YES;
}

static void completed(void *cookie, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode code)
{
    struct http *http = cookie;
    struct exchange *exchange = *context;
    struct peer *peer = peer_of(connection);

    if (!exchange)
        return;
    http->request_count--;
    http->answering_count -= exchange->received;
    exchange_destroy(&exchange, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    *context = NULL;
    if (peer)
        peer_add(http, peer);
}

void http_add_waiting(struct http *http, struct exchange *exchange)
{
    exchange->previous = NULL;
    exchange->next = http->waiting;
    if (exchange->next)
        exchange->next->previous = exchange;
    http->waiting = exchange;
}

void http_remove_waiting(struct http *http, struct exchange *exchange)
{
    *(exchange->previous ? &exchange->previous->next : &http->waiting) = exchange->next;
    if (exchange->next)
        exchange->next->previous = exchange->previous;
}

/* ---- What the server calls ---------------------------------------------------------------------------------- */

/* http_step() does it all, after every event. */
static void ready(struct server *server, struct source *source)
{
    (void)server;
    (void)source;
}

int http_create(struct server *server, struct http **ret_http)
{
    struct http *http = calloc(1, sizeof(*http));
    int r;

    if (!http)
        return -ENOMEM;
    http->server = server;
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, http, MHD_OPTION_LISTEN_SOCKET,
        server->listen_fd, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)STALLED_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_COMPLETED, completed, http, MHD_OPTION_NOTIFY_CONNECTION,
        notify_connection, http, MHD_OPTION_END);
    if (!http->daemon) {
        free(http);
        return -ENOMEM;
    }
    server->listen_fd = -1; /* MHD's now */
    *ret_http = http;
    server->http_events =
        (struct source){ready, MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd};
    r = server_watch(server, &server->http_events, EPOLLIN);
    if (r < 0)
        http_destroy(ret_http);
    return r;
}

void http_destroy(struct http **ref_http)
{
    struct http *http = *ref_http;

    if (!http)
        return;
    http->ending = true; /* what runs once more below is not suspended again */
    while (http->waiting) {
        http->waiting->gone = true;
        exchange_resume(http->waiting);
    }
    MHD_run(http->daemon); /* or they would still be suspended, which MHD_stop_daemon() does not take */
    MHD_stop_daemon(http->daemon);
    free(http);
    *ref_http = NULL;
}

void http_step(struct http *http)
{
    struct exchange *exchange = http->waiting, *next;
    bool full = http->connection_count >= CONNECTIONS_MAX;

    for (; exchange; exchange = next) {
        next = exchange->next;
        if (exchange_can_advance(exchange))
            exchange_resume(exchange);
    }
    expire_peers(http);
    MHD_run(http->daemon);
    if (full && http->connection_count < CONNECTIONS_MAX)
        MHD_run(http->daemon); /* takes up its socket again, which it lays aside at the limit, as it begins */
}

int http_timeout_ms(struct http *http)
{
    uint64_t now_ns = clock_ns(), until_ns;
    MHD_UNSIGNED_LONG_LONG left_ms;
    int timeout_ms = MHD_get_timeout(http->daemon, &left_ms) == MHD_YES ? (int)left_ms : -1;

    if (!http->peers)
        return timeout_ms;
    until_ns = http->peers->until_ns;
    left_ms = until_ns > now_ns ? (until_ns - now_ns) / CLOCK_MS + 1 : 0;
    return timeout_ms < 0 || (int)left_ms < timeout_ms ? (int)left_ms : timeout_ms;
}

void http_close_socket(struct http *http)
{
    MHD_socket fd = MHD_quiesce_daemon(http->daemon);

    if (fd != MHD_INVALID_SOCKET)
        close(fd);
}

unsigned http_request_count(const struct http *http)
{
    return http->request_count;
}

unsigned http_answering_count(const struct http *http)
{
    return http->answering_count;
}

bool http_is_ending(const struct http *http)
{
    return http->ending;
}

bool http_is_crowded(const struct http *http)
{
    return http->connection_count >= CONNECTIONS_MAX - CONNECTIONS_KEPT;
}
