/* SPDX-License-Identifier: Apache-2.0 */
/* tundish-worker: one model behind HTTP. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "exit_code.h"
#include "server/server.h"
#include "tundish.h"

/* ---- Options ------------------------------------------------------------------------------------------------ */

#define GPU_AUTO INT64_MIN
#define GPU_HOST (-1)
#define ID_BYTES_MAX 128

struct arguments {
    struct server_options server;
    int64_t gpu_device; /* GPU_AUTO, GPU_HOST, or its number */
    bool help, version;
};

enum option_kind { OPTION_FLAG, OPTION_ID, OPTION_TEXT, OPTION_PORT, OPTION_GPU, OPTION_URL, OPTION_READY,
                   OPTION_BYTES };

struct option {
    const char *name;
    const char *argument; /* NULL for a flag */
    const char *help;
    enum option_kind kind;
    size_t member; /* of struct arguments */
};

#define AT(member) offsetof(struct arguments, member)

static const struct option options[] = {
    {"--worker-id", "ID", "who this is, in answers, events and the log: 1 to 128 visible ASCII characters", OPTION_ID,
     AT(server.worker_id)},
    {"--model", "PATH", "a .gguf or a .safetensors file", OPTION_TEXT, AT(server.model)},
    {"--port", "N", "where to listen; 0, as without this: any free one, told on stdout", OPTION_PORT, AT(server.port)},
    {"--host", "ADDRESS", "in numbers; 127.0.0.1 without this", OPTION_TEXT, AT(server.host)},
    {"--gpu-device", "auto|N", "-1: the host; auto, as without this: whatever there is; N: that GPU or none",
     OPTION_GPU, AT(gpu_device)},
    {"--callback-url", "URL", "http:// or https://, for POSTs of ready, failed and results of /execute", OPTION_URL,
     AT(server.callback_url)},
    {"--ready", "first-layer|all", "ready once the first layer is there, and prompts wait until then; or once all is, "
     "and prompts before that get a 503", OPTION_READY, AT(server.ready_all)},
    {"--resident", "BYTES", "memory that layers come and go in; the whole model without this", OPTION_BYTES,
     AT(server.resident_bytes)},
    {"--version", NULL, "the version", OPTION_FLAG, AT(version)},
    {"--help", NULL, "this text", OPTION_FLAG, AT(help)},
    {NULL, NULL, NULL, OPTION_FLAG, 0},
};

__attribute__((format(printf, 2, 3))) static int stop(enum exit_code code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("tundish-worker: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return (int)code;
}

static void usage(void)
{
    printf("usage: tundish-worker --worker-id ID --model PATH [options]\n"
           "Answers prompts over HTTP with a model that it loads.\n\n");
    for (const struct option *option = options; option->name; option++)
        printf("  %-14s %-15s %s\n", option->name, option->argument ? option->argument : "", option->help);
    printf("\nBYTES may end in K, M, G or T (1024, 1024², …).\n"
           "GET /livez /readyz /health /load /metrics /v1/models, POST /execute /v1/completions /v1/chat/completions.\n"
           "SIGTERM and SIGINT: answer what was asked for, then end; a second one: end.\n"
           "exit: %d done, %d failed, %d usage, %d malformed file, %d unsupported,\n"
           "      %d memory, device or port not to be had, %d not found or no permission\n",
           EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_MALFORMED, EXIT_UNSUPPORTED, EXIT_RESOURCE, EXIT_NOT_FOUND);
}

/* Digits, and a unit of bytes where one may stand: strtoull would take a sign and blanks. */
static bool parse_number(const char *text, bool bytes, uint64_t max, uint64_t *ret_value)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    uint64_t value = 0;

    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    if (bytes && *text != '\0') {
        suffix = strchr(suffixes, toupper((unsigned char)*text++));
        if (!suffix || __builtin_mul_overflow(value, (uint64_t)1 << 10 * (suffix - suffixes + 1), &value))
            return false;
    }
    *ret_value = value;
    return *text == '\0' && value <= max;
}

static bool is_id(const char *text)
{
    size_t bytes = 0;

    for (; text[bytes] != '\0'; bytes++)
        if (text[bytes] <= ' ' || text[bytes] >= 0x7f)
            return false;
    return bytes >= 1 && bytes <= ID_BYTES_MAX;
}

static bool parse_gpu(const char *text, int64_t *ret_device)
{
    uint64_t number;

    *ret_device = strcmp(text, "auto") == 0 ? GPU_AUTO : GPU_HOST;
    if (strcmp(text, "auto") == 0 || strcmp(text, "-1") == 0)
        return true;
    if (!parse_number(text, false, 1023, &number))
        return false;
    *ret_device = (int64_t)number;
    return true;
}

