/* SPDX-License-Identifier: Apache-2.0 */
#include "text/nfc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "text/nfc_table.h"
#include "utf8.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* Hangul: a syllable is a lead, a vowel and perhaps a tail, each counted from its first. */
enum {
    SYLLABLE = 0xAC00, LEAD = 0x1100, VOWEL = 0x1161, TAIL = 0x11A7,
    LEADS = 19, VOWELS = 21, TAILS = 28, SYLLABLES = LEADS * VOWELS * TAILS,
};

struct character {
    uint32_t code;
    uint32_t position; /* characters of one class keep their order */
    uint8_t combining_class;
};

/* Characters of a stretch. */
struct stretch {
    struct character *at;
    size_t count, capacity;
};

struct buffer {
    char *at;
    size_t bytes, capacity;
};

static const struct nfc_range *unsettled(uint32_t code)
{
    size_t low = 0, high = COUNT(nfc_unsettled);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (nfc_unsettled[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(nfc_unsettled) && nfc_unsettled[low].first <= code ? &nfc_unsettled[low] : NULL;
}

/* Where the first unsettled character is, from `at` on; bytes when there is none. *ret_before: the one before it. */
static size_t find_unsettled(const char *text, size_t bytes, size_t at, size_t *ret_before)
{
    *ret_before = at;
    while (at < bytes) {
        size_t length = utf8_length((uint8_t)text[at]);

        if ((uint8_t)text[at] >= 0xCC && unsettled(utf8_character(text + at, length)))
            return at;
        *ret_before = at;
        at += length;
    }
    return bytes;
}

static const struct nfc_pair *decomposition(uint32_t code)
{
    size_t low = 0, high = COUNT(nfc_pairs);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (nfc_pairs[middle].character < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(nfc_pairs) && nfc_pairs[low].character == code ? &nfc_pairs[low] : NULL;
}

/* 0: the two do not compose. */
static uint32_t composition(uint32_t first, uint32_t second)
{
    size_t low = 0, high = COUNT(nfc_composed);

    if (first - LEAD < LEADS && second - VOWEL < VOWELS)
        return SYLLABLE + ((first - LEAD) * VOWELS + (second - VOWEL)) * TAILS;
    if (first - SYLLABLE < SYLLABLES && (first - SYLLABLE) % TAILS == 0 && second - TAIL - 1 < TAILS - 1)
        return first + (second - TAIL);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct nfc_pair *pair = &nfc_pairs[nfc_composed[middle]];

        if (pair->first < first || (pair->first == first && pair->second < second))
            low = middle + 1;
        else if (pair->first == first && pair->second == second)
            return pair->character;
        else
            high = middle;
    }
    return 0;
}

static int put_character(struct stretch *stretch, uint32_t code)
{
    const struct nfc_range *range = unsettled(code);

    if (stretch->count == stretch->capacity) {
        size_t capacity = stretch->capacity ? stretch->capacity * 2 : 32;
        struct character *grown = realloc(stretch->at, sizeof(*grown) * capacity);

        if (!grown)
            return -ENOMEM;
        stretch->at = grown;
        stretch->capacity = capacity;
    }
    stretch->at[stretch->count] = (struct character){.code = code, .position = (uint32_t)stretch->count,
                                                     .combining_class = range ? range->combining_class : 0};
    stretch->count++;
    return 0;
}

static int put_decomposed(struct stretch *stretch, uint32_t code)
{
    const struct nfc_pair *pair = decomposition(code);
    uint32_t syllable = code - SYLLABLE;
    int r;

    if (syllable < SYLLABLES) {
        r = put_character(stretch, LEAD + syllable / (VOWELS * TAILS));
        if (r == 0)
            r = put_character(stretch, VOWEL + syllable / TAILS % VOWELS);
        return r < 0 || syllable % TAILS == 0 ? r : put_character(stretch, TAIL + syllable % TAILS);
    }
    if (!pair)
        return put_character(stretch, code);
    r = put_decomposed(stretch, pair->first); /* the second one has nothing inside */
    return r < 0 || !pair->second ? r : put_character(stretch, pair->second);
}

static int compare_characters(const void *left, const void *right)
{
    const struct character *a = left, *b = right;
    int order = (a->combining_class > b->combining_class) - (a->combining_class < b->combining_class);

    return order ? order : (a->position > b->position) - (a->position < b->position);
}

/* Between two of class 0 the others stand by their class. */
static void reorder(struct stretch *stretch)
{
    for (size_t begin = 0, end; begin < stretch->count; begin = end) {
        for (end = begin + 1; end < stretch->count && stretch->at[end].combining_class; end++)
            ;
        if (!stretch->at[begin].combining_class)
            begin++;
        qsort(stretch->at + begin, end - begin, sizeof(*stretch->at), compare_characters);
    }
}

/* A character joins the last one of class 0, unless one between them has its class or a higher one. */
static void compose(struct stretch *stretch)
{
    struct character *at = stretch->at;
    size_t kept = 0, starter = SIZE_MAX;

    for (size_t i = 0; i < stretch->count; i++) {
        bool beside = starter != SIZE_MAX &&
                      (kept - 1 == starter || at[kept - 1].combining_class < at[i].combining_class);
        uint32_t composed = beside ? composition(at[starter].code, at[i].code) : 0;

        if (composed) {
            at[starter].code = composed;
            continue;
        }
        if (!at[i].combining_class)
            starter = kept;
        at[kept++] = at[i];
    }
    stretch->count = kept;
}

static int put_bytes(struct buffer *buffer, const char *bytes, size_t count)
{
    if (buffer->capacity - buffer->bytes <= count) {
        size_t capacity = (buffer->bytes + count + 1) * 2;
        char *grown = realloc(buffer->at, capacity);

        if (!grown)
            return -ENOMEM;
        buffer->at = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->at + buffer->bytes, bytes, count);
    buffer->bytes += count;
    return 0;
}

static int normalize_stretch(struct stretch *stretch, const char *text, size_t bytes, struct buffer *buffer)
{
    int r = 0;

    stretch->count = 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        size_t length = utf8_length((uint8_t)text[at]);

        r = put_decomposed(stretch, utf8_character(text + at, length));
        at += length;
    }
    if (r < 0)
        return r;
    reorder(stretch);
    compose(stretch);
    for (size_t i = 0; i < stretch->count && r == 0; i++) {
        char sequence[4];

        r = put_bytes(buffer, sequence, utf8_put(sequence, stretch->at[i].code));
    }
    return r;
}

/* Behind an unsettled character, where the next settled one begins. */
static size_t stretch_end(const char *text, size_t bytes, size_t at)
{
    while (at < bytes) {
        size_t length = utf8_length((uint8_t)text[at]);

        if (!unsettled(utf8_character(text + at, length)))
            return at;
        at += length;
    }
    return bytes;
}

int64_t nfc_normalize(const char *text, size_t bytes, char **ret_text, struct failure *failure)
{
    struct stretch stretch = {0};
    struct buffer buffer = {0};
    size_t at = 0, before;
    size_t found = find_unsettled(text, bytes, 0, &before);
    int r = 0;

    *ret_text = NULL;
    if (found == bytes)
        return (int64_t)bytes;
    while (at < bytes && r == 0) {
        r = put_bytes(&buffer, text + at, (found == bytes ? bytes : before) - at);
        at = bytes;
        if (r == 0 && found < bytes) {
            at = stretch_end(text, bytes, found);
            r = normalize_stretch(&stretch, text + before, at - before, &buffer);
            found = find_unsettled(text, bytes, at, &before);
        }
    }
    free(stretch.at);
    if (r < 0) {
        free(buffer.at);
        return fail(failure, r, "no memory to normalize %zu bytes of text", bytes);
    }
    *ret_text = buffer.at;
    return (int64_t)buffer.bytes;
}
