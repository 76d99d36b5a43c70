/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: the catalogue finds what was put into it and opens regular files only; ranges of tensors are checked.
 * Method: catalogues filled by hand; files in $TMPDIR for what has to do with opening; every allocation failed once. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "memory_file.h"

static char folder[256];

static const char *path_of(const char *name)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const void *bytes, size_t count)
{
    const char *path = path_of(name);
    FILE *file = fopen(path, "wb");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

/* A safetensors file of count tensors of one F32 each. */
static struct memory_file many_tensors(uint32_t count)
{
    struct memory_file json = {0}, file = {0};
    char entry[160];

    put_words(&json, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; i < count; i++) {
        snprintf(entry, sizeof(entry),
                 ",\"model.layers.%u.w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%u,%u]}",
                 i, 4 * i, 4 * i + 4);
        put_words(&json, entry);
    }
    put_words(&json, "}");
    put_u64(&file, json.bytes);
    put(&file, json.data, json.bytes);
    put_zeros(&file, 4 * (size_t)count);
    drop(&json);
    return file;
}

static void assert_not_opened(const char *path, int result, const char *words)
{
    struct tnd_model *model = NULL;

    ck_assert_int_eq(tnd_model_open(path, NULL, &model), result);
    ck_assert_ptr_null(model);
    ck_assert_msg(strstr(tnd_last_error(), words) && strstr(tnd_last_error(), path), "expected '%s' in: %s", words,
                  tnd_last_error());
}

/* ---- The catalogue ---- */

static void catalogue_init(struct tnd_model *model, struct tnd_model_file *file, uint64_t file_bytes)
{
    *file = (struct tnd_model_file){.file = {.path = "none", .bytes = file_bytes}, .fd = -1};
    *model = (struct tnd_model){.files = file, .file_count = 1};
    model->arena.allocator = tnd_allocator_or_default(NULL);
}

static int add(struct tnd_model *model, const char *name, uint64_t offset, uint64_t bytes, struct tnd_err *err)
{
    struct tnd_tensor tensor = {.name = tnd_arena_string(&model->arena, name, strlen(name)),
                                .name_bytes = strlen(name), .dtype = TND_U8, .elements = bytes, .bytes = bytes,
                                .offset = offset};

    ck_assert_ptr_nonnull(tensor.name);
    return tnd_model_add_tensor(model, &tensor, err);
}

START_TEST(finds_what_was_added)
{
    struct tnd_model model;
    struct tnd_model_file file;
    struct tnd_err err;
    char name[64];

    catalogue_init(&model, &file, 1 << 20);
    ck_assert_int_eq(tnd_model_tensor_find(&model, "none yet"), -ENOENT);
    ck_assert_ptr_null(tnd_model_meta_find(&model, "none yet"));
    for (uint32_t i = 0; i < 5000; i++) { /* without room asked for */
        snprintf(name, sizeof(name), "blk.%u.%s", i, i % 3 ? "w" : "a longer name than eight bytes");
        ck_assert_int_eq(add(&model, name, 8 * i, 8, &err), 0);
    }
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "blk.%u.%s", i, i % 3 ? "w" : "a longer name than eight bytes");
        ck_assert_int_eq(tnd_model_tensor_find(&model, name), i);
        ck_assert_int_eq(tnd_model_tensor(&model, i)->layer, (int)i);
    }
    ck_assert_int_eq(tnd_model_tensor_find(&model, "blk.0.w"), -ENOENT);
    ck_assert_int_eq(add(&model, "blk.1.w", 0, 8, &err), -EBADMSG);
    ck_assert_uint_eq(tnd_model_tensor_count(&model), 5000);
    ck_assert_uint_eq(tnd_model_layer_count(&model), 5000);
    ck_assert_uint_eq(tnd_model_bytes(&model), 40000);
    ck_assert_ptr_null(tnd_model_tensor(&model, 5000));
    ck_assert_ptr_null(tnd_model_meta(&model, 0));
    ck_assert_ptr_null(tnd_model_file(&model, 1));
    tnd_arena_finish(&model.arena);
}
END_TEST

