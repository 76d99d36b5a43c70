/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_FILE_H
#define WORKER_FILE_H

/* The small files that lie beside a model. */

#include <cjson/cJSON.h>
#include <stddef.h>

#include "failure.h"

/* All of folder/name, and a NUL behind it. *ret_text: the caller frees.
 * Returns: 0, -ENOENT not there or no regular file, -EACCES, -EFBIG more than bytes_max, -EIO, -ENOMEM. */
int file_read(const char *folder, const char *name, size_t bytes_max, char **ret_text, size_t *ret_bytes,
              struct failure *failure);

/* The same as an object of JSON, which the caller deletes; besides -EBADMSG it is none, -EFBIG it has more values than
 * any known one, each of which takes many times its bytes in memory. */
int file_read_json(const char *folder, const char *name, size_t bytes_max, cJSON **ret_root, struct failure *failure);

#endif
