/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/fetch.h"

#include <string.h>

#include "base/bytes.h"
#include "model/model.h"
#include "pipeline/transfer.h"

#define CACHE_PERCENT_MAX 80 /* of the available memory that files may take to be found in the page cache again */

static struct tnd_stage_use *use_of(struct tnd_transfer *transfer, uint32_t stage)
{
    return &transfer->readiness.residency.stages[stage];
}

static uint32_t stage_of_window(const struct tnd_transfer *transfer, uint32_t window)
{
    const struct tnd_plan *plan = transfer->plan;

    return tnd_plan_stage(plan, plan->pieces[plan->windows[window].piece_first].tensor);
}

static void trace(const struct tnd_transfer *transfer, enum tnd_trace_kind kind, uint32_t stage, uint64_t start_ns)
{
    const struct tnd_plan *plan = transfer->plan;
    const struct tnd_stage *planned = &plan->stages[stage];
    bool has_slot = transfer->slot_bytes && stage > 0 && stage + 1 < plan->stage_count;

    if (transfer->trace.write)
        tnd_trace_tell(&transfer->trace, &(struct tnd_trace_event){
            .kind = kind,
            .slot = has_slot ? transfer->fetches[stage].slot : UINT32_MAX,
            .worker = UINT32_MAX,
            .start_ns = start_ns,
            .end_ns = transfer->readiness.now_ns(),
            .bytes = planned->bytes,
            .tensor = &plan->model->tensors[plan->tensors[planned->tensor_first]],
        });
}

/* ---- Begin ------------------------------------------------------------------------------------------------- */

static bool moves(const struct tnd_transfer *transfer, const struct tnd_window *window, const uint8_t *place)
{
    const struct tnd_io_file *file = &transfer->files[window->file];

    return !file->map || place < file->map || place >= file->map + file->bytes;
}

/* Points all that belongs to a stage to another slot. */
static void move_stage(struct tnd_transfer *transfer, uint32_t stage, uint32_t slot)
{
    const struct tnd_plan *plan = transfer->plan;
    const struct tnd_stage *planned = &plan->stages[stage];
    struct tnd_fetch *fetch = &transfer->fetches[stage];
    ptrdiff_t by = ((ptrdiff_t)slot - (ptrdiff_t)fetch->slot) * (ptrdiff_t)transfer->slot_bytes;

    for (uint32_t w = planned->window_first; w < planned->window_first + planned->window_count; w++) {
        const struct tnd_window *window = &plan->windows[w];

        if (transfer->homes[w])
            transfer->homes[w] += by;
        for (uint32_t p = window->piece_first; p < window->piece_first + window->piece_count; p++) {
            uint32_t tensor = plan->pieces[p].tensor;

            if (!moves(transfer, window, transfer->spans[p].destination))
                continue;
            transfer->spans[p].destination += by;
            if (plan->pieces[p].tensor_offset == 0)
                transfer->places[tensor] += by;
        }
    }
    fetch->slot = slot;
}

/* Whether the layers of a window, which will be read again, are read through the page cache: measured, that pays from
 * the third token on. A file that does not fit would only push out what others have there, and not one page of it would
 * be found again. */
static void decide_cache(struct tnd_transfer *transfer)
{
    uint64_t bytes = 0, available = tnd_memory_available(), untouched = tnd_transfer_untouched(transfer);

    available -= tnd_min(available, untouched);
    for (uint32_t i = 0; i < transfer->file_count; i++)
        bytes += transfer->files[i].bytes;
    transfer->fits_cache = bytes <= available / 100 * CACHE_PERCENT_MAX;
    transfer->windowed = true;
    if (!transfer->fits_cache)
        tnd_reasons_add(&transfer->reasons,
                        "files of %llu bytes do not fit the page cache: %llu are available, and each time the window "
                        "turns over they are read again from the disk",
                        (unsigned long long)bytes, (unsigned long long)available);
}

/* Where in its file a window's first wanted byte lies, and its last one ends. */
static uint64_t wanted_from(const struct tnd_plan *plan, const struct tnd_window *window)
{
    return window->offset + plan->pieces[window->piece_first].window_offset;
}

