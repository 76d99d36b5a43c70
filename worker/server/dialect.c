/* SPDX-License-Identifier: Apache-2.0 */
#include "server/dialect.h"

#include <float.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

uint64_t dialect_random(void)
{
    struct timespec now;
    uint64_t number;

    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) == (ssize_t)sizeof(number))
        return number;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Any whole number that 64 bits hold, with or without a sign: of the large ones JSON's numbers are doubles, so that
 * neighbours are one seed. */
static uint64_t parse_seed(const struct members *members)
{
    double value = members_number(members, "seed", -0x1p63, 0x1p64, 0);

    if (members_wrong(members))
        return 0;
    if (value >= 0x1p63)
        return value < 0x1p64 ? (uint64_t)value : UINT64_MAX;
    if (value != (double)(int64_t)value)
        mistake_note(members->mistake, "seed", "%sseed is to be a whole number", members->place);
    return (uint64_t)(int64_t)value;
}

void dialect_sampling(const struct members *members, double temperature, struct generation_request *request)
{
    request->temperature = (float)members_number(members, "temperature", 0, 2, temperature);
    request->top_p = (float)members_number(members, "top_p", 0, 1, 1);
    if (request->top_p <= 0)
        request->top_p = FLT_MIN; /* the likeliest one only; the engine takes 0 for all */
    request->seed = members_find(members, "seed") ? parse_seed(members) : dialect_random();
}

const char *dialect_finish(const struct job *job)
{
    return job->generation.finish == GENERATION_LENGTH ? "length" : "stop";
}

cJSON *dialect_keep_if(bool added, cJSON *json)
{
    if (added)
        return json;
    cJSON_Delete(json);
    return NULL;
}

char *dialect_print(cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);

    cJSON_Delete(json);
    return text;
}

void dialect_event(const char *name, cJSON *data, struct buffer *events)
{
    char *text = dialect_print(data);

    if (!text) {
        events->failed = true;
        return;
    }
    if (name)
        buffer_format(events, "event: %s\n", name);
    buffer_format(events, "data: %s\n\n", text);
    free(text);
}
