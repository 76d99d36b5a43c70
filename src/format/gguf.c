/* SPDX-License-Identifier: Apache-2.0 */

/* GGUF, versions 2 and 3, little-endian. One after the other, unpadded:
 *
 *   head      "GGUF" · u32 version · u64 tensor count · u64 metadata count
 *   metadata  u64 length and key · u32 value type · value                              (gguf_meta.c)
 *   tensors   u64 length and name · u32 dims · u64 ne[dims], innermost first · u32 GGML type · u64 offset
 *   padding   to a multiple of general.alignment, 32 when the metadata do not say
 *   data      each tensor at its offset from here, which is a multiple of the alignment too
 *
 * The two versions differ in nothing that is stored; 3 says that big-endian files exist. Version 1 counted in u32.
 * Data may lie in any order, with holes, and with anything behind it; the last tensor's padding may be missing.
 *
 * A split model is several such files, named …-00001-of-00003.gguf and so on. Each says in its metadata which part it
 * is (split.no, U16, from 0), of how many (split.count, U16), and how many tensors all have together
 * (split.tensors.count, I32); the first part's metadata are the model's. */

#include <errno.h>
#include <string.h>

#include "format/gguf.h"
#include "model/dtype.h"

#define HEAD_BYTES 24
#define META_BYTES_MIN 14   /* a key of one byte, a type, a value of one byte */
#define TENSOR_BYTES_MIN 24 /* an empty name, a scalar */
#define TENSORS_COUNT "split.tensors.count"

int tnd_gguf_u32(struct tnd_gguf *gguf, const char *what, uint32_t *ret_value, struct tnd_err *err)
{
    int r = tnd_gguf_need(gguf, 4, what, err);

    if (r < 0)
        return r;
    *ret_value = tnd_le32(gguf->header->data + gguf->at);
    gguf->at += 4;
    return 0;
}

int tnd_gguf_u64(struct tnd_gguf *gguf, const char *what, uint64_t *ret_value, struct tnd_err *err)
{
    int r = tnd_gguf_need(gguf, 8, what, err);

    if (r < 0)
        return r;
    *ret_value = tnd_le64(gguf->header->data + gguf->at);
    gguf->at += 8;
    return 0;
}

int tnd_gguf_count(struct tnd_gguf *gguf, const char *what, uint64_t bytes_min, uint64_t *ret_count,
                   struct tnd_err *err)
{
    uint64_t first = gguf->at, fit;
    int r = tnd_gguf_u64(gguf, what, ret_count, err);

    if (r < 0)
        return r;
    fit = (gguf->header->file_bytes - gguf->at) / bytes_min;
    if (*ret_count <= fit)
        return 0;
    return tnd_fail_at(err, -EBADMSG, gguf->header->path, first,
                       "%llu %s, expected at most the %llu that fit into the rest of the file",
                       (unsigned long long)*ret_count, what, (unsigned long long)fit);
}

int tnd_gguf_text(struct tnd_gguf *gguf, const char *what, uint64_t max, const char **ret_text, size_t *ret_bytes,
                  struct tnd_err *err)
{
    uint64_t first = gguf->at, bytes;
    int r = tnd_gguf_u64(gguf, what, &bytes, err);

    if (r < 0)
        return r;
    if (bytes > max)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, first, "%s of %llu bytes, expected at most %llu", what,
                           (unsigned long long)bytes, (unsigned long long)max);
    r = tnd_gguf_need(gguf, bytes, what, err);
    if (r < 0)
        return r;
    *ret_text = (const char *)gguf->header->data + gguf->at;
    *ret_bytes = bytes;
    if (!tnd_utf8_valid(*ret_text, bytes))
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->at, "%s of other bytes, expected UTF-8", what);
    gguf->at += bytes;
    return 0;
}

