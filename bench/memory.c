/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14, glibc 2.35 */
#endif

#define THREADS_MAX 64

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000U + (uint64_t)time.tv_nsec;
}

uint64_t wall_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static size_t round_up(size_t bytes)
{
    return (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

void *memory_map(size_t bytes)
{
    size_t length = round_up(bytes) + HUGE_PAGE;
    uint8_t *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t head;

    if (mapped == MAP_FAILED)
        die("no %zu bytes of memory", bytes);
    head = (size_t)(-(uintptr_t)mapped & (HUGE_PAGE - 1));
    if (head > 0)
        munmap(mapped, head);
    if (head < HUGE_PAGE)
        munmap(mapped + head + round_up(bytes), HUGE_PAGE - head);
    madvise(mapped + head, round_up(bytes), MADV_HUGEPAGE);
    return mapped + head;
}

void memory_unmap(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, round_up(bytes));
}

struct part {
    uint8_t *memory;
    size_t bytes;
    unsigned index;
};

static void touch(void *memory, size_t bytes)
{
    volatile uint8_t *page = memory;

    if (madvise(memory, bytes, MADV_POPULATE_WRITE) == 0)
        return;
    for (size_t at = 0; at < bytes; at += 4096) /* before 5.14 */
        page[at] = 0;
}

/* Short threads are otherwise packed on one core. */
static void pin(unsigned index)
{
    cpu_set_t allowed, one;
    unsigned seen = 0;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && seen++ == index) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof(one), &one);
        }
}

static void *touch_main(void *argument)
{
    const struct part *part = argument;

    pin(part->index);
    touch(part->memory, part->bytes);
    return NULL;
}

void memory_touch(void *memory, size_t bytes, unsigned thread_count)
{
    pthread_t threads[THREADS_MAX];
    struct part parts[THREADS_MAX];
    size_t each = round_up(bytes / thread_count + 1);
    unsigned started = 0;

    if (thread_count == 1) {
        touch(memory, bytes);
        return;
    }
    for (size_t at = 0; at < bytes; at += each, started++) {
        parts[started] = (struct part){(uint8_t *)memory + at, bytes - at < each ? bytes - at : each, started};
        if (pthread_create(&threads[started], NULL, touch_main, &parts[started]) != 0)
            die("cannot start a thread");
    }
    while (started > 0)
        pthread_join(threads[--started], NULL);
}

void memory_prefault(size_t bytes)
{
    void *memory;

    if (bytes == 0)
        return;
    memory = memory_map(bytes);
    memory_touch(memory, round_up(bytes), 1);
    memory_unmap(memory, bytes);
}

#if defined(__x86_64__)
/* The streaming loop between the edges of whole cache lines. */
#define COPY_NONTEMPORAL(name, isa, vector, load, stream)                                                              \
    __attribute__((target(isa))) static void name(void *to, const void *from, size_t bytes)                            \
    {                                                                                                                  \
        const uint8_t *source = from;                                                                                  \
        uint8_t *target = to;                                                                                          \
        size_t head = (size_t)(-(uintptr_t)to & 63U);                                                                  \
                                                                                                                       \
        head = head < bytes ? head : bytes;                                                                            \
        memcpy(target, source, head);                                                                                  \
        target += head;                                                                                                \
        source += head;                                                                                                \
        bytes -= head;                                                                                                 \
        for (; bytes >= 4 * sizeof(vector); bytes -= 4 * sizeof(vector)) {                                             \
            vector a = load((const void *)source);                                                                     \
            vector b = load((const void *)(source + sizeof(vector)));                                                  \
            vector c = load((const void *)(source + 2 * sizeof(vector)));                                              \
            vector d = load((const void *)(source + 3 * sizeof(vector)));                                              \
                                                                                                                       \
            stream((void *)target, a);                                                                                 \
            stream((void *)(target + sizeof(vector)), b);                                                              \
            stream((void *)(target + 2 * sizeof(vector)), c);                                                          \
            stream((void *)(target + 3 * sizeof(vector)), d);                                                          \
            source += 4 * sizeof(vector);                                                                              \
            target += 4 * sizeof(vector);                                                                              \
        }                                                                                                              \
        _mm_sfence();                                                                                                  \
        memcpy(target, source, bytes);                                                                                 \
    }

COPY_NONTEMPORAL(copy_avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_stream_si512)
COPY_NONTEMPORAL(copy_avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_stream_si256)
COPY_NONTEMPORAL(copy_sse2, "sse2", __m128i, _mm_loadu_si128, _mm_stream_si128)
#else
static void copy_plain(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}
#endif

copy_fn copy_nontemporal(const char **ret_name)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        *ret_name = "avx512";
        return copy_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        *ret_name = "avx2";
        return copy_avx2;
    }
    *ret_name = "sse2";
    return copy_sse2;
#else
    *ret_name = "memcpy";
    return copy_plain;
#endif
}

#if defined(__x86_64__)
/* A line written for so many bytes read. */
#define TRAFFIC_NONTEMPORAL(name, isa, vector, load, or, stream)                                                       \
    __attribute__((target(isa))) static void name(uint8_t *to, size_t lines, const uint8_t *from, size_t line_reads)   \
    {                                                                                                                  \
        for (; lines > 0; lines--, to += 64, from += line_reads)                                                       \
            for (size_t half = 0; half < 64; half += sizeof(vector)) {                                                 \
                vector value = load((const void *)(from + half));                                                      \
                                                                                                                       \
                for (size_t at = 64; at < line_reads; at += 64)                                                        \
                    value = or (value, load((const void *)(from + half + at)));                                        \
                stream((void *)(to + half), value);                                                                    \
            }                                                                                                          \
        _mm_sfence();                                                                                                  \
    }

TRAFFIC_NONTEMPORAL(traffic_avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_or_si512, _mm512_stream_si512)
TRAFFIC_NONTEMPORAL(traffic_avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_or_si256, _mm256_stream_si256)
TRAFFIC_NONTEMPORAL(traffic_sse2, "sse2", __m128i, _mm_loadu_si128, _mm_or_si128, _mm_stream_si128)

void traffic_nontemporal(void *to, size_t to_bytes, const void *from, size_t from_bytes)
{
    size_t lines = to_bytes / 64, line_reads = from_bytes / lines;

    if (__builtin_cpu_supports("avx512f"))
        traffic_avx512(to, lines, from, line_reads);
    else if (__builtin_cpu_supports("avx2"))
        traffic_avx2(to, lines, from, line_reads);
    else
        traffic_sse2(to, lines, from, line_reads);
}
#else
void traffic_nontemporal(void *to, size_t to_bytes, const void *from, size_t from_bytes)
{
    for (size_t at = 0, bytes; at < to_bytes; at += bytes) {
        bytes = to_bytes - at < from_bytes ? to_bytes - at : from_bytes;
        memcpy((uint8_t *)to + at, from, bytes);
    }
}
#endif

uint64_t status_bytes(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    size_t length = strlen(name);
    char line[256];
    uint64_t kib = 0;

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            kib = strtoull(line + length + 1, NULL, 10);
    if (file)
        fclose(file);
    return kib * 1024;
}

bool status_reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, "5", 1) == 1;

    if (fd >= 0)
        close(fd);
    return done;
}

bool parse_bytes(const char *text, uint64_t *ret_bytes)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    *ret_bytes = strtoull(text, &end, 10);
    if (*end == '\0')
        return true;
    suffix = strchr(suffixes, toupper((unsigned char)*end));
    if (!suffix || end[1] != '\0')
        return false;
    *ret_bytes <<= 10 * (suffix - suffixes + 1);
    return true;
}

void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}
