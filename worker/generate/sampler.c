/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

int sampler_init(struct sampler *sampler, const struct sampler_options *options, uint32_t vocabulary)
{
    *sampler = (struct sampler){.options = *options, .state = options->seed, .vocabulary = vocabulary};
    if (!(options->temperature >= 0 && isfinite(options->temperature) && options->top_p >= 0 && options->top_p <= 1))
        return -EINVAL;
    sampler->candidates = calloc(vocabulary, sizeof(*sampler->candidates));
    return sampler->candidates ? 0 : -ENOMEM;
}

void sampler_finish(struct sampler *sampler)
{
    free(sampler->candidates);
    sampler->candidates = NULL;
}

/* SplitMix64, as a number in [0, 1). */
static double draw(struct sampler *sampler)
{
    uint64_t z = sampler->state += 0x9E3779B97F4A7C15;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* ---- A heap, the likeliest on top -------------------------------------------------------------------------- */

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static void sift_down(struct candidate *heap, uint32_t count, uint32_t at)
{
    struct candidate moved = heap[at];

    for (uint32_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void make_heap(struct candidate *heap, uint32_t count)
{
    for (uint32_t at = count / 2; at-- > 0;)
        sift_down(heap, count, at);
}

/* The top changes places with the last: what was popped stands behind the heap, the likeliest last of all. */
static void pop(struct candidate *heap, uint32_t *count)
{
    struct candidate top = heap[0];

    heap[0] = heap[--*count];
    heap[*count] = top;
    sift_down(heap, *count, 0);
}

/* ---- The choice -------------------------------------------------------------------------------------------- */

/* The likeliest token, the first of equals; -1 as sampler_next(). */
static int32_t likeliest(const float *logits, uint32_t vocabulary)
{
    int32_t best = -1;

    for (uint32_t i = 0; i < vocabulary; i++)
        if (best < 0 ? logits[i] > -INFINITY : logits[i] > logits[best])
            best = (int32_t)i;
    return best >= 0 && isfinite(logits[best]) ? best : -1;
}

/* How likely beside the likeliest one. */
static double share(const struct sampler *sampler, const struct candidate *candidate, float max)
{
    return exp(((double)candidate->logit - (double)max) / (double)sampler->options.temperature);
}

static double sum_shares(const struct sampler *sampler, const struct candidate *first, uint32_t count, float max)
{
    double sum = 0;

    for (uint32_t i = count; i-- > 0;) /* as the choice walks through them */
        sum += share(sampler, &first[i], max);
    return sum;
}

/* Candidates are walked from the last one back until their shares exceed so much. */
static int32_t choose(const struct sampler *sampler, const struct candidate *first, uint32_t count, float max,
                      double mass)
{
    for (uint32_t i = count; i-- > 1;) {
        mass -= share(sampler, &first[i], max);
        if (mass < 0)
            return first[i].token;
    }
    return first[0].token;
}

/* Both bring the likeliest to the end, in ascending order, and return how many. */
static uint32_t keep_count(struct candidate *heap, uint32_t count, uint32_t kept)
{
    uint32_t left = count;

    make_heap(heap, count);
    while (left > 0 && count - left < kept)
        pop(heap, &left);
    return count - left;
}

static uint32_t keep_mass(const struct sampler *sampler, struct candidate *heap, uint32_t count, float max)
{
    double mass = (double)sampler->options.top_p * sum_shares(sampler, heap, count, max);
    uint32_t left = count;

    make_heap(heap, count);
    do {
        mass -= share(sampler, &heap[0], max);
        pop(heap, &left);
    } while (left > 0 && mass > 0);
    return count - left;
}

int32_t sampler_next(struct sampler *sampler, const float *logits)
{
    const struct sampler_options *options = &sampler->options;
    int32_t best = likeliest(logits, sampler->vocabulary);
    struct candidate *end = sampler->candidates;
    uint32_t count = 0;
    double mass;

    if (best < 0 || options->temperature == 0)
        return best;
    for (uint32_t i = 0; i < sampler->vocabulary; i++)
        if (logits[i] > -INFINITY) /* NaN is not */
            end[count++] = (struct candidate){.logit = logits[i], .token = (int32_t)i};
    end += count;
    if (options->top_k > 0)
        count = keep_count(end - count, count, options->top_k);
    if (options->top_p > 0 && options->top_p < 1)
        count = keep_mass(sampler, end - count, count, logits[best]);
    mass = draw(sampler) * sum_shares(sampler, end - count, count, logits[best]);
    return choose(sampler, end - count, count, logits[best], mass);
}
