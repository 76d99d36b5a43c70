/* SPDX-License-Identifier: Apache-2.0 */

/* How fast this disk gives a file to memory when nothing is kept: the speed of light of a load.
 *
 * io_uring, O_DIRECT, registered buffers on huge pages, one thread. A pool as small as the reads in flight is used over
 * and over, the buffer that came back last first. Several shapes (block x depth) are read in turn, round after round;
 * the one with the best median is named. What a load meets besides is measured in the same run on request: reading
 * each block to its own place (--place), copying (--memcpy), touching memory (--touch). */

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define DIRECT_ALIGNMENT ((size_t)4096)
#define BUFFER_BYTES_MAX ((size_t)1 << 30) /* of one registered buffer */
#define BUFFERS_MAX 1024U
#define DEPTH_MAX 256U
#define SHAPES_MAX 16U
#define ROUNDS_MAX 99U
#define SCRATCH_BYTES (512 * MIB) /* of --memcpy and --touch */

struct shape {
    size_t block_bytes;
    unsigned depth;
    bool place; /* each block to its own place in touched memory, instead of a pool */
};

/* The same rate within a tenth on a virtual machine's disk, not elsewhere: small blocks suit arrays of drives, large
 * ones network disks. */
static const struct shape shapes_default[] = {
    {512 * KIB, 8, false}, {1 * MIB, 8, false}, {1 * MIB, 16, false},
    {2 * MIB, 4, false},   {4 * MIB, 2, false}, {4 * MIB, 4, false},
};

struct sample {
    double gb_per_s;
    double cpu_s_per_gb;
};

struct result {
    struct shape shape;
    bool registered;
    struct sample samples[ROUNDS_MAX];
    double median, min, max; /* GB/s */
    double cpu_s_per_gb;     /* median */
};

struct options {
    const char *path;
    struct shape forced; /* block_bytes 0: the default set */
    unsigned rounds;
    bool place, memcpy, touch, unregistered, json;
};

/* ---- Reading ----------------------------------------------------------------------------------------------- */

struct reader {
    struct io_uring ring;
    const struct shape *shape;
    int fd;
    size_t file_bytes;
    uint8_t *memory;
    size_t memory_bytes;
    bool registered;
    size_t next; /* offset of the next read */
    size_t left; /* bytes that have not arrived */
    unsigned in_flight;
    unsigned free_count;
    unsigned free[DEPTH_MAX];  /* buffers of the pool: the last one in is the first one out */
    size_t offsets[DEPTH_MAX]; /* of the read in that buffer */
};

static void ring_init(struct io_uring *ring)
{
    int r = io_uring_queue_init(DEPTH_MAX, ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

    if (r < 0) /* before 6.1 */
        r = io_uring_queue_init(DEPTH_MAX, ring, 0);
    if (r < 0)
        die("io_uring: %s", strerror(-r));
}

static bool register_memory(struct reader *reader)
{
    struct iovec buffers[BUFFERS_MAX];
    unsigned count = 0;

    for (size_t at = 0; at < reader->memory_bytes; at += BUFFER_BYTES_MAX) {
        size_t left = reader->memory_bytes - at;

        if (count == BUFFERS_MAX)
            return false;
        buffers[count].iov_base = reader->memory + at;
        buffers[count++].iov_len = left < BUFFER_BYTES_MAX ? left : BUFFER_BYTES_MAX;
    }
    return io_uring_register_buffers(&reader->ring, buffers, count) == 0;
}

static void submit_one(struct reader *reader)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&reader->ring);
    unsigned buffer = reader->free[--reader->free_count];
    size_t block = reader->shape->block_bytes;
    size_t left = reader->file_bytes - reader->next;
    size_t at = reader->shape->place ? reader->next : buffer * block;
    size_t bytes = left < block ? (left + DIRECT_ALIGNMENT - 1) & ~(DIRECT_ALIGNMENT - 1) : block;

    if (!sqe)
        die("the ring is full");
    if (reader->registered)
        io_uring_prep_read_fixed(sqe, reader->fd, reader->memory + at, (unsigned)bytes, reader->next,
                                 (int)(at / BUFFER_BYTES_MAX));
    else
        io_uring_prep_read(sqe, reader->fd, reader->memory + at, (unsigned)bytes, reader->next);
    io_uring_sqe_set_data64(sqe, buffer);
    reader->offsets[buffer] = reader->next;
    reader->next += left < block ? left : block;
    reader->in_flight++;
}

