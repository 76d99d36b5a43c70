/* SPDX-License-Identifier: Apache-2.0 */
/* POST /execute: a prompt with the id of its job. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/dialect.h"

#define TOKENS_DEFAULT 256

static int parse(const cJSON *body, struct job *job, struct mistake *mistake)
{
    struct members members = {body, "", mistake};
    struct generation_request *request = &job->request;
    const char *id = members_text(&members, "job_id", JOB_ID_BYTES_MAX, NULL);
    const char *prompt = members_text(&members, "prompt", DIALECT_TEXT_BYTES_MAX, NULL);

    if (id[0] == '\0')
        mistake_note(mistake, "job_id", "job_id is empty");
    request->tokens_max = (uint32_t)members_whole(&members, "max_tokens", 1, DIALECT_TOKENS_MAX, TOKENS_DEFAULT);
    dialect_sampling(&members, 0, request);
    job->stream = members_flag(&members, "stream", false);
    job->id = strdup(id);
    request->prompt = strdup(prompt);
    request->prompt_bytes = strlen(prompt);
    return job->id && request->prompt ? 0 : -ENOMEM;
}

cJSON *execute_result(const struct job *job)
{
    cJSON *result = cJSON_CreateObject();
    bool added;

    cJSON_AddStringToObject(result, "job_id", job->id);
    if (job->result < 0) {
        cJSON_AddStringToObject(result, "error", job->failure.text);
        return result;
    }
    added = cJSON_AddStringToObject(result, "text", job->text.text ? job->text.text : "");
    cJSON_AddNumberToObject(result, "tokens", job->generation.tokens);
    cJSON_AddStringToObject(result, "finish_reason", dialect_finish(job));
    cJSON_AddNumberToObject(result, "load_ns", (double)job->generation.load_ns);
    cJSON_AddNumberToObject(result, "first_token_ns", (double)job->generation.first_token_ns);
    cJSON_AddNumberToObject(result, "tokens_per_s", job->generation.tokens_per_s);
    return dialect_keep_if(added, result);
}

static char *answer(const struct job *job)
{
    return dialect_print(execute_result(job));
}

static void text(const struct job *job, const char *piece, struct buffer *events)
{
    cJSON *data = cJSON_CreateObject();
    bool added = cJSON_AddStringToObject(data, "delta", piece);

    (void)job;
    dialect_event(NULL, dialect_keep_if(added, data), events);
}

static void end(const struct job *job, struct buffer *events)
{
    dialect_event("result", execute_result(job), events);
}

static char *error(unsigned status, const char *sentence, const char *member, const char *code)
{
    cJSON *json = cJSON_CreateObject();

    (void)status;
    (void)code;
    cJSON_AddStringToObject(json, "error", sentence);
    if (member)
        cJSON_AddStringToObject(json, "field", member);
    return dialect_print(json);
}

const struct dialect dialect_execute = {parse, answer, NULL, text, end, error, "error"};
