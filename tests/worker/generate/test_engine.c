/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: an engine answers from the moment it is created, can be stopped by any thread at any time, and says what went
 * wrong.
 * Method: stories260K, whose greedy text is known, with threads that ask, stop and destroy at once; files that are
 * missing or cut. test_engine MODEL, or TUNDISH_MODELS says where models lie; without the file it is
 * skipped. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "generate/engine.h"
#include "support/suite.h"

#define SECONDS 60000000000
#define BEGINNING "Once upon a time, there was a little girl named Lily."
#define TOKENS 40
#define ROUNDS 30

static const char *path;

struct told {
    char text[8192];
    size_t bytes, calls, calls_max; /* the last one: 0 = any number */
};

static bool tell(void *cookie, const char *text, size_t bytes)
{
    struct told *told = cookie;

    ck_assert_uint_gt(bytes, 0);
    ck_assert_uint_lt(told->bytes + bytes, sizeof(told->text));
    memcpy(told->text + told->bytes, text, bytes);
    told->bytes += bytes;
    told->text[told->bytes] = '\0';
    return ++told->calls != told->calls_max;
}

static struct engine *create(const struct engine_options *options)
{
    struct engine *engine;

    ck_assert_int_eq(engine_create(options, &engine), 0);
    return engine;
}

static struct engine *create_plain(void)
{
    return create(&(struct engine_options){.path = path, .lazy = TND_LAZY_BACKGROUND, .thread_count = 2});
}

static void generate(struct engine *engine, const struct generation_request *request, struct told *told,
                     struct generation_result *result)
{
    struct failure failure = {{0}};
    int r = engine_generate(engine, request, tell, told, result, &failure);

    ck_assert_msg(r == 0, "%d: %s", r, failure.text);
}

/* The known text, from nothing. */
static void check_story(struct engine *engine)
{
    const struct generation_request request = {.prompt = "", .tokens_max = TOKENS};
    struct generation_result result;
    struct told told = {0};

    generate(engine, &request, &told, &result);
    ck_assert_msg(strncmp(told.text, BEGINNING, strlen(BEGINNING)) == 0, "%s", told.text);
    ck_assert_uint_eq(result.tokens, TOKENS);
    ck_assert_uint_eq(result.prompt_tokens, 1);
    ck_assert_int_eq(result.finish, GENERATION_LENGTH);
    ck_assert(result.first_token_ns > 0 && result.first_token_ns <= result.ns && result.tokens_per_s > 0);
}

/* ---- It goes well ------------------------------------------------------------------------------------------ */

START_TEST(story)
{
    struct engine *engine = create_plain();
    struct engine_status status;
    struct failure failure = {{0}};
    struct pollfd readable = {.fd = engine_event_fd(engine), .events = POLLIN};

    check_story(engine);
    ck_assert_int_eq(engine_wait(engine, ENGINE_LOADED, SECONDS, &failure), 0);
    engine_status(engine, &status);
    ck_assert_int_eq(status.phase, ENGINE_LOADED);
    ck_assert(status.first_layer && status.load_ns > 0 && status.progress.ended);
    ck_assert_uint_eq(status.progress.bytes_ready, status.progress.bytes);
    ck_assert_int_eq(poll(&readable, 1, 1000), 1);
    check_story(engine);
    engine_destroy(&engine);
    ck_assert_ptr_null(engine);
    engine_destroy(&engine);
}
END_TEST

/* What the last sequence shares with a prompt is kept, and changes nothing. */
START_TEST(shared_beginnings)
{
    const char *prompts[] = {"Once upon a time", "Once upon a time there", "Once", "Tom had", "Once upon a time"};
    struct engine *engine = create_plain();

    for (size_t i = 0; i < sizeof(prompts) / sizeof(prompts[0]); i++) {
        const struct generation_request request = {.prompt = prompts[i], .prompt_bytes = strlen(prompts[i]),
                                                   .tokens_max = 20};
        struct engine *fresh = create_plain();
        struct told one = {0}, other = {0};
        struct generation_result result, expected;

        generate(engine, &request, &one, &result);
        generate(fresh, &request, &other, &expected);
        ck_assert_str_eq(one.text, other.text);
        ck_assert_uint_eq(result.prompt_tokens, expected.prompt_tokens);
        engine_destroy(&fresh);
    }
    engine_destroy(&engine);
}
END_TEST

START_TEST(stops)
{
    struct generation_request request = {.prompt = "", .tokens_max = 200,
                                         .stops = (const char *const[]){"zebra", " little girl"}, .stop_count = 2};
    struct engine *engine = create_plain();
    struct generation_result result;
    struct told told = {0};

    generate(engine, &request, &told, &result);
    ck_assert_str_eq(told.text, "Once upon a time, there was a");
    ck_assert_int_eq(result.finish, GENERATION_STOP);
    request.stops = (const char *const[]){""};
    request.stop_count = 1;
    ck_assert_int_eq(engine_generate(engine, &request, tell, &told, &result, NULL), -EINVAL);
    engine_destroy(&engine);
}
END_TEST