static void take(struct reader *reader, const struct io_uring_cqe *cqe)
{
    unsigned buffer = (unsigned)io_uring_cqe_get_data64(cqe);
    size_t left = reader->file_bytes - reader->offsets[buffer];
    size_t block = reader->shape->block_bytes;
    size_t expected = left < block ? left : block;

    if (cqe->res < 0)
        die("reading at %zu: %s", reader->offsets[buffer], strerror(-cqe->res));
    if ((size_t)cqe->res != expected)
        die("reading at %zu: %d bytes came, %zu were expected", reader->offsets[buffer], cqe->res, expected);
    reader->left -= expected;
    reader->in_flight--;
    reader->free[reader->free_count++] = buffer;
}

static void read_all(struct reader *reader)
{
    while (reader->left > 0) {
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        int r;

        while (reader->next < reader->file_bytes && reader->in_flight < reader->shape->depth)
            submit_one(reader);
        r = io_uring_submit_and_wait(&reader->ring, 1);
        if (r < 0 && r != -EINTR)
            die("io_uring: %s", strerror(-r));
        io_uring_for_each_cqe(&reader->ring, head, cqe)
        {
            take(reader, cqe);
            count++;
        }
        io_uring_cq_advance(&reader->ring, count);
    }
}

/* Ring, buffers and registration are there before the clock starts. */
static struct sample read_file(int fd, size_t file_bytes, const struct shape *shape, bool wants_registered,
                               bool *ret_registered)
{
    struct reader reader = {.fd = fd, .file_bytes = file_bytes, .left = file_bytes, .shape = shape};
    uint64_t wall, cpu;

    reader.memory_bytes =
        shape->place ? (file_bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1) : shape->block_bytes * shape->depth;
    reader.memory = memory_map(reader.memory_bytes);
    memory_touch(reader.memory, reader.memory_bytes, 1);
    ring_init(&reader.ring);
    reader.registered = wants_registered && register_memory(&reader);
    for (unsigned i = 0; i < shape->depth; i++)
        reader.free[reader.free_count++] = shape->depth - 1 - i;

    wall = wall_ns();
    cpu = cpu_ns();
    read_all(&reader);
    cpu = cpu_ns() - cpu;
    wall = wall_ns() - wall;

    *ret_registered = reader.registered;
    if (reader.registered)
        io_uring_unregister_buffers(&reader.ring); /* now, not some time after the ring: memlock counts it */
    io_uring_queue_exit(&reader.ring);
    memory_unmap(reader.memory, reader.memory_bytes);
    return (struct sample){(double)file_bytes / (double)wall, (double)cpu / (double)file_bytes};
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), compare_double);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void result_finish(struct result *result, unsigned rounds)
{
    double values[ROUNDS_MAX];

    for (unsigned i = 0; i < rounds; i++)
        values[i] = result->samples[i].cpu_s_per_gb;
    result->cpu_s_per_gb = median(values, rounds);
    for (unsigned i = 0; i < rounds; i++)
        values[i] = result->samples[i].gb_per_s;
    result->median = median(values, rounds);
    result->min = values[0];
    result->max = values[rounds - 1];
}

