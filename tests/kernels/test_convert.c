/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: every kernel that turns one float format into another gives the nearest value, ties to even, wherever its
 * elements lie, and counts what did not fit.
 *
 * Method: a format is written out once more as what IEEE 754 says of it: the values of its bits. Nearest is
 * what follows from the two values around a number and the middle between them; no code of the kernels is used. All
 * floats, all values of the narrower types, and for F64 all the middles and their neighbours are compared with that;
 * golden vectors by hand guard the method itself. Then lengths, alignments, canaries and guard pages. Each kernel of
 * the table that this processor can run must have been entered in each of these.
 *
 *     test_convert [N]    of all floats only every N-th stretch, for builds that are slow */

#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/kernel.h"
#include "support/suite.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define STRETCH 4096U /* floats at a time: of what all floats are made */
#define ELEMENT_BYTES_MAX 8
#define SHORT_ELEMENTS 200
#define LONG_ELEMENTS 20011
#define CANARY_BYTES 64
#define CANARY 0xA5
#define KERNELS_MAX 256

/* An assertion of libcheck writes to a file each time: where there are millions, ck_abort_msg() tells what failed. */

static unsigned sample = 1;

/* ---- Formats ----------------------------------------------------------------------------------------------- */

struct format {
    enum tnd_dtype dtype;
    int exponent_bits, mantissa_bits;
    uint32_t nan; /* the canonical one, of targets */
};

static const struct format f32 = {TND_F32, 8, 23, 0x7FC00000};
static const struct format f16 = {TND_F16, 5, 10, 0x7E00};
static const struct format bf16 = {TND_BF16, 8, 7, 0x7FC0};
static const struct format e4m3 = {TND_F8_E4M3, 4, 3, 0};
static const struct format e5m2 = {TND_F8_E5M2, 5, 2, 0};
static const struct format *const targets[] = {&f32, &f16, &bf16};

static uint32_t infinity_of(const struct format *format)
{
    return ((1U << format->exponent_bits) - 1) << format->mantissa_bits;
}

static uint32_t sign_of(const struct format *format)
{
    return 1U << (format->exponent_bits + format->mantissa_bits);
}

/* Of bits without sign, up to those of infinity, which here means one step above the largest. */
static double value_of(const struct format *format, uint32_t bits)
{
    int bias = (1 << (format->exponent_bits - 1)) - 1;
    int exponent = (int)(bits >> format->mantissa_bits);
    uint32_t mantissa = bits & ((1U << format->mantissa_bits) - 1);

    if (exponent > 0)
        return ldexp(mantissa | 1U << format->mantissa_bits, exponent - bias - format->mantissa_bits);
    return ldexp(mantissa, 1 - bias - format->mantissa_bits);
}

/* Between those bits and the next: exact in a double for all formats here. */
static double middle_of(const struct format *format, uint32_t bits)
{
    return (value_of(format, bits) + value_of(format, bits + 1)) / 2;
}

static uint32_t nearest(const struct format *to, double value)
{
    uint32_t below = 0, above = infinity_of(to), sign = signbit(value) ? sign_of(to) : 0;
    double size = fabs(value);

    if (isnan(value))
        return to->nan;
    if (size >= value_of(to, above))
        return sign | above;
    while (above - below > 1) {
        uint32_t between = below + (above - below) / 2;

        if (value_of(to, between) <= size)
            below = between;
        else
            above = between;
    }
    if (size > middle_of(to, below) || (size == middle_of(to, below) && below % 2 == 1))
        below++;
    return sign | below;
}

static const struct format *narrow_format(enum tnd_dtype dtype)
{
    return dtype == TND_F8_E4M3 ? &e4m3 : dtype == TND_F8_E5M2 ? &e5m2 : dtype == TND_F16 ? &f16 : &bf16;
}

/* A source's element as a number. */
static double number_of(enum tnd_dtype dtype, const uint8_t *at)
{
    const struct format *format = narrow_format(dtype);
    uint32_t bits = 0, rest;
    float value32;
    double value;

    if (dtype == TND_F64) {
        memcpy(&value, at, sizeof(value));
        return value;
    }
    if (dtype == TND_F32) {
        memcpy(&value32, at, sizeof(value32));
        return value32;
    }
    memcpy(&bits, at, format->exponent_bits + format->mantissa_bits == 7 ? 1 : 2);
    rest = bits & (sign_of(format) - 1);
    if (dtype == TND_F8_E4M3)
        value = rest == 0x7F ? NAN : value_of(format, rest);
    else
        value = rest > infinity_of(format) ? NAN : rest == infinity_of(format) ? INFINITY : value_of(format, rest);
    return bits & sign_of(format) ? -value : value;
}

/* ---- Kernels ----------------------------------------------------------------------------------------------- */

/* Those of the table that are ours and can run here. */
static struct {
    const struct tnd_kernel *kernel;
    bool entered;
} kernels[KERNELS_MAX];
static size_t kernel_count;

static size_t bytes_of(enum tnd_dtype dtype)
{
    switch (dtype) {
    case TND_F64:
        return 8;
    case TND_F32:
        return 4;
    case TND_F16:
    case TND_BF16:
        return 2;
    default:
        return 1;
    }
}

