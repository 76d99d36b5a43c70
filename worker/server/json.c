/* SPDX-License-Identifier: Apache-2.0 */
#include "server/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the sequence that text begins with; 0: it is none. */
static size_t utf8_sequence(const unsigned char *text, size_t bytes)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t count = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 :
                   text[0] < 0xf5 ? 4 : 0;
    uint32_t point;

    if (count < 2 || count > bytes)
        return count == 1 ? 1 : 0;
    point = text[0] & (0x7fU >> count);
    for (size_t i = 1; i < count; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3fU);
    }
    if (point < smallest[count] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return 0;
    return count;
}

/* What cJSON does not look at, or would cut a text short. */
static bool check_bytes(const char *text, size_t bytes, struct failure *failure)
{
    for (size_t at = 0; at < bytes;) {
        size_t count = utf8_sequence((const unsigned char *)text + at, bytes - at);

        if (count == 0 || text[at] == '\0') {
            fail(failure, 0, "the body is no UTF-8 at byte %zu", at);
            return false;
        }
        if (text[at] == '\\' && bytes - at >= 2 && text[at + 1] != 'u')
            count = 2; /* \\ and all that is not followed by digits */
        if (bytes - at >= 6 && memcmp(text + at, "\\u0000", 6) == 0) {
            fail(failure, 0, "the body has a NUL (\\u0000) at byte %zu", at);
            return false;
        }
        at += count;
    }
    return true;
}

cJSON *json_parse(const char *text, size_t bytes, struct failure *failure)
{
    const char *end = text;
    cJSON *object;

    if (!check_bytes(text, bytes, failure))
        return NULL;
    object = cJSON_ParseWithLengthOpts(text, bytes + 1, &end, true);
    if (!object) {
        fail(failure, 0, "the body is no JSON, or nested too deep, at byte %zu", (size_t)(end - text));
        return NULL;
    }
    if (!cJSON_IsObject(object)) {
        fail(failure, 0, "the body is no JSON object");
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

void mistake_note(struct mistake *mistake, const char *member, const char *format, ...)
{
    va_list arguments;

    if (mistake->failure.text[0] != '\0')
        return;
    mistake->member = member;
    va_start(arguments, format);
    vsnprintf(mistake->failure.text, sizeof(mistake->failure.text), format, arguments);
    va_end(arguments);
}

bool members_wrong(const struct members *members)
{
    return members->mistake->failure.text[0] != '\0';
}

const cJSON *members_find(const struct members *members, const char *name)
{
    const cJSON *found = NULL, *member;

    cJSON_ArrayForEach(member, members->object) {
        if (strcmp(member->string, name) != 0)
            continue;
        if (found)
            mistake_note(members->mistake, name, "%s%s stands there more than once", members->place, name);
        found = member;
    }
    return found && !cJSON_IsNull(found) ? found : NULL;
}

const char *members_text(const struct members *members, const char *name, size_t bytes_max, const char *fallback)
{
    const cJSON *member = members_find(members, name);
    const char *text = member ? cJSON_GetStringValue(member) : fallback;

    if (!text)
        mistake_note(members->mistake, name, "%s%s is to be a string", members->place, name);
    else if (strlen(text) > bytes_max)
        mistake_note(members->mistake, name, "%s%s has %zu bytes, at most %zu", members->place, name, strlen(text),
                     bytes_max);
    return text ? text : "";
}

bool members_flag(const struct members *members, const char *name, bool fallback)
{
    const cJSON *member = members_find(members, name);

    if (member && !cJSON_IsBool(member))
        mistake_note(members->mistake, name, "%s%s is to be true or false", members->place, name);
    return member ? cJSON_IsTrue(member) : fallback;
}

double members_number(const struct members *members, const char *name, double min, double max, double fallback)
{
    const cJSON *member = members_find(members, name);
    double value = member && cJSON_IsNumber(member) ? member->valuedouble : NAN;

    if (!member)
        return fallback;
    if (!(value >= min && value <= max))
        mistake_note(members->mistake, name, "%s%s is to be a number from %g to %g", members->place, name, min, max);
    return value;
}

int64_t members_whole(const struct members *members, const char *name, int64_t min, int64_t max, int64_t fallback)
{
    const cJSON *member = members_find(members, name);
    double value = member && cJSON_IsNumber(member) ? member->valuedouble : NAN;

    if (!member)
        return fallback;
    if (!(value >= (double)min && value <= (double)max) || value != (double)(int64_t)value) {
        mistake_note(members->mistake, name, "%s%s is to be a whole number from %" PRId64 " to %" PRId64,
                     members->place, name, min, max);
        return min;
    }
    return (int64_t)value;
}
