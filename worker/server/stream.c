/* SPDX-License-Identifier: Apache-2.0 */
/* An answer as server-sent events, made as the text comes. */
#include <stdlib.h>
#include <string.h>

#include "server/exchange.h"

#define BLOCK_BYTES 4096

static void add_error(struct exchange *exchange)
{
    const struct dialect *dialect = exchange->route->dialect;
    char *error = dialect->error(500, exchange->job->failure.text, NULL, NULL);

    if (!error) {
        exchange->events.failed = true;
        return;
    }
    if (dialect->error_event)
        buffer_format(&exchange->events, "event: %s\n", dialect->error_event);
    buffer_format(&exchange->events, "data: %s\n\n", error);
    free(error);
}

/* Makes events of what the job has by now. */
static void make_events(struct exchange *exchange)
{
    const struct dialect *dialect = exchange->route->dialect;
    const struct job *job = exchange->job;
    size_t bytes;
    enum job_state state;

    buffer_clear(&exchange->events);
    buffer_clear(&exchange->piece);
    exchange->events_sent = 0;
    if (exchange->ended)
        return;
    state = jobs_read(exchange->server->jobs, job, exchange->told, &exchange->piece, &bytes);
    exchange->told += bytes;
    if (!exchange->begun && dialect->begin)
        dialect->begin(job, &exchange->events);
    exchange->begun = true;
    if (bytes > 0)
        dialect->text(job, exchange->piece.text ? exchange->piece.text : "", &exchange->events);
    if (state != JOB_DONE)
        return;
    exchange->ended = true;
    if (job->result < 0)
        add_error(exchange);
    else
        dialect->end(job, &exchange->events);
}

/* As many bytes as there is room for, and no part of a sequence. */
static size_t copy_events(struct exchange *exchange, char *bytes, size_t room)
{
    const char *text = exchange->events.text + exchange->events_sent;
    size_t count = exchange->events.count - exchange->events_sent;

    if (count > room)
        for (count = room; count > 1 && (text[count] & 0xc0) == 0x80;)
            count--;
    memcpy(bytes, text, count);
    exchange->events_sent += count;
    return count;
}

static ssize_t read_events(void *cookie, uint64_t position, char *bytes, size_t room)
{
    struct exchange *exchange = cookie;

    (void)position;
    if (exchange->gone)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (exchange->events_sent == exchange->events.count)
        make_events(exchange);
    if (exchange->events.failed || exchange->piece.failed)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (exchange->events.count > 0)
        return (ssize_t)copy_events(exchange, bytes, room);
    if (exchange->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    return exchange_wait(exchange) ? 0 : MHD_CONTENT_READER_END_WITH_ERROR;
}

enum MHD_Result stream_begin(struct exchange *exchange)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_events, exchange, NULL);

    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/event-stream; charset=utf-8");
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    return exchange_queue(exchange, 200, response);
}