static int parse_version(struct tnd_gguf *gguf, struct tnd_err *err)
{
    const char *path = gguf->header->path;
    uint32_t version;
    int r = tnd_gguf_u32(gguf, "the version", &version, err);

    if (r < 0)
        return r;
    if (version == 2 || version == 3)
        return 0;
    if (version && !(version & 0xFFFF))
        return tnd_fail_at(err, -ENOTSUP, path, 4, "version %u of a big-endian file, expected a little-endian one",
                           __builtin_bswap32(version));
    if (version == 1)
        return tnd_fail_at(err, -ENOTSUP, path, 4, "version 1, expected 2 or 3");
    if (version && version <= 0xFFFF)
        return tnd_fail_at(err, -ENOTSUP, path, 4, "version %u, newer than the 2 and 3 expected", version);
    return tnd_fail_at(err, -EBADMSG, path, 4, "version %u, expected 2 or 3", version);
}

static int parse_head(struct tnd_gguf *gguf, uint64_t *ret_tensors, uint64_t *ret_metas, struct tnd_err *err)
{
    int r = tnd_gguf_need(gguf, 4, "the magic number", err);

    if (r < 0)
        return r;
    if (memcmp(gguf->header->data, "GGUF", 4) != 0)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, 0, "magic number 0x%08x, expected 0x%08x, \"GGUF\"",
                           __builtin_bswap32(tnd_le32(gguf->header->data)), 0x47475546u);
    gguf->at = 4;
    r = parse_version(gguf, err);
    if (r == 0)
        r = tnd_gguf_count(gguf, "tensors", TENSOR_BYTES_MIN, ret_tensors, err);
    if (r == 0)
        r = tnd_gguf_count(gguf, "metadata entries", META_BYTES_MIN, ret_metas, err);
    return r;
}

static int parse_shape(struct tnd_gguf *gguf, struct tnd_tensor *tensor, struct tnd_err *err)
{
    uint64_t first = gguf->at;
    uint64_t *shape;
    int r = tnd_gguf_u32(gguf, "a tensor's number of dimensions", &tensor->dims, err);

    if (r < 0)
        return r;
    if (tensor->dims > TND_GGUF_DIMS_MAX)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, first, "%u dimensions, expected at most %u", tensor->dims,
                           TND_GGUF_DIMS_MAX);
    shape = tnd_arena_alloc(&gguf->model->arena, tensor->dims, sizeof(*shape));
    if (!shape)
        return tnd_fail_at(err, -ENOMEM, gguf->header->path, first, "not enough memory for a shape");
    tensor->shape = shape;
    for (uint32_t i = tensor->dims; i-- > 0;) { /* ours is outermost first */
        r = tnd_gguf_u64(gguf, "a tensor's dimension", &shape[i], err);
        if (r < 0)
            return r;
        if (shape[i] > INT64_MAX)
            return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->at - 8,
                               "a dimension of %llu, expected less than 2^63", (unsigned long long)shape[i]);
    }
    return 0;
}

static int parse_type(struct tnd_gguf *gguf, struct tnd_tensor *tensor, struct tnd_err *err)
{
    uint64_t first = gguf->at;
    uint32_t type;
    int r = tnd_gguf_u32(gguf, "a tensor's type", &type, err);

    if (r < 0)
        return r;
    tensor->dtype = tnd_dtype_from_ggml(type);
    if (tensor->dtype)
        return 0;
    if (tnd_ggml_type_removed(type))
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, first,
                           "tensor type %u, which GGML has removed, expected one that it has", type);
    return tnd_fail_at(err, -ENOTSUP, gguf->header->path, first, "tensor type %u is newer than this library knows",
                       type);
}

static int parse_offset(struct tnd_gguf *gguf, struct tnd_tensor *tensor, struct tnd_err *err)
{
    uint64_t first = gguf->at;
    int r = tnd_gguf_u64(gguf, "a tensor's offset", &tensor->offset, err);

    if (r < 0 || tensor->offset % gguf->alignment == 0)
        return r;
    return tnd_fail_at(err, -EBADMSG, gguf->header->path, first, "an offset of %llu, expected a multiple of %u",
                       (unsigned long long)tensor->offset, gguf->alignment);
}