static bool is_float(enum tnd_dtype dtype)
{
    return dtype == TND_F64 || dtype == TND_F32 || dtype == TND_F16 || dtype == TND_BF16 || dtype == TND_F8_E4M3 ||
           dtype == TND_F8_E5M2;
}

/* The first at or behind *index with these types, TND_DTYPE_NONE being any; *index goes behind it. NULL: no more. */
static const struct tnd_kernel *next_kernel(size_t *index, enum tnd_dtype from, enum tnd_dtype to)
{
    while (*index < kernel_count) {
        const struct tnd_kernel *kernel = kernels[(*index)++].kernel;

        if ((!from || kernel->from == from) && (!to || kernel->to == to))
            return kernel;
    }
    return NULL;
}

static struct tnd_range_counts run(size_t next_index, void *to, const void *from, size_t elements)
{
    struct tnd_range_counts counts = {1000, 2000}; /* added to, not set */

    kernels[next_index - 1].entered = true;
    kernels[next_index - 1].kernel->run(to, from, elements, &counts);
    counts.overflowed -= 1000;
    counts.underflowed -= 2000;
    return counts;
}

static const char *name_of(const struct tnd_kernel *kernel)
{
    static char name[64];

    snprintf(name, sizeof(name), "%s to %s, %s", tnd_dtype_name(kernel->from), tnd_dtype_name(kernel->to),
             tnd_isa_name(kernel->isa));
    return name;
}

static void forget_entered(void)
{
    for (size_t i = 0; i < kernel_count; i++)
        kernels[i].entered = false;
}

/* Each kernel that can run here was run. */
static void check_entered(enum tnd_dtype from, enum tnd_dtype to)
{
    const struct tnd_kernel *kernel;

    for (size_t i = 0; (kernel = next_kernel(&i, from, to));)
        ck_assert_msg(kernels[i - 1].entered, "%s was never run", name_of(kernel));
}

static void check_same(const struct tnd_kernel *kernel, const void *got, const void *expected, size_t elements,
                       const void *source)
{
    size_t bytes = bytes_of(kernel->to), from_bytes = bytes_of(kernel->from);
    uint64_t was, is, should;

    if (memcmp(got, expected, elements * bytes) == 0)
        return;
    for (size_t i = 0; i < elements; i++) {
        was = is = should = 0;
        memcpy(&was, (const uint8_t *)source + i * from_bytes, from_bytes);
        memcpy(&is, (const uint8_t *)got + i * bytes, bytes);
        memcpy(&should, (const uint8_t *)expected + i * bytes, bytes);
        if (is != should)
            ck_abort_msg("%s: %#llx became %#llx, not %#llx (element %zu of %zu)", name_of(kernel),
                         (unsigned long long)was, (unsigned long long)is, (unsigned long long)should, i, elements);
    }
}

static void check_counts(const struct tnd_kernel *kernel, struct tnd_range_counts got, struct tnd_range_counts expected)
{
    if (got.overflowed != expected.overflowed || got.underflowed != expected.underflowed)
        ck_abort_msg("%s: %llu overflowed, %llu underflowed, not %llu, %llu", name_of(kernel),
                     (unsigned long long)got.overflowed, (unsigned long long)got.underflowed,
                     (unsigned long long)expected.overflowed, (unsigned long long)expected.underflowed);
}

/* What a source should become, by definition. */
static struct tnd_range_counts expect(enum tnd_dtype from, const struct format *to, const uint8_t *source,
                                      size_t elements, uint8_t *ret_expected)
{
    struct tnd_range_counts counts = {0};

    for (size_t i = 0; i < elements; i++) {
        double number = number_of(from, source + i * bytes_of(from));
        uint32_t bits = nearest(to, number), rest = bits & (sign_of(to) - 1);

        memcpy(ret_expected + i * bytes_of(to->dtype), &bits, bytes_of(to->dtype));
        counts.overflowed += isfinite(number) && rest == infinity_of(to);
        counts.underflowed += !isnan(number) && number != 0 && rest == 0;
    }
    return counts;
}

/* Each kernel of the two types against the definition. */
static void check_pair(enum tnd_dtype from, const struct format *to, const uint8_t *source, size_t elements)
{
    uint8_t *expected = malloc(elements * sizeof(uint32_t)), *got = malloc(elements * sizeof(uint32_t));
    struct tnd_range_counts counts = expect(from, to, source, elements, expected);
    const struct tnd_kernel *kernel;

    for (size_t i = 0; (kernel = next_kernel(&i, from, to->dtype));) {
        check_counts(kernel, run(i, got, source, elements), counts);
        check_same(kernel, got, expected, elements, source);
    }
    free(expected);
    free(got);
}

/* ---- Sources ----------------------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Where something changes, for one of the types or another. */
static double extreme(void)
{
    static const double extremes[] = {
        0,         0x1p-14,   0x1p-24,   0x1p-25,   0x1.8p-25,       0x1.8p-24, 0x1p-26,  65504,
        65519,     65520,     65536,     0x1p-126,  0x1p-133,        0x1p-134,  0x1p-149, 0x1p-150,
        0x1.8p-14, 0x1p-1022, 0x1p-1074, FLT_MAX,   0x1.ffffffp+127, 0x1p128,   DBL_MAX,  INFINITY,
        NAN,       448,       57344,     0x1.FFp15, 0x1.FEp127,      0x1.FFp127};
    double value = extremes[random_bits() % LENGTH(extremes)];
    uint64_t how = random_bits() % 4;

    if (how < 2)
        value = nextafter(value, how == 0 ? 0 : INFINITY);
    return random_bits() % 2 ? -value : value;
}

