/* SPDX-License-Identifier: Apache-2.0 */
#include "server/exchange.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "server/clock.h"
#include "server/log.h"

#define STATUS_GONE 499 /* for log and metrics: the request ended without our whole answer */
#define RETRY_S 1

/* ---- Its life ----------------------------------------------------------------------------------------------- */

/* http_step(), which follows, resumes it. */
static void client_gone(struct server *server, struct source *source)
{
    struct exchange *exchange = (struct exchange *)source; /* its first member */

    (void)server;
    exchange->gone = true;
}

struct exchange *exchange_create(struct server *server, struct MHD_Connection *connection, const struct route *route,
                                 const char *method, const char *path)
{
    struct exchange *exchange = calloc(1, sizeof(*exchange));

    if (!exchange)
        return NULL;
    exchange->server = server;
    exchange->connection = connection;
    exchange->route = route;
    exchange->start_ns = clock_ns();
    exchange->source = (struct source){
        client_gone, MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd};
    snprintf(exchange->method, sizeof(exchange->method), "%s", method);
    snprintf(exchange->path, sizeof(exchange->path), "%s", path);
    return exchange;
}

void exchange_destroy(struct exchange **ref_exchange, bool completed)
{
    struct exchange *exchange = *ref_exchange;
    unsigned status = completed && exchange->status ? exchange->status : STATUS_GONE;

    metrics_request(&exchange->server->metrics, http_route_index(exchange->route), status);
    log_request(exchange->server->options.worker_id, exchange->method, exchange->path, status,
                clock_ns() - exchange->start_ns, exchange->job_id[0] ? exchange->job_id : NULL);
    jobs_leave(exchange->server->jobs, &exchange->job);
    buffer_release(&exchange->body);
    buffer_release(&exchange->piece);
    buffer_release(&exchange->events);
    free(exchange);
    *ref_exchange = NULL;
}

/* What is too long is thrown away but read, so that the client gets to the answer. */
void exchange_receive(struct exchange *exchange, const char *bytes, size_t count)
{
    if (exchange->body.count + count > EXCHANGE_BODY_BYTES_MAX)
        exchange->too_long = true;
    if (exchange->too_long)
        buffer_release(&exchange->body);
    else
        buffer_add(&exchange->body, bytes, count);
}

bool exchange_wait(struct exchange *exchange)
{
    if (http_is_ending(exchange->server->http))
        return false;
    exchange->waiting = true;
    http_add_waiting(exchange->server->http, exchange);
    if (server_watch(exchange->server, &exchange->source, EPOLLRDHUP) < 0) {
        exchange->gone = true; /* better than one that nobody hears */
        eventfd_write(exchange->server->wakes.fd, 1);
    }
    MHD_suspend_connection(exchange->connection);
    return true;
}

bool exchange_can_advance(const struct exchange *exchange)
{
    size_t bytes;
    enum job_state state = jobs_read(exchange->server->jobs, exchange->job, exchange->told, NULL, &bytes);

    return exchange->gone || state == JOB_DONE || (exchange->stream && bytes > 0);
}

void exchange_resume(struct exchange *exchange)
{
    exchange->waiting = false;
    http_remove_waiting(exchange->server->http, exchange);
    server_unwatch(exchange->server, &exchange->source);
    MHD_resume_connection(exchange->connection);
}

/* ---- Answers ------------------------------------------------------------------------------------------------ */

