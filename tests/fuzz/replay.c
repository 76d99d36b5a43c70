/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: what a fuzzer once found, or began with, stays harmless. Runs a target, built with any compiler, over the files
 * of folders:  replay FOLDER… */

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fuzz.h"

#define FILE_BYTES_MAX (1 << 20)

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(FILE_BYTES_MAX);
    size_t size;

    must(file && data);
    size = fread(data, 1, FILE_BYTES_MAX, file);
    fclose(file);
    fprintf(stderr, "%s\n", path); /* the last line names what did not come back */
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static int replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    int count = 0;

    must(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        char name[4096];
        struct stat status;

        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (stat(name, &status) == 0 && S_ISREG(status.st_mode))
            count += replay(name);
    }
    closedir(folder);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;

    for (int i = 1; i < argc; i++)
        count += replay_folder(argv[i]);
    printf("%d passed, %d failed, 0 skipped\n", count, count ? 0 : 1);
    return count ? 0 : 1;
}
