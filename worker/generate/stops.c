/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/stops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int stops_init(struct stops *stops, const char *const *texts, size_t count, size_t piece_bytes)
{
    *stops = (struct stops){.texts = texts, .count = count};
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(texts[i]);

        if (bytes == 0 || (texts[i][0] & 0xC0) == 0x80)
            return -EINVAL;
        stops->longest = bytes > stops->longest ? bytes : stops->longest;
    }
    stops->held = malloc(stops->longest + piece_bytes + 1);
    return stops->held ? 0 : -ENOMEM;
}

void stops_finish(struct stops *stops)
{
    free(stops->held);
    stops->held = NULL;
}

/* Where the first stop begins, or NULL. */
static const char *find(const struct stops *stops)
{
    const char *first = NULL;

    for (size_t i = 0; i < stops->count; i++) {
        const char *at = memmem(stops->held, stops->held_bytes, stops->texts[i], strlen(stops->texts[i]));

        if (at && (!first || at < first))
            first = at;
    }
    return first;
}

static bool may_begin(const struct stops *stops, const char *end, size_t bytes)
{
    for (size_t i = 0; i < stops->count; i++)
        if (strncmp(stops->texts[i], end, bytes) == 0)
            return true;
    return false;
}

size_t stops_add(struct stops *stops, const char *text, size_t bytes, bool *ret_found)
{
    const char *first;
    size_t at;

    memcpy(stops->held + stops->held_bytes, text, bytes);
    stops->held_bytes += bytes;
    first = find(stops);
    *ret_found = first != NULL;
    if (first)
        return (size_t)(first - stops->held);
    at = stops->held_bytes < stops->longest ? 0 : stops->held_bytes - stops->longest;
    while (at < stops->held_bytes && !may_begin(stops, stops->held + at, stops->held_bytes - at))
        at++;
    return at;
}

void stops_drop(struct stops *stops, size_t bytes)
{
    stops->held_bytes -= bytes;
    memmove(stops->held, stops->held + bytes, stops->held_bytes);
}
