/* SPDX-License-Identifier: Apache-2.0 */
#include "generate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

#define PROGRAM "tundish-generate"

/* Where this program lies, with the slash; "" when nobody says. */
static void find_folder(char *folder, size_t bytes)
{
    ssize_t length = readlink("/proc/self/exe", folder, bytes - 1);
    char *end;

    folder[length > 0 ? length : 0] = '\0';
    end = strrchr(folder, '/');
    folder[end ? end + 1 - folder : 0] = '\0';
}

int generate_run(char **arguments)
{
    static const char *const places[] = {PROGRAM, "../worker/" PROGRAM}; /* installed, in a build tree */
    char folder[PATH_MAX], path[PATH_MAX + sizeof("../worker/" PROGRAM)];

    find_folder(folder, sizeof(folder));
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]) && folder[0] != '\0'; i++) {
        snprintf(path, sizeof(path), "%s%s", folder, places[i]);
        execv(path, arguments);
    }
    execvp(PROGRAM, arguments);
    return fail(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_FAILED,
                PROGRAM " is neither beside tundish nor in PATH, or cannot be run: %s", strerror(errno));
}
