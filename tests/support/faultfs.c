/* SPDX-License-Identifier: Apache-2.0 */

/* A file system of one file that misbehaves: faultfs FILE FAULT[=OFFSET] MOUNTPOINT, in the foreground. It shows FILE
 * under its own name.
 *
 *   none          behaves
 *   eio=N         reads of byte N fail with EIO
 *   eio-once=N    the first of them does, straight: no read-ahead of the kernel takes it
 *   short         reads give less than they are asked for, straight (FOPEN_DIRECT_IO), so that the reader sees it
 *   hang=N        a read of byte N is never answered, nor is anything after it
 *   end=N         the file says its size but ends at byte N
 *   no-direct     refuses O_DIRECT at open
 *   no-direct-read   takes O_DIRECT at open and refuses the read with EINVAL */

#define FUSE_USE_VERSION 31

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int source;
static struct stat source_status;
static const char *name, *fault;
static off_t fault_at;
static bool fault_over;

static int look(const char *path, struct stat *status, struct fuse_file_info *file)
{
    (void)file;
    if (strcmp(path, "/") == 0) {
        memset(status, 0, sizeof(*status));
        status->st_mode = S_IFDIR | 0755;
        status->st_nlink = 2;
        return 0;
    }
    if (strcmp(path + 1, name) != 0)
        return -ENOENT;
    *status = source_status;
    status->st_mode = S_IFREG | 0644;
    return 0;
}

static int list(const char *path, void *entries, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
                enum fuse_readdir_flags flags)
{
    (void)path, (void)offset, (void)file, (void)flags;
    fill(entries, name, NULL, 0, 0);
    return 0;
}

static int open_it(const char *path, struct fuse_file_info *file)
{
    if (strcmp(path + 1, name) != 0)
        return -ENOENT;
    if (strcmp(fault, "no-direct") == 0 && (file->flags & O_DIRECT))
        return -EINVAL;
    file->direct_io = strcmp(fault, "short") == 0 || strcmp(fault, "eio-once") == 0;
    file->fh = (file->flags & O_DIRECT) != 0;
    return 0;
}

static int read_it(const char *path, char *buffer, size_t bytes, off_t offset, struct fuse_file_info *file)
{
    ssize_t got;

    (void)path;
    if (strcmp(fault, "eio") == 0 && offset <= fault_at && (off_t)(offset + (off_t)bytes) > fault_at)
        return -EIO;
    if (strcmp(fault, "eio-once") == 0 && !fault_over && offset <= fault_at &&
        (off_t)(offset + (off_t)bytes) > fault_at) {
        fault_over = true;
        return -EIO;
    }
    while (strcmp(fault, "hang") == 0 && offset <= fault_at && (off_t)(offset + (off_t)bytes) > fault_at)
        pause();
    if (strcmp(fault, "no-direct-read") == 0 && file->fh)
        return -EINVAL;
    if (strcmp(fault, "end") == 0)
        bytes = offset >= fault_at ? 0 : (size_t)(offset + (off_t)bytes > fault_at ? fault_at - offset : (off_t)bytes);
    if (strcmp(fault, "short") == 0 && bytes > 4096)
        bytes = bytes / 3 + 1;
    got = pread(source, buffer, bytes, offset);
    return got < 0 ? -errno : (int)got;
}

static const struct fuse_operations operations = {
    .getattr = look,
    .readdir = list,
    .open = open_it,
    .read = read_it,
};

int main(int argc, char **argv)
{
    char *arguments[] = {argv[0], "-f", "-s", argc > 3 ? argv[3] : NULL, NULL};
    char *equals;

    if (argc != 4)
        return 2;
    source = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (source < 0 || fstat(source, &source_status) < 0)
        return 1;
    name = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
    fault = argv[2];
    equals = strchr(argv[2], '=');
    if (equals) {
        *equals = 0;
        fault_at = (off_t)strtoll(equals + 1, NULL, 10);
    }
    return fuse_main(4, arguments, &operations, NULL);
}
