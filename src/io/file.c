/* SPDX-License-Identifier: Apache-2.0 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451 /* Linux 6.5 */
#endif

#define BTRFS_MAGIC 0x9123683E
#define OVERLAY_MAGIC 0x794C7630
#define SAMPLE_COUNT 16

void tnd_reasons_add(struct tnd_reasons *reasons, const char *format, ...)
{
    char text[TND_REASON_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (uint32_t i = 0; i < reasons->count; i++)
        if (!strcmp(reasons->text[i], text))
            return;
    if (reasons->count < TND_REASONS_MAX)
        memcpy(reasons->text[reasons->count++], text, sizeof(text));
}

enum tnd_file_system tnd_file_system_of(int fd)
{
    struct statfs info;

    if (fstatfs(fd, &info) < 0)
        return TND_FS_OTHER;
    switch ((unsigned long)info.f_type) {
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
        return TND_FS_TMPFS;
    case BTRFS_MAGIC:
        return TND_FS_BTRFS;
    case OVERLAY_MAGIC:
        return TND_FS_OVERLAY;
    default:
        return TND_FS_OTHER;
    }
}

const char *tnd_file_system_name(enum tnd_file_system file_system)
{
    static const char *const names[] = {"this file system", "tmpfs", "btrfs", "overlayfs"};

    return names[file_system];
}

/* One page at each of a few places that must not wait for the disk. */
static uint32_t cached_percent_by_sample(int fd, uint64_t bytes)
{
    uint32_t hits = 0;

    for (uint64_t i = 0; i < SAMPLE_COUNT; i++) {
        char byte;
        struct iovec one = {.iov_base = &byte, .iov_len = 1};

        hits += preadv2(fd, &one, 1, (off_t)(bytes / SAMPLE_COUNT * i), RWF_NOWAIT) == 1;
    }
    return hits * 100 / SAMPLE_COUNT;
}

uint32_t tnd_file_cached_percent(int fd, uint64_t bytes)
{
    struct {
        uint64_t offset, bytes;
    } range = {0, bytes};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } pages;
    uint64_t page_count = tnd_round_up(bytes, 4096) / 4096;

    if (!page_count)
        return 100;
    if (syscall(SYS_cachestat, fd, &range, &pages, 0) < 0)
        return cached_percent_by_sample(fd, bytes);
    return (uint32_t)(pages.cached * 100 / page_count);
}

/* What the file system says a direct read must be aligned to, 0 when it takes none. Where it says nothing the least
 * there is: only a read that goes on after a cut is aligned to that, and is refused if it is too little. */
static uint32_t alignment_of(int fd)
{
    struct statx info;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN)) {
        uint32_t memory, offset;

        /* The libc's struct may be older than the two fields: read them by their place in the kernel's ABI. */
        memcpy(&memory, (const char *)&info + 152, sizeof(memory));
        memcpy(&offset, (const char *)&info + 156, sizeof(offset));
        return memory && offset ? (uint32_t)tnd_max(memory, offset) : 0;
    }
    return 512;
}

int tnd_file_open_direct(struct tnd_io_file *file, uint32_t alignment_max, struct tnd_err *err)
{
    uint32_t alignment = alignment_of(file->fd);
    char link[64];
    int r;

    if (!alignment || alignment > alignment_max || !tnd_is_power_of_two(alignment))
        return tnd_fail(err, -EINVAL, "%s: the file system takes no direct reads of this file aligned to %u",
                        file->path, alignment_max);
    /* Through the descriptor: the path may lead elsewhere by now. */
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file->fd);
    file->fd_direct = open(link, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (file->fd_direct < 0) {
        r = -errno;
        if (r == -EMFILE || r == -ENFILE)
            return tnd_fail(err, r, "%s: no descriptor is left to open it for direct I/O", file->path);
        return tnd_fail(err, r, "%s: the file system refuses direct I/O at open (%s)", file->path, strerror(-r));
    }
    file->alignment = alignment;
    return 0;
}

void tnd_file_close_direct(struct tnd_io_file *file)
{
    if (file->fd_direct >= 0)
        close(file->fd_direct);
    file->fd_direct = -1;
    file->alignment = 1;
}

void tnd_file_forget(const struct tnd_io_file *file, uint64_t offset, uint64_t bytes, bool keep_cached)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t first = tnd_round_up(offset, page), end = tnd_round_down(tnd_min(offset + bytes, file->bytes), page);

    if (first >= end) /* both of its pages are its neighbours' too */
        return;
    if (file->map)
        madvise(file->map + first, end - first, MADV_DONTNEED);
    if (!keep_cached && !file->direct)
        posix_fadvise(file->fd, (off_t)first, (off_t)(end - first), POSIX_FADV_DONTNEED);
}

int tnd_file_check_unchanged(const struct tnd_model_file *file, struct tnd_err *err)
{
    const struct tnd_file_identity *then = &file->identity;
    struct stat now;

    if (fstat(file->fd, &now) < 0)
        return tnd_fail(err, -EIO, "%s: cannot be looked at after the load: %s", file->file.path, strerror(errno));
    if (now.st_size != then->bytes)
        return tnd_fail(err, -EBADMSG, "%s: changed while it was loaded: expected %lld bytes, found %lld",
                        file->file.path, (long long)then->bytes, (long long)now.st_size);
    if (now.st_mtim.tv_sec != then->modified.tv_sec || now.st_mtim.tv_nsec != then->modified.tv_nsec)
        return tnd_fail(err, -EBADMSG, "%s: written to while it was loaded", file->file.path);
    return 0;
}

int tnd_file_check_identity(const struct tnd_model_file *file, struct tnd_err *err)
{
    const struct tnd_file_identity *then = &file->identity;
    int r = tnd_file_check_unchanged(file, err);
    struct stat now;

    /* A file removed meanwhile was still read whole through its descriptor; another in its place is not this model. */
    if (r >= 0 && stat(file->file.path, &now) == 0 && (now.st_ino != then->inode || now.st_dev != then->device))
        return tnd_fail(err, -EBADMSG, "%s: replaced by another file while it was loaded", file->file.path);
    return r;
}
