/* SPDX-License-Identifier: Apache-2.0 */
#include "server/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_ROOM 1024

const char *log_escape(char out[static LOG_TEXT_ROOM], const char *text)
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;

    for (; *text != '\0' && at + 8 < LOG_TEXT_ROOM; text++) {
        unsigned char c = (unsigned char)*text;

        if (c > ' ' && c < 0x7f && c != '"' && c != '\\') {
            out[at++] = (char)c;
            continue;
        }
        out[at++] = '\\';
        out[at++] = 'x';
        out[at++] = digits[c >> 4];
        out[at++] = digits[c & 15];
    }
    for (int dots = 0; *text != '\0' && dots < 3; dots++)
        out[at++] = '.';
    out[at] = '\0';
    return out;
}

void log_request(const char *worker_id, const char *method, const char *path, unsigned status, uint64_t ns,
                 const char *job_id)
{
    char method_text[LOG_TEXT_ROOM], path_text[LOG_TEXT_ROOM], job_text[LOG_TEXT_ROOM];

    log_escape(method_text, method);
    log_escape(path_text, path);
    if (job_id)
        log_line(worker_id, "method=%s path=%s status=%u ns=%" PRIu64 " job=%s", method_text, path_text, status, ns,
                 log_escape(job_text, job_id));
    else
        log_line(worker_id, "method=%s path=%s status=%u ns=%" PRIu64, method_text, path_text, status, ns);
}

void log_line(const char *worker_id, const char *format, ...)
{
    char line[LINE_ROOM];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "tundish-worker %s: %s\n", worker_id, line);
}
