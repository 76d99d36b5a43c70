/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_STATE_H
#define WORKER_SERVER_STATE_H

/* What the files of this room share. All of it is the main thread's, but the jobs, the metrics and the callback, which
 * look after themselves. */

#include <stdbool.h>
#include <stdint.h>

#include "generate/engine.h"
#include "server/callback.h"
#include "server/http.h"
#include "server/jobs.h"
#include "server/metrics.h"
#include "server/server.h"

/* A descriptor that the main thread waits for. */
struct source {
    void (*ready)(struct server *server, struct source *source);
    int fd; /* -1: none */
};

struct server {
    struct server_options options;
    char *model_name;       /* the end of its path, made plain */
    uint16_t port;
    int listen_fd;          /* -1: no more */
    int epoll_fd;
    struct source signals, wakes, engine_events, http_events;

    struct metrics metrics;
    struct engine *engine;
    struct jobs *jobs;
    struct callback *callback; /* NULL: no URL */
    struct http *http;

    uint64_t start_ns;
    uint64_t ready_ns;         /* start → ready; 0: not yet */
    bool failed;               /* the load did; its result and sentence are in status */
    struct engine_status status;
    bool draining;
    uint64_t drain_at_ns;      /* when to begin with it; UINT64_MAX: not yet known */
    uint64_t end_at_ns;        /* … and when to wait for nobody any longer */
};

/* Brings status up to date; what became of the load is told where it is to be told. */
void server_look(struct server *server);

/* 0, -ENOMEM. Until it is forgotten, source stays where it is. */
int server_watch(struct server *server, struct source *source, uint32_t events);
void server_unwatch(struct server *server, const struct source *source);

#endif
