/* SPDX-License-Identifier: Apache-2.0 */
#include "places.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES ((size_t)2 << 20)
#define TENSOR_ALIGNMENT 64 /* suits any element */

static uintptr_t round_down(uintptr_t value, size_t alignment)
{
    return value & ~((uintptr_t)alignment - 1);
}

static uintptr_t round_up(uintptr_t value, size_t alignment)
{
    return round_down(value + alignment - 1, alignment);
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static struct places_region *region_of(struct places *places, const struct tnd_tensor *tensor)
{
    return tensor->bytes >= HUGE_BYTES ? &places->large : &places->small;
}

/* In its first page a tensor lies as it does in the file, so that a read can land in place. */
static size_t lead_bytes(const struct tnd_tensor *tensor)
{
    return round_down(tensor->offset % page_bytes(), TENSOR_ALIGNMENT);
}

static size_t slot_bytes(const struct places_region *region, const struct tnd_tensor *tensor)
{
    return round_up(lead_bytes(tensor) + tensor->bytes, region->alignment);
}

static void region_map(struct places_region *region)
{
    size_t bytes = region->bytes + region->alignment;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return;
    region->base = memory;
    region->bytes = bytes;
    region->used = round_up((uintptr_t)memory, region->alignment) - (uintptr_t)memory;
}

void places_init(struct places *places, const struct tnd_model *model, const struct tnd_plan *plan)
{
    const struct tnd_tensor *tensor;

    *places = (struct places){.large.alignment = HUGE_BYTES, .small.alignment = page_bytes()};
    for (uint32_t i = 0; (tensor = tnd_model_tensor(model, i)); i++) {
        struct tnd_tensor loaded = *tensor;
        struct places_region *region;

        tnd_plan_tensor_type(plan, i, &loaded.dtype, &loaded.bytes);
        region = region_of(places, &loaded);
        region->bytes += slot_bytes(region, &loaded); /* should it overflow, places_take() finds too little */
    }
    region_map(&places->large);
    region_map(&places->small);
    if (places->large.base)
        madvise(places->large.base, places->large.bytes, MADV_HUGEPAGE); /* slower without, not wrong */
}

static void region_unmap(struct places_region *region)
{
    if (region->base)
        munmap(region->base, region->bytes);
    *region = (struct places_region){0};
}

void places_finish(struct places *places)
{
    region_unmap(&places->large);
    region_unmap(&places->small);
}

void *places_take(struct places *places, const struct tnd_tensor *tensor)
{
    struct places_region *region = region_of(places, tensor);
    size_t bytes = slot_bytes(region, tensor);
    char *slot = region->base;

    if (!slot || bytes > region->bytes - region->used)
        return NULL;
    slot += region->used;
    region->used += bytes;
    return slot + lead_bytes(tensor);
}

static const struct places_region *region_with(const struct places *places, const char *data)
{
    const struct places_region *const regions[] = {&places->large, &places->small};

    for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]); i++)
        if (regions[i]->base && data >= regions[i]->base && data < regions[i]->base + regions[i]->bytes)
            return regions[i];
    return NULL;
}

void places_give_back(const struct places *places, const void *data, size_t bytes, size_t kept_bytes)
{
    const struct places_region *region = region_with(places, data);
    uintptr_t at = (uintptr_t)data, first, end;

    if (!region || bytes == 0)
        return;
    first = kept_bytes == 0 ? round_down(at, region->alignment) : round_up(at + kept_bytes, page_bytes());
    end = round_up(at + bytes, region->alignment);
    if (first < end)
        madvise((void *)first, end - first, MADV_DONTNEED);
}