START_TEST(reserve_keeps_what_is_there)
{
    struct tnd_model model;
    struct tnd_model_file file;
    struct tnd_err err;
    const struct tnd_tensor *first;

    catalogue_init(&model, &file, 100);
    ck_assert_int_eq(add(&model, "a", 0, 1, &err), 0);
    ck_assert_int_eq(tnd_model_reserve(&model, 1000, 10, &err), 0);
    first = model.tensors;
    ck_assert_int_eq(tnd_model_reserve(&model, 999, 10, &err), 0);
    ck_assert_ptr_eq(model.tensors, first);
    ck_assert_int_eq(tnd_model_tensor_find(&model, "a"), 0);
    ck_assert_int_eq(tnd_model_reserve(&model, TND_TENSORS_MAX, 0, &err), -EFBIG);
    ck_assert_int_eq(tnd_model_reserve(&model, UINT64_MAX, 0, &err), -EFBIG);
    ck_assert_int_eq(tnd_model_reserve(&model, 0, UINT64_MAX, &err), -EFBIG);
    tnd_arena_finish(&model.arena);
}
END_TEST

START_TEST(ranges)
{
    static const struct {
        uint64_t offset[3], bytes[3];
        int ranges, tiling; /* the results, with the data from byte 10 to 100 */
    } cases[] = {
        {{10, 40, 70}, {30, 30, 30}, 0, 0},
        {{70, 10, 40}, {30, 30, 30}, 0, 0},
        {{10, 40, 40}, {30, 0, 60}, 0, 0},
        {{10, 40, 71}, {30, 30, 29}, 0, -EBADMSG},         /* a hole */
        {{11, 40, 70}, {29, 30, 30}, 0, -EBADMSG},         /* before the first */
        {{10, 40, 70}, {30, 30, 29}, 0, -EBADMSG},         /* behind the last */
        {{10, 39, 70}, {30, 31, 30}, -EBADMSG, -EBADMSG},  /* one byte twice */
        {{10, 20, 70}, {60, 10, 30}, -EBADMSG, -EBADMSG},  /* one inside another */
        {{10, 10, 10}, {90, 90, 90}, -EBADMSG, -EBADMSG},
        {{10, 40, 70}, {30, 30, 31}, -EBADMSG, -EBADMSG},  /* beyond the end */
        {{10, 40, UINT64_MAX}, {30, 30, 30}, -EBADMSG, -EBADMSG},
        {{10, 20, 40}, {30, 0, 60}, 0, -EBADMSG},          /* an empty one inside another */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tnd_model model;
        struct tnd_model_file file;
        struct tnd_err err;

        catalogue_init(&model, &file, 100);
        for (int k = 0; k < 3; k++)
            ck_assert_int_eq(add(&model, (const char *const[]){"a", "b", "c"}[k], cases[i].offset[k],
                                 cases[i].bytes[k], &err), 0);
        ck_assert_msg(tnd_model_check_ranges(&model, 0, &err) == cases[i].ranges, "ranges %zu", i);
        ck_assert_msg(tnd_model_check_tiling(&model, 0, 10, &err) == cases[i].tiling, "tiling %zu", i);
        tnd_arena_finish(&model.arena);
    }
}
END_TEST

/* ---- Opening ---- */

