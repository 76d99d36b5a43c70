/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: CUDA's kernels give the bits and the counts of plain C, read nothing outside their source and write nothing
 * beside their destination.
 *
 * Method: every pair of types at every alignment of the source and of the destination, around the size of a tile, on
 * random bits and extremes. Each conversion is run three times. Built twice: with the shim, which takes the threads of
 * a block in another order each time, and where AddressSanitizer guards both ends of the source and shared memory; and
 * with CUDA's runtime for a device, if there is one. */

#include <stdio.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "cuda/kernels.h"
#include "kernels/kernel.h"
#include "support/blocks.h"
#include "support/suite.h"

#if defined(TND_CUDA_SHIM) && defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#define ORDERS 3
#define TILE_ELEMENTS 2048 /* as kernels.cu has it */
#define ELEMENTS_MAX (3 * TILE_ELEMENTS)
#define ELEMENT_BYTES_MAX 8
#define ALIGNMENTS 16
#define CANARY 0xA5
#define CANARY_BYTES 64

struct span {
    uint8_t *memory; /* the device's */
    size_t bytes;
};

static void check(cudaError_t error, const char *what)
{
    ck_assert_msg(error == cudaSuccess, "%s: %s", what, cudaGetErrorString(error));
}

static struct span span_of(const void *content, size_t bytes)
{
    struct span span = {.bytes = bytes};
    void *memory;

