/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_HTTP_H
#define WORKER_SERVER_HTTP_H

/* Connections, requests and which path answers them. Threads: the main one. */

#include <stdbool.h>
#include <stdint.h>

#include "server/buffer.h"

struct server;
struct http;

/* Takes connections from the server's socket from now on. 0, -ENOMEM. */
int http_create(struct server *server, struct http **ret_http);
/* Ends every connection; takes NULL. */
void http_destroy(struct http **http);

/* Does what can be done without waiting. */
void http_step(struct http *http);
/* How long it may be left alone; -1: until there is an event. */
int http_timeout_ms(struct http *http);
/* No more connections; those that are there may ask on. */
void http_close_socket(struct http *http);
/* Requests that are being received or answered. */
unsigned http_request_count(const struct http *http);
/* … those that were received and are being answered. */
unsigned http_answering_count(const struct http *http);

/* The paths that are counted, as metrics_write() takes them. */
const char *const *http_paths(unsigned *ret_count);

#endif
