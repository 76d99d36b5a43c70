/* SPDX-License-Identifier: Apache-2.0 */

/* Every GGML block format in plain C: what runs everywhere, and what every other variant equals bit for bit. A block is
 * decoded to F32, then narrowed by the kernel that does this for whole tensors of F32. */

#include "kernels/lists.h"
#include "kernels/quant.h"

struct format {
    void (*decode)(const uint8_t *block, float *values);
    uint16_t elements, bytes;
};

static void make_nans_canonical(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = values[i] != values[i] ? tnd_f32_of_bits(TND_F32_NAN) : values[i];
}

static void dequant_f32(const struct format *format, float *destination, const uint8_t *source, size_t blocks)
{
    for (; blocks; blocks--, source += format->bytes, destination += format->elements) {
        format->decode(source, destination);
        make_nans_canonical(destination, format->elements);
    }
}

static void dequant_half(const struct format *format, enum tnd_dtype to, uint16_t *destination, const uint8_t *source,
                         size_t blocks, struct tnd_range_counts *counts)
{
    const struct tnd_kernel *narrow = tnd_kernel_find(TND_F32, to, TND_ISA_C);
    float values[TND_QUANT_ELEMENTS_MAX];

    for (; blocks; blocks--, source += format->bytes, destination += format->elements) {
        format->decode(source, values);
        narrow->run(destination, values, format->elements, counts);
    }
}

#define FORMAT(type, name, block_elements, block_bytes, group_elements)                                                \
    static void name##_decode(const uint8_t *block, float *values)                                                     \
    {                                                                                                                  \
        for (unsigned element = 0; element < block_elements;) {                                                        \
            struct tnd_affine affine = tnd_##name##_affine(block, element / group_elements);                           \
                                                                                                                       \
            for (unsigned i = 0; i < group_elements; i++, element++)                                                   \
                values[element] = affine.scale * (float)tnd_##name##_quant(block, element) + affine.offset;            \
        }                                                                                                              \
    }                                                                                                                  \
    static const struct format name = {name##_decode, block_elements, block_bytes};                                    \
                                                                                                                       \
    static void name##_to_f32(void *destination, const void *source, size_t elements, struct tnd_range_counts *counts) \
    {                                                                                                                  \
        (void)counts; /* the values are F32: nothing is narrowed */                                                    \
        dequant_f32(&name, destination, source, elements / block_elements);                                            \
    }                                                                                                                  \
    static void name##_to_f16(void *destination, const void *source, size_t elements, struct tnd_range_counts *counts) \
    {                                                                                                                  \
        dequant_half(&name, TND_F16, destination, source, elements / block_elements, counts);                          \
    }                                                                                                                  \
    static void name##_to_bf16(void *destination, const void *source, size_t elements,                                 \
                               struct tnd_range_counts *counts)                                                        \
    {                                                                                                                  \
        dequant_half(&name, TND_BF16, destination, source, elements / block_elements, counts);                         \
    }
#define ENTRIES(type, name, block_elements, block_bytes, group_elements)                                               \
    {type, TND_F32, TND_ISA_C, name##_to_f32},                                                                         \
    {type, TND_F16, TND_ISA_C, name##_to_f16},                                                                         \
    {type, TND_BF16, TND_ISA_C, name##_to_bf16},

TND_QUANT_FORMATS(FORMAT)

const struct tnd_kernel tnd_kernels_dequant[] = {TND_QUANT_FORMATS(ENTRIES){0}};
