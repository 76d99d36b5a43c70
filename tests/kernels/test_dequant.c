/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: every GGML block format decodes to what its definition says, in every variant that runs here.
 * Method: blocks written by hand say that plain C is right (the packages' readers say so for whole formats, in
 * tests/oracle); each variant equals plain C bit for bit and count for count, on random bits, on scales around every
 * limit, at every alignment, and writes nothing beside its destination. */

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernel.h"
#include "kernels/quant.h"
#include "support/blocks.h"
#include "support/suite.h"

#define BLOCKS_MAX 129
#define CANARY 0xA5
#define CANARY_BYTES 64
#define OFF_MAX 64 /* bytes */
#define STREAMED_ELEMENTS 2048 /* from here on variants store past the cache */
#define OUT_BYTES_MAX ((size_t)BLOCKS_MAX * TND_QUANT_ELEMENTS_MAX * sizeof(float))

static const enum tnd_dtype targets[] = {TND_F32, TND_F16, TND_BF16};

static void sizes(enum tnd_dtype dtype, uint32_t *ret_elements, uint32_t *ret_bytes)
{
    ck_assert_int_eq(tnd_dtype_block(dtype, ret_elements, ret_bytes), 0);
}

static uint32_t element_bytes(enum tnd_dtype dtype)
{
    uint32_t elements, bytes;

    sizes(dtype, &elements, &bytes);
    return bytes;
}

/* ---- The table -------------------------------------------------------------------------------------------- */

START_TEST(every_format_is_there)
{
    static const struct {
        enum tnd_dtype dtype;
        uint32_t elements, bytes, group;
    } formats[] = {
#define FORMAT(type, format, block_elements, block_bytes, group_elements)                                              \
    {type, block_elements, block_bytes, group_elements},
        TND_QUANT_FORMATS(FORMAT)
#undef FORMAT
    };
    const size_t format_count = sizeof(formats) / sizeof(formats[0]);

    ck_assert_uint_eq(format_count, TND_DTYPE_COUNT - TND_Q4_0);
    for (size_t i = 0; i < format_count; i++) {
        uint32_t elements, bytes;

        sizes(formats[i].dtype, &elements, &bytes);
        ck_assert_uint_eq(formats[i].elements, elements);
        ck_assert_uint_eq(formats[i].bytes, bytes);
        ck_assert_uint_eq(elements % formats[i].group, 0);
        ck_assert_uint_le(elements, TND_QUANT_ELEMENTS_MAX);
        for (size_t j = 0; j < sizeof(targets) / sizeof(targets[0]); j++)
            ck_assert_msg(tnd_kernel_find(formats[i].dtype, targets[j], TND_ISA_C) != NULL, "%s to %s",
                          tnd_dtype_name(formats[i].dtype), tnd_dtype_name(targets[j]));
    }
}
END_TEST

/* ---- Blocks by hand --------------------------------------------------------------------------------------- */

/* A block of zeros but for these bytes, and what some of its elements are. */
struct golden {
    enum tnd_dtype dtype;
    struct {
        unsigned at, byte;
    } bytes[8];
    struct {
        unsigned element;
        float value;
    } values[7]; /* up to END */
};
#define END {UINT_MAX, 0}

