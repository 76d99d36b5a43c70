/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_WHOLE_FILE_H
#define TOOLS_WHOLE_FILE_H

/* A file that is written as a whole or not at all: its name stands for what it stood for before, or for all of the new.
 * Where the file system has files without a name, nothing is left of one that is not finished, however the process
 * ends; elsewhere, when it is killed, a .tundish-PID-N.tmp in the same folder. */

#include <limits.h>
#include <stdio.h>

struct whole_file {
    const char *what, *path; /* in sentences: "the manifest", as the caller named it */
    int folder;
    char name[NAME_MAX + 1]; /* in folder, links followed */
};

#define WHOLE_FILE_NONE {.folder = -1}

/* Finds the place, and whether a file could be written there, before anybody works for what is to stand in it. Links
 * stay: a file that they lead to is replaced or made. These return 0, or an exit code when a sentence has been written;
 * what and path must outlive file. */
int whole_file_prepare(struct whole_file *file, const char *what, const char *path);

/* Calls write(), which need not look for errors of out, brings what it wrote to the disk and names it. */
int whole_file_write(const struct whole_file *file, void (*write)(FILE *out, const void *cookie), const void *cookie);

/* Takes WHOLE_FILE_NONE too. */
void whole_file_finish(struct whole_file *file);

#endif
