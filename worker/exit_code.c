/* SPDX-License-Identifier: Apache-2.0 */
#include "exit_code.h"

#include <errno.h>

enum exit_code exit_code_of(int result)
{
    switch (result) {
    case 0:
        return EXIT_DONE;
    case -EINVAL:
        return EXIT_USAGE;
    case -EBADMSG: case -EFBIG:
        return EXIT_MALFORMED;
    case -ENOTSUP:
        return EXIT_UNSUPPORTED;
    case -ENOMEM: case -ENODEV: case -ENOSPC: case -EAGAIN:
        return EXIT_RESOURCE;
    case -ENOENT: case -EACCES:
        return EXIT_NOT_FOUND;
    default:
        return EXIT_FAILED;
    }
}
