/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: lengths that a file claims cannot wrap, and only UTF-8 passes for it.
 * Method: values on both sides of each boundary; every code point, whole and cut, against a plain rule. */

#include "memory_file.h"

START_TEST(checked_arithmetic)
{
    uint64_t result = 0;

    ck_assert(!tnd_add_overflows(UINT64_MAX - 1, 1, &result));
    ck_assert_uint_eq(result, UINT64_MAX);
    ck_assert(tnd_add_overflows(UINT64_MAX, 1, &result));
    ck_assert(!tnd_mul_overflows(UINT64_MAX / 2, 2, &result));
    ck_assert(tnd_mul_overflows(UINT64_MAX / 2 + 1, 2, &result));
    ck_assert(!tnd_mul_overflows(0, UINT64_MAX, &result));
    ck_assert_uint_eq(result, 0);
}
END_TEST

START_TEST(rounding)
{
    ck_assert_uint_eq(tnd_round_up(0, 4096), 0);
    ck_assert_uint_eq(tnd_round_up(1, 4096), 4096);
    ck_assert_uint_eq(tnd_round_up(4096, 4096), 4096);
    ck_assert_uint_eq(tnd_round_down(4095, 4096), 0);
    ck_assert_uint_eq(tnd_round_down(4097, 4096), 4096);
    ck_assert(!tnd_is_power_of_two(0));
    ck_assert(tnd_is_power_of_two(1));
    ck_assert(!tnd_is_power_of_two(24));
    ck_assert(tnd_is_power_of_two((uint64_t)1 << 63));
}
END_TEST

START_TEST(little_endian_at_any_address)
{
    const uint8_t bytes[] = {0xFF, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88};

    ck_assert_uint_eq(tnd_le16(bytes + 1), 0x0201);
    ck_assert_uint_eq(tnd_le32(bytes + 1), 0x04030201);
    ck_assert_uint_eq(tnd_le64(bytes + 1), 0x8807060504030201);
}
END_TEST

static size_t encode(uint32_t c, uint8_t *out)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

START_TEST(utf8_every_code_point)
{
    for (uint32_t c = 0; c < 0x120000; c++) {
        uint8_t text[4];
        size_t bytes = encode(c, text);
        bool expected = c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);

        ck_assert_msg(tnd_utf8_valid(text, bytes) == expected, "U+%X", c);
        if (bytes > 1)
            ck_assert_msg(!tnd_utf8_valid(text, bytes - 1), "U+%X cut", c);
    }
}
END_TEST

START_TEST(utf8_bad_bytes)
{
    static const char *const bad[] = {"\x80",         "\xC0\x80",     "\xC1\xBF",         "\xE0\x9F\xBF",
                                      "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                      "\xFF",         "a\xC3(",       "\xE2\x82(",        "\xF0\x9F\x98("};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!tnd_utf8_valid(bad[i], strlen(bad[i])), "case %zu", i);
    ck_assert(tnd_utf8_valid("", 0));
    ck_assert(tnd_utf8_valid("a\0b", 3));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bytes");
    TCase *tests = tcase_create("bytes");

    tcase_add_test(tests, checked_arithmetic);
    tcase_add_test(tests, rounding);
    tcase_add_test(tests, little_endian_at_any_address);
    tcase_add_test(tests, utf8_every_code_point);
    tcase_add_test(tests, utf8_bad_bytes);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
