/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digests.h"
#include "interrupt.h"
#include "json.h"
#include "library.h"
#include "manifest.h"
#include "session.h"
#include "text.h"

#define NAME_BYTES_SHOWN 120

enum fault { FAULT_MISSING, FAULT_EXTRA, FAULT_DTYPE, FAULT_BYTES, FAULT_DIGEST };


/* Where model and manifest part. */
struct difference {
    enum fault fault;
    const struct manifest_entry *entry; /* NULL for a tensor that is in the model only */
    const struct digest *found;         /* NULL for one in the manifest only */
};

/* A file whose name is its SHA-256, as the Hugging Face cache keeps them; a link leads there from a readable name. */
struct blob {
    const char *path;
    char target[PATH_MAX];
    unsigned char expected[HASH_BYTES_MAX], found[HASH_BYTES_MAX]; /* hash_sha256 */
};

struct verdict {
    const struct options *options;
    const struct tnd_model *model;
    const struct hash *hash; /* of the manifest */
    struct difference *differences; /* [difference_count]: as the model lists them, then what is missing */
    uint32_t difference_count;
    struct blob *blobs; /* [blob_count] that were read and agree, or the last of which does not */
    uint32_t blob_count;
};

static void print_name(char *buffer, size_t buffer_bytes, const char *name, size_t name_bytes)
{
    size_t shown = name_bytes < NAME_BYTES_SHOWN ? name_bytes : NAME_BYTES_SHOWN;

    while (shown > 0 && shown < name_bytes && ((unsigned char)name[shown] & 0xC0) == 0x80)
        shown--;
    snprintf(buffer, buffer_bytes, "'%.*s%s'", (int)shown, name, shown < name_bytes ? "…" : "");
}

/* ---- Against a manifest ------------------------------------------------------------------------------------ */

static void note(struct verdict *verdict, enum fault fault, const struct manifest_entry *entry,
                 const struct digest *found)
{
    verdict->differences[verdict->difference_count++] =
        (struct difference){.fault = fault, .entry = entry, .found = found};
}

static void compare_tensor(struct verdict *verdict, const struct manifest_entry *entry, const struct digest *found)
{
    if (strcmp(entry->dtype, tnd_dtype_name(found->tensor->dtype)) != 0)
        note(verdict, FAULT_DTYPE, entry, found);
    else if (entry->bytes != found->tensor->bytes)
        note(verdict, FAULT_BYTES, entry, found);
    else if (memcmp(entry->sum, found->sum, verdict->hash->bytes) != 0)
        note(verdict, FAULT_DIGEST, entry, found);
}

static int compare(struct verdict *verdict, const struct digests *digests, const struct manifest *manifest)
{
    size_t room = (size_t)digests->count + manifest->count + 1;
    bool *seen = calloc((size_t)manifest->count + 1, sizeof(*seen));

    verdict->differences = calloc(room, sizeof(*verdict->differences));
    if (!seen || !verdict->differences) {
        free(seen);
        return fail(EXIT_RESOURCE, "out of memory to compare %" PRIu32 " digests", digests->count);
    }
    for (uint32_t i = 0; i < digests->count; i++) {
        const struct digest *found = &digests->items[i];
        int64_t at = manifest_find(manifest, found->tensor->name, found->tensor->name_bytes);

        if (at < 0) {
            note(verdict, FAULT_EXTRA, NULL, found);
            continue;
        }
        seen[at] = true;
        compare_tensor(verdict, &manifest->entries[at], found);
    }
    for (uint32_t i = 0; i < manifest->count; i++)
        if (!seen[i])
            note(verdict, FAULT_MISSING, &manifest->entries[i], NULL);
    free(seen);
    return 0;
}

static int fail_difference(const struct verdict *verdict, uint32_t tensor_count)
{
    const struct difference *first = &verdict->differences[0];
    const struct manifest_entry *entry = first->entry;
    const struct tnd_tensor *tensor = first->found ? first->found->tensor : NULL;
    char name[NAME_BYTES_SHOWN + 8], count[64], what[2 * sizeof(struct hash_text) + 64];

    print_name(name, sizeof(name), tensor ? tensor->name : entry->name,
               tensor ? tensor->name_bytes : entry->name_bytes);
    switch (first->fault) {
    case FAULT_MISSING:
        snprintf(what, sizeof(what), "is missing, but stands in line %" PRIu32, entry->line);
        break;
    case FAULT_EXTRA:
        snprintf(what, sizeof(what), "is not in the manifest");
        break;
    case FAULT_DTYPE:
        snprintf(what, sizeof(what), "is %s, expected %.20s", tnd_dtype_name(tensor->dtype), entry->dtype);
        break;
    case FAULT_BYTES:
        snprintf(what, sizeof(what), "has %" PRIu64 " bytes, expected %" PRIu64, tensor->bytes, entry->bytes);
        break;
    case FAULT_DIGEST:
        snprintf(what, sizeof(what), "has %s %s, expected %s", verdict->hash->title,
                 hash_text(verdict->hash, first->found->sum).s, hash_text(verdict->hash, entry->sum).s);
        break;
    }
    snprintf(count, sizeof(count), "%" PRIu32 " of %s %s", verdict->difference_count,
             text_count(tensor_count, "tensor").s, verdict->difference_count == 1 ? "differs" : "differ");
    return fail(EXIT_MISMATCH, "%s: tensor %s %s; against %s %s", verdict->options->model, name, what,
                verdict->options->manifest, count);
}