/* Leaves the offset as the file has it: where the data begin is known only behind the last tensor's entry. */
static int parse_tensor(struct tnd_gguf *gguf, struct tnd_err *err)
{
    struct tnd_tensor tensor = {.file = gguf->file_index};
    const char *path = gguf->header->path, *name;
    uint64_t first = gguf->at;
    int r = tnd_gguf_text(gguf, "a tensor's name", TND_GGUF_NAME_BYTES_MAX, &name, &tensor.name_bytes, err);

    if (r == 0)
        r = parse_shape(gguf, &tensor, err);
    if (r == 0)
        r = parse_type(gguf, &tensor, err);
    if (r == 0)
        r = parse_offset(gguf, &tensor, err);
    if (r < 0)
        return r;
    tensor.name = tnd_arena_string(&gguf->model->arena, name, tensor.name_bytes);
    if (!tensor.name)
        return tnd_fail_at(err, -ENOMEM, path, first, "not enough memory for a tensor's name");
    r = tnd_tensor_measure(&tensor, true, err);
    if (r == 0)
        r = tnd_model_add_tensor(gguf->model, &tensor, err);
    return r < 0 ? tnd_fail_in(err, r, path, first, "tensor", tensor.name, tensor.name_bytes) : 0;
}

/* Counts the offsets from the start of the file. */
static int place_tensors(struct tnd_gguf *gguf, uint32_t tensor_first, struct tnd_err *err)
{
    uint64_t data_offset = (gguf->at + gguf->alignment - 1) / gguf->alignment * gguf->alignment;
    uint64_t file_bytes = gguf->header->file_bytes;
    int r;

    for (uint32_t i = tensor_first; i < gguf->model->tensor_count; i++) {
        struct tnd_tensor *tensor = &gguf->model->tensors[i];

        /* An empty tensor may stand where padding is missing, not just anywhere. */
        if (tnd_add_overflows(tensor->offset, data_offset, &tensor->offset) ||
            (!tensor->bytes && tensor->offset > tnd_max(data_offset, file_bytes)))
            return tnd_fail_at(err, -EBADMSG, gguf->header->path, data_offset,
                               "tensor '%.*s' lies outside of the data that start here, the file ends at byte %llu",
                               tnd_shown(tensor->name, tensor->name_bytes), tensor->name,
                               (unsigned long long)file_bytes);
    }
    r = tnd_model_check_ranges(gguf->model, gguf->file_index, err);
    return r < 0 ? tnd_fail_file(err, r, gguf->header->path) : 0;
}

/* A split.* key's value; -1 when it is not there, which only a file that is no part may do. */
static int split_value(const struct tnd_gguf *gguf, const char *key, enum tnd_value_type type, int64_t *ret_value,
                       struct tnd_err *err)
{
    const struct tnd_meta *meta = tnd_model_meta_find(gguf->metas, key);

    *ret_value = -1;
    if (!meta && gguf->header->part_count <= 1)
        return 0;
    if (!meta)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->at,
                           "no %s up to here, expected it in part %u of %u", key, gguf->header->part,
                           gguf->header->part_count);
    if (meta->value.type != type)
        return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->split_at, "%s of value type %d, expected %d", key,
                           (int)meta->value.type, (int)type);
    *ret_value = type == TND_VALUE_U16 ? (int64_t)meta->value.as.u : meta->value.as.i;
    return 0;
}

