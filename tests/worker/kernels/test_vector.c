/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: vectors come out as the same sums in F64 say, within a few roundings, and the same bits in every variant.
 * Method: all lengths up to some hundred, at addresses that suit the element only, with a canary behind; activations as
 * they are, large ones, and what is no number. */

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/vector.h"
#define TARGET __attribute__((unused))
#define INLINE static inline __attribute__((always_inline))
#include "kernels/vector_loops.h"
#include "support/blocks.h"
#include "support/suite.h"

#define N_MAX 300
#define ROOM (N_MAX + 64)

struct vectors {
    float x[ROOM], y[ROOM], z[ROOM];
    uint16_t halves[ROOM];
};

static struct vectors v;
static const struct vector_variant *plain_c;

static float number(float most)
{
    return (float)((double)(random_bits() % 2000001) / 1000000 - 1) * most;
}

static void fill(float most)
{
    for (uint32_t i = 0; i < ROOM; i++) {
        v.x[i] = number(most);
        v.y[i] = number(most);
        v.z[i] = number(most);
    }
    vector_to_f16(v.z, ROOM, v.halves);
}

static double half(uint32_t i)
{
    float one = 1, lanes[2] = {0, 0};

    vector_weighted_sum_f16(&one, &v.halves[i], 1, 1, lanes);
    return (double)lanes[0];
}

static void expect_near(double got, double expected, double off)
{
    ck_assert_msg(fabs(got - expected) <= off, "%.9g, not %.9g, off by %g", got, expected, fabs(got - expected) / off);
}

START_TEST(halves_are_rounded_to_even)
{
    static const float values[] = {0, 1, -2, 65504, 65520, 1e-8f, 0x1.002p0f, 0x1.006p0f, 0x1p-24f, INFINITY};
    static const uint16_t halves[] = {0, 0x3C00, 0xC000, 0x7BFF, 0x7C00, 0, 0x3C00, 0x3C02, 1, 0x7C00};
    uint16_t got[10];

    vector_to_f16(values, 10, got);
    ck_assert_mem_eq(got, halves, sizeof(halves));
    for (uint32_t n = 0; n < N_MAX; n++) { /* one by one, and not one more */
        uint16_t many[ROOM];

        fill(100);
        memset(many, 0xA5, sizeof(many));
        vector_to_f16(v.z + 1, n, many + 1);
        ck_assert_mem_eq(many + 1, v.halves + 1, n * sizeof(many[0]));
        ck_assert_uint_eq(many[n + 1], 0xA5A5);
    }
}
END_TEST

START_TEST(norm)
{
    for (uint32_t n = 1; n < N_MAX; n++) {
        double squares = 0, scale;

        fill(3);
        for (uint32_t i = 0; i < n; i++)
            squares += (double)v.x[i + 1] * (double)v.x[i + 1];
        scale = 1 / sqrt(squares / n + 1e-5);
        v.z[n + 1] = 7;
        vector_rms_norm(v.x + 1, v.y + 1, n, 1e-5f, v.z + 1);
        for (uint32_t i = 0; i < n; i++)
            expect_near((double)v.z[i + 1], (double)v.x[i + 1] * scale * (double)v.y[i + 1],
                        1e-6 * fabs((double)v.z[i + 1]));
        ck_assert(v.z[n + 1] == 7);
        memcpy(v.y, v.x, sizeof(v.y));
        vector_rms_norm(v.x + 1, v.y + 1, n, 1e-5f, v.z + 1);
        vector_rms_norm(v.x + 1, v.y + 1, n, 1e-5f, v.x + 1); /* in place */
        ck_assert_mem_eq(v.x + 1, v.z + 1, n * sizeof(float));
    }
}
END_TEST

