/* SPDX-License-Identifier: Apache-2.0 */
#include "text/chat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/merging.h"
#include "text/parts.h"

/* A prompt as it grows. After a failure it stays as it is. */
struct prompt {
    const struct tokenizer *tokenizer;
    struct tokens tokens;
    char *text; /* since the last token of the template's own: encoded in one go, as if it had been one text */
    size_t bytes, capacity;
    bool trims; /* messages */
    int result;
    struct failure *failure;
};

static void put_bytes(struct prompt *prompt, const char *text, size_t bytes)
{
    size_t capacity = prompt->capacity ? prompt->capacity : 1024;
    char *grown;

    if (prompt->result < 0)
        return;
    if (bytes > TOKENIZER_TEXT_BYTES_MAX - prompt->bytes) {
        prompt->result = fail(prompt->failure, -EFBIG, "a message of more than %d bytes", TOKENIZER_TEXT_BYTES_MAX);
        return;
    }
    while (capacity - prompt->bytes < bytes)
        capacity *= 2;
    if (capacity != prompt->capacity) {
        grown = realloc(prompt->text, capacity);
        if (!grown) {
            prompt->result = fail(prompt->failure, -ENOMEM, "no memory for a prompt of %zu bytes", capacity);
            return;
        }
        prompt->text = grown;
        prompt->capacity = capacity;
    }
    memcpy(prompt->text + prompt->bytes, text, bytes);
    prompt->bytes += bytes;
}

static void put_text(struct prompt *prompt, const char *text)
{
    put_bytes(prompt, text, strlen(text));
}

/* Takes off the white space that the text ends with, down to start. */
static void trim_behind(struct prompt *prompt, size_t start)
{
    if (prompt->result == 0)
        prompt->bytes = start + space_behind(prompt->text + start, prompt->bytes - start);
}

/* A message's text, without the white space around it where the template says so. */
static void put_content(struct prompt *prompt, const char *content)
{
    size_t start = prompt->bytes, bytes = strlen(content), space = prompt->trims ? space_before(content, bytes) : 0;

    put_bytes(prompt, content + space, bytes - space);
    if (prompt->trims)
        trim_behind(prompt, start);
}

/* Encodes what stands before the token of the template. token < 0: it has none, or for none. */
static void put_token(struct prompt *prompt, int32_t token)
{
    int32_t *tokens = NULL;
    int64_t count;

    if (prompt->result < 0)
        return;
    count = tokenizer_encode(prompt->tokenizer, prompt->text, prompt->bytes,
                             prompt->tokens.count ? TOKENIZER_BEHIND : 0, &tokens, prompt->failure);
    prompt->result = count < 0 ? (int)count : 0;
    for (int64_t i = 0; i < count && prompt->result == 0; i++)
        prompt->result = tokens_push(&prompt->tokens, tokens[i], prompt->failure);
    if (prompt->result == 0 && token >= 0)
        prompt->result = tokens_push(&prompt->tokens, token, prompt->failure);
    free(tokens);
    prompt->bytes = 0;
}

static void put_special(struct prompt *prompt, const char *text)
{
    int32_t token = vocabulary_mark_find(&prompt->tokenizer->vocabulary, text);

    if (prompt->result == 0 && token < 0)
        prompt->result = fail(prompt->failure, -ENOTSUP, "the chat template's %s is no token of the vocabulary", text);
    put_token(prompt, token);
}

static void put_role_chatml(struct prompt *prompt, const char *role)
{
    put_special(prompt, "<|im_start|>");
    put_text(prompt, role);
    put_text(prompt, "\n");
}

static void end_chatml(struct prompt *prompt)
{
    put_special(prompt, "<|im_end|>");
    put_text(prompt, "\n");
}

/* The system message that a template of ChatML puts in front where there is none, as it stands between quotes in
 * "<|im_start|>system\nYou are …<|im_end|>"; NULL: it has none. A line feed may be written as \n. */
static const char *default_system(const char *template, size_t *ret_bytes)
{
    static const char begin[] = "<|im_start|>system", end[] = "<|im_end|>";

    while ((template = strstr(template, begin))) {
        size_t feed, bytes;

        template += strlen(begin);
        feed = template[0] == '\n' ? 1 : strncmp(template, "\\n", 2) == 0 ? 2 : 0;
        bytes = strcspn(template + feed, "'\"{}<");
        if (feed && bytes && strncmp(template + feed + bytes, end, strlen(end)) == 0) {
            *ret_bytes = bytes;
            return template + feed;
        }
    }
    return NULL;
}

static void put_unescaped(struct prompt *prompt, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        bool feed = text[i] == '\\' && i + 1 < bytes && text[i + 1] == 'n';

        put_bytes(prompt, feed ? "\n" : text + i, 1);
        i += feed;
    }
}

static void put_chatml(struct prompt *prompt, const struct chat_message *messages, size_t count)
{
    size_t bytes = 0;
    const char *system = default_system(prompt->tokenizer->chat_template, &bytes);

    if (system && strcmp(messages[0].role, "system") != 0) {
        put_role_chatml(prompt, "system");
        put_unescaped(prompt, system, bytes);
        end_chatml(prompt);
    }
    for (size_t i = 0; i < count; i++) {
        put_role_chatml(prompt, messages[i].role);
        put_content(prompt, messages[i].content);
        end_chatml(prompt);
    }
    put_role_chatml(prompt, "assistant");
}

