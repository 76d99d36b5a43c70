/* SPDX-License-Identifier: Apache-2.0 */

/* A prompt and what follows it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "generate/sampler.h"
#include "generate/state.h"
#include "generate/stops.h"

/* The one that is under way. */
struct generation {
    struct engine *engine;
    const struct generation_request *request;
    generation_fn tell;
    void *cookie;
    struct failure *failure;

    int32_t *prompt;
    uint32_t prompt_count;
    struct sampler sampler;
    struct stops stops;
    struct tokenizer_stream stream;
    char *text; /* of one token */
    struct generation_result result;
};

/* ---- One at a time ----------------------------------------------------------------------------------------- */

static int begin(struct engine *engine, const struct generation_request *request, struct failure *failure)
{
    int r = 0;

    pthread_mutex_lock(&engine->mutex);
    if (engine->busy || engine->closing)
        r = fail(failure, -EAGAIN, "another generation is under way");
    else
        engine->busy = true;
    if (r >= 0 && request->canceled && atomic_load(request->canceled))
        engine->stopped = true;
    pthread_mutex_unlock(&engine->mutex);
    return r;
}

static void end(struct engine *engine)
{
    pthread_mutex_lock(&engine->mutex);
    engine->busy = engine->stopped = false;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->mutex);
}

/* Returns 1 when there is something to compute with, 0 stopped before, or the failure's result. */
static int wait_loading(struct engine *engine, struct failure *failure)
{
    int r = 1;

    pthread_mutex_lock(&engine->mutex);
    while (engine->phase < ENGINE_LOADING && !engine->stopped)
        pthread_cond_wait(&engine->changed, &engine->mutex);
    if (engine->phase == ENGINE_FAILED)
        r = fail(failure, engine->result, "%s", engine->failure.text);
    else if (engine->stopped)
        r = 0;
    else
        decoder_stop(engine->decoder, false);
    pthread_mutex_unlock(&engine->mutex);
    return r;
}

static bool is_stopped(struct engine *engine)
{
    bool stopped;

    pthread_mutex_lock(&engine->mutex);
    stopped = engine->stopped;
    pthread_mutex_unlock(&engine->mutex);
    return stopped;
}

/* ---- Before the first token -------------------------------------------------------------------------------- */

static int encode(struct generation *generation)
{
    const struct generation_request *request = generation->request;
    const struct engine *engine = generation->engine;
    int64_t count;

    if (request->prompt)
        count = tokenizer_encode(engine->tokenizer, request->prompt, request->prompt_bytes, TOKENIZER_BEGIN,
                                 &generation->prompt, generation->failure);
    else
        count = chat_encode(engine->tokenizer, request->messages, request->message_count, &generation->prompt,
                            generation->failure);
    if (count < 0)
        return (int)count;
    if (count == 0)
        return fail(generation->failure, -EINVAL, "the prompt has no token");
    if (count > engine->context)
        return fail(generation->failure, -EFBIG, "the prompt has %lld tokens, expected at most %u", (long long)count,
                    engine->context);
    generation->prompt_count = generation->result.prompt_tokens = (uint32_t)count;
    return 0;
}

static int prepare(struct generation *generation)
{
    const struct generation_request *request = generation->request;
    const struct engine *engine = generation->engine;
    const struct sampler_options options = {.temperature = request->temperature, .top_p = request->top_p,
                                            .top_k = request->top_k, .seed = request->seed};
    size_t room = tokenizer_stream_room(engine->tokenizer);
    int r = sampler_init(&generation->sampler, &options, decoder_config(engine->decoder)->vocabulary);

    if (r == -EINVAL)
        return fail(generation->failure, r, "temperature %g and top_p %g, expected from 0 on and from 0 to 1",
                    (double)request->temperature, (double)request->top_p);
    if (r >= 0)
        r = stops_init(&generation->stops, request->stops, request->stop_count, room);
    if (r == -EINVAL)
        return fail(generation->failure, r, "a stop is empty or begins inside a UTF-8 sequence");
    generation->text = malloc(room);
    if (r < 0 || !generation->text)
        return fail(generation->failure, -ENOMEM, "out of memory for a generation");
    tokenizer_stream_init(&generation->stream, engine->tokenizer, !request->prompt || request->prompt_bytes == 0);
    return encode(generation);
}

static void finish(struct generation *generation)
{
    sampler_finish(&generation->sampler);
    stops_finish(&generation->stops);
    free(generation->prompt);
    free(generation->text);
}

/* ---- Text -------------------------------------------------------------------------------------------------- */

/* Returns false when nobody wants more. */
static bool tell_held(struct generation *generation, size_t bytes)
{
    bool goes_on = bytes == 0 || generation->tell(generation->cookie, generation->stops.held, bytes);

    stops_drop(&generation->stops, bytes);
    return goes_on;
}

