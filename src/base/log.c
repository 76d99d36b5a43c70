/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void tnd_log_line(const struct tnd_log *log, enum tnd_log_level level, const char *format, ...)
{
    char line[768];
    va_list arguments;

    if (!log->write)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    log->write(log->cookie, level, line);
}
