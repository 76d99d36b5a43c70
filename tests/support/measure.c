/* SPDX-License-Identifier: Apache-2.0 */

/* measure SECONDS COMMAND…   Runs a command with its standard output thrown away, ends it after so many seconds, and
 * prints its exit code (128 + signal), nanoseconds and peak memory in KiB. A process counts the memory of whoever
 * started it as its own peak, so a test in Python cannot ask for this itself; this program is small. */

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t child;

static void too_late(int signal)
{
    (void)signal;
    kill(child, SIGKILL);
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int64_t start = now_ns();
    int status = 0;

    if (argc < 3)
        return 2;
    child = fork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        execv(argv[2], argv + 2);
        _exit(127);
    }
    signal(SIGALRM, too_late);
    alarm((unsigned)atoi(argv[1]));
    while (child < 0 || wait4(child, &status, 0, &usage) < 0)
        if (child < 0)
            return 1;
    printf("%d %lld %ld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
           (long long)(now_ns() - start), usage.ru_maxrss);
    return 0;
}
