/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_LIBRARY_H
#define TOOLS_LIBRARY_H

/* What the command line says, in the library's own option structs. With -v the library's log goes to stderr. */

#include "options.h"
#include "tundish.h"

struct tnd_model_options options_model(const struct options *options);
struct tnd_loader_options options_loader(const struct options *options);
struct tnd_load_options options_load(const struct options *options);

#endif
