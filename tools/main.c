/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "commands.h"
#include "generate.h"
#include "hub.h"
#include "interrupt.h"
#include "options.h"
#include "text.h"
#include "tundish.h"

static int (*const runs[COMMAND_COUNT])(const struct options *options) = {
    [COMMAND_INFO] = command_info,
    [COMMAND_PLAN] = command_plan,
    [COMMAND_LOAD] = command_load,
    [COMMAND_WALK] = command_walk,
    [COMMAND_DIGEST] = command_digest,
    [COMMAND_VERIFY] = command_verify,
    [COMMAND_DOCTOR] = command_doctor,
};

/* A descriptor that was closed at the start must not become the model's, or an eventfd's, and then get our output.
 * Opened the wrong way round, so that using it still fails. */
static void fill_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* takes the lowest free one: fd */
}

/* A model of hundreds of shards takes two descriptors for each: as many as may be had. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int finish_output(int code)
{
    bool failed_before = ferror(stdout) != 0;
    int error = fclose(stdout) < 0 ? errno : 0;

    if (code != EXIT_DONE)
        return code; /* its sentence is out; one is enough */
    if (interrupted())
        return fail(EXIT_INTERRUPTED, "interrupted");
    if (error != 0)
        return fail(EXIT_FAILED, "cannot write to standard output: %s", strerror(error));
    if (failed_before)
        return fail(EXIT_FAILED, "cannot write to standard output");
    return EXIT_DONE;
}

static int run(int argument_count, char **arguments)
{
    static char hub_path[4096];
    struct options options;
    enum command command;
    int code;

    if (argument_count < 2)
        return fail(EXIT_USAGE, "which command? 'tundish --help' lists them");
    if (strcmp(arguments[1], "--help") == 0 || strcmp(arguments[1], "-h") == 0) {
        options_usage(COMMAND_COUNT);
        return EXIT_DONE;
    }
    if (strcmp(arguments[1], "--version") == 0) {
        printf("tundish %s\n", tnd_version());
        return EXIT_DONE;
    }
    if (strcmp(arguments[1], "generate") == 0)
        return generate_run(arguments + 1);
    command = options_command(arguments[1]);
    if (command == COMMAND_COUNT)
        return fail(EXIT_USAGE, "unknown command %s; 'tundish --help' lists them", arguments[1]);
    code = options_parse(&options, command, argument_count - 2, arguments + 2);
    if (code != EXIT_DONE)
        return code;
    if (options.help) {
        options_usage(command);
        return EXIT_DONE;
    }
    code = hub_resolve(&options.model, hub_path, sizeof(hub_path));
    return code == EXIT_DONE ? runs[command](&options) : code;
}

int main(int argument_count, char **arguments)
{
    static char buffer[1 << 18]; /* a vocabulary in a few writes */
    static char lines[1 << 13];

    fill_descriptors();
    raise_descriptor_limit();
    setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
    setvbuf(stderr, lines, _IOLBF, sizeof(lines));
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes shows as EFBIG, which has a sentence too */
    interrupt_init();
    return finish_output(run(argument_count, arguments));
}
