/* SPDX-License-Identifier: Apache-2.0 */

/* One load in one process, through the public header only: from the first library call until every byte is there.
 *
 * touched   the caller hands out memory that it has mapped and touched before the clock starts
 * fresh     the library takes its own, as it comes from the kernel
 *
 * What the clock does not see: mapping and touching the destination, --prefault, --check, giving everything back. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"
#include "tundish.h"

#define PAGE ((size_t)4096)
#define CACHE_LINE ((size_t)64)
#define SLACK_BYTES ((size_t)16 << 20) /* a page for each of 4096 tensors that do not follow the one before */

struct options {
    const char *path;
    bool touched, check, json;
    uint64_t prefault_bytes;
    struct tnd_loader_options loader;
    struct tnd_load_options load;
};

/* Touched memory that tensors are laid into in the order that the library asks for them. */
struct arena {
    uint8_t *memory;
    size_t bytes, used;
    bool like_the_file; /* the same offset modulo a page as in the file, so that reads can land there */
    unsigned refused;   /* tensors that did not fit: the library takes memory for them */
};

struct outcome {
    uint64_t wall_ns, cpu_ns;
    uint64_t anon_bytes; /* growth while loading, measured with everything still there */
    uint64_t peak_bytes; /* of all resident memory, above what was there before */
    bool peak_known;
    unsigned wrong_tensors;
    struct tnd_load_stats stats;
};

static void *arena_place(void *cookie, const struct tnd_tensor *tensor)
{
    struct arena *arena = cookie;
    size_t step = arena->like_the_file ? PAGE : CACHE_LINE;
    size_t wanted = arena->like_the_file ? tensor->offset % PAGE : 0;
    size_t at = arena->used + ((wanted - arena->used) & (step - 1));

    if (at > arena->bytes || tensor->bytes > arena->bytes - at) {
        arena->refused++;
        return NULL;
    }
    arena->used = at + tensor->bytes;
    return arena->memory + at;
}

static void arena_init(struct arena *arena, const struct options *options)
{
    struct stat status;

    if (stat(options->path, &status) < 0)
        die("%s: %s", options->path, strerror(errno));
    *arena = (struct arena){.like_the_file = options->load.in_place != TND_OFF,
                            .bytes = (size_t)status.st_size + SLACK_BYTES};
    arena->memory = memory_map(arena->bytes);
    memory_touch(arena->memory, arena->bytes, 1);
}

static void must(int result, const char *what)
{
    if (result < 0)
        die("%s: %s (%s)", what, tnd_last_error(), tnd_strerror(result));
}

/* ---- Checking ---------------------------------------------------------------------------------------------- */

/* The tensor's bytes beside a plain read of the same file. */
static bool tensor_equal(struct tnd_load *load, uint32_t index, int fd, uint8_t *buffer, size_t buffer_bytes)
{
    const struct tnd_tensor *tensor = tnd_model_tensor(tnd_load_model(load), index);
    const void *data;

    must(tnd_load_tensor_data(load, index, &data), tensor->name);
    for (uint64_t at = 0; at < tensor->bytes;) {
        uint64_t left = tensor->bytes - at;
        ssize_t got = pread(fd, buffer, left < buffer_bytes ? left : buffer_bytes, (off_t)(tensor->offset + at));

        if (got <= 0)
            die("reading %s again: %s", tensor->name, got < 0 ? strerror(errno) : "the file ends");
        if (memcmp((const uint8_t *)data + at, buffer, (size_t)got) != 0)
            return false;
        at += (uint64_t)got;
    }
    return true;
}