START_TEST(softmax_sums_to_one)
{
    static const float largest[] = {1, 10, 80, 1e4f};

    for (uint32_t n = 1; n < N_MAX; n++) {
        double sum = 0, total = 0, values[N_MAX];
        float max = -INFINITY;

        fill(largest[n % 4]);
        for (uint32_t i = 0; i < n; i++)
            max = fmaxf(max, v.x[i + 1]);
        for (uint32_t i = 0; i < n; i++)
            sum += values[i] = exp((double)(v.x[i + 1] - max)); /* the difference, too, is F32 */
        v.x[n + 1] = 7;
        vector_softmax(v.x + 1, n);
        for (uint32_t i = 0; i < n; i++) {
            expect_near((double)v.x[i + 1], values[i] / sum, values[i] / sum * 1e-6 + 1e-37);
            total += (double)v.x[i + 1];
        }
        expect_near(total, 1, 1e-6);
        ck_assert(v.x[n + 1] == 7);
    }
}
END_TEST

START_TEST(silu_of_everything)
{
    for (uint32_t n = 0; n < N_MAX; n++) {
        fill(n % 2 ? 5.0f : 200.0f);
        v.z[n + 1] = 7;
        vector_silu_multiply(v.x + 1, v.y + 1, n, v.z + 1);
        for (uint32_t i = 0; i < n; i++) {
            double gate = (double)v.x[i + 1], exact = gate / (1 + exp(-gate)) * (double)v.y[i + 1];

            expect_near((double)v.z[i + 1], exact, fabs(exact) * 1e-6 + 1e-33);
        }
        ck_assert(v.z[n + 1] == 7);
    }
}
END_TEST

START_TEST(exponentials_are_as_good_as_f32)
{
    double worst = 0;

    for (float x = 0; x > -87; x -= 0.000137f) {
        double exact = exp((double)x);

        worst = fmax(worst, fabs((double)exp_of(x) - exact) / exact);
    }
    printf("exp: off by %.3g at most\n", worst);
    ck_assert_double_le(worst, 1.5 * FLT_EPSILON);
    ck_assert(exp_of(0) == 1 && exp_of(-0.0f) == 1 && exp_of(-88) == 0 && exp_of(-INFINITY) == 0);
    ck_assert(isnan(exp_of(NAN)));
}
END_TEST

START_TEST(halves_in_sums)
{
    for (uint32_t n = 0; n < N_MAX; n++)
        for (uint32_t count = 0; count <= 3 && count * n < ROOM; count++) {
            float dots[4] = {7, 7, 7, 7};

            fill(3);
            memcpy(v.z, v.y, sizeof(v.z));
            vector_dots_f16(v.x + 1, v.halves + 1, count, n, dots);
            vector_weighted_sum_f16(v.y, v.halves + 1, count, n, v.z + 1);
            for (uint32_t row = 0; row < count; row++) {
                double sum = 0, magnitudes = 0;

                for (uint32_t i = 0; i < n; i++) {
                    sum += (double)v.x[i + 1] * half(row * n + i + 1);
                    magnitudes += fabs((double)v.x[i + 1] * half(row * n + i + 1));
                }
                expect_near((double)dots[row], sum, magnitudes * 1e-6);
            }
            ck_assert(dots[count] == 7);
            for (uint32_t i = 0; i < n; i++) {
                double sum = 0;

                for (uint32_t row = 0; row < count; row++)
                    sum += (double)v.y[row] * half(row * n + i + 1);
                expect_near((double)v.z[i + 1], sum, 6e-6);
            }
            ck_assert(v.z[0] == v.y[0] && v.z[n + 1] == v.y[n + 1]);
        }
}
END_TEST

START_TEST(sums_and_turns)
{
    for (uint32_t n = 0; n < N_MAX; n += 2) {
        float cosines[N_MAX / 2], sines[N_MAX / 2];

        fill(3);
        for (uint32_t i = 0; i < N_MAX / 2; i++) {
            cosines[i] = cosf((float)i);
            sines[i] = sinf((float)i);
        }
        memcpy(v.z, v.y, sizeof(v.z));
        vector_add(v.x + 1, n, v.z + 1);
        for (uint32_t i = 0; i < ROOM - 1; i++)
            ck_assert(v.z[i + 1] == (i < n ? v.y[i + 1] + v.x[i + 1] : v.y[i + 1]));
        for (int halves = 0; halves < 2; halves++) {
            memcpy(v.z, v.x, sizeof(v.z));
            vector_rope(v.z + 1, n, cosines, sines, halves);
            for (uint32_t i = 0; i < n / 2; i++) {
                uint32_t first = 1 + (halves ? i : 2 * i), second = halves ? first + n / 2 : first + 1;
                double x = (double)v.x[first], y = (double)v.x[second];

                expect_near((double)v.z[first], x * cos(i) - y * sin(i), 2e-6);
                expect_near((double)v.z[second], x * sin(i) + y * cos(i), 2e-6);
            }
            ck_assert(v.z[0] == v.x[0] && v.z[n + 1] == v.x[n + 1]);
        }
    }
}
END_TEST