/* One element: any bits, an extreme, or a number of the size that weights have. */
static void fill_one(enum tnd_dtype dtype, uint8_t *at)
{
    uint64_t bits = random_bits(), how = random_bits() % 4;
    double value = how == 0 ? extreme() : ldexp((double)(int64_t)bits, -60 - (int)(random_bits() % 40));
    float value32 = (float)value;

    if (how == 1 || bytes_of(dtype) < 4)
        memcpy(at, &bits, bytes_of(dtype));
    else if (dtype == TND_F64)
        memcpy(at, &value, sizeof(value));
    else
        memcpy(at, &value32, sizeof(value32));
}

static void fill(enum tnd_dtype dtype, uint8_t *source, size_t elements)
{
    random_state = 88172645463325252U; /* each test has the same */
    for (size_t i = 0; i < elements; i++)
        fill_one(dtype, source + i * bytes_of(dtype));
}

/* ---- Values ------------------------------------------------------------------------------------------------ */

static const struct golden {
    enum tnd_dtype from, to;
    uint64_t bits;
    uint32_t result;
    int overflowed, underflowed;
} goldens[] = {
    /* one, signed zeros, infinities */
    {TND_F32, TND_F16, 0x3F800000, 0x3C00, 0, 0},
    {TND_F32, TND_F16, 0x80000000, 0x8000, 0, 0},
    {TND_F32, TND_F16, 0x00000000, 0x0000, 0, 0},
    {TND_F32, TND_F16, 0x7F800000, 0x7C00, 0, 0},
    {TND_F32, TND_F16, 0xFF800000, 0xFC00, 0, 0},
    {TND_F32, TND_BF16, 0x80000000, 0x8000, 0, 0},
    {TND_F32, TND_BF16, 0xFF800000, 0xFF80, 0, 0},
    /* 65504, the float below 65520, 65520, -65520, the largest float */
    {TND_F32, TND_F16, 0x477FE000, 0x7BFF, 0, 0},
    {TND_F32, TND_F16, 0x477FEFFF, 0x7BFF, 0, 0},
    {TND_F32, TND_F16, 0x477FF000, 0x7C00, 1, 0},
    {TND_F32, TND_F16, 0xC77FF000, 0xFC00, 1, 0},
    {TND_F32, TND_F16, 0x7F7FFFFF, 0x7C00, 1, 0},
    /* 2^-24, 2^-25 (a tie), just above, 1.5 * 2^-24 and 2.5 * 2^-24 (ties), the smallest float */
    {TND_F32, TND_F16, 0x33800000, 0x0001, 0, 0},
    {TND_F32, TND_F16, 0x33000000, 0x0000, 0, 1},
    {TND_F32, TND_F16, 0xB3000000, 0x8000, 0, 1},
    {TND_F32, TND_F16, 0x33000001, 0x0001, 0, 0},
    {TND_F32, TND_F16, 0x33C00000, 0x0002, 0, 0},
    {TND_F32, TND_F16, 0x34200000, 0x0002, 0, 0},
    {TND_F32, TND_F16, 0x00000001, 0x0000, 0, 1},
    /* 2^-14 and what rounds up to it; ties at 1 + 2^-11 and 1 + 3 * 2^-11 */
    {TND_F32, TND_F16, 0x38800000, 0x0400, 0, 0},
    {TND_F32, TND_F16, 0x387FE000, 0x0400, 0, 0},
    {TND_F32, TND_F16, 0x387FC000, 0x03FF, 0, 0},
    {TND_F32, TND_F16, 0x3F801000, 0x3C00, 0, 0},
    {TND_F32, TND_F16, 0x3F801001, 0x3C01, 0, 0},
    {TND_F32, TND_F16, 0x3F803000, 0x3C02, 0, 0},
    /* NaNs: quiet, signalling, with sign, all ones, one bit */
    {TND_F32, TND_F16, 0x7FC00000, 0x7E00, 0, 0},
    {TND_F32, TND_F16, 0x7F800001, 0x7E00, 0, 0},
    {TND_F32, TND_F16, 0xFFC12345, 0x7E00, 0, 0},
    {TND_F32, TND_F16, 0xFFFFFFFF, 0x7E00, 0, 0},
    {TND_F32, TND_BF16, 0x7F800001, 0x7FC0, 0, 0},
    {TND_F32, TND_BF16, 0x7FFFFFFF, 0x7FC0, 0, 0},
    {TND_F32, TND_BF16, 0xFFFFFFFF, 0x7FC0, 0, 0},
    {TND_F32, TND_BF16, 0xFFFF8000, 0x7FC0, 0, 0},
    /* ties, largest, subnormals, smallest */
    {TND_F32, TND_BF16, 0x3F808000, 0x3F80, 0, 0},
    {TND_F32, TND_BF16, 0x3F808001, 0x3F81, 0, 0},
    {TND_F32, TND_BF16, 0x3F818000, 0x3F82, 0, 0},
    {TND_F32, TND_BF16, 0x7F7F7FFF, 0x7F7F, 0, 0},
    {TND_F32, TND_BF16, 0x7F7F8000, 0x7F80, 1, 0},
    {TND_F32, TND_BF16, 0xFF7FFFFF, 0xFF80, 1, 0},
    {TND_F32, TND_BF16, 0x00008000, 0x0000, 0, 1},
    {TND_F32, TND_BF16, 0x00008001, 0x0001, 0, 0},
    {TND_F32, TND_BF16, 0x80000001, 0x8000, 0, 1},
    {TND_F32, TND_BF16, 0x00400000, 0x0040, 0, 0},
    /* F16: subnormals are normal in the others; NaN */
    {TND_F16, TND_F32, 0x0001, 0x33800000, 0, 0},
    {TND_F16, TND_F32, 0x83FF, 0xB87FC000, 0, 0},
    {TND_F16, TND_F32, 0x7BFF, 0x477FE000, 0, 0},
    {TND_F16, TND_F32, 0xFC00, 0xFF800000, 0, 0},
    {TND_F16, TND_F32, 0xFC01, 0x7FC00000, 0, 0},
    {TND_F16, TND_BF16, 0x7BFF, 0x4780, 0, 0},
    {TND_F16, TND_BF16, 0x3C04, 0x3F80, 0, 0},
    {TND_F16, TND_BF16, 0x3C0C, 0x3F82, 0, 0},
    {TND_F16, TND_BF16, 0x0001, 0x3380, 0, 0},
    {TND_F16, TND_BF16, 0x7C01, 0x7FC0, 0, 0},
    /* BF16: most of its range is not F16's */
    {TND_BF16, TND_F16, 0x3F80, 0x3C00, 0, 0},
    {TND_BF16, TND_F16, 0x477F, 0x7BF8, 0, 0},
    {TND_BF16, TND_F16, 0x4780, 0x7C00, 1, 0},
    {TND_BF16, TND_F16, 0xFF7F, 0xFC00, 1, 0},
    {TND_BF16, TND_F16, 0x3300, 0x0000, 0, 1},
    {TND_BF16, TND_F16, 0x3301, 0x0001, 0, 0},
    {TND_BF16, TND_F16, 0x8001, 0x8000, 0, 1},
    {TND_BF16, TND_F16, 0xFFFF, 0x7E00, 0, 0},
    {TND_BF16, TND_F32, 0x0001, 0x00010000, 0, 0},
    {TND_BF16, TND_F32, 0xFF81, 0x7FC00000, 0, 0},
    /* E4M3: 448, 2^-9, 7 * 2^-9, 2^-6, NaN of both signs; no infinity */
    {TND_F8_E4M3, TND_F32, 0x7E, 0x43E00000, 0, 0},
    {TND_F8_E4M3, TND_F32, 0x01, 0x3B000000, 0, 0},
    {TND_F8_E4M3, TND_F32, 0x87, 0xBC600000, 0, 0},
    {TND_F8_E4M3, TND_F32, 0x08, 0x3C800000, 0, 0},
    {TND_F8_E4M3, TND_F32, 0x80, 0x80000000, 0, 0},
    {TND_F8_E4M3, TND_F32, 0x7F, 0x7FC00000, 0, 0},
    {TND_F8_E4M3, TND_F16, 0xFF, 0x7E00, 0, 0},
    {TND_F8_E4M3, TND_F16, 0x78, 0x5C00, 0, 0},
    {TND_F8_E4M3, TND_BF16, 0xFE, 0xC3E0, 0, 0},
    /* E5M2 is the upper half of an F16 */
    {TND_F8_E5M2, TND_F16, 0x7B, 0x7B00, 0, 0},
    {TND_F8_E5M2, TND_F16, 0x81, 0x8100, 0, 0},
    {TND_F8_E5M2, TND_F16, 0xFC, 0xFC00, 0, 0},
    {TND_F8_E5M2, TND_F16, 0x7D, 0x7E00, 0, 0},
    {TND_F8_E5M2, TND_F32, 0x01, 0x37800000, 0, 0},
    {TND_F8_E5M2, TND_BF16, 0xFF, 0x7FC0, 0, 0},
    /* F64: a tie in F32 on the way would make these wrong: 1 + 2^-11 ± 2^-40, 1 + 2^-8 + 2^-40, 65520 - 2^-20 */
    {TND_F64, TND_F16, 0x3FF0020000001000, 0x3C01, 0, 0},
    {TND_F64, TND_F16, 0x3FF001FFFFFFF000, 0x3C00, 0, 0},
    {TND_F64, TND_F16, 0x3FF0020000000000, 0x3C00, 0, 0},
    {TND_F64, TND_F16, 0x3FF0060000000000, 0x3C02, 0, 0},
    {TND_F64, TND_F16, 0x3FF005FFFFFFFFFF, 0x3C01, 0, 0},
    {TND_F64, TND_BF16, 0x3FF0100000001000, 0x3F81, 0, 0},
    {TND_F64, TND_BF16, 0x3FF02FFFFFFFFFFF, 0x3F81, 0, 0},
    {TND_F64, TND_F16, 0x40EFFDFFFFFFFFFF, 0x7BFF, 0, 0},
    {TND_F64, TND_F16, 0x40EFFE0000000000, 0x7C00, 1, 0},
    /* 2^-25 and its neighbour; 2^-150 and its; the smallest; the largest; what rounds to the largest float */
    {TND_F64, TND_F16, 0x3E60000000000000, 0x0000, 0, 1},
    {TND_F64, TND_F16, 0x3E60000000000001, 0x0001, 0, 0},
    {TND_F64, TND_F32, 0x3690000000000000, 0x00000000, 0, 1},
    {TND_F64, TND_F32, 0xB690000000000001, 0x80000001, 0, 0},
    {TND_F64, TND_F32, 0x0000000000000001, 0x00000000, 0, 1},
    {TND_F64, TND_F32, 0x7FEFFFFFFFFFFFFF, 0x7F800000, 1, 0},
    {TND_F64, TND_F32, 0x47EFFFFFEFFFFFFF, 0x7F7FFFFF, 0, 0},
    {TND_F64, TND_F32, 0x47EFFFFFF0000000, 0x7F800000, 1, 0},
    {TND_F64, TND_F32, 0x3FF0000010000000, 0x3F800000, 0, 0},
    {TND_F64, TND_F32, 0x3FF0000010000001, 0x3F800001, 0, 0},
    {TND_F64, TND_F32, 0x3FF0000030000000, 0x3F800002, 0, 0},
    {TND_F64, TND_F32, 0x8000000000000000, 0x80000000, 0, 0},
    {TND_F64, TND_F32, 0xFFF0000000000001, 0x7FC00000, 0, 0},
    {TND_F64, TND_F16, 0x7FF0000000000001, 0x7E00, 0, 0},
    {TND_F64, TND_BF16, 0xFFF0000000000000, 0xFF80, 0, 0},
    {TND_F64, TND_BF16, 0x47EFF00000000000, 0x7F80, 1, 0},
};