static const struct golden goldens[] = {
    {TND_Q4_0, {{0, 0x00}, {1, 0x3C}, {2, 0x2F}}, {{0, 7}, {16, -6}, {1, -8}, END}},
    {TND_Q4_1, {{1, 0x3C}, {3, 0x38}, {19, 0x2F}}, {{15, 15.5f}, {31, 2.5f}, {0, 0.5f}, END}},
    /* Bits 0 and 17 of the high bits. */
    {TND_Q5_0, {{1, 0x3C}, {2, 0x01}, {4, 0x02}, {6, 0x2F}}, {{0, 15}, {16, -14}, {17, 0}, {1, -16}, END}},
    {TND_Q5_1, {{1, 0x3C}, {3, 0xC0}, {7, 0x80}, {23, 0xF0}}, {{31, 29}, {15, -2}, END}},
    {TND_Q8_0, {{1, 0xBC}, {2, 0x80}, {33, 0x7F}}, {{0, 128}, {31, -127}, {1, -0.0f}, END}},
    /* The sum beside d, here a NaN, has no say. */
    {TND_Q8_1, {{1, 0x38}, {3, 0x7E}, {4, 0x80}, {5, 0xFF}, {35, 0x7F}}, {{0, -64}, {1, -0.5f}, {31, 63.5f}, END}},
    {TND_Q2_K, {{5, 0x32}, {35, 0x30}, {81, 0x3C}, {83, 0x38}}, {{83, 4.5f}, {84, -1.5f}, {60, 0}, END}},
    /* Group 9: low bits in the upper half of byte 97, high bits in pair 2 of byte 105. */
    {TND_Q3_K, {{97, 0x50}, {105, 0x20}, {109, 0x3C}, {18, 0x10}, {82, 0x02}}, {{146, 10}, {147, -20}, {0, 128}, END}},
    /* Group 5: scale 2 << 4 | 3, minimum 1 << 4 | 5. */
    {TND_Q4_K,
     {{1, 0x3C}, {3, 0x38}, {5, 0x80}, {9, 0x40}, {13, 0x53}, {83, 0xA0}},
     {{163, 339.5f}, {164, -10.5f}, END}},
    {TND_Q5_K, {{1, 0x3C}, {5, 0x80}, {13, 0x53}, {19, 0x20}, {115, 0xA0}}, {{163, 910}, {164, 0}, END}},
    /* Second half, third run of 32: high half of byte 64 + 7, pair 2 of byte 160 + 7 - 32, group 12. */
    {TND_Q6_K, {{71, 0x90}, {167, 0x30}, {204, 0xFE}, {209, 0x3C}}, {{199, -50}, {200, 64}, {0, -0.0f}, END}},
    {TND_Q8_K, {{2, 0x80}, {3, 0x3E}, {4, 0x80}, {259, 0x7F}, {260, 0xFF}}, {{0, -32}, {255, 31.75f}, {1, 0}, END}},
    /* Group 3: scale 6, all shifted down; its third row is the last one. */
    {TND_IQ1_S, {{1, 0x3C}, {16, 0xFF}, {40, 0xC0}, {41, 0xE1}}, {{112, 11.375f}, {111, -14.625f}, {0, -0.875f}, END}},
    /* Row 11 is the last one and shifted down; scale 5; d in four quarters. */
    {TND_IQ1_M, {{53, 0xC0}, {55, 0x30}, {50, 0x10}, {11, 0xFF}, {37, 0xF0}}, {{88, 4.375f}, {80, -4.375f}, END}},
    /* The last row is 8 25 8 8 25 43 43 43; of the eight signs the first is stored, so the last is there too. */
    {TND_IQ2_XXS,
     {{1, 0x3C}, {12, 0xFF}, {15, 0x40}, {17, 0x10}},
     {{48, -3}, {49, 9.375f}, {53, 16.125f}, {55, -16.125f}, END}},
    /* The last rows are all 43. Three signs are stored, so there is a fourth. */
    {TND_IQ2_XS,
     {{1, 0x3C}, {12, 0xFF}, {13, 0x87}, {67, 0x09}},
     {{40, -102.125f}, {42, 102.125f}, {46, -102.125f}, {47, -102.125f}, {32, 19}, {48, 1}, END}},
    {TND_IQ2_S,
     {{1, 0x3C}, {8, 0xFF}, {40, 0x81}, {67, 0x30}, {75, 0x40}},
     {{48, -48.375f}, {49, 48.375f}, {55, -48.375f}, {56, 9}, {47, 1}, END}},
    {TND_IQ3_XXS, {{1, 0x3C}, {4, 0x05}, {67, 0x01}, {69, 0x20}}, {{8, 77.5f}, {9, -15}, {10, 5}, {15, -5}, END}},
    /* Row 9 is the last one, 1 1 15 15; scale 2. */
    {TND_IQ3_S,
     {{1, 0x3C}, {11, 0xFF}, {67, 0x02}, {78, 0x90}, {106, 0x20}},
     {{36, -5}, {37, 5}, {38, 75}, {39, -75}, {40, 5}, {0, 1}, END}},
    {TND_IQ4_NL, {{1, 0x3C}, {2, 0xF8}}, {{0, 1}, {16, 113}, {1, -127}, END}},
    {TND_IQ4_XS, {{1, 0x3C}, {2, 0x08}, {4, 0x50}, {24, 0xF8}}, {{32, 5}, {48, 565}, {0, 32 * 127}, END}},
    {TND_TQ1_0, {{0, 0xFF}, {1, 0x80}, {48, 0xFF}, {53, 0x40}}, {{0, 2}, {128, 2}, {1, 0}, {2, -2}, {240, 2}, END}},
    {TND_TQ2_0, {{33, 0xE4}, {65, 0x40}}, {{129, -2}, {161, 0}, {193, 2}, {225, 4}, {0, -2}, END}},
    {TND_MXFP4, {{0, 128}, {1, 0xF7}, {2, 0x19}}, {{0, 12}, {16, -12}, {1, -1}, {17, 1}, {2, 0}, END}},
    {TND_MXFP4, {{0, 255}, {1, 0x71}}, {{0, 0x1p127f}, {16, INFINITY}, {2, 0}, END}},
    {TND_MXFP4, {{0, 0}, {1, 0x71}}, {{0, 0x1p-128f}, {16, 12 * 0x1p-128f}, END}},
    {TND_NVFP4, {{1, 0x38}, {12, 0x72}, {2, 0x01}, {20, 0x01}}, {{16, 1}, {24, 6}, {32, 0x1p-10f}, END}},
    {TND_NVFP4, {{0, 0x7F}, {4, 0x11}, {1, 0xFF}, {12, 0x11}, {2, 0x80}}, {{0, 0}, {8, 0}, {16, 240}, {32, 0}, END}},
    {TND_Q1_0, {{1, 0x40}, {2, 0x05}, {17, 0x80}}, {{0, 2}, {1, -2}, {2, 2}, {3, -2}, {127, 2}, {126, -2}, END}},
    {TND_Q2_0,
     {{1, 0x3E}, {2, 0xE4}, {17, 0x80}},
     {{0, -1.5f}, {1, 0}, {2, 1.5f}, {3, 3}, {63, 1.5f}, {62, -1.5f}, END}},
};

