/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_GENERATE_STOPS_H
#define WORKER_GENERATE_STOPS_H

/* Texts that end a generation: what may be the beginning of one is held back until it is known. */

#include <stdbool.h>
#include <stddef.h>

struct stops {
    const char *const *texts;
    size_t count, longest;
    char *held;
    size_t held_bytes;
};

/* texts: [count], the caller's until stops_finish(). piece_bytes: the most that is added at once.
 * Returns: 0, -EINVAL one is "" or begins inside a UTF-8 sequence, -ENOMEM. */
int stops_init(struct stops *stops, const char *const *texts, size_t count, size_t piece_bytes);
void stops_finish(struct stops *stops);

/* Adds text to what is held. Returns how many bytes at the front of held may be told, whole UTF-8 sequences if those
 * that were added are; with *ret_found what stands before a stop. stops_drop() them before the next is added. */
size_t stops_add(struct stops *stops, const char *text, size_t bytes, bool *ret_found);
void stops_drop(struct stops *stops, size_t bytes);

#endif