START_TEST(opens_and_closes)
{
    struct memory_file file = many_tensors(3000); /* more header than the first step reads */
    const char *path = write_file("many.safetensors", file.data, file.bytes);
    struct tnd_model *model;

    ck_assert_msg(tnd_model_open(path, NULL, &model) == 0, "%s", tnd_last_error());
    ck_assert_str_eq(tnd_model_format(model), "safetensors");
    ck_assert_uint_eq(tnd_model_tensor_count(model), 3000);
    ck_assert_uint_eq(tnd_model_file_count(model), 1);
    ck_assert_str_eq(tnd_model_file(model, 0)->path, path);
    ck_assert_uint_eq(tnd_model_file(model, 0)->bytes, file.bytes);
    ck_assert_int_eq(model->files[0].identity.bytes, (off_t)file.bytes);
    ck_assert_int_ge(model->files[0].fd, 0);
    ck_assert_uint_gt(model->open_ns, 0);
    tnd_model_close(&model);
    ck_assert_ptr_null(model);
    tnd_model_close(&model);
    drop(&file);
}
END_TEST

START_TEST(format_by_content_then_name)
{
    struct memory_file file = many_tensors(1);
    struct tnd_model *model;

    ck_assert_int_eq(tnd_model_open(write_file("no-ending", file.data, file.bytes), NULL, &model), 0);
    tnd_model_close(&model);
    ck_assert_int_eq(tnd_model_open(write_file("e.safetensors", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24),
                                    NULL, &model), 0);
    ck_assert_str_eq(tnd_model_format(model), "GGUF v3");
    tnd_model_close(&model);
    assert_not_opened(write_file("s.gguf", file.data, file.bytes), -EBADMSG, ": byte 0: magic number");
    assert_not_opened(write_file("text", "hello, world", 12), -EBADMSG, ": byte 0: expected \"GGUF\"");
    assert_not_opened(write_file("G", "G", 1), -EBADMSG, ": byte 0: expected \"GGUF\"");
    assert_not_opened(write_file("empty.gguf", "", 0), -EBADMSG, ": byte 0: the file is empty");
    assert_not_opened(write_file("G.gguf", "GGUF", 4), -EBADMSG, ": byte 4: the version");
    drop(&file);
}
END_TEST

START_TEST(regular_files_only)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_not_opened(path_of("missing.gguf"), -ENOENT, "No such file");
    assert_not_opened(folder, -ENOENT, "holds several models");
    assert_not_opened("/dev/null", -ENOENT, "is a device");
    ck_assert_int_eq(mkfifo(path_of("fifo.gguf"), 0600), 0);
    assert_not_opened(path_of("fifo.gguf"), -ENOENT, "is a FIFO, not a regular file");
    ck_assert_int_eq(symlink("loop.gguf", path_of("loop.gguf")), 0);
    assert_not_opened(path_of("loop.gguf"), -ENOENT, "cannot open");
    snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/socket.gguf", folder);
    ck_assert_int_eq(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_not_opened(address.sun_path, -ENOENT, "");
    close(listener);
    if (geteuid() != 0) { /* nothing is forbidden to root */
        const char *path = write_file("secret.gguf", "GGUF", 4);

        ck_assert_int_eq(chmod(path, 0), 0);
        assert_not_opened(path, -EACCES, "cannot open");
    }
}
END_TEST

START_TEST(link_to_a_file)
{
    struct memory_file file = many_tensors(1);
    struct tnd_model *model;

    write_file("blob", file.data, file.bytes);
    ck_assert_int_eq(symlink("blob", path_of("link.safetensors")), 0);
    ck_assert_int_eq(tnd_model_open(path_of("link.safetensors"), NULL, &model), 0);
    tnd_model_close(&model);
    drop(&file);
}
END_TEST

START_TEST(sixty_four_gib_of_zeros)
{
    static const char *const names[] = {"zeros.gguf", "zeros.safetensors", "zeros.bin"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *path = write_file(names[i], "", 0);

        if (truncate(path, (off_t)64 << 30) < 0)
            continue; /* a file system without sparse files */
        assert_not_opened(path, -EBADMSG, ": byte 0: ");
        unlink(path);
    }
}
END_TEST