/* ---- Against its own name ---------------------------------------------------------------------------------- */

static bool blob_name(struct blob *blob)
{
    const char *name;

    if (!realpath(blob->path, blob->target))
        return false;
    name = strrchr(blob->target, '/') + 1; /* the path is absolute */
    return strlen(name) == 2 * hash_sha256.bytes && hash_parse(&hash_sha256, name, blob->expected);
}

static int blob_check(struct blob *blob, uint64_t file_bytes)
{
    uint64_t bytes;
    int fd = open(blob->target, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int r;

    if (fd < 0)
        return fail(EXIT_NOT_FOUND, "%s: cannot open: %s", blob->path, strerror(errno));
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    r = hash_fd(&hash_sha256, fd, interrupted, blob->found, &bytes);
    close(fd);
    if (interrupted())
        return fail(EXIT_INTERRUPTED, "interrupted: %s was not digested", blob->path);
    if (r < 0)
        return fail(r == -ENOMEM ? EXIT_RESOURCE : EXIT_FAILED, "%s: cannot take its SHA-256: %s", blob->path,
                    strerror(-r));
    if (bytes != file_bytes)
        return fail(EXIT_MALFORMED, "%s: changed while it was verified: expected %" PRIu64 " bytes, found %" PRIu64,
                    blob->path, file_bytes, bytes);
    return 0;
}

static bool blob_agrees(const struct blob *blob)
{
    return memcmp(blob->found, blob->expected, hash_sha256.bytes) == 0;
}

static int check_blobs(struct verdict *verdict)
{
    const struct tnd_file *file;
    int code = 0;

    verdict->blobs = calloc((size_t)tnd_model_file_count(verdict->model) + 1, sizeof(*verdict->blobs));
    if (!verdict->blobs)
        return fail(EXIT_RESOURCE, "out of memory for the names of its files");
    for (uint32_t i = 0; code == 0 && (file = tnd_model_file(verdict->model, i)); i++) {
        struct blob *blob = &verdict->blobs[verdict->blob_count];

        blob->path = file->path;
        if (!blob_name(blob))
            continue;
        code = hash_sha256.open();
        if (code == 0)
            code = blob_check(blob, file->bytes);
        verdict->blob_count += code == 0;
        if (code == 0 && !blob_agrees(blob))
            break;
    }
    return code;
}

/* NULL while all agree. */
static const struct blob *blob_differs(const struct verdict *verdict)
{
    const struct blob *last = verdict->blob_count > 0 ? &verdict->blobs[verdict->blob_count - 1] : NULL;

    return last && !blob_agrees(last) ? last : NULL;
}

static int fail_blob(const struct blob *blob)
{
    return fail(EXIT_MISMATCH, "%s: has SHA-256 %s, expected %s as its name in the cache says", blob->path,
                hash_text(&hash_sha256, blob->found).s, hash_text(&hash_sha256, blob->expected).s);
}

/* ---- What is said ------------------------------------------------------------------------------------------ */

static const char *checked(const struct verdict *verdict)
{
    return verdict->options->manifest ? "manifest" : verdict->blob_count > 0 ? "blobs" : "structure";
}

static void print_verdict(const struct verdict *verdict)
{
    const struct tnd_model *model = verdict->model;

    text_print(stdout, verdict->options->model, strlen(verdict->options->model), SIZE_MAX);
    printf(": %s, ", tnd_model_format(model));
    printf("%s, ", text_count(tnd_model_tensor_count(model), "tensor").s);
    printf("%s: structure and bounds are right\n", text_bytes(tnd_model_bytes(model)).s);
    if (verdict->options->manifest) {
        printf("all tensors have the %s that ", verdict->hash->title);
        text_print(stdout, verdict->options->manifest, strlen(verdict->options->manifest), SIZE_MAX);
        printf(" says\n");
        return;
    }
    for (uint32_t i = 0; i < verdict->blob_count; i++) {
        text_print(stdout, verdict->blobs[i].path, strlen(verdict->blobs[i].path), SIZE_MAX);
        printf(" has the SHA-256 that its name in the cache says\n");
    }
    if (verdict->blob_count == 0)
        printf("the structure only was checked; --manifest FILE compares the tensors' bytes\n");
    else if (verdict->blob_count < tnd_model_file_count(model))
        printf("of the other files the structure only was checked\n");
}

/* "found_sha256" */
static void json_sum(struct json *json, const char *which, const struct hash *hash, const unsigned char *sum)
{
    char key[32];

    snprintf(key, sizeof(key), "%s_%s", which, hash->name);
    json_string(json, key, hash_text(hash, sum).s);
}

static const char *fault_name(const struct verdict *verdict, enum fault fault)
{
    static const char *const names[] = {"missing", "extra", "dtype", "bytes"};

    return fault == FAULT_DIGEST ? verdict->hash->name : names[fault];
}

static void json_difference(struct json *json, const struct verdict *verdict, const struct difference *difference)
{
    const struct manifest_entry *entry = difference->entry;
    const struct digest *found = difference->found;

    json_object_begin(json, NULL);
    json_bytes(json, "name", found ? found->tensor->name : entry->name,
               found ? found->tensor->name_bytes : entry->name_bytes);
    json_string(json, "fault", fault_name(verdict, difference->fault));
    if (found) {
        json_string(json, "found_dtype", tnd_dtype_name(found->tensor->dtype));
        json_uint(json, "found_bytes", found->tensor->bytes);
        json_sum(json, "found", verdict->hash, found->sum);
    }
    if (entry) {
        json_bytes(json, "expected_dtype", entry->dtype, strlen(entry->dtype));
        json_uint(json, "expected_bytes", entry->bytes);
        json_sum(json, "expected", verdict->hash, entry->sum);
    }
    json_object_end(json);
}

static void json_verdict(const struct verdict *verdict)
{
    struct json json;

    json_begin(&json, stdout);
    json_object_begin(&json, NULL);
    json_string(&json, "model", verdict->options->model);
    json_string(&json, "format", tnd_model_format(verdict->model));
    json_uint(&json, "files", tnd_model_file_count(verdict->model));
    json_uint(&json, "tensors", tnd_model_tensor_count(verdict->model));
    json_uint(&json, "bytes", tnd_model_bytes(verdict->model));
    json_string(&json, "checked", checked(verdict));
    json_bool(&json, "good", verdict->difference_count == 0 && !blob_differs(verdict));
    json_array_begin(&json, "blobs");
    for (uint32_t i = 0; i < verdict->blob_count; i++) {
        json_object_begin(&json, NULL);
        json_string(&json, "path", verdict->blobs[i].path);
        json_sum(&json, "found", &hash_sha256, verdict->blobs[i].found);
        json_sum(&json, "expected", &hash_sha256, verdict->blobs[i].expected);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_array_begin(&json, "differences");
    for (uint32_t i = 0; i < verdict->difference_count; i++)
        json_difference(&json, verdict, &verdict->differences[i]);
    json_array_end(&json);
    json_object_end(&json);
    json_end(&json);
}

static int finish(const struct verdict *verdict)
{
    const struct blob *blob = blob_differs(verdict);

    if (verdict->options->json)
        json_verdict(verdict);
    if (verdict->difference_count > 0)
        return fail_difference(verdict, tnd_model_tensor_count(verdict->model));
    if (blob)
        return fail_blob(blob);
    if (!verdict->options->json)
        print_verdict(verdict);
    return 0;
}

/* ---- The command ------------------------------------------------------------------------------------------- */

static int verify_manifest(struct verdict *verdict)
{
    struct session session = {.options = verdict->options};
    struct digests digests = {0};
    struct manifest manifest = {0};
    int code = manifest_read(&manifest, verdict->options->manifest); /* before minutes of loading */

    if (code == 0)
        code = digests_take(&digests, manifest.hash, &session);
    verdict->model = session.model;
    verdict->hash = manifest.hash;
    if (code == 0)
        code = compare(verdict, &digests, &manifest);
    if (code == 0)
        code = finish(verdict);
    session_finish(&session);
    digests_finish(&digests);
    manifest_finish(&manifest);
    return code;
}

static int verify_alone(struct verdict *verdict)
{
    struct tnd_model_options options = options_model(verdict->options);
    struct tnd_model *model = NULL;
    int r = tnd_model_open(verdict->options->model, &options, &model);
    int code;

    if (r < 0)
        return fail_result(r, NULL);
    verdict->model = model;
    code = check_blobs(verdict);
    if (code == 0)
        code = finish(verdict);
    tnd_model_close(&model);
    return code;
}

int command_verify(const struct options *options)
{
    struct verdict verdict = {.options = options};
    int code = options->manifest ? verify_manifest(&verdict) : verify_alone(&verdict);

    free(verdict.differences);
    free(verdict.blobs);
    return code;
}