START_TEST(blocks_by_hand)
{
    const struct golden *golden = &goldens[_i];

    for (int isa = TND_ISA_C; isa <= (int)tnd_isa_best(); isa++) {
        const struct tnd_kernel *kernel = tnd_kernel_find(golden->dtype, TND_F32, (enum tnd_isa)isa);
        float values[TND_QUANT_ELEMENTS_MAX];
        uint8_t block[292] = {0};
        struct tnd_range_counts counts = {0};
        uint32_t elements, bytes;

        sizes(golden->dtype, &elements, &bytes);
        ck_assert_uint_le(bytes, sizeof(block));
        for (size_t i = 0; i < sizeof(golden->bytes) / sizeof(golden->bytes[0]); i++)
            block[golden->bytes[i].at] |= (uint8_t)golden->bytes[i].byte;
        kernel->run(values, block, elements, &counts);
        for (size_t i = 0; golden->values[i].element != UINT_MAX; i++) {
            float got = values[golden->values[i].element], expected = golden->values[i].value;

            ck_assert_msg(tnd_f32_bits(got) == tnd_f32_bits(expected), "%s (%s): element %u is %a, not %a",
                          tnd_dtype_name(golden->dtype), tnd_isa_name(kernel->isa), golden->values[i].element,
                          (double)got, (double)expected);
        }
        ck_assert_uint_eq(counts.overflowed + counts.underflowed, 0);
    }
}
END_TEST

/* One block of Q8_0 with this scale and the quants 0, 1, -128, 127 and zeros, to each type. */
static void decode_q8_0(uint16_t scale, enum tnd_dtype to, enum tnd_isa isa, uint32_t bits[4],
                        struct tnd_range_counts *counts)
{
    uint8_t block[34] = {(uint8_t)scale, (uint8_t)(scale >> 8), 0, 1, 0x80, 0x7F};
    union {
        uint32_t words[32];
        uint16_t halves[32];
    } out;

    *counts = (struct tnd_range_counts){0};
    tnd_kernel_find(TND_Q8_0, to, isa)->run(&out, block, 32, counts);
    for (int i = 0; i < 4; i++)
        bits[i] = to == TND_F32 ? out.words[i] : out.halves[i];
}

