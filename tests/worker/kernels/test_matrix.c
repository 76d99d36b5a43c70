/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: products are what the weights' values say, the same bits however they are come by, and touch nothing but their
 * operands.
 * Method: for every type, sums in F64 of values decoded one row at a time say that products are right, within what
 * rounding activations to eight bits may cost (independent readers say it again, in test_matrix.py); each variant, each
 * count of activations and each size of the team gives the bits that plain C gives for one row of them; weights lie at
 * any address, and end where memory ends. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/dot.h"
#include "kernels/matrix.h"
#include "support/blocks.h"
#include "support/suite.h"

#define ROWS_MAX 37
#define COLUMNS_MAX 2560
#define COUNT_MAX 9

static float x[COUNT_MAX * COLUMNS_MAX];
static float row_values[COLUMNS_MAX];
static _Alignas(64) float expected[COUNT_MAX * ROWS_MAX], got[COUNT_MAX * ROWS_MAX];
static struct team *team, *teams[3];
static enum tnd_dtype supported[TND_DTYPE_COUNT];

/* ---- Weights in memory that ends behind them --------------------------------------------------------------- */

struct weights {
    uint8_t *memory;
    size_t memory_bytes;
    struct matrix matrix;
};

/* off: bytes between the end of the weights and the end of memory. */
static struct weights make_weights(enum tnd_dtype dtype, uint32_t rows, uint32_t columns, size_t off)
{
    uint32_t elements, bytes;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), total;
    struct weights weights = {.matrix = {.dtype = dtype, .rows = rows, .columns = columns}};

    ck_assert_int_eq(tnd_dtype_block(dtype, &elements, &bytes), 0);
    ck_assert_uint_eq(columns % elements, 0);
    total = (size_t)columns / elements * bytes * rows;
    weights.memory_bytes = (total + off + page - 1) / page * page + page;
    weights.memory = mmap(NULL, weights.memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(weights.memory, MAP_FAILED);
    ck_assert_int_eq(mprotect(weights.memory + weights.memory_bytes - page, page, PROT_NONE), 0);
    weights.matrix.data = weights.memory + weights.memory_bytes - page - off - total;
    return weights;
}

static void free_weights(struct weights *weights)
{
    munmap(weights->memory, weights->memory_bytes);
}

static uint8_t *bytes_of(const struct weights *weights, size_t *ret_bytes)
{
    const struct matrix *matrix = &weights->matrix;
    uint32_t elements, bytes;

    tnd_dtype_block(matrix->dtype, &elements, &bytes);
    *ret_bytes = (size_t)matrix->columns / elements * bytes * matrix->rows;
    return (uint8_t *)(uintptr_t)matrix->data;
}

/* Of floats, or scales, whose exponent is in their last byte; 0: it is enough to keep some bits clear. */
static size_t float_bytes(enum tnd_dtype dtype)
{
    switch (dtype) {
    case TND_F64:
        return 8;
    case TND_F32:
    case TND_Q8_K:
        return 4;
    case TND_BF16:
        return 2;
    default:
        return 0;
    }
}

/* Bits at random, but numbers as weights have them. */
static void fill_weights(struct weights *weights)
{
    enum tnd_dtype dtype = weights->matrix.dtype;
    size_t bytes, width = float_bytes(dtype);
    uint8_t *data = bytes_of(weights, &bytes);

    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)random_bits();

        if (dtype == TND_MXFP4)
            data[i] = 0x70 | (byte & 0x0F); /* every 17th is the exponent of a scale */
        else if (width == 0)
            data[i] = byte & 0xBB; /* no F16 and no F8 has all bits of its exponent */
        else if (i % width == width - 1)
            data[i] = (byte & 0x81) | 0x3E;
        else
            data[i] = byte;
    }
}

static void fill_activations(void)
{
    for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
        x[i] = (float)((double)(random_bits() % 2000001) / 1000000 - 1);
}

/* ---- Products ---------------------------------------------------------------------------------------------- */

