/* SPDX-License-Identifier: Apache-2.0 */

/* tundish-generate: text of a model, on standard output as it comes. */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "exit_code.h"
#include "generate/engine.h"

#define TOKENS_DEFAULT 128
#define LOADED_NS 1000000000 /* what was computed with is there; the engine's thread says so soon */
#define STOP_PAUSE_MS 20

struct options {
    struct engine_options engine;
    struct generation_request request;
    struct chat_message message;
    bool chat, json, help;
};

struct text {
    char *data;
    size_t bytes;
    bool failed;
};

static const char usage[] =
    "usage: tundish-generate MODEL -p TEXT [options]\n"
    "Continues a text with a model, computed on the CPU while its weights arrive.\n\n"
    "  -p TEXT                      what to continue; may be empty\n"
    "  -n N                         at most so many tokens; 128 without this\n"
    "  --temp T                     0, as without this: the likeliest token each time\n"
    "  --seed S                     of the choice; the same one gives the same text\n"
    "  --top-k K                    choose among the K likeliest\n"
    "  --top-p P                    choose among the likeliest that have this share of the probability\n"
    "  --chat                       TEXT is what a user says, and an assistant answers\n"
    "  --resident BYTES|P%          memory that layers come and go in, or its share of what all of them take\n"
    "  --engine auto|uring|threads|mmap\n"
    "                               how reads happen\n"
    "  --lazy                       read a layer when it is computed with or comes next\n"
    "  --threads N                  threads to compute with; one a core without this\n"
    "  --context N                  room for so many tokens; the model's, at most 4096, without this\n"
    "  --json                       one JSON object on stdout, at the end\n"
    "  --help                       this text\n\n"
    "MODEL is a .gguf file, a .safetensors file or a folder. BYTES may end in K, M, G or T (1024, 1024^2, ...).\n"
    "exit: 0 done, 1 failed, 2 usage, 3 malformed file, 5 unsupported, 6 memory, device or engine not to be had,\n"
    "      7 not found, 130 interrupted\n";

/* ---- Failures ---------------------------------------------------------------------------------------------- */

/* What a file says may not drive a terminal. */
static int give_up(enum exit_code code, const char *sentence)
{
    fputs("tundish-generate: ", stderr);
    for (; *sentence != '\0'; sentence++)
        fputc((unsigned char)*sentence < ' ' || *sentence == 0x7F ? '?' : *sentence, stderr);
    fputc('\n', stderr);
    return (int)code;
}

/* ---- Options ----------------------------------------------------------------------------------------------- */

/* Digits, and a suffix where suffixes names some. Returns the end, NULL for no number up to max. */
static const char *parse_digits(const char *text, uint64_t max, uint64_t *ret_number)
{
    char *end;

    if (*text < '0' || *text > '9')
        return NULL;
    errno = 0;
    *ret_number = strtoull(text, &end, 10);
    return errno == 0 && *ret_number <= max ? end : NULL;
}

static bool parse_count(const char *text, uint64_t min, uint32_t *ret_count)
{
    uint64_t number;
    const char *end = parse_digits(text, UINT32_MAX, &number);

    *ret_count = end ? (uint32_t)number : 0;
    return end && *end == '\0' && number >= min;
}

static bool parse_real(const char *text, double max, float *ret_number)
{
    char *end;
    double number = strtod(text, &end);

    *ret_number = (float)number;
    return end != text && *end == '\0' && number >= 0 && number <= max && text[strspn(text, "0123456789.")] == '\0';
}

static bool parse_resident(const char *text, struct engine_options *options)
{
    static const char suffixes[] = "KMGT";
    uint64_t number;
    const char *end = parse_digits(text, INT64_MAX, &number);
    const char *suffix = end && *end != '\0' ? strchr(suffixes, *end) : NULL;

    options->resident_bytes = options->resident_percent = 0; /* the last one counts */
    if (end && strcmp(end, "%") == 0 && number >= 1 && number <= 100) {
        options->resident_percent = number < 100 ? (uint32_t)number : 0;
        return true;
    }
    if (!end || number == 0 || (*end != '\0' && (!suffix || end[1] != '\0')))
        return false;
    return !__builtin_mul_overflow(number, suffix ? (uint64_t)1 << 10 * (suffix - suffixes + 1) : 1,
                                   &options->resident_bytes);
}

static bool parse_engine(const char *text, enum tnd_engine *ret_engine)
{
    static const char *const names[] = {"auto", "uring", "threads", "mmap"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0) {
            *ret_engine = (enum tnd_engine)i;
            return true;
        }
    return false;
}

static bool parse_seed(const char *text, uint64_t *ret_seed)
{
    const char *end = parse_digits(text, UINT64_MAX, ret_seed);

    return end && *end == '\0';
}

enum { OPTION_TEMPERATURE = 256, OPTION_SEED, OPTION_TOP_K, OPTION_TOP_P, OPTION_CHAT, OPTION_RESIDENT, OPTION_ENGINE,
       OPTION_LAZY, OPTION_THREADS, OPTION_CONTEXT, OPTION_JSON };

