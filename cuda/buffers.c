/* SPDX-License-Identifier: Apache-2.0 */
#include "device_cuda.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- On the device's thread -------------------------------------------------------------------------------- */

/* Moves the pages to the host's memory that is nearest to the GPU. A wish: where it is refused they stay. */
static void move_near(const struct tnd_cuda *cuda, const struct tnd_cuda_buffer *buffer)
{
    unsigned long nodes[16] = {0};
    size_t bits = sizeof(nodes) * 8;

    if (cuda->node < 0 || (size_t)cuda->node >= bits)
        return;
    nodes[(size_t)cuda->node / (8 * sizeof(nodes[0]))] = 1ul << (size_t)cuda->node % (8 * sizeof(nodes[0]));
    syscall(SYS_mbind, buffer->memory, buffer->bytes, MPOL_PREFERRED, nodes, bits, MPOL_MF_MOVE);
}

static void count_pinned(struct tnd_cuda *cuda, size_t bytes)
{
    cuda->pinned_bytes += bytes;
    if (cuda->pinned_bytes > atomic_load(&cuda->pinned_bytes_max))
        atomic_store(&cuda->pinned_bytes_max, cuda->pinned_bytes);
}

static void complain(struct tnd_cuda *cuda, const char *why)
{
    pthread_mutex_lock(&cuda->mutex);
    if (!cuda->complaint[0])
        snprintf(cuda->complaint, sizeof(cuda->complaint), "buffers are not pinned, and copies slower: %.300s", why);
    pthread_mutex_unlock(&cuda->mutex);
}

static struct tnd_cuda_buffer *buffer_of(struct tnd_cuda_call *call)
{
    return (struct tnd_cuda_buffer *)call;
}

/* A refusal is no failure: the buffer stays as it is, and later ones are had the other way, or not at all. */
static int run_register(struct tnd_cuda_call *call, struct tnd_err *err)
{
    struct tnd_cuda *cuda = call->cuda;
    struct tnd_cuda_buffer *buffer = buffer_of(call);
    nvtxRangeId_t range = tnd_cuda_range_start(cuda->profile, "pin", buffer->bytes);
    struct tnd_err why = {0};
    int r;

    (void)err;
    move_near(cuda, buffer);
    r = tnd_cuda_check(cuda, cudaHostRegister(buffer->memory, buffer->bytes, cudaHostRegisterPortable),
                       "cudaHostRegister", &why);
    tnd_cuda_range_end(cuda->profile, range);
    if (r < 0) {
        atomic_store(&cuda->pinning, TND_PIN_ALLOC);
        complain(cuda, why.text);
        return 0;
    }
    buffer->kind = TND_CUDA_REGISTERED;
    count_pinned(cuda, buffer->bytes);
    return 0;
}

static int run_alloc(struct tnd_cuda_call *call, struct tnd_err *err)
{
    struct tnd_cuda *cuda = call->cuda;
    struct tnd_cuda_buffer *buffer = buffer_of(call);
    nvtxRangeId_t range = tnd_cuda_range_start(cuda->profile, "pin", buffer->bytes);
    struct tnd_err why = {0};
    int r;

    (void)err;
    r = tnd_cuda_check(cuda, cudaHostAlloc((void **)&buffer->own, buffer->bytes, cudaHostAllocPortable),
                       "cudaHostAlloc", &why);
    tnd_cuda_range_end(cuda->profile, range);
    if (r < 0) {
        buffer->own = NULL;
        atomic_store(&cuda->pinning, TND_PIN_OFF);
        complain(cuda, why.text);
        return 0;
    }
    madvise(buffer->own, buffer->bytes, MADV_DONTFORK); /* whole pages, and no more: the rest is CUDA's */
    buffer->kind = TND_CUDA_ALLOCATED;
    count_pinned(cuda, buffer->bytes);
    return 0;
}

static int run_unpin(struct tnd_cuda_call *call, struct tnd_err *err)
{
    struct tnd_cuda *cuda = call->cuda;
    struct tnd_cuda_buffer *buffer = buffer_of(call);

    (void)err;
    if (buffer->kind == TND_CUDA_REGISTERED)
        tnd_cuda_check(cuda, cudaHostUnregister(buffer->memory), "cudaHostUnregister", NULL);
    if (buffer->kind == TND_CUDA_ALLOCATED)
        madvise(buffer->own, buffer->bytes, MADV_DOFORK);
    if (buffer->kind == TND_CUDA_ALLOCATED)
        tnd_cuda_check(cuda, cudaFreeHost(buffer->own), "cudaFreeHost", NULL);
    cuda->pinned_bytes -= buffer->bytes;
    return 0;
}

/* ---- On the driver's --------------------------------------------------------------------------------------- */

/* The start-up pins what is there by then. */
static void take_own_pages(struct tnd_cuda *cuda, struct tnd_cuda_buffer *buffer)
{
    tnd_populate(buffer->memory, buffer->bytes);
    buffer->call.run = run_register;
    if (!tnd_cuda_call_at_start(cuda, &buffer->call))
        tnd_cuda_call(cuda, &buffer->call, NULL);
}

uint8_t *tnd_cuda_buffer_take(struct tnd_device *device, uint8_t *memory, size_t bytes)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    struct tnd_cuda_buffer *buffer = tnd_zalloc(&cuda->options.allocator, 1, sizeof(*buffer));
    enum tnd_pinning pinning = atomic_load(&cuda->pinning);

    if (!buffer) { /* pageable, then */
        tnd_populate(memory, bytes);
        return memory;
    }
    *buffer = (struct tnd_cuda_buffer){.memory = memory, .bytes = bytes, .next = cuda->buffers};
    cuda->buffers = buffer;
    if (pinning == TND_PIN_REGISTER) {
        take_own_pages(cuda, buffer);
        return memory;
    }
    if (pinning == TND_PIN_ALLOC) {
        buffer->call.run = run_alloc;
        tnd_cuda_call(cuda, &buffer->call, NULL);
    }
    if (!buffer->own)
        tnd_populate(memory, bytes);
    return buffer->own ? buffer->own : memory;
}

void tnd_cuda_buffer_give(struct tnd_device *device, uint8_t *given)
{
    struct tnd_cuda *cuda = tnd_cuda_of(device);
    struct tnd_cuda_buffer **at = &cuda->buffers, *buffer;

    while (*at && (*at)->memory != given && (*at)->own != given)
        at = &(*at)->next;
    buffer = *at;
    if (!buffer)
        return;
    *at = buffer->next;
    tnd_cuda_ready(device, true, NULL); /* the start-up may be at it */
    if (buffer->kind != TND_CUDA_PAGEABLE) {
        buffer->call.run = run_unpin;
        tnd_cuda_call(cuda, &buffer->call, NULL);
    }
    tnd_free(&cuda->options.allocator, buffer);
}