static bool is_url(const char *text)
{
    return (strncmp(text, "http://", 7) == 0 && text[7] != '\0') ||
           (strncmp(text, "https://", 8) == 0 && text[8] != '\0');
}

static bool parse_value(const struct option *option, const char *text, struct arguments *arguments)
{
    void *member = (char *)arguments + option->member;
    uint64_t number;

    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)member = true;
        return true;
    case OPTION_ID:
        *(const char **)member = text;
        return is_id(text);
    case OPTION_TEXT:
        *(const char **)member = text;
        return *text != '\0';
    case OPTION_URL:
        *(const char **)member = text;
        return is_url(text);
    case OPTION_PORT:
        if (!parse_number(text, false, UINT16_MAX, &number))
            return false;
        *(uint16_t *)member = (uint16_t)number;
        return true;
    case OPTION_GPU:
        return parse_gpu(text, member);
    case OPTION_READY:
        *(bool *)member = strcmp(text, "all") == 0;
        return *(bool *)member || strcmp(text, "first-layer") == 0;
    case OPTION_BYTES:
        return parse_number(text, true, INT64_MAX, member) && *(uint64_t *)member > 0;
    }
    return false;
}

/* Takes one option, and its value. Returns how many arguments that were; 0: a sentence was written. */
static int parse_option(char **words, int left, struct arguments *arguments)
{
    const struct option *option = options;
    const char *equals = strchr(words[0], '=');
    size_t bytes = equals ? (size_t)(equals - words[0]) : strlen(words[0]);
    const char *value = equals ? equals + 1 : left > 1 ? words[1] : NULL;

    while (option->name && (strlen(option->name) != bytes || memcmp(option->name, words[0], bytes) != 0))
        option++;
    if (!option->name)
        stop(EXIT_USAGE, "unknown option %.*s; 'tundish-worker --help' lists them", (int)bytes, words[0]);
    else if (!option->argument && equals)
        stop(EXIT_USAGE, "%s takes no value", option->name);
    else if (option->argument && !value)
        stop(EXIT_USAGE, "%s needs a value: %s", option->name, option->argument);
    else if (!parse_value(option, value, arguments))
        stop(EXIT_USAGE, "%s takes %s, not '%s' (%s)", option->name, option->argument, value, option->help);
    else
        return option->argument && !equals ? 2 : 1;
    return 0;
}

static int parse(int count, char **words, struct arguments *arguments)
{
    *arguments = (struct arguments){.server.host = "127.0.0.1", .gpu_device = GPU_AUTO};
    for (int i = 1; i < count;) {
        int taken = parse_option(words + i, count - i, arguments);

        if (taken == 0)
            return EXIT_USAGE;
        i += taken;
    }
    if (arguments->help || arguments->version)
        return EXIT_DONE;
    if (!arguments->server.worker_id || !arguments->server.model)
        return stop(EXIT_USAGE, "%s is missing; 'tundish-worker --help' lists what it takes",
                    arguments->server.worker_id ? "--model" : "--worker-id");
    if (arguments->gpu_device >= 0)
        return stop(EXIT_RESOURCE, "--gpu-device %lld: the forward pass is computed on the CPU only, on no GPU",
                    (long long)arguments->gpu_device);
    return EXIT_DONE;
}

/* ---- The program -------------------------------------------------------------------------------------------- */

/* A descriptor that was closed at the start must not become a connection's. */
static void fill_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* takes the lowest free one: fd */
}

/* Shards of a model and connections take one each: as many as may be had. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* server_run() takes them, in whatever thread they come. */
static void block_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static int serve(const struct server_options *server_options)
{
    struct failure failure = {""};
    struct server *server = NULL;
    bool six = strchr(server_options->host, ':') != NULL;
    int r = server_create(server_options, &server, &failure);

    if (r == 0) {
        printf("tundish-worker %s listens on http://%s%s%s:%u\n", server_options->worker_id, six ? "[" : "",
               server_options->host, six ? "]" : "", server_port(server));
        fflush(stdout);
        r = server_run(server, &failure);
    }
    if (r < 0)
        stop(exit_code_of(r), "%s", failure.text);
    server_destroy(&server);
    return (int)exit_code_of(r);
}

int main(int count, char **words)
{
    struct arguments arguments;
    int code;

    fill_descriptors();
    raise_descriptor_limit();
    block_signals();
    code = parse(count, words, &arguments);
    if (code != EXIT_DONE)
        return code;
    if (arguments.help)
        usage();
    else if (arguments.version)
        printf("tundish-worker %s\n", tnd_version());
    else
        return serve(&arguments.server);
    return EXIT_DONE;
}
