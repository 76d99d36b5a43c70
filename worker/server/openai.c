/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/completions and /v1/chat/completions, in OpenAI's shape. Members that are not known are passed over. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/dialect.h"

#define COMPLETION_TOKENS_DEFAULT 16 /* OpenAI's */
#define CHAT_TOKENS_DEFAULT 4096     /* as many as a context has */
#define MESSAGES_MAX 1024
#define STOPS_MAX 4
#define STOP_BYTES_MAX 256
#define ROLE_BYTES_MAX 32

/* ---- What is asked ------------------------------------------------------------------------------------------ */

static int add_stop(struct generation_request *request, const char **stops, const cJSON *item, struct mistake *mistake)
{
    const char *stop = cJSON_GetStringValue(item);

    if (!stop || stop[0] == '\0' || strlen(stop) > STOP_BYTES_MAX) {
        mistake_note(mistake, "stop", "stop is to be a string of 1 to %d bytes, or up to %d of them", STOP_BYTES_MAX,
                     STOPS_MAX);
        return 0;
    }
    stops[request->stop_count] = strdup(stop);
    return stops[request->stop_count++] ? 0 : -ENOMEM;
}

static int parse_stops(const struct members *members, struct generation_request *request)
{
    const cJSON *member = members_find(members, "stop"), *item;
    const char **stops;
    int r = 0;

    if (!member)
        return 0;
    if (cJSON_IsArray(member) && cJSON_GetArraySize(member) > STOPS_MAX) {
        mistake_note(members->mistake, "stop", "stop has %d texts, at most %d", cJSON_GetArraySize(member), STOPS_MAX);
        return 0;
    }
    stops = calloc(STOPS_MAX, sizeof(*stops));
    if (!stops)
        return -ENOMEM;
    request->stops = stops;
    if (!cJSON_IsArray(member))
        return add_stop(request, stops, member, members->mistake);
    cJSON_ArrayForEach(item, member) {
        if (r == 0)
            r = add_stop(request, stops, item, members->mistake);
    }
    return r;
}

/* null, false, 0, [] and {} ask for nothing. */
static bool asks(const cJSON *member)
{
    return member && !cJSON_IsFalse(member) && !(cJSON_IsNumber(member) && member->valuedouble == 0) &&
           !((cJSON_IsArray(member) || cJSON_IsObject(member)) && !member->child);
}

/* What would change the answer and is not done: better said than passed over. */
static void refuse_undone(const struct members *members)
{
    static const char *const names[] = {"tools", "functions", "logprobs", "echo", "presence_penalty",
                                        "frequency_penalty"};
    const cJSON *format = members_find(members, "response_format");
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(format, "type"));

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (asks(members_find(members, names[i])))
            mistake_note(members->mistake, names[i], "%s is not supported", names[i]);
    if (format && (!type || strcmp(type, "text") != 0))
        mistake_note(members->mistake, "response_format", "response_format is to be {\"type\": \"text\"}");
}

/* What both paths take. */
static int parse_common(const struct members *members, const char *name, struct job *job)
{
    const cJSON *options = members_find(members, "stream_options");
    struct members of_options = {options, "stream_options.", members->mistake};

    refuse_undone(members);
    dialect_sampling(members, 1, &job->request);
    members_whole(members, "n", 1, 1, 1);
    job->stream = members_flag(members, "stream", false);
    if (options && !cJSON_IsObject(options))
        mistake_note(members->mistake, "stream_options", "stream_options is to be an object");
    else if (options)
        job->stream_usage = members_flag(&of_options, "include_usage", false);
    snprintf(job->name, sizeof(job->name), "%s-%016" PRIx64, name, dialect_random());
    return parse_stops(members, &job->request);
}

/* A text, or an array of just one. Memory: the body's. */
static const char *parse_prompt(const struct members *members)
{
    const cJSON *member = members_find(members, "prompt");

    if (!cJSON_IsArray(member))
        return members_text(members, "prompt", DIALECT_TEXT_BYTES_MAX, NULL);
    if (cJSON_GetArraySize(member) == 1 && cJSON_IsString(member->child))
        return cJSON_GetStringValue(member->child); /* no longer than the body */
    mistake_note(members->mistake, "prompt", "prompt is to be a string, or an array of one string");
    return "";
}

