/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu.h"

#include <cpuid.h>
#include <stdatomic.h>

/* Not among the names that clang's __builtin_cpu_supports() knows. Its registers are those of AVX2, which that does ask
 * the system for. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

static bool has_avxvnni(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4;
}

static unsigned find_levels(void)
{
    unsigned levels = 1u << CPU_C;

    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return levels;
    levels |= 1u << CPU_AVX2;
    if (has_avxvnni())
        levels |= 1u << CPU_AVXVNNI;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        levels |= 1u << CPU_AVX512;
    return levels;
}

/* Asked once: on a virtual machine the question takes as long as a small product. */
bool cpu_has(enum cpu_level level)
{
    static atomic_uint known;
    unsigned levels = atomic_load_explicit(&known, memory_order_relaxed);

    if (levels == 0) {
        levels = find_levels();
        atomic_store_explicit(&known, levels, memory_order_relaxed);
    }
    return levels & 1u << level;
}
