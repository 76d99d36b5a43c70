/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/digest.h"

#include <errno.h>

#include "base/bytes.h"
#include "kernels/hash.h"
#include "model/model.h"

#define NO_PIECE UINT32_MAX

/* Links each tensor's pieces, which the plan has in ascending order; how many tensors have more than one. */
static uint32_t link_pieces(struct tnd_digests *digests)
{
    const struct tnd_plan *plan = digests->plan;
    uint32_t linked = 0;

    for (uint32_t i = 0; i < plan->model->tensor_count; i++)
        digests->tensors[i].next = NO_PIECE;
    for (uint32_t i = plan->piece_count; i-- > 0;) {
        struct tnd_tensor_digest *digest = &digests->tensors[plan->pieces[i].tensor];

        digests->piece_after[i] = digest->next;
        linked += digest->next != NO_PIECE && digests->piece_after[digest->next] == NO_PIECE;
        digest->next = i;
    }
    return linked;
}

static int make_states(struct tnd_digests *digests, struct tnd_plan *plan, uint32_t count)
{
    uint8_t *states = tnd_arena_alloc(&plan->arena, count + 1u, TND_XXH3_STATE_BYTES);

    if (!states)
        return -ENOMEM;
    states = (uint8_t *)tnd_round_up((uintptr_t)states, TND_XXH3_STATE_ALIGNMENT);
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        struct tnd_tensor_digest *digest = &digests->tensors[plan->tensors[i]];

        if (digest->next == NO_PIECE) {
            digest->value = tnd_xxh3(NULL, 0);
        } else if (digests->piece_after[digest->next] != NO_PIECE) {
            digest->state = states;
            tnd_xxh3_begin(states);
            states += TND_XXH3_STATE_BYTES;
        }
    }
    return 0;
}

int tnd_digests_init(struct tnd_digests *digests, struct tnd_plan *plan, const struct tnd_span *spans,
                     struct tnd_err *err)
{
    struct tnd_digests made = {
        .plan = plan,
        .spans = spans,
        .tensors = tnd_arena_alloc(&plan->arena, plan->model->tensor_count, sizeof(*made.tensors)),
        .piece_after = tnd_arena_alloc(&plan->arena, plan->piece_count, sizeof(*made.piece_after)),
        .placed = tnd_arena_alloc(&plan->arena, plan->piece_count, sizeof(*made.placed)),
    };

    if (!made.tensors || !made.piece_after || !made.placed || make_states(&made, plan, link_pieces(&made)) < 0)
        return tnd_fail(err, -ENOMEM, "no memory for the digests of %u tensors", plan->tensor_count);
    *digests = made;
    pthread_mutex_init(&digests->mutex, NULL);
    return 0;
}

void tnd_digests_finish(struct tnd_digests *digests)
{
    if (digests->tensors)
        pthread_mutex_destroy(&digests->mutex);
}

static void hash(struct tnd_tensor_digest *digest, const struct tnd_digests *digests, uint32_t piece_index,
                 const uint8_t *hot)
{
    const struct tnd_span *span = &digests->spans[piece_index];

    tnd_xxh3_add(digest->state, hot ? hot : span->destination, tnd_plan_bytes_out(span->kernel, span->bytes));
}

void tnd_digests_placed(struct tnd_digests *digests, uint32_t piece_index, const uint8_t *hot)
{
    struct tnd_tensor_digest *digest = &digests->tensors[digests->plan->pieces[piece_index].tensor];
    const struct tnd_span *span = &digests->spans[piece_index];

    if (!digest->state) { /* all of the tensor */
        digest->value = tnd_xxh3(hot ? hot : span->destination, tnd_plan_bytes_out(span->kernel, span->bytes));
        return;
    }
    pthread_mutex_lock(&digests->mutex);
    digests->placed[piece_index] = true;
    while (!digest->busy && digest->next != NO_PIECE && digests->placed[digest->next]) {
        uint32_t next = digest->next;

        digest->busy = true;
        pthread_mutex_unlock(&digests->mutex);
        hash(digest, digests, next, next == piece_index ? hot : NULL);
        pthread_mutex_lock(&digests->mutex);
        digest->busy = false;
        digest->next = digests->piece_after[next];
        if (digest->next == NO_PIECE)
            digest->value = tnd_xxh3_end(digest->state);
    }
    pthread_mutex_unlock(&digests->mutex);
}
