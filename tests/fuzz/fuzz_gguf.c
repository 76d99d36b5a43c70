/* SPDX-License-Identifier: Apache-2.0 */

/* Goal: no bytes make the reader of GGUF look where it must not, or promise what the file does not have. What it
 * accepts is planned and laid out too. */

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size)
        fuzz_model(&tnd_format_gguf, data, size); /* an empty file is refused before */
    return 0;
}
