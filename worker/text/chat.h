/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WORKER_TEXT_CHAT_H
#define WORKER_TEXT_CHAT_H

/* The few chat templates that are known, by what stands in a model's own Jinja text, which is never run. */

#include "text/tokenizer.h"

struct chat_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
};

/* The tokens of a prompt for the assistant's next message. The template's own special tokens are tokens; what messages
 * hold stays characters: the spelling of a special token in a content is no token.
 * Returns *ret_tokens' count, which the caller frees; -ENOTSUP the model has no template or an unknown one, -EINVAL no
 * messages, a role that it does not know, or roles that do not take the turns it wants, -EFBIG, -ENOMEM. */
int64_t chat_encode(const struct tokenizer *tokenizer, const struct chat_message *messages, size_t message_count,
                    int32_t **ret_tokens, struct failure *failure);

#endif
