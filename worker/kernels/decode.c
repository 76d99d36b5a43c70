/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/decode.h"

#include <stdatomic.h>
#include <string.h>

#include "kernels/dot.h"
#include "kernels/kernel.h"
#include "kernels/quant.h"

static void copy(void *destination, const void *source, size_t elements, struct tnd_range_counts *counts)
{
    (void)counts;
    memcpy(destination, source, elements * sizeof(float));
}

/* Not among the library's: it has nothing to convert. */
static const struct tnd_kernel f32_to_f32 = {TND_F32, TND_F32, TND_ISA_C, copy};

/* Asked once: on a virtual machine the question takes as long as a small product. */
static enum tnd_isa isa(void)
{
    static atomic_int known = -1;
    int best = atomic_load_explicit(&known, memory_order_relaxed);

    if (best < 0) {
        best = (int)tnd_isa_best();
        atomic_store_explicit(&known, best, memory_order_relaxed);
    }
    return (enum tnd_isa)best;
}

const struct tnd_kernel *decode_find(enum tnd_dtype dtype)
{
    return dtype == TND_F32 ? &f32_to_f32 : tnd_kernel_find(dtype, TND_F32, isa());
}

void decode(const struct tnd_kernel *kernel, const void *source, size_t elements, float *values)
{
    struct tnd_range_counts counts = {0};

    kernel->run(values, source, elements, &counts);
}

void encode_f16(const float *values, size_t elements, uint16_t *destination)
{
    struct tnd_range_counts counts = {0};

    tnd_kernel_find(TND_F32, TND_F16, isa())->run(destination, values, elements, &counts);
}

/* ---- Spans, in plain C ------------------------------------------------------------------------------------- */

#define UNPACK(type, name, columns, bytes, group, bias, has_offsets)                                                   \
    static void unpack_##name(const uint8_t *blocks, uint32_t span_count, struct dot_weights *spans)                   \
    {                                                                                                                  \
        for (size_t i = 0; i < (size_t)span_count * DOT_SPAN; i++) {                                                   \
            struct dot_weights *span = &spans[i / DOT_SPAN];                                                           \
            const uint8_t *block = blocks + i / columns * bytes;                                                       \
            uint32_t column = (uint32_t)(i % DOT_SPAN), lane = dot_lane(column);                                       \
            struct tnd_affine affine = tnd_##name##_affine(block, (uint32_t)(i % columns / group));                    \
                                                                                                                       \
            span->quants[column / 4 % DOT_STEPS][lane][column % 4] =                                                   \
                (uint8_t)(tnd_##name##_quant(block, (uint32_t)(i % columns)) + bias);                                  \
            span->scales[lane] = affine.scale;                                                                         \
            span->offsets[lane] = affine.offset;                                                                       \
        }                                                                                                              \
    }
DOT_FORMATS(UNPACK)

const dot_unpack_fn dot_unpack_c[DOT_FORMAT_COUNT] = {
#define ENTRY(type, name, columns, bytes, group, bias, has_offsets) unpack_##name,
    DOT_FORMATS(ENTRY)
#undef ENTRY
};