static void put_role_llama3(struct prompt *prompt, const char *role)
{
    put_special(prompt, "<|start_header_id|>");
    put_text(prompt, role);
    put_special(prompt, "<|end_header_id|>");
    put_text(prompt, "\n\n");
}

/* Since Llama 3.1 a system message always stands in front, with two dates: the second is the one that the template
 * itself has for those who tell it none. */
static void put_system_llama31(struct prompt *prompt, const char *content)
{
    static const char key[] = "date_string = \"";
    const char *date = strstr(prompt->tokenizer->chat_template, key);

    put_role_llama3(prompt, "system");
    put_text(prompt, "Cutting Knowledge Date: December 2023\nToday Date: ");
    if (date)
        put_bytes(prompt, date + strlen(key), strcspn(date + strlen(key), "\""));
    put_text(prompt, "\n\n");
    put_content(prompt, content);
    put_special(prompt, "<|eot_id|>");
}

static void put_llama3(struct prompt *prompt, const struct chat_message *messages, size_t count)
{
    size_t first = 0;

    if (strstr(prompt->tokenizer->chat_template, "Cutting Knowledge Date: December 2023")) {
        first = strcmp(messages[0].role, "system") == 0;
        put_system_llama31(prompt, first ? messages[0].content : "");
    }
    for (size_t i = first; i < count; i++) {
        put_role_llama3(prompt, messages[i].role);
        put_content(prompt, messages[i].content);
        put_special(prompt, "<|eot_id|>");
    }
    put_role_llama3(prompt, "assistant");
}

/* The user's turn: with the system message inside the first one. */
static void put_user_llama2(struct prompt *prompt, const char *system, const char *content)
{
    size_t start;

    put_token(prompt, prompt->tokenizer->bos);
    put_text(prompt, "[INST] ");
    start = prompt->bytes;
    if (system) {
        put_text(prompt, "<<SYS>>\n");
        put_text(prompt, system);
        put_text(prompt, "\n<</SYS>>\n\n");
        put_text(prompt, content);
        trim_behind(prompt, start);
    } else {
        put_content(prompt, content);
    }
    put_text(prompt, " [/INST]");
}

static void put_llama2(struct prompt *prompt, const struct chat_message *messages, size_t count)
{
    size_t first = strcmp(messages[0].role, "system") == 0;
    const struct tokenizer *tokenizer = prompt->tokenizer;

    prompt->trims = true;
    if (tokenizer->bos < 0 || !tokenizer->end_count)
        prompt->result = fail(prompt->failure, -ENOTSUP, "the chat template needs bos and eos: one is missing");
    for (size_t i = first; i < count && prompt->result == 0; i++) {
        bool user = strcmp(messages[i].role, "user") == 0;

        if (user != ((i - first) % 2 == 0) || strcmp(messages[i].role, "system") == 0) {
            prompt->result = fail(prompt->failure, -EINVAL, "message %zu is of role '%.40s': user and assistant take "
                                  "turns in this chat template, a system message comes first", i, messages[i].role);
        } else if (user) {
            put_user_llama2(prompt, first && i == first ? messages[0].content : NULL, messages[i].content);
        } else {
            put_text(prompt, " ");
            put_content(prompt, messages[i].content);
            put_text(prompt, " ");
            put_token(prompt, tokenizer->ends[0]);
        }
    }
}

static int check_roles(const struct chat_message *messages, size_t count, struct failure *failure)
{
    if (count == 0)
        return fail(failure, -EINVAL, "no messages");
    for (size_t i = 0; i < count; i++) {
        if (strcmp(messages[i].role, "system") != 0 && strcmp(messages[i].role, "user") != 0 &&
            strcmp(messages[i].role, "assistant") != 0)
            return fail(failure, -EINVAL, "message %zu is of role '%.40s', expected system, user or assistant", i,
                        messages[i].role);
    }
    return 0;
}

int64_t chat_encode(const struct tokenizer *tokenizer, const struct chat_message *messages, size_t message_count,
                    int32_t **ret_tokens, struct failure *failure)
{
    const char *template = tokenizer->chat_template;
    struct prompt prompt = {.tokenizer = tokenizer, .failure = failure};

    if (!template)
        return fail(failure, -ENOTSUP, "the model has no chat template");
    prompt.result = check_roles(messages, message_count, failure);
    if (prompt.result < 0)
        return prompt.result;
    prompt.trims = strstr(template, "| trim") || strstr(template, "|trim");
    if (strstr(template, "<<SYS>>") && strstr(template, "[INST]")) {
        put_llama2(&prompt, messages, message_count);
    } else if (strstr(template, "<|start_header_id|>") || strstr(template, "<|im_start|>")) {
        if (strstr(template, "bos_token"))
            put_token(&prompt, tokenizer->bos);
        (strstr(template, "<|start_header_id|>") ? put_llama3 : put_chatml)(&prompt, messages, message_count);
    } else {
        return fail(failure, -ENOTSUP, "the model's chat template is none of those that are known: ChatML, Llama 3, "
                                       "Llama 2");
    }
    put_token(&prompt, -1);
    free(prompt.text);
    if (prompt.result < 0) {
        free(prompt.tokens.at);
        return prompt.result;
    }
    *ret_tokens = prompt.tokens.at;
    return (int64_t)prompt.tokens.count;
}