START_TEST(seeds)
{
    struct generation_request request = {.prompt = "", .tokens_max = TOKENS, .temperature = 1.5F, .seed = 4};
    struct engine *engine = create_plain();
    struct told one = {0}, same = {0}, other = {0};
    struct generation_result result;

    generate(engine, &request, &one, &result);
    generate(engine, &request, &same, &result);
    request.seed = 5;
    generate(engine, &request, &other, &result);
    ck_assert_str_eq(one.text, same.text);
    ck_assert_str_ne(one.text, other.text);
    engine_destroy(&engine);
}
END_TEST

/* Until the context is full, and not beyond. */
START_TEST(limits)
{
    struct engine *engine = create(&(struct engine_options){.path = path, .context_tokens = 16});
    struct generation_request request = {.prompt = ""};
    struct failure failure = {{0}};
    struct generation_result result;
    struct told told = {0};

    generate(engine, &request, &told, &result);
    ck_assert_int_eq(result.finish, GENERATION_LENGTH);
    ck_assert_uint_eq(result.tokens, 16);
    request.prompt = "a very long prompt that is far beyond sixteen tokens, whatever they are";
    request.prompt_bytes = strlen(request.prompt);
    ck_assert_int_eq(engine_generate(engine, &request, tell, &told, &result, &failure), -EFBIG);
    ck_assert_ptr_nonnull(strstr(failure.text, "16"));
    request.temperature = -1;
    ck_assert_int_eq(engine_generate(engine, &request, tell, &told, &result, &failure), -EINVAL);
    engine_destroy(&engine);
    engine = create(&(struct engine_options){.path = path, .context_tokens = 1000000});
    ck_assert_int_eq(engine_wait(engine, ENGINE_LOADED, SECONDS, &failure), -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.text, "1000000"));
    engine_destroy(&engine);
}
END_TEST

/* ---- It is stopped ----------------------------------------------------------------------------------------- */

START_TEST(told_enough)
{
    struct engine *engine = create_plain();
    const struct generation_request request = {.prompt = "", .tokens_max = TOKENS};
    struct told told = {.calls_max = 3};
    struct generation_result result;

    generate(engine, &request, &told, &result);
    ck_assert_int_eq(result.finish, GENERATION_CANCELED);
    ck_assert_uint_eq(told.calls, 3);
    check_story(engine);
    engine_destroy(&engine);
}
END_TEST

struct asker {
    struct engine *engine;
    pthread_t thread;
    int result;
    enum generation_finish finish;
};

static bool tell_stop(void *cookie, const char *text, size_t bytes)
{
    struct asker *asker = cookie;

    (void)text;
    ck_assert_uint_gt(bytes, 0);
    engine_stop(asker->engine);
    asker->result++; /* how often it was told */
    return true;
}

/* What is stopped does not go on with the next token. */
START_TEST(stopped_at_once)
{
    const struct generation_request request = {.prompt = "", .tokens_max = TOKENS};
    struct asker asker = {.engine = create_plain()};
    struct generation_result result;

    ck_assert_int_eq(engine_generate(asker.engine, &request, tell_stop, &asker, &result, NULL), 0);
    ck_assert_int_eq(result.finish, GENERATION_CANCELED);
    ck_assert_int_eq(asker.result, 1);
    check_story(asker.engine);
    engine_destroy(&asker.engine);
}
END_TEST

static void *ask(void *cookie)
{
    const struct generation_request request = {.prompt = "", .temperature = 1};
    struct asker *asker = cookie;
    struct generation_result result = {0};
    struct told told = {0};

    asker->result = engine_generate(asker->engine, &request, tell, &told, &result, NULL);
    asker->finish = result.finish;
    return NULL;
}

static void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* At any moment: before it is open, while it is loading, in the middle of a text. */
START_TEST(stopped_any_time)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct asker asker = {.engine = create_plain()};

        pthread_create(&asker.thread, NULL, ask, &asker);
        pause_us(i * 1000);
        engine_stop(asker.engine);
        while (pthread_tryjoin_np(asker.thread, NULL) == EBUSY) {
            pause_us(500);
            engine_stop(asker.engine); /* it may not have begun */
        }
        ck_assert_int_eq(asker.result, 0);
        if (i % 8 == 0)
            check_story(asker.engine);
        engine_destroy(&asker.engine);
    }
}
END_TEST

/* Whoever asks meanwhile is sent away; some thread always gets its answer. */
START_TEST(one_at_a_time)
{
    struct asker askers[4];
    struct engine *engine = create_plain();
    int answered = 0;

    for (int i = 0; i < 4; i++) {
        askers[i] = (struct asker){.engine = engine};
        pthread_create(&askers[i].thread, NULL, ask, &askers[i]);
    }
    for (int i = 0; i < 4; i++) {
        struct engine_status status;

        engine_status(engine, &status);
        pthread_join(askers[i].thread, NULL);
        ck_assert(askers[i].result == 0 || askers[i].result == -EAGAIN);
        answered += askers[i].result == 0;
    }
    ck_assert_int_ge(answered, 1);
    check_story(engine);
    engine_destroy(&engine);
}
END_TEST

