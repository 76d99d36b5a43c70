/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tundish.h"

static _Thread_local char last_error[sizeof(((struct tnd_err *)0)->text)];

static const struct {
    int result;
    const char *words;
} names[] = {
    {0, "success"},
    {-EINVAL, "EINVAL: wrong argument"},
    {-EBADMSG, "EBADMSG: malformed, cut or replaced file"},
    {-ENOTSUP, "ENOTSUP: known but not handled"},
    {-EFBIG, "EFBIG: over a named limit"},
    {-EIO, "EIO: the device failed"},
    {-ENOMEM, "ENOMEM: not enough memory"},
    {-ENOSPC, "ENOSPC: no space left"},
    {-ENODEV, "ENODEV: engine or device not to be had"},
    {-ENOENT, "ENOENT: no such file, or nothing in it to load"},
    {-EACCES, "EACCES: no permission"},
    {-ETIMEDOUT, "ETIMEDOUT: the time is over"},
    {-ECANCELED, "ECANCELED: canceled"},
    {-EAGAIN, "EAGAIN: not yet"},
};

int tnd_fail(struct tnd_err *err, int result, const char *format, ...)
{
    va_list arguments;

    if (!err)
        return result;
    err->result = result;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof(err->text), format, arguments);
    va_end(arguments);
    for (char *c = err->text; *c; c++) /* names come from files: no line feeds or escapes on a user's terminal */
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = '?';
    return result;
}

int tnd_errno_public(int result)
{
    switch (-result) {
    case EINVAL: case EBADMSG: case ENOTSUP: case EFBIG: case EIO: case ENOMEM: case ENOSPC: case ENODEV:
    case ENOENT: case EACCES: case ETIMEDOUT: case ECANCELED: case EAGAIN:
        return result;
    case EPERM: case EROFS:
        return -EACCES;
    case ELOOP: case ENOTDIR: case EISDIR: case ENAMETOOLONG: case ENXIO: case ESTALE:
        return -ENOENT;
    case ENOSYS: case ENOBUFS: case EMFILE: case ENFILE:
        return -ENODEV;
    case EOVERFLOW:
        return -EFBIG;
    default:
        return -EIO;
    }
}

int tnd_err_publish(const struct tnd_err *err)
{
    memcpy(last_error, err->text, sizeof(last_error));
    return err->result;
}

const char *tnd_last_error(void)
{
    return last_error;
}

const char *tnd_strerror(int result)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].result == result)
            return names[i].words;
    return result > 0 ? names[0].words : "an error outside tundish's list";
}
