/* SPDX-License-Identifier: Apache-2.0 */
#include "course.h"

#include <stdlib.h>

#include "library.h"
#include "text.h"
#include "tundish.h"

static int compare_layers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* From a layer's number for each piece to each layer once. */
static uint32_t sort_layers(uint32_t *layers, uint32_t count)
{
    uint32_t kept = 0;

    qsort(layers, count, sizeof(*layers), compare_layers);
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || layers[i] != layers[i - 1])
            layers[kept++] = layers[i];
    return kept;
}

/* bytes: [layer_count] in the files. */
static bool are_even(const struct course *course, const uint64_t *bytes)
{
    for (uint32_t i = 1; i < course->layer_count; i++)
        if (bytes[course->layers[i]] != bytes[course->layers[0]])
            return false;
    return true;
}

static int plan_course(struct course *course, const struct tnd_model *model, const struct tnd_plan *plan)
{
    const struct tnd_piece *piece;
    struct tnd_plan_sizes sizes;
    uint64_t *bytes = calloc(tnd_model_layer_count(model) + 1u, sizeof(*bytes));
    uint32_t count = 0;

    tnd_plan_sizes(plan, &sizes);
    course->layer_bytes = sizes.loaded_bytes - sizes.shared_bytes;
    course->layers = calloc((size_t)sizes.piece_count + 1, sizeof(*course->layers));
    if (!course->layers || !bytes) {
        free(bytes);
        return fail(EXIT_RESOURCE, "out of memory for the list of layers");
    }
    for (uint32_t i = 0; (piece = tnd_plan_piece(plan, i)); i++) {
        const struct tnd_tensor *tensor = tnd_model_tensor(model, piece->tensor);

        course->shared_in |= tensor->role == TND_SHARED_IN;
        course->shared_out |= tensor->role == TND_SHARED_OUT;
        if (tensor->role != TND_IN_LAYER)
            continue;
        course->layer_file_bytes += piece->bytes;
        bytes[tensor->layer] += piece->bytes;
        course->layers[count++] = (uint32_t)tensor->layer;
    }
    course->layer_count = sort_layers(course->layers, count);
    course->even = are_even(course, bytes);
    free(bytes);
    return 0;
}

int course_make(struct course *course, const struct session *session)
{
    struct tnd_loader_options loader_options = options_loader(session->options);
    struct tnd_load_options load_options = options_load(session->options);
    struct tnd_plan *plan;
    int code, r;

    load_options.resident_bytes = 0;
    r = tnd_plan_create(session->model, &loader_options, &load_options, &plan);
    if (r < 0)
        return fail_result(r, NULL);
    code = plan_course(course, session->model, plan);
    tnd_plan_destroy(&plan);
    if (code == 0 && course->layer_count == 0)
        return fail(EXIT_NOT_FOUND, "%s: none of the tensors belongs to a layer, so there is nothing to walk through",
                    session->options->model);
    return code;
}

uint32_t course_index(const struct course *course, int32_t layer)
{
    uint32_t number = (uint32_t)layer;
    const uint32_t *found = bsearch(&number, course->layers, course->layer_count, sizeof(number), compare_layers);

    return found ? (uint32_t)(found - course->layers) : UINT32_MAX;
}

void course_finish(struct course *course)
{
    free(course->layers);
    *course = (struct course){0};
}
