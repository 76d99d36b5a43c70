/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_JSON_H
#define WORKER_SERVER_JSON_H

/* The JSON of a request, which is hostile, and its members, each by its name and kind.
 *
 * Threads: one at a time, all of this header: cJSON notes a parser's errors in a global. */

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "failure.h"


/* A request's first mistake. */
struct mistake {
    const char *member; /* of the body; NULL: of it as a whole, or none */
    struct failure failure;
};

/* text: bytes of it, and a NUL behind them. Valid UTF-8 without NULs, also none as \u0000; one object and nothing after
 * it. The caller deletes what is returned. NULL: failure says why. */
cJSON *json_parse(const char *text, size_t bytes, struct failure *failure);

/* An object's members. Once one was wrong the first mistake stays, and what is returned is of no use. */
struct members {
    const cJSON *object;
    const char *place; /* of the object in the body, for sentences: "messages[2]."; "" the body itself */
    struct mistake *mistake;
};
bool members_wrong(const struct members *members);
/* The member; NULL where there is none, or null. More than one of a name is a mistake. */
const cJSON *members_find(const struct members *members, const char *name);
/* Memory: the object's. fallback, as it is, where there is none; NULL: there must be one. */
const char *members_text(const struct members *members, const char *name, size_t bytes_max, const char *fallback);
bool members_flag(const struct members *members, const char *name, bool fallback);
double members_number(const struct members *members, const char *name, double min, double max, double fallback);
int64_t members_whole(const struct members *members, const char *name, int64_t min, int64_t max, int64_t fallback);

/* Notes a mistake, unless one was. */
__attribute__((format(printf, 3, 4))) void mistake_note(struct mistake *mistake, const char *member, const char *format,
                                                        ...);

#endif