static int parse_completion(const cJSON *body, struct job *job, struct mistake *mistake)
{
    struct members members = {body, "", mistake};
    const char *prompt = parse_prompt(&members);

    job->request.tokens_max =
        (uint32_t)members_whole(&members, "max_tokens", 1, DIALECT_TOKENS_MAX, COMPLETION_TOKENS_DEFAULT);
    job->request.prompt = strdup(prompt);
    job->request.prompt_bytes = strlen(prompt);
    return job->request.prompt ? parse_common(&members, "cmpl", job) : -ENOMEM;
}

/* A content is a text, or parts that are. fallback: where there is none, or NULL: there must be one. The caller frees
 * it; NULL: no memory. */
static char *parse_content(const struct members *message, const char *fallback)
{
    const cJSON *content = members_find(message, "content"), *part;
    struct buffer text = {0};

    if (!cJSON_IsArray(content))
        return strdup(members_text(message, "content", DIALECT_TEXT_BYTES_MAX, fallback));
    cJSON_ArrayForEach(part, content) {
        struct members members = {part, "a part of content: ", message->mistake};

        if (!cJSON_IsObject(part) || strcmp(members_text(&members, "type", ROLE_BYTES_MAX, NULL), "text") != 0)
            mistake_note(message->mistake, "content", "%scontent has a part that is no text", message->place);
        else
            buffer_add_text(&text, members_text(&members, "text", DIALECT_TEXT_BYTES_MAX, NULL));
    }
    return buffer_take(&text);
}

static int parse_message(const cJSON *item, size_t index, struct mistake *mistake, struct chat_message *ret_message)
{
    char place[32];
    struct members members = {item, place, mistake};
    const char *role;

    snprintf(place, sizeof(place), "messages[%zu].", index);
    if (!cJSON_IsObject(item)) {
        mistake_note(mistake, "messages", "messages[%zu] is to be an object", index);
        return 0;
    }
    role = members_text(&members, "role", ROLE_BYTES_MAX, NULL);
    ret_message->role = strdup(strcmp(role, "developer") == 0 ? "system" : role); /* OpenAI's newer word for it */
    ret_message->content = parse_content(&members, strcmp(role, "assistant") == 0 ? "" : NULL);
    return ret_message->role && ret_message->content ? 0 : -ENOMEM;
}

static int parse_messages(const struct members *members, struct generation_request *request)
{
    const cJSON *array = members_find(members, "messages"), *item;
    int count = cJSON_IsArray(array) ? cJSON_GetArraySize(array) : 0;
    struct chat_message *messages;
    int r = 0;

    if (count < 1 || count > MESSAGES_MAX) {
        mistake_note(members->mistake, "messages", "messages is to be an array of 1 to %d messages", MESSAGES_MAX);
        return 0;
    }
    messages = calloc((size_t)count, sizeof(*messages));
    if (!messages)
        return -ENOMEM;
    request->messages = messages;
    cJSON_ArrayForEach(item, array) {
        if (r == 0 && !members_wrong(members)) {
            r = parse_message(item, request->message_count, members->mistake, &messages[request->message_count]);
            request->message_count++;
        }
    }
    return r;
}

static int parse_chat(const cJSON *body, struct job *job, struct mistake *mistake)
{
    struct members members = {body, "", mistake};
    int64_t tokens = members_whole(&members, "max_tokens", 1, DIALECT_TOKENS_MAX, CHAT_TOKENS_DEFAULT);
    int r;

    job->request.tokens_max =
        (uint32_t)members_whole(&members, "max_completion_tokens", 1, DIALECT_TOKENS_MAX, tokens);
    r = parse_messages(&members, &job->request);
    return r < 0 ? r : parse_common(&members, "chatcmpl", job);
}

/* ---- What is answered --------------------------------------------------------------------------------------- */

static cJSON *create_object(const struct job *job, const char *kind)
{
    cJSON *json = cJSON_CreateObject();

    cJSON_AddStringToObject(json, "id", job->name);
    cJSON_AddStringToObject(json, "object", kind);
    cJSON_AddNumberToObject(json, "created", (double)job->created_s);
    cJSON_AddStringToObject(json, "model", job->model);
    return json;
}

static void add_usage(cJSON *json, const struct job *job)
{
    cJSON *usage = cJSON_AddObjectToObject(json, "usage");

    cJSON_AddNumberToObject(usage, "prompt_tokens", job->generation.prompt_tokens);
    cJSON_AddNumberToObject(usage, "completion_tokens", job->generation.tokens);
    cJSON_AddNumberToObject(usage, "total_tokens", (double)job->generation.prompt_tokens + job->generation.tokens);
}

