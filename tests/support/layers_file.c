/* SPDX-License-Identifier: Apache-2.0 */
#include "support/layers_file.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/kernel.h"

#define NAME_BYTES 32

static const char *name_of(uint32_t tensor, char *name)
{
    if (tensor == 0)
        snprintf(name, NAME_BYTES, "token_embd.weight");
    else if (tensor <= LAYERS)
        snprintf(name, NAME_BYTES, "blk.%u.w", tensor - 1);
    else
        snprintf(name, NAME_BYTES, "output.weight");
    return name;
}

void layers_file_open(struct layers_file *layers)
{
    char header[4096] = "{", name[NAME_BYTES];
    uint64_t header_bytes;
    FILE *file;

    layers->values = malloc((size_t)TENSORS * TENSOR_BYTES);
    for (uint64_t i = 0; i < (uint64_t)TENSORS * ELEMENTS; i++)
        layers->values[i] = i % 997 ? (float)(i % 4099) / 8.0f - (float)(i / ELEMENTS) : i % 2 ? 1e6f : 1e-9f;
    for (uint32_t i = 0; i < TENSORS; i++)
        snprintf(header + strlen(header), sizeof(header) - strlen(header),
                 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%u],\"data_offsets\":[%u,%u]}", i ? "," : "", name_of(i, name),
                 ELEMENTS, i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES);
    snprintf(header + strlen(header), sizeof(header) - strlen(header),
             ",\"empty\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[%u,%u]}}", TENSORS * TENSOR_BYTES,
             TENSORS * TENSOR_BYTES);
    header_bytes = strlen(header);
    snprintf(layers->path, sizeof(layers->path), "%s/tundish-test-XXXXXX.safetensors",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    file = fdopen(mkstemps(layers->path, 12), "wb");
    ck_assert_ptr_nonnull(file);
    fwrite(&header_bytes, sizeof(header_bytes), 1, file);
    fwrite(header, 1, header_bytes, file);
    fwrite(layers->values, TENSOR_BYTES, TENSORS, file);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_msg(tnd_model_open(layers->path, NULL, &layers->model) == 0, "%s", tnd_last_error());
}

void layers_file_close(struct layers_file *layers)
{
    tnd_model_close(&layers->model);
    unlink(layers->path);
    free(layers->values);
}

uint32_t layers_file_tensor(const struct layers_file *layers, uint32_t tensor)
{
    char name[NAME_BYTES];

    return (uint32_t)tnd_model_tensor_find(layers->model, name_of(tensor, name));
}

int32_t layers_file_layer(uint32_t tensor)
{
    return tensor == 0 ? TND_LAYER_SHARED_IN : tensor <= LAYERS ? (int32_t)tensor - 1 : TND_LAYER_SHARED_OUT;
}

uint8_t *layers_file_expect(const struct layers_file *layers, uint32_t tensor, enum tnd_dtype dtype,
                            uint64_t *ret_bytes)
{
    const uint8_t *values = (const uint8_t *)&layers->values[tensor * ELEMENTS];
    struct tnd_range_counts range = {0};
    uint8_t *expected = malloc(TENSOR_BYTES);

    *ret_bytes = dtype == TND_F16 ? TENSOR_BYTES / 2 : TENSOR_BYTES;
    if (dtype == TND_F16)
        tnd_kernel_find(TND_F32, TND_F16, TND_ISA_C)->run(expected, values, ELEMENTS, &range);
    else
        memcpy(expected, values, TENSOR_BYTES);
    return expected;
}

uint64_t layers_file_window(uint32_t layers, enum tnd_dtype dtype)
{
    return (dtype == TND_F16 ? TENSOR_BYTES / 2 : TENSOR_BYTES) * (uint64_t)layers + 8192 + (64 << 10);
}

void layers_file_compare(void *argument)
{
    const struct layers_file_comparison *comparison = argument;

    for (uint64_t i = 0; i < comparison->bytes; i++)
        if (comparison->found[i] != comparison->expected[i]) {
            atomic_fetch_add(comparison->wrong, 1);
            return;
        }
}
