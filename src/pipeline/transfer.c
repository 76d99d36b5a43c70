/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/transfer.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "model/model.h"

void tnd_transfer_account(struct tnd_transfer *transfer, uint64_t now_ns)
{
    uint64_t ns = now_ns - transfer->accounted_ns;

    if (transfer->reading)
        transfer->stats.read_busy_ns += ns;
    if (transfer->reading && transfer->working)
        transfer->stats.overlap_ns += ns;
    if (transfer->upload.device && transfer->working)
        transfer->stats.h2d_busy_ns += ns;
    transfer->accounted_ns = now_ns;
}

bool tnd_transfer_stopped(const struct tnd_transfer *transfer)
{
    return transfer->first_error.result || atomic_load(&transfer->canceled);
}

void tnd_transfer_keep_error(struct tnd_transfer *transfer, const struct tnd_err *err)
{
    if (!transfer->first_error.result)
        transfer->first_error = *err;
}

/* The tensor that has the byte at a file's offset, by the pieces of the window that was read. */
static const char *tensor_at(const struct tnd_transfer *transfer, const struct tnd_window *window, uint64_t offset)
{
    const struct tnd_piece *pieces = &transfer->plan->pieces[window->piece_first];
    uint32_t tensor = pieces[0].tensor;

    for (uint32_t i = 0; i < window->piece_count; i++)
        if (window->offset + pieces[i].window_offset <= offset)
            tensor = pieces[i].tensor;
    return transfer->plan->model->tensors[tensor].name;
}

void tnd_transfer_fail_read(struct tnd_transfer *transfer, uint32_t window_index, const struct tnd_io_read *read)
{
    const char *tensor = tensor_at(transfer, &transfer->plan->windows[window_index], read->error_offset);
    struct tnd_err err = {0};

    if (read->result == -EBADMSG)
        tnd_fail(&err, -EBADMSG,
                 "%s: cut while it was loaded: tensor %s, expected bytes up to %llu, found the end at %llu",
                 read->file->path, tensor, (unsigned long long)(read->offset + read->bytes_wanted),
                 (unsigned long long)read->error_offset);
    else
        tnd_fail(&err, read->result, "%s: read of tensor %s at offset %llu failed: %s", read->file->path, tensor,
                 (unsigned long long)read->error_offset, strerror(-read->result));
    if (transfer->fetches)
        tnd_fetch_failed(transfer, window_index, &err);
    else
        tnd_transfer_keep_error(transfer, &err);
}

void tnd_transfer_give_up(struct tnd_transfer *transfer, uint32_t window_index, const struct tnd_io_read *read,
                          uint64_t waited_ns, bool taken_back)
{
    const struct tnd_window *window = &transfer->plan->windows[window_index];
    struct tnd_err err = {0};

    transfer->stats.reads_given_up += !taken_back;
    tnd_fail(&err, -EIO, "%s: read of tensor %s at offset %llu has not come back for %.1f s and is given up",
             read->file->path, tensor_at(transfer, window, read->offset), (unsigned long long)read->offset,
             (double)waited_ns / TND_NS_PER_S);
    tnd_transfer_keep_error(transfer, &err);
}

void tnd_transfer_starve(struct tnd_transfer *transfer, uint32_t window_index)
{
    const struct tnd_window *window = &transfer->plan->windows[window_index];
    struct tnd_err err = {0};

    tnd_fail(&err, -EIO, "%s: tensor %s at offset %llu: all buffers are held by reads that never came back",
             transfer->files[window->file].path, tensor_at(transfer, window, window->offset),
             (unsigned long long)window->offset);
    tnd_transfer_keep_error(transfer, &err);
}

bool tnd_transfer_next(struct tnd_transfer *transfer, uint32_t *ret_window)
{
    if (tnd_transfer_stopped(transfer))
        return false;
    if (transfer->fetches)
        return tnd_fetch_next(transfer, ret_window);
    *ret_window = transfer->window_next;
    return transfer->window_next < transfer->plan->window_count;
}

void tnd_transfer_issued(struct tnd_transfer *transfer, uint32_t window)
{
    if (transfer->fetches)
        tnd_fetch_issued(transfer, window);
    else
        transfer->window_next++;
}

bool tnd_transfer_goes_on(struct tnd_transfer *transfer)
{
    bool wants;

    if (tnd_transfer_stopped(transfer))
        return false;
    if (!transfer->fetches)
        return transfer->window_next < transfer->plan->window_count;
    pthread_mutex_lock(&transfer->readiness.mutex);
    wants = tnd_residency_wants(&transfer->readiness.residency);
    pthread_mutex_unlock(&transfer->readiness.mutex);
    return wants;
}

