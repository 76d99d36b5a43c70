/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_CALLBACK_H
#define WORKER_SERVER_CALLBACK_H

/* Events to a URL, one after the other, each tried a few times with growing pauses. libcurl is opened for the first
 * one. What cannot be delivered is lost, with a line in the log. */

struct callback;

/* Both texts: the caller's, for as long as the callback lives. 0, -ENOMEM, -EAGAIN no thread. */
int callback_create(const char *url, const char *worker_id, struct callback **ret_callback);
/* Gives what is left a last try each, for a few seconds at most. Takes NULL. */
void callback_destroy(struct callback **callback);
/* Takes over json, which may be NULL: no memory. Never waits. Threads: any. */
void callback_post(struct callback *callback, char *json);

#endif