static void add_text_or_null(cJSON *json, const char *name, const char *text)
{
    if (text)
        cJSON_AddStringToObject(json, name, text);
    else
        cJSON_AddNullToObject(json, name);
}

/* The one choice. finish: NULL while it goes on. Returns it, to add the text to. */
static cJSON *add_choice(cJSON *json, const char *finish)
{
    cJSON *choices = cJSON_AddArrayToObject(json, "choices");
    cJSON *choice = cJSON_CreateObject();

    cJSON_AddNumberToObject(choice, "index", 0);
    cJSON_AddNullToObject(choice, "logprobs");
    add_text_or_null(choice, "finish_reason", finish);
    if (!cJSON_AddItemToArray(choices, choice)) {
        cJSON_Delete(choice);
        return NULL;
    }
    return choice;
}

/* role, content: NULL is left out. Whether content was not lost. */
static bool add_message(cJSON *choice, const char *name, const char *role, const char *content)
{
    cJSON *message = cJSON_AddObjectToObject(choice, name);

    if (role)
        cJSON_AddStringToObject(message, "role", role);
    return !content || cJSON_AddStringToObject(message, "content", content);
}

static const char *text_of(const struct job *job)
{
    return job->text.text ? job->text.text : "";
}

static char *answer_completion(const struct job *job)
{
    cJSON *json = create_object(job, "text_completion");
    bool added = cJSON_AddStringToObject(add_choice(json, dialect_finish(job)), "text", text_of(job));

    add_usage(json, job);
    return dialect_print(dialect_keep_if(added, json));
}

static char *answer_chat(const struct job *job)
{
    cJSON *json = create_object(job, "chat.completion");
    bool added = add_message(add_choice(json, dialect_finish(job)), "message", "assistant", text_of(job));

    add_usage(json, job);
    return dialect_print(dialect_keep_if(added, json));
}

static void chunk_completion(const struct job *job, const char *text, const char *finish, struct buffer *events)
{
    cJSON *json = create_object(job, "text_completion");
    bool added = cJSON_AddStringToObject(add_choice(json, finish), "text", text);

    dialect_event(NULL, dialect_keep_if(added, json), events);
}

static void chunk_chat(const struct job *job, const char *role, const char *text, const char *finish,
                       struct buffer *events)
{
    cJSON *json = create_object(job, "chat.completion.chunk");
    bool added = add_message(add_choice(json, finish), "delta", role, text);

    dialect_event(NULL, dialect_keep_if(added, json), events);
}

static void text_completion(const struct job *job, const char *text, struct buffer *events)
{
    chunk_completion(job, text, NULL, events);
}

static void begin_chat(const struct job *job, struct buffer *events)
{
    chunk_chat(job, "assistant", "", NULL, events);
}

static void text_chat(const struct job *job, const char *text, struct buffer *events)
{
    chunk_chat(job, NULL, text, NULL, events);
}

/* Tokens, where they were asked for, in a chunk without choices. */
static void end_stream(const struct job *job, const char *kind, struct buffer *events)
{
    if (job->stream_usage) {
        cJSON *json = create_object(job, kind);

        cJSON_AddArrayToObject(json, "choices");
        add_usage(json, job);
        dialect_event(NULL, json, events);
    }
    buffer_add_text(events, "data: [DONE]\n\n");
}

static void end_completion(const struct job *job, struct buffer *events)
{
    chunk_completion(job, "", dialect_finish(job), events);
    end_stream(job, "text_completion", events);
}

static void end_chat(const struct job *job, struct buffer *events)
{
    chunk_chat(job, NULL, NULL, dialect_finish(job), events);
    end_stream(job, "chat.completion.chunk", events);
}

static char *error(unsigned status, const char *sentence, const char *member, const char *code)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *body = cJSON_AddObjectToObject(json, "error");

    cJSON_AddStringToObject(body, "message", sentence);
    cJSON_AddStringToObject(body, "type", status == 429  ? "rate_limit_error"
                                          : status < 500 ? "invalid_request_error"
                                                         : "server_error");
    add_text_or_null(body, "param", member);
    add_text_or_null(body, "code", code);
    return dialect_print(json);
}

const struct dialect dialect_completions = {parse_completion, answer_completion, NULL, text_completion, end_completion,
                                            error, NULL};
const struct dialect dialect_chat = {parse_chat, answer_chat, begin_chat, text_chat, end_chat, error, NULL};
