/* SPDX-License-Identifier: Apache-2.0 */

/* One kernel for all pairs of types: what an element means, and how it is narrowed, is the C of src/kernels/.
 *
 * A thread block takes a tile of elements. Its blocks, whose size is rarely a multiple of a word, come to shared memory
 * in words of 16 bytes from the address below them; from there they are decoded byte by byte, or in their own words
 * where these lie on their size. Each thread writes 16 bytes at a time, neighbours beside each other. */

#include <cuda_runtime.h>

#include "kernels.h"
#include "kernels/element.h"
#include "kernels/quant.h"

#define THREADS 128
#define TILE_ELEMENTS 2048 /* a multiple of every block; 16 KiB of F64, at most 2.3 KiB of blocks */
#define GRID_MAX 0x7FFFFFFFu
#define WORD_BYTES 16

extern __shared__ uint4 shared[]; /* as many as the launch says */

namespace
{

/* What a source type is: the sizes of a block, the type that its elements are decoded to, and how count of them are
 * that lie in one group, at in shared memory being the block of element 0. */

template <typename Bits> __device__ Bits load(const uint8_t *at)
{
    Bits bits = 0;

    if ((uintptr_t)at % sizeof(Bits) == 0)
        return *(const Bits *)at;
    for (unsigned i = 0; i < sizeof(Bits); i++)
        bits |= (Bits)at[i] << 8 * i;
    return bits;
}

template <enum tnd_dtype From, typename Bits> struct float_source {
    typedef float value;
    static const unsigned block_elements = 1, block_bytes = sizeof(Bits);

    template <unsigned count> static __device__ void decode(const uint8_t *at, unsigned element, float *values)
    {
        for (unsigned i = 0; i < count; i++)
            values[i] = tnd_f32_of_element(From, load<Bits>(at + (element + i) * block_bytes));
    }
};

struct f64_source {
    typedef uint64_t value;
    static const unsigned block_elements = 1, block_bytes = sizeof(uint64_t);

    template <unsigned count> static __device__ void decode(const uint8_t *at, unsigned element, uint64_t *values)
    {
        for (unsigned i = 0; i < count; i++)
            values[i] = load<uint64_t>(at + (element + i) * block_bytes);
    }
};

#define QUANT_SOURCE(type, format, elements, bytes, group_elements)                                                    \
    struct format##_source {                                                                                           \
        typedef float value;                                                                                           \
        static const unsigned block_elements = elements, block_bytes = bytes;                                          \
                                                                                                                       \
        template <unsigned count> static __device__ void decode(const uint8_t *at, unsigned element, float *values)    \
        {                                                                                                              \
            const uint8_t *block = at + element / elements * bytes;                                                    \
            unsigned of_block = element % elements;                                                                    \
            struct tnd_affine affine = tnd_##format##_affine(block, of_block / group_elements);                        \
                                                                                                                       \
            for (unsigned i = 0; i < count; i++)                                                                       \
                values[i] = affine.scale * (float)tnd_##format##_quant(block, of_block + i) + affine.offset;           \
        }                                                                                                              \
    };
TND_QUANT_FORMATS(QUANT_SOURCE)

/* What a target type is. */

template <enum tnd_dtype To> struct bits_of {
    typedef uint16_t type;
};
template <> struct bits_of<TND_F32> {
    typedef uint32_t type;
};

template <enum tnd_dtype To> __device__ struct tnd_element narrow(float value)
{
    return tnd_element_of_f32(To, value);
}

template <enum tnd_dtype To> __device__ struct tnd_element narrow(uint64_t value)
{
    return tnd_element_of_f64(To, value);
}

/* Written at once where it lies on its size, else one after the other. */
template <typename Bits, unsigned count> struct alignas(sizeof(Bits) * count) row {
    Bits bits[count];

    __device__ void store(Bits *at) const
    {
        if ((uintptr_t)at % sizeof(row) == 0)
            *(row *)at = *this;
        else
            for (unsigned i = 0; i < count; i++)
                at[i] = bits[i];
    }
};

struct lost {
    unsigned overflowed, underflowed;
};

template <class Source, enum tnd_dtype To, unsigned count>
__device__ void convert_row(typename bits_of<To>::type *destination, const uint8_t *at, unsigned element,
                            struct lost *lost)
{
    typename Source::value values[count];
    row<typename bits_of<To>::type, count> row;

    Source::template decode<count>(at, element, values);
    for (unsigned i = 0; i < count; i++) {
        struct tnd_element narrowed = narrow<To>(values[i]);

        row.bits[i] = (typename bits_of<To>::type)narrowed.bits;
        lost->overflowed += narrowed.overflowed;
        lost->underflowed += narrowed.underflowed;
    }
    row.store(destination + element);
}

/* Copies bytes of the source from offset on into shared memory, and tells where they are there. Nothing outside the
 * source is read: the words at its two ends come byte by byte. */
__device__ const uint8_t *stage(uint4 *staged, const uint8_t *source, uint64_t source_bytes, uint64_t offset,
                                unsigned bytes)
{
    unsigned before = (unsigned)((uintptr_t)(source + offset) % WORD_BYTES);

    for (unsigned word = threadIdx.x; word < (before + bytes + WORD_BYTES - 1) / WORD_BYTES; word += THREADS) {
        int64_t at = (int64_t)(offset + word * WORD_BYTES) - before;

        if (at >= 0 && (uint64_t)at + WORD_BYTES <= source_bytes)
            staged[word] = *(const uint4 *)(source + at);
        else
            for (int64_t i = at < 0 ? 0 : at; i < at + WORD_BYTES && (uint64_t)i < source_bytes; i++)
                ((uint8_t *)&staged[word])[i - at] = source[i];
    }
    return (const uint8_t *)staged + before;
}