/* Alone, and as each of a line. */
static void check_golden(const struct golden *golden, size_t elements)
{
    uint8_t source[64 * ELEMENT_BYTES_MAX], expected[64 * sizeof(uint32_t)], got[64 * sizeof(uint32_t)];
    struct tnd_range_counts counts = {(uint64_t)golden->overflowed * elements,
                                      (uint64_t)golden->underflowed * elements};
    const struct tnd_kernel *kernel;

    for (size_t i = 0; i < elements; i++) {
        memcpy(source + i * bytes_of(golden->from), &golden->bits, bytes_of(golden->from));
        memcpy(expected + i * bytes_of(golden->to), &golden->result, bytes_of(golden->to));
    }
    for (size_t i = 0; (kernel = next_kernel(&i, golden->from, golden->to));) {
        check_counts(kernel, run(i, got, source, elements), counts);
        check_same(kernel, got, expected, elements, source);
    }
}

START_TEST(golden_vectors)
{
    forget_entered();
    for (size_t i = 0; i < LENGTH(goldens); i++) {
        check_golden(&goldens[i], 1);
        check_golden(&goldens[i], 64);
    }
    check_entered(TND_DTYPE_NONE, TND_DTYPE_NONE);
}
END_TEST

START_TEST(all_of_the_narrow_types)
{
    static const enum tnd_dtype sources[] = {TND_F16, TND_BF16, TND_F8_E4M3, TND_F8_E5M2};
    static uint8_t source[65536 * 2];

    forget_entered();
    for (size_t i = 0; i < LENGTH(sources); i++) {
        size_t bytes = bytes_of(sources[i]), elements = bytes == 1 ? 256 : 65536;

        for (uint32_t bits = 0; bits < elements; bits++)
            memcpy(source + bits * bytes, &bits, bytes);
        for (size_t j = 0; j < LENGTH(targets); j++)
            check_pair(sources[i], targets[j], source, elements);
        check_entered(sources[i], TND_DTYPE_NONE);
    }
}
END_TEST