static void expect_same_bits(const char *what, const struct vector_variant *variant, const float *got,
                             const float *expected, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ck_assert_msg((isnan(got[i]) && isnan(expected[i])) || memcmp(&got[i], &expected[i], sizeof(float)) == 0,
                      "%s (%s) of %u: element %u is %a, not %a", what, variant->name, n, i, (double)got[i],
                      (double)expected[i]);
}

static void compare(const struct vector_variant *variant, uint32_t n)
{
    uint32_t count = 3 * n < ROOM ? 3 : 1;
    float got[ROOM], expected[ROOM];

    got[0] = variant->dot(v.x + 1, v.y + 1, n);
    expected[0] = plain_c->dot(v.x + 1, v.y + 1, n);
    expect_same_bits("dot", variant, got, expected, 1);
    variant->dots_f16(v.x + 1, v.halves + 1, count, n, got);
    plain_c->dots_f16(v.x + 1, v.halves + 1, count, n, expected);
    expect_same_bits("dots_f16", variant, got, expected, count);
    variant->scale(v.x + 1, v.y + 1, n, 0.7f, got);
    plain_c->scale(v.x + 1, v.y + 1, n, 0.7f, expected);
    expect_same_bits("scale", variant, got, expected, n);
    variant->silu_multiply(v.x + 1, v.y + 1, n, got);
    plain_c->silu_multiply(v.x + 1, v.y + 1, n, expected);
    expect_same_bits("silu_multiply", variant, got, expected, n);
    memcpy(got, v.y, sizeof(got));
    memcpy(expected, v.y, sizeof(expected));
    variant->weighted_sum_f16(v.x, v.halves + 1, count, n, got);
    plain_c->weighted_sum_f16(v.x, v.halves + 1, count, n, expected);
    expect_same_bits("weighted_sum_f16", variant, got, expected, ROOM);
    memcpy(got, v.x, sizeof(got));
    memcpy(expected, v.x, sizeof(expected));
    variant->softmax(got + 1, n);
    plain_c->softmax(expected + 1, n);
    expect_same_bits("softmax", variant, got, expected, ROOM);
}

START_TEST(variants_equal_plain_c)
{
    static const float extremes[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, FLT_MIN, 1e-45f, -0.0f, -87, -88};
    const struct vector_variant *variant;

    for (uint32_t index = 0; (variant = vector_variant_at(index)); index++)
        for (uint32_t n = 1; n < N_MAX; n++) {
            fill(n % 3 ? 4.0f : 100.0f);
            compare(variant, n);
            for (uint32_t i = 0; i < ROOM; i += 1 + (uint32_t)random_bits() % 200) {
                v.x[i] = extremes[random_bits() % 10];
                v.halves[i] = (uint16_t)random_bits();
            }
            compare(variant, n);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker vector");
    TCase *tests = tcase_create("worker vector");

    for (uint32_t i = 0; vector_variant_at(i); i++)
        plain_c = vector_variant_at(i);
    tcase_add_test(tests, halves_are_rounded_to_even);
    tcase_add_test(tests, norm);
    tcase_add_test(tests, softmax_sums_to_one);
    tcase_add_test(tests, silu_of_everything);
    tcase_add_test(tests, exponentials_are_as_good_as_f32);
    tcase_add_test(tests, halves_in_sums);
    tcase_add_test(tests, sums_and_turns);
    tcase_add_test(tests, variants_equal_plain_c);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