/* Returns false when the generation is over: finish says why. */
static bool say(struct generation *generation, size_t bytes)
{
    bool found;
    size_t telling = stops_add(&generation->stops, generation->text, bytes, &found);

    if (!tell_held(generation, telling)) {
        generation->result.finish = GENERATION_CANCELED;
        return false;
    }
    if (found)
        generation->result.finish = GENERATION_STOP;
    return !found;
}

/* What was held back comes out, as there is no more to come. */
static void say_rest(struct generation *generation)
{
    size_t bytes = tokenizer_stream_end(&generation->stream, generation->text);

    if (say(generation, bytes) && !tell_held(generation, generation->stops.held_bytes))
        generation->result.finish = GENERATION_CANCELED;
}

/* ---- Tokens ------------------------------------------------------------------------------------------------ */

static int run(struct generation *generation, const int32_t *tokens, uint32_t count)
{
    struct engine *engine = generation->engine;
    uint32_t at = decoder_length(engine->decoder);
    struct failure failure = {""};
    int r = decoder_run(engine->decoder, tokens, count, engine->logits, &failure);

    if (r >= 0)
        memcpy(engine->sequence + at, tokens, count * sizeof(*tokens));
    else
        fail(generation->failure, r, "%s", failure.text);
    if (r == -EIO || r == -EBADMSG) /* a layer of a window, whose load goes on: but the file is not what it was */
        engine_set_failed(engine, r, &failure);
    return r;
}

/* But for its last token, whose logits are wanted, a prompt is run from where it differs from the last sequence. */
static int run_prompt(struct generation *generation)
{
    const struct engine *engine = generation->engine;
    uint32_t length = decoder_length(engine->decoder), same = 0;

    while (same < length && same + 1 < generation->prompt_count && generation->prompt[same] == engine->sequence[same])
        same++;
    decoder_truncate(engine->decoder, same);
    return run(generation, generation->prompt + same, generation->prompt_count - same);
}

/* Returns 1 when the generation goes on with *ret_token, 0 when it is over, or -EBADMSG. */
static int next_token(struct generation *generation, uint64_t start_ns, int32_t *ret_token)
{
    struct generation_result *result = &generation->result;
    const struct engine *engine = generation->engine;
    int32_t token = sampler_next(&generation->sampler, engine->logits);

    if (token < 0)
        return fail(generation->failure, -EBADMSG, "the logits after %u tokens are no numbers",
                    decoder_length(engine->decoder));
    if (result->first_token_ns == 0)
        result->first_token_ns = engine_now_ns() - start_ns;
    if (tokenizer_ends(engine->tokenizer, token)) {
        result->finish = GENERATION_STOP;
        say_rest(generation);
        return 0;
    }
    result->tokens++;
    if (!say(generation, tokenizer_stream_next(&generation->stream, token, generation->text)))
        return 0;
    if (result->tokens == generation->request->tokens_max || decoder_length(engine->decoder) == engine->context) {
        result->finish = GENERATION_LENGTH;
        say_rest(generation);
        return 0;
    }
    *ret_token = token;
    return 1;
}

static int run_all(struct generation *generation, uint64_t start_ns)
{
    int r = run_prompt(generation);
    int32_t token;

    while (r >= 0) {
        r = next_token(generation, start_ns, &token);
        if (r <= 0)
            return r;
        r = run(generation, &token, 1);
    }
    if (r != -ECANCELED || !is_stopped(generation->engine))
        return r;
    generation->result.finish = GENERATION_CANCELED;
    return 0;
}

static void take_times(struct generation *generation, uint64_t start_ns)
{
    struct generation_result *result = &generation->result;
    struct engine *engine = generation->engine;

    result->ns = engine_now_ns() - start_ns;
    if (result->tokens > 1)
        result->tokens_per_s = (result->tokens - 1) * 1e9 / (double)(result->ns - result->first_token_ns);
    pthread_mutex_lock(&engine->mutex);
    result->load_ns = engine->load_ns;
    pthread_mutex_unlock(&engine->mutex);
}

int engine_generate(struct engine *engine, const struct generation_request *request, generation_fn tell, void *cookie,
                    struct generation_result *ret_result, struct failure *failure)
{
    struct generation generation = {.engine = engine, .request = request, .tell = tell, .cookie = cookie,
                                    .failure = failure, .result = {.finish = GENERATION_CANCELED}};
    uint64_t start_ns = engine_now_ns();
    int r = begin(engine, request, failure);

    if (r < 0)
        return r;
    r = wait_loading(engine, failure);
    if (r > 0) {
        r = prepare(&generation);
        if (r >= 0)
            r = run_all(&generation, start_ns);
        finish(&generation);
    }
    if (r >= 0) {
        take_times(&generation, start_ns);
        *ret_result = generation.result;
    }
    end(engine);
    return r < 0 ? r : 0;
}