/* Shared memory: a word whose first two parts count what was lost; the tile, which may begin within a word. */
template <class Source> constexpr unsigned shared_bytes()
{
    static_assert(TILE_ELEMENTS / Source::block_elements * Source::block_bytes % WORD_BYTES == 0, "whole words");
    return WORD_BYTES + TILE_ELEMENTS / Source::block_elements * Source::block_bytes + WORD_BYTES;
}

template <class Source, enum tnd_dtype To>
__global__ void __launch_bounds__(THREADS)
    convert(void *destination, const uint8_t *source, uint64_t blocks, struct tnd_cuda_counts *counts)
{
    typedef typename bits_of<To>::type bits;
    const unsigned tile_blocks = TILE_ELEMENTS / Source::block_elements, row_elements = WORD_BYTES / sizeof(bits);
    /* Blocks are decoded to F32, and nothing is lost where that is the target. */
    const bool counted = sizeof(bits) < sizeof(typename Source::value);
    uint64_t first = (uint64_t)blockIdx.x * tile_blocks;
    unsigned tile = (unsigned)(blocks - first < tile_blocks ? blocks - first : tile_blocks);
    unsigned elements = tile * Source::block_elements;
    bits *out = (bits *)destination + first * Source::block_elements;
    struct lost lost = {0, 0};
    const uint8_t *at = stage(shared + 1, source, blocks * Source::block_bytes, first * Source::block_bytes,
                              tile * Source::block_bytes);

    if (counted && threadIdx.x == 0)
        shared[0] = make_uint4(0, 0, 0, 0);
    __syncthreads();

    for (unsigned element = threadIdx.x * row_elements; element < elements; element += THREADS * row_elements)
        if (Source::block_elements % row_elements == 0 || elements - element >= row_elements)
            convert_row<Source, To, row_elements>(out, at, element, &lost);
        else
            for (unsigned i = element; i < elements; i++)
                convert_row<Source, To, 1>(out, at, i, &lost);

    if (!counted)
        return;
    if (lost.overflowed)
        atomicAdd(&shared[0].x, lost.overflowed);
    if (lost.underflowed)
        atomicAdd(&shared[0].y, lost.underflowed);
    __syncthreads();
    if (threadIdx.x == 0 && shared[0].x)
        atomicAdd(&counts->overflowed, shared[0].x);
    if (threadIdx.x == 0 && shared[0].y)
        atomicAdd(&counts->underflowed, shared[0].y);
}

/* The list of them. */

struct kernel {
    enum tnd_dtype from, to;
    uint32_t block_elements, shared_bytes;
    void (*run)(void *, const uint8_t *, uint64_t, struct tnd_cuda_counts *);
};

#define KERNEL(from, to, source)                                                                                       \
    {from, to, source::block_elements, shared_bytes<source>(), convert<source, to>}
#define QUANT_KERNELS(type, format, elements, bytes, group_elements)                                                   \
    KERNEL(type, TND_F32, format##_source), KERNEL(type, TND_F16, format##_source),                                    \
        KERNEL(type, TND_BF16, format##_source),

typedef float_source<TND_F32, uint32_t> f32_source;
typedef float_source<TND_F16, uint16_t> f16_source;
typedef float_source<TND_BF16, uint16_t> bf16_source;
typedef float_source<TND_F8_E4M3, uint8_t> e4m3_source;
typedef float_source<TND_F8_E5M2, uint8_t> e5m2_source;

const struct kernel kernels[] = {
    KERNEL(TND_F64, TND_F32, f64_source),
    KERNEL(TND_F64, TND_F16, f64_source),
    KERNEL(TND_F64, TND_BF16, f64_source),
    KERNEL(TND_F32, TND_F16, f32_source),
    KERNEL(TND_F32, TND_BF16, f32_source),
    KERNEL(TND_F16, TND_F32, f16_source),
    KERNEL(TND_F16, TND_BF16, f16_source),
    KERNEL(TND_BF16, TND_F32, bf16_source),
    KERNEL(TND_BF16, TND_F16, bf16_source),
    KERNEL(TND_F8_E4M3, TND_F32, e4m3_source),
    KERNEL(TND_F8_E4M3, TND_F16, e4m3_source),
    KERNEL(TND_F8_E4M3, TND_BF16, e4m3_source),
    KERNEL(TND_F8_E5M2, TND_F32, e5m2_source),
    KERNEL(TND_F8_E5M2, TND_F16, e5m2_source),
    KERNEL(TND_F8_E5M2, TND_BF16, e5m2_source),
    TND_QUANT_FORMATS(QUANT_KERNELS)
};

} // namespace

int tnd_cuda_convert(enum tnd_dtype from, enum tnd_dtype to, void *destination, const void *source, uint64_t elements,
                     struct tnd_cuda_counts *counts, void *stream)
{
    for (const struct kernel &kernel : kernels) {
        uint64_t blocks = elements / kernel.block_elements;
        uint64_t tiles = elements / TILE_ELEMENTS + (elements % TILE_ELEMENTS != 0);
        void *arguments[] = {&destination, &source, &blocks, &counts};

        if (kernel.from != from || kernel.to != to)
            continue;
        if (elements % kernel.block_elements || tiles > GRID_MAX)
            return cudaErrorInvalidValue;
        if (tiles == 0)
            return cudaSuccess;
        return cudaLaunchKernel(kernel.run, dim3((unsigned)tiles), dim3(THREADS), arguments, kernel.shared_bytes,
                                (cudaStream_t)stream);
    }
    return cudaErrorNotSupported;
}

int tnd_cuda_kernels_preload(void)
{
    for (const struct kernel &kernel : kernels) {
        cudaFuncAttributes attributes;
        cudaError_t error = cudaFuncGetAttributes(&attributes, kernel.run);

        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}
