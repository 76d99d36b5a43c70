/* SPDX-License-Identifier: Apache-2.0 */
#include "support/known_file.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 167 + (offset >> 9) * 13 + (offset >> 17));
}

struct tnd_model_file known_file(uint64_t bytes)
{
    char path[256];
    struct tnd_model_file file = {.fd = -1};
    uint8_t *content = malloc(bytes + 1);

    snprintf(path, sizeof(path), "%s/tundish-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    file.fd = mkstemp(path);
    ck_assert_int_ge(file.fd, 0);
    unlink(path);
    for (uint64_t i = 0; i < bytes; i++)
        content[i] = byte_at(i);
    ck_assert_int_eq(write(file.fd, content, bytes), (ssize_t)bytes);
    free(content);
    fsync(file.fd);
    posix_fadvise(file.fd, 0, 0, POSIX_FADV_DONTNEED);
    file.file = (struct tnd_file){.path = "test file", .bytes = bytes};
    return file;
}

void known_bytes(const uint8_t *buffer, uint64_t offset, uint32_t bytes)
{
    uint32_t i = 0;

    while (i < bytes && buffer[i] == byte_at(offset + i))
        i++;
    ck_assert_msg(i == bytes, "byte %llu", (unsigned long long)offset + i);
}
