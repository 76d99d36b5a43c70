/* SPDX-License-Identifier: Apache-2.0 */

/* Runs a command in an environment that lacks something: deny WHAT COMMAND [ARGUMENT …]
 * Exits 77 when the environment cannot be made. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "refuse.h"

#define NR_IO_URING_SETUP 425
#define NR_IO_URING_ENTER 426
#define NR_CACHESTAT 451
#define NOBODY 65534

static int skip(const char *what)
{
    fprintf(stderr, "deny: %s: %s\n", what, strerror(errno));
    return 77;
}

/* 64 KiB, and not the capability that lifts it. */
static int little_memlock(void)
{
    if (setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){64 << 10, 64 << 10}) < 0)
        return -1;
    return geteuid() == 0 && (setgid(NOBODY) < 0 || setuid(NOBODY) < 0) ? -1 : 0;
}

static int deny(const char *what)
{
    rlim_t bytes;

    if (!strcmp(what, "uring-setup"))
        return refuse(NR_IO_URING_SETUP, 0, EPERM);
    if (!strcmp(what, "uring-missing"))
        return refuse(NR_IO_URING_SETUP, 0, ENOSYS);
    if (!strcmp(what, "uring-enter"))
        return refuse(NR_IO_URING_ENTER, 0, EPERM);
    if (!strcmp(what, "direct-open"))
        return refuse(SYS_openat, O_DIRECT, EINVAL);
    if (!strcmp(what, "cachestat"))
        return refuse(NR_CACHESTAT, 0, ENOSYS);
    if (!strcmp(what, "madvise"))
        return refuse(SYS_madvise, 0, EINVAL);
    if (!strcmp(what, "eventfd"))
        return refuse(SYS_eventfd2, 0, EMFILE);
    if (!strcmp(what, "threads"))
        return refuse(SYS_clone3, 0, EAGAIN) < 0 ? -1 : refuse(SYS_clone, 0, EAGAIN);
    if (!strcmp(what, "memlock"))
        return little_memlock();
    if (!strncmp(what, "memory=", 7)) {
        bytes = strtoul(what + 7, NULL, 10);
        return setrlimit(RLIMIT_AS, &(struct rlimit){bytes, bytes});
    }
    errno = EINVAL;
    return -1;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    if (deny(argv[1]) < 0)
        return skip(argv[1]);
    execvp(argv[2], argv + 2);
    return skip(argv[2]);
}
