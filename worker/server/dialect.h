/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_DIALECT_H
#define WORKER_SERVER_DIALECT_H

/* What a path that takes prompts understands and says. Texts that are returned are the caller's; NULL: no memory. */

#include "server/buffer.h"
#include "server/jobs.h"
#include "server/json.h"

struct dialect {
    /* Fills a job of a request's body. -ENOMEM, or 0: mistake says whether it is one. */
    int (*parse)(const cJSON *body, struct job *job, struct mistake *mistake);
    /* A whole answer, never without its text. The job is done, and succeeded. */
    char *(*answer)(const struct job *job);
    /* A stream of events: before the first text (NULL: nothing), each text, and the end of a job that succeeded. */
    void (*begin)(const struct job *job, struct buffer *events);
    void (*text)(const struct job *job, const char *text, struct buffer *events);
    void (*end)(const struct job *job, struct buffer *events);
    /* An answer that is an error. member: the one of the body that is wrong, code: OpenAI's word for it; or NULL. */
    char *(*error)(unsigned status, const char *sentence, const char *member, const char *code);
    const char *error_event; /* its name in a stream; NULL: none */
};

extern const struct dialect dialect_execute;     /* and of all other paths: errors */
extern const struct dialect dialect_completions; /* of OpenAI's paths: errors */
extern const struct dialect dialect_chat;

/* What both have. */
#define DIALECT_TEXT_BYTES_MAX ((size_t)1 << 20)
#define DIALECT_TOKENS_MAX (1 << 20)
/* NULL instead, deleted, unless it got its text: an answer without one would be taken for an empty text. */
cJSON *dialect_keep_if(bool added, cJSON *json);
uint64_t dialect_random(void);
void dialect_sampling(const struct members *members, double temperature, struct generation_request *request);
const char *dialect_finish(const struct job *job); /* "stop", "length" */
/* An event of a stream with that data, which it deletes, or the stream fails: NULL; name: NULL, the usual one. */
void dialect_event(const char *name, cJSON *data, struct buffer *events);
/* The JSON's text; deletes it. Takes NULL. */
char *dialect_print(cJSON *json);

/* The result of a job of /execute, or why there is none, for whoever waits elsewhere. The caller deletes it. NULL: no
 * memory. */
cJSON *execute_result(const struct job *job);

#endif