START_TEST(header_over_the_limit)
{
    const char *path = path_of("large.gguf");
    struct memory_file file = {0};

    put(&file, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 24);
    put_text(&file, "k");
    put_u32(&file, TND_VALUE_STRING);
    put_u64(&file, (uint64_t)1 << 32);
    write_file("large.gguf", file.data, file.bytes);
    ck_assert_int_eq(truncate(path, (off_t)8 << 30), 0);
    assert_not_opened(path, -EFBIG, "a header of 4294967341 bytes, expected at most 134217728");
    unlink(path);
    drop(&file);
}
END_TEST

START_TEST(wrong_arguments)
{
    struct tnd_model_options options = {0};
    struct tnd_model *model = NULL;

    ck_assert_int_eq(tnd_model_open(NULL, NULL, &model), -EINVAL);
    ck_assert_int_eq(tnd_model_open("x", NULL, NULL), -EINVAL);
    ck_assert_int_eq(tnd_model_open("x", &options, &model), -EINVAL);
    ck_assert_ptr_null(model);
    tnd_model_close(NULL);
}
END_TEST

struct failing {
    int left;   /* allocations that succeed */
    int in_use;
};

static void *failing_alloc(void *cookie, size_t bytes)
{
    struct failing *failing = cookie;

    if (failing->left-- <= 0)
        return NULL;
    failing->in_use++;
    return malloc(bytes);
}

static void failing_free(void *cookie, void *memory)
{
    ((struct failing *)cookie)->in_use--;
    free(memory);
}

START_TEST(each_allocation_fails_once)
{
    struct memory_file file = many_tensors(2000);
    const char *path = write_file("fail.safetensors", file.data, file.bytes);
    int count = 0, r;

    do {
        struct failing failing = {.left = count++};
        struct tnd_allocator allocator = {.alloc = failing_alloc, .free = failing_free, .cookie = &failing};
        struct tnd_model_options options = {.size = sizeof(options), .allocator = &allocator};
        struct tnd_model *model = NULL;

        r = tnd_model_open(path, &options, &model);
        ck_assert_msg(r == 0 || (r == -ENOMEM && !model), "%d: %s", r, tnd_last_error());
        ck_assert(r == 0 || strstr(tnd_last_error(), path));
        tnd_model_close(&model);
        ck_assert_int_eq(failing.in_use, 0);
    } while (r < 0 && count < 100);
    ck_assert_int_eq(r, 0);
    ck_assert_int_gt(count, 5);
    drop(&file);
}
END_TEST

static void remove_folder(void)
{
    static const char *const names[] = {"many.safetensors", "no-ending",   "e.safetensors", "s.gguf",    "text",
                                        "G",                "empty.gguf",  "G.gguf",        "fifo.gguf", "loop.gguf",
                                        "socket.gguf",      "secret.gguf", "blob",          "link.safetensors",
                                        "fail.safetensors"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(path_of(names[i]));
    rmdir(folder);
}

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *catalogue = tcase_create("catalogue"), *opening = tcase_create("opening");
    const char *base = getenv("TMPDIR");
    int result;

    snprintf(folder, sizeof(folder), "%.200s/tundish-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    tcase_add_test(catalogue, finds_what_was_added);
    tcase_add_test(catalogue, reserve_keeps_what_is_there);
    tcase_add_test(catalogue, ranges);
    tcase_add_test(opening, opens_and_closes);
    tcase_add_test(opening, format_by_content_then_name);
    tcase_add_test(opening, regular_files_only);
    tcase_add_test(opening, link_to_a_file);
    tcase_add_test(opening, sixty_four_gib_of_zeros);
    tcase_add_test(opening, header_over_the_limit);
    tcase_add_test(opening, wrong_arguments);
    tcase_add_test(opening, each_allocation_fails_once);
    suite_add_tcase(suite, catalogue);
    suite_add_tcase(suite, opening);
    result = run_suite(suite);
    remove_folder();
    return result;
}
