/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "folder.h"
#include "format/format.h"
#include "format/set.h"
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

/* Maps room for what may have to be read of the file's front, and reads its first bytes. */
static int start_header(struct file_header *source, struct tnd_err *err)
{
    struct tnd_model_file *file = source->file;
    int r;

    if (!file->file.bytes)
        return tnd_fail_at(err, -EBADMSG, file->file.path, 0, "the file is empty, expected a model");
    r = tnd_mapping_init(&file->header, tnd_min(file->file.bytes, TND_HEADER_BYTES_MAX), false);
    if (r < 0)
        return tnd_fail(err, r, "%s: not enough memory for its header", file->file.path);
    source->header.data = file->header.data;
    return fetch(&source->header, 1, err);
}

static struct file_header header_of(struct tnd_model_file *file)
{
    return (struct file_header){
        .header = {.file_bytes = file->file.bytes, .path = file->file.path, .fetch = fetch},
        .file = file,
    };
}

/* only: the format that it must be of, or NULL. */
static int open_file(struct tnd_model *model, uint32_t file_index, uint32_t part_count,
                     const struct tnd_format *only, struct tnd_err *err)
{
    struct tnd_model_file *file = &model->files[file_index];
    const struct tnd_format *format;
    struct file_header source;
    int r = open_regular(file, err);

    if (r < 0)
        return r;
    source = header_of(file);
    source.header.part = file_index + 1;
    source.header.part_count = part_count;
    r = start_header(&source, err);
    if (r < 0)
        return r;
    format = tnd_format_find(&source.header);
    if (!format)
        return tnd_fail_at(err, -EBADMSG, file->file.path, 0,
                           "expected \"GGUF\" or the length of a safetensors header, found neither");
    if (only && format != only)
        return tnd_fail_at(err, -EBADMSG, file->file.path, 0, "a shard of an index of %s, found %s", only->name,
                           format->name);
    r = format->parse(&source.header, model, file_index, err);
    if (file_index) /* only the first file's metadata are kept, and names are copies */
        tnd_mapping_finish(&file->header);
    return r;
}

static void close_file(struct tnd_model_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
    tnd_mapping_finish(&file->header);
}

/* ---- Which files ------------------------------------------------------------------------------------------- */

static int add_files(struct tnd_model *model, const char *path, uint32_t count, struct tnd_err *err)
{
    model->files = tnd_arena_alloc(&model->arena, count, sizeof(*model->files));
    if (!model->files)
        return tnd_fail(err, -ENOMEM, "%s: not enough memory to list %u files", path, count);
    for (uint32_t i = 0; i < count; i++)
        model->files[i].fd = -1;
    model->file_count = count;
    return 0;
}

static int read_index(struct tnd_model *model, const char *path, struct tnd_index *index, struct tnd_err *err)
{
    struct tnd_model_file file = {.file.path = path, .fd = -1};
    int r = open_regular(&file, err);

    if (r == 0) {
        struct file_header source = header_of(&file);

        r = start_header(&source, err);
        if (r == 0)
            r = tnd_index_parse(index, &source.header, &model->arena, err);
    }
    close_file(&file);
    return r;
}

static int list_shards(struct tnd_model *model, const char *path, struct tnd_index *index, struct tnd_err *err)
{
    size_t folder_bytes = strrchr(path, '/') ? (size_t)(strrchr(path, '/') + 1 - path) : 0;
    int r = read_index(model, path, index, err);

    if (r == 0)
        r = add_files(model, path, index->file_count, err);
    for (uint32_t i = 0; i < model->file_count && r == 0; i++) {
        char *shard = tnd_arena_alloc(&model->arena, folder_bytes + strlen(index->files[i]) + 1, 1);

        if (!shard)
            return tnd_fail(err, -ENOMEM, "%s: not enough memory for the path of a shard", path);
        memcpy(shard, path, folder_bytes);
        memcpy(shard + folder_bytes, index->files[i], strlen(index->files[i]));
        model->files[i].file.path = shard;
    }
    return r;
}

static int list_parts(struct tnd_model *model, const char *path, uint32_t count, struct tnd_err *err)
{
    int r;

    if (count > TND_FILES_MAX)
        return tnd_fail(err, -EFBIG, "%s: a model of %u files, expected at most %u", path, count, TND_FILES_MAX);
    r = add_files(model, path, count, err);
    for (uint32_t i = 0; i < count && r == 0; i++) {
        model->files[i].file.path = count > 1 ? tnd_split_path(&model->arena, path, i + 1)
                                              : tnd_arena_string(&model->arena, path, strlen(path));
        if (!model->files[i].file.path)
            r = tnd_fail(err, -ENOMEM, "%s: not enough memory for its path", path);
    }
    return r;
}

/* Lists the files that a path stands for, opens them all, and checks the set. */
static int open_all(struct tnd_model *model, const char *path, struct tnd_err *err)
{
    struct tnd_index index = {0};
    uint32_t part, part_count = 0;
    struct stat status;
    int r = 0;

    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        r = tnd_folder_find(&model->arena, path, &path, err);
    if (r < 0)
        return r;
    if (tnd_name_ends(path, ".index.json")) {
        r = list_shards(model, path, &index, err);
    } else {
        if (!tnd_split_name(path, &part, &part_count))
            part_count = 0;
        r = list_parts(model, path, part_count ? part_count : 1, err);
    }
    for (uint32_t i = 0; r == 0 && i < model->file_count; i++)
        r = open_file(model, i, part_count, index.path ? &tnd_format_safetensors : NULL, err);
    return r == 0 && index.path ? tnd_index_check(&index, model, err) : r;
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
    r = open_all(model, path, &err);
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
    for (uint32_t i = 0; i < closed->file_count; i++)
        close_file(&closed->files[i]);
    allocator = closed->arena.allocator;
    tnd_arena_finish(&closed->arena);
    tnd_free(&allocator, closed);
    *model = NULL;
}
