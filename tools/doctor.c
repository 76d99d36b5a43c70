/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gpu.h"
#include "json.h"
#include "text.h"
#include "tundish_cuda.h"
#include "tundish.h"

#define ITEM_COLUMNS 18
#define FOUND_COLUMNS 40
#define MIB ((uint64_t)1 << 20)
#define MEMORY_LITTLE_BYTES (512 * MIB)
#define CACHED_PERCENT_MIN 80 /* from here on a load reads through the cache */

/* One line of the table. */
struct item {
    const char *key, *name; /* in JSON, in the table */
    bool good;
    char found[320];
    char follows[640];
};

struct examination {
    struct tnd_probe probe;
    struct gpu gpu;
    struct tnd_cuda_probe cuda;
    bool has_model;
    struct item items[16];
    size_t item_count;
};

__attribute__((format(printf, 5, 6))) static struct item *add(struct examination *ex, const char *key, const char *name,
                                                              bool good, const char *format, ...)
{
    struct item *item = &ex->items[ex->item_count++];
    va_list args;

    assert(ex->item_count <= sizeof(ex->items) / sizeof(ex->items[0]));
    *item = (struct item){.key = key, .name = name, .good = good};
    va_start(args, format);
    vsnprintf(item->found, sizeof(item->found), format, args);
    va_end(args);
    return item;
}

__attribute__((format(printf, 2, 3))) static void follows(struct item *item, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(item->follows, sizeof(item->follows), format, args);
    va_end(args);
}

/* "8 MiB": the limits that people set are in these. */
static struct text binary(uint64_t bytes)
{
    struct text text;

    if (bytes >= MIB << 10)
        snprintf(text.s, sizeof(text.s), "%.1f GiB", (double)bytes / (double)(MIB << 10));
    else if (bytes >= MIB)
        snprintf(text.s, sizeof(text.s), "%.*f MiB", bytes % MIB == 0 ? 0 : 1, (double)bytes / (double)MIB);
    else
        snprintf(text.s, sizeof(text.s), "%" PRIu64 " KiB", bytes >> 10);
    return text;
}

/* ---- Machine and process ----------------------------------------------------------------------------------- */

