/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_SERVER_LOG_H
#define WORKER_SERVER_LOG_H

/* Lines on stderr, each in one write. What comes from outside is escaped and bounded in length. Threads: any. */

#include <stddef.h>
#include <stdint.h>

#define LOG_TEXT_ROOM 132 /* what log_escape() needs at most */

/* Visible ASCII but the quotation mark and the backslash as it is, all else as \xNN; cut after so many characters.
 * Returns out. */
const char *log_escape(char out[static LOG_TEXT_ROOM], const char *text);

/* job_id: NULL where there is none. */
void log_request(const char *worker_id, const char *method, const char *path, unsigned status, uint64_t ns,
                 const char *job_id);
/* text: escaped by the caller where it is not its own. */
__attribute__((format(printf, 2, 3))) void log_line(const char *worker_id, const char *format, ...);

#endif
