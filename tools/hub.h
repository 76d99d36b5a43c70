/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_HUB_H
#define TOOLS_HUB_H

#include <stddef.h>

/* A MODEL that is no path but ORG/REPO or ORG/REPO:FILE becomes its path in the Hugging Face cache on this machine
 * (HF_HUB_CACHE, else HF_HOME/hub, else huggingface/hub in XDG_CACHE_HOME or ~/.cache): the snapshot that refs/main
 * names. Nothing is fetched. *model is set to path when it was such a name. Returns an exit code, its sentence said. */
int hub_resolve(const char **model, char *path, size_t path_bytes);

#endif
