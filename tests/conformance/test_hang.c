/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: a device that hangs takes the load of its own file with it, and no other; what it may still write to stays, and
 * is counted.
 * Method: reads of one file hang for good: the library's preads pass through here. */

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/gguf_file.h"
#include "support/suite.h"
#include "tundish.h"

ssize_t pread64(int fd, void *buffer, size_t bytes, off64_t offset);
ssize_t preadv64(int fd, const struct iovec *vector, int count, off64_t offset);

static const struct gguf_file_tensor tensors[] = {{"token_embd.weight", 9000000}, {"blk.0.a", 3000000}};

static atomic_ulong hung_inode; /* 0: none */

static void hang(int fd)
{
    struct stat status;

    while (atomic_load(&hung_inode) && fstat(fd, &status) == 0 && status.st_ino == atomic_load(&hung_inode))
        pause();
}

ssize_t pread64(int fd, void *buffer, size_t bytes, off64_t offset)
{
    hang(fd);
    return syscall(SYS_pread64, fd, buffer, bytes, offset);
}

ssize_t preadv64(int fd, const struct iovec *vector, int count, off64_t offset)
{
    hang(fd);
    return syscall(SYS_preadv, fd, vector, count, offset, 0);
}

static struct tnd_model *make_model(char *path, size_t path_bytes)
{
    struct tnd_model *model = NULL;

    snprintf(path, path_bytes, "%s/tundish-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    close(mkstemp(path));
    gguf_file_write(path, tensors, 2);
    ck_assert_msg(tnd_model_open(path, NULL, &model) == 0, "%s", tnd_last_error());
    return model;
}

/* Returns the load's result; the sentence must name the file when it fails. */
static int load_once(struct tnd_loader *loader, struct tnd_model *model, const char *path, uint32_t *ret_given_up)
{
    struct tnd_load *load = NULL;
    struct tnd_load_stats stats;
    int r;

    if (tnd_load_start(loader, model, NULL, &load) < 0)
        return -ENOMEM;
    r = tnd_load_wait(load, -1);
    ck_assert(r == 0 || strstr(tnd_load_error(load), path));
    tnd_load_stats(load, &stats);
    *ret_given_up = stats.reads_given_up;
    tnd_load_destroy(&load);
    return r;
}

/* A loader of the threads engine, and from now on reads of that file hang. */
static struct tnd_loader *make_loader(const char *hung_path, uint64_t memory_bytes_max)
{
    struct tnd_loader_options options = {.size = sizeof(options), .engine = TND_ENGINE_THREADS, .direct = TND_OFF,
                                         .read_timeout_ns = 200000000, .chunk_bytes = 64 << 10,
                                         .pool_bytes_max = 2 << 20, .memory_bytes_max = memory_bytes_max};
    struct tnd_loader *loader = NULL;
    struct stat status;

    ck_assert_int_eq(stat(hung_path, &status), 0);
    ck_assert_msg(tnd_loader_create(&options, &loader) == 0, "%s", tnd_last_error());
    atomic_store(&hung_inode, status.st_ino);
    return loader;
}

START_TEST(other_files_are_loaded_meanwhile)
{
    char hung_path[256], path[256];
    struct tnd_model *hung = make_model(hung_path, sizeof(hung_path)), *healthy = make_model(path, sizeof(path));
    struct tnd_loader *loader = make_loader(hung_path, 0);
    uint32_t given_up = 0;

    ck_assert_int_eq(load_once(loader, hung, hung_path, &given_up), -EIO);
    ck_assert_uint_gt(given_up, 0);
    ck_assert_int_eq(load_once(loader, healthy, path, &given_up), 0);
    ck_assert_uint_eq(given_up, 0);
    tnd_loader_destroy(&loader); /* does not wait for the reads */
    tnd_model_close(&healthy);
    unlink(path);
    unlink(hung_path);
}
END_TEST

START_TEST(what_is_leaked_counts)
{
    char path[256];
    struct tnd_model *model = make_model(path, sizeof(path));
    struct tnd_loader *loader = make_loader(path, 32 << 20);
    uint32_t given_up = 0;

    ck_assert_int_eq(load_once(loader, model, path, &given_up), -EIO); /* 12 of 32 MiB */
    ck_assert_int_eq(load_once(loader, model, path, &given_up), -EIO); /* 24 */
    ck_assert_int_eq(load_once(loader, model, path, &given_up), -ENOMEM);
    ck_assert_ptr_nonnull(strstr(tnd_last_error(), "are available"));
    tnd_loader_destroy(&loader);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hang");
    TCase *cases = tcase_create("hang");

    tcase_add_test(cases, other_files_are_loaded_meanwhile);
    tcase_add_test(cases, what_is_leaked_counts);
    suite_add_tcase(suite, cases);
    _exit(run_suite(suite)); /* past the sanitizers' look for leaks: these are on purpose, and their threads hang */
}
