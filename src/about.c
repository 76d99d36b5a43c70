/* SPDX-License-Identifier: Apache-2.0 */
#include "tundish.h"

#define TEXT(number) #number
#define DOTTED(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *tnd_version(void)
{
    return DOTTED(TND_VERSION_MAJOR, TND_VERSION_MINOR, TND_VERSION_PATCH);
}
