/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdbool.h>

/* Not among the names that clang's __builtin_cpu_supports() knows. Its registers are those of AVX2, which that does
 * ask the system for. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
#endif

enum tnd_isa tnd_isa_best(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !has_f16c())
        return TND_ISA_C;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return TND_ISA_AVX512;
    return TND_ISA_AVX2;
#else
    return TND_ISA_C;
#endif
}

const char *tnd_isa_name(enum tnd_isa isa)
{
    static const char *const names[] = {"c", "avx2", "avx512"};

    return names[isa];
}