START_TEST(nans_are_canonical_and_losses_are_counted)
{
    static const struct {
        uint16_t scale;
        enum tnd_dtype to;
        uint32_t bits[4];
        struct tnd_range_counts counts;
    } cases[] = {
        {0xFE01, TND_F32, {0x7FC00000, 0x7FC00000, 0x7FC00000, 0x7FC00000}, {0, 0}},
        {0xFE01, TND_F16, {0x7E00, 0x7E00, 0x7E00, 0x7E00}, {0, 0}},
        {0x7D55, TND_BF16, {0x7FC0, 0x7FC0, 0x7FC0, 0x7FC0}, {0, 0}},
        {0x7C00, TND_F32, {0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800000}, {0, 0}}, /* infinite times zero is none */
        {0xFC00, TND_F16, {0x7E00, 0xFC00, 0x7C00, 0xFC00}, {0, 0}},
        {0xFC00, TND_BF16, {0x7FC0, 0xFF80, 0x7F80, 0xFF80}, {0, 0}},
        {0x7BFF, TND_F16, {0x0000, 0x7BFF, 0xFC00, 0x7C00}, {2, 0}},
        {0xFBFF, TND_F16, {0x8000, 0xFBFF, 0x7C00, 0xFC00}, {2, 0}},
        {0x6000, TND_F16, {0x0000, 0x6000, 0xFC00, 0x7BF0}, {1, 0}}, /* 512: -65536 does not fit, 65024 does */
        {0x7BFF, TND_BF16, {0x0000, 0x4780, 0xCB00, 0x4AFE}, {0, 0}},
        {0x0001, TND_F16, {0x0000, 0x0001, 0x8080, 0x007F}, {0, 0}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int isa = TND_ISA_C; isa <= (int)tnd_isa_best(); isa++) {
            struct tnd_range_counts counts;
            uint32_t bits[4];

            decode_q8_0(cases[i].scale, cases[i].to, (enum tnd_isa)isa, bits, &counts);
            for (int j = 0; j < 4; j++)
                ck_assert_msg(bits[j] == cases[i].bits[j], "scale %04X to %s (%s): element %d is %X, not %X",
                              cases[i].scale, tnd_dtype_name(cases[i].to), tnd_isa_name((enum tnd_isa)isa), j, bits[j],
                              cases[i].bits[j]);
            ck_assert_uint_eq(counts.overflowed, cases[i].counts.overflowed);
            ck_assert_uint_eq(counts.underflowed, cases[i].counts.underflowed);
        }
}
END_TEST

/* ---- Variants against plain C ------------------------------------------------------------------------------ */

/* Where a kernel writes: from so many bytes behind the first canaries on, with canaries after it. */
struct guarded {
    _Alignas(64) uint8_t memory[CANARY_BYTES + OFF_MAX + OUT_BYTES_MAX + CANARY_BYTES];
};

static uint8_t *guarded_at(struct guarded *guarded, size_t off, size_t bytes)
{
    memset(guarded->memory, CANARY, CANARY_BYTES + off + bytes + CANARY_BYTES);
    return guarded->memory + CANARY_BYTES + off;
}

static bool guarded_intact(const uint8_t *data, size_t bytes)
{
    for (size_t i = 1; i <= CANARY_BYTES; i++)
        if (*(data - i) != CANARY || data[bytes + i - 1] != CANARY)
            return false;
    return true;
}

/* Where the two differ first, in elements; that many elements where they do not. */
static size_t difference(const uint8_t *got, const uint8_t *expected, size_t elements, size_t size)
{
    size_t i = 0;

    if (!memcmp(got, expected, elements * size))
        return elements;
    while (!memcmp(got + i * size, expected + i * size, size))
        i++;
    return i;
}

/* The source lies so many bytes off and ends where its memory ends, the destination lies so many elements off. */
static void compare(const struct tnd_kernel *kernel, enum fill fill, size_t blocks, size_t source_off,
                    size_t destination_off)
{
    static struct guarded guarded, plain_guarded;
    const struct tnd_kernel *plain = tnd_kernel_find(kernel->from, kernel->to, TND_ISA_C);
    struct tnd_range_counts counts = {3, 5}, plain_counts = {3, 5};
    uint32_t block_elements, block_bytes, size = element_bytes(kernel->to);
    size_t elements, bytes;
    uint8_t *memory, *got, *expected;

    sizes(kernel->from, &block_elements, &block_bytes);
    elements = blocks * block_elements;
    bytes = elements * size;
    ck_assert_uint_le(bytes, OUT_BYTES_MAX);
    memory = malloc(source_off + blocks * block_bytes + (blocks == 0));
    ck_assert_ptr_nonnull(memory);
    fill_blocks(memory + source_off, blocks * block_bytes, fill);
    got = guarded_at(&guarded, destination_off * size, bytes);
    expected = guarded_at(&plain_guarded, 0, bytes);

    plain->run(expected, memory + source_off, elements, &plain_counts);
    kernel->run(got, memory + source_off, elements, &counts);
    free(memory);

    ck_assert_msg(difference(got, expected, elements, size) == elements,
                  "%s to %s (%s), fill %d, %zu blocks, off %zu and %zu: element %zu differs",
                  tnd_dtype_name(kernel->from), tnd_dtype_name(kernel->to), tnd_isa_name(kernel->isa), (int)fill,
                  blocks, source_off, destination_off, difference(got, expected, elements, size));
    ck_assert_uint_eq(counts.overflowed, plain_counts.overflowed);
    ck_assert_uint_eq(counts.underflowed, plain_counts.underflowed);
    ck_assert_msg(guarded_intact(got, bytes) && guarded_intact(expected, bytes),
                  "%s to %s (%s) writes beside its destination", tnd_dtype_name(kernel->from),
                  tnd_dtype_name(kernel->to), tnd_isa_name(kernel->isa));
}

static void compare_lengths(const struct tnd_kernel *kernel)
{
    static const size_t many[] = {33, 64, BLOCKS_MAX};

    for (int fill = 0; fill < FILL_COUNT; fill++) {
        for (size_t blocks = 0; blocks < 10; blocks++)
            compare(kernel, (enum fill)fill, blocks, 0, 0);
        for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++)
            compare(kernel, (enum fill)fill, many[i], 0, 0);
    }
}

