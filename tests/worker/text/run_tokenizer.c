/* SPDX-License-Identifier: Apache-2.0 */

/* For the tests in Python: run_tokenizer MODEL [FOLDER] opens a model's tokenizer, tells it as a line of JSON, and
 * answers requests on standard input until that ends. All numbers are 32 bits, little-endian, as is each answer's
 * first, the count or a negative errno that a sentence follows.
 *
 *   'e' flags, bytes, text    the tokens
 *   'd' at_start, count, tokens    what a stream tells, as bytes: one token after the other, then its end
 *   'c' count, count times: bytes, role, bytes, content    the tokens of a prompt
 *   'n' bytes, text    the bytes in Unicode's form C
 *   't' flags, bytes, text    microseconds that the encoding took */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/chat.h"
#include "text/nfc.h"
#include "text/tokenizer.h"

enum { MESSAGES_MAX = 64, EXIT_NO_MODEL = 2, EXIT_NO_TOKENIZER = 3 };

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void get(void *memory, size_t bytes)
{
    if (bytes && fread(memory, bytes, 1, stdin) != 1) {
        fprintf(stderr, "a request is cut\n");
        exit(EXIT_FAILURE);
    }
}

static int32_t get_number(void)
{
    int32_t number;

    get(&number, sizeof(number));
    return number;
}

/* bytes and a NUL behind them, so that a sanitizer sees whoever reads on. */
static char *get_text(size_t bytes)
{
    char *text = malloc(bytes + 1);

    get(text, bytes);
    text[bytes] = 0;
    return text;
}

static void answer(int64_t result, const void *memory, size_t bytes, const struct failure *failure)
{
    int32_t numbers[2] = {(int32_t)result, (int32_t)strlen(failure->text)};

    fwrite(numbers, 4, result < 0 ? 2 : 1, stdout);
    if (result < 0)
        fwrite(failure->text, 1, strlen(failure->text), stdout);
    else if (bytes)
        fwrite(memory, 1, bytes, stdout);
    fflush(stdout);
}

static void encode(const struct tokenizer *tokenizer, bool timed)
{
    struct failure failure = {{0}};
    unsigned flags = (unsigned)get_number();
    size_t bytes = (size_t)get_number();
    char *text = get_text(bytes), *exact = malloc(bytes);
    int32_t *tokens = NULL;
    uint64_t started = now_us();
    int64_t count;

    memcpy(exact, text, bytes);
    count = tokenizer_encode(tokenizer, exact, bytes, flags, &tokens, &failure);
    if (timed && count >= 0)
        answer((int64_t)(now_us() - started), NULL, 0, &failure);
    else
        answer(count, tokens, (size_t)count * sizeof(*tokens), &failure);
    free(tokens);
    free(exact);
    free(text);
}

static void decode(const struct tokenizer *tokenizer)
{
    struct failure failure = {{0}};
    bool at_start = get_number();
    size_t count = (size_t)get_number(), bytes = 0, room = tokenizer_stream_room(tokenizer);
    char *told = malloc((count + 1) * room), *one = malloc(room);
    struct tokenizer_stream stream;

    tokenizer_stream_init(&stream, tokenizer, at_start);
    for (size_t i = 0; i <= count; i++) {
        size_t more = i < count ? tokenizer_stream_next(&stream, get_number(), one)
                                : tokenizer_stream_end(&stream, one);

        memcpy(told + bytes, one, more);
        bytes += more;
    }
    answer((int64_t)bytes, told, bytes, &failure);
    free(one);
    free(told);
}

static void chat(const struct tokenizer *tokenizer)
{
    struct failure failure = {{0}};
    size_t count = (size_t)get_number();
    struct chat_message messages[MESSAGES_MAX];
    int32_t *tokens = NULL;
    int64_t r;

    for (size_t i = 0; i < count && i < MESSAGES_MAX; i++) {
        messages[i].role = get_text((size_t)get_number());
        messages[i].content = get_text((size_t)get_number());
    }
    r = chat_encode(tokenizer, messages, count, &tokens, &failure);
    answer(r, tokens, (size_t)r * sizeof(*tokens), &failure);
    free(tokens);
    for (size_t i = 0; i < count && i < MESSAGES_MAX; i++) {
        free((void *)messages[i].role);
        free((void *)messages[i].content);
    }
}

static void normalize(void)
{
    struct failure failure = {{0}};
    size_t bytes = (size_t)get_number();
    char *text = get_text(bytes), *normalized;
    int64_t count = nfc_normalize(text, bytes, &normalized, &failure);

    answer(count, normalized ? normalized : text, (size_t)count, &failure);
    free(normalized);
    free(text);
}

int main(int argc, char **argv)
{
    struct tnd_model *model = NULL;
    struct tokenizer *tokenizer = NULL;
    struct failure failure = {{0}};
    uint64_t started;
    int r, request;

    if (argc < 2 || argc > 3)
        return EXIT_FAILURE;
    r = tnd_model_open(argv[1], NULL, &model);
    if (r < 0) {
        fprintf(stderr, "%s\n", tnd_last_error());
        return EXIT_NO_MODEL;
    }
    started = now_us();
    r = tokenizer_open(model, argc > 2 ? argv[2] : ".", &tokenizer, &failure);
    tnd_model_close(&model);
    if (r < 0) {
        fprintf(stderr, "%d %s\n", r, failure.text);
        return EXIT_NO_TOKENIZER;
    }
    printf("{\"count\": %u, \"bos\": %d, \"open_us\": %llu, \"ends\": [", tokenizer_count(tokenizer),
           tokenizer_bos(tokenizer), (unsigned long long)(now_us() - started));
    for (int32_t i = 0, found = 0; i < (int32_t)tokenizer_count(tokenizer); i++) {
        if (tokenizer_ends(tokenizer, i))
            printf("%s%d", found++ ? ", " : "", i);
    }
    printf("]}\n");
    fflush(stdout);
    while ((request = getchar()) != EOF) {
        if (request == 'e' || request == 't')
            encode(tokenizer, request == 't');
        else if (request == 'd')
            decode(tokenizer);
        else if (request == 'c')
            chat(tokenizer);
        else if (request == 'n')
            normalize();
    }
    tokenizer_close(&tokenizer);
    return EXIT_SUCCESS;
}
