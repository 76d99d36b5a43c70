/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define ALL ((1U << COMMAND_COUNT) - 1)
#define PLAN (1U << COMMAND_PLAN)
#define LOAD (1U << COMMAND_LOAD)
#define WALK (1U << COMMAND_WALK)
#define DIGEST (1U << COMMAND_DIGEST)
#define VERIFY (1U << COMMAND_VERIFY)
#define MOVES (PLAN | LOAD | WALK | DIGEST | VERIFY)
#define PARTS (MOVES & ~VERIFY) /* what may leave tensors out */
#define COLUMNS_MAX 100 /* of usage texts */

#define AT(member) offsetof(struct options, member)

const struct option_spec option_specs[] = {
    {"--json", NULL, "one JSON object on stdout", ALL, OPTION_FLAG, AT(json), 0, 0},
    {"--engine", "auto|uring|threads|mmap|nil", "how reads happen; nil reads nothing, to measure all but the disk",
     MOVES, OPTION_CHOICE, AT(engine), 0, 0},
    {"--direct", "auto|on|off", "past the page cache", MOVES, OPTION_CHOICE, AT(direct), 0, 0},
    {"--in-place", "auto|on|off", "reads land where the tensors will lie, or go through the pool", MOVES, OPTION_CHOICE,
     AT(in_place), 0, 0},
    {"--dtype", "native|f16|bf16|f32", "what tensors become on their way; native: what they are", PARTS, OPTION_CHOICE,
     AT(dtype), 0, 0},
    {"--device", "auto|host|cuda:N", "where the tensors go; auto: for load and walk the first GPU, if any",
     MOVES, OPTION_DEVICE, AT(device), 0, 1023},
    {"--only", "GLOB", "only tensors whose name matches, as in 'blk.*.weight'", PARTS, OPTION_TEXT, AT(only), 0, 0},
    {"--layers", "A-B", "only these layers, both ends included; A alone for one", PARTS, OPTION_LAYERS, AT(layer_first),
     0, INT32_MAX - 1},
    {"--order", "use|file", "what is used first arrives first, or as the bytes lie", MOVES & ~WALK, OPTION_CHOICE,
     AT(order), 0, 0},
    {"--pool", "BYTES", "most memory for the buffers that reads land in", MOVES, OPTION_BYTES, AT(pool_bytes), 1,
     INT64_MAX},
    {"--chunk", "BYTES", "longest read, a power of two from 64K to 64M", MOVES, OPTION_BYTES, AT(chunk_bytes), 64 << 10,
     64 << 20},
    {"--depth", "N", "reads in flight", MOVES, OPTION_COUNT, AT(depth), 1, 256},
    {"--threads", "N", "threads that copy and touch memory", MOVES, OPTION_COUNT, AT(threads), 1, 1024},
    {"--streams", "N", "CUDA streams that convert", MOVES & ~PLAN, OPTION_COUNT, AT(streams), 1, 8},
    {"--memory", "BYTES", "refuse to take more than this", MOVES, OPTION_BYTES, AT(memory_bytes), 1, INT64_MAX},
    {"--read-timeout", "SECONDS", "give a load up when no read of it comes back for so long; 30 without this", MOVES,
     OPTION_COUNT, AT(read_timeout_s), 1, 86400 * 365},
    {"--disk-gbs", "X", "predict the time for a disk of X GB/s", PLAN, OPTION_RATE, AT(disk_bytes_per_s), 0, 0},
    {"--h2d-gbs", "X", "the same with --device cuda:N, for a GPU that takes X GB/s", PLAN, OPTION_RATE,
     AT(h2d_bytes_per_s), 0, 0},
    {"--repeat", "N", "load N times with the same loader", LOAD, OPTION_COUNT, AT(repeat), 1, 1000000},
    {"--tokens", "N", "take all layers in turn for so many tokens; 8 without this", WALK, OPTION_COUNT, AT(tokens), 1,
     100000},
    {"--resident", "BYTES|P%", "memory that layers come and go in, or its share of what all of them take", WALK,
     OPTION_SHARE, AT(resident_bytes), 1, INT64_MAX},
    {"--compute-us", "auto|N", "compute so long with a layer; auto: 1.05 times what it takes to read one", WALK,
     OPTION_COUNT_AUTO, AT(compute_us), 0, 60000000},
    {"--ahead", "auto|N", "layers to fetch ahead: 2 without this, auto: more to keep a disk busy, 0: none", WALK,
     OPTION_COUNT_AUTO, AT(ahead), 0, 65535},
    {"--lazy", NULL, "read a layer when it is asked for or comes next; else all in the background", WALK, OPTION_FLAG,
     AT(lazy), 0, 0},
    {"--digest", "off|xxh3", "take digests in passing", LOAD, OPTION_CHOICE, AT(digest), 0, 0},
    {"--trace", "FILE", "write what was done when to FILE, for chrome://tracing and Perfetto", LOAD, OPTION_FILE,
     AT(trace), 0, 0},
    {"--svg", "FILE", "write a picture of what was done when to FILE", LOAD | WALK, OPTION_FILE, AT(svg), 0, 0},
    {"--algo", "sha256|xxh3", "xxh3 is faster; it finds accidents, not what somebody changed", DIGEST, OPTION_CHOICE,
     AT(algo), 0, 0},
    {"--values", "N", "the first N values of each tensor too", DIGEST, OPTION_COUNT, AT(values), 0, 1000000},
    {"--manifest-out", "FILE", "write the digests to FILE too, for verify", DIGEST, OPTION_FILE, AT(manifest_out), 0,
     0},
    {"--manifest", "FILE", "load, and compare with the digests in FILE, which digest --manifest-out wrote", VERIFY,
     OPTION_FILE, AT(manifest), 0, 0},
    {"-v", NULL, "say more", ALL, OPTION_FLAG, AT(verbose), 0, 0},
    {"--help", NULL, "this text", ALL, OPTION_FLAG, AT(help), 0, 0},
    {NULL, NULL, NULL, 0, OPTION_FLAG, 0, 0, 0},
};

