/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_DECODER_CONFIG_H
#define WORKER_DECODER_CONFIG_H

#include "decoder/decoder.h"

/* Whether names are as in a GGUF, else as Hugging Face has them. */
bool config_is_gguf(const struct tnd_model *model);

/* Of a GGUF's metadata, or of config.json in folder. Every number is within its limit, and they suit each other; that
 * the tensors have these sizes is weights_find()'s to see. Returns: as decoder_open(). */
int config_read(const struct tnd_model *model, const char *folder, struct decoder_config *ret_config,
                struct failure *failure);

#endif
