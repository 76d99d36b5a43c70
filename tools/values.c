/* SPDX-License-Identifier: Apache-2.0 */
#include "values.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* How the bits of a small float are cut. */
struct layout {
    int exponent_bits, mantissa_bits, bias;
    enum { IEEE, NO_INFINITY, NO_NEGATIVE_ZERO } kind; /* the last two: OCP's E4M3, and the FNUZ forms */
};

static const struct layout half = {5, 10, 15, IEEE};
static const struct layout e5m2 = {5, 2, 15, IEEE};
static const struct layout e4m3 = {4, 3, 7, NO_INFINITY};
static const struct layout e5m2fnuz = {5, 2, 16, NO_NEGATIVE_ZERO};
static const struct layout e4m3fnuz = {4, 3, 8, NO_NEGATIVE_ZERO};

static float decode(const struct layout *layout, uint32_t bits)
{
    uint32_t mantissa = bits & ((1U << layout->mantissa_bits) - 1);
    uint32_t top = (1U << layout->exponent_bits) - 1;
    uint32_t exponent = bits >> layout->mantissa_bits & top;
    bool negative = bits >> (layout->exponent_bits + layout->mantissa_bits) & 1;
    float value;

    if (layout->kind == IEEE && exponent == top)
        value = mantissa == 0 ? INFINITY : NAN;
    else if (layout->kind == NO_INFINITY && exponent == top && mantissa == (1U << layout->mantissa_bits) - 1)
        value = NAN;
    else if (layout->kind == NO_NEGATIVE_ZERO && negative && exponent == 0 && mantissa == 0)
        value = NAN;
    else if (exponent == 0)
        value = ldexpf((float)mantissa, 1 - layout->bias - layout->mantissa_bits);
    else
        value = ldexpf((float)(mantissa | 1U << layout->mantissa_bits),
                       (int)exponent - layout->bias - layout->mantissa_bits);
    return negative ? -value : value;
}

bool values_readable(enum tnd_dtype dtype)
{
    switch (dtype) {
    case TND_F64:
    case TND_F32:
    case TND_F16:
    case TND_BF16:
    case TND_F8_E4M3:
    case TND_F8_E5M2:
    case TND_F8_E8M0:
    case TND_F8_E4M3FNUZ:
    case TND_F8_E5M2FNUZ:
    case TND_I64:
    case TND_I32:
    case TND_I16:
    case TND_I8:
    case TND_U64:
    case TND_U32:
    case TND_U16:
    case TND_U8:
    case TND_BOOL:
        return true;
    default:
        return false;
    }
}

static void json_float_of(struct json *json, enum tnd_dtype dtype, uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    double wide;
    float value;

    switch (dtype) {
    case TND_F64:
        memcpy(&wide, &bits, sizeof(wide));
        json_double(json, NULL, wide);
        return;
    case TND_BF16:
        low <<= 16;
        /* fall through */
    case TND_F32:
        memcpy(&value, &low, sizeof(value));
        break;
    case TND_F16:
        value = decode(&half, low);
        break;
    case TND_F8_E5M2:
        value = decode(&e5m2, low);
        break;
    case TND_F8_E4M3:
        value = decode(&e4m3, low);
        break;
    case TND_F8_E5M2FNUZ:
        value = decode(&e5m2fnuz, low);
        break;
    case TND_F8_E4M3FNUZ:
        value = decode(&e4m3fnuz, low);
        break;
    default:
        value = low == 0xFF ? NAN : ldexpf(1, (int)low - 127); /* F8_E8M0: an exponent and nothing else */
        break;
    }
    json_float(json, NULL, value);
}

/* Takes what stands above the sign bit from it. */
static int64_t extend(uint64_t bits, uint32_t bytes)
{
    uint64_t sign = (uint64_t)1 << (8 * bytes - 1);

    return (int64_t)((bits ^ sign) - sign);
}

void values_json(struct json *json, enum tnd_dtype dtype, const void *data, uint64_t element_index)
{
    uint32_t elements, bytes;
    uint64_t bits = 0;

    assert(values_readable(dtype));
    if (tnd_dtype_block(dtype, &elements, &bytes) < 0 || bytes > sizeof(bits))
        return;
    memcpy(&bits, (const char *)data + element_index * bytes, bytes); /* both formats are little-endian, as we are */
    switch (dtype) {
    case TND_I64:
    case TND_I32:
    case TND_I16:
    case TND_I8:
        json_int(json, NULL, extend(bits, bytes));
        break;
    case TND_U64:
    case TND_U32:
    case TND_U16:
    case TND_U8:
        json_uint(json, NULL, bits);
        break;
    case TND_BOOL:
        json_bool(json, NULL, bits != 0);
        break;
    default:
        json_float_of(json, dtype, bits);
        break;
    }
}