/* The first float, as bits, that becomes more than those bits of a target: the middle goes to the even one. */
static uint32_t end_of(const struct format *to, uint32_t bits)
{
    float middle = (float)middle_of(to, bits);
    uint32_t at;

    memcpy(&at, &middle, sizeof(at));
    return at + (bits % 2 == 0);
}

#define NAN_FIRST 0x7F800001U

/* How many of STRETCH floats from start lie in [first, end). */
static uint64_t overlap(uint32_t start, uint64_t first, uint64_t end)
{
    uint64_t from = start > first ? start : first, to = (uint64_t)start + STRETCH;

    to = to < end ? to : end;
    return from < to ? to - from : 0;
}

struct walk {
    const struct format *to;
    uint32_t infinity;
    uint32_t *ends; /* [infinity] end_of each */
    uint32_t now;   /* what the floats where the walk is become */
    uint32_t source[STRETCH];
    uint16_t expected[STRETCH], got[STRETCH];
};

/* The floats from start on, without sign, in their order: runs of the same result. */
static void expect_stretch(struct walk *walk, uint32_t start, uint32_t sign)
{
    for (uint32_t i = 0, end; i < STRETCH; i = end) {
        uint64_t run_end = walk->now < walk->infinity ? walk->ends[walk->now] : NAN_FIRST;
        uint32_t bits = walk->now | sign >> 16;

        if (start + i >= NAN_FIRST) {
            run_end = UINT64_MAX;
            bits = walk->to->nan;
        }
        end = run_end < (uint64_t)start + STRETCH ? (uint32_t)run_end - start : STRETCH;
        for (uint32_t j = i; j < end; j++)
            walk->expected[j] = (uint16_t)bits;
        walk->now += end < STRETCH;
    }
}

