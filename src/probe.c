/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/waker.h"
#include "io/file.h"
#include "io/io.h"
#include "model/model.h"
#include "options.h"
#include "plan/plan.h"

#define TEXT_BYTES_MAX ((size_t)16 << 10) /* of a file in /proc or /sys; the CPU's flags stand near its beginning */
#define DEPTH 4
#define MODEL_BYTES ((uint64_t)1 << 40) /* one that needs all of the pool */

/* ---- Small text files -------------------------------------------------------------------------------------- */

static bool read_text(const char *path, char *text, size_t text_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t got = 1;

    if (fd < 0)
        return false;
    while (got > 0 && have < text_bytes - 1) {
        got = read(fd, text + have, text_bytes - 1 - have);
        have += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    text[have] = 0;
    return have > 0;
}

static uint64_t read_number(const char *path, uint64_t otherwise)
{
    char text[64], *end;
    uint64_t value;

    if (!read_text(path, text, sizeof(text)))
        return otherwise;
    value = strtoull(text, &end, 10);
    return end == text ? otherwise : value;
}

static void put(char *text, size_t text_bytes, const char *from, size_t from_bytes)
{
    size_t bytes = tnd_min(from_bytes, text_bytes - 1);

    memcpy(text, from, bytes);
    text[bytes] = 0;
}

/* The end of a path tells more than its beginning. */
static void put_end(char *text, size_t text_bytes, const char *path)
{
    size_t bytes = strlen(path);

    path += bytes < text_bytes ? 0 : bytes - (text_bytes - 1);
    while (((uint8_t)*path & 0xC0) == 0x80)
        path++;
    put(text, text_bytes, path, strlen(path));
}

/* ---- Machine and process ----------------------------------------------------------------------------------- */

/* Whether the line of flags has that word. */
static bool has_flag(const char *flags, const char *name)
{
    size_t bytes = strlen(name);

    for (const char *at = flags; (at = strstr(at, name)); at += bytes)
        if (at > flags && at[-1] == ' ' && (at[bytes] == ' ' || at[bytes] == '\n' || !at[bytes]))
            return true;
    return false;
}

static void probe_cpu(struct tnd_probe *probe, char *text)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t cores;
    char *flags;

    probe->cores = online > 0 ? (uint32_t)online : 1;
    if (sched_getaffinity(0, sizeof(cores), &cores) == 0)
        probe->cores = (uint32_t)CPU_COUNT(&cores);
    flags = read_text("/proc/cpuinfo", text, TEXT_BYTES_MAX) ? strstr(text, "\nflags") : NULL;
    if (!flags)
        return;
    flags++;
    flags[strcspn(flags, "\n")] = 0;
    probe->cpu_f16c = has_flag(flags, "f16c");
    probe->cpu_avx2 = has_flag(flags, "avx2");
    probe->cpu_avx512f = has_flag(flags, "avx512f");
}

/* The word in brackets: "always [madvise] never". */
static void probe_huge_pages(struct tnd_probe *probe, char *text)
{
    const char *first, *end;

    if (!read_text("/sys/kernel/mm/transparent_hugepage/enabled", text, TEXT_BYTES_MAX))
        return;
    first = strchr(text, '[');
    end = first ? strchr(first, ']') : NULL;
    if (end)
        put(probe->huge_pages, sizeof(probe->huge_pages), first + 1, (size_t)(end - first - 1));
    probe->huge_page_bytes = read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", 0);
}

static void probe_machine(struct tnd_probe *probe, char *text)
{
    struct utsname name;
    struct rlimit memlock;

    if (uname(&name) == 0)
        put(probe->kernel, sizeof(probe->kernel), name.release, strlen(name.release));
    probe->page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
    probe->memory_system_bytes = tnd_memory_of_system();
    probe->memory_cgroup_bytes = tnd_memory_of_cgroup();
    probe->memlock_bytes = UINT64_MAX;
    if (getrlimit(RLIMIT_MEMLOCK, &memlock) == 0 && memlock.rlim_cur != RLIM_INFINITY)
        probe->memlock_bytes = memlock.rlim_cur;
    probe_cpu(probe, text);
    probe_huge_pages(probe, text);
}

/* ---- io_uring ---------------------------------------------------------------------------------------------- */

/* Who it was that refused a ring. */
static const char *refuser(const struct tnd_probe *probe, int error)
{
    if (error == EPERM && probe->uring_disabled == 2)
        return "sysctl kernel.io_uring_disabled is 2: nobody may";
    if (error == EPERM && probe->uring_disabled == 1)
        return "sysctl kernel.io_uring_disabled is 1: only its group may, or a sandbox says no";
    if (error == EPERM || error == EACCES)
        return "a sandbox (seccomp, as container runtimes set it) says no";
    if (error == ENOSYS)
        return "the kernel, or a sandbox that answers for it, has none";
    if (error == ENOMEM)
        return "the locked memory allowed (memlock) does not suffice, or there is no memory";
    return "the kernel, or a sandbox that answers for it, says no";
}

