/* SPDX-License-Identifier: Apache-2.0 */
#include "format/set.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "format/json.h"

#define SPLIT_ENDING "-00001-of-00001.gguf"
#define SPLIT_ENDING_BYTES (sizeof(SPLIT_ENDING) - 1)
#define ENTRIES_FIRST 1024

/* ---- Split GGUF -------------------------------------------------------------------------------------------- */

static bool digits(const char *text, uint32_t *ret_number)
{
    uint32_t number = 0;

    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = number * 10 + (uint32_t)(text[i] - '0');
    }
    *ret_number = number;
    return true;
}

bool tnd_split_name(const char *path, uint32_t *ret_part, uint32_t *ret_part_count)
{
    size_t bytes = strlen(path);
    const char *ending = path + bytes - SPLIT_ENDING_BYTES;

    return bytes > SPLIT_ENDING_BYTES && ending[0] == '-' && digits(ending + 1, ret_part) &&
           !memcmp(ending + 6, "-of-", 4) && digits(ending + 10, ret_part_count) && !strcmp(ending + 15, ".gguf") &&
           *ret_part >= 1 && *ret_part <= *ret_part_count;
}

void tnd_split_rename(char *path, uint32_t part)
{
    char number[16];

    snprintf(number, sizeof(number), "%05u", part);
    memcpy(path + strlen(path) - SPLIT_ENDING_BYTES + 1, number, 5);
}

const char *tnd_split_path(struct tnd_arena *arena, const char *path, uint32_t part)
{
    char *other = tnd_arena_string(arena, path, strlen(path));

    if (other)
        tnd_split_rename(other, part);
    return other;
}

/* ---- Index of safetensors ---------------------------------------------------------------------------------- */

struct parser {
    struct tnd_index *index;
    struct tnd_json json;
    struct tnd_arena *arena;
    uint32_t file_last;
    size_t file_bytes[TND_FILES_MAX]; /* of their names */
};

/* One path component: what it names cannot lie outside of the index's folder. */
static bool is_component(const struct tnd_json_token *name)
{
    return name->bytes && !memchr(name->text, '/', name->bytes) && !memchr(name->text, 0, name->bytes) &&
           !tnd_json_is(name, ".") && !tnd_json_is(name, "..");
}

static int file_of(struct parser *parser, const struct tnd_json_token *name, uint32_t *ret_file, struct tnd_err *err)
{
    struct tnd_index *index = parser->index;

    if (!is_component(name))
        return tnd_json_fail(&parser->json, name, "the name of a file in the index's own folder", err);
    for (uint32_t i = 0; i < index->file_count; i++) {
        uint32_t file = (parser->file_last + i) % index->file_count; /* neighbours are mostly in the same file */

        if (parser->file_bytes[file] == name->bytes && !memcmp(index->files[file], name->text, name->bytes)) {
            *ret_file = parser->file_last = file;
            return 0;
        }
    }
    if (index->file_count == TND_FILES_MAX)
        return tnd_fail_at(err, -EFBIG, index->path, name->at, "one more file, expected at most %u", TND_FILES_MAX);
    index->files[index->file_count] = tnd_json_string(&parser->json, name);
    if (!index->files[index->file_count])
        return tnd_fail_at(err, -ENOMEM, index->path, name->at, "not enough memory for the name of a file");
    parser->file_bytes[index->file_count] = name->bytes;
    *ret_file = parser->file_last = index->file_count++;
    return 0;
}

