/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_FAILURE_H
#define WORKER_FAILURE_H

/* Why something did not succeed. Functions of worker/ return 0 or a count, else a negative errno out of the public
 * header's list, and leave one sentence here: what, of which file or key, expected and found. */

struct failure {
    char text[512];
};

/* Writes the sentence, as UTF-8 without control characters, and returns result. Takes NULL. */
__attribute__((format(printf, 3, 4))) int fail(struct failure *failure, int result, const char *format, ...);

#endif
