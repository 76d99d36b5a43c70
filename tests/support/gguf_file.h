/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TESTS_GGUF_FILE_H
#define TND_TESTS_GGUF_FILE_H

/* A small GGUF v3 file with known bytes, written by hand for tests of what comes after parsing. */

#include <stdint.h>

struct gguf_file_tensor {
    const char *name;
    uint64_t bytes; /* U8-like: type I8, one dimension */
};

/* Writes path, with tensor data at the 32-byte aligned offsets after the header, in the order given. */
void gguf_file_write(const char *path, const struct gguf_file_tensor *tensors, uint32_t count);

/* One tensor of a GGML type, its bytes as those of tensor 0 above. */
#define GGUF_FILE_F32 0
void gguf_file_write_typed(const char *path, const char *name, uint32_t ggml_type, uint64_t elements, uint64_t bytes);

/* The byte of a tensor's data at an index. */
uint8_t gguf_file_byte(uint32_t tensor, uint64_t index);

#endif