/* Whether the part is the one that its name says. */
static int check_part(const struct tnd_gguf *gguf, struct tnd_err *err)
{
    const struct tnd_header *header = gguf->header;
    int64_t part, count;
    int r = split_value(gguf, "split.no", TND_VALUE_U16, &part, err);

    if (r == 0)
        r = split_value(gguf, "split.count", TND_VALUE_U16, &count, err);
    if (r < 0 || (count <= 1 && header->part_count <= 1))
        return r;
    if (!header->part_count)
        return tnd_fail_at(err, -EBADMSG, header->path, gguf->split_at,
                           "part %lld of %lld, expected a name that ends in -%05lld-of-%05lld.gguf",
                           (long long)part + 1, (long long)count, (long long)part + 1, (long long)count);
    if (part + 1 == header->part && count == header->part_count)
        return 0;
    return tnd_fail_at(err, -EBADMSG, header->path, gguf->split_at, "part %lld of %lld, expected %u of %u by its name",
                       (long long)part + 1, (long long)count, header->part, header->part_count);
}

/* Whether all parts say the same of all tensors; the first part's metadata are the model's. */
static int check_total(const struct tnd_gguf *gguf, int64_t *ret_tensors, struct tnd_err *err)
{
    const struct tnd_meta *first = tnd_model_meta_find(gguf->model, TENSORS_COUNT);
    int r = split_value(gguf, TENSORS_COUNT, TND_VALUE_I32, ret_tensors, err);

    if (r < 0 || gguf->header->part_count <= 1 || *ret_tensors == first->value.as.i)
        return r;
    return tnd_fail_at(err, -EBADMSG, gguf->header->path, gguf->split_at,
                       TENSORS_COUNT " of %lld, expected %lld as in part 1", (long long)*ret_tensors,
                       (long long)first->value.as.i);
}

static int parse_file(struct tnd_gguf *gguf, struct tnd_err *err)
{
    struct tnd_header *header = gguf->header;
    struct tnd_model *model = gguf->model;
    uint32_t tensor_first = model->tensor_count;
    uint64_t tensor_count, meta_count;
    int64_t split_tensors = -1;
    int r = parse_head(gguf, &tensor_count, &meta_count, err);

    if (r == 0)
        r = tnd_gguf_metas(gguf, meta_count, err);
    if (r == 0)
        r = check_part(gguf, err);
    if (r == 0)
        r = check_total(gguf, &split_tensors, err);
    if (r < 0)
        return r;
    r = tnd_model_reserve(model, tensor_count, 0, err);
    if (r < 0)
        return tnd_fail_in(err, r, header->path, 8, NULL, NULL, 0);
    for (uint64_t i = 0; r == 0 && i < tensor_count; i++)
        r = parse_tensor(gguf, err);
    if (r == 0)
        r = place_tensors(gguf, tensor_first, err);
    if (r == 0 && header->part_count > 1 && header->part == header->part_count && split_tensors != model->tensor_count)
        return tnd_fail_at(err, -EBADMSG, header->path, gguf->split_at,
                           TENSORS_COUNT " of %lld, expected the %u tensors of all parts",
                           (long long)split_tensors, model->tensor_count);
    if (r == 0)
        model->format = tnd_le32(header->data + 4) == 2 ? "GGUF v2" : "GGUF v3";
    return r;
}

static int parse(struct tnd_header *header, struct tnd_model *model, uint32_t file_index, struct tnd_err *err)
{
    struct tnd_model apart = {.arena.allocator = model->arena.allocator};
    struct tnd_gguf gguf = {
        .header = header,
        .model = model,
        .metas = header->part > 1 ? &apart : model,
        .file_index = file_index,
        .alignment = TND_GGUF_ALIGNMENT_DEFAULT,
    };
    int r = parse_file(&gguf, err);

    tnd_arena_finish(&apart.arena);
    return r;
}

/* By the magic number; a file of that name without it is for the parser to refuse. */
static bool probe(const struct tnd_header *header)
{
    return (header->have >= 4 && !memcmp(header->data, "GGUF", 4)) || tnd_name_ends(header->path, ".gguf");
}

const struct tnd_format tnd_format_gguf = {.name = "GGUF", .probe = probe, .parse = parse};
