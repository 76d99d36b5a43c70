/* SPDX-License-Identifier: Apache-2.0 */
#include "whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

#define LINKS_MAX 40 /* as the kernel follows */
#define TEMPORARY_TRIES 100

struct temporary {
    FILE *out;
    bool named;
    char name[64]; /* as long as no name of the caller's makes it: only one that is too long itself is refused */
};

static int fail_place(const struct whole_file *file, int error)
{
    bool absent = error == ENOENT || error == ENOTDIR || error == EACCES || error == EPERM || error == EROFS ||
                  error == ELOOP || error == ENAMETOOLONG || error == EISDIR;

    return fail(absent ? EXIT_NOT_FOUND : EXIT_FAILED, "cannot write %s %s: %s", file->what, file->path,
                strerror(error));
}

/* ---- The place --------------------------------------------------------------------------------------------- */

/* Puts what a link says in the place of its last component, or of all when it is absolute. */
static int replace_end(char path[PATH_MAX], const char *link)
{
    char *slash = strrchr(path, '/');
    char *end = link[0] == '/' || !slash ? path : slash + 1;

    if (strlen(link) >= (size_t)(path + PATH_MAX - end))
        return -ENAMETOOLONG;
    memcpy(end, link, strlen(link) + 1);
    return 0;
}

/* Also where the last link leads to nothing yet, which realpath() does not tell. */
static int follow_links(char path[PATH_MAX])
{
    char link[PATH_MAX];

    for (int i = 0; i < LINKS_MAX; i++) {
        ssize_t bytes = readlink(path, link, sizeof(link) - 1);

        if (bytes < 0)
            return errno == EINVAL || errno == ENOENT ? 0 : -errno; /* no link; nothing */
        link[bytes] = '\0';
        if (replace_end(path, link) < 0)
            return -ENAMETOOLONG;
    }
    return -ELOOP;
}

static int open_folder(struct whole_file *file, char path[PATH_MAX])
{
    char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;

    if (name[0] == '\0' || strlen(name) > NAME_MAX)
        return name[0] == '\0' ? -EISDIR : -ENAMETOOLONG;
    memcpy(file->name, name, strlen(name) + 1);
    if (slash)
        slash[1] = '\0';
    file->folder = open(slash ? path : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return file->folder < 0 || faccessat(file->folder, ".", W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

int whole_file_prepare(struct whole_file *file, const char *what, const char *path)
{
    char target[PATH_MAX];
    struct stat status;
    int r;

    *file = (struct whole_file){.what = what, .path = path, .folder = -1};
    if (path[0] == '\0' || strlen(path) >= sizeof(target))
        return fail_place(file, path[0] == '\0' ? ENOENT : ENAMETOOLONG);
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return fail(EXIT_NOT_FOUND, "cannot write %s %s: it is there and no regular file", what, path);
    memcpy(target, path, strlen(path) + 1);
    r = follow_links(target);
    if (r == 0)
        r = open_folder(file, target);
    return r < 0 ? fail_place(file, -r) : 0;
}

/* ---- Writing ----------------------------------------------------------------------------------------------- */

/* The path that gives a file without a name one. */
static void own_path(int fd, char *path, size_t path_bytes)
{
    snprintf(path, path_bytes, "/proc/self/fd/%d", fd);
}

/* Calls make() with one name after the other until one is free. Returns a descriptor or 0, or -1 with errno. */
static int try_names(struct temporary *temporary, int (*make)(const struct whole_file *file, const char *name, int fd),
                     const struct whole_file *file, int fd)
{
    int made = -1;

    for (int i = 0; i < TEMPORARY_TRIES && made < 0; i++) {
        snprintf(temporary->name, sizeof(temporary->name), ".tundish-%ld-%d.tmp", (long)getpid(), i);
        made = make(file, temporary->name, fd);
        if (made < 0 && errno != EEXIST)
            break;
    }
    temporary->named = made >= 0;
    return made;
}

static int make_new(const struct whole_file *file, const char *name, int fd)
{
    (void)fd;
    return openat(file->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

static int make_link(const struct whole_file *file, const char *name, int fd)
{
    char path[64];

    own_path(fd, path, sizeof(path));
    return linkat(AT_FDCWD, path, file->folder, name, AT_SYMLINK_FOLLOW);
}

/* Without a name where that can be had, and given one later. */
static int temporary_open(struct temporary *temporary, const struct whole_file *file)
{
    int fd = openat(file->folder, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
    char path[64];

    own_path(fd, path, sizeof(path));
    if (fd >= 0 && access(path, F_OK) < 0) { /* no /proc */
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        fd = try_names(temporary, make_new, file, -1);
    if (fd < 0)
        return -errno;
    temporary->out = fdopen(fd, "w");
    if (temporary->out)
        return 0;
    close(fd);
    return -ENOMEM;
}

/* All of it on the disk. */
static int settle(FILE *out)
{
    if (fflush(out) != 0 || fsync(fileno(out)) < 0)
        return -errno;
    return ferror(out) ? -EIO : 0; /* at an earlier flush, whose errno is gone */
}

/* A link cannot take the place of a file, a new name can. */
static int publish(struct temporary *temporary, const struct whole_file *file)
{
    if (!temporary->named && try_names(temporary, make_link, file, fileno(temporary->out)) < 0)
        return -errno;
    if (renameat(file->folder, temporary->name, file->folder, file->name) < 0)
        return -errno;
    temporary->named = false;
    return 0;
}

/* The name, too, has to survive a loss of power; a file system that cannot say so has done what it can. */
static void sync_folder(const struct whole_file *file)
{
    int fd = openat(file->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int whole_file_write(const struct whole_file *file, void (*write)(FILE *out, const void *cookie), const void *cookie)
{
    struct temporary temporary = {0};
    int r = temporary_open(&temporary, file);

    if (r == 0) {
        write(temporary.out, cookie);
        r = settle(temporary.out);
        if (r == 0)
            r = publish(&temporary, file);
        fclose(temporary.out); /* what could fail has been done */
    }
    if (temporary.named)
        unlinkat(file->folder, temporary.name, 0);
    if (r < 0)
        return fail_place(file, -r);
    sync_folder(file);
    return 0;
}

void whole_file_finish(struct whole_file *file)
{
    if (file->folder >= 0)
        close(file->folder);
    *file = (struct whole_file)WHOLE_FILE_NONE;
}
