/* SPDX-License-Identifier: Apache-2.0 */
#include "text/vocabulary.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "utf8.h"

/* Seeded, for a file could hold many tokens that collide otherwise. */
static uint32_t hash_bytes(const struct vocabulary *vocabulary, const char *bytes, size_t count)
{
    return (uint32_t)XXH3_64bits_withSeed(bytes, count, vocabulary->seed);
}

static uint32_t hash_pair(const struct vocabulary *vocabulary, int32_t left, int32_t right)
{
    const int32_t pair[2] = {left, right};

    return (uint32_t)XXH3_64bits_withSeed(pair, sizeof(pair), vocabulary->seed);
}

/* Slots of an open hash, at most half of them taken. */
static uint32_t slot_count(uint64_t entries)
{
    uint32_t count = 16;

    while (count < entries * 2)
        count *= 2;
    return count;
}

int vocabulary_init(struct vocabulary *vocabulary, enum spelling spelling, uint64_t count, struct failure *failure)
{
    *vocabulary = (struct vocabulary){.spelling = spelling, .unknown = -1};
    if (count == 0)
        return fail(failure, -EBADMSG, "the vocabulary has no tokens");
    if (count > VOCABULARY_TOKENS_MAX)
        return fail(failure, -EFBIG, "a vocabulary of %llu tokens, at most %d", (unsigned long long)count,
                    VOCABULARY_TOKENS_MAX);
    if (getrandom(&vocabulary->seed, sizeof(vocabulary->seed), GRND_NONBLOCK) < 0)
        vocabulary->seed = (uintptr_t)vocabulary; /* where addresses are random this is as good */
    memset(vocabulary->byte_tokens, -1, sizeof(vocabulary->byte_tokens));
    vocabulary->byte_capacity = count * 8;
    vocabulary->tokens = calloc(count, sizeof(*vocabulary->tokens));
    vocabulary->bytes = malloc(vocabulary->byte_capacity);
    if (!vocabulary->tokens || !vocabulary->bytes) {
        vocabulary_finish(vocabulary);
        return fail(failure, -ENOMEM, "no memory for a vocabulary of %llu tokens", (unsigned long long)count);
    }
    vocabulary->count = (uint32_t)count;
    for (uint32_t i = 0; i < count; i++)
        vocabulary->tokens[i].kind = TOKEN_UNUSED;
    return 0;
}

void vocabulary_finish(struct vocabulary *vocabulary)
{
    free(vocabulary->tokens);
    free(vocabulary->bytes);
    free(vocabulary->slots);
    free(vocabulary->merges);
    free(vocabulary->marks);
    *vocabulary = (struct vocabulary){0};
}

/* GPT-2's characters for bytes: those that print stand for themselves, the others in turn for what is behind 0xFF. */
static int byte_of_character(uint32_t character)
{
    static const uint8_t others[] = {0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A,
                                     0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96,
                                     0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xAD};

    if ((character > 0x20 && character < 0x7F) || (character > 0xA0 && character <= 0xFF && character != 0xAD))
        return (int)character;
    if (character >= 0x100 && character <= 0x120)
        return (int)character - 0x100;
    if (character > 0x120 && character < 0x121 + sizeof(others))
        return others[character - 0x121];
    return -1;
}

/* Writes the bytes that a spelling stands for, never more than it has; -1 where it is none of GPT-2's. */
static int64_t unspell_bytes(const char *text, size_t count, char *bytes)
{
    size_t written = 0;

    for (size_t at = 0; at < count;) {
        bool whole;
        size_t length;
        int byte;

        if (text[at] > 0x20 && text[at] < 0x7F) { /* most of them */
            bytes[written++] = text[at++];
            continue;
        }
        length = utf8_sequence(text + at, count - at, &whole);
        byte = whole ? byte_of_character(utf8_character(text + at, length)) : -1;

        if (byte < 0)
            return -1;
        bytes[written++] = (char)byte;
        at += length;
    }
    return (int64_t)written;
}

static int64_t unspell_words(const char *text, size_t count, char *bytes)
{
    size_t written = 0;

    for (size_t at = 0; at < count;) {
        bool mark = count - at >= 3 && memcmp(text + at, WORD_MARK, 3) == 0;

        bytes[written++] = mark ? ' ' : text[at];
        at += mark ? 3 : 1;
    }
    return (int64_t)written;
}

static int64_t unspell(const struct vocabulary *vocabulary, const char *text, size_t count, char *bytes)
{
    return vocabulary->spelling == SPELLING_BYTES ? unspell_bytes(text, count, bytes)
                                                  : unspell_words(text, count, bytes);
}

