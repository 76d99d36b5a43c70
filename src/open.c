/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "format/format.h"
#include "model/model.h"
#include "options.h"

/* The header is read in steps that double: small models cost one read, long vocabularies a few, and no step reads
 * much more than was there already. */
#define STEP_BYTES_MIN ((uint64_t)64 << 10)
#define STEP_BYTES_MAX ((uint64_t)4 << 20)

/* A header that is fetched from an open file; a format sees its first member. */
struct file_header {
    struct tnd_header header;
    struct tnd_model_file *file;
};

static int fail_errno(struct tnd_err *err, const char *path, const char *what, int error)
{
    return tnd_fail(err, tnd_errno_public(-error), "%s: %s: %s", path, what, strerror(error));
}

/* Reads until `until` is there or the file is over; -EIO says where. */
static int read_until(struct file_header *source, uint64_t until, struct tnd_err *err)
{
    struct tnd_header *header = &source->header;

    while (header->have < until) {
        ssize_t got = pread(source->file->fd, source->file->header.data + header->have, until - header->have,
                            (off_t)header->have);
        int error = errno;

        if (got < 0 && error == EINTR)
            continue;
        if (got < 0)
            return tnd_fail_at(err, tnd_errno_public(-error), header->path, header->have, "cannot read here: %s",
                               strerror(error));
        if (got == 0)
            return tnd_fail_at(err, -EBADMSG, header->path, header->have,
                               "the file ends here, expected the %llu bytes it had when it was opened",
                               (unsigned long long)header->file_bytes);
        header->have += (uint64_t)got;
    }
    return 0;
}

static int fetch(struct tnd_header *header, uint64_t need, struct tnd_err *err)
{
    struct file_header *source = (struct file_header *)header;
    uint64_t step = tnd_min(tnd_max(header->have, STEP_BYTES_MIN), STEP_BYTES_MAX);

    if (need > TND_HEADER_BYTES_MAX)
        return tnd_fail_at(err, -EFBIG, header->path, header->have, "a header of %llu bytes, expected at most %llu",
                           (unsigned long long)need, (unsigned long long)TND_HEADER_BYTES_MAX);
    return read_until(source, tnd_min(tnd_max(need, header->have + step), source->file->header.bytes), err);
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode) ? "folder" : S_ISFIFO(mode) ? "FIFO" : S_ISSOCK(mode) ? "socket" : "device";
}

/* Opens without waiting for a writer, without becoming anybody's terminal. */
static int open_regular(struct tnd_model_file *file, struct tnd_err *err)
{
    const char *path = file->file.path;
    struct stat status;

    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->fd < 0)
        return fail_errno(err, path, "cannot open", errno);
    if (fstat(file->fd, &status) < 0)
        return fail_errno(err, path, "cannot ask for its size", errno);
    if (!S_ISREG(status.st_mode))
        return tnd_fail(err, -ENOENT, "%s: is a %s, not a regular file", path, kind_of(status.st_mode));
    file->file.bytes = (uint64_t)status.st_size;
    file->identity = (struct tnd_file_identity){
        .device = status.st_dev, .inode = status.st_ino, .bytes = status.st_size, .modified = status.st_mtim};
    return 0;
}

static int read_header(struct tnd_model *model, uint32_t file_index, struct tnd_err *err)
{
    struct tnd_model_file *file = &model->files[file_index];
    struct file_header source = {
        .header = {.file_bytes = file->file.bytes, .path = file->file.path, .fetch = fetch}, .file = file};
    const struct tnd_format *format;
    int r;

    if (!file->file.bytes)
        return tnd_fail_at(err, -EBADMSG, file->file.path, 0, "the file is empty, expected a model");
    r = tnd_mapping_init(&file->header, tnd_min(file->file.bytes, TND_HEADER_BYTES_MAX));
    if (r < 0)
        return tnd_fail(err, r, "%s: not enough memory for its header", file->file.path);
    source.header.data = file->header.data;
    r = fetch(&source.header, 1, err);
    if (r < 0)
        return r;
    format = tnd_format_find(&source.header);
    if (!format)
        return tnd_fail_at(err, -EBADMSG, file->file.path, 0,
                           "expected \"GGUF\" or the length of a safetensors header, found neither");
    return format->parse(&source.header, model, file_index, err);
}

static int open_file(struct tnd_model *model, uint32_t file_index, struct tnd_err *err)
{
    int r = open_regular(&model->files[file_index], err);

    return r < 0 ? r : read_header(model, file_index, err);
}

/* The model's list of files: the one of that path. */
static int list_files(struct tnd_model *model, const char *path, struct tnd_err *err)
{
    model->files = tnd_arena_alloc(&model->arena, 1, sizeof(*model->files));
    if (!model->files)
        return tnd_fail(err, -ENOMEM, "%s: not enough memory to list it", path);
    model->files[0].fd = -1;
    model->file_count = 1;
    model->files[0].file.path = tnd_arena_string(&model->arena, path, strlen(path));
    if (!model->files[0].file.path)
        return tnd_fail(err, -ENOMEM, "%s: not enough memory for its path", path);
    return 0;
}

int tnd_model_open(const char *path, const struct tnd_model_options *options, struct tnd_model **ret_model)
{
    uint64_t started_ns = tnd_now_ns();
    struct tnd_model_options chosen;
    struct tnd_allocator allocator;
    struct tnd_model *model = NULL;
    struct tnd_err err = {0};
    int r;

    r = path && ret_model ? tnd_options_copy(&chosen, sizeof(chosen), options, "tnd_model_options", &err)
                          : tnd_fail(&err, -EINVAL, "tnd_model_open() expects a path and a place for the model");
    if (r < 0)
        return tnd_err_publish(&err);
    allocator = tnd_allocator_or_default(chosen.allocator);
    model = tnd_zalloc(&allocator, 1, sizeof(*model));
    if (!model) {
        tnd_fail(&err, -ENOMEM, "%s: not enough memory for a model", path);
        return tnd_err_publish(&err);
    }
    model->arena.allocator = allocator;
    model->log = (struct tnd_log){.write = chosen.log, .cookie = chosen.log_cookie};
    r = list_files(model, path, &err);
    for (uint32_t i = 0; r == 0 && i < model->file_count; i++)
        r = open_file(model, i, &err);
    if (r < 0) {
        tnd_model_close(&model);
        return tnd_err_publish(&err);
    }
    model->open_ns = tnd_now_ns() - started_ns;
    *ret_model = model;
    return 0;
}

void tnd_model_close(struct tnd_model **model)
{
    struct tnd_model *closed = model ? *model : NULL;
    struct tnd_allocator allocator;

    if (!closed)
        return;
    for (uint32_t i = 0; i < closed->file_count; i++) {
        if (closed->files[i].fd >= 0)
            close(closed->files[i].fd);
        tnd_mapping_finish(&closed->files[i].header);
    }
    allocator = closed->arena.allocator;
    tnd_arena_finish(&closed->arena);
    tnd_free(&allocator, closed);
    *model = NULL;
}
