/* SPDX-License-Identifier: Apache-2.0 */

/* How fast the worker multiplies: for each type, bytes of weights a second with one row of activations, as when text is
 * generated, beside what reading memory yields; and operations a second with 64 rows of them, as when a prompt is read.
 *
 *     bench-worker-kernels [THREADS]    0, or left out: as many as cores
 *
 * The best of several. Weights for one row of activations are larger than caches. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/matrix.h"
#include "kernels/team.h"
#include "memory.h"

#define WEIGHTS_BYTES ((size_t)512 << 20)
#define COLUMNS 4096
#define COUNT 64
#define ROWS_OF_COUNT 2048 /* with so many rows of activations */
#define ROUNDS 5

struct bench {
    struct team *team;
    uint8_t *weights;
    float *x, *y;
    void *scratch;
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Numbers as weights have them: none is subnormal, which a processor may take its time with. */
static void fill(uint8_t *weights, enum tnd_dtype dtype)
{
    uint32_t random = 1, float_bytes = dtype == TND_F32 ? 4 : dtype <= TND_BF16 ? 2 : 0;

    for (size_t i = 0; i < WEIGHTS_BYTES; i++) {
        uint8_t byte;

        random = random * 1664525U + 1013904223U;
        byte = (uint8_t)(random >> 24);
        if (dtype == TND_MXFP4)
            weights[i] = 0x70 | (byte & 0x0F);
        else if (float_bytes == 0)
            weights[i] = byte & 0x3B;
        else
            weights[i] = i % float_bytes == float_bytes - 1 ? 0x38 | (byte & 0x83) : byte;
    }
}

static void read_part(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const uint64_t *words = cookie, *end = words + (size_t)to * 512;
    uint64_t sum = 0;

    for (words += (size_t)from * 512; words < end; words++)
        sum += *words;
    if (sum == member + 1) /* never, but only we know */
        puts("");
}

/* Bytes a second. */
static double read_speed(const struct bench *bench)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = wall_ns();

        team_run(bench->team, WEIGHTS_BYTES / 4096, 256, read_part, bench->weights);
        best = least(best, wall_ns() - start);
    }
    return (double)WEIGHTS_BYTES * 1e9 / (double)best;
}

/* Seconds of a product. */
static double product_time(const struct bench *bench, const struct matrix *matrix, uint32_t count)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = wall_ns();

        matrix_multiply(bench->team, matrix, bench->x, count, bench->y, bench->scratch);
        best = least(best, wall_ns() - start);
    }
    return (double)best * 1e-9;
}

static void measure(const struct bench *bench, enum tnd_dtype dtype, double memory_speed)
{
    struct matrix matrix = {.dtype = dtype, .data = bench->weights, .columns = COLUMNS};
    uint32_t block_elements, block_bytes;
    double speed, seconds;
    size_t row_bytes;

    if (!matrix_supports(dtype) || dtype == TND_F64)
        return;
    tnd_dtype_block(dtype, &block_elements, &block_bytes);
    row_bytes = (size_t)COLUMNS / block_elements * block_bytes;
    fill(bench->weights, dtype);
    matrix.rows = (uint32_t)(WEIGHTS_BYTES / row_bytes);
    speed = (double)matrix.rows * (double)row_bytes / product_time(bench, &matrix, 1);
    matrix.rows = ROWS_OF_COUNT;
    seconds = product_time(bench, &matrix, COUNT);
    printf("%-8s %6.1f GB/s, %3.0f %% of reading  %7.1f GFLOP/s%s\n", tnd_dtype_name(dtype), speed * 1e-9,
           100 * speed / memory_speed, 2.0 * ROWS_OF_COUNT * COLUMNS * COUNT / seconds * 1e-9,
           matrix_has_dot(dtype) ? "" : "  (decoded)");
    fflush(stdout);
}

int main(int argument_count, char **arguments)
{
    struct bench bench = {0};
    double speed;

    if (team_create(argument_count > 1 ? (uint32_t)strtoul(arguments[1], NULL, 10) : 0, &bench.team) < 0)
        die("no threads");
    bench.weights = memory_map(WEIGHTS_BYTES);
    bench.x = memory_map(sizeof(float) * COUNT * COLUMNS);
    bench.y = memory_map(WEIGHTS_BYTES / (COLUMNS / 8) * sizeof(float)); /* the shortest rows: a bit a column */
    bench.scratch = memory_map(matrix_scratch_bytes(bench.team, COLUMNS, COUNT));
    fill(bench.weights, TND_F32);
    for (uint32_t i = 0; i < COUNT * COLUMNS; i++)
        bench.x[i] = (float)(i * 2654435761U >> 16) / 32768 - 1;
    speed = read_speed(&bench);
    printf("reading  %6.1f GB/s, %u threads\n", speed * 1e-9, team_size(bench.team));
    for (int dtype = 0; dtype < TND_DTYPE_COUNT; dtype++)
        measure(&bench, (enum tnd_dtype)dtype, speed);
    team_destroy(&bench.team);
    return 0;
}
