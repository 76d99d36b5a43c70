/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

#include "options.h"

/* Each returns an exit code, and has written the sentence when that is not 0. */
int command_info(const struct options *options);
int command_plan(const struct options *options);
int command_load(const struct options *options);
int command_walk(const struct options *options);
int command_digest(const struct options *options);
int command_verify(const struct options *options);
int command_doctor(const struct options *options);

#endif
