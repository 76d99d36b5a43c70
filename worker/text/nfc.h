/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_NFC_H
#define WORKER_TEXT_NFC_H

/* Unicode's normalization form C: a letter and its accent as one character where there is one. */

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

/* text: whole UTF-8. Returns the bytes of *ret_text, which the caller frees; NULL where the text is in the form
 * already. -ENOMEM. */
int64_t nfc_normalize(const char *text, size_t bytes, char **ret_text, struct failure *failure);

#endif
