/* SPDX-License-Identifier: Apache-2.0 */
#define TARGET
#define INLINE static inline __attribute__((always_inline))

#include "kernels/vector.h"

#include "kernels/cpu.h"
#include "kernels/decode.h"
#include "kernels/vector_loops.h"

/* ---- Plain C ----------------------------------------------------------------------------------------------- */

static float dot(const float *x, const float *y, uint32_t n)
{
    float lanes[LANES] = {0};

    for (uint32_t i = 0; i < n; i++)
        lanes[i % LANES] = fmaf(x[i], y[i], lanes[i % LANES]);
    for (uint32_t lane = n % LANES; lane % LANES; lane++)
        lanes[lane] = fmaf(0, 0, lanes[lane]);
    return lanes_added(lanes);
}

static float dot_f16(const float *x, const uint16_t *y, uint32_t n)
{
    const struct tnd_kernel *kernel = decode_find(TND_F16);
    float lanes[LANES] = {0}, values[LANES];

    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t count = n - i < LANES ? n - i : LANES;

        decode(kernel, y + i, count, values);
        for (uint32_t lane = 0; lane < LANES; lane++)
            lanes[lane] = lane < count ? fmaf(x[i + lane], values[lane], lanes[lane]) : fmaf(0, 0, lanes[lane]);
    }
    return lanes_added(lanes);
}

static void dots_f16(const float *x, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    for (uint32_t row = 0; row < count; row++)
        y[row] = dot_f16(x, rows + (size_t)row * n, n);
}

static void add_scaled_f16(float scale, const uint16_t *x, uint32_t n, float *y)
{
    const struct tnd_kernel *kernel = decode_find(TND_F16);
    float values[LANES];

    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t count = n - i < LANES ? n - i : LANES;

        decode(kernel, x + i, count, values);
        for (uint32_t lane = 0; lane < count; lane++)
            y[i + lane] = fmaf(scale, values[lane], y[i + lane]);
    }
}

static void weighted_sum_f16(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    memset(y, 0, n * sizeof(*y));
    for (uint32_t row = 0; row < count; row++)
        add_scaled_f16(weights[row], rows + (size_t)row * n, n, y);
}

const struct vector_variant vector_c = {"c", dot, dots_f16, weighted_sum_f16, scale_by, softmax, silu_multiply};

/* ---- Which one --------------------------------------------------------------------------------------------- */

const struct vector_variant *vector_variant_at(uint32_t index)
{
    static const struct {
        enum cpu_level level;
        const struct vector_variant *variant;
    } variants[] = {{CPU_AVX512, &vector_avx512}, {CPU_AVX2, &vector_avx2}, {CPU_C, &vector_c}};

    for (uint32_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
        if (cpu_has(variants[i].level) && index-- == 0)
            return variants[i].variant;
    return NULL;
}

void vector_rms_norm(const float *x, const float *weight, uint32_t n, float epsilon, float *y)
{
    const struct vector_variant *variant = vector_variant_at(0);
    float mean = variant->dot(x, x, n) / (float)n;

    variant->scale(x, weight, n, 1 / sqrtf(mean + epsilon), y);
}

void vector_softmax(float *x, uint32_t n)
{
    vector_variant_at(0)->softmax(x, n);
}

void vector_silu_multiply(const float *gate, const float *up, uint32_t n, float *y)
{
    vector_variant_at(0)->silu_multiply(gate, up, n, y);
}

void vector_dots_f16(const float *x, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    vector_variant_at(0)->dots_f16(x, rows, count, n, y);
}

void vector_weighted_sum_f16(const float *weights, const uint16_t *rows, uint32_t count, uint32_t n, float *y)
{
    vector_variant_at(0)->weighted_sum_f16(weights, rows, count, n, y);
}

void vector_to_f16(const float *x, uint32_t n, uint16_t *y)
{
    encode_f16(x, n, y);
}

void vector_add(const float *x, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void turn(float *first, float *second, float cosine, float sine)
{
    float x = *first, y = *second;

    *first = x * cosine - y * sine;
    *second = x * sine + y * cosine;
}

void vector_rope(float *x, uint32_t n, const float *cosines, const float *sines, bool halves)
{
    if (halves)
        for (uint32_t i = 0; i < n / 2; i++)
            turn(&x[i], &x[i + n / 2], cosines[i], sines[i]);
    else
        for (uint32_t i = 0; i < n / 2; i++)
            turn(&x[2 * i], &x[2 * i + 1], cosines[i], sines[i]);
}