static void multiply(const struct dot_variant *variant, struct team *by, const struct matrix *weights,
                     const float *activations, uint32_t count, float *y)
{
    size_t bytes = (matrix_scratch_bytes(by, weights->columns, count) + 63) / 64 * 64;
    void *scratch = aligned_alloc(64, bytes);

    ck_assert_ptr_nonnull(scratch);
    memset(scratch, 0xFF, bytes); /* NaNs, for whoever reads what was not written */
    if (variant)
        matrix_multiply_by(variant, by, weights, activations, count, y, scratch);
    else
        matrix_multiply(by, weights, activations, count, y, scratch);
    free(scratch);
}

static const struct dot_variant *plain_c(void)
{
    uint32_t index = 0;

    while (dot_variant_at(index + 1))
        index++;
    return dot_variant_at(index);
}

static bool rounds_activations(enum tnd_dtype dtype)
{
    return matrix_has_dot(dtype) && dtype >= TND_Q4_0;
}

/* Half a step of each activation, a 254th part of the largest of its neighbours, times its weight; and what sums in F32
 * lose. */
static double tolerance_of(enum tnd_dtype dtype, const float *activations, uint32_t columns)
{
    double tolerance = 0;

    for (uint32_t i = 0; i < columns; i++) {
        double largest = 0, weight = fabs((double)row_values[i]);

        for (uint32_t j = i - i % DOT_VALUES_GROUP; j < columns && j < i - i % DOT_VALUES_GROUP + DOT_VALUES_GROUP; j++)
            largest = fmax(largest, fabs((double)activations[j]));
        if (rounds_activations(dtype))
            tolerance += weight * largest * (0.5001 / 127);
        tolerance += weight * largest * columns * FLT_EPSILON;
    }
    return tolerance;
}

static void compare_with_f64(const struct matrix *weights, uint32_t count)
{
    for (uint32_t row = 0; row < weights->rows; row++) {
        matrix_row(weights, row, row_values);
        for (uint32_t t = 0; t < count; t++) {
            const float *activations = x + (size_t)t * weights->columns;
            double sum = 0;

            for (uint32_t i = 0; i < weights->columns; i++)
                sum += (double)row_values[i] * (double)activations[i];
            ck_assert_msg(fabs(sum - (double)expected[t * weights->rows + row]) <=
                              tolerance_of(weights->dtype, activations, weights->columns),
                          "%s, %u columns, row %u, activations %u: %g, not %g", tnd_dtype_name(weights->dtype),
                          weights->columns, row, t, (double)expected[t * weights->rows + row], sum);
        }
    }
}

static bool same_number(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0 || (isnan(a) && isnan(b));
}

static void expect_same(const struct matrix *weights, uint32_t count, const char *how, const char *name,
                        uint32_t number)
{
    for (uint32_t i = 0; i < count * weights->rows; i++)
        ck_assert_msg(same_number(expected[i], got[i]), "%s, %u columns, %s %s %u: number %u is %a, not %a",
                      tnd_dtype_name(weights->dtype), weights->columns, how, name, number, i, (double)got[i],
                      (double)expected[i]);
}

/* expected: by plain C, one row of activations at a time. */
static void expect_by_plain_c(const struct matrix *weights, uint32_t count)
{
    for (uint32_t t = 0; t < count; t++)
        multiply(plain_c(), team, weights, x + (size_t)t * weights->columns, 1, expected + t * weights->rows);
}

static void compare_variants(const struct matrix *weights)
{
    const struct dot_variant *variant;

    for (uint32_t index = 0; (variant = dot_variant_at(index)); index++)
        for (uint32_t count = 1; count <= COUNT_MAX; count++) {
            multiply(variant, team, weights, x, count, got);
            expect_same(weights, count, "variant", variant->name, count);
        }
}

static void compare_teams(const struct matrix *weights)
{
    for (uint32_t i = 0; i < sizeof(teams) / sizeof(teams[0]); i++) {
        multiply(NULL, teams[i], weights, x, COUNT_MAX, got);
        expect_same(weights, COUNT_MAX, "team of", "threads:", team_size(teams[i]));
    }
}

