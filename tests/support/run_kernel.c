/* SPDX-License-Identifier: Apache-2.0 */

/* One kernel for a script: elements on stdin, what they became on stdout, and on stderr how many overflowed and how
 * many underflowed.
 *
 *     run_kernel FROM TO ISA    exit 77: the table has no such kernel, or this processor cannot run it
 *     run_kernel                a line for each kernel that this processor can run */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernel.h"

static void fail(const char *sentence)
{
    fprintf(stderr, "run_kernel: %s\n", sentence);
    exit(1);
}

static int list(void)
{
    const struct tnd_kernel *kernel;

    for (size_t i = 0; (kernel = tnd_kernel_at(i)); i++)
        if (kernel->isa <= tnd_isa_best())
            printf("%s %s %s\n", tnd_dtype_name(kernel->from), tnd_dtype_name(kernel->to), tnd_isa_name(kernel->isa));
    return 0;
}

static const struct tnd_kernel *find(char **names)
{
    const struct tnd_kernel *kernel;

    for (size_t i = 0; (kernel = tnd_kernel_at(i)); i++)
        if (kernel->isa <= tnd_isa_best() && strcmp(tnd_dtype_name(kernel->from), names[0]) == 0 &&
            strcmp(tnd_dtype_name(kernel->to), names[1]) == 0 && strcmp(tnd_isa_name(kernel->isa), names[2]) == 0)
            return kernel;
    return NULL;
}

/* All of stdin. */
static void *read_all(size_t *ret_bytes)
{
    size_t room = 1 << 20, bytes = 0, got;
    char *data = malloc(room);

    while (data && (got = fread(data + bytes, 1, room - bytes, stdin)) > 0) {
        bytes += got;
        if (bytes == room)
            data = realloc(data, room *= 2);
    }
    if (!data)
        fail("no memory");
    *ret_bytes = bytes;
    return data;
}

static void convert(const struct tnd_kernel *kernel)
{
    uint32_t block_elements, block_bytes, to_elements, to_bytes;
    struct tnd_range_counts counts = {0};
    size_t bytes, elements;
    void *source = read_all(&bytes), *destination;

    tnd_dtype_block(kernel->from, &block_elements, &block_bytes);
    tnd_dtype_block(kernel->to, &to_elements, &to_bytes);
    if (bytes % block_bytes != 0)
        fail("the input is no whole number of blocks");
    elements = bytes / block_bytes * block_elements;
    destination = malloc(elements * to_bytes + 1);
    if (!destination)
        fail("no memory");
    kernel->run(destination, source, elements, &counts);
    if (fwrite(destination, to_bytes, elements, stdout) != elements || fflush(stdout) != 0)
        fail("cannot write");
    fprintf(stderr, "%llu %llu\n", (unsigned long long)counts.overflowed, (unsigned long long)counts.underflowed);
    free(source);
    free(destination);
}

int main(int argument_count, char **arguments)
{
    const struct tnd_kernel *kernel;

    if (argument_count == 1)
        return list();
    if (argument_count != 4)
        fail("which FROM TO ISA?");
    kernel = find(arguments + 1);
    if (!kernel)
        return 77;
    convert(kernel);
    return 0;
}
