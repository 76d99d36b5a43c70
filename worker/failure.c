/* SPDX-License-Identifier: Apache-2.0 */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

int fail(struct failure *failure, int result, const char *format, ...)
{
    va_list arguments;

    if (!failure)
        return result;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof(failure->text), format, arguments);
    va_end(arguments);
    utf8_make_plain(failure->text, strlen(failure->text)); /* names come from files; the end may be cut */
    return result;
}
