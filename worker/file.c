/* SPDX-License-Identifier: Apache-2.0 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALUES_MAX (8u << 20) /* a tokenizer of 2^20 tokens has half as many */

/* Returns bytes, or -EIO, -EFBIG. */
static ssize_t read_all(int fd, char *text, size_t bytes_max)
{
    size_t have = 0;
    ssize_t got = 1;

    while (got > 0 && have <= bytes_max) {
        got = read(fd, text + have, bytes_max + 1 - have);
        have += got > 0 ? (size_t)got : 0;
    }
    return got < 0 ? -EIO : have > bytes_max ? -EFBIG : (ssize_t)have;
}

static int read_open(int fd, const char *path, size_t bytes_max, char **ret_text, size_t *ret_bytes,
                     struct failure *failure)
{
    struct stat status;
    ssize_t bytes;
    char *text;

    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return fail(failure, -ENOENT, "%s is no regular file", path);
    if (status.st_size > (off_t)bytes_max)
        return fail(failure, -EFBIG, "%s has %lld bytes, at most %zu", path, (long long)status.st_size, bytes_max);
    text = malloc((size_t)status.st_size + 2);
    if (!text)
        return fail(failure, -ENOMEM, "no memory for the %lld bytes of %s", (long long)status.st_size, path);
    bytes = read_all(fd, text, (size_t)status.st_size);
    if (bytes < 0) {
        free(text);
        return fail(failure, (int)bytes, bytes == -EIO ? "%s cannot be read" : "%s grows while it is read", path);
    }
    text[bytes] = '\0';
    *ret_text = text;
    *ret_bytes = (size_t)bytes;
    return 0;
}

int file_read(const char *folder, const char *name, size_t bytes_max, char **ret_text, size_t *ret_bytes,
              struct failure *failure)
{
    char path[PATH_MAX];
    int fd, r;

    if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
        return fail(failure, -ENOENT, "the path of %s has more than %zu bytes", name, sizeof(path) - 1);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would be waited for */
    if (fd < 0)
        return fail(failure, errno == ENOENT || errno == EACCES || errno == ENOMEM ? -errno : -EIO, "%s: %s", path,
                    strerror(errno));
    r = read_open(fd, path, bytes_max, ret_text, ret_bytes, failure);
    close(fd);
    return r;
}

/* At least as many as there are values: inside strings these count too. */
static size_t count_values(const char *text, size_t bytes)
{
    size_t count = 0;

    for (size_t i = 0; i < bytes; i++)
        count += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return count;
}

int file_read_json(const char *folder, const char *name, size_t bytes_max, cJSON **ret_root, struct failure *failure)
{
    size_t bytes;
    char *text;
    cJSON *root;
    int r = file_read(folder, name, bytes_max, &text, &bytes, failure);

    if (r < 0)
        return r;
    if (count_values(text, bytes) > VALUES_MAX) {
        free(text);
        return fail(failure, -EFBIG, "%s/%s has more than %u values", folder, name, VALUES_MAX);
    }
    root = cJSON_ParseWithOpts(text, NULL, true);
    free(text);
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return fail(failure, -EBADMSG, "%s/%s holds no object of JSON", folder, name);
    }
    *ret_root = root;
    return 0;
}
