/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a model with one call and looks at one tensor: minimal MODEL [TENSOR]
 * Builds with: cc minimal.c $(pkg-config --cflags --libs tundish) */
#include <stdio.h>
#include <string.h>
#include <tundish.h>

/* The first tensor of floats, when nobody named one. */
static int64_t choose(const struct tnd_model *model)
{
    for (uint32_t i = 0; i < tnd_model_tensor_count(model); i++)
        if (tnd_model_tensor(model, i)->dtype == TND_F32)
            return i;
    return -1;
}

int main(int argc, char **argv)
{
    struct tnd_load *load;
    struct tnd_load_stats stats;
    const struct tnd_model *model;
    const struct tnd_tensor *tensor;
    const void *data;
    int64_t index;
    float value;

    if (argc < 2 || tnd_load_file(argv[1], NULL, &load) < 0) {
        fprintf(stderr, "minimal: %s\n", argc < 2 ? "which model?" : tnd_last_error());
        return 1;
    }
    model = tnd_load_model(load);
    tnd_load_stats(load, &stats);
    printf("%u tensors at %.2f GB/s\n", stats.tensors, (double)stats.model_bytes / (double)stats.ready_ns);

    index = argc > 2 ? tnd_model_tensor_find(model, argv[2]) : choose(model);
    tensor = index < 0 ? NULL : tnd_model_tensor(model, (uint32_t)index);
    if (tensor && tensor->dtype == TND_F32 && tnd_load_tensor_data(load, (uint32_t)index, &data) == 0) {
        printf("%s:", tensor->name);
        for (uint64_t i = 0; i < 4 && i < tensor->elements; i++) {
            memcpy(&value, (const char *)data + i * sizeof(value), sizeof(value));
            printf(" %g", (double)value);
        }
        printf("\n");
    }
    tnd_load_destroy(&load); /* the model and the loader go with it */
    return 0;
}