static void check_stretch(struct walk *walk, uint32_t start, uint32_t sign)
{
    struct tnd_range_counts counts = {overlap(start, walk->ends[walk->infinity - 1], NAN_FIRST - 1),
                                      overlap(start, 1, walk->ends[0])};
    const struct tnd_kernel *kernel;

    while (walk->now < walk->infinity && start >= walk->ends[walk->now])
        walk->now++;
    expect_stretch(walk, start, sign);
    for (uint32_t i = 0; i < STRETCH; i++)
        walk->source[i] = sign | (start + i);
    for (size_t i = 0; (kernel = next_kernel(&i, TND_F32, walk->to->dtype));) {
        check_counts(kernel, run(i, walk->got, walk->source, STRETCH), counts);
        check_same(kernel, walk->got, walk->expected, STRETCH, walk->source);
    }
}

/* From zero up, then with sign. */
static void check_half_of_all(struct walk *walk, uint32_t sign)
{
    walk->now = 0;
    for (uint64_t start = 0; start <= INT32_MAX; start += (uint64_t)STRETCH * sample)
        check_stretch(walk, (uint32_t)start, sign);
}

static void check_all_floats(const struct format *to)
{
    struct walk *walk = calloc(1, sizeof(*walk));

    walk->to = to;
    walk->infinity = infinity_of(to);
    walk->ends = calloc(walk->infinity, sizeof(*walk->ends));
    for (uint32_t i = 0; i < walk->infinity; i++)
        walk->ends[i] = end_of(to, i);
    check_half_of_all(walk, 0);
    check_half_of_all(walk, 0x80000000);
    free(walk->ends);
    free(walk);
}

START_TEST(all_floats_to_f16)
{
    forget_entered();
    check_all_floats(&f16);
    check_entered(TND_F32, TND_F16);
}
END_TEST

START_TEST(all_floats_to_bf16)
{
    forget_entered();
    check_all_floats(&bf16);
    check_entered(TND_F32, TND_BF16);
}
END_TEST

/* A value, the middle above it, and the doubles beside both: whatever rounds twice fails here. */
static size_t put_around(const struct format *to, uint32_t bits, double *ret_values)
{
    double values[] = {value_of(to, bits), middle_of(to, bits)};
    size_t count = 0;

    for (size_t i = 0; i < LENGTH(values); i++) {
        ret_values[count++] = values[i];
        ret_values[count++] = -values[i];
        ret_values[count++] = nextafter(values[i], 0);
        ret_values[count++] = -nextafter(values[i], INFINITY);
        ret_values[count++] = nextafter(values[i], INFINITY);
    }
    return count;
}

START_TEST(doubles_around_every_middle)
{
    static double values[10 * 256];

    forget_entered();
    for (size_t i = 0; i < LENGTH(targets); i++) {
        uint32_t infinity = infinity_of(targets[i]);
        uint32_t step = sample * (targets[i] == &f32 ? 31013 : 1);
        size_t count = 0;

        for (uint32_t bits = 0; bits < infinity; bits += step) {
            if (count + 20 > LENGTH(values)) {
                check_pair(TND_F64, targets[i], (const uint8_t *)values, count);
                count = 0;
            }
            count += put_around(targets[i], bits, values + count);
        }
        count += put_around(targets[i], infinity - 1, values + count);
        check_pair(TND_F64, targets[i], (const uint8_t *)values, count);
    }
    check_entered(TND_F64, TND_DTYPE_NONE);
}
END_TEST

START_TEST(random_values)
{
    size_t elements = 200000 / sample + 1000;
    uint8_t *source = malloc(elements * ELEMENT_BYTES_MAX);
    static const enum tnd_dtype sources[] = {TND_F64, TND_F32};

    forget_entered();
    for (size_t i = 0; i < LENGTH(sources); i++) {
        fill(sources[i], source, elements);
        for (size_t j = 0; j < LENGTH(targets); j++)
            check_pair(sources[i], targets[j], source, elements);
        check_entered(sources[i], TND_DTYPE_NONE);
    }
    free(source);
}
END_TEST

/* ---- Places ------------------------------------------------------------------------------------------------ */

/* A kernel, what it is given, and what comes out by definition for each length. */
struct bed {
    const struct tnd_kernel *kernel;
    size_t index, elements;
    uint8_t *values;   /* the source, wherever it is copied to */
    uint8_t *expected; /* by the C kernel, which the tests above compare with the definition */
    struct tnd_range_counts *counts; /* [elements + 1] of the first so many */
    uint8_t *source, *destination;   /* with room around */
};

static void bed_init(struct bed *bed, size_t index, size_t elements)
{
    const struct tnd_kernel *kernel = kernels[index - 1].kernel;
    const struct tnd_kernel *plain = tnd_kernel_find(kernel->from, kernel->to, TND_ISA_C);

    *bed = (struct bed){.kernel = kernel, .index = index, .elements = elements};
    bed->values = malloc(elements * ELEMENT_BYTES_MAX);
    bed->expected = malloc(elements * sizeof(uint32_t));
    bed->counts = calloc(elements + 1, sizeof(*bed->counts));
    bed->source = malloc(elements * ELEMENT_BYTES_MAX + 64);
    bed->destination = aligned_alloc(64, (elements * sizeof(uint32_t) + 64 + 2 * CANARY_BYTES + 63) / 64 * 64);
    fill(kernel->from, bed->values, elements);
    for (size_t i = 0; i < elements; i++) {
        bed->counts[i + 1] = bed->counts[i];
        plain->run(bed->expected + i * bytes_of(kernel->to), bed->values + i * bytes_of(kernel->from), 1,
                   &bed->counts[i + 1]);
    }
}

