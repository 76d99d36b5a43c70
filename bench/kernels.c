/* SPDX-License-Identifier: Apache-2.0 */

/* How fast one core converts: every kernel of the table, beside plain C and beside memory's own limit.
 *
 * As in a load: the source is a block that lies in the cache, the destination memory that was touched and is walked
 * over. The limit is a loop that reads and writes as many bytes and computes nothing. All variants of a pair take turns
 * in short samples, so that a disturbance meets them all; medians are told. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernel.h"
#include "memory.h"

#define SOURCE_BYTES ((size_t)1 << 20)
#define WALK_BYTES ((size_t)256 << 20)
#define SAMPLE_NS 5000000U
#define ROUNDS_MAX 99U
#define VARIANTS_MAX (TND_ISA_COUNT + 1)

struct options {
    const char *from, *to, *isa; /* NULL: all */
    unsigned rounds;
    bool json;
};

struct variant {
    const struct tnd_kernel *kernel; /* NULL: the limit */
    double samples[ROUNDS_MAX];      /* seconds a block */
    double median;
};

/* What is converted, block for block. */
struct work {
    enum tnd_dtype from, to;
    size_t elements, from_bytes, to_bytes; /* of a block */
    uint8_t *source, *destination;
    size_t at; /* in the destination */
    struct variant variants[VARIANTS_MAX];
    size_t variant_count;
};

/* ---- Measuring --------------------------------------------------------------------------------------------- */

/* Values as weights have them: nothing that overflows, vanishes or is no number. */
static void fill(struct work *work)
{
    uint32_t element_bytes = (uint32_t)(work->from_bytes / work->elements), random = 1;

    for (size_t i = 0; i < work->from_bytes; i++) {
        uint8_t byte;

        random = random * 1664525U + 1013904223U;
        byte = (uint8_t)(random >> 24);
        if (work->from == TND_MXFP4)
            work->source[i] = 0x70 | (byte & 0x0F); /* its scales are powers of two up to 1 */
        else if (work->from == TND_Q8_K)
            work->source[i] = 0x38 | (byte & 0x03); /* its scales are F32 */
        else if (work->from > TND_F8_E5M2)
            work->source[i] = byte & 0x3B; /* as an F16 scale: below 1 */
        else if (i % element_bytes != element_bytes - 1)
            work->source[i] = byte;
        else
            work->source[i] = (byte & 0x80) | 0x3F;
    }
}

static void run_block(struct work *work, const struct variant *variant)
{
    struct tnd_range_counts counts = {0};
    uint8_t *to;

    if (work->at + work->to_bytes > WALK_BYTES)
        work->at = 0;
    to = work->destination + work->at;
    work->at += work->to_bytes;
    if (variant->kernel)
        variant->kernel->run(to, work->source, work->elements, &counts);
    else
        traffic_nontemporal(to, work->to_bytes, work->source, work->from_bytes);
}

/* Seconds a block. */
static double sample(struct work *work, const struct variant *variant)
{
    uint64_t start, now;
    unsigned blocks = 0;

    run_block(work, variant); /* brings the source back into the cache */
    start = now = cpu_ns(); /* not the time that others had the core */
    while (now - start < SAMPLE_NS) {
        run_block(work, variant);
        blocks++;
        now = cpu_ns();
    }
    return (double)(now - start) / 1e9 / blocks;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void measure(struct work *work, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++)
        for (size_t i = 0; i < work->variant_count; i++)
            work->variants[i].samples[round] = sample(work, &work->variants[i]);
    for (size_t i = 0; i < work->variant_count; i++) {
        qsort(work->variants[i].samples, rounds, sizeof(double), compare);
        work->variants[i].median = work->variants[i].samples[rounds / 2];
    }
}

/* ---- Telling ----------------------------------------------------------------------------------------------- */

