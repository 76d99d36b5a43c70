/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_SERVER_H
#define WORKER_SERVER_SERVER_H

/* One model behind HTTP.
 *
 * Threads: SIGTERM and SIGINT are blocked by the caller in all threads before server_create(); server_run() takes
 *          them: the first one ends the server once what was asked for is answered, or after some seconds, the second
 *          one now. */

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

struct server;

/* Texts are the caller's, for as long as the server lives. */
struct server_options {
    const char *worker_id;
    const char *model;        /* its path */
    const char *host;         /* an address in numbers, of IPv4 or IPv6 */
    uint16_t port;            /* 0: any that is free */
    bool ready_all;           /* ready once all is loaded, or in a window the first layer; before that prompts are
                                 refused. Else they wait or begin */
    uint64_t resident_bytes;  /* 0: the whole model */
    const char *callback_url; /* NULL: none */
};

/* Listens, and answers nothing yet. 0, -EINVAL no such address, -ENODEV the port is not to be had, -ENOMEM. */
int server_create(const struct server_options *options, struct server **ret_server, struct failure *failure);
void server_destroy(struct server **server); /* takes NULL */
uint16_t server_port(const struct server *server);

/* Loads the model and answers until a signal or a failure of the load. 0 after a signal, -ENOMEM, -EAGAIN, or what the
 * load failed with. */
int server_run(struct server *server, struct failure *failure);

#endif