/* One block, some, and as many as take several panels; for floats also parts of a lane. */
static uint32_t columns_at(enum tnd_dtype dtype, uint32_t index)
{
    static const uint32_t of_elements[] = {1, 15, 16, 17, 500, 767, 768, 769, 1601}, blocks[] = {1, 2, 7, 8, 9, 65};
    uint32_t elements, bytes;

    tnd_dtype_block(dtype, &elements, &bytes);
    if (elements == 1)
        return index < sizeof(of_elements) / sizeof(of_elements[0]) ? of_elements[index] : 0;
    if (index >= sizeof(blocks) / sizeof(blocks[0]))
        return 0;
    return blocks[index] * elements <= COLUMNS_MAX ? blocks[index] * elements : COLUMNS_MAX / elements * elements;
}

START_TEST(products_of_a_type)
{
    static const uint32_t row_counts[] = {1, 3, 4, 5, ROWS_MAX};
    enum tnd_dtype dtype = supported[_i];
    uint32_t columns;

    for (uint32_t i = 0; (columns = columns_at(dtype, i)) != 0; i++) {
        struct weights weights = make_weights(dtype, row_counts[i % 5], columns, i % 3);

        fill_weights(&weights);
        expect_by_plain_c(&weights.matrix, COUNT_MAX);
        compare_with_f64(&weights.matrix, COUNT_MAX);
        compare_variants(&weights.matrix);
        compare_teams(&weights.matrix);
        free_weights(&weights);
    }
}
END_TEST

/* Bits of any kind in the weights, and activations that are no numbers or beside all others: the same everywhere. */
START_TEST(extremes_of_a_type)
{
    static const float extremes[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, FLT_MIN, 1e-38f, 1e-45f, 0, -0.0f};
    enum tnd_dtype dtype = supported[_i];
    size_t bytes;

    for (uint32_t round = 0; round < 3; round++) {
        struct weights weights = make_weights(dtype, 5, columns_at(dtype, round + 3), round);
        uint8_t *data = bytes_of(&weights, &bytes);

        fill_blocks(data, bytes, FILL_EXTREMES);
        fill_activations();
        for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i += 1 + random_bits() % 700)
            x[i] = extremes[random_bits() % (sizeof(extremes) / sizeof(extremes[0]))];
        expect_by_plain_c(&weights.matrix, COUNT_MAX);
        compare_variants(&weights.matrix);
        free_weights(&weights);
    }
    fill_activations();
}
END_TEST

/* Scales that are subnormal, with large activations; then activations around the least that count. */
START_TEST(small_numbers_of_a_type)
{
    static const float factors[] = {1e30f, 1e30f, DOT_VALUES_LEAST * 1.5f, DOT_VALUES_LEAST * 0.4f};
    enum tnd_dtype dtype = supported[_i];
    size_t bytes;

    for (uint32_t round = 0; round < 2; round++) {
        struct weights weights = make_weights(dtype, 5, columns_at(dtype, 4), 0);
        uint8_t *data = bytes_of(&weights, &bytes);

        fill_weights(&weights);
        for (size_t i = 0; i < bytes && round == 0; i++)
            data[i] &= 0x01;
        for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
            x[i] *= factors[2 * round + i / DOT_VALUES_GROUP % 2];
        expect_by_plain_c(&weights.matrix, COUNT_MAX);
        compare_variants(&weights.matrix);
        fill_activations();
        free_weights(&weights);
    }
}
END_TEST

/* An activation that is no number makes every product with its row none, and no other. */
START_TEST(what_is_no_number_shows)
{
    static const enum tnd_dtype dtypes[] = {TND_F16, TND_Q4_0, TND_Q4_K, TND_Q6_K};

    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        struct weights weights = make_weights(dtypes[i], ROWS_MAX, 512, 0);

        fill_weights(&weights);
        x[512 + 77] = NAN;
        multiply(NULL, team, &weights.matrix, x, 3, got);
        for (uint32_t j = 0; j < 3 * ROWS_MAX; j++)
            ck_assert_int_eq(isnan(got[j]) != 0, j / ROWS_MAX == 1);
        fill_activations();
        free_weights(&weights);
    }
}
END_TEST

