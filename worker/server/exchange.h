/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_EXCHANGE_H
#define WORKER_SERVER_EXCHANGE_H

/* A request and its answer. While it waits for its job its connection is suspended: MHD does not look at it, and the
 * main loop sees when the client goes away: one that ends its sending side counts as gone. Threads: the main one. */

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/dialect.h"
#include "server/state.h"
#include "server/status.h"

#define EXCHANGE_BODY_BYTES_MAX ((size_t)1 << 20)

/* A path. */
struct route {
    const char *path; /* one that ends in a slash: with the model's name behind it; NULL: any other */
    void (*get)(struct server *server, struct answer *ret_answer); /* NULL: POST */
    const struct dialect *dialect; /* of its prompts and errors */
};

struct exchange {
    struct source source; /* the client is gone */
    struct server *server;
    struct MHD_Connection *connection;
    const struct route *route; /* the last one of all: no such path */
    char method[16], path[104]; /* for the log: may be cut */
    uint64_t start_ns;
    unsigned status; /* 0: not answered */
    char job_id[JOB_ID_BYTES_MAX + 1]; /* … may be cut; "": none, or the body was not understood so far */

    struct buffer body;
    bool too_long, received; /* received: as a whole, or as much as is wanted of it */

    struct job *job; /* NULL: none yet */
    bool stream, gone;
    size_t told; /* bytes of the job's text that were made events */
    struct buffer piece, events;
    size_t events_sent; /* bytes */
    bool begun, ended;

    bool waiting; /* its connection is suspended, and it is in the list of those that wait */
    struct exchange *previous, *next;
};

struct exchange *exchange_create(struct server *server, struct MHD_Connection *connection, const struct route *route,
                                 const char *method, const char *path);
/* Counts and logs it. */
void exchange_destroy(struct exchange **exchange, bool completed);
/* Its head is there. Answers at once a client that asks before it sends a body that is not wanted. MHD_NO: the
 * connection is to be closed. */
enum MHD_Result exchange_begin(struct exchange *exchange);
/* A piece of the body. */
void exchange_receive(struct exchange *exchange, const char *bytes, size_t count);
/* Answers if that can be done, or waits. MHD_NO: the connection is to be closed. */
enum MHD_Result exchange_advance(struct exchange *exchange);
/* Suspends it, until exchange_resume(). False: HTTP ends, and nobody would resume it. */
bool exchange_wait(struct exchange *exchange);
/* Whether it waits for nothing any more. */
bool exchange_can_advance(const struct exchange *exchange);
void exchange_resume(struct exchange *exchange);

/* Answers with the events of a job that has a text or is done. */
enum MHD_Result stream_begin(struct exchange *exchange);
/* Adds what every answer has and hands it over; response may be NULL: no memory. */
enum MHD_Result exchange_queue(struct exchange *exchange, unsigned status, struct MHD_Response *response);

/* http.c: the list of those that wait. */
void http_add_waiting(struct http *http, struct exchange *exchange);
void http_remove_waiting(struct http *http, struct exchange *exchange);
/* … a request was received: it is being answered, and its connection may take longer now. */
void http_received(struct http *http, struct exchange *exchange);
/* … http_destroy() was called. */
bool http_is_ending(const struct http *http);
/* … only as many connections are left as are kept for who does not wait. */
bool http_is_crowded(const struct http *http);
unsigned http_route_index(const struct route *route);

#endif