static uint64_t wanted_to(const struct tnd_plan *plan, const struct tnd_window *window)
{
    const struct tnd_piece *last = &plan->pieces[window->piece_first + window->piece_count - 1];

    return window->offset + last->window_offset + last->bytes;
}

/* The pages that a stage which left has in mappings and cache, run by run of its windows. The pages at both ends of a
 * run are its neighbours' too, and stay. */
static void forget_pages(struct tnd_transfer *transfer, const struct tnd_stage *planned)
{
    const struct tnd_plan *plan = transfer->plan;
    const struct tnd_window *windows = &plan->windows[planned->window_first];
    uint32_t first = 0;

    for (uint32_t i = 1; i <= planned->window_count; i++) {
        const struct tnd_window *before = &windows[i - 1];
        uint64_t from = wanted_from(plan, &windows[first]);

        if (i < planned->window_count && windows[i].file == before->file &&
            windows[i].offset <= before->offset + before->bytes)
            continue;
        tnd_file_forget(&transfer->files[before->file], from, wanted_to(plan, before) - from, transfer->fits_cache);
        first = i;
    }
}

/* All of a stage is to be read once more. */
static void forget(struct tnd_transfer *transfer, uint32_t stage)
{
    const struct tnd_stage *planned = &transfer->plan->stages[stage];
    struct tnd_fetch *fetch = &transfer->fetches[stage];

    tnd_readiness_forget(&transfer->readiness, stage, fetch->bytes_arrived);
    fetch->bytes_arrived = 0;
    memset(&transfer->arrived[planned->window_first], 0, planned->window_count * sizeof(*transfer->arrived));
}

/* Nothing of a stage that left is to be used any more. */
static void leave(struct tnd_transfer *transfer, uint32_t stage)
{
    trace(transfer, TND_TRACE_EVICT, stage, transfer->readiness.now_ns());
    forget(transfer, stage);
    forget_pages(transfer, &transfer->plan->stages[stage]);
#ifdef TND_POISON
    if (!transfer->upload.device)
        memset(transfer->slots + transfer->fetches[stage].slot * transfer->slot_bytes, 0xDB, transfer->slot_bytes);
#endif
}

/* From a window of the stage on, the next one that is not there yet; its window_count: none. */
static uint32_t next_missing(const struct tnd_transfer *transfer, uint32_t stage, uint32_t window)
{
    const struct tnd_stage *planned = &transfer->plan->stages[stage];

    while (window < planned->window_count && transfer->arrived[planned->window_first + window])
        window++;
    return window;
}

static void begin(struct tnd_transfer *transfer, const struct tnd_pick *pick)
{
    struct tnd_fetch *fetch = &transfer->fetches[pick->stage];
    uint32_t slot = use_of(transfer, pick->stage)->slot;

    if (pick->evicted != TND_STAGE_NONE)
        leave(transfer, pick->evicted);
    if (slot != TND_SLOT_NONE) {
        if (!transfer->windowed)
            decide_cache(transfer);
        move_stage(transfer, pick->stage, slot);
    }
    if (transfer->upload.device)
        tnd_upload_restart(transfer, pick->stage, slot);
    fetch->window_next = next_missing(transfer, pick->stage, 0);
    fetch->failed = fetch->changed = false;
    fetch->begun_ns = use_of(transfer, pick->stage)->begun_ns;
}

bool tnd_fetch_next(struct tnd_transfer *transfer, uint32_t *ret_window)
{
    struct tnd_readiness *readiness = &transfer->readiness;
    struct tnd_pick pick;
    bool found;

    pthread_mutex_lock(&readiness->mutex);
    found = tnd_residency_pick(&readiness->residency, readiness->now_ns(), &pick);
    pthread_mutex_unlock(&readiness->mutex);
    if (!found)
        return false;
    if (pick.begins)
        begin(transfer, &pick);
    *ret_window = transfer->plan->stages[pick.stage].window_first + transfer->fetches[pick.stage].window_next;
    return true;
}

/* ---- On its way -------------------------------------------------------------------------------------------- */

static void no_more_reads(struct tnd_transfer *transfer, uint32_t stage)
{
    pthread_mutex_lock(&transfer->readiness.mutex);
    tnd_residency_issued(&transfer->readiness.residency, stage);
    pthread_mutex_unlock(&transfer->readiness.mutex);
}