const struct command_spec command_specs[COMMAND_COUNT] = {
    [COMMAND_INFO] = {"info", "what a model's files hold; reads no tensor data"},
    [COMMAND_PLAN] = {"plan", "what a load would read and take, before it takes anything"},
    [COMMAND_LOAD] = {"load", "load a model into memory and say how fast it came and why"},
    [COMMAND_WALK] = {"walk", "take a model's layers in turn, as inference does, and say what that had to wait for"},
    [COMMAND_DIGEST] = {"digest", "load, and take the SHA-256 or XXH3 of each tensor's bytes"},
    [COMMAND_VERIFY] = {"verify", "check a model's structure, and its bytes against digests that are known"},
    [COMMAND_DOCTOR] = {"doctor", "what this machine allows and refuses, and what to do about it"},
};

const struct exit_spec exit_specs[] = {
    {EXIT_DONE, "done"},
    {EXIT_FAILED, "failed"},
    {EXIT_USAGE, "usage"},
    {EXIT_MALFORMED, "malformed file"},
    {EXIT_MISMATCH, "digests differ"},
    {EXIT_UNSUPPORTED, "unsupported"},
    {EXIT_RESOURCE, "memory, device or engine not to be had"},
    {EXIT_NOT_FOUND, "not found, no permission or no regular file"},
    {EXIT_INTERRUPTED, "interrupted"},
    {0, NULL},
};

enum command options_command(const char *name)
{
    unsigned command = 0;

    while (command < COMMAND_COUNT && strcmp(command_specs[command].name, name) != 0)
        command++;
    return (enum command)command;
}

static void usage_options(uint32_t mask)
{
    for (const struct option_spec *spec = option_specs; spec->name; spec++)
        if ((spec->commands & mask) == mask)
            printf("  %-14s %-23s %s\n", spec->name, spec->argument ? spec->argument : "", spec->help);
}

static void usage_exits(void)
{
    int column = printf("exit:");

    for (const struct exit_spec *spec = exit_specs; spec->meaning; spec++) {
        bool last = !spec[1].meaning;
        char text[80];
        int length = snprintf(text, sizeof(text), " %d %s%s", spec->code, spec->meaning, last ? "" : ",");

        if (column + length > COLUMNS_MAX)
            column = printf("\n     ") - 1;
        column += printf("%s", text);
    }
    putchar('\n');
}

void options_usage(enum command command)
{
    if (command < COMMAND_COUNT) {
        printf("usage: tundish %s [options] %s\n%s\n\n", command_specs[command].name,
               command == COMMAND_DOCTOR ? "[MODEL]" : "MODEL", command_specs[command].help);
        usage_options(1U << command);
    } else {
        printf("usage: tundish COMMAND [options] MODEL\nMoves model weights from storage to where they are computed "
               "with.\n\n");
        for (unsigned i = 0; i < COMMAND_COUNT; i++)
            printf("  %-10s %s\n", command_specs[i].name, command_specs[i].help);
        printf("  %-10s %s\n", "generate", "text of a model, computed while it arrives, by tundish-generate");
        printf("\n  tundish COMMAND --help lists a command's options, tundish --version the version.\n");
    }
    printf("\nMODEL is a .gguf or a .safetensors file. BYTES may end in K, M, G or T (1024, 1024², …).\n");
    usage_exits();
}