/* Short, and long enough to be streamed. */
static void compare_alignments(const struct tnd_kernel *kernel)
{
    uint32_t elements, bytes;

    sizes(kernel->from, &elements, &bytes);
    for (size_t off = 0; off < 16; off++)
        for (size_t blocks = 1; blocks < 2 * STREAMED_ELEMENTS / elements; blocks += STREAMED_ELEMENTS / elements) {
            compare(kernel, FILL_EXTREMES, blocks, off, 0);
            compare(kernel, FILL_EXTREMES, blocks, 0, off);
            compare(kernel, FILL_WEIGHTS, blocks, off, 15 - off);
        }
}

START_TEST(variants_equal_plain_c)
{
    unsigned entered = 0, beyond = 0, supported = 0;
    const struct tnd_kernel *kernel;

    for (size_t i = 0; (kernel = tnd_kernel_at(i)); i++) {
        if (kernel->from < TND_Q4_0)
            continue;
        if (kernel->isa > tnd_isa_best()) {
            beyond++;
            continue;
        }
        supported++;
        compare_lengths(kernel);
        compare_alignments(kernel);
        entered += tnd_kernel_find(kernel->from, kernel->to, kernel->isa) == kernel;
    }
    /* One that the dispatch cannot reach has been compared, but would never run. */
    ck_assert_uint_eq(entered, supported);
    printf("%u kernels compared, %u beyond this processor\n", supported, beyond);
}
END_TEST

/* Plain C narrows what it decodes: one rounding, and counts of what that rounding lost. */
START_TEST(narrowing_is_one_rounding)
{
    for (int dtype = TND_Q4_0; dtype < TND_DTYPE_COUNT; dtype++) {
        struct tnd_range_counts counts = {0}, none = {0}, expected = {0};
        static uint8_t source[BLOCKS_MAX * 292];
        static float values[BLOCKS_MAX * TND_QUANT_ELEMENTS_MAX];
        static uint16_t halves[BLOCKS_MAX * TND_QUANT_ELEMENTS_MAX];
        uint32_t elements, bytes;

        sizes((enum tnd_dtype)dtype, &elements, &bytes);
        fill_blocks(source, (size_t)BLOCKS_MAX * bytes, FILL_EXTREMES);
        tnd_kernel_find((enum tnd_dtype)dtype, TND_F32, TND_ISA_C)
            ->run(values, source, (size_t)BLOCKS_MAX * elements, &none);
        tnd_kernel_find((enum tnd_dtype)dtype, TND_F16, TND_ISA_C)
            ->run(halves, source, (size_t)BLOCKS_MAX * elements, &counts);
        for (size_t i = 0; i < (size_t)BLOCKS_MAX * elements; i++) {
            uint16_t half = tnd_f16_of_f32(values[i]);

            ck_assert_msg(halves[i] == half, "%s: element %zu is %04X, not %04X", tnd_dtype_name((enum tnd_dtype)dtype),
                          i, halves[i], half);
            expected.overflowed += (half & 0x7FFF) == TND_F16_INF && tnd_f32_bits(values[i]) << 1 != TND_F32_INF << 1;
            expected.underflowed += (half & 0x7FFF) == 0 && values[i] != 0;
        }
        ck_assert_uint_eq(counts.overflowed, expected.overflowed);
        ck_assert_uint_eq(counts.underflowed, expected.underflowed);
        ck_assert_uint_eq(none.overflowed + none.underflowed, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dequant");
    TCase *tests = tcase_create("dequant");

    tcase_add_test(tests, every_format_is_there);
    tcase_add_loop_test(tests, blocks_by_hand, 0, (int)(sizeof(goldens) / sizeof(goldens[0])));
    tcase_add_test(tests, nans_are_canonical_and_losses_are_counted);
    tcase_add_test(tests, variants_equal_plain_c);
    tcase_add_test(tests, narrowing_is_one_rounding);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
