/* SPDX-License-Identifier: Apache-2.0 */
#include "model/model.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "model/dtype.h"
#include "model/layers.h"

#define ROOM_FIRST 16 /* entries, when a format adds without having asked for room */

__extension__ typedef unsigned __int128 uint128;

enum kind { TENSORS, METAS };

struct name {
    const char *text;
    size_t bytes;
};

static struct name name_of(const struct tnd_model *model, enum kind kind, uint32_t position)
{
    if (kind == TENSORS)
        return (struct name){model->tensors[position].name, model->tensors[position].name_bytes};
    return (struct name){model->metas[position].key, model->metas[position].key_bytes};
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    uint128 product = (uint128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Multiply and fold, eight bytes a step. The model's address seeds it: a file cannot know where its model will lie,
 * so it cannot bring a million names that share a slot. */
static uint64_t hash_of(const struct tnd_model *model, struct name name)
{
    const uint64_t mix_a = 0xA0761D6478BD642F, mix_b = 0xE7037ED1A0B428DB;
    uint64_t seed = fold((uintptr_t)model ^ mix_a, mix_b);
    uint64_t hash = seed ^ name.bytes;
    size_t at = 0;

    for (; name.bytes - at >= 8; at += 8)
        hash = fold(hash ^ tnd_le64(name.text + at) ^ mix_a, seed | 1);
    if (at < name.bytes) {
        uint64_t tail = 0;

        memcpy(&tail, name.text + at, name.bytes - at);
        hash = fold(hash ^ tail ^ mix_b, seed | 1);
    }
    return fold(hash ^ mix_a, mix_b ^ seed);
}

/* The slot that holds the name, or the free one where it belongs; NULL before there is an index. */
static uint32_t *slot_of(const struct tnd_model *model, enum kind kind, struct name name)
{
    const struct tnd_name_index *index = kind == TENSORS ? &model->tensor_names : &model->meta_names;
    uint32_t at;

    if (!index->slots)
        return NULL;
    at = (uint32_t)hash_of(model, name) & index->mask;
    for (;; at = (at + 1) & index->mask) {
        uint32_t *slot = &index->slots[at];
        struct name there;

        if (!*slot)
            return slot;
        there = name_of(model, kind, *slot - 1);
        if (there.bytes == name.bytes && !memcmp(there.text, name.text, name.bytes))
            return slot;
    }
}

static int reindex(struct tnd_model *model, enum kind kind, uint32_t count, uint32_t room)
{
    struct tnd_name_index *index = kind == TENSORS ? &model->tensor_names : &model->meta_names;
    uint32_t slots = 2;

    while (slots < 2 * room)
        slots *= 2;
    if (index->slots && index->mask + 1 >= slots)
        return 0;
    index->slots = tnd_arena_alloc(&model->arena, slots, sizeof(*index->slots));
    if (!index->slots)
        return -ENOMEM;
    index->mask = slots - 1;
    for (uint32_t i = 0; i < count; i++)
        *slot_of(model, kind, name_of(model, kind, i)) = i + 1;
    return 0;
}

/* What an array of room entries grows to for more of them: by half at least, so that many small steps stay cheap. */
static uint64_t grown(uint32_t count, uint32_t room, uint64_t more, uint32_t max)
{
    uint64_t need = count + more;

    return need <= room ? room : tnd_max(need, tnd_min(room + room / 2, max));
}

static int reserve_tensors(struct tnd_model *model, uint64_t more)
{
    uint64_t room = grown(model->tensor_count, model->tensor_room, more, TND_TENSORS_MAX);
    struct tnd_tensor *tensors;

    if (room == model->tensor_room)
        return 0;
    tensors = tnd_arena_alloc(&model->arena, room, sizeof(*tensors));
    if (!tensors)
        return -ENOMEM;
    if (model->tensor_count)
        memcpy(tensors, model->tensors, model->tensor_count * sizeof(*tensors));
    model->tensors = tensors;
    model->tensor_room = (uint32_t)room;
    return reindex(model, TENSORS, model->tensor_count, model->tensor_room);
}

static int reserve_metas(struct tnd_model *model, uint64_t more)
{
    uint64_t room = grown(model->meta_count, model->meta_room, more, TND_METAS_MAX);
    struct tnd_meta *metas;

    if (room == model->meta_room)
        return 0;
    metas = tnd_arena_alloc(&model->arena, room, sizeof(*metas));
    if (!metas)
        return -ENOMEM;
    if (model->meta_count)
        memcpy(metas, model->metas, model->meta_count * sizeof(*metas));
    model->metas = metas;
    model->meta_room = (uint32_t)room;
    return reindex(model, METAS, model->meta_count, model->meta_room);
}

int tnd_model_reserve(struct tnd_model *model, uint64_t tensor_count, uint64_t meta_count, struct tnd_err *err)
{
    int r;

    if (tensor_count > TND_TENSORS_MAX - model->tensor_count)
        return tnd_fail(err, -EFBIG, "%llu tensors, expected at most %u",
                        (unsigned long long)tensor_count + model->tensor_count, TND_TENSORS_MAX);
    if (meta_count > TND_METAS_MAX - model->meta_count)
        return tnd_fail(err, -EFBIG, "%llu metadata entries, expected at most %u",
                        (unsigned long long)meta_count + model->meta_count, TND_METAS_MAX);
    r = reserve_tensors(model, tensor_count);
    if (r == 0)
        r = reserve_metas(model, meta_count);
    return r < 0 ? tnd_fail(err, r, "not enough memory for the catalogue") : 0;
}

int tnd_model_add_tensor(struct tnd_model *model, const struct tnd_tensor *tensor, struct tnd_err *err)
{
    struct name name = {tensor->name, tensor->name_bytes};
    struct tnd_tensor *added;
    uint32_t *slot;
    uint64_t bytes;

    if (model->tensor_count == model->tensor_room) {
        int r = tnd_model_reserve(model, model->tensor_room ? 1 : ROOM_FIRST,
                                  0, err);
        if (r < 0)
            return r;
    }
    slot = slot_of(model, TENSORS, name);
    if (*slot)
        return tnd_fail(err, -EBADMSG, "the name is there twice, expected once");
    if (tnd_add_overflows(model->bytes, tensor->bytes, &bytes))
        return tnd_fail(err, -EBADMSG, "the tensors take 2^64 bytes or more in all");
    added = &model->tensors[model->tensor_count++];
    *added = *tensor;
    added->layer = tnd_layer_of_name(added->name, &added->role);
    *slot = model->tensor_count;
    model->bytes = bytes;
    if (added->layer >= 0 && (uint32_t)added->layer >= model->layer_count)
        model->layer_count = (uint32_t)added->layer + 1;
    return 0;
}

int tnd_model_add_meta(struct tnd_model *model, const struct tnd_meta *meta, struct tnd_err *err)
{
    uint32_t *slot;

    if (model->meta_count == model->meta_room) {
        int r = tnd_model_reserve(model, 0, model->meta_room ? 1 : ROOM_FIRST, err);
        if (r < 0)
            return r;
    }
    slot = slot_of(model, METAS, (struct name){meta->key, meta->key_bytes});
    if (*slot)
        return tnd_fail(err, -EBADMSG, "the key is there twice, expected once");
    model->metas[model->meta_count++] = *meta;
    *slot = model->meta_count;
    return 0;
}

int tnd_tensor_measure(struct tnd_tensor *tensor, bool rows_whole, struct tnd_err *err)
{
    const struct tnd_dtype_info *info = tnd_dtype_info(tensor->dtype);
    uint64_t elements = 1, row;

    for (uint32_t i = 0; i < tensor->dims; i++)
        if (!tensor->shape[i])
            elements = 0; /* whatever the others are */
    for (uint32_t i = 0; i < tensor->dims; i++)
        if (tnd_mul_overflows(elements, tensor->shape[i], &elements))
            return tnd_fail(err, -EBADMSG, "the shape has 2^64 elements or more");
    row = rows_whole ? (tensor->dims ? tensor->shape[tensor->dims - 1] : 1) : elements;
    if (row % info->block_elements)
        return tnd_fail(err, -EBADMSG, "%s of %llu elements, expected a multiple of %u for %s",
                        rows_whole ? "rows" : "a shape", (unsigned long long)row, info->block_elements, info->name);
    tensor->elements = elements;
    if (tnd_mul_overflows(elements / info->block_elements, info->block_bytes, &tensor->bytes))
        return tnd_fail(err, -EBADMSG, "%llu elements of %s take 2^64 bytes or more", (unsigned long long)elements,
                        info->name);
    return 0;
}

const char *tnd_model_format(const struct tnd_model *model)
{
    return model->format;
}

uint64_t tnd_model_bytes(const struct tnd_model *model)
{
    return model->bytes;
}

uint32_t tnd_model_file_count(const struct tnd_model *model)
{
    return model->file_count;
}

const struct tnd_file *tnd_model_file(const struct tnd_model *model, uint32_t file_index)
{
    return file_index < model->file_count ? &model->files[file_index].file : NULL;
}

uint32_t tnd_model_tensor_count(const struct tnd_model *model)
{
    return model->tensor_count;
}

const struct tnd_tensor *tnd_model_tensor(const struct tnd_model *model, uint32_t tensor_index)
{
    return tensor_index < model->tensor_count ? &model->tensors[tensor_index] : NULL;
}

int64_t tnd_model_find_name(const struct tnd_model *model, const char *name, size_t name_bytes)
{
    const uint32_t *slot = slot_of(model, TENSORS, (struct name){name, name_bytes});

    return slot && *slot ? (int64_t)*slot - 1 : -ENOENT;
}

int64_t tnd_model_tensor_find(const struct tnd_model *model, const char *name)
{
    return tnd_model_find_name(model, name, strlen(name));
}

uint32_t tnd_model_meta_count(const struct tnd_model *model)
{
    return model->meta_count;
}

const struct tnd_meta *tnd_model_meta(const struct tnd_model *model, uint32_t meta_index)
{
    return meta_index < model->meta_count ? &model->metas[meta_index] : NULL;
}

const struct tnd_meta *tnd_model_meta_find(const struct tnd_model *model, const char *key)
{
    const uint32_t *slot = slot_of(model, METAS, (struct name){key, strlen(key)});

    return slot && *slot ? &model->metas[*slot - 1] : NULL;
}

uint32_t tnd_model_layer_count(const struct tnd_model *model)
{
    return model->layer_count;
}
