/* SPDX-License-Identifier: Apache-2.0 */
#include "server/status.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "server/clock.h"
#include "server/dialect.h"

#define RETRY_S 1

static const char *const phases[] = {
    [ENGINE_OPENING] = "opening",
    [ENGINE_LOADING] = "loading",
    [ENGINE_LOADED] = "loaded",
    [ENGINE_FAILED] = "failed",
};

bool status_is_ready(const struct server *server)
{
    const struct engine_status *status = &server->status;

    if (status->phase == ENGINE_LOADING && (!server->options.ready_all || server->options.resident_bytes > 0))
        return status->first_layer; /* all of a window's layers have come only when a prompt was computed */
    return status->phase == ENGINE_LOADED;
}

static void add_load(cJSON *json, struct server *server)
{
    const struct tnd_progress *progress = &server->status.progress;
    cJSON *object;

    server_look(server);
    object = cJSON_AddObjectToObject(json, "progress");
    cJSON_AddStringToObject(json, "phase", phases[server->status.phase]);
    cJSON_AddBoolToObject(json, "first_layer", server->status.first_layer);
    cJSON_AddNumberToObject(json, "load_ns", (double)server->status.load_ns);
    cJSON_AddNumberToObject(json, "ready_ns", (double)server->ready_ns);
    cJSON_AddNumberToObject(object, "bytes_ready", (double)progress->bytes_ready);
    cJSON_AddNumberToObject(object, "bytes", (double)progress->bytes);
    cJSON_AddNumberToObject(object, "tensors_ready", progress->tensors_ready);
    cJSON_AddNumberToObject(object, "tensors", progress->tensors);
    cJSON_AddNumberToObject(object, "elapsed_ns", (double)progress->elapsed_ns);
    if (server->status.phase == ENGINE_FAILED)
        cJSON_AddStringToObject(json, "error", server->status.failure.text);
}

static cJSON *create_object(const struct server *server)
{
    cJSON *json = cJSON_CreateObject();

    cJSON_AddStringToObject(json, "worker_id", server->options.worker_id);
    cJSON_AddStringToObject(json, "model", server->model_name);
    return json;
}

static void answer_json(struct answer *answer, unsigned status, cJSON *json)
{
    *answer = (struct answer){.status = status, .body = dialect_print(json), .type = "application/json"};
}

void status_livez(struct server *server, struct answer *ret_answer)
{
    cJSON *json = create_object(server);

    cJSON_AddStringToObject(json, "status", "alive");
    answer_json(ret_answer, 200, json);
}

void status_health(struct server *server, struct answer *ret_answer)
{
    cJSON *json = create_object(server);
    unsigned waiting, running;
    bool ready;

    add_load(json, server);
    ready = status_is_ready(server) && !server->draining;
    jobs_count(server->jobs, &waiting, &running);
    cJSON_AddStringToObject(json, "status", server->status.phase == ENGINE_FAILED ? "failed"
                                            : server->draining                    ? "draining"
                                            : ready                               ? "ready"
                                                                                  : "loading");
    cJSON_AddNumberToObject(json, "queue_length", waiting);
    cJSON_AddNumberToObject(json, "generating", running);
    answer_json(ret_answer, ready ? 200 : 503, json);
    ret_answer->retry_after_s = ready ? 0 : RETRY_S;
}

void status_load(struct server *server, struct answer *ret_answer)
{
    cJSON *json = create_object(server);

    add_load(json, server);
    answer_json(ret_answer, 200, json);
}

static cJSON *create_model(const struct server *server)
{
    cJSON *model = cJSON_CreateObject();

    cJSON_AddStringToObject(model, "id", server->model_name);
    cJSON_AddStringToObject(model, "object", "model");
    cJSON_AddNumberToObject(model, "created", 0);
    cJSON_AddStringToObject(model, "owned_by", "tundish");
    return model;
}

void status_model(struct server *server, struct answer *ret_answer)
{
    answer_json(ret_answer, 200, create_model(server));
}

void status_models(struct server *server, struct answer *ret_answer)
{
    cJSON *json = cJSON_CreateObject(), *model = create_model(server);
    cJSON *data;

    cJSON_AddStringToObject(json, "object", "list");
    data = cJSON_AddArrayToObject(json, "data");
    if (!cJSON_AddItemToArray(data, model))
        cJSON_Delete(model);
    answer_json(ret_answer, 200, json);
}

void status_metrics(struct server *server, struct answer *ret_answer)
{
    const struct engine_status *status = &server->status;
    struct buffer text = {0};
    unsigned waiting, running, path_count;
    const char *const *paths = http_paths(&path_count);

    server_look(server);
    jobs_count(server->jobs, &waiting, &running);
    buffer_add_text(&text, "# HELP tundish_worker_info Who this is.\n# TYPE tundish_worker_info gauge\n"
                           "tundish_worker_info{worker_id=");
    metrics_label(&text, server->options.worker_id);
    buffer_add_text(&text, ",model=");
    metrics_label(&text, server->model_name);
    buffer_add_text(&text, "} 1\n");
    metrics_write(&server->metrics, paths, path_count, &text);
    metrics_value(&text, "tundish_ready", "gauge", "1 while a prompt would be computed.",
                  status_is_ready(server) && !server->draining);
    metrics_value(&text, "tundish_load_ns", "gauge", "What the load took; 0: not all is there.",
                  (double)status->load_ns);
    metrics_value(&text, "tundish_ready_ns", "gauge", "From the start until ready; 0: not yet.",
                  (double)server->ready_ns);
    metrics_value(&text, "tundish_load_bytes", "gauge", "Bytes of the model that are there.",
                  (double)status->progress.bytes_ready);
    metrics_value(&text, "tundish_model_bytes", "gauge", "Bytes of the model.", (double)status->progress.bytes);
    metrics_value(&text, "tundish_queue_length", "gauge", "Prompts that wait.", waiting);
    metrics_value(&text, "tundish_generating", "gauge", "Prompts that are being answered.", running);
    metrics_value(&text, "tundish_requests_in_flight", "gauge", "Requests that are not answered yet.",
                  http_request_count(server->http));
    *ret_answer = (struct answer){.status = 200, .body = buffer_take(&text),
                                  .type = "text/plain; version=0.0.4; charset=utf-8"};
}

char *status_event(const struct server *server, const char *event)
{
    cJSON *json = create_object(server);

    cJSON_AddStringToObject(json, "event", event);
    cJSON_AddNumberToObject(json, "port", server->port);
    cJSON_AddNumberToObject(json, "load_ns", (double)(server->status.load_ns ? server->status.load_ns
                                                                             : clock_ns() - server->start_ns));
    if (server->failed)
        cJSON_AddStringToObject(json, "error", server->status.failure.text);
    return dialect_print(json);
}