bool tnd_transfer_attach(struct tnd_transfer *transfer, struct tnd_io_file *file, struct tnd_io *io,
                         struct tnd_workers *workers)
{
    struct tnd_err err = {0};

    if (tnd_io_attach(io, file, &err) < 0) {
        tnd_io_detach(io, file);
        tnd_transfer_keep_error(transfer, &err);
        return false;
    }
    if (!transfer->attached) /* from now on the destination is needed */
        tnd_transfer_touch(transfer, workers);
    transfer->attached = true;
    return true;
}

/* Lets go of the files that were read, and sees whether they are still what they were. A load that failed anyway has
 * its reason. */
static void detach(struct tnd_transfer *transfer, struct tnd_io *io)
{
    struct tnd_err err = {0};

    for (uint32_t i = 0; i < transfer->file_count; i++) {
        struct tnd_io_file *file = &transfer->files[i];

        if (!file->engine)
            continue;
        if (!transfer->stats.reads_given_up) /* closing a file of a server that hangs may hang too */
            tnd_io_detach(io, file);
        if (!transfer->first_error.result && file->source && tnd_file_check_identity(file->source, &err) < 0)
            tnd_transfer_keep_error(transfer, &err);
    }
}

void tnd_transfer_end(struct tnd_transfer *transfer, struct tnd_io *io)
{
    struct tnd_err err = {0};
    uint64_t bytes = atomic_load(&transfer->readiness.bytes_ready);

    if (atomic_load(&transfer->canceled) && bytes < transfer->plan->sizes.tensor_bytes) {
        tnd_fail(&err, -ECANCELED, "canceled after %llu of %llu bytes", (unsigned long long)bytes,
                 (unsigned long long)transfer->plan->sizes.tensor_bytes);
        tnd_transfer_keep_error(transfer, &err);
    }
    if (transfer->in_place == TND_ON && transfer->stats.pool_bytes_read)
        tnd_reasons_add(&transfer->reasons, "%llu bytes went through the pool: their place does not suit their offset",
                        (unsigned long long)transfer->stats.pool_bytes_read);
    tnd_upload_tell(transfer);
    detach(transfer, io);
    atomic_store(&transfer->touch_stop, true);
    if (transfer->fresh && !transfer->stats.reads_given_up)
        tnd_hide_from_children(transfer->fresh, transfer->fresh_bytes, false);
    tnd_readiness_end(&transfer->readiness, &transfer->first_error);
}

void tnd_transfer_read_done(struct tnd_transfer *transfer, struct tnd_io *io, const struct tnd_io_read *read,
                            bool through_pool)
{
    struct tnd_transfer_stats *stats = &transfer->stats;
    uint64_t bytes = read->bytes_done;

    stats->bytes_read += bytes;
    stats->read_count++;
    stats->retries += read->retries;
    stats->direct_bytes_read += read->was_direct ? bytes : 0;
    stats->pool_bytes_read += through_pool ? bytes : 0;
    stats->engine_bytes[tnd_io_engine_of(io, read)] += bytes;
    if (!transfer->fetches && --transfer->windows_left[read->file - transfer->files] == 0)
        tnd_io_detach(io, read->file); /* a model of hundreds of files would else hold as many descriptors more */
}

void tnd_transfer_worked(struct tnd_transfer *transfer, const struct tnd_chunk_work *work)
{
    struct tnd_chunk_work *sum = &transfer->stats.work;

    transfer->working--;
    sum->copy_ns += work->copy_ns;
    sum->convert_ns += work->convert_ns;
    sum->digest_ns += work->digest_ns;
    sum->converted_bytes += work->converted_bytes;
    sum->range.overflowed += work->range.overflowed;
    sum->range.underflowed += work->range.underflowed;
}

void tnd_transfer_arrived(struct tnd_transfer *transfer, uint32_t window_index)
{
    const struct tnd_window *window = &transfer->plan->windows[window_index];
    const struct tnd_piece *pieces = &transfer->plan->pieces[window->piece_first];

    if (transfer->fetches) {
        tnd_fetch_arrived(transfer, window_index);
        return;
    }
    for (uint32_t i = 0; i < window->piece_count; i++)
        tnd_readiness_piece(&transfer->readiness, pieces[i].tensor, pieces[i].bytes);
}