static void bed_finish(struct bed *bed)
{
    free(bed->values);
    free(bed->expected);
    free(bed->counts);
    free(bed->source);
    free(bed->destination);
}

static void check_canaries(const struct bed *bed, const uint8_t *to, size_t bytes)
{
    static uint8_t canaries[CANARY_BYTES];

    memset(canaries, CANARY, sizeof(canaries));
    if (memcmp(to - CANARY_BYTES, canaries, CANARY_BYTES) != 0)
        ck_abort_msg("%s wrote in front of its destination", name_of(bed->kernel));
    if (memcmp(to + bytes, canaries, CANARY_BYTES) != 0)
        ck_abort_msg("%s wrote behind its destination", name_of(bed->kernel));
}

static void check_place(struct bed *bed, const uint8_t *from, size_t offset, size_t elements)
{
    uint8_t *to = bed->destination + CANARY_BYTES + offset;
    size_t bytes = elements * bytes_of(bed->kernel->to);

    memset(to - CANARY_BYTES, CANARY, bytes + 2 * CANARY_BYTES);
    check_counts(bed->kernel, run(bed->index, to, from, elements), bed->counts[elements]);
    check_same(bed->kernel, to, bed->expected, elements, bed->values);
    check_canaries(bed, to, bytes);
}

START_TEST(all_lengths_and_alignments)
{
    const struct tnd_kernel *kernel;
    struct bed bed;

    forget_entered();
    for (size_t i = 0; (kernel = next_kernel(&i, TND_DTYPE_NONE, TND_DTYPE_NONE));) {
        bed_init(&bed, i, SHORT_ELEMENTS);
        for (size_t source = 0; source < 64; source += sample > 1 ? 13 : 1) {
            memcpy(bed.source + source, bed.values, SHORT_ELEMENTS * bytes_of(kernel->from));
            for (size_t offset = 0; offset < 64; offset += bytes_of(kernel->to))
                for (size_t elements = 0; elements <= SHORT_ELEMENTS; elements++)
                    check_place(&bed, bed.source + source, offset, elements);
        }
        bed_finish(&bed);
    }
    check_entered(TND_DTYPE_NONE, TND_DTYPE_NONE);
}
END_TEST

/* Around where stores begin to go past the cache, and far beyond it. */
START_TEST(long_runs)
{
    const struct tnd_kernel *kernel;
    struct bed bed;

    forget_entered();
    for (size_t i = 0; (kernel = next_kernel(&i, TND_DTYPE_NONE, TND_DTYPE_NONE));) {
        size_t step = 4096 / bytes_of(kernel->to);

        bed_init(&bed, i, LONG_ELEMENTS);
        for (size_t source = 0; source < 64; source += 13) {
            memcpy(bed.source + source, bed.values, LONG_ELEMENTS * bytes_of(kernel->from));
            for (size_t offset = 0; offset < 64; offset += bytes_of(kernel->to)) {
                for (size_t elements = step - 2; elements < step + 70; elements += sample > 1 ? 11 : 1)
                    check_place(&bed, bed.source + source, offset, elements);
                check_place(&bed, bed.source + source, offset, LONG_ELEMENTS - offset);
            }
        }
        bed_finish(&bed);
    }
    check_entered(TND_DTYPE_NONE, TND_DTYPE_NONE);
}
END_TEST

#define GUARDED_BYTES ((size_t)256 << 10)
#define GUARD_BYTES ((size_t)64 << 10)