static void probe_uring(struct tnd_probe *probe, const struct tnd_mapping *pool, size_t chunk_bytes)
{
    struct tnd_io_uring_probe found;

    probe->uring_disabled = (int32_t)read_number("/proc/sys/kernel/io_uring_disabled", UINT32_MAX);
    tnd_io_uring_probe(pool->data, pool->bytes, chunk_bytes, &found);
    probe->uring_setup = found.setup;
    probe->uring_enter = found.enter;
    probe->uring_buffers = found.registers;
    probe->uring_buffer_bytes = found.bytes_registered;
    probe->uring_buffer_bytes_tried = pool->bytes;
    if (found.setup < 0)
        snprintf(probe->uring_reason, sizeof(probe->uring_reason), "io_uring is refused at set-up (%s): %s",
                 strerror(-found.setup), refuser(probe, -found.setup));
    else if (found.enter < 0)
        snprintf(probe->uring_reason, sizeof(probe->uring_reason),
                 "io_uring can be set up, but is refused when it is entered (%s): %s", strerror(-found.enter),
                 refuser(probe, -found.enter));
    else if (found.registers < 0)
        snprintf(probe->uring_buffers_reason, sizeof(probe->uring_buffers_reason),
                 "registered buffers are refused, %zu of %zu bytes were taken (%s)", found.bytes_registered,
                 pool->bytes, strerror(-found.registers));
}

/* ---- The model's files ------------------------------------------------------------------------------------- */

/* Of all files together. */
static uint32_t cached_of(const struct tnd_model *model)
{
    double cached = 0, bytes = 0;

    for (uint32_t i = 0; i < model->file_count; i++) {
        const struct tnd_model_file *file = &model->files[i];

        cached += (double)tnd_file_cached_percent(file->fd, file->file.bytes) * (double)file->file.bytes;
        bytes += (double)file->file.bytes;
    }
    return bytes > 0 ? (uint32_t)(cached / bytes) : 100;
}

static const struct tnd_model_file *largest(const struct tnd_model *model)
{
    const struct tnd_model_file *file = &model->files[0];

    for (uint32_t i = 1; i < model->file_count; i++)
        if (model->files[i].file.bytes > file->file.bytes)
            file = &model->files[i];
    return file;
}

/* The type of the mount that the file lies on: "ID … - TYPE SOURCE …" */
static void probe_file_system(struct tnd_probe *probe, int fd)
{
    struct statx info;
    char line[4096], start[32], *type;
    FILE *mounts;

    put_end(probe->file_system, sizeof(probe->file_system), tnd_file_system_name(tnd_file_system_of(fd)));
    if (tnd_file_system_of(fd) == TND_FS_OTHER)
        put_end(probe->file_system, sizeof(probe->file_system), "unknown");
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) < 0 || !(info.stx_mask & STATX_MNT_ID))
        return;
    snprintf(start, sizeof(start), "%llu ", (unsigned long long)info.stx_mnt_id);
    mounts = fopen("/proc/self/mountinfo", "re");
    while (mounts && fgets(line, sizeof(line), mounts)) {
        type = strncmp(line, start, strlen(start)) ? NULL : strstr(line, " - ");
        if (!type)
            continue;
        put(probe->file_system, sizeof(probe->file_system), type + 3, strcspn(type + 3, " \n"));
        break;
    }
    if (mounts)
        fclose(mounts);
}

/* One direct read of the file's first block: some file systems take O_DIRECT at open and refuse it here. */
static int try_direct_read(const struct tnd_io_file *file, struct tnd_err *err)
{
    void *block = aligned_alloc(file->alignment, file->alignment);
    int r;

    if (!block)
        return tnd_fail(err, -ENOMEM, "%s: no memory to try a direct read", file->path);
    r = pread(file->fd_direct, block, file->alignment, 0) < 0 ? -errno : 0;
    free(block);
    return r < 0 ? tnd_fail(err, r, "%s: the first direct read failed (%s)", file->path, strerror(-r)) : 0;
}

