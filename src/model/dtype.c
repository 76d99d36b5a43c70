/* SPDX-License-Identifier: Apache-2.0 */
#include "model/dtype.h"

#include <errno.h>
#include <string.h>

/* Block sizes: ggml's ggml-common.h and safetensors' format description. Alignment is that of the widest member. */
static const struct tnd_dtype_info infos[TND_DTYPE_COUNT] = {
    [TND_F64] = {"F64", 1, 8, 8, 28, true},
    [TND_F32] = {"F32", 1, 4, 4, 0, true},
    [TND_F16] = {"F16", 1, 2, 2, 1, true},
    [TND_BF16] = {"BF16", 1, 2, 2, 30, true},
    [TND_F8_E4M3] = {"F8_E4M3", 1, 1, 1, -1, true},
    [TND_F8_E5M2] = {"F8_E5M2", 1, 1, 1, -1, true},
    [TND_F8_E8M0] = {"F8_E8M0", 1, 1, 1, -1, true},
    [TND_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 1, 1, 1, -1, true},
    [TND_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 1, 1, 1, -1, true},
    [TND_F6_E2M3] = {"F6_E2M3", 4, 3, 1, -1, true},
    [TND_F6_E3M2] = {"F6_E3M2", 4, 3, 1, -1, true},
    [TND_F4] = {"F4", 2, 1, 1, -1, true},
    [TND_I64] = {"I64", 1, 8, 8, 27, true},
    [TND_I32] = {"I32", 1, 4, 4, 26, true},
    [TND_I16] = {"I16", 1, 2, 2, 25, true},
    [TND_I8] = {"I8", 1, 1, 1, 24, true},
    [TND_U64] = {"U64", 1, 8, 8, -1, true},
    [TND_U32] = {"U32", 1, 4, 4, -1, true},
    [TND_U16] = {"U16", 1, 2, 2, -1, true},
    [TND_U8] = {"U8", 1, 1, 1, -1, true},
    [TND_BOOL] = {"BOOL", 1, 1, 1, -1, true},
    [TND_C64] = {"C64", 1, 8, 4, -1, true},
    [TND_Q4_0] = {"Q4_0", 32, 18, 2, 2, false},
    [TND_Q4_1] = {"Q4_1", 32, 20, 2, 3, false},
    [TND_Q5_0] = {"Q5_0", 32, 22, 2, 6, false},
    [TND_Q5_1] = {"Q5_1", 32, 24, 2, 7, false},
    [TND_Q8_0] = {"Q8_0", 32, 34, 2, 8, false},
    [TND_Q8_1] = {"Q8_1", 32, 36, 2, 9, false},
    [TND_Q2_K] = {"Q2_K", 256, 84, 2, 10, false},
    [TND_Q3_K] = {"Q3_K", 256, 110, 2, 11, false},
    [TND_Q4_K] = {"Q4_K", 256, 144, 2, 12, false},
    [TND_Q5_K] = {"Q5_K", 256, 176, 2, 13, false},
    [TND_Q6_K] = {"Q6_K", 256, 210, 2, 14, false},
    [TND_Q8_K] = {"Q8_K", 256, 292, 4, 15, false},
    [TND_IQ2_XXS] = {"IQ2_XXS", 256, 66, 2, 16, false},
    [TND_IQ2_XS] = {"IQ2_XS", 256, 74, 2, 17, false},
    [TND_IQ3_XXS] = {"IQ3_XXS", 256, 98, 2, 18, false},
    [TND_IQ1_S] = {"IQ1_S", 256, 50, 2, 19, false},
    [TND_IQ4_NL] = {"IQ4_NL", 32, 18, 2, 20, false},
    [TND_IQ3_S] = {"IQ3_S", 256, 110, 2, 21, false},
    [TND_IQ2_S] = {"IQ2_S", 256, 82, 2, 22, false},
    [TND_IQ4_XS] = {"IQ4_XS", 256, 136, 2, 23, false},
    [TND_IQ1_M] = {"IQ1_M", 256, 56, 1, 29, false},
    [TND_TQ1_0] = {"TQ1_0", 256, 54, 2, 34, false},
    [TND_TQ2_0] = {"TQ2_0", 256, 66, 2, 35, false},
    [TND_MXFP4] = {"MXFP4", 32, 17, 1, 39, false},
    [TND_NVFP4] = {"NVFP4", 64, 36, 1, 40, false},
    [TND_Q1_0] = {"Q1_0", 128, 18, 2, 41, false},
    [TND_Q2_0] = {"Q2_0", 64, 18, 2, 42, false},
};

const struct tnd_dtype_info *tnd_dtype_info(enum tnd_dtype dtype)
{
    return dtype > TND_DTYPE_NONE && dtype < TND_DTYPE_COUNT ? &infos[dtype] : NULL;
}

enum tnd_dtype tnd_dtype_from_ggml(uint32_t ggml)
{
    for (int i = TND_DTYPE_NONE + 1; i < TND_DTYPE_COUNT; i++)
        if (infos[i].ggml >= 0 && (uint32_t)infos[i].ggml == ggml)
            return (enum tnd_dtype)i;
    return TND_DTYPE_NONE;
}

bool tnd_ggml_type_removed(uint32_t ggml)
{
    return ggml == 4 || ggml == 5 || (ggml >= 31 && ggml <= 33) || (ggml >= 36 && ggml <= 38);
}

enum tnd_dtype tnd_dtype_from_safetensors(const char *name, size_t name_bytes)
{
    for (int i = TND_DTYPE_NONE + 1; i < TND_DTYPE_COUNT; i++)
        if (infos[i].safetensors && strlen(infos[i].name) == name_bytes && !memcmp(infos[i].name, name, name_bytes))
            return (enum tnd_dtype)i;
    return TND_DTYPE_NONE;
}

const char *tnd_dtype_name(enum tnd_dtype dtype)
{
    const struct tnd_dtype_info *info = tnd_dtype_info(dtype);

    return info ? info->name : "?";
}

int tnd_dtype_block(enum tnd_dtype dtype, uint32_t *ret_elements, uint32_t *ret_bytes)
{
    const struct tnd_dtype_info *info = tnd_dtype_info(dtype);

    if (!info)
        return -EINVAL;
    *ret_elements = info->block_elements;
    *ret_bytes = info->block_bytes;
    return 0;
}