static const struct option long_options[] = {
    {"temp", required_argument, NULL, OPTION_TEMPERATURE},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"top-k", required_argument, NULL, OPTION_TOP_K},
    {"top-p", required_argument, NULL, OPTION_TOP_P},
    {"chat", no_argument, NULL, OPTION_CHAT},
    {"resident", required_argument, NULL, OPTION_RESIDENT},
    {"engine", required_argument, NULL, OPTION_ENGINE},
    {"lazy", no_argument, NULL, OPTION_LAZY},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"context", required_argument, NULL, OPTION_CONTEXT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static bool parse_option(struct options *options, int option, const char *value)
{
    struct generation_request *request = &options->request;

    switch (option) {
    case 'p':
        request->prompt = value;
        request->prompt_bytes = strlen(value);
        return true;
    case 'n': return parse_count(value, 1, &request->tokens_max);
    case OPTION_TEMPERATURE: return parse_real(value, 1e6, &request->temperature);
    case OPTION_SEED: return parse_seed(value, &request->seed);
    case OPTION_TOP_K: return parse_count(value, 0, &request->top_k);
    case OPTION_TOP_P: return parse_real(value, 1, &request->top_p);
    case OPTION_RESIDENT: return parse_resident(value, &options->engine);
    case OPTION_ENGINE: return parse_engine(value, &options->engine.io);
    case OPTION_THREADS: return parse_count(value, 1, &options->engine.thread_count);
    case OPTION_CONTEXT: return parse_count(value, 1, &options->engine.context_tokens);
    case OPTION_LAZY: options->engine.lazy = TND_LAZY_DEMAND; return true;
    case OPTION_CHAT: return options->chat = true;
    case OPTION_JSON: return options->json = true;
    case 'h': return options->help = true;
    default: return false;
    }
}

/* A user's turn instead of a text to be continued. */
static void turn_into_chat(struct options *options)
{
    struct generation_request *request = &options->request;

    options->message = (struct chat_message){.role = "user", .content = request->prompt};
    request->messages = &options->message;
    request->message_count = 1;
    request->prompt = NULL;
}

static int parse(struct options *options, int argument_count, char **arguments)
{
    char sentence[256];
    int option;

    options->engine.lazy = TND_LAZY_BACKGROUND;
    options->request.tokens_max = TOKENS_DEFAULT;
    opterr = 0;
    while ((option = getopt_long(argument_count, arguments, ":p:n:h", long_options, NULL)) >= 0) {
        const char *name = optind > 1 ? arguments[optind - 1] : "";

        if (option == '?' || option == ':') {
            snprintf(sentence, sizeof(sentence), option == '?' ? "unknown option %.128s; --help lists them"
                                                               : "%.128s needs a value", name);
            return give_up(EXIT_USAGE, sentence);
        }
        if (!parse_option(options, option, optarg)) {
            snprintf(sentence, sizeof(sentence), "'%.128s' is no value of that option; --help lists them", optarg);
            return give_up(EXIT_USAGE, sentence);
        }
    }
    if (options->help)
        return 0;
    if (optind != argument_count - 1)
        return give_up(EXIT_USAGE, optind < argument_count ? "one model at a time" : "which model? see --help");
    if (!options->request.prompt)
        return give_up(EXIT_USAGE, "-p TEXT is missing: what to continue");
    options->engine.path = arguments[optind];
    if (options->chat)
        turn_into_chat(options);
    return 0;
}

/* ---- SIGINT: the first one ends the generation, the second one kills --------------------------------------- */

struct interrupt {
    struct engine *engine;
    pthread_t thread;
    bool watched;
    int signal_fd, over_fd;
    atomic_bool came;
};

static void *wait_interrupt(void *cookie)
{
    struct interrupt *interrupt = cookie;
    struct pollfd fds[2] = {{.fd = interrupt->over_fd, .events = POLLIN},
                            {.fd = interrupt->signal_fd, .events = POLLIN}};
    struct signalfd_siginfo info;
    sigset_t set;

    while (poll(fds, 2, -1) < 0) /* nothing but another signal */
        continue;
    if (fds[0].revents)
        return NULL;
    if (read(interrupt->signal_fd, &info, sizeof(info)) < 0) /* it would come a second time */
        return NULL;
    atomic_store(&interrupt->came, true);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* for the second one */
    do
        engine_stop(interrupt->engine); /* the generation may not have begun */
    while (poll(fds, 1, STOP_PAUSE_MS) <= 0);
    return NULL;
}