static void probe_direct(struct tnd_probe *probe, const struct tnd_model_file *source)
{
    struct tnd_io_file file = {.path = probe->file, .bytes = source->file.bytes, .fd = source->fd, .fd_direct = -1};
    struct tnd_err why = {0};
    char link[64];
    int fd;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", source->fd);
    fd = open(link, O_RDONLY | O_DIRECT | O_CLOEXEC);
    probe->direct_open = fd >= 0;
    if (fd >= 0)
        close(fd);
    probe->direct = tnd_file_open_direct(&file, TND_PLAN_ALIGNMENT, &why) >= 0 && try_direct_read(&file, &why) >= 0;
    if (probe->direct)
        probe->direct_alignment_bytes = file.alignment;
    else
        put(probe->direct_reason, sizeof(probe->direct_reason), why.text, strlen(why.text));
    tnd_file_close_direct(&file);
}

/* What a load would choose, by the code that chooses. */
static void probe_load(struct tnd_probe *probe, const struct tnd_model_file *source, uint32_t buffer_count)
{
    struct tnd_reasons reasons = {0};
    struct tnd_io_file file = {.source = source, .path = probe->file, .bytes = source->file.bytes,
                               .reasons = &reasons, .fd_direct = -1};
    struct tnd_io_options options = {.alignment = TND_PLAN_ALIGNMENT, .depth = DEPTH, .buffer_count = buffer_count,
                                     .allocator = tnd_allocator_or_default(NULL)};
    struct tnd_err why = {0};
    struct tnd_waker waker;
    struct tnd_io *io = NULL;
    int r = tnd_waker_init(&waker);

    options.waker = &waker;
    r = r < 0 ? tnd_fail(&why, r, "no descriptor for an eventfd: %s", strerror(-r))
              : tnd_io_create(&io, &options, &why);
    if (r >= 0)
        r = tnd_io_attach(io, &file, &why);
    if (r >= 0) {
        put_end(probe->load_engine, sizeof(probe->load_engine), file.engine->ops->name);
        probe->load_direct = file.direct && probe->direct;
    }
    for (uint32_t i = 0; i < reasons.count; i++) {
        size_t used = strlen(probe->load_reason);

        snprintf(probe->load_reason + used, sizeof(probe->load_reason) - used, "%s%s", used ? "; " : "",
                 reasons.text[i]);
    }
    if (r < 0)
        put(probe->load_reason, sizeof(probe->load_reason), why.text, strlen(why.text));
    tnd_file_close_direct(&file);
    tnd_io_destroy(&io);
    tnd_waker_finish(&waker);
}

static void probe_model(struct tnd_probe *probe, const struct tnd_model *model, uint32_t buffer_count)
{
    const struct tnd_model_file *file = largest(model);

    probe->cached_percent = cached_of(model);
    probe->file_count = model->file_count;
    probe->file_bytes = file->file.bytes;
    put_end(probe->file, sizeof(probe->file), file->file.path);
    probe_file_system(probe, file->fd);
    probe_direct(probe, file);
    probe_load(probe, file, buffer_count);
}

/* ---- All of it --------------------------------------------------------------------------------------------- */

static int probe_all(struct tnd_probe *probe, const struct tnd_model *model, struct tnd_err *err)
{
    const struct tnd_plan_sizes large = {.read_bytes = MODEL_BYTES};
    struct tnd_loader_options loader;
    struct tnd_mapping pool;
    char *text = malloc(TEXT_BYTES_MAX);
    uint32_t buffer_count;
    int r = tnd_loader_options_init(&loader, NULL, err);

    if (!text || (r == 0 && tnd_mapping_init(&pool, tnd_pool_start_bytes(&loader, &large, false), true) < 0))
        r = tnd_fail(err, -ENOMEM, "not enough memory to look what this machine allows");
    if (r == 0) {
        buffer_count = (uint32_t)(pool.bytes / loader.chunk_bytes);
        probe_machine(probe, text);
        probe_uring(probe, &pool, loader.chunk_bytes);
        if (model)
            probe_model(probe, model, buffer_count);
        tnd_mapping_finish(&pool);
    }
    free(text);
    return r;
}

int tnd_probe(const char *path, struct tnd_probe *ret_probe)
{
    struct tnd_probe probe = {0};
    struct tnd_model *model = NULL;
    struct tnd_err err = {0};
    int r = 0;

    if (!ret_probe || ret_probe->size < sizeof(ret_probe->size) || ret_probe->size > 65536) {
        tnd_fail(&err, -EINVAL, "tnd_probe.size: set it to sizeof(struct tnd_probe)");
        return tnd_err_publish(&err);
    }
    if (path)
        r = tnd_model_open(path, NULL, &model);
    if (r < 0)
        return r; /* its sentence is out */
    r = probe_all(&probe, model, &err);
    tnd_model_close(&model);
    if (r < 0)
        return tnd_err_publish(&err);
    probe.size = ret_probe->size;
    memset(ret_probe, 0, ret_probe->size); /* members that this library is too old for */
    memcpy(ret_probe, &probe, tnd_min(probe.size, sizeof(probe)));
    return 0;
}
