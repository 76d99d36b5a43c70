/* SPDX-License-Identifier: Apache-2.0 */

/* Thread blocks on one CPU. From one barrier to the next a block's threads run one after the other: upwards in the
 * first launch, downwards in the second, shuffled anew after each barrier in the third, and so on in turn. A thread
 * that needs what another has not yet done finds rubbish in at least one of them. */

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <vector>

#include <ucontext.h>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define THREADS_MAX 1024
#define SHARED_BYTES_MAX 49152 /* what a launch may have without asking for more */
#define STACK_BYTES 65536
#define RUBBISH 0xDB

uint3 threadIdx, blockIdx;
uint4 shared[SHARED_BYTES_MAX / sizeof(uint4)]; /* a kernel's extern __shared__ */

namespace
{

enum order { UPWARDS, DOWNWARDS, SHUFFLED, ORDER_COUNT };

/* A stack as AddressSanitizer must know it: it is told of each change from one to another. */
struct stack {
    const void *bottom;
    size_t bytes;
    void *fake; /* what it keeps of a stack that is left */
};

/* A thread of one block after the other: its stack, and what AddressSanitizer keeps of that, are made once. */
struct fibre {
    std::unique_ptr<char[]> memory{new char[STACK_BYTES]};
    stack own{memory.get(), STACK_BYTES, nullptr};
    ucontext_t context;
    bool over;
};

stack scheduler_stack;
ucontext_t scheduler;
std::deque<fibre> fibres; /* a context does not like to be moved */
fibre *running;
const std::function<void()> *body;

[[noreturn]] void die(const char *sentence)
{
    fprintf(stderr, "CUDA shim: block %u: %s\n", blockIdx.x, sentence);
    abort();
}

void leave(stack &from, const stack &to)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.bytes);
#else
    (void)from;
    (void)to;
#endif
}

/* from: where its stack is becomes known when it is left. */
void arrive(stack &on, stack &from)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(on.fake, &from.bottom, &from.bytes);
#else
    (void)on;
    (void)from;
#endif
}

void to_scheduler()
{
    fibre *self = running;

    leave(self->own, scheduler_stack);
    swapcontext(&self->context, &scheduler);
    arrive(self->own, scheduler_stack);
}

void fibre_main()
{
    arrive(running->own, scheduler_stack);
    for (;;) {
        (*body)();
        running->over = true;
        to_scheduler();
    }
}

void add_fibre()
{
    fibre &fibre = fibres.emplace_back();

    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.memory.get();
    fibre.context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fibre.context, fibre_main, 0);
}

void resume(fibre &fibre)
{
    running = &fibre;
    leave(scheduler_stack, fibre.own);
    swapcontext(&scheduler, &fibre.context);
    arrive(scheduler_stack, fibre.own);
}

void sort(std::vector<unsigned> &threads, order order)
{
    static uint64_t seed = 1;

    std::iota(threads.begin(), threads.end(), 0u);
    for (size_t i = 0; i < threads.size() && order == DOWNWARDS; i++)
        threads[i] = (unsigned)(threads.size() - 1 - i);
    for (size_t i = threads.size(); i > 1 && order == SHUFFLED; i--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        std::swap(threads[i - 1], threads[(seed >> 33) % i]);
    }
}

/* Up to the next barrier, or the end: all of them to the same. */
bool run_to_barrier(std::vector<unsigned> &threads, order order)
{
    size_t over = 0;

    sort(threads, order);
    for (unsigned thread : threads) {
        threadIdx.x = thread;
        resume(fibres[thread]);
        over += fibres[thread].over;
    }
    if (over > 0 && over < threads.size())
        die("some threads wait at a barrier, others have ended");
    return over == 0;
}

} // namespace

void __syncthreads()
{
    to_scheduler();
}

cudaError_t shim_launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread)
{
    static unsigned launches;
    order order = (enum order)(launches++ % ORDER_COUNT);
    std::vector<unsigned> threads(block.x);

    if (grid.x == 0 || block.x == 0 || block.x > THREADS_MAX || shared_bytes > SHARED_BYTES_MAX || grid.y != 1 ||
        grid.z != 1 || block.y != 1 || block.z != 1)
        return cudaErrorInvalidConfiguration;
    while (fibres.size() < block.x)
        add_fibre();
    body = &thread;
#ifdef WITH_ASAN
    __asan_poison_memory_region((char *)shared + shared_bytes, SHARED_BYTES_MAX - shared_bytes);
#endif
    for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
        memset(shared, RUBBISH, shared_bytes);
        for (unsigned i = 0; i < block.x; i++)
            fibres[i].over = false;
        while (run_to_barrier(threads, order))
            ;
    }
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(shared, SHARED_BYTES_MAX);
#endif
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *ret_count)
{
    *ret_count = 1;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaSuccess ? "no error" : "error";
}

/* On 256 bytes, as cudaMalloc() gives it. */
cudaError_t cudaMalloc(void **ret_memory, size_t bytes)
{
    return posix_memalign(ret_memory, 256, bytes) ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *destination, const void *source, size_t bytes, enum cudaMemcpyKind)
{
    memcpy(destination, source, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    return cudaSuccess;
}