START_TEST(destroyed_any_time)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct engine *engine = create_plain();

        pause_us(i * 300);
        engine_destroy(&engine);
    }
}
END_TEST

/* ---- It goes wrong ----------------------------------------------------------------------------------------- */

START_TEST(missing)
{
    struct engine *engine = create(&(struct engine_options){.path = "/nonexistent/model.gguf"});
    const struct generation_request request = {.prompt = ""};
    struct failure failure = {{0}}, again = {{0}};
    struct generation_result result;
    struct engine_status status;

    ck_assert_int_eq(engine_wait(engine, ENGINE_LOADED, SECONDS, &failure), -ENOENT);
    ck_assert_ptr_nonnull(strstr(failure.text, "/nonexistent/model.gguf"));
    ck_assert_int_eq(engine_generate(engine, &request, tell, NULL, &result, &again), -ENOENT);
    ck_assert_str_eq(failure.text, again.text);
    engine_status(engine, &status);
    ck_assert_int_eq(status.phase, ENGINE_FAILED);
    ck_assert_int_eq(status.result, -ENOENT);
    ck_assert_str_eq(status.failure.text, failure.text);
    engine_destroy(&engine);
}
END_TEST

static void copy_model(char *copy)
{
    char command[4096];
    FILE *in = fopen(path, "rb"), *out;
    size_t bytes;
    int fd = mkstemp(copy);

    out = fdopen(fd, "wb");
    while ((bytes = fread(command, 1, sizeof(command), in)) > 0)
        fwrite(command, 1, bytes, out);
    fclose(in);
    fclose(out);
}

/* A window reads layers again: when their file was cut, each prompt that needs them fails with a sentence. */
START_TEST(cut)
{
    char copy[] = "/tmp/tundish-engine-XXXXXX";
    const struct generation_request request = {.prompt = "", .tokens_max = TOKENS};
    const struct engine_options options = {.path = copy, .resident_percent = 50, .io = TND_ENGINE_THREADS};
    struct generation_result result;
    struct engine_status status;
    struct engine *engine;

    copy_model(copy);
    engine = create(&options);
    check_story(engine);
    ck_assert_int_eq(truncate(copy, 600000), 0);
    for (int i = 0; i < 2; i++) {
        struct failure failure = {{0}};
        struct told told = {0};
        int r = engine_generate(engine, &request, tell, &told, &result, &failure);

        ck_assert_msg(r == -EBADMSG || r == -EIO, "%d: %s", r, failure.text);
        ck_assert_ptr_nonnull(strstr(failure.text, copy));
        engine_status(engine, &status); /* although the library's load goes on */
        ck_assert_int_eq(status.phase, ENGINE_FAILED);
        ck_assert_int_eq(status.result, r);
    }
    engine_destroy(&engine);
    unlink(copy);
}
END_TEST

/* Cut before its weights are read, and nobody asks: the engine says so by itself. */
START_TEST(cut_while_idle)
{
    char copy[] = "/tmp/tundish-engine-XXXXXX";
    struct engine_options options = {.path = copy, .io = TND_ENGINE_THREADS};
    struct failure failure = {{0}};
    struct engine_status status;
    struct engine *engine;
    int r;

    copy_model(copy);
    engine = create(&options);
    ck_assert_int_eq(truncate(copy, 30000), 0); /* may come before the headers are read, between, or too late */
    r = engine_wait(engine, ENGINE_LOADED, SECONDS, &failure);
    ck_assert_msg(r == 0 || r == -EBADMSG || r == -EIO, "%d: %s", r, failure.text);
    engine_status(engine, &status);
    ck_assert_int_eq(status.phase, r == 0 ? ENGINE_LOADED : ENGINE_FAILED);
    ck_assert_int_eq(status.result, r);
    engine_destroy(&engine);
    unlink(copy);
}
END_TEST

int main(int argument_count, char **arguments)
{
    static char elsewhere[4096];
    const char *models = getenv("TUNDISH_MODELS");
    Suite *suite = suite_create("engine");
    TCase *tests = tcase_create("all");

    path = argument_count > 1 ? arguments[1] : "";
    snprintf(elsewhere, sizeof(elsewhere), "%s/stories260K/stories260K-f32.gguf", models ? models : "");
    if (access(elsewhere, R_OK) == 0)
        path = elsewhere;
    if (access(path, R_OK) < 0) {
        printf("skipped: no stories260K at '%s' (TUNDISH_MODELS says where models lie)\n", path);
        return 77;
    }
    tcase_add_test(tests, story);
    tcase_add_test(tests, shared_beginnings);
    tcase_add_test(tests, stops);
    tcase_add_test(tests, seeds);
    tcase_add_test(tests, limits);
    tcase_add_test(tests, told_enough);
    tcase_add_test(tests, stopped_at_once);
    tcase_add_test(tests, stopped_any_time);
    tcase_add_test(tests, one_at_a_time);
    tcase_add_test(tests, destroyed_any_time);
    tcase_add_test(tests, missing);
    tcase_add_test(tests, cut);
    tcase_add_test(tests, cut_while_idle);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
