/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_IO_FILE_H
#define TND_IO_FILE_H

/* One file as a load reads it: descriptors, direct I/O and its alignment, what the page cache holds, what it lies
 * on. */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

#define TND_REASONS_MAX 8
#define TND_REASON_BYTES 384

/* Why things went the way they went, each once, in order. */
struct tnd_reasons {
    char text[TND_REASONS_MAX][TND_REASON_BYTES];
    uint32_t count;
};

void tnd_reasons_add(struct tnd_reasons *reasons, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct tnd_io_engine;

struct tnd_io_file {
    /* The caller's. */
    const struct tnd_model_file *source; /* NULL for a test's engine */
    const char *path;
    uint64_t bytes;
    struct tnd_reasons *reasons;
    uint8_t *map; /* [bytes] for the mmap engine: tnd_file_map() */

    /* io's own, to be read. */
    int fd;         /* the model's: buffered */
    int fd_direct;  /* -1 when there is none */
    bool direct;    /* reads go past the page cache */
    uint32_t alignment; /* of offsets, lengths and addresses of direct reads; 1 when buffered */
    struct tnd_io_engine *engine; /* NULL before it is attached */
};

enum tnd_file_system { TND_FS_OTHER, TND_FS_TMPFS, TND_FS_BTRFS, TND_FS_OVERLAY };

enum tnd_file_system tnd_file_system_of(int fd);
const char *tnd_file_system_name(enum tnd_file_system file_system);

/* Per cent of the file's pages that the page cache holds, by cachestat or, without it, by sample; 0 when nobody
 * says. */
uint32_t tnd_file_cached_percent(int fd, uint64_t bytes);

/* Opens the file a second time past the page cache; its reads must not need more than alignment_max. Reads nothing:
 * a disk that hangs must not hang the driver, and a refusal that comes with the first read is dealt with there.
 * Sets fd_direct and alignment, or says why not with what the file system answered. */
int tnd_file_open_direct(struct tnd_io_file *file, uint32_t alignment_max, struct tnd_err *err);
void tnd_file_close_direct(struct tnd_io_file *file);

/* Maps all of the file for reading. -ENODEV when its file system cannot, -ENOMEM. */
int tnd_file_map(struct tnd_io_file *file, struct tnd_err *err);
void tnd_file_unmap(struct tnd_io_file *file);

/* A range is not needed for a while: its pages leave this process's mapping and, unless the cache is to keep them, the
 * page cache. */
void tnd_file_forget(const struct tnd_io_file *file, uint64_t offset, uint64_t bytes, bool keep_cached);

/* -EBADMSG when the file is no longer what it was at open: cut, grown or written to. Looks at its descriptor only: a
 * path may lead to a server that does not answer. */
int tnd_file_check_unchanged(const struct tnd_model_file *file, struct tnd_err *err);
/* The same, or another file at its path. */
int tnd_file_check_identity(const struct tnd_model_file *file, struct tnd_err *err);

#endif