enum MHD_Result exchange_queue(struct exchange *exchange, unsigned status, struct MHD_Response *response)
{
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    if (exchange->server->draining || http_is_crowded(exchange->server->http))
        MHD_add_response_header(response, "Connection", "close");
    exchange->status = status;
    result = MHD_queue_response(exchange->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* Takes over the body. */
static enum MHD_Result answer(struct exchange *exchange, const struct answer *answer)
{
    struct MHD_Response *response = NULL;
    char seconds[16];

    if (answer->body)
        response = MHD_create_response_from_buffer(strlen(answer->body), answer->body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(answer->body);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", answer->type);
    if (answer->retry_after_s > 0) {
        snprintf(seconds, sizeof(seconds), "%u", answer->retry_after_s);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    if (answer->allow)
        MHD_add_response_header(response, "Allow", answer->allow);
    return exchange_queue(exchange, answer->status, response);
}

/* member, code: as dialects have them. */
static enum MHD_Result answer_mistake(struct exchange *exchange, unsigned status, const char *sentence,
                                      const char *member, const char *code)
{
    struct answer error = {.status = status, .body = exchange->route->dialect->error(status, sentence, member, code),
                           .type = "application/json"};

    if (status == 405)
        error.allow = exchange->route->get ? "GET, HEAD" : "POST";
    if (status == 429 || status == 503)
        error.retry_after_s = RETRY_S;
    return answer(exchange, &error);
}

static enum MHD_Result answer_error(struct exchange *exchange, unsigned status, const char *sentence)
{
    return answer_mistake(exchange, status, sentence, NULL, NULL);
}

/* What a job failed with: the client's mistake unless the load is to blame, whatever that failed with: it is not tried
 * again. */
static unsigned status_of(struct server *server, int result)
{
    server_look(server);
    if (server->failed)
        return 500;
    if (result == -ECANCELED || result == -ENOMEM || result == -EAGAIN)
        return 503;
    if (result == -EINVAL || result == -EFBIG || result == -ENOTSUP)
        return 400;
    return 500;
}

static enum MHD_Result answer_failed_job(struct exchange *exchange)
{
    const struct job *job = exchange->job;
    unsigned status = status_of(exchange->server, job->result);
    bool too_long = status == 400 && job->result == -EFBIG;

    return answer_mistake(exchange, status, job->failure.text, NULL, too_long ? "context_length_exceeded" : NULL);
}

static enum MHD_Result answer_job(struct exchange *exchange)
{
    const struct job *job = exchange->job;
    size_t bytes;
    enum job_state state = jobs_read(exchange->server->jobs, job, exchange->told, NULL, &bytes);
    bool begins = exchange->stream && bytes > 0;
    struct answer whole = {.status = 200, .type = "application/json"};

    if (state != JOB_DONE && !begins)
        return exchange_wait(exchange) ? MHD_YES : MHD_NO;
    if (!begins && job->result < 0)
        return answer_failed_job(exchange);
    if (exchange->stream)
        return stream_begin(exchange);
    whole.body = exchange->route->dialect->answer(job);
    return whole.body ? answer(exchange, &whole) : answer_error(exchange, 503, "no memory for the answer");
}

/* ---- Prompts ------------------------------------------------------------------------------------------------ */

/* Whether prompts are taken; else answered already. */
static bool is_open(struct exchange *exchange, enum MHD_Result *ret_result)
{
    struct server *server = exchange->server;

    server_look(server);
    if (server->failed)
        *ret_result = answer_error(exchange, 500, server->status.failure.text);
    else if (server->draining)
        *ret_result = answer_error(exchange, 503, "the worker ends");
    else if (server->options.ready_all && !status_is_ready(server))
        *ret_result = answer_error(exchange, 503, "the model is being loaded");
    else
        return true;
    return false;
}

/* -ENOMEM, or 0: mistake says whether it is one. */
static int parse(struct exchange *exchange, struct job *job, struct mistake *mistake)
{
    const char *body = exchange->body.text ? exchange->body.text : "";
    cJSON *json = json_parse(body, exchange->body.count, &mistake->failure);
    int r;

    if (!json)
        return 0;
    job->created_s = time(NULL);
    job->model = exchange->server->model_name;
    r = exchange->route->dialect->parse(json, job, mistake);
    cJSON_Delete(json);
    snprintf(exchange->job_id, sizeof(exchange->job_id), "%s", job->id ? job->id : "");
    return r;
}

/* Whether one more prompt may wait. Jobs are bounded, but not who follows one of them: the last connections are kept
 * for those who only ask how things are. */
static bool is_room(struct exchange *exchange, struct job **ref_job)
{
    return !http_is_crowded(exchange->server->http) && jobs_submit(exchange->server->jobs, ref_job) == 0;
}

static enum MHD_Result submit(struct exchange *exchange)
{
    struct mistake mistake = {0};
    struct job *job = exchange->body.failed ? NULL : job_create();
    enum MHD_Result result;

    if (!job || parse(exchange, job, &mistake) < 0) {
        result = answer_error(exchange, 503, "no memory");
    } else if (mistake.failure.text[0] != '\0') {
        result = answer_mistake(exchange, 400, mistake.failure.text, mistake.member, NULL);
    } else {
        exchange->stream = job->stream;
        if (is_room(exchange, &job)) {
            exchange->job = job;
            buffer_release(&exchange->body);
            return answer_job(exchange);
        }
        result = answer_error(exchange, 429, "too many prompts wait, or connections are open");
    }
    job_destroy(&job);
    return result;
}

/* What there is to say whatever the body is; 0: nothing. */
static unsigned status_of_head(const struct exchange *exchange)
{
    const struct route *route = exchange->route;
    bool get = strcmp(exchange->method, "GET") == 0 || strcmp(exchange->method, "HEAD") == 0;

    if (!route->path)
        return 404;
    if (route->get ? !get : strcmp(exchange->method, "POST") != 0)
        return 405;
    return exchange->too_long ? 413 : 0;
}

static enum MHD_Result refuse(struct exchange *exchange, unsigned status)
{
    return answer_error(exchange, status,
                        status == 404   ? "no such path"
                        : status == 405 ? "no such method here"
                                        : "the body is longer than 1 MiB");
}

/* Only a client that waits to be told to go on: any other one is sending already, and would see its connection reset
 * before it sees an answer. */
enum MHD_Result exchange_begin(struct exchange *exchange)
{
    const char *expected = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Expect");
    const char *length = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Content-Length");
    unsigned status;

    if (!expected || strcasecmp(expected, "100-continue") != 0)
        return MHD_YES;
    exchange->too_long = length && strtoull(length, NULL, 10) > EXCHANGE_BODY_BYTES_MAX;
    status = status_of_head(exchange);
    if (status == 0)
        return MHD_YES;
    http_received(exchange->server->http, exchange);
    return refuse(exchange, status);
}

enum MHD_Result exchange_advance(struct exchange *exchange)
{
    unsigned refused = status_of_head(exchange);
    struct answer status;
    enum MHD_Result result;

    if (exchange->gone || http_is_ending(exchange->server->http))
        return MHD_NO;
    if (exchange->job)
        return answer_job(exchange);
    http_received(exchange->server->http, exchange);
    if (refused != 0)
        return refuse(exchange, refused);
    if (!exchange->route->get)
        return is_open(exchange, &result) ? submit(exchange) : result;
    exchange->route->get(exchange->server, &status);
    return answer(exchange, &status);
}
