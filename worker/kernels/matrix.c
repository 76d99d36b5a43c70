/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/matrix.h"

#include <string.h>

#include "kernels/decode.h"
#include "kernels/dot.h"

#define COUNT_MAX 64       /* rows of activations that meet a panel, at most */
#define PANELS_MAX 4       /* that take turns with the same columns */
#define PANEL_SPANS 8      /* columns of a panel of integers; one of F32 has DECODE_ELEMENTS_MAX */
#define PARTS_PER_MEMBER 8 /* so that one which is slower than the others does not hold them up for long */
#define CACHE_LINE 64

/* A member's own memory. */
struct workplace {
    union {
        _Alignas(64) float floats[DOT_ROWS][DECODE_ELEMENTS_MAX];
        struct dot_weights spans[DOT_ROWS][PANEL_SPANS];
    } panel;
    _Alignas(64) float sums[PANELS_MAX][COUNT_MAX][DOT_ROWS][DOT_LANES];
    uint8_t last_span[DOT_SPAN_BYTES_MAX]; /* the blocks of a row that ends within a span, and zeros */
};

struct product {
    const struct dot_variant *variant;
    const struct matrix *weights;
    uint32_t block_elements, block_bytes;
    size_t row_bytes;
    const struct dot_format *format; /* NULL: panels of F32 … */
    const struct tnd_kernel *kernel; /* … that this one makes */
    const float *x;                  /* [count][columns] */
    uint32_t count;
    size_t stride;            /* of the next two */
    float *floats;            /* [count][stride]: x, padded with zeros; or spans: */
    struct dot_values *spans; /* [count][stride]: x in integers */
    float *y;
    struct workplace *workplaces; /* [team_size()] */
};