/* Digits and nothing else: strtoull would take a sign and blanks. Returns the end, NULL when there is no number. */
static const char *parse_digits(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (!isdigit((unsigned char)*text))
        return NULL;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return NULL;
    *ret_value = value;
    return text;
}

static bool parse_number(const struct option_spec *spec, const char *text, uint64_t *ret_value)
{
    static const char suffixes[] = "KMGT";
    const char *end = parse_digits(text, ret_value);
    const char *suffix;

    if (!end)
        return false;
    if (*end != '\0' && (spec->kind == OPTION_BYTES || spec->kind == OPTION_SHARE)) {
        suffix = strchr(suffixes, toupper((unsigned char)*end));
        if (!suffix || __builtin_mul_overflow(*ret_value, (uint64_t)1 << 10 * (suffix - suffixes + 1), ret_value))
            return false;
        end++;
    }
    return *end == '\0' && *ret_value >= spec->min && *ret_value <= spec->max;
}

/* A number of bytes, or a share of what there is. */
static bool parse_share(const struct option_spec *spec, const char *text, struct options *options)
{
    uint64_t percent;
    const char *end = parse_digits(text, &percent);

    options->resident_bytes = options->resident_percent = 0; /* the last one counts */
    if (!end || strcmp(end, "%") != 0)
        return parse_number(spec, text, &options->resident_bytes);
    options->resident_percent = percent;
    return percent >= 1 && percent <= 100;
}

static bool parse_layers(const struct option_spec *spec, const char *text, struct options *options)
{
    uint64_t first, last;
    const char *end = parse_digits(text, &first);

    last = first;
    if (end && *end == '-')
        end = parse_digits(end + 1, &last);
    if (!end || *end != '\0' || last < first || last > spec->max)
        return false;
    options->layer_first = (uint32_t)first;
    options->layer_count = (uint32_t)(last - first + 1);
    return true;
}

static bool parse_device(const struct option_spec *spec, const char *text, struct options *options)
{
    uint64_t ordinal;
    const char *end;

    options->device = strcmp(text, "auto") == 0 ? TND_DEVICE_AUTO : TND_DEVICE_HOST;
    options->cuda_ordinal = 0;
    if (strcmp(text, "auto") == 0 || strcmp(text, "host") == 0)
        return true;
    if (strncmp(text, "cuda:", 5) != 0)
        return false;
    end = parse_digits(text + 5, &ordinal);
    if (!end || *end != '\0' || ordinal > spec->max)
        return false;
    options->device = TND_DEVICE_CUDA;
    options->cuda_ordinal = (uint32_t)ordinal;
    return true;
}

static bool parse_choice(const char *words, const char *text, int *ret_index)
{
    size_t bytes = strlen(text);

    for (int index = 0;; index++) {
        size_t word = strcspn(words, "|");

        if (word == bytes && memcmp(words, text, word) == 0) {
            *ret_index = index;
            return true;
        }
        if (words[word] == '\0')
            return false;
        words += word + 1;
    }
}

static bool parse_rate(const char *text, double *ret_bytes_per_s)
{
    char *end;
    double value;

    if (text[strspn(text, "0123456789.")] != '\0') /* strtod knows inf, nan and hexadecimal */
        return false;
    value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 1e-6) || value > 1e6)
        return false;
    *ret_bytes_per_s = value * 1e9;
    return true;
}

static bool parse_value(const struct option_spec *spec, const char *text, struct options *options)
{
    void *member = (char *)options + spec->member;

    switch (spec->kind) {
    case OPTION_FLAG:
        *(bool *)member = true;
        return true;
    case OPTION_CHOICE:
        return parse_choice(spec->argument, text, member);
    case OPTION_BYTES:
    case OPTION_COUNT:
        return parse_number(spec, text, member);
    case OPTION_COUNT_AUTO:
        if (strcmp(text, "auto") != 0)
            return parse_number(spec, text, member);
        *(uint64_t *)member = OPTION_AUTO;
        return true;
    case OPTION_SHARE:
        return parse_share(spec, text, options);
    case OPTION_TEXT:
    case OPTION_FILE:
        *(const char **)member = text;
        return true;
    case OPTION_LAYERS:
        return parse_layers(spec, text, options);
    case OPTION_DEVICE:
        return parse_device(spec, text, options);
    case OPTION_RATE:
        return parse_rate(text, member);
    }
    return false;
}

