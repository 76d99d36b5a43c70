/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

/* Clocks, large pages and copies: what the benches share. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HUGE_PAGE ((size_t)2 << 20)

uint64_t wall_ns(void);
uint64_t cpu_ns(void); /* of the process, all threads, kernel and user */

/* Anonymous memory that starts on a huge page, as long as bytes rounded up to huge pages, untouched. Ends the process
 * when there is none: a bench has nothing else to do then. */
void *memory_map(size_t bytes);
void memory_unmap(void *memory, size_t bytes);

/* First touch of each page, by that many threads, each on a core of its own where there are enough. */
void memory_touch(void *memory, size_t bytes, unsigned thread_count);

/* Takes memory from the hypervisor and gives it back to the kernel at once: what is touched next is there already. */
void memory_prefault(size_t bytes);

/* Past the cache. "avx512", "avx2", "sse2", "memcpy" say how. */
typedef void (*copy_fn)(void *to, const void *from, size_t bytes);
copy_fn copy_nontemporal(const char **ret_name);

/* The traffic of a conversion without its work: reads from_bytes, writes to_bytes past the cache. Nothing of use is
 * written. to: on a cache line, as is to_bytes; from: a line more may be read. */
void traffic_nontemporal(void *to, size_t to_bytes, const void *from, size_t from_bytes);

/* A line of /proc/self/status in bytes: "RssAnon", "VmHWM". */
uint64_t status_bytes(const char *name);
/* VmHWM starts again from what is resident now; false where the kernel refuses. */
bool status_reset_peak(void);

/* "4M", "512K", "100"; 1024-based. */
bool parse_bytes(const char *text, uint64_t *ret_bytes);

/* One sentence on stderr, exit 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
