/* SPDX-License-Identifier: Apache-2.0 */

/* One product for a script: weights, then activations in F32 on stdin; products in F32 on stdout.
 *
 *     run_matrix TYPE ROWS COLUMNS COUNT VARIANT    exit 77: no such variant on this processor */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dot.h"
#include "kernels/matrix.h"

static _Noreturn void fail(const char *sentence)
{
    fprintf(stderr, "run_matrix: %s\n", sentence);
    exit(1);
}

static enum tnd_dtype dtype_of(const char *name)
{
    for (int dtype = 0; dtype < TND_DTYPE_COUNT; dtype++)
        if (strcmp(tnd_dtype_name((enum tnd_dtype)dtype), name) == 0)
            return (enum tnd_dtype)dtype;
    fail("no such type");
}

static const struct dot_variant *variant_of(const char *name)
{
    const struct dot_variant *variant;

    for (uint32_t i = 0; (variant = dot_variant_at(i)); i++)
        if (strcmp(variant->name, name) == 0)
            return variant;
    exit(77);
}

/* On 64 bytes. */
static void *memory_of(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);

    if (!memory)
        fail("no memory");
    return memory;
}

static void *read_bytes(size_t bytes)
{
    void *memory = memory_of(bytes);

    if (fread(memory, 1, bytes, stdin) != bytes)
        fail("the input is too short");
    return memory;
}

int main(int argument_count, char **arguments)
{
    const struct dot_variant *variant;
    struct matrix weights = {0};
    uint32_t count, elements, bytes;
    void *blocks, *x, *y, *scratch;
    struct team *team;

    if (argument_count != 6)
        fail("which TYPE ROWS COLUMNS COUNT VARIANT?");
    variant = variant_of(arguments[5]);
    weights.dtype = dtype_of(arguments[1]);
    weights.rows = (uint32_t)strtoul(arguments[2], NULL, 10);
    weights.columns = (uint32_t)strtoul(arguments[3], NULL, 10);
    count = (uint32_t)strtoul(arguments[4], NULL, 10);
    if (!matrix_supports(weights.dtype) || tnd_dtype_block(weights.dtype, &elements, &bytes) < 0)
        fail("that type is not supported");
    if (team_create(2, &team) < 0)
        fail("no threads");
    blocks = read_bytes((size_t)weights.rows * (weights.columns / elements) * bytes);
    x = read_bytes((size_t)count * weights.columns * sizeof(float));
    y = memory_of((size_t)count * weights.rows * sizeof(float));
    scratch = memory_of(matrix_scratch_bytes(team, weights.columns, count));
    weights.data = blocks;
    matrix_multiply_by(variant, team, &weights, x, count, y, scratch);
    if (fwrite(y, sizeof(float), (size_t)count * weights.rows, stdout) != (size_t)count * weights.rows)
        fail("cannot write");
    free(blocks);
    free(x);
    free(y);
    free(scratch);
    team_destroy(&team);
    return 0;
}