/* Not a byte of the source's neighbours is read. */
START_TEST(reads_between_guard_pages)
{
    uint8_t *memory = mmap(NULL, GUARDED_BYTES + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *start = memory + GUARD_BYTES, *end = start + GUARDED_BYTES;
    const struct tnd_kernel *kernel;
    struct bed bed;

    ck_assert_ptr_ne(memory, MAP_FAILED);
    ck_assert_int_eq(mprotect(start, GUARDED_BYTES, PROT_READ | PROT_WRITE), 0);
    forget_entered();
    for (size_t i = 0; (kernel = next_kernel(&i, TND_DTYPE_NONE, TND_DTYPE_NONE));) {
        bed_init(&bed, i, LONG_ELEMENTS);
        for (size_t elements = 0; elements <= LONG_ELEMENTS; elements += elements < SHORT_ELEMENTS ? 1 : 1999) {
            size_t bytes = elements * bytes_of(kernel->from);

            memcpy(start, bed.values, bytes);
            check_place(&bed, start, 0, elements);
            memcpy(end - bytes, bed.values, bytes);
            check_place(&bed, end - bytes, 2 * bytes_of(kernel->to), elements);
        }
        bed_finish(&bed);
    }
    check_entered(TND_DTYPE_NONE, TND_DTYPE_NONE);
    munmap(memory, GUARDED_BYTES + 2 * GUARD_BYTES);
}
END_TEST

/* A caller's thread may have set it otherwise. */
static void set_float_environment(bool odd)
{
    fenv_t environment;

    fegetenv(&environment);
#if defined(__x86_64__)
    environment.__mxcsr = odd ? environment.__mxcsr | 0x8040 : environment.__mxcsr & ~0x8040U; /* FTZ, DAZ */
#endif
    fesetenv(&environment);
    fesetround(odd ? FE_UPWARD : FE_TONEAREST);
}

START_TEST(whatever_the_float_environment)
{
    const struct tnd_kernel *kernel;
    struct tnd_range_counts counts;
    struct bed bed;

    forget_entered();
    for (size_t i = 0; (kernel = next_kernel(&i, TND_DTYPE_NONE, TND_DTYPE_NONE));) {
        bed_init(&bed, i, LONG_ELEMENTS);
        set_float_environment(true);
        counts = run(i, bed.destination, bed.values, LONG_ELEMENTS);
        set_float_environment(false);
        check_counts(kernel, counts, bed.counts[LONG_ELEMENTS]);
        check_same(kernel, bed.destination, bed.expected, LONG_ELEMENTS, bed.values);
        bed_finish(&bed);
    }
    check_entered(TND_DTYPE_NONE, TND_DTYPE_NONE);
}
END_TEST

/* ---- The table --------------------------------------------------------------------------------------------- */

/* The fastest that the table must have for each pair: a variant cannot get lost. */
static const struct {
    enum tnd_dtype from, to;
    enum tnd_isa best;
} pairs[] = {
    {TND_F64, TND_F32, TND_ISA_C},          {TND_F64, TND_F16, TND_ISA_C},
    {TND_F64, TND_BF16, TND_ISA_C},         {TND_F32, TND_F16, TND_ISA_AVX512},
    {TND_F32, TND_BF16, TND_ISA_AVX512},    {TND_F16, TND_F32, TND_ISA_AVX2},
    {TND_F16, TND_BF16, TND_ISA_AVX512},    {TND_BF16, TND_F32, TND_ISA_AVX2},
    {TND_BF16, TND_F16, TND_ISA_AVX512},    {TND_F8_E4M3, TND_F32, TND_ISA_AVX2},
    {TND_F8_E4M3, TND_F16, TND_ISA_AVX512}, {TND_F8_E4M3, TND_BF16, TND_ISA_AVX512},
    {TND_F8_E5M2, TND_F32, TND_ISA_AVX2},   {TND_F8_E5M2, TND_F16, TND_ISA_AVX512},
    {TND_F8_E5M2, TND_BF16, TND_ISA_AVX512},
};

START_TEST(finds_the_best)
{
    for (size_t i = 0; i < LENGTH(pairs); i++)
        for (enum tnd_isa isa = TND_ISA_C; isa < TND_ISA_COUNT; isa++) {
            const struct tnd_kernel *kernel = tnd_kernel_find(pairs[i].from, pairs[i].to, isa);

            ck_assert_ptr_nonnull(kernel);
            ck_assert_int_eq(kernel->from, pairs[i].from);
            ck_assert_int_eq(kernel->to, pairs[i].to);
#if defined(__x86_64__)
            ck_assert_int_eq(kernel->isa, isa < pairs[i].best ? isa : pairs[i].best);
#else
            ck_assert_int_eq(kernel->isa, TND_ISA_C);
#endif
        }
    for (size_t i = 0; i < LENGTH(targets); i++) /* copies, not kernels */
        ck_assert_ptr_null(tnd_kernel_find(targets[i]->dtype, targets[i]->dtype, TND_ISA_AVX512));
    ck_assert_ptr_null(tnd_kernel_find(TND_I32, TND_F32, TND_ISA_AVX512));
    ck_assert_ptr_null(tnd_kernel_find(TND_F32, TND_F8_E4M3, TND_ISA_AVX512));
}
END_TEST

static void find_kernels(void)
{
    const struct tnd_kernel *kernel;

    for (size_t i = 0; (kernel = tnd_kernel_at(i)); i++)
        if (is_float(kernel->from) && kernel->isa <= tnd_isa_best() && kernel_count < KERNELS_MAX)
            kernels[kernel_count++].kernel = kernel;
        else if (is_float(kernel->from))
            printf("skipped: %s: this processor has no such instructions\n", name_of(kernel));
}

int main(int argument_count, char **arguments)
{
    Suite *suite = suite_create("convert");
    TCase *tests = tcase_create("convert");

    if (argument_count > 1)
        sample = (unsigned)strtoul(arguments[1], NULL, 10);
    find_kernels();
    tcase_add_test(tests, finds_the_best);
    tcase_add_test(tests, golden_vectors);
    tcase_add_test(tests, all_of_the_narrow_types);
    tcase_add_test(tests, all_floats_to_f16);
    tcase_add_test(tests, all_floats_to_bf16);
    tcase_add_test(tests, doubles_around_every_middle);
    tcase_add_test(tests, random_values);
    tcase_add_test(tests, all_lengths_and_alignments);
    tcase_add_test(tests, long_runs);
    tcase_add_test(tests, reads_between_guard_pages);
    tcase_add_test(tests, whatever_the_float_environment);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
