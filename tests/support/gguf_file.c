/* SPDX-License-Identifier: Apache-2.0 */
#include "support/gguf_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT 32
#define TYPE_I8 24

static void put(FILE *file, const void *bytes, size_t count)
{
    if (fwrite(bytes, 1, count, file) != count)
        abort();
}

static void put_u32(FILE *file, uint32_t value)
{
    put(file, &value, sizeof(value));
}

static void put_u64(FILE *file, uint64_t value)
{
    put(file, &value, sizeof(value));
}

static void pad(FILE *file)
{
    while (ftell(file) % ALIGNMENT)
        fputc(0, file);
}

uint8_t gguf_file_byte(uint32_t tensor, uint64_t index)
{
    return (uint8_t)((index * 0x9E3779B1u >> 13) ^ index ^ tensor * 31);
}

void gguf_file_write(const char *path, const struct gguf_file_tensor *tensors, uint32_t count)
{
    FILE *file = fopen(path, "wb");
    uint64_t offset = 0;

    if (!file)
        abort();
    put(file, "GGUF", 4);
    put_u32(file, 3);
    put_u64(file, count);
    put_u64(file, 0);
    for (uint32_t i = 0; i < count; i++) {
        put_u64(file, strlen(tensors[i].name));
        put(file, tensors[i].name, strlen(tensors[i].name));
        put_u32(file, 1);
        put_u64(file, tensors[i].bytes);
        put_u32(file, TYPE_I8);
        put_u64(file, offset);
        offset = (offset + tensors[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *bytes = malloc(tensors[i].bytes + 1);

        pad(file);
        for (uint64_t b = 0; b < tensors[i].bytes; b++)
            bytes[b] = gguf_file_byte(i, b);
        put(file, bytes, tensors[i].bytes);
        free(bytes);
    }
    fflush(file);
    fsync(fileno(file));
    posix_fadvise(fileno(file), 0, 0, POSIX_FADV_DONTNEED);
    fclose(file);
}
