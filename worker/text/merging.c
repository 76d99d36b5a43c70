/* SPDX-License-Identifier: Apache-2.0 */
#include "text/merging.h"

#include <errno.h>
#include <stdlib.h>

#include "utf8.h"

#define NONE UINT32_MAX

int tokens_push(struct tokens *tokens, int32_t token, struct failure *failure)
{
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity * 2 : 64;
        int32_t *grown = realloc(tokens->at, sizeof(*grown) * capacity);

        if (!grown)
            return fail(failure, -ENOMEM, "no memory for %zu tokens", capacity);
        tokens->at = grown;
        tokens->capacity = capacity;
    }
    tokens->at[tokens->count++] = token;
    return 0;
}

void merger_finish(struct merger *merger)
{
    free(merger->symbols);
    free(merger->pairs);
    *merger = (struct merger){0};
}

/* n symbols begin with n - 1 pairs, and each of n - 1 merges adds at most two. */
static int reserve(struct merger *merger, size_t symbols, struct failure *failure)
{
    size_t capacity = merger->capacity ? merger->capacity : 256;

    if (symbols <= merger->capacity)
        return 0;
    while (capacity < symbols)
        capacity *= 2;
    merger_finish(merger);
    merger->symbols = malloc(sizeof(*merger->symbols) * capacity);
    merger->pairs = malloc(sizeof(*merger->pairs) * capacity * 3);
    if (!merger->symbols || !merger->pairs) {
        merger_finish(merger);
        return fail(failure, -ENOMEM, "no memory for a word of %zu bytes", symbols);
    }
    merger->capacity = capacity;
    return 0;
}

static void put_symbol(struct merger *merger, int32_t token, size_t start, size_t bytes)
{
    uint32_t index = (uint32_t)merger->symbol_count++;

    merger->symbols[index] = (struct symbol){.token = token, .start = (uint32_t)start, .bytes = (uint32_t)bytes,
                                             .previous = index ? index - 1 : NONE, .next = index + 1};
}

/* A byte each, without those that have no token where none is unknown: what is beside them stands together. */
static void split_bytes(struct merger *merger, const struct vocabulary *vocabulary, const char *word, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        int32_t token = vocabulary->byte_tokens[(uint8_t)word[i]];

        if (token >= 0 || vocabulary->unknown >= 0)
            put_symbol(merger, token, i, 1);
    }
}

static void split_characters(struct merger *merger, const struct vocabulary *vocabulary, const char *word, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        bool whole;
        size_t length = utf8_sequence(word + at, bytes - at, &whole);

        put_symbol(merger, vocabulary_find(vocabulary, word + at, length), at, length);
        at += length;
    }
}

static void push_pair(struct merger *merger, struct pair pair)
{
    size_t at = merger->pair_count++;

    for (; at && merger->pairs[(at - 1) / 2].order > pair.order; at = (at - 1) / 2)
        merger->pairs[at] = merger->pairs[(at - 1) / 2];
    merger->pairs[at] = pair;
}

static struct pair pop_pair(struct merger *merger)
{
    struct pair first = merger->pairs[0], last = merger->pairs[--merger->pair_count];
    size_t at = 0;

    for (;;) {
        size_t child = at * 2 + 1;

        if (child + 1 < merger->pair_count && merger->pairs[child + 1].order < merger->pairs[child].order)
            child++;
        if (child >= merger->pair_count || last.order <= merger->pairs[child].order)
            break;
        merger->pairs[at] = merger->pairs[child];
        at = child;
    }
    merger->pairs[at] = last;
    return first;
}

/* Notes what the symbol and the one behind it become, if anything. */
static void look_at(struct merger *merger, const struct vocabulary *vocabulary, const char *word, uint32_t index)
{
    const struct symbol *left = &merger->symbols[index], *right;
    uint32_t bytes, priority;
    int32_t token;

    if (left->next == NONE)
        return;
    right = &merger->symbols[left->next];
    bytes = left->bytes + right->bytes;
    if (vocabulary->merges) {
        const struct merge *merge =
            left->token >= 0 && right->token >= 0 ? vocabulary_merge(vocabulary, left->token, right->token) : NULL;

        if (!merge)
            return;
        token = merge->token;
        priority = merge->rank;
    } else {
        token = bytes <= vocabulary->token_bytes_max ? vocabulary_find(vocabulary, word + left->start, bytes) : -1;
        if (token < 0)
            return;
        priority = vocabulary->tokens[token].priority;
    }
    push_pair(merger, (struct pair){(uint64_t)priority << 32 | index, token, bytes});
}

static void merge_all(struct merger *merger, const struct vocabulary *vocabulary, const char *word)
{
    merger->symbols[merger->symbol_count - 1].next = NONE;
    merger->pair_count = 0;
    for (uint32_t i = 0; i + 1 < merger->symbol_count; i++)
        look_at(merger, vocabulary, word, i);
    while (merger->pair_count) {
        struct pair pair = pop_pair(merger);
        uint32_t index = (uint32_t)pair.order;
        struct symbol *left = &merger->symbols[index], *right;

        if (!left->bytes || left->next == NONE)
            continue;
        right = &merger->symbols[left->next];
        if (left->bytes + right->bytes != pair.bytes)
            continue; /* one of them has grown */
        left->token = pair.token;
        left->bytes = pair.bytes;
        left->next = right->next;
        right->bytes = 0;
        if (left->next != NONE)
            merger->symbols[left->next].previous = index;
        look_at(merger, vocabulary, word, index);
        if (left->previous != NONE)
            look_at(merger, vocabulary, word, left->previous);
    }
}

/* A character that no token has: its bytes, where all of them have one. */
static int push_bytes(const struct vocabulary *vocabulary, const char *text, size_t bytes, bool *after_unknown,
                      struct tokens *tokens, struct failure *failure)
{
    bool joins = *after_unknown && vocabulary->unknown_joins;
    int r = 0;

    for (size_t i = 0; i < bytes; i++) {
        if (vocabulary->byte_tokens[(uint8_t)text[i]] < 0) {
            *after_unknown = true;
            return joins || vocabulary->unknown < 0 ? 0 : tokens_push(tokens, vocabulary->unknown, failure);
        }
    }
    for (size_t i = 0; i < bytes && r == 0; i++)
        r = tokens_push(tokens, vocabulary->byte_tokens[(uint8_t)text[i]], failure);
    *after_unknown = false;
    return r;
}

int merger_encode(struct merger *merger, const struct vocabulary *vocabulary, const char *word, size_t bytes,
                  struct tokens *tokens, struct failure *failure)
{
    bool after_unknown = false;
    int r = reserve(merger, bytes, failure);

    if (r < 0)
        return r;
    merger->symbol_count = 0;
    if (vocabulary->spelling == SPELLING_BYTES)
        split_bytes(merger, vocabulary, word, bytes);
    else
        split_characters(merger, vocabulary, word, bytes);
    if (!merger->symbol_count)
        return 0;
    merge_all(merger, vocabulary, word);
    for (uint32_t i = 0; i != NONE && r == 0; i = merger->symbols[i].next) {
        const struct symbol *symbol = &merger->symbols[i];

        if (symbol->token >= 0) {
            r = tokens_push(tokens, symbol->token, failure);
            after_unknown = false;
        } else {
            r = push_bytes(vocabulary, word + symbol->start, symbol->bytes, &after_unknown, tokens, failure);
        }
    }
    return r;
}