/* Before any thread is made: all of them leave the signal to one. */
static void interrupt_hold(struct interrupt *interrupt)
{
    struct sigaction action;
    sigset_t set;

    *interrupt = (struct interrupt){.signal_fd = -1, .over_fd = -1};
    sigaction(SIGINT, NULL, &action);
    if (action.sa_handler == SIG_IGN)
        return;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    interrupt->over_fd = eventfd(0, EFD_CLOEXEC);
    interrupt->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    interrupt->watched = interrupt->over_fd >= 0 && interrupt->signal_fd >= 0;
    if (interrupt->watched)
        pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void interrupt_start(struct interrupt *interrupt, struct engine *engine)
{
    interrupt->engine = engine;
    interrupt->watched = interrupt->watched && pthread_create(&interrupt->thread, NULL, wait_interrupt, interrupt) == 0;
}

static void interrupt_finish(struct interrupt *interrupt)
{
    if (interrupt->watched) {
        eventfd_write(interrupt->over_fd, 1);
        pthread_join(interrupt->thread, NULL);
    }
    if (interrupt->signal_fd >= 0)
        close(interrupt->signal_fd);
    if (interrupt->over_fd >= 0)
        close(interrupt->over_fd);
}

/* ---- Output ------------------------------------------------------------------------------------------------ */

static bool print_text(void *cookie, const char *data, size_t bytes)
{
    struct text *text = cookie;

    text->failed = fwrite(data, 1, bytes, stdout) < bytes || fflush(stdout) != 0;
    return !text->failed;
}

static bool keep_text(void *cookie, const char *data, size_t bytes)
{
    struct text *text = cookie;
    char *grown = realloc(text->data, text->bytes + bytes);

    text->failed = !grown;
    if (text->failed)
        return false;
    memcpy(grown + text->bytes, data, bytes);
    text->data = grown;
    text->bytes += bytes;
    return true;
}

static void print_json_text(const struct text *text)
{
    putchar('"');
    for (size_t i = 0; i < text->bytes; i++) {
        unsigned char c = (unsigned char)text->data[i];

        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_json(const struct text *text, const struct generation_result *result)
{
    static const char *const finishes[] = {[GENERATION_STOP] = "stop", [GENERATION_LENGTH] = "length",
                                           [GENERATION_CANCELED] = "canceled"};

    printf("{\"text\": ");
    print_json_text(text);
    printf(", \"prompt_tokens\": %u, \"tokens\": %u, \"finish_reason\": \"%s\", \"load_ns\": %llu, "
           "\"first_token_ns\": %llu, \"tokens_per_s\": %.3f}\n", result->prompt_tokens, result->tokens,
           finishes[result->finish], (unsigned long long)result->load_ns, (unsigned long long)result->first_token_ns,
           result->tokens_per_s);
}

static void print_summary(const struct generation_result *result)
{
    fprintf(stderr, "load %.1f ms, prompt of %u tokens, first token %.1f ms, %u tokens, %.1f tokens/s\n",
            (double)result->load_ns / 1e6, result->prompt_tokens, (double)result->first_token_ns / 1e6, result->tokens,
            result->tokens_per_s);
}

/* ---- All of it --------------------------------------------------------------------------------------------- */

static int fail_generation(struct engine *engine, int result, const struct failure *failure)
{
    struct engine_status status;

    engine_status(engine, &status);
    if (result == -EFBIG && status.phase != ENGINE_FAILED)
        result = -EINVAL; /* the prompt, not the file */
    return give_up(exit_code_of(result), failure->text);
}

static int finish_output(const struct options *options, const struct text *text, struct generation_result *result)
{
    if (options->json)
        print_json(text, result);
    else if (result->tokens > 0)
        putchar('\n');
    if (text->failed || fflush(stdout) != 0 || ferror(stdout))
        return give_up(EXIT_FAILED, "the text cannot be written");
    if (!options->json)
        print_summary(result);
    return EXIT_DONE;
}

static int generate(const struct options *options, struct engine *engine, struct interrupt *interrupt)
{
    struct generation_result result = {0};
    struct failure failure = {{0}};
    struct engine_status status;
    struct text text = {0};
    int r = engine_generate(engine, &options->request, options->json ? keep_text : print_text, &text, &result,
                            &failure);
    int code;

    if (r >= 0 && engine_wait(engine, ENGINE_LOADED, LOADED_NS, NULL) >= 0) {
        engine_status(engine, &status);
        result.load_ns = status.load_ns;
    }
    interrupt_finish(interrupt);
    if (r < 0)
        code = fail_generation(engine, r, &failure);
    else if (atomic_load(&interrupt->came))
        code = give_up(EXIT_INTERRUPTED, "interrupted");
    else
        code = finish_output(options, &text, &result);
    free(text.data);
    return code;
}

int main(int argument_count, char **arguments)
{
    struct interrupt interrupt;
    struct options options = {0};
    struct engine *engine;
    int code = parse(&options, argument_count, arguments);
    int r;

    if (code != 0)
        return code;
    if (options.help) {
        fputs(usage, stdout);
        return fflush(stdout) == 0 ? EXIT_DONE : EXIT_FAILED;
    }
    interrupt_hold(&interrupt);
    r = engine_create(&options.engine, &engine);
    if (r < 0)
        return give_up(exit_code_of(r), "no memory or no thread for an engine");
    interrupt_start(&interrupt, engine);
    code = generate(&options, engine, &interrupt);
    engine_destroy(&engine);
    return code;
}
