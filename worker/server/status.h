/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_STATUS_H
#define WORKER_SERVER_STATUS_H

/* What the server says of itself: the GET paths, and events. */

#include <stdbool.h>

#include "server/state.h"

struct answer {
    unsigned status;
    char *body;               /* whoever answers frees it; NULL: no memory */
    const char *type;         /* of the body */
    unsigned retry_after_s;   /* 0: not told */
    const char *allow;        /* NULL: not told */
};

void status_livez(struct server *server, struct answer *ret_answer);
void status_health(struct server *server, struct answer *ret_answer);
void status_load(struct server *server, struct answer *ret_answer);
void status_models(struct server *server, struct answer *ret_answer);
void status_model(struct server *server, struct answer *ret_answer); /* the one there is */
void status_metrics(struct server *server, struct answer *ret_answer);

/* Whether a prompt that comes now would be computed. */
bool status_is_ready(const struct server *server);
/* "ready", "failed": an event's JSON, which the caller frees. NULL: no memory. */
char *status_event(const struct server *server, const char *event);

#endif
