/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_GENERATE_H
#define TOOLS_GENERATE_H

/* Becomes tundish-generate, a program of its own: found beside this one, in a build tree, or in PATH. arguments: from
 * "generate" on, with a NULL behind. Returns an exit code, its sentence said, when there is none. */
int generate_run(char **arguments);

#endif