/* Round after round, each shape in turn: what drifts, drifts for all. Returns the best. */
static unsigned measure(const struct options *options, struct result *results, unsigned count)
{
    int fd = open(options->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    struct stat status;
    unsigned best = 0;

    if (fd < 0 || fstat(fd, &status) < 0)
        die("%s: %s", options->path, errno == EINVAL ? "no O_DIRECT here" : strerror(errno));
    if (status.st_size <= 0)
        die("%s is empty", options->path);
    for (unsigned round = 0; round < options->rounds; round++)
        for (unsigned i = 0; i < count; i++)
            results[i].samples[round] = read_file(fd, (size_t)status.st_size, &results[i].shape, !options->unregistered,
                                                  &results[i].registered);
    close(fd);
    for (unsigned i = 0; i < count; i++) {
        result_finish(&results[i], options->rounds);
        if (!results[i].shape.place && (results[best].shape.place || results[i].median > results[best].median))
            best = i;
    }
    return best;
}

/* ---- Memory ------------------------------------------------------------------------------------------------ */

static void copy_plain(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

/* from_bytes of source over and over: one block that stays in the cache, or as much as there is to write. */
static double copy_rate(copy_fn copy, uint8_t *to, const uint8_t *from, size_t from_bytes, unsigned rounds)
{
    double rates[ROUNDS_MAX];

    for (unsigned round = 0; round < rounds; round++) {
        uint64_t start;

        copy(to, from, MIB);
        start = wall_ns();
        for (size_t at = 0; at < SCRATCH_BYTES; at += MIB)
            copy(to + at, from + at % from_bytes, MIB);
        rates[round] = (double)SCRATCH_BYTES / (double)(wall_ns() - start);
    }
    return median(rates, rounds);
}

struct copy_rates {
    const char *how;
    double cached_nontemporal, cached_plain, memory_nontemporal, memory_plain;
};

static struct copy_rates measure_copies(unsigned rounds)
{
    struct copy_rates rates;
    copy_fn nontemporal = copy_nontemporal(&rates.how);
    uint8_t *from = memory_map(SCRATCH_BYTES);
    uint8_t *to = memory_map(SCRATCH_BYTES);

    memory_touch(from, SCRATCH_BYTES, 1);
    memory_touch(to, SCRATCH_BYTES, 1);
    rates.cached_nontemporal = copy_rate(nontemporal, to, from, MIB, rounds);
    rates.cached_plain = copy_rate(copy_plain, to, from, MIB, rounds);
    rates.memory_nontemporal = copy_rate(nontemporal, to, from, SCRATCH_BYTES, rounds);
    rates.memory_plain = copy_rate(copy_plain, to, from, SCRATCH_BYTES, rounds);
    memory_unmap(from, SCRATCH_BYTES);
    memory_unmap(to, SCRATCH_BYTES);
    return rates;
}

/* Memory that this process had a moment ago: what the hypervisor took back costs many times more. */
static double touch_rate(unsigned thread_count, unsigned rounds)
{
    double rates[ROUNDS_MAX];

    for (unsigned round = 0; round < rounds; round++) {
        uint8_t *memory;
        uint64_t start;

        memory_prefault(SCRATCH_BYTES + SCRATCH_BYTES / 4);
        memory = memory_map(SCRATCH_BYTES);
        start = wall_ns();
        memory_touch(memory, SCRATCH_BYTES, thread_count);
        rates[round] = (double)SCRATCH_BYTES / (double)(wall_ns() - start);
        memory_unmap(memory, SCRATCH_BYTES);
    }
    return median(rates, rounds);
}

/* ---- Telling ----------------------------------------------------------------------------------------------- */

static size_t pool_bytes(const struct shape *shape)
{
    return shape->place ? 0 : shape->block_bytes * shape->depth;
}

static void print_result(const struct result *result, const char *note)
{
    printf("%5zu KiB x %-3u  pool %5.1f MiB  %-12s  %6.3f GB/s (%.3f-%.3f)  %.3f CPU s/GB%s\n",
           result->shape.block_bytes / KIB, result->shape.depth, (double)pool_bytes(&result->shape) / (double)MIB,
           result->registered ? "registered" : "unregistered", result->median, result->min, result->max,
           result->cpu_s_per_gb, note);
}

static void print_json_result(const struct result *result)
{
    printf("{\"block_bytes\":%zu,\"depth\":%u,\"pool_bytes\":%zu,\"place\":%s,\"registered\":%s,"
           "\"gb_per_s\":%.4f,\"gb_per_s_min\":%.4f,\"gb_per_s_max\":%.4f,\"cpu_s_per_gb\":%.5f}",
           result->shape.block_bytes, result->shape.depth, pool_bytes(&result->shape),
           result->shape.place ? "true" : "false", result->registered ? "true" : "false", result->median, result->min,
           result->max, result->cpu_s_per_gb);
}

static void print_disk(const struct options *options, const struct result *results, unsigned count, unsigned best)
{
    if (options->json) {
        printf("\"rounds\":%u,\"best\":", options->rounds);
        print_json_result(&results[best]);
        printf(",\"all\":[");
        for (unsigned i = 0; i < count; i++) {
            printf("%s", i > 0 ? "," : "");
            print_json_result(&results[i]);
        }
        printf("]");
        return;
    }
    for (unsigned i = 0; i < count; i++)
        print_result(&results[i], results[i].shape.place ? "  to its place" : i == best ? "  best" : "");
}

static void print_copies(const struct options *options)
{
    struct copy_rates rates = measure_copies(options->rounds);

    printf(options->json ? ",\"copy\":{\"nontemporal\":\"%s\",\"cached_nontemporal_gb_per_s\":%.2f,"
                           "\"cached_memcpy_gb_per_s\":%.2f,\"memory_nontemporal_gb_per_s\":%.2f,"
                           "\"memory_memcpy_gb_per_s\":%.2f}"
                         : "copy, one core (%s): cached block to memory %.1f GB/s, with memcpy %.1f; "
                           "memory to memory %.1f, with memcpy %.1f\n",
           rates.how, rates.cached_nontemporal, rates.cached_plain, rates.memory_nontemporal, rates.memory_plain);
}

static void print_touch(const struct options *options)
{
    double one = touch_rate(1, options->rounds);
    double two = touch_rate(2, options->rounds);

    printf(options->json ? ",\"touch\":{\"threads_1_gb_per_s\":%.2f,\"threads_2_gb_per_s\":%.2f}"
                         : "first touch of huge pages: 1 thread %.1f GB/s, 2 threads %.1f\n",
           one, two);
}

static const char usage[] = "usage: bench-probe [options] FILE\n"
                            "  --rounds N      reads of each shape (3)\n"
                            "  --block BYTES --depth N   only this shape; a power of two from 4K to 1G, 1 to 256\n"
                            "  --unregistered  do not register the buffers\n"
                            "  --place         also: each block to its place in touched memory as large as the file\n"
                            "  --memcpy        also: how fast a core copies\n"
                            "  --touch         also: how fast memory comes\n"
                            "  --json          one JSON object\n";

static uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
    uint64_t value;

    if (!text || !parse_bytes(text, &value) || value < min || value > max)
        die("%s takes a number from %llu to %llu", name, (unsigned long long)min, (unsigned long long)max);
    return value;
}

static void parse(struct options *options, char **arguments)
{
    *options = (struct options){.rounds = 3};
    for (; *arguments; arguments++) {
        const char *name = *arguments;

        if (strcmp(name, "--json") == 0)
            options->json = true;
        else if (strcmp(name, "--place") == 0)
            options->place = true;
        else if (strcmp(name, "--memcpy") == 0)
            options->memcpy = true;
        else if (strcmp(name, "--touch") == 0)
            options->touch = true;
        else if (strcmp(name, "--unregistered") == 0)
            options->unregistered = true;
        else if (strcmp(name, "--rounds") == 0)
            options->rounds = (unsigned)number(name, *++arguments, 1, ROUNDS_MAX);
        else if (strcmp(name, "--block") == 0)
            options->forced.block_bytes = number(name, *++arguments, DIRECT_ALIGNMENT, BUFFER_BYTES_MAX);
        else if (strcmp(name, "--depth") == 0)
            options->forced.depth = (unsigned)number(name, *++arguments, 1, DEPTH_MAX);
        else if (*name != '-' && !options->path)
            options->path = name;
        else
            die("unexpected %s\n%s", name, usage);
        if (!*arguments) /* number() has refused it */
            return;
    }
    if (!options->path)
        die("which file?\n%s", usage);
    if ((options->forced.block_bytes & (options->forced.block_bytes - 1)) != 0)
        die("--block takes a power of two"); /* so that no block lies across two registered buffers */
    if ((options->forced.block_bytes > 0) != (options->forced.depth > 0))
        die("--block and --depth go together");
}

int main(int argument_count, char **arguments)
{
    static struct result results[SHAPES_MAX];
    struct options options;
    unsigned count = 0, best;

    (void)argument_count;
    parse(&options, arguments + 1);
    if (options.forced.depth > 0)
        results[count++].shape = options.forced;
    for (unsigned i = 0; options.forced.depth == 0 && i < sizeof(shapes_default) / sizeof(shapes_default[0]); i++)
        results[count++].shape = shapes_default[i];
    if (options.place)
        results[count++].shape = (struct shape){4 * MIB, 4, true};
    best = measure(&options, results, count);

    printf(options.json ? "{" : "");
    print_disk(&options, results, count, best);
    if (options.memcpy)
        print_copies(&options);
    if (options.touch)
        print_touch(&options);
    printf(options.json ? "}\n" : "");
    return 0;
}
