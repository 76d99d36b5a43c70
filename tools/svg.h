/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_SVG_H
#define TOOLS_SVG_H

/* A load as a picture: GB/s and reads in flight over time, a row for each engine, slot and worker. */

#include <stdio.h>

/* cookie: struct lanes. As whole_file_write() calls it. */
void svg_write(FILE *out, const void *cookie);

#endif