static const struct option_spec *spec_find(const char *argument, size_t bytes)
{
    if (bytes == 2 && memcmp(argument, "-h", 2) == 0)
        return spec_find("--help", 6);
    for (const struct option_spec *spec = option_specs; spec->name; spec++)
        if (strlen(spec->name) == bytes && memcmp(spec->name, argument, bytes) == 0)
            return spec;
    return NULL;
}

/* What no single option can see. */
static int check(const struct options *options, enum command command)
{
    if (!options->model && command != COMMAND_DOCTOR)
        return fail(EXIT_USAGE, "%s: which model? 'tundish %s --help' lists what it takes", command_specs[command].name,
                    command_specs[command].name);
    if ((options->chunk_bytes & (options->chunk_bytes - 1)) != 0)
        return fail(EXIT_USAGE, "--chunk takes a power of two, not %llu", (unsigned long long)options->chunk_bytes);
    if ((command == COMMAND_DIGEST || command == COMMAND_VERIFY) && options->engine == TND_ENGINE_NIL)
        return fail(EXIT_USAGE, "%s: --engine nil reads nothing, so there is nothing to take a digest of",
                    command_specs[command].name);
    if (options->h2d_bytes_per_s > 0 && (options->device != TND_DEVICE_CUDA || options->disk_bytes_per_s <= 0))
        return fail(EXIT_USAGE, "--h2d-gbs needs --disk-gbs and --device cuda:N beside it");
    if (options->digest && (options->engine == TND_ENGINE_NIL || options->engine == TND_ENGINE_MMAP))
        return fail(EXIT_USAGE, "--digest: no digests are made in passing with --engine nil or mmap");
    if (options->manifest_out && (options->only || options->layer_count > 0 || options->dtype != 0))
        return fail(EXIT_USAGE, "--manifest-out is of a whole model as it is: leave --only, --layers and --dtype away");
    if (options->trace && options->svg && strcmp(options->trace, options->svg) == 0)
        return fail(EXIT_USAGE, "--trace and --svg take a file each, not both %s", options->svg);
    return 0;
}

static int parse_option(struct options *options, enum command command, char **arguments, int left)
{
    const char *name = arguments[0];
    const char *equals = strncmp(name, "--", 2) == 0 ? strchr(name, '=') : NULL;
    size_t bytes = equals ? (size_t)(equals - name) : strlen(name);
    const struct option_spec *spec = spec_find(name, bytes);
    const char *value = equals ? equals + 1 : NULL;

    if (!spec)
        return -fail(EXIT_USAGE, "unknown option %.*s", (int)bytes, name);
    if (!(spec->commands & 1U << command))
        return -fail(EXIT_USAGE, "%s has no option %s", command_specs[command].name, spec->name);
    if (!spec->argument && equals)
        return -fail(EXIT_USAGE, "%s takes no value", spec->name);
    if (spec->argument && !value) {
        if (left < 2)
            return -fail(EXIT_USAGE, "%s needs a value: %s", spec->name, spec->argument);
        value = arguments[1];
    }
    if (!parse_value(spec, value, options))
        return -fail(EXIT_USAGE, "%s takes %s, not '%s' (%s)", spec->name, spec->argument, value, spec->help);
    return spec->argument && !equals ? 2 : 1;
}

int options_parse(struct options *options, enum command command, int argument_count, char **arguments)
{
    bool only_models = false; /* after -- */

    *options = (struct options){.device = TND_DEVICE_AUTO, .repeat = 1, .tokens = 8, .compute_us = OPTION_AUTO,
                                .ahead = OPTION_AUTO};
    for (int i = 0; i < argument_count;) {
        if (only_models || arguments[i][0] != '-' || arguments[i][1] == '\0') {
            if (options->model)
                return fail(EXIT_USAGE, "one model at a time: %s and %s", options->model, arguments[i]);
            options->model = arguments[i++];
        } else if (strcmp(arguments[i], "--") == 0) {
            only_models = true;
            i++;
        } else {
            int taken = parse_option(options, command, arguments + i, argument_count - i);

            if (taken < 0)
                return -taken;
            i += taken;
        }
    }
    if (options->device == TND_DEVICE_AUTO && (1U << command) & (PLAN | DIGEST | VERIFY))
        options->device = TND_DEVICE_HOST; /* the bytes are the same, and wanted here */
    return options->help ? 0 : check(options, command);
}