static int make_room(struct parser *parser)
{
    struct tnd_index *index = parser->index;
    uint32_t room = index->entry_room ? index->entry_room * 2 : ENTRIES_FIRST;
    struct tnd_index_entry *entries;

    if (index->entry_count < index->entry_room)
        return 0;
    entries = tnd_arena_alloc(parser->arena, room, sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    if (index->entry_count)
        memcpy(entries, index->entries, index->entry_count * sizeof(*entries));
    index->entries = entries;
    index->entry_room = room;
    return 0;
}

static int parse_entry(struct parser *parser, const struct tnd_json_token *key, struct tnd_err *err)
{
    struct tnd_index *index = parser->index;
    struct tnd_index_entry entry = {.tensor_bytes = key->bytes, .at = key->at};
    struct tnd_json_token value;
    int r = tnd_json_expect(&parser->json, TND_JSON_STRING, &value, err);

    if (r == 0)
        r = file_of(parser, &value, &entry.file, err);
    if (r < 0)
        return r;
    if (index->entry_count == TND_TENSORS_MAX)
        return tnd_fail_at(err, -EFBIG, index->path, key->at, "one more tensor, expected at most %u", TND_TENSORS_MAX);
    entry.tensor = tnd_json_string(&parser->json, key);
    if (!entry.tensor || make_room(parser) < 0)
        return tnd_fail_at(err, -ENOMEM, index->path, key->at, "not enough memory for an entry");
    index->entries[index->entry_count++] = entry;
    return 0;
}

/* The object behind "weight_map". That no tensor comes twice shows when they are looked up. */
static int parse_weight_map(struct parser *parser, struct tnd_err *err)
{
    struct tnd_json_token token;
    int r = tnd_json_expect(&parser->json, TND_JSON_OBJECT, &token, err);

    while (r == 0) {
        r = tnd_json_next(&parser->json, &token, err);
        if (r < 0 || token.type == TND_JSON_OBJECT_END)
            break;
        r = parse_entry(parser, &token, err);
    }
    return r;
}

int tnd_index_parse(struct tnd_index *index, struct tnd_header *header, struct tnd_arena *arena, struct tnd_err *err)
{
    struct parser parser = {.index = index, .arena = arena};
    struct tnd_json_token token;
    struct tnd_json_keys keys;
    int r = tnd_header_need(header, 0, header->file_bytes, "the index", err);

    keys.count = 0;
    *index = (struct tnd_index){.path = header->path};
    index->files = tnd_arena_alloc(arena, TND_FILES_MAX, sizeof(*index->files));
    if (r == 0 && !index->files)
        r = tnd_fail(err, -ENOMEM, "%s: not enough memory for its files", header->path);
    if (r < 0)
        return r;
    tnd_json_init(&parser.json, header->data, header->file_bytes, 0, header->path, arena);
    r = tnd_json_expect(&parser.json, TND_JSON_OBJECT, &token, err);
    while (r == 0) {
        r = tnd_json_next(&parser.json, &token, err);
        if (r < 0 || token.type == TND_JSON_OBJECT_END)
            break;
        r = tnd_json_add_key(&parser.json, &keys, &token, err);
        if (r == 0 && tnd_json_is(&token, "weight_map")) {
            r = parse_weight_map(&parser, err);
            continue;
        }
        if (r == 0)
            r = tnd_json_next(&parser.json, &token, err);
        if (r == 0)
            r = tnd_json_skip(&parser.json, &token, err);
    }
    if (r == 0)
        r = tnd_json_expect(&parser.json, TND_JSON_END, &token, err);
    if (r == 0 && !index->entry_count)
        return tnd_fail_at(err, -EBADMSG, index->path, token.at,
                           "the index ends here, expected a weight_map with tensors before");
    return r;
}

int tnd_index_check(const struct tnd_index *index, const struct tnd_model *model, struct tnd_err *err)
{
    bool *seen = tnd_zalloc(&model->arena.allocator, model->tensor_count, sizeof(*seen));
    int r = 0;

    if (!seen)
        return tnd_fail(err, -ENOMEM, "%s: not enough memory to check it", index->path);
    for (uint32_t i = 0; i < index->entry_count && r == 0; i++) {
        const struct tnd_index_entry *entry = &index->entries[i];
        int64_t tensor = tnd_model_find_name(model, entry->tensor, entry->tensor_bytes);

        if (tensor < 0 || model->tensors[tensor].file != entry->file)
            r = tnd_fail_at(err, -EBADMSG, index->path, entry->at, "tensor '%.*s' is expected in %s, found %s%s",
                            tnd_shown(entry->tensor, entry->tensor_bytes), entry->tensor, index->files[entry->file],
                            tensor < 0 ? "nowhere" : "in ",
                            tensor < 0 ? "" : index->files[model->tensors[tensor].file]);
        else if (seen[tensor])
            r = tnd_fail_at(err, -EBADMSG, index->path, entry->at, "tensor '%.*s' is there twice, expected once",
                            tnd_shown(entry->tensor, entry->tensor_bytes), entry->tensor);
        else
            seen[tensor] = true;
    }
    tnd_free(&model->arena.allocator, seen);
    return r;
}
