/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: what is told is the text up to the first stop, at once but for what may still become one.
 * Method: texts cut into pieces of every size, against strstr() on the whole; sequences of UTF-8 stay whole. */

#include <errno.h>
#include <string.h>

#include "generate/stops.h"
#include "support/suite.h"

/* Tells a text in pieces; what was told, and whether a stop ended it. */
static bool tell(const char *const *texts, size_t count, const char *text, size_t piece, char *told)
{
    size_t bytes = strlen(text), length = 0;
    struct stops stops;
    bool found = false;

    ck_assert_int_eq(stops_init(&stops, texts, count, piece), 0);
    for (size_t at = 0; at < bytes && !found; at += piece) {
        size_t part = bytes - at < piece ? bytes - at : piece;
        size_t telling = stops_add(&stops, text + at, part, &found);

        ck_assert_uint_le(telling, stops.held_bytes);
        memcpy(told + length, stops.held, telling);
        length += telling;
        stops_drop(&stops, telling);
        ck_assert(found || stops.held_bytes < stops.longest || stops.longest == 0);
    }
    if (!found) {
        memcpy(told + length, stops.held, stops.held_bytes);
        length += stops.held_bytes;
    }
    told[length] = '\0';
    stops_finish(&stops);
    return found;
}

static void check(const char *const *texts, size_t count, const char *text, const char *expected, bool stopped)
{
    char told[256];

    for (size_t piece = 1; piece <= strlen(text); piece++) {
        ck_assert_int_eq(tell(texts, count, text, piece, told), stopped);
        ck_assert_str_eq(told, expected);
    }
}

START_TEST(found)
{
    check((const char *const[]){"\n\n"}, 1, "one\ntwo\n\nthree", "one\ntwo", true);
    check((const char *const[]){"aab"}, 1, "aaaab", "aa", true);
    check((const char *const[]){"###", "User:"}, 2, "well ## then User: x", "well ## then ", true);
    check((const char *const[]){"é"}, 1, "caf\xC3\xA8 caf\xC3\xA9", "caf\xC3\xA8 caf", true);
    check((const char *const[]){"x"}, 1, "xyz", "", true);
    check((const char *const[]){"late", "early"}, 2, "not early and not late", "not ", true);
}
END_TEST

START_TEST(not_found)
{
    check(NULL, 0, "any text", "any text", false);
    check((const char *const[]){"stop"}, 1, "sto sto", "sto sto", false);
    check((const char *const[]){"zzzzzzzzzzzzzzzzzzzzzz"}, 1, "short", "short", false);
}
END_TEST

/* The end of one piece is the beginning of nothing: it is told at once. */
START_TEST(at_once)
{
    const char *const texts[] = {"stop"};
    struct stops stops;
    bool is_found;

    ck_assert_int_eq(stops_init(&stops, texts, 1, 16), 0);
    ck_assert_uint_eq(stops_add(&stops, "hello", 5, &is_found), 5);
    stops_drop(&stops, 5);
    ck_assert_uint_eq(stops_add(&stops, "he st", 5, &is_found), 3);
    stops_drop(&stops, 3);
    ck_assert_uint_eq(stops_add(&stops, "ay", 2, &is_found), 4);
    stops_finish(&stops);
}
END_TEST

START_TEST(refused)
{
    struct stops stops;

    ck_assert_int_eq(stops_init(&stops, (const char *const[]){"a", ""}, 2, 8), -EINVAL);
    ck_assert_int_eq(stops_init(&stops, (const char *const[]){"\xA9"}, 1, 8), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stops");
    TCase *tests = tcase_create("all");

    tcase_add_test(tests, found);
    tcase_add_test(tests, not_found);
    tcase_add_test(tests, at_once);
    tcase_add_test(tests, refused);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
