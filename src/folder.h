/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_FOLDER_H
#define TND_FOLDER_H

#include "base/err.h"
#include "base/mem.h"

/* The path of the one model in a folder, in the arena: model.safetensors.index.json, else another index, else
 * model.safetensors, else the only GGUF (the parts of a split one count once), else the only .safetensors.
 * -ENOENT when there is none, or when there are several and none has the usual name; -EACCES, -EIO, -ENOMEM. */
int tnd_folder_find(struct tnd_arena *arena, const char *folder, const char **ret_path, struct tnd_err *err);

#endif
