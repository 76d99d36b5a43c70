/* SPDX-License-Identifier: Apache-2.0 */
#include "server/dialect.h"

#include <stdlib.h>
#include <sys/random.h>

static uint64_t random_seed(void)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
        return 0;
    return seed;
}

void dialect_sampling(const struct members *members, double temperature, struct generation_request *request)
{
    request->temperature = (float)members_number(members, "temperature", 0, 2, temperature);
    request->top_p = (float)members_number(members, "top_p", 0, 1, 1);
    if (members_find(members, "seed"))
        request->seed = (uint64_t)members_whole(members, "seed", -JSON_WHOLE_MAX, JSON_WHOLE_MAX, 0);
    else
        request->seed = random_seed();
}

const char *dialect_finish(const struct job *job)
{
    return job->generation.finish == GENERATION_LENGTH ? "length" : "stop";
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
