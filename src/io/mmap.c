/* SPDX-License-Identifier: Apache-2.0 */

/* Reads that are none: the buffer is the file's own mapping, and MADV_POPULATE_READ brings its pages. It fails where a
 * touch would be a signal. What is to be converted is read into a buffer, as every engine does it: nothing of ours
 * touches a mapping, which a file that is cut turns into a signal. */

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "io/io.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* The pieces that lie elsewhere are read, not copied from the mapping: a file that is cut in between would be a signal.
 * Returns 0 or what ended it, as run() does. */
static int64_t read_strays(const struct tnd_io_read *read)
{
    for (uint32_t i = 0; i < read->span_count; i++) {
        const struct tnd_span *span = &read->spans[i];
        uint32_t done = tnd_span_is_mapped(read, span) ? span->bytes : 0;

        while (done < span->bytes && !atomic_load(&read->given_up)) {
            ssize_t got = pread(read->file->fd, span->destination + done, span->bytes - done,
                                (off_t)(read->offset + span->window_offset + done));

            if (got <= 0)
                return got < 0 ? -errno : -ENODATA;
            done += (uint32_t)got;
        }
    }
    return 0;
}

static int64_t populate(struct tnd_io_read *read)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = tnd_round_down((uintptr_t)read->buffer, page);
    uintptr_t end = tnd_round_up((uintptr_t)read->buffer + read->bytes_wanted, page);
    struct stat now;
    int64_t r;

    if (madvise((void *)first, end - first, MADV_POPULATE_READ) == 0) {
        r = read_strays(read);
        if (r == 0)
            return read->bytes_wanted - read->bytes_done;
        return r == -ENODATA ? 0 : r;
    }
    if (errno != EFAULT)
        return -errno;
    /* What a touch would raise SIGBUS for: the file ends before, or its device fails. */
    return fstat(read->file->fd, &now) == 0 && (uint64_t)now.st_size < read->offset + read->bytes_wanted ? 0 : -EIO;
}

static int64_t run(struct tnd_io_read *read)
{
    bool mapped = read->file->map && read->buffer == read->file->map + read->offset;

    return mapped ? populate(read) : tnd_io_pread(read);
}

int tnd_io_mmap_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err)
{
    if (madvise(NULL, 0, MADV_POPULATE_READ) < 0 && errno == EINVAL)
        return tnd_fail(err, -ENODEV, "this kernel cannot bring the pages of a mapping in one call (Linux 5.14 can)");
    return tnd_io_threaded_create(ret_engine, options, "mmap", false, run, err);
}

int tnd_file_map(struct tnd_io_file *file, struct tnd_err *err)
{
    void *map = mmap(NULL, file->bytes, PROT_READ, MAP_SHARED, file->source->fd, 0);

    if (map == MAP_FAILED)
        return tnd_fail(err, errno == ENODEV ? -ENODEV : -ENOMEM, "%s: cannot be mapped, %llu bytes", file->path,
                        (unsigned long long)file->bytes);
    file->map = map;
    return 0;
}

void tnd_file_unmap(struct tnd_io_file *file)
{
    if (file->map)
        munmap(file->map, file->bytes);
    file->map = NULL;
}