static void see_pages(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    const char *huge = probe->huge_pages;
    bool good = strcmp(huge, "always") == 0 || strcmp(huge, "madvise") == 0;
    struct item *item = add(ex, "pages", "pages", good, "%s; huge pages: ", binary(probe->page_bytes).s);
    size_t used = strlen(item->found);

    if (probe->huge_page_bytes == 0)
        snprintf(item->found + used, sizeof(item->found) - used, "none in this kernel");
    else
        snprintf(item->found + used, sizeof(item->found) - used, "%s, %s", binary(probe->huge_page_bytes).s,
                 good ? huge : "switched off");
    if (good)
        follows(item, "buffers and tensors lie on huge pages");
    else
        follows(item, "reads are cut into more requests, and clearing memory takes more than twice as long: "
                      "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
}

static void see_machine(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    struct item *item = add(ex, "kernel", "kernel", true, "Linux %s", probe->kernel);

    follows(item, "the lines below are what it lets tundish %s do, found by trying", tnd_version());
    item = add(ex, "cpu", "processor", true, "%s%s%s%s", text_count(probe->cores, "core").s,
               probe->cpu_f16c ? ", f16c" : "", probe->cpu_avx2 ? ", avx2" : "", probe->cpu_avx512f ? ", avx512f" : "");
    follows(item, "%s", probe->cores > 1 ? "reads, copies and page clearing overlap"
                                         : "one core copies and clears pages: give the process two where it can be");
    see_pages(ex);
}

static void see_memory(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    bool cgroup = probe->memory_cgroup_bytes != UINT64_MAX, system = probe->memory_system_bytes != UINT64_MAX;
    uint64_t left = probe->memory_cgroup_bytes < probe->memory_system_bytes ? probe->memory_cgroup_bytes
                                                                            : probe->memory_system_bytes;
    struct item *item = add(ex, "memory", "memory", left >= MEMORY_LITTLE_BYTES, "%s available, cgroup %s%s",
                            system ? binary(probe->memory_system_bytes).s : "unknown",
                            cgroup ? "leaves " : "unlimited", cgroup ? binary(probe->memory_cgroup_bytes).s : "");

    if (left == UINT64_MAX)
        follows(item, "nothing says how much a load may take, so none is refused for its size");
    else if (cgroup && left == probe->memory_cgroup_bytes)
        follows(item, "a load that takes more than %s is refused: the cgroup's memory limit is what to raise",
                binary(left).s);
    else
        follows(item, "a load that takes more than %s is refused before anything is read", binary(left).s);
}

/* ---- io_uring ---------------------------------------------------------------------------------------------- */

/* What lifts a refusal. */
static const char *uring_remedy(const struct tnd_probe *probe)
{
    if (probe->uring_disabled > 0)
        return "sysctl -w kernel.io_uring_disabled=0 lets it";
    if (probe->uring_setup == -ENOSYS)
        return "Linux has it from 5.1 on; in a container, let its seccomp profile have io_uring_setup, io_uring_enter "
               "and io_uring_register";
    if (probe->uring_enter < 0)
        return "in a container, let its seccomp profile have io_uring_enter and io_uring_register too";
    return "in a container, let its seccomp profile have io_uring_setup, io_uring_enter and io_uring_register";
}

static void see_uring(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    const char *found = probe->uring_setup < 0 ? "refused at set-up" : probe->uring_enter < 0 ? "refused at enter"
                                                                                            : "works";
    struct item *item = add(ex, "io_uring", "io_uring", probe->uring_reason[0] == '\0', "%s%s", found,
                            probe->uring_disabled == 0   ? ", allowed by sysctl"
                            : probe->uring_disabled == 1 ? ", sysctl: its group only"
                            : probe->uring_disabled > 1  ? ", sysctl: nobody may"
                                                         : "");

    if (item->good)
        follows(item, "several reads are in flight at the cost of one thread");
    else
        follows(item, "%s; threads read instead, about as fast: %s", probe->uring_reason, uring_remedy(probe));
}

static void see_memlock(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    bool limited = probe->memlock_bytes != UINT64_MAX, ring = probe->uring_reason[0] == '\0';
    bool refused = probe->uring_buffers_reason[0] != '\0';
    struct item *item = add(ex, "memlock", "locked memory", !refused, "limit (memlock) %s",
                            limited ? binary(probe->memlock_bytes).s : "unlimited");

    if (!ring)
        follows(item, "of no account without io_uring");
    else if (!refused)
        follows(item, "%s of buffers can be registered with the ring: enough%s", binary(probe->uring_buffer_bytes).s,
                limited && probe->uring_buffer_bytes > probe->memlock_bytes
                    ? ", the limit does not bind this process"
                    : "");
    else
        follows(item, "registered buffers are refused (%s of %s taken): slower by a few per cent; "
                      "ulimit -l unlimited, or systemd's LimitMEMLOCK=infinity",
                binary(probe->uring_buffer_bytes).s, binary(probe->uring_buffer_bytes_tried).s);
}

static void see_gpu(struct examination *ex)
{
    const struct gpu *gpu = &ex->gpu;
    struct item *item = add(ex, "gpu", "GPU", true, "%s, %s%s%s",
                            gpu->count > 0 ? text_count(gpu->count, "NVIDIA card").s : "no NVIDIA card seen",
                            gpu->driver ? "driver " : "no driver", gpu->driver_version,
                            gpu->library ? ", libcuda.so.1" : "");
    const char *lacking = "";

    if (gpu->driver && !gpu->library)
        lacking = "; the driver's library libcuda.so.1 is missing (in a container: its NVIDIA runtime)";
    else if (gpu->count > 0 && !gpu->driver)
        lacking = "; the card's driver is not loaded";
    if (ex->cuda.reason[0] != '\0')
        follows(item, "%s: tensors go to host memory%s", ex->cuda.reason, lacking);
    else
        follows(item, "%s can be used, by a driver that serves CUDA %d.%d", text_count(ex->cuda.device_count, "GPU").s,
                ex->cuda.driver_version / 1000, ex->cuda.driver_version % 1000 / 10);
}

/* ---- The model's files ------------------------------------------------------------------------------------- */

/* The ring only hides threads on these; a load does not try. */
static bool hides_threads(const struct tnd_probe *probe)
{
    return strncmp(probe->file_system, "overlay", 7) == 0 || strcmp(probe->file_system, "btrfs") == 0;
}

static bool is_memory(const struct tnd_probe *probe)
{
    return strcmp(probe->file_system, "tmpfs") == 0 || strcmp(probe->file_system, "ramfs") == 0;
}

static void see_file(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    struct item *item = add(ex, "file_system", "file system", !hides_threads(probe), "%s, %s, %s%s",
                            probe->file_system, text_count(probe->file_count, "file").s,
                            probe->file_count > 1 ? "the largest " : "", text_bytes(probe->file_bytes).s);

    if (is_memory(probe))
        follows(item, "the file is in memory already, and is copied from there by threads");
    else if (item->good)
        follows(item, "reads go to the disk as they are sent");
    else
        follows(item, "reads past the cache go through kernel threads here, so threads read: a model on a volume of "
                      "ext4 or xfs comes faster");
}

static void see_cache(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    struct item *item = add(ex, "cache", "page cache", true, "%" PRIu32 " %% of it is cached", probe->cached_percent);

    if (is_memory(probe))
        follows(item, "as all on %s", probe->file_system);
    else if (probe->cached_percent >= CACHED_PERCENT_MIN)
        follows(item, "a load copies it from memory; to see the disk, take it out first: "
                      "dd if=FILE iflag=nocache count=0");
    else
        follows(item, "a load reads the disk; --direct off leaves the file cached for the next start");
}

static void see_direct(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    struct item *item = add(ex, "direct", "direct I/O", probe->direct, "%s",
                            probe->direct        ? "works"
                            : probe->direct_open ? "taken at open, refused at first read"
                                                 : "refused at open");

    if (probe->direct) {
        snprintf(item->found, sizeof(item->found), "works, aligned to %" PRIu32 " bytes",
                 probe->direct_alignment_bytes);
        follows(item, "cold files are read past the page cache, without the copy out of it");
    } else {
        follows(item, "%s; reads go through the page cache, with a copy more: a file system on a local disk takes it",
                probe->direct_reason);
    }
}

static void see_load(struct examination *ex)
{
    const struct tnd_probe *probe = &ex->probe;
    struct item *item = add(ex, "load", "a load", probe->load_engine[0] != '\0', "%s%s",
                            probe->load_engine[0] != '\0' ? probe->load_engine : "cannot start",
                            probe->load_engine[0] == '\0' ? "" : probe->load_direct ? ", direct" : ", page cache");

    follows(item, "%s", probe->load_reason[0] != '\0' ? probe->load_reason : "the fastest way there is");
}

static void examine(struct examination *ex)
{
    see_machine(ex);
    see_memory(ex);
    see_uring(ex);
    see_memlock(ex);
    see_gpu(ex);
    if (ex->has_model) {
        see_file(ex);
        see_cache(ex);
        see_direct(ex);
        see_load(ex);
    }
}

/* ---- What is said ------------------------------------------------------------------------------------------ */

static void print_column(const char *text, size_t width)
{
    size_t columns = text_print(stdout, text, strlen(text), SIZE_MAX);

    printf("%*s", columns < width ? (int)(width - columns) : 2, "");
}

static void print_line(const char *mark, const char *name, const char *found, const char *follows_text)
{
    printf("%s ", mark);
    print_column(name, ITEM_COLUMNS);
    print_column(found, FOUND_COLUMNS);
    text_print(stdout, follows_text, strlen(follows_text), SIZE_MAX);
    putchar('\n');
}

static void print_examination(const struct examination *ex)
{
    size_t refused = 0;

    print_line(" ", "item", "found", "what follows");
    for (size_t i = 0; i < ex->item_count; i++) {
        const struct item *item = &ex->items[i];

        print_line(item->good ? " " : "!", item->name, item->found, item->follows);
        refused += !item->good;
    }
    if (refused > 0)
        printf("\n%s with ! %s something; loads work all the same, by the next best way\n",
               text_count(refused, "line").s, refused == 1 ? "costs" : "cost");
    if (!ex->has_model)
        printf("\nwith a MODEL: its file system, page cache and direct I/O, and how a load of it would go\n");
}

/* null where there is no limit, or nothing says. */
static void json_limit(struct json *json, const char *key, uint64_t value)
{
    if (value == UINT64_MAX)
        json_null(json, key);
    else
        json_uint(json, key, value);
}

static void json_reason(struct json *json, const char *key, const char *reason)
{
    if (reason[0] == '\0')
        json_null(json, key);
    else
        json_string(json, key, reason);
}

static void json_machine(struct json *json, const struct tnd_probe *probe)
{
    json_string(json, "version", tnd_version());
    json_string(json, "kernel", probe->kernel);
    json_uint(json, "cores", probe->cores);
    json_object_begin(json, "cpu");
    json_bool(json, "f16c", probe->cpu_f16c);
    json_bool(json, "avx2", probe->cpu_avx2);
    json_bool(json, "avx512f", probe->cpu_avx512f);
    json_object_end(json);
    json_uint(json, "page_bytes", probe->page_bytes);
    json_reason(json, "huge_pages", probe->huge_pages);
    json_uint(json, "huge_page_bytes", probe->huge_page_bytes);
    json_limit(json, "memory_system_bytes", probe->memory_system_bytes);
    json_limit(json, "memory_cgroup_bytes", probe->memory_cgroup_bytes);
    json_limit(json, "memlock_bytes", probe->memlock_bytes);
}

static void json_uring(struct json *json, const struct tnd_probe *probe)
{
    bool works = probe->uring_setup == 0 && probe->uring_enter == 0;

    json_object_begin(json, "io_uring");
    json_bool(json, "works", works);
    json_reason(json, "refused_at", probe->uring_setup < 0 ? "setup" : probe->uring_enter < 0 ? "enter" : "");
    json_int(json, "errno", probe->uring_setup < 0 ? -probe->uring_setup : -probe->uring_enter);
    json_reason(json, "reason", probe->uring_reason);
    if (probe->uring_disabled < 0)
        json_null(json, "sysctl_disabled");
    else
        json_int(json, "sysctl_disabled", probe->uring_disabled);
    json_bool(json, "registers_buffers", works && probe->uring_buffers == 0);
    json_uint(json, "registered_bytes", probe->uring_buffer_bytes);
    json_uint(json, "registered_bytes_tried", probe->uring_buffer_bytes_tried);
    json_reason(json, "registered_reason", probe->uring_buffers_reason);
    json_object_end(json);
}

static void json_gpu(struct json *json, const struct examination *ex)
{
    json_object_begin(json, "gpu");
    json_bool(json, "build_has_cuda", ex->cuda.build);
    json_uint(json, "usable", ex->cuda.device_count);
    json_int(json, "cuda_runtime_version", ex->cuda.runtime_version);
    json_int(json, "cuda_driver_version", ex->cuda.driver_version);
    json_reason(json, "cuda_reason", ex->cuda.reason);
    json_uint(json, "cards", ex->gpu.count);
    json_bool(json, "driver", ex->gpu.driver);
    json_reason(json, "driver_version", ex->gpu.driver_version);
    json_bool(json, "libcuda", ex->gpu.library);
    json_reason(json, "reason", ex->gpu.library_reason);
    json_object_end(json);
}

static void json_model(struct json *json, const struct examination *ex, const char *model)
{
    const struct tnd_probe *probe = &ex->probe;

    if (!ex->has_model) {
        json_null(json, "model");
        return;
    }
    json_object_begin(json, "model");
    json_string(json, "path", model);
    json_uint(json, "files", probe->file_count);
    json_string(json, "largest_file", probe->file);
    json_uint(json, "largest_file_bytes", probe->file_bytes);
    json_string(json, "file_system", probe->file_system);
    json_uint(json, "cached_percent", probe->cached_percent);
    json_bool(json, "direct", probe->direct);
    json_bool(json, "direct_open", probe->direct_open);
    json_uint(json, "direct_alignment_bytes", probe->direct_alignment_bytes);
    json_reason(json, "direct_reason", probe->direct_reason);
    json_reason(json, "load_engine", probe->load_engine);
    json_bool(json, "load_direct", probe->load_direct);
    json_reason(json, "load_reason", probe->load_reason);
    json_object_end(json);
}

static void json_examination(const struct examination *ex, const char *model)
{
    struct json json;

    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_machine(&json, &ex->probe);
    json_uring(&json, &ex->probe);
    json_gpu(&json, ex);
    json_model(&json, ex, model);
    json_array_begin(&json, "items");
    for (size_t i = 0; i < ex->item_count; i++) {
        json_object_begin(&json, NULL);
        json_string(&json, "item", ex->items[i].key);
        json_bool(&json, "good", ex->items[i].good);
        json_string(&json, "found", ex->items[i].found);
        json_string(&json, "follows", ex->items[i].follows);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}

int command_doctor(const struct options *options)
{
    struct examination ex = {.probe = {.size = sizeof(ex.probe)},
                             .cuda = {.size = sizeof(ex.cuda)},
                             .has_model = options->model != NULL};
    int r = tnd_probe(options->model, &ex.probe);

    if (r < 0)
        return fail_result(r, NULL);
    gpu_look(&ex.gpu);
    r = tnd_cuda_probe(&ex.cuda);
    if (r < 0)
        return fail_result(r, NULL);
    examine(&ex);
    if (options->json)
        json_examination(&ex, options->model);
    else
        print_examination(&ex);
    return 0;
}