static uint32_t div_up(uint32_t number, uint32_t divisor)
{
    return (number + divisor - 1) / divisor;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ---- Types ------------------------------------------------------------------------------------------------- */

static const struct dot_format *find_format(enum tnd_dtype dtype)
{
    for (uint32_t i = 0; i < DOT_FORMAT_COUNT; i++)
        if (dot_formats[i].dtype == dtype)
            return &dot_formats[i];
    return NULL;
}

bool matrix_supports(enum tnd_dtype dtype)
{
    return decode_find(dtype) != NULL;
}

bool matrix_has_dot(enum tnd_dtype dtype)
{
    return dtype == TND_F32 || dtype == TND_F16 || dtype == TND_BF16 || find_format(dtype);
}

/* ---- Activations ------------------------------------------------------------------------------------------- */

size_t matrix_scratch_bytes(const struct team *team, uint32_t columns, uint32_t count)
{
    size_t floats = (size_t)div_up(columns, DOT_LANES) * DOT_LANES * sizeof(float);
    size_t spans = div_up(columns, DOT_SPAN) * sizeof(struct dot_values);

    return team_size(team) * sizeof(struct workplace) + count * (floats > spans ? floats : spans);
}

static void pad_row(const struct product *product, uint32_t t)
{
    uint32_t columns = product->weights->columns;
    float *row = product->floats + t * product->stride;

    memcpy(row, product->x + (size_t)t * columns, columns * sizeof(float));
    memset(row + columns, 0, (product->stride - columns) * sizeof(float));
}

static void quantise_row(const struct product *product, uint32_t t)
{
    uint32_t columns = product->weights->columns, whole = columns / DOT_SPAN, rest = columns % DOT_SPAN;
    const float *x = product->x + (size_t)t * columns;
    struct dot_values *row = product->spans + t * product->stride;

    product->variant->quantise(x, whole, product->format->bias, row);
    if (rest) {
        float last[DOT_SPAN] = {0};

        memcpy(last, x + columns - rest, rest * sizeof(float));
        product->variant->quantise(last, 1, product->format->bias, row + whole);
    }
}

static void prepare_part(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct product *product = cookie;

    (void)member;
    for (uint32_t t = from; t < to; t++) {
        if (product->format)
            quantise_row(product, t);
        else
            pad_row(product, t);
    }
}

/* ---- Weights ----------------------------------------------------------------------------------------------- */

static const uint8_t *blocks_at(const struct product *product, uint32_t row, uint32_t column)
{
    return (const uint8_t *)product->weights->data + row * product->row_bytes +
           (size_t)(column / product->block_elements) * product->block_bytes;
}

static void unpack_row(const struct product *product, struct workplace *workplace, const uint8_t *blocks,
                       uint32_t columns, struct dot_weights *spans)
{
    const struct dot_format *format = product->format;
    dot_unpack_fn unpack = product->variant->unpack[format - dot_formats];
    uint32_t whole = columns / DOT_SPAN, rest = columns % DOT_SPAN / product->block_elements * product->block_bytes;

    unpack(blocks, whole, spans);
    if (rest) {
        memset(workplace->last_span, 0, sizeof(workplace->last_span));
        memcpy(workplace->last_span, blocks + (size_t)whole * format->span_bytes, rest);
        unpack(workplace->last_span, 1, spans + whole);
    }
}

/* Into the cache of the core, not yet the nearest. */
static void prefetch(const uint8_t *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        __builtin_prefetch(at + i, 0, 2);
}

/* Some columns of a few rows: what is beyond the last row is that row again. The next rows are called for meanwhile,
 * since the stretches are too short for the processor to foresee. */
static void fill_panel(const struct product *product, struct workplace *workplace, uint32_t row, uint32_t column,
                       uint32_t columns)
{
    uint32_t last = product->weights->rows - 1;

    for (uint32_t i = 0; i < DOT_ROWS; i++) {
        const uint8_t *blocks = blocks_at(product, least(row + i, last), column);
        float *floats = workplace->panel.floats[i];

        prefetch(blocks_at(product, least(row + i + DOT_ROWS, last), column),
                 (size_t)(columns / product->block_elements) * product->block_bytes);
        if (product->format) {
            unpack_row(product, workplace, blocks, columns, workplace->panel.spans[i]);
        } else {
            decode(product->kernel, blocks, columns, floats);
            for (uint32_t j = columns; j % DOT_LANES; j++)
                floats[j] = 0;
        }
    }
}

/* ---- Products ---------------------------------------------------------------------------------------------- */

static void multiply_panel(const struct product *product, const struct workplace *workplace, uint32_t column,
                           uint32_t columns, uint32_t t, uint32_t count, float *sums)
{
    if (product->format)
        product->variant->spans(product->format, workplace->panel.spans[0], PANEL_SPANS,
                                product->spans + t * product->stride + column / DOT_SPAN, product->stride,
                                div_up(columns, DOT_SPAN), count, sums);
    else
        product->variant->floats(workplace->panel.floats[0], DECODE_ELEMENTS_MAX,
                                 product->floats + t * product->stride + column, product->stride,
                                 div_up(columns, DOT_LANES) * DOT_LANES, count, sums);
}

static void store_totals(const struct product *product, const float *sums, uint32_t row, uint32_t t, uint32_t count)
{
    uint32_t rows = product->weights->rows;

    for (uint32_t i = t; i < t + count; i++, sums += DOT_ROWS * DOT_LANES) {
        float totals[DOT_ROWS];

        dot_totals(sums, totals);
        memcpy(product->y + (size_t)i * rows + row, totals, least(rows - row, DOT_ROWS) * sizeof(float));
    }
}

/* Rows of weights from one on, as many panels as that takes, with up to COUNT_MAX of activations. */
static void multiply_rows(const struct product *product, struct workplace *workplace, uint32_t row, uint32_t panels,
                          uint32_t t, uint32_t count)
{
    uint32_t all = product->weights->columns;
    uint32_t panel_columns = product->format ? PANEL_SPANS * DOT_SPAN : DECODE_ELEMENTS_MAX;

    for (uint32_t i = 0; i < panels; i++)
        memset(workplace->sums[i], 0, count * sizeof(workplace->sums[i][0]));
    for (uint32_t column = 0; column < all; column += panel_columns) {
        uint32_t columns = least(all - column, panel_columns);

        for (uint32_t i = 0; i < panels; i++) {
            fill_panel(product, workplace, row + i * DOT_ROWS, column, columns);
            multiply_panel(product, workplace, column, columns, t, count, workplace->sums[i][0][0]);
        }
    }
    for (uint32_t i = 0; i < panels; i++)
        store_totals(product, workplace->sums[i][0][0], row + i * DOT_ROWS, t, count);
}

/* Few rows of activations fit the cache: weights are walked through as they lie. Of many, some columns do, and several
 * panels take turns with them. */
static void multiply_part(void *cookie, uint32_t member, uint32_t from, uint32_t to)
{
    const struct product *product = cookie;
    uint32_t panels = product->count < COUNT_MAX / 4 ? 1 : PANELS_MAX;

    for (uint32_t t = 0; t < product->count; t += COUNT_MAX)
        for (uint32_t row = from; row < to; row += panels * DOT_ROWS)
            multiply_rows(product, &product->workplaces[member], row, least(panels, div_up(to - row, DOT_ROWS)), t,
                          least(product->count - t, COUNT_MAX));
}

/* Rows of weights. */
static uint32_t rows_per_part(uint32_t rows, uint32_t members)
{
    return div_up(div_up(rows, members * PARTS_PER_MEMBER), DOT_ROWS) * DOT_ROWS;
}

void matrix_multiply_by(const struct dot_variant *variant, struct team *team, const struct matrix *weights,
                        const float *x, uint32_t count, float *y, void *scratch)
{
    const struct dot_format *format = find_format(weights->dtype);
    struct product product = {
        .variant = variant,
        .weights = weights,
        .format = format,
        .kernel = decode_find(weights->dtype),
        .x = x,
        .count = count,
        .stride = format ? div_up(weights->columns, DOT_SPAN) : div_up(weights->columns, DOT_LANES) * DOT_LANES,
        .y = y,
        .workplaces = scratch,
    };

    tnd_dtype_block(weights->dtype, &product.block_elements, &product.block_bytes);
    product.row_bytes = (size_t)(weights->columns / product.block_elements) * product.block_bytes;
    product.floats = (float *)(void *)(product.workplaces + team_size(team));
    product.spans = (struct dot_values *)(void *)product.floats;
    team_run(team, count, 1, prepare_part, &product);
    team_run(team, weights->rows, rows_per_part(weights->rows, team_size(team)), multiply_part, &product);
}

void matrix_multiply(struct team *team, const struct matrix *weights, const float *x, uint32_t count, float *y,
                     void *scratch)
{
    matrix_multiply_by(dot_variant_at(0), team, weights, x, count, y, scratch);
}

void matrix_row(const struct matrix *weights, uint32_t row, float *ret_values)
{
    struct product product = {.weights = weights};
    const struct tnd_kernel *kernel = decode_find(weights->dtype);

    tnd_dtype_block(weights->dtype, &product.block_elements, &product.block_bytes);
    product.row_bytes = (size_t)(weights->columns / product.block_elements) * product.block_bytes;
    for (uint32_t column = 0; column < weights->columns; column += DECODE_ELEMENTS_MAX)
        decode(kernel, blocks_at(&product, row, column), least(weights->columns - column, DECODE_ELEMENTS_MAX),
               ret_values + column);
}