    check(cudaMalloc(&memory, bytes), "cudaMalloc");
    check(cudaMemcpy(memory, content, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    span.memory = memory;
    return span;
}

static void span_free(struct span *span)
{
    check(cudaFree(span->memory), "cudaFree");
}

static uint32_t block_elements(enum tnd_dtype dtype)
{
    uint32_t elements, bytes;

    ck_assert_int_eq(tnd_dtype_block(dtype, &elements, &bytes), 0);
    return elements;
}

static uint32_t block_bytes(enum tnd_dtype dtype)
{
    uint32_t elements, bytes;

    ck_assert_int_eq(tnd_dtype_block(dtype, &elements, &bytes), 0);
    return bytes;
}

/* Wide floats: exponents around the limits of narrower ones, mantissas that these round: ties, and beside them. */
static void fill_wide(uint8_t *source, size_t elements, enum tnd_dtype dtype)
{
    static const unsigned kept_bits[] = {10, 7, 23}; /* of the mantissas of F16, BF16, F32 */

    for (size_t i = 0; i < elements; i++) {
        unsigned mantissa_bits = dtype == TND_F64 ? 52 : 23, bias = dtype == TND_F64 ? 1023 : 127;
        uint64_t sign = random_bits() & 1, mantissa = random_bits() >> (64 - mantissa_bits);
        uint64_t exponent = bias - 30 + random_bits() % 50;
        unsigned kept = kept_bits[random_bits() % 3], lost = mantissa_bits > kept ? mantissa_bits - kept : 1;
        uint64_t bits;

        if (dtype == TND_F64 && (random_bits() & 1)) /* where F32 and BF16 end */
            exponent = random_bits() & 1 ? bias + 120 + random_bits() % 16 : bias - 152 + random_bits() % 32;
        mantissa = (mantissa >> lost << lost | (uint64_t)1 << (lost - 1)) + random_bits() % 3 - 1;
        bits = sign << (dtype == TND_F64 ? 63 : 31) | exponent << mantissa_bits | mantissa;
        memcpy(source + i * block_bytes(dtype), &bits, block_bytes(dtype));
    }
}

static void fill_source(enum tnd_dtype dtype, uint8_t *source, size_t elements, enum fill fill)
{
    if (fill == FILL_EXTREMES && (dtype == TND_F64 || dtype == TND_F32))
        fill_wide(source, elements, dtype);
    else
        fill_blocks(source, elements / block_elements(dtype) * block_bytes(dtype), fill);
}

/* The source lies so many bytes off and ends where its memory ends, the destination lies so many elements off. */
static void compare(const struct tnd_kernel *plain, enum fill fill, size_t elements, size_t source_off,
                    size_t destination_off)
{
    static uint8_t bytes[ALIGNMENTS + ELEMENTS_MAX * ELEMENT_BYTES_MAX];
    static uint8_t expected[ELEMENTS_MAX * sizeof(float)], got[sizeof(expected) + ALIGNMENTS * 4 + 2 * CANARY_BYTES];
    size_t source_bytes = elements / block_elements(plain->from) * block_bytes(plain->from);
    size_t size = block_bytes(plain->to), before = CANARY_BYTES + destination_off * size;
    size_t out_bytes = before + elements * size + CANARY_BYTES;
    struct tnd_range_counts plain_counts = {3, 5};
    struct span source;

    ck_assert_uint_le(elements, ELEMENTS_MAX);
    fill_source(plain->from, bytes + source_off, elements, fill);
    plain->run(expected, bytes + source_off, elements, &plain_counts);
    source = span_of(bytes, source_off + source_bytes);
    ASAN_POISON_MEMORY_REGION(source.memory, source_off);

    for (int order = 0; order < ORDERS; order++) {
        struct tnd_cuda_counts counts = {3, 5};
        struct span destination, counted = span_of(&counts, sizeof(counts));

        memset(got, CANARY, out_bytes);
        destination = span_of(got, out_bytes);
        check((cudaError_t)tnd_cuda_convert(plain->from, plain->to, destination.memory + before,
                                            source.memory + source_off, elements,
                                            (struct tnd_cuda_counts *)counted.memory, NULL),
              "tnd_cuda_convert");
        check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        check(cudaMemcpy(got, destination.memory, out_bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
        check(cudaMemcpy(&counts, counted.memory, sizeof(counts), cudaMemcpyDeviceToHost), "cudaMemcpy");
        span_free(&destination);
        span_free(&counted);

        for (size_t i = 0; i < out_bytes; i++) {
            uint8_t right = i < before || i >= before + elements * size ? CANARY : expected[i - before];

            if (got[i] != right)
                ck_abort_msg("%s to %s, fill %d, %zu elements, off %zu and %zu, order %d: element %td is not right",
                             tnd_dtype_name(plain->from), tnd_dtype_name(plain->to), (int)fill, elements, source_off,
                             destination_off, order, ((ptrdiff_t)i - (ptrdiff_t)before) / (ptrdiff_t)size);
        }
        if (counts.overflowed != plain_counts.overflowed || counts.underflowed != plain_counts.underflowed)
            ck_abort_msg("%s to %s, fill %d, %zu elements, order %d: %llu and %llu lost, not %llu and %llu",
                         tnd_dtype_name(plain->from), tnd_dtype_name(plain->to), (int)fill, elements, order,
                         counts.overflowed, counts.underflowed, (unsigned long long)plain_counts.overflowed,
                         (unsigned long long)plain_counts.underflowed);
    }
    ASAN_UNPOISON_MEMORY_REGION(source.memory, source_off);
    span_free(&source);
}

/* Of the list, the plain C. */
static const struct tnd_kernel *plain_at(size_t *index)
{
    const struct tnd_kernel *kernel;

    while ((kernel = tnd_kernel_at((*index)++)))
        if (kernel->isa == TND_ISA_C)
            return kernel;
    return NULL;
}

START_TEST(lengths_and_fills)
{
    size_t index = 0;

    for (const struct tnd_kernel *plain; (plain = plain_at(&index));) {
        size_t block = block_elements(plain->from);
        const size_t lengths[] = {block, 3 * block, TILE_ELEMENTS - block, TILE_ELEMENTS, TILE_ELEMENTS + block};

        compare(plain, FILL_RANDOM, 0, 0, 0);
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
            compare(plain, i % 2 ? FILL_EXTREMES : FILL_RANDOM, lengths[i], 0, 0);
        for (int fill = 0; fill < FILL_COUNT; fill++)
            compare(plain, (enum fill)fill, 2 * TILE_ELEMENTS + 3 * block, 0, 0);
    }
}
END_TEST

START_TEST(alignments)
{
    size_t index = 0;

    for (const struct tnd_kernel *plain; (plain = plain_at(&index));) {
        size_t block = block_elements(plain->from);

        for (size_t off = 0; off < ALIGNMENTS; off++)
            compare(plain, FILL_EXTREMES, TILE_ELEMENTS + 5 * block, off, off % 8);
        for (size_t off = 1; off < 8; off++) /* with the source on 16 bytes, and with one end of it beside them */
            compare(plain, FILL_RANDOM, 5 * block, off % 2 ? 0 : off + 7, off);
    }
}
END_TEST

START_TEST(pairs_are_those_of_plain_c)
{
    unsigned pairs = 0;

    for (int from = 0; from < TND_DTYPE_COUNT; from++)
        for (int to = 0; to < TND_DTYPE_COUNT; to++) {
            const struct tnd_kernel *plain = tnd_kernel_find((enum tnd_dtype)from, (enum tnd_dtype)to, TND_ISA_C);
            int r = tnd_cuda_convert((enum tnd_dtype)from, (enum tnd_dtype)to, NULL, NULL, 0, NULL, NULL);

            ck_assert_msg(r == (plain ? cudaSuccess : cudaErrorNotSupported), "%s to %s: %d",
                          tnd_dtype_name((enum tnd_dtype)from), tnd_dtype_name((enum tnd_dtype)to), r);
            pairs += plain != NULL;
        }
    ck_assert_uint_gt(pairs, 0);
}
END_TEST

START_TEST(refuses_what_it_cannot_queue)
{
    ck_assert_int_eq(tnd_cuda_convert(TND_Q8_0, TND_F16, NULL, NULL, 33, NULL, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(tnd_cuda_convert(TND_F32, TND_F16, NULL, NULL, UINT64_MAX, NULL, NULL), cudaErrorInvalidValue);
    ck_assert_int_eq(tnd_cuda_convert(TND_F32, TND_F16, NULL, NULL, (uint64_t)TILE_ELEMENTS << 31, NULL, NULL),
                     cudaErrorInvalidValue);
    ck_assert_int_eq(tnd_cuda_convert(TND_F32, TND_F32, NULL, NULL, 1, NULL, NULL), cudaErrorNotSupported);
}
END_TEST

START_TEST(preloads)
{
    ck_assert_int_eq(tnd_cuda_kernels_preload(), cudaSuccess);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda kernels");
    TCase *tests = tcase_create("cuda kernels");
    int devices = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);

    if (error != cudaSuccess) {
        if (tnd_cuda_kernels_preload() == cudaSuccess) {
            printf("no device, but kernels were loaded\n");
            return EXIT_FAILURE;
        }
        printf("skipped: %s\n", cudaGetErrorString(error));
        return 77;
    }
    tcase_add_test(tests, pairs_are_those_of_plain_c);
    tcase_add_test(tests, refuses_what_it_cannot_queue);
    tcase_add_test(tests, preloads);
    tcase_add_test(tests, lengths_and_fills);
    tcase_add_test(tests, alignments);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
