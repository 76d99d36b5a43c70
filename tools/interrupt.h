/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_INTERRUPT_H
#define TOOLS_INTERRUPT_H

#include <stdbool.h>

/* The first SIGINT is noted, for the command to end cleanly at its next look; the second one kills. A SIGINT that was
 * ignored when the command started stays ignored. */
void interrupt_init(void);
bool interrupted(void); /* any thread */

/* Around calls that start threads, which inherit the mask: SIGINT then wakes the main thread and no other. */
void interrupt_hold(void);
void interrupt_release(void);

/* From here on a mapped file that is cut under a command that reads it ends the command with a sentence that names the
 * model, as a malformed file: the kernel's answer is a signal. */
void interrupt_on_cut(const char *model);

#endif