static void print(const struct work *work, const struct variant *variant, const struct options *options, bool first)
{
    const struct variant *limit = &work->variants[0], *plain = &work->variants[1];
    double input = (double)work->from_bytes / variant->median / 1e9;
    double output = (double)work->to_bytes / variant->median / 1e9;
    double limit_output = (double)work->to_bytes / limit->median / 1e9;
    const char *from = tnd_dtype_name(work->from), *to = tnd_dtype_name(work->to);
    const char *isa = tnd_isa_name(variant->kernel->isa);

    if (options->json)
        printf("%s{\"from\": \"%s\", \"to\": \"%s\", \"isa\": \"%s\", \"input_gb_per_s\": %.3f, "
               "\"output_gb_per_s\": %.3f, \"limit_output_gb_per_s\": %.3f, \"of_limit\": %.3f, \"of_c\": %.3f}",
               first ? "[\n  " : ",\n  ", from, to, isa, input, output, limit_output, limit->median / variant->median,
               plain->median / variant->median);
    else
        printf("%s%-8s %-5s %-7s %8.2f %8.2f %8.2f %8.2f %8.1f\n",
               first ? "from     to    isa      in GB/s out GB/s    limit  / limit      / C\n" : "", from, to, isa,
               input, output, limit_output, limit->median / variant->median, plain->median / variant->median);
    fflush(stdout);
}

/* ---- Options ----------------------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: bench-kernels [options]\n"
    "  --from TYPE  --to TYPE  --isa c|avx2|avx512   only these\n"
    "  --rounds N                                    samples of each (9)\n"
    "  --json                                        one array of objects\n";

static void parse(struct options *options, char **arguments)
{
    *options = (struct options){.rounds = 9};
    for (; *arguments; arguments++) {
        const char *name = *arguments, *value = arguments[1];

        if (strcmp(name, "--json") == 0) {
            options->json = true;
            continue;
        }
        if (!value)
            die("unexpected %s\n%s", name, usage);
        if (strcmp(name, "--from") == 0)
            options->from = value;
        else if (strcmp(name, "--to") == 0)
            options->to = value;
        else if (strcmp(name, "--isa") == 0)
            options->isa = value;
        else if (strcmp(name, "--rounds") == 0)
            options->rounds = (unsigned)strtoul(value, NULL, 10);
        else
            die("unexpected %s\n%s", name, usage);
        arguments++;
    }
    if (options->rounds == 0 || options->rounds > ROUNDS_MAX)
        die("--rounds takes 1 to %u", ROUNDS_MAX);
}

/* Whether a word of the command line, if there is one, is this name. */
static bool wanted(const char *word, const char *name)
{
    return !word || strcasecmp(word, name) == 0;
}

/* ---- All pairs --------------------------------------------------------------------------------------------- */

/* The limit, C, and what else runs here. */
static void find_variants(struct work *work)
{
    const struct tnd_kernel *kernel;

    work->variant_count = 1;
    for (size_t i = 0; (kernel = tnd_kernel_at(i)); i++)
        if (kernel->from == work->from && kernel->to == work->to && kernel->isa <= tnd_isa_best())
            work->variants[work->variant_count++].kernel = kernel;
}

/* As many whole blocks of the type as the cached memory holds. */
static void size_block(struct work *work)
{
    uint32_t from_elements, from_bytes, to_elements, to_bytes;

    if (tnd_dtype_block(work->from, &from_elements, &from_bytes) < 0 ||
        tnd_dtype_block(work->to, &to_elements, &to_bytes) < 0)
        die("a kernel's type is in no list");
    work->elements = SOURCE_BYTES / from_bytes * from_elements;
    work->from_bytes = work->elements / from_elements * from_bytes;
    work->to_bytes = work->elements * to_bytes;
}

int main(int argument_count, char **arguments)
{
    struct options options;
    struct work work = {0};
    const struct tnd_kernel *kernel;
    bool first = true;

    (void)argument_count;
    parse(&options, arguments + 1);
    work.source = memory_map(SOURCE_BYTES);
    work.destination = memory_map(WALK_BYTES);
    memory_touch(work.destination, WALK_BYTES, 1);

    for (size_t i = 0; (kernel = tnd_kernel_at(i)); i++) {
        if (kernel->isa != TND_ISA_C || !wanted(options.from, tnd_dtype_name(kernel->from)) ||
            !wanted(options.to, tnd_dtype_name(kernel->to)))
            continue;
        work.from = kernel->from;
        work.to = kernel->to;
        find_variants(&work);
        size_block(&work);
        fill(&work);
        measure(&work, options.rounds);
        for (size_t j = 1; j < work.variant_count; j++)
            if (wanted(options.isa, tnd_isa_name(work.variants[j].kernel->isa))) {
                print(&work, &work.variants[j], &options, first);
                first = false;
            }
    }
    if (first)
        die("no such kernel");
    if (options.json)
        printf("\n]\n");
    memory_unmap(work.source, SOURCE_BYTES);
    memory_unmap(work.destination, WALK_BYTES);
    return 0;
}
