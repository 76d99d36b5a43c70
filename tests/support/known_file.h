/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_KNOWN_FILE_H
#define TND_TEST_KNOWN_FILE_H

/* A file whose bytes are known from their offsets. */

#include "model/model.h"

/* On the disk of TMPDIR, gone from the page cache, without a name; the caller closes fd. */
struct tnd_model_file known_file(uint64_t bytes);
/* Fails the test unless these are the file's bytes from offset on. */
void known_bytes(const uint8_t *buffer, uint64_t offset, uint32_t bytes);

#endif
