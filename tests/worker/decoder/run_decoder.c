/* SPDX-License-Identifier: Apache-2.0 */

/* Runs tokens through a model and writes logits as F32: run_decoder MODEL [piece=N] [embed=1] [engine=0-3]
 * [resident=BYTES] [lazy=0-2] [threads=N] TOKEN…
 *
 * Tokens go in pieces of so many, 1 without a word, and after each piece its logits are written. embed=1: the tokens'
 * rows of the embedding instead. Exits with the errno of what was refused, the sentence on stderr. */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder/decoder.h"
#include "kernels/matrix.h"

#define TOKENS_MAX 8192

struct run {
    const char *path;
    uint64_t piece, embed, engine, resident, lazy, threads;
    int32_t tokens[TOKENS_MAX];
    uint32_t token_count;

    char folder[PATH_MAX];
    struct tnd_model *model;
    struct tnd_loader *loader;
    struct tnd_load *load;
    struct team *team;
    struct decoder *decoder;
    float *logits;
};

static int give_up(int result, const char *sentence)
{
    fprintf(stderr, "%s\n", sentence[0] ? sentence : tnd_strerror(result));
    return -result;
}

static void parse(struct run *run, int argument_count, char **arguments)
{
    const struct {
        const char *name;
        uint64_t *number;
    } names[] = {{"piece=", &run->piece}, {"embed=", &run->embed}, {"engine=", &run->engine},
                 {"resident=", &run->resident}, {"lazy=", &run->lazy}, {"threads=", &run->threads}};

    for (int i = 0; i < argument_count; i++) {
        if (!strchr(arguments[i], '=') && run->token_count < TOKENS_MAX)
            run->tokens[run->token_count++] = atoi(arguments[i]);
        for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
            if (strncmp(arguments[i], names[n].name, strlen(names[n].name)) == 0)
                *names[n].number = strtoull(arguments[i] + strlen(names[n].name), NULL, 10);
    }
}

static int start(struct run *run)
{
    struct tnd_loader_options loader_options = {.size = sizeof(loader_options), .chunk_bytes = 65536,
                                                .engine = (enum tnd_engine)run->engine};
    struct tnd_load_options load_options = {.size = sizeof(load_options), .resident_bytes = run->resident,
                                            .lazy = (enum tnd_lazy)run->lazy};
    int r = tnd_loader_create(&loader_options, &run->loader);

    return r < 0 ? r : tnd_load_start(run->loader, run->model, &load_options, &run->load);
}

static void find_folder(struct run *run)
{
    char *end;

    snprintf(run->folder, sizeof(run->folder), "%s", tnd_model_file(run->model, 0)->path);
    end = strrchr(run->folder, '/');
    snprintf(end ? end : run->folder, 2, ".");
    if (end)
        *end = '\0';
}

static int embed(struct run *run, struct failure *failure)
{
    const char *names[] = {"token_embd.weight", "model.embed_tokens.weight"};
    uint32_t width = decoder_config(run->decoder)->width;
    int64_t index = -1;
    struct matrix matrix = {.columns = width};
    int r = tnd_load_wait(run->load, -1);

    for (int i = 0; i < 2 && index < 0; i++)
        index = tnd_model_tensor_find(run->model, names[i]);
    if (r >= 0)
        r = tnd_load_tensor_data(run->load, (uint32_t)index, &matrix.data);
    if (r < 0)
        return fail(failure, r, "%s", tnd_last_error());
    matrix.dtype = tnd_model_tensor(run->model, (uint32_t)index)->dtype;
    matrix.rows = decoder_config(run->decoder)->vocabulary;
    for (uint32_t i = 0; i < run->token_count; i++) {
        matrix_row(&matrix, (uint32_t)run->tokens[i], run->logits);
        fwrite(run->logits, sizeof(float), width, stdout);
    }
    return 0;
}

static int run_tokens(struct run *run, struct failure *failure)
{
    uint32_t vocabulary = decoder_config(run->decoder)->vocabulary;
    uint32_t piece = run->piece ? (uint32_t)run->piece : 1;
    int r = 0;

    for (uint32_t at = 0; at < run->token_count && r >= 0; at += piece) {
        uint32_t count = run->token_count - at < piece ? run->token_count - at : piece;

        r = decoder_run(run->decoder, run->tokens + at, count, run->logits, failure);
        if (r >= 0)
            fwrite(run->logits, sizeof(float), vocabulary, stdout);
    }
    return r;
}

static int run_all(struct run *run)
{
    struct failure failure = {{0}};
    const struct decoder_config *config;
    int r = tnd_model_open(run->path, NULL, &run->model);

    if (r < 0)
        return give_up(r, tnd_last_error());
    find_folder(run);
    r = decoder_open(run->model, run->folder, &run->decoder, &failure);
    if (r < 0)
        return give_up(r, failure.text);
    config = decoder_config(run->decoder);
    r = start(run);
    if (r < 0)
        return give_up(r, tnd_last_error());
    r = team_create((uint32_t)run->threads, &run->team);
    if (r >= 0)
        r = decoder_attach(run->decoder, run->load, run->team, config->context < 4096 ? config->context : 4096,
                           &failure);
    run->logits = calloc(config->vocabulary + (size_t)config->width, sizeof(float));
    if (r >= 0 && run->logits)
        r = run->embed ? embed(run, &failure) : run_tokens(run, &failure);
    return r < 0 ? give_up(r, failure.text) : 0;
}

int main(int argument_count, char **arguments)
{
    static struct run run;
    int code;

    run.path = argument_count > 1 ? arguments[1] : "";
    parse(&run, argument_count - 2, arguments + 2);
    code = run_all(&run);
    decoder_close(&run.decoder);
    team_destroy(&run.team);
    tnd_load_destroy(&run.load);
    tnd_loader_destroy(&run.loader);
    tnd_model_close(&run.model);
    free(run.logits);
    return code;
}