void tnd_fetch_issued(struct tnd_transfer *transfer, uint32_t window)
{
    uint32_t stage = stage_of_window(transfer, window);
    struct tnd_fetch *fetch = &transfer->fetches[stage];

    fetch->flying++;
    fetch->window_next = next_missing(transfer, stage, fetch->window_next + 1);
    if (fetch->window_next == transfer->plan->stages[stage].window_count)
        no_more_reads(transfer, stage);
}

/* ---- End --------------------------------------------------------------------------------------------------- */

/* Nothing of a failed stage is under way any more: its slot may be used by others. In a place of its own what arrived
 * stays, as somebody may be using those tensors already. */
static void finish_failed(struct tnd_transfer *transfer, uint32_t stage)
{
    if (use_of(transfer, stage)->slot != TND_SLOT_NONE)
        forget(transfer, stage);
    tnd_readiness_fail(&transfer->readiness, stage);
}

/* Keeps why a stage will not be there; what of it is under way still comes. */
static void spoil(struct tnd_transfer *transfer, uint32_t stage, const struct tnd_err *err)
{
    struct tnd_err **kept = &use_of(transfer, stage)->err; /* nobody looks before it has FAILED */

    if (!*kept)
        *kept = tnd_arena_alloc(&transfer->plan->arena, 1, sizeof(**kept));
    if (!*kept) {
        tnd_transfer_keep_error(transfer, err);
        return;
    }
    if (!transfer->fetches[stage].failed)
        **kept = *err;
    transfer->fetches[stage].failed = true;
    no_more_reads(transfer, stage);
}

int tnd_fetch_check(struct tnd_transfer *transfer, uint32_t stage)
{
    const struct tnd_stage *planned = &transfer->plan->stages[stage];
    uint32_t before = UINT32_MAX;
    struct tnd_err err = {0};
    int r = 0;

    for (uint32_t i = 0; i < planned->window_count && r >= 0; i++) {
        uint32_t file = transfer->plan->windows[planned->window_first + i].file;

        if (file != before && transfer->files[file].source)
            r = tnd_file_check_unchanged(transfer->files[file].source, &err);
        before = file;
    }
    transfer->fetches[stage].changed = r < 0;
    if (r < 0)
        spoil(transfer, stage, &err);
    return r;
}

static void landed(struct tnd_transfer *transfer, uint32_t stage)
{
    if (--transfer->fetches[stage].flying == 0 && transfer->fetches[stage].failed)
        finish_failed(transfer, stage);
}

void tnd_fetch_failed(struct tnd_transfer *transfer, uint32_t window, const struct tnd_err *err)
{
    uint32_t stage = stage_of_window(transfer, window);

    spoil(transfer, stage, err);
    landed(transfer, stage);
}

static bool is_last(const struct tnd_transfer *transfer, uint32_t stage)
{
    const struct tnd_fetch *fetch = &transfer->fetches[stage];

    return fetch->flying == 1 && !fetch->failed && fetch->window_next == transfer->plan->stages[stage].window_count;
}

void tnd_fetch_arrived(struct tnd_transfer *transfer, uint32_t window)
{
    uint32_t stage = stage_of_window(transfer, window);
    struct tnd_fetch *fetch = &transfer->fetches[stage];
    const struct tnd_window *read = &transfer->plan->windows[window];
    bool last = is_last(transfer, stage);
    /* A device's stages are looked at when they are marked: a stream may use them since. */
    bool good = !fetch->changed && (!last || transfer->upload.device || tnd_fetch_check(transfer, stage) >= 0);

    if (last && good)
        trace(transfer, TND_TRACE_FETCH, stage, fetch->begun_ns);
    transfer->arrived[window] = good;
    for (uint32_t i = 0; i < read->piece_count && good; i++) {
        const struct tnd_piece *piece = &transfer->plan->pieces[read->piece_first + i];

        fetch->bytes_arrived += piece->bytes;
        tnd_readiness_piece(&transfer->readiness, piece->tensor, piece->bytes);
    }
    landed(transfer, stage);
}