static unsigned check(struct tnd_load *load)
{
    const struct tnd_model *model = tnd_load_model(load);
    size_t buffer_bytes = (size_t)4 << 20;
    uint8_t *buffer = memory_map(buffer_bytes);
    unsigned wrong = 0;

    for (uint32_t file = 0; file < tnd_model_file_count(model); file++) {
        int fd = open(tnd_model_file(model, file)->path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
            die("%s: %s", tnd_model_file(model, file)->path, strerror(errno));
        for (uint32_t i = 0; i < tnd_model_tensor_count(model); i++)
            if (tnd_model_tensor(model, i)->file == file && !tensor_equal(load, i, fd, buffer, buffer_bytes))
                wrong++;
        close(fd);
    }
    memory_unmap(buffer, buffer_bytes);
    return wrong;
}

/* ---- The load ---------------------------------------------------------------------------------------------- */

static void run(const struct options *options, struct outcome *outcome)
{
    struct tnd_model *model;
    struct tnd_loader *loader;
    struct tnd_load *load;
    uint64_t anon, resident, wall, cpu;

    memory_prefault(options->prefault_bytes);
    outcome->peak_known = status_reset_peak();
    resident = status_bytes("VmRSS");
    anon = status_bytes("RssAnon");

    wall = wall_ns();
    cpu = cpu_ns();
    must(tnd_model_open(options->path, NULL, &model), options->path);
    must(tnd_loader_create(&options->loader, &loader), "loader");
    must(tnd_load_start(loader, model, &options->load, &load), "start");
    must(tnd_load_wait(load, -1), "load");
    outcome->cpu_ns = cpu_ns() - cpu;
    outcome->wall_ns = wall_ns() - wall;

    outcome->anon_bytes = status_bytes("RssAnon") - anon;
    outcome->peak_bytes = status_bytes("VmHWM") - resident;
    tnd_load_stats(load, &outcome->stats);
    if (options->check)
        outcome->wrong_tensors = check(load);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    tnd_model_close(&model);
}

/* ---- Telling ----------------------------------------------------------------------------------------------- */

static const char *const limits[] = {
    [TND_LIMIT_DISK] = "disk",
    [TND_LIMIT_COPY] = "copy",
    [TND_LIMIT_CONVERT] = "convert",
    [TND_LIMIT_MEMORY] = "memory",
};

static void print_number(const char *name, uint64_t value)
{
    printf(",\"%s\":%llu", name, (unsigned long long)value);
}

static void print_json(const struct options *options, const struct outcome *outcome)
{
    const struct tnd_load_stats *stats = &outcome->stats;

    printf("{\"destination\":\"%s\",\"engine\":\"%s\",\"direct\":%s,\"limit\":\"%s\",\"gb_per_s\":%.4f",
           options->touched ? "touched" : "fresh", stats->engine, stats->direct ? "true" : "false",
           limits[stats->limit], (double)stats->model_bytes / (double)outcome->wall_ns);
    print_number("wall_ns", outcome->wall_ns);
    print_number("cpu_ns", outcome->cpu_ns);
    print_number("anon_growth_bytes", outcome->anon_bytes);
    if (outcome->peak_known)
        print_number("peak_growth_bytes", outcome->peak_bytes);
    print_number("model_bytes", stats->model_bytes);
    print_number("bytes_read", stats->bytes_read);
    print_number("pool_bytes_read", stats->pool_bytes_read);
    print_number("read_count", stats->read_count);
    print_number("open_ns", stats->open_ns);
    print_number("plan_ns", stats->plan_ns);
    print_number("setup_ns", stats->setup_ns);
    print_number("first_layer_ns", stats->first_layer_ns);
    print_number("ready_ns", stats->ready_ns);
    print_number("read_busy_ns", stats->read_busy_ns);
    print_number("copy_busy_ns", stats->copy_busy_ns);
    print_number("convert_busy_ns", stats->convert_busy_ns);
    print_number("digest_busy_ns", stats->digest_busy_ns);
    print_number("converted_bytes", stats->converted_bytes);
    print_number("alloc_ns", stats->alloc_ns);
    print_number("overlap_ns", stats->overlap_ns);
    print_number("peak_host_bytes", stats->peak_host_bytes);
    print_number("destination_bytes", stats->destination_bytes);
    print_number("pool_bytes", stats->pool_bytes);
    print_number("depth_max", stats->depth_max);
    print_number("retries", stats->retries);
    print_number("tensors", stats->tensors);
    if (options->check)
        print_number("wrong_tensors", outcome->wrong_tensors);
    printf("}\n");
}

static void print_text(const struct options *options, const struct outcome *outcome)
{
    const struct tnd_load_stats *stats = &outcome->stats;

    printf("%s, %s%s: %.3f GB in %.3f s, %.3f GB/s, %.3f CPU s (%.3f a GB), limit: %s\n",
           options->touched ? "touched" : "fresh", stats->engine, stats->direct ? " direct" : "",
           (double)stats->model_bytes / 1e9, (double)outcome->wall_ns / 1e9,
           (double)stats->model_bytes / (double)outcome->wall_ns, (double)outcome->cpu_ns / 1e9,
           (double)outcome->cpu_ns / (double)stats->model_bytes, limits[stats->limit]);
    printf("ms: open %.1f, plan %.1f, setup %.1f, first layer %.1f, ready %.1f; reading %.1f, copying %.1f, "
           "converting %.1f, digests %.1f, touching %.1f, overlapped %.1f\n",
           (double)stats->open_ns / 1e6, (double)stats->plan_ns / 1e6, (double)stats->setup_ns / 1e6,
           (double)stats->first_layer_ns / 1e6, (double)stats->ready_ns / 1e6, (double)stats->read_busy_ns / 1e6,
           (double)stats->copy_busy_ns / 1e6, (double)stats->convert_busy_ns / 1e6,
           (double)stats->digest_busy_ns / 1e6, (double)stats->alloc_ns / 1e6, (double)stats->overlap_ns / 1e6);
    printf("%llu reads, %u in flight at most, %u retries; %.1f MB through the pool, pool %.1f MB; "
           "RssAnon grew by %.1f MB\n",
           (unsigned long long)stats->read_count, stats->depth_max, stats->retries,
           (double)stats->pool_bytes_read / 1e6, (double)stats->pool_bytes / 1e6, (double)outcome->anon_bytes / 1e6);
    if (options->check)
        printf("%u of %u tensors differ from the file\n", outcome->wrong_tensors, stats->tensors);
}

/* ---- Options ----------------------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: bench-load [options] FILE\n"
    "  --fresh | --touched            whose memory (fresh)\n"
    "  --engine auto|uring|threads|mmap|nil   --direct auto|on|off   --in-place auto|on|off   --order use|file\n"
    "  --chunk BYTES  --depth N  --pool BYTES  --threads N        0 = the library's default\n"
    "  --dtype native|f32|f16|bf16    what tensors become on their way\n"
    "  --digest off|xxh3              digests made in passing\n"
    "  --prefault BYTES               touch and free that much right before the start\n"
    "  --check                        afterwards: every tensor beside a plain read of the file\n"
    "  --json                         one JSON object\n";

/* The index of text among the words, which are separated by bars. */
static unsigned choice(const char *name, const char *text, const char *words)
{
    size_t bytes = strlen(text);

    for (const char *word = words, *end;; word = end + 1) {
        end = strchrnul(word, '|');
        if ((size_t)(end - word) == bytes && memcmp(word, text, bytes) == 0) {
            unsigned index = 0;

            while (word > words)
                index += *--word == '|';
            return index;
        }
        if (*end == '\0')
            die("%s takes %s, not %s", name, words, text);
    }
}

static uint64_t number(const char *name, const char *text, uint64_t max)
{
    uint64_t value;

    if (!parse_bytes(text, &value) || value > max)
        die("%s takes a number up to %llu, not %s", name, (unsigned long long)max, text);
    return value;
}

/* Options without a value. */
static bool parse_flag(struct options *options, const char *name)
{
    if (strcmp(name, "--json") == 0)
        options->json = true;
    else if (strcmp(name, "--check") == 0)
        options->check = true;
    else if (strcmp(name, "--touched") == 0)
        options->touched = true;
    else if (strcmp(name, "--fresh") == 0)
        options->touched = false;
    else
        return false;
    return true;
}

static bool parse_value(struct options *options, const char *name, const char *value)
{
    static const char switches[] = "auto|on|off";
    static const enum tnd_dtype dtypes[] = {TND_DTYPE_NONE, TND_F32, TND_F16, TND_BF16};

    if (strcmp(name, "--engine") == 0)
        options->loader.engine = (enum tnd_engine)choice(name, value, "auto|uring|threads|mmap|nil");
    else if (strcmp(name, "--direct") == 0)
        options->loader.direct = (enum tnd_switch)choice(name, value, switches);
    else if (strcmp(name, "--in-place") == 0)
        options->load.in_place = (enum tnd_switch)choice(name, value, switches);
    else if (strcmp(name, "--dtype") == 0)
        options->load.dtype = dtypes[choice(name, value, "native|f32|f16|bf16")];
    else if (strcmp(name, "--digest") == 0)
        options->load.digest = (enum tnd_digest)choice(name, value, "off|xxh3");
    else if (strcmp(name, "--order") == 0)
        options->load.order = (enum tnd_order)choice(name, value, "use|file");
    else if (strcmp(name, "--chunk") == 0)
        options->loader.chunk_bytes = (uint32_t)number(name, value, UINT32_MAX);
    else if (strcmp(name, "--depth") == 0)
        options->loader.depth = (uint32_t)number(name, value, UINT32_MAX);
    else if (strcmp(name, "--pool") == 0)
        options->loader.pool_bytes_max = number(name, value, UINT64_MAX);
    else if (strcmp(name, "--threads") == 0)
        options->loader.thread_count = (uint32_t)number(name, value, UINT32_MAX);
    else if (strcmp(name, "--prefault") == 0)
        options->prefault_bytes = number(name, value, UINT64_MAX);
    else
        return false;
    return true;
}

static void parse(struct options *options, char **arguments)
{
    *options = (struct options){
        .loader = {.size = sizeof(struct tnd_loader_options)},
        .load = {.size = sizeof(struct tnd_load_options)},
    };
    for (; *arguments; arguments++) {
        const char *name = *arguments;

        if (parse_flag(options, name))
            continue;
        if (*name != '-' && !options->path)
            options->path = name;
        else if (arguments[1] && parse_value(options, name, arguments[1]))
            arguments++;
        else
            die("unexpected %s\n%s", name, usage);
    }
    if (!options->path)
        die("which file?\n%s", usage);
    if (options->check && options->load.dtype != TND_DTYPE_NONE)
        die("--check compares with the file, whose types --dtype changes");
}

int main(int argument_count, char **arguments)
{
    struct options options;
    struct outcome outcome = {0};
    struct arena arena = {0};

    (void)argument_count;
    parse(&options, arguments + 1);
    if (options.touched) {
        arena_init(&arena, &options);
        options.load.place = arena_place;
        options.load.place_cookie = &arena;
    }
    run(&options, &outcome);
    if (options.json)
        print_json(&options, &outcome);
    else
        print_text(&options, &outcome);
    if (arena.refused > 0)
        die("%u tensors did not fit the touched memory", arena.refused);
    memory_unmap(arena.memory, arena.bytes);
    return outcome.wrong_tensors > 0 ? 1 : 0;
}
