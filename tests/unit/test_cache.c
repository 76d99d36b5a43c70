/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a window keeps in the page cache what it will read again where the files fit it, and of a layer that left
 * nothing that the kernel would drop where they do not.
 * Method: a walk through two places, with the memory that is available told by this test (the linker puts its own
 * tnd_memory_available() in the library's place), and mincore(2) on the file: when a layer has left, and at the end.
 * Layers are larger than the kernel's folios, which stay when only a part of one is to go. */

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "layered_file.h"

#define PAGE 4096
#define LARGE 4
#define LARGE_BYTES (8 << 20)

static atomic_ullong available_bytes;
uint64_t __wrap_tnd_memory_available(void);

uint64_t __wrap_tnd_memory_available(void)
{
    return atomic_load(&available_bytes);
}

struct pages {
    uint64_t count, cached;
};

/* The pages that belong to a layer alone, added. */
static void add_pages(struct pages *pages, int32_t layer)
{
    const struct tnd_tensor *tensor = tnd_model_tensor(model, (uint32_t)layer);
    uint64_t first = (tensor->offset + PAGE - 1) / PAGE * PAGE;
    uint64_t count = (tensor->offset + tensor->bytes - first) / PAGE;
    uint8_t seen[LARGE_BYTES / PAGE];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = mmap(NULL, count * PAGE, PROT_READ, MAP_SHARED, fd, (off_t)first);

    ck_assert_ptr_ne(map, MAP_FAILED);
    ck_assert_uint_le(count, sizeof(seen));
    ck_assert_int_eq(mincore(map, count * PAGE, seen), 0);
    munmap(map, count * PAGE);
    close(fd);
    pages->count += count;
    for (uint64_t i = 0; i < count; i++)
        pages->cached += seen[i] & 1;
}

static struct pages pages_of_all(void)
{
    struct pages pages = {0};

    for (int32_t layer = 0; layer < LARGE; layer++)
        add_pages(&pages, layer);
    return pages;
}

/* False where the file's pages stay whatever is asked for: on tmpfs. */
static bool drop_all(void)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return pages_of_all().cached == 0;
}

static void make_large(void)
{
    static const struct gguf_file_tensor large[LARGE] = {
        {"blk.0.a", LARGE_BYTES}, {"blk.1.a", LARGE_BYTES}, {"blk.2.a", LARGE_BYTES}, {"blk.3.a", LARGE_BYTES}};

    tnd_model_close(&model);
    gguf_file_write(path, large, LARGE);
    ck_assert_int_eq(tnd_model_open(path, NULL, &model), 0);
}

static void note_leaving(void *cookie, const struct tnd_trace_event *event)
{
    if (event->kind == TND_TRACE_EVICT)
        *(int32_t *)cookie = event->tensor->layer;
}

/* The pages of layers that left, each time right after the next one had come. */
static struct pages walk_large(struct tnd_loader_options options, uint64_t available)
{
    struct pages pages = {0};
    int32_t left = -1;
    struct tnd_loader *loader;
    struct tnd_load *load;

    options.foreground = true;
    options.trace = note_leaving;
    options.trace_cookie = &left;
    loader = make_loader(options);
    atomic_store(&available_bytes, (uint64_t)1 << 40); /* for the load's own memory */
    load = start(loader, (struct tnd_load_options){.resident_bytes = 5 * LARGE_BYTES / 2, .ahead = TND_AHEAD_NONE});
    atomic_store(&available_bytes, available);
    for (int32_t i = 0; i < 3 * LARGE; i++) {
        left = -1;
        ck_assert_msg(tnd_layer_acquire(load, i % LARGE, -1) == 0, "%s", tnd_last_error());
        ck_assert_int_eq(tnd_layer_release(load, i % LARGE), 0);
        if (left >= 0)
            add_pages(&pages, left);
    }
    ck_assert_uint_gt(pages.count, LARGE * LARGE_BYTES / PAGE);
    tnd_load_destroy(&load);
    tnd_loader_destroy(&loader);
    return pages;
}

static const struct tnd_loader_options ways[] = {
    {.engine = TND_ENGINE_THREADS, .direct = TND_OFF},
    {.engine = TND_ENGINE_URING, .direct = TND_OFF},
    {.engine = TND_ENGINE_MMAP},
    {0},
};
#define WAY_COUNT (sizeof(ways) / sizeof(ways[0]))

/* Whether the page cache can be emptied here, without which nothing is seen. */
static bool can_drop(const char *test)
{
    bool can = drop_all();

    if (!can)
        printf("%s: skipped: the pages of %s cannot be dropped\n", test, path);
    return can;
}

START_TEST(drops_what_left_where_the_files_do_not_fit)
{
    make_large();
    for (size_t i = 0; i < WAY_COUNT && can_drop("drops_what_left_where_the_files_do_not_fit"); i++) {
        struct pages left = walk_large(ways[i], LARGE_BYTES);

        ck_assert_msg(left.cached * 2 <= left.count, "way %zu: %llu of %llu pages stay", i,
                      (unsigned long long)left.cached, (unsigned long long)left.count);
    }
}
END_TEST

/* On a busy machine the kernel takes folios back now and then, of plain reads too: up to 7 of 100 pages were seen. */
static bool stay(struct pages pages)
{
    return pages.cached * 4 >= pages.count * 3;
}

START_TEST(keeps_what_it_reads_where_the_files_fit)
{
    make_large();
    for (size_t i = 0; i < WAY_COUNT && can_drop("keeps_what_it_reads_where_the_files_fit"); i++) {
        struct pages left = walk_large(ways[i], 16 * LARGE_BYTES), all = pages_of_all();

        ck_assert_msg(stay(left) && stay(all), "way %zu: %llu of %llu pages stay, and %llu of %llu at the end", i,
                      (unsigned long long)left.cached, (unsigned long long)left.count,
                      (unsigned long long)all.cached, (unsigned long long)all.count);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache");
    TCase *cases = tcase_create("cache");

    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, drops_what_left_where_the_files_do_not_fit);
    tcase_add_test(cases, keeps_what_it_reads_where_the_files_fit);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