/* "<0x0A>"; -1: not spelled so. */
static int unspell_byte(const char *text, size_t count)
{
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    const char *high, *low;

    if (count != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    high = memchr(digits, text[3], sizeof(digits) - 1);
    low = memchr(digits, text[4], sizeof(digits) - 1);
    return high && low ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : -1;
}

/* Less is better: floats in their order as whole numbers, turned round. */
static uint32_t priority_of(float score)
{
    float positive_zero = score + 0.0f;
    uint32_t bits;

    memcpy(&bits, &positive_zero, sizeof(bits));
    return bits >> 31 ? bits : ~(bits | 0x80000000);
}

static int take_bytes(struct vocabulary *vocabulary, size_t bytes, struct failure *failure)
{
    size_t capacity = vocabulary->byte_capacity;
    char *grown;

    while (capacity - vocabulary->byte_count < bytes)
        capacity *= 2;
    if (capacity == vocabulary->byte_capacity)
        return 0;
    if (capacity > VOCABULARY_BYTES_MAX)
        return fail(failure, -EFBIG, "the vocabulary's tokens have more than %d bytes", VOCABULARY_BYTES_MAX);
    grown = realloc(vocabulary->bytes, capacity);
    if (!grown)
        return fail(failure, -ENOMEM, "no memory for a vocabulary of %zu bytes", capacity);
    vocabulary->bytes = grown;
    vocabulary->byte_capacity = capacity;
    return 0;
}

int vocabulary_set(struct vocabulary *vocabulary, uint32_t token, const char *text, size_t bytes, enum token_kind kind,
                   float score, struct failure *failure)
{
    struct token *entry = &vocabulary->tokens[token];
    int64_t count = -1;
    int byte, r;

    if (bytes > VOCABULARY_TOKEN_BYTES_MAX)
        return fail(failure, -EFBIG, "token %u has %zu bytes, at most %d", token, bytes, VOCABULARY_TOKEN_BYTES_MAX);
    if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
        return fail(failure, -EBADMSG, "token %u is of kind %d, expected 1 to 6", token, (int)kind);
    if (isnan(score))
        return fail(failure, -EBADMSG, "token %u: its score is not a number", token);
    r = take_bytes(vocabulary, bytes, failure);
    if (r < 0)
        return r;
    *entry = (struct token){.start = (uint32_t)vocabulary->byte_count, .kind = (uint8_t)kind,
                            .priority = priority_of(score)};
    if (kind == TOKEN_BYTE) {
        byte = unspell_byte(text, bytes);
        if (byte < 0)
            return fail(failure, -EBADMSG, "token %u is a byte, expected <0x00> to <0xFF>, found '%.*s'", token,
                        (int)(bytes < 40 ? bytes : 40), text);
        vocabulary->bytes[entry->start] = (char)byte;
        count = 1;
    } else if (kind == TOKEN_NORMAL) {
        count = unspell(vocabulary, text, bytes, vocabulary->bytes + entry->start);
    }
    if (count < 0) { /* its text is what it stands for */
        memcpy(vocabulary->bytes + entry->start, text, bytes);
        count = (int64_t)bytes;
        entry->foreign = kind == TOKEN_NORMAL;
    }
    entry->bytes = (uint16_t)count;
    vocabulary->byte_count += (size_t)count;
    if (entry->bytes > vocabulary->token_bytes_max)
        vocabulary->token_bytes_max = entry->bytes;
    return 0;
}

static bool same_bytes(const struct vocabulary *vocabulary, int32_t token, const char *bytes, size_t count)
{
    const struct token *entry = &vocabulary->tokens[token];

    return entry->bytes == count && memcmp(vocabulary->bytes + entry->start, bytes, count) == 0;
}

/* The slot of these bytes, or the empty one where they belong. */
static struct slot *slot_of(const struct vocabulary *vocabulary, const char *bytes, size_t count)
{
    uint32_t hash = hash_bytes(vocabulary, bytes, count), at = hash & vocabulary->slot_mask;
    struct slot *slot = &vocabulary->slots[at];

    while (slot->token >= 0 && (slot->hash != hash || !same_bytes(vocabulary, slot->token, bytes, count))) {
        at = (at + 1) & vocabulary->slot_mask;
        slot = &vocabulary->slots[at];
    }
    if (slot->token < 0)
        slot->hash = hash;
    return slot;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *bytes, size_t count)
{
    uint32_t hash = hash_bytes(vocabulary, bytes, count);

    for (uint32_t at = hash & vocabulary->slot_mask;; at = (at + 1) & vocabulary->slot_mask) {
        const struct slot *slot = &vocabulary->slots[at];

        if (slot->token < 0 || (slot->hash == hash && same_bytes(vocabulary, slot->token, bytes, count)))
            return slot->token;
    }
}

/* Whether ordinary text may be made of it. */
static bool is_text(const struct token *token)
{
    return (token->kind == TOKEN_NORMAL || token->kind == TOKEN_ADDED) && !token->foreign && token->bytes;
}

static bool is_mark(const struct token *token)
{
    return (token->kind == TOKEN_CONTROL || token->kind == TOKEN_ADDED) && token->bytes;
}

/* Bytes first, then which token: of two that read the same the first one stands in front. */
static int compare_marks(const void *left, const void *right, void *cookie)
{
    const struct vocabulary *vocabulary = cookie;
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    const struct token *one = &vocabulary->tokens[a], *other = &vocabulary->tokens[b];
    size_t shorter = one->bytes < other->bytes ? one->bytes : other->bytes;
    int order = memcmp(vocabulary->bytes + one->start, vocabulary->bytes + other->start, shorter);

    if (order == 0)
        order = (one->bytes > other->bytes) - (one->bytes < other->bytes);
    return order ? order : (a > b) - (a < b);
}

static int index_marks(struct vocabulary *vocabulary, struct failure *failure)
{
    uint32_t kept = 0;

    vocabulary->marks = malloc(sizeof(*vocabulary->marks) * vocabulary->count);
    if (!vocabulary->marks)
        return fail(failure, -ENOMEM, "no memory for a vocabulary of %u tokens", vocabulary->count);
    for (uint32_t i = 0; i < vocabulary->count; i++) {
        if (is_mark(&vocabulary->tokens[i]))
            vocabulary->marks[vocabulary->mark_count++] = (int32_t)i;
    }
    qsort_r(vocabulary->marks, vocabulary->mark_count, sizeof(*vocabulary->marks), compare_marks, vocabulary);
    for (uint32_t i = 0; i < vocabulary->mark_count; i++) {
        const struct token *mark = &vocabulary->tokens[vocabulary->marks[i]];
        const char *bytes = vocabulary->bytes + mark->start;

        if (kept && same_bytes(vocabulary, vocabulary->marks[kept - 1], bytes, mark->bytes))
            continue;
        vocabulary->marks[kept++] = vocabulary->marks[i];
        vocabulary->mark_begins[(uint8_t)bytes[0]] = true;
    }
    vocabulary->mark_count = kept;
    return 0;
}

int vocabulary_index(struct vocabulary *vocabulary, struct failure *failure)
{
    uint32_t slots = slot_count(vocabulary->count);
    enum token_kind of_byte = vocabulary->spelling == SPELLING_BYTES ? TOKEN_NORMAL : TOKEN_BYTE;

    vocabulary->slots = malloc(sizeof(*vocabulary->slots) * slots);
    if (!vocabulary->slots)
        return fail(failure, -ENOMEM, "no memory for a vocabulary of %u tokens", vocabulary->count);
    memset(vocabulary->slots, -1, sizeof(*vocabulary->slots) * slots);
    vocabulary->slot_mask = slots - 1;
    for (uint32_t i = 0; i < vocabulary->count; i++) {
        const struct token *token = &vocabulary->tokens[i];
        const char *bytes = vocabulary->bytes + token->start;
        struct slot *slot;

        if (token->kind == of_byte && token->bytes == 1 && !token->foreign &&
            vocabulary->byte_tokens[(uint8_t)bytes[0]] < 0)
            vocabulary->byte_tokens[(uint8_t)bytes[0]] = (int32_t)i;
        if (!is_text(token))
            continue;
        slot = slot_of(vocabulary, bytes, token->bytes);
        if (slot->token < 0)
            slot->token = (int32_t)i;
    }
    return index_marks(vocabulary, failure);
}

int vocabulary_merges_init(struct vocabulary *vocabulary, uint64_t count, struct failure *failure)
{
    uint32_t slots;

    if (count > VOCABULARY_MERGES_MAX)
        return fail(failure, -EFBIG, "%llu merges, at most %d", (unsigned long long)count, VOCABULARY_MERGES_MAX);
    slots = slot_count(count);
    vocabulary->merges = malloc(sizeof(*vocabulary->merges) * slots);
    if (!vocabulary->merges)
        return fail(failure, -ENOMEM, "no memory for %llu merges", (unsigned long long)count);
    memset(vocabulary->merges, -1, sizeof(*vocabulary->merges) * slots);
    vocabulary->merge_mask = slots - 1;
    return 0;
}

/* The pair's slot, or the empty one where it belongs. */
static struct merge *merge_slot(const struct vocabulary *vocabulary, int32_t left, int32_t right)
{
    uint32_t at = hash_pair(vocabulary, left, right) & vocabulary->merge_mask;

    while (vocabulary->merges[at].left >= 0 &&
           (vocabulary->merges[at].left != left || vocabulary->merges[at].right != right))
        at = (at + 1) & vocabulary->merge_mask;
    return &vocabulary->merges[at];
}

const struct merge *vocabulary_merge(const struct vocabulary *vocabulary, int32_t left, int32_t right)
{
    const struct merge *merge = merge_slot(vocabulary, left, right);

    return merge->left >= 0 ? merge : NULL;
}

/* Of a token that a merge names: a text that is spelled so, or a byte. */
static int32_t find_spelled(const struct vocabulary *vocabulary, const char *text, size_t bytes, char *unspelled,
                            int64_t *ret_count)
{
    *ret_count = -1;
    if (bytes <= VOCABULARY_TOKEN_BYTES_MAX)
        *ret_count = unspell(vocabulary, text, bytes, unspelled);
    return *ret_count > 0 ? vocabulary_find(vocabulary, unspelled, (size_t)*ret_count) : -1;
}

int vocabulary_merge_add(struct vocabulary *vocabulary, uint32_t rank, const char *left, size_t left_bytes,
                         const char *right, size_t right_bytes, struct failure *failure)
{
    char both[2 * VOCABULARY_TOKEN_BYTES_MAX];
    int64_t left_count, right_count;
    int32_t left_token = find_spelled(vocabulary, left, left_bytes, both, &left_count), right_token = -1, token = -1;
    struct merge *merge;

    if (left_token >= 0)
        right_token = find_spelled(vocabulary, right, right_bytes, both + left_count, &right_count);
    if (right_token >= 0)
        token = vocabulary_find(vocabulary, both, (size_t)(left_count + right_count));
    if (token < 0)
        return fail(failure, -EBADMSG, "merge %u joins '%.*s' and '%.*s': no token for the %s", rank,
                    (int)(left_bytes < 40 ? left_bytes : 40), left, (int)(right_bytes < 40 ? right_bytes : 40), right,
                    left_token < 0 ? "first" : right_token < 0 ? "second" : "two together");
    merge = merge_slot(vocabulary, left_token, right_token);
    *merge = (struct merge){left_token, right_token, token, rank};
    return 0;
}

/* The first mark in [low, high) whose byte at depth is at least byte; shorter ones come before. */
static uint32_t first_mark(const struct vocabulary *vocabulary, uint32_t low, uint32_t high, size_t depth, int byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct token *mark = &vocabulary->tokens[vocabulary->marks[middle]];
        int found = depth < mark->bytes ? (uint8_t)vocabulary->bytes[mark->start + depth] : -1;

        if (found < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t vocabulary_mark(const struct vocabulary *vocabulary, const char *text, size_t bytes, bool control)
{
    uint32_t low = 0, high = vocabulary->mark_count;
    int32_t longest = -1;

    for (size_t depth = 0; depth < bytes && low < high; depth++) {
        int byte = (uint8_t)text[depth];
        const struct token *mark;

        high = first_mark(vocabulary, low, high, depth, byte + 1);
        low = first_mark(vocabulary, low, high, depth, byte);
        if (low == high)
            break;
        mark = &vocabulary->tokens[vocabulary->marks[low]];
        if (mark->bytes == depth + 1 && (control || mark->kind == TOKEN_ADDED))
            longest = vocabulary->marks[low];
    }
    return longest;
}

int32_t vocabulary_mark_find(const struct vocabulary *vocabulary, const char *text)
{
    int32_t token = vocabulary_mark(vocabulary, text, strlen(text), true);

    return token >= 0 && vocabulary->tokens[token].bytes == strlen(text) ? token : -1;
}

bool vocabulary_words_apart(const struct vocabulary *vocabulary)
{
    for (uint32_t i = 0; i < vocabulary->count; i++) {
        const struct token *token = &vocabulary->tokens[i];
        const char *bytes = vocabulary->bytes + token->start;

        if (!is_text(token))
            continue;
        for (size_t at = 1; at < token->bytes; at++) {
            if (bytes[at] == ' ' && bytes[at - 1] != ' ')
                return false;
        }
    }
    return true;
}
