/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: no index of shards makes its reader look beyond it or name a file outside of its folder. */

#include "format/set.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tnd_arena arena = {.allocator = tnd_allocator_or_default(NULL)};
    struct fuzz_file file = {.data = data, .seen = malloc(size + 1)};
    struct tnd_index index;
    struct tnd_err err = {0};
    int r;

    file.header = (struct tnd_header){.data = file.seen, .file_bytes = size, .path = PATH, .fetch = fuzz_fetch};
    r = size ? tnd_index_parse(&index, &file.header, &arena, &err) : -EBADMSG; /* an empty file is refused before */
    if (r < 0 && size)
        check_refusal(r, &err);
    for (uint32_t i = 0; r == 0 && i < index.file_count; i++)
        must(*index.files[i] && !strchr(index.files[i], '/') && strcmp(index.files[i], ".."));
    for (uint32_t i = 0; r == 0 && i < index.entry_count; i++)
        must(index.entries[i].file < index.file_count);
    tnd_arena_finish(&arena);
    free(file.seen);
    return 0;
}
