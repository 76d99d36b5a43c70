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

static void put_head(FILE *file, uint64_t tensor_count)
{
    put(file, "GGUF", 4);
    put_u32(file, 3);
    put_u64(file, tensor_count);
    put_u64(file, 0);
}

static void put_info(FILE *file, const char *name, uint32_t type, uint64_t elements, uint64_t offset)
{
    put_u64(file, strlen(name));
    put(file, name, strlen(name));
    put_u32(file, 1);
    put_u64(file, elements);
    put_u32(file, type);
    put_u64(file, offset);
}

static void put_data(FILE *file, uint32_t tensor, uint64_t count)
{
    uint8_t *bytes = malloc(count + 1);

    pad(file);
    for (uint64_t b = 0; b < count; b++)
        bytes[b] = gguf_file_byte(tensor, b);
    put(file, bytes, count);
    free(bytes);
}

static FILE *create(const char *path)
{
    FILE *file = fopen(path, "wb");

    if (!file)
        abort();
    return file;
}

/* On the disk, and out of the page cache. */
static void finish(FILE *file)
{
    fflush(file);
    fsync(fileno(file));
    posix_fadvise(fileno(file), 0, 0, POSIX_FADV_DONTNEED);
    fclose(file);
}

void gguf_file_write(const char *path, const struct gguf_file_tensor *tensors, uint32_t count)
{
    FILE *file = create(path);
    uint64_t offset = 0;

    put_head(file, count);
    for (uint32_t i = 0; i < count; i++) {
        put_info(file, tensors[i].name, TYPE_I8, tensors[i].bytes, offset);
        offset = (offset + tensors[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    for (uint32_t i = 0; i < count; i++)
        put_data(file, i, tensors[i].bytes);
    finish(file);
}

void gguf_file_write_typed(const char *path, const char *name, uint32_t ggml_type, uint64_t elements, uint64_t bytes)
{
    FILE *file = create(path);

    put_head(file, 1);
    put_info(file, name, ggml_type, elements, 0);
    put_data(file, 0, bytes);
    finish(file);
}
