/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_CHROME_H
#define TOOLS_CHROME_H

/* A load in the JSON that chrome://tracing and Perfetto open: a process for each group of lanes, a thread for each
 * lane, counters for GB/s and reads in flight, marks for the first layer and the end. Microseconds. */

#include <stdio.h>

/* cookie: struct lanes. As whole_file_write() calls it. */
void chrome_write(FILE *out, const void *cookie);

#endif
