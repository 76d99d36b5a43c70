/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUS "/sys/bus/pci/devices"
#define DRIVER "/proc/driver/nvidia"
#define VENDOR_NVIDIA 0x10de
#define CLASS_DISPLAY 0x03 /* the first of three bytes; what has no screen counts as display too */

/* A number of a device on the bus, 0 when it has none. */
static unsigned long attribute(const char *device, const char *name)
{
    char path[sizeof(BUS) + 512], text[32] = "";
    FILE *file;

    snprintf(path, sizeof(path), BUS "/%s/%s", device, name);
    file = fopen(path, "re");
    if (!file)
        return 0;
    if (!fgets(text, sizeof(text), file))
        text[0] = '\0';
    fclose(file);
    return strtoul(text, NULL, 16);
}

static uint32_t count_cards(void)
{
    DIR *bus = opendir(BUS);
    struct dirent *device;
    uint32_t count = 0;

    while (bus && (device = readdir(bus)))
        count += device->d_name[0] != '.' && attribute(device->d_name, "vendor") == VENDOR_NVIDIA &&
                 attribute(device->d_name, "class") >> 16 == CLASS_DISPLAY;
    if (bus)
        closedir(bus);
    return count;
}

/* The first word of digits and points in "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct …". */
static void read_version(char *version, size_t version_bytes)
{
    char line[256] = "", *rest = line, *word;
    FILE *file = fopen(DRIVER "/version", "re");

    snprintf(version, version_bytes, "?");
    if (!file)
        return;
    if (!fgets(line, sizeof(line), file))
        line[0] = '\0';
    fclose(file);
    while ((word = strsep(&rest, " \t\n")))
        if (strchr(word, '.') && word[strspn(word, "0123456789.")] == '\0') {
            snprintf(version, version_bytes, "%s", word);
            return;
        }
}

void gpu_look(struct gpu *gpu)
{
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL); /* stays open: a driver need not survive a close */

    *gpu = (struct gpu){.count = count_cards(), .driver = access(DRIVER, F_OK) == 0, .library = library != NULL};
    if (!library)
        snprintf(gpu->library_reason, sizeof(gpu->library_reason), "%s", dlerror());
    if (gpu->driver)
        read_version(gpu->driver_version, sizeof(gpu->driver_version));
}
