/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: every type has the name, block and number that files give it.
 * Method: GGML's numbers and block sizes as its own headers have them, written out again here; round trips by name. */

#include "memory_file.h"
#include "model/dtype.h"

static const struct {
    uint32_t ggml, elements, bytes;
    const char *name;
} ggml_types[] = {
    {0, 1, 4, "F32"},         {1, 1, 2, "F16"},         {2, 32, 18, "Q4_0"},      {3, 32, 20, "Q4_1"},
    {6, 32, 22, "Q5_0"},      {7, 32, 24, "Q5_1"},      {8, 32, 34, "Q8_0"},      {9, 32, 36, "Q8_1"},
    {10, 256, 84, "Q2_K"},    {11, 256, 110, "Q3_K"},   {12, 256, 144, "Q4_K"},   {13, 256, 176, "Q5_K"},
    {14, 256, 210, "Q6_K"},   {15, 256, 292, "Q8_K"},   {16, 256, 66, "IQ2_XXS"}, {17, 256, 74, "IQ2_XS"},
    {18, 256, 98, "IQ3_XXS"}, {19, 256, 50, "IQ1_S"},   {20, 32, 18, "IQ4_NL"},   {21, 256, 110, "IQ3_S"},
    {22, 256, 82, "IQ2_S"},   {23, 256, 136, "IQ4_XS"}, {24, 1, 1, "I8"},         {25, 1, 2, "I16"},
    {26, 1, 4, "I32"},        {27, 1, 8, "I64"},        {28, 1, 8, "F64"},        {29, 256, 56, "IQ1_M"},
    {30, 1, 2, "BF16"},       {34, 256, 54, "TQ1_0"},   {35, 256, 66, "TQ2_0"},   {39, 32, 17, "MXFP4"},
    {40, 64, 36, "NVFP4"},    {41, 128, 18, "Q1_0"},    {42, 64, 18, "Q2_0"},
};

START_TEST(ggml_numbers)
{
    size_t at = 0;

    for (uint32_t number = 0; number < 1000; number++) {
        enum tnd_dtype dtype = tnd_dtype_from_ggml(number);
        uint32_t elements, bytes;

        if (at == sizeof(ggml_types) / sizeof(ggml_types[0]) || ggml_types[at].ggml != number) {
            ck_assert_int_eq(dtype, TND_DTYPE_NONE);
            continue;
        }
        ck_assert_str_eq(tnd_dtype_name(dtype), ggml_types[at].name);
        ck_assert_int_eq(tnd_dtype_block(dtype, &elements, &bytes), 0);
        ck_assert_uint_eq(elements, ggml_types[at].elements);
        ck_assert_uint_eq(bytes, ggml_types[at].bytes);
        ck_assert(!tnd_ggml_type_removed(number));
        at++;
    }
    ck_assert_uint_eq(at, sizeof(ggml_types) / sizeof(ggml_types[0]));
    ck_assert_int_eq(tnd_dtype_from_ggml(UINT32_MAX), TND_DTYPE_NONE);
}
END_TEST

START_TEST(ggml_removed)
{
    static const uint32_t removed[] = {4, 5, 31, 32, 33, 36, 37, 38};

    for (size_t i = 0; i < sizeof(removed) / sizeof(removed[0]); i++)
        ck_assert(tnd_ggml_type_removed(removed[i]));
    ck_assert(!tnd_ggml_type_removed(43));
}
END_TEST

START_TEST(safetensors_names)
{
    static const char *const names[] = {"BOOL", "U8",   "I8",  "F8_E5M2", "F8_E4M3", "I16",     "U16",     "F16",
                                        "BF16", "I32",  "U32", "F32",     "F64",     "I64",     "U64",     "F4",
                                        "C64",  "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        enum tnd_dtype dtype = tnd_dtype_from_safetensors(names[i], strlen(names[i]));

        ck_assert_str_eq(tnd_dtype_name(dtype), names[i]);
        ck_assert_int_eq(tnd_dtype_from_safetensors(names[i], strlen(names[i]) - 1) == dtype, false);
    }
    ck_assert_int_eq(tnd_dtype_from_safetensors("Q4_0", 4), TND_DTYPE_NONE);
    ck_assert_int_eq(tnd_dtype_from_safetensors("f32", 3), TND_DTYPE_NONE);
    ck_assert_int_eq(tnd_dtype_from_safetensors("", 0), TND_DTYPE_NONE);
}
END_TEST

START_TEST(outside_the_list)
{
    uint32_t elements, bytes;

    ck_assert_str_eq(tnd_dtype_name(TND_DTYPE_NONE), "?");
    ck_assert_str_eq(tnd_dtype_name(TND_DTYPE_COUNT), "?");
    ck_assert_int_eq(tnd_dtype_block(TND_DTYPE_COUNT, &elements, &bytes), -EINVAL);
    for (int i = TND_DTYPE_NONE + 1; i < TND_DTYPE_COUNT; i++)
        ck_assert_ptr_nonnull(tnd_dtype_info((enum tnd_dtype)i)->name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dtype");
    TCase *tests = tcase_create("dtype");

    tcase_add_test(tests, ggml_numbers);
    tcase_add_test(tests, ggml_removed);
    tcase_add_test(tests, safetensors_names);
    tcase_add_test(tests, outside_the_list);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