/* More rows of activations than meet a panel at once, more columns than a panel has. */
START_TEST(many_activations)
{
    enum { COLUMNS = 2368, COUNT = 131, ROWS = 21 };
    static const enum tnd_dtype dtypes[] = {TND_F16, TND_Q4_0, TND_Q8_0, TND_NVFP4};
    float *many = malloc(sizeof(float) * COUNT * COLUMNS);
    float *all = aligned_alloc(64, sizeof(float) * 64 * ROWS * (COUNT / 64 + 1));

    for (uint32_t i = 0; i < COUNT * COLUMNS; i++)
        many[i] = x[i % (sizeof(x) / sizeof(x[0]))];
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        struct weights weights = make_weights(dtypes[i], ROWS, COLUMNS, 1);

        fill_weights(&weights);
        multiply(NULL, teams[1], &weights.matrix, many, COUNT, all);
        for (uint32_t t = 0; t < COUNT; t++) {
            multiply(plain_c(), team, &weights.matrix, many + t * COLUMNS, 1, expected);
            memcpy(got, all + t * ROWS, sizeof(float) * ROWS);
            expect_same(&weights.matrix, 1, "activations", "at", t);
        }
        free_weights(&weights);
    }
    free(many);
    free(all);
}
END_TEST

START_TEST(types_that_there_are)
{
    static const enum tnd_dtype own[] = {
        TND_F32,  TND_F16,  TND_BF16, TND_Q4_0, TND_Q4_1, TND_Q5_0,   TND_Q5_1,   TND_Q8_0,
        TND_Q2_K, TND_Q3_K, TND_Q4_K, TND_Q5_K, TND_Q6_K, TND_IQ4_NL, TND_IQ4_XS, TND_MXFP4,
    };

    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        ck_assert(matrix_has_dot(own[i]));
    for (int dtype = TND_Q4_0; dtype < TND_DTYPE_COUNT; dtype++)
        ck_assert(matrix_supports((enum tnd_dtype)dtype));
    ck_assert(matrix_supports(TND_F8_E4M3) && !matrix_has_dot(TND_F8_E4M3));
    ck_assert(!matrix_supports(TND_I32) && !matrix_has_dot(TND_I32));
    ck_assert(!matrix_supports(TND_DTYPE_NONE));
    for (uint32_t i = 0; dot_variant_at(i); i++)
        printf("%s variant %s\n", i ? "other" : "best", dot_variant_at(i)->name);
}
END_TEST

int main(void)
{
    static const uint32_t sizes[] = {2, 3, 8};
    Suite *suite = suite_create("worker matrix");
    TCase *tests = tcase_create("worker matrix");
    int failed = team_create(1, &team), supported_count = 0;

    for (int dtype = 0; dtype < TND_DTYPE_COUNT; dtype++)
        if (matrix_supports((enum tnd_dtype)dtype))
            supported[supported_count++] = (enum tnd_dtype)dtype;
    for (uint32_t i = 0; i < 3 && !failed; i++)
        failed = team_create(sizes[i], &teams[i]);
    if (failed)
        return EXIT_FAILURE;
    fill_activations();
    tcase_add_test(tests, types_that_there_are);
    tcase_add_loop_test(tests, products_of_a_type, 0, supported_count);
    tcase_add_loop_test(tests, extremes_of_a_type, 0, supported_count);
    tcase_add_loop_test(tests, small_numbers_of_a_type, 0, supported_count);
    tcase_add_test(tests, what_is_no_number_shows);
    tcase_add_test(tests, many_activations);
    suite_add_tcase(suite, tests);
    failed = run_suite(suite);
    team_destroy(&team);
    for (uint32_t i = 0; i < 3; i++)
        team_destroy(&teams[i]);
    return failed;
}
