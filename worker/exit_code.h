/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_EXIT_CODE_H
#define WORKER_EXIT_CODE_H

/* How the programs of worker/ end: as the command does, by the same numbers. */

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_MALFORMED = 3,
    EXIT_UNSUPPORTED = 5,
    EXIT_RESOURCE = 6,
    EXIT_NOT_FOUND = 7,
    EXIT_INTERRUPTED = 130,
};

/* Of a result: 0 or a negative errno. */
enum exit_code exit_code_of(int result);

#endif
