/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: the sampler chooses what its options say, as often as the probabilities say, and the same again.
 * Method: few logits whose probabilities are known; a hundred thousand draws; extremes. */

#include <errno.h>
#include <math.h>

#include "generate/sampler.h"
#include "support/suite.h"

#define DRAWS 100000
#define OFF_MAX 0.01 /* six deviations of a share of DRAWS */

/* exp() of these: 1, 2, 3, 4. */
static const float logits[4] = {0, 0.6931472F, 1.0986123F, 1.3862944F};

static void count(const struct sampler_options *options, double shares[4])
{
    struct sampler sampler;

    ck_assert_int_eq(sampler_init(&sampler, options, 4), 0);
    for (int i = 0; i < 4; i++)
        shares[i] = 0;
    for (int i = 0; i < DRAWS; i++) {
        int32_t token = sampler_next(&sampler, logits);

        ck_assert_int_ge(token, 0);
        ck_assert_int_lt(token, 4);
        shares[token] += 1.0 / DRAWS;
    }
    sampler_finish(&sampler);
}

static void check_shares(const struct sampler_options *options, double a, double b, double c, double d)
{
    const double expected[4] = {a, b, c, d};
    double shares[4];

    count(options, shares);
    for (int i = 0; i < 4; i++) {
        ck_assert_double_le(fabs(shares[i] - expected[i]), OFF_MAX);
        if (expected[i] == 0)
            ck_assert(shares[i] == 0);
    }
}

START_TEST(shares)
{
    check_shares(&(struct sampler_options){.temperature = 1}, .1, .2, .3, .4);
    check_shares(&(struct sampler_options){.temperature = 1, .top_p = 1, .seed = 9}, .1, .2, .3, .4);
    check_shares(&(struct sampler_options){.temperature = 0.5F}, 1 / 30.0, 4 / 30.0, 9 / 30.0, 16 / 30.0);
    check_shares(&(struct sampler_options){.temperature = 1e6F}, .25, .25, .25, .25);
    check_shares(&(struct sampler_options){.temperature = 1e-6F}, 0, 0, 0, 1);
    check_shares(&(struct sampler_options){.temperature = 0}, 0, 0, 0, 1);
}
END_TEST

START_TEST(likeliest_ones)
{
    check_shares(&(struct sampler_options){.temperature = 1, .top_k = 1}, 0, 0, 0, 1);
    check_shares(&(struct sampler_options){.temperature = 1, .top_k = 2}, 0, 0, 3 / 7.0, 4 / 7.0);
    check_shares(&(struct sampler_options){.temperature = 1, .top_k = 9}, .1, .2, .3, .4);
    check_shares(&(struct sampler_options){.temperature = 1, .top_p = 0.01F}, 0, 0, 0, 1);
    check_shares(&(struct sampler_options){.temperature = 1, .top_p = 0.399F}, 0, 0, 0, 1);
    check_shares(&(struct sampler_options){.temperature = 1, .top_p = 0.401F}, 0, 0, 3 / 7.0, 4 / 7.0);
    check_shares(&(struct sampler_options){.temperature = 1, .top_p = 0.899F}, 0, 2 / 9.0, 3 / 9.0, 4 / 9.0);
    /* The share is of what top_k left: 0.5 of 3 + 4. */
    check_shares(&(struct sampler_options){.temperature = 1, .top_k = 2, .top_p = 0.5F}, 0, 0, 0, 1);
    check_shares(&(struct sampler_options){.temperature = 1, .top_k = 2, .top_p = 0.6F}, 0, 0, 3 / 7.0, 4 / 7.0);
}
END_TEST

START_TEST(seeds)
{
    struct sampler_options options = {.temperature = 1, .seed = 1};
    struct sampler one, same, other;
    int differ = 0;

    sampler_init(&one, &options, 4);
    sampler_init(&same, &options, 4);
    options.seed = 2;
    sampler_init(&other, &options, 4);
    for (int i = 0; i < 100; i++) {
        int32_t token = sampler_next(&one, logits);

        ck_assert_int_eq(token, sampler_next(&same, logits));
        differ += token != sampler_next(&other, logits);
    }
    ck_assert_int_gt(differ, 20);
    sampler_finish(&one);
    sampler_finish(&same);
    sampler_finish(&other);
}
END_TEST

static int32_t choose(const float values[4], float temperature, uint32_t top_k, float top_p)
{
    const struct sampler_options options = {.temperature = temperature, .top_k = top_k, .top_p = top_p};
    struct sampler sampler;
    int32_t token;

    ck_assert_int_eq(sampler_init(&sampler, &options, 4), 0);
    token = sampler_next(&sampler, values);
    sampler_finish(&sampler);
    return token;
}

START_TEST(extremes)
{
    const float equal[4] = {1, 7, 7, 7}, nans[4] = {NAN, NAN, -3, NAN}, none[4] = {NAN, NAN, NAN, NAN};
    const float endless[4] = {0, INFINITY, 0, 0}, least[4] = {-INFINITY, -INFINITY, -INFINITY, -1e30F};
    const float nothing[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, far[4] = {3e38F, -3e38F, 0, -3e38F};

    ck_assert_int_eq(choose(equal, 0, 0, 0), 1);
    for (uint32_t top_k = 0; top_k < 4; top_k++)
        for (int temperature = 0; temperature < 3; temperature++) {
            ck_assert_int_eq(choose(nans, (float)temperature, top_k, 0.5F), 2);
            ck_assert_int_eq(choose(none, (float)temperature, top_k, 0.5F), -1);
            ck_assert_int_eq(choose(endless, (float)temperature, top_k, 0), -1);
            ck_assert_int_eq(choose(nothing, (float)temperature, top_k, 0), -1);
            ck_assert_int_eq(choose(least, (float)temperature, top_k, 0.9F), 3);
            ck_assert_int_eq(choose(far, (float)temperature, top_k, 0.9F), 0);
        }
}
END_TEST

START_TEST(refused)
{
    const struct sampler_options options[] = {{.temperature = -1}, {.temperature = NAN}, {.temperature = INFINITY},
                                              {.top_p = -0.1F}, {.top_p = 1.1F}, {.top_p = NAN}};
    struct sampler sampler;

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        ck_assert_int_eq(sampler_init(&sampler, &options[i], 4), -EINVAL);
        sampler_finish(&sampler);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tests = tcase_create("all");

    tcase_add_test(tests, shares);
    tcase_add_test(tests, likeliest_ones);
    tcase_add_test(tests, seeds);
    tcase_add_test(tests, extremes);
    tcase_add_test(tests, refused);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
