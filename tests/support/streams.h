/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_TEST_STREAMS_H
#define TND_TEST_STREAMS_H

/* A GPU's streams and events, played by threads, for fakes of devices. What they mean is what CUDA says.
 *
 * A stream runs its items one after the other, some time later. Queueing makes visible to an item what the host wrote
 * before; waiting for an event, or a query that says yes, makes visible what had run when the event was recorded.
 * Nothing else orders anything: no lock or counter of the streams' own is seen by ThreadSanitizer as an order between a
 * stream and anybody else. A wait that somebody forgot is a data race in its eyes, however the threads happened to run.
 *
 * Threads: any; but calls with the same event need an order of their own, without which they mean nothing. Items call
 * nothing of this. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum streams_mode {
    STREAMS_DELAY, /* a pseudo-random while passes before each item */
    STREAMS_LAZY,  /* an item runs when somebody waits for it, or for one behind it, and not before. A query that says
                    * no lets one more item run, so that who only polls comes to an end too */
};

struct streams;
struct stream;
struct stream_item;

/* Zero-initialise: never recorded, which counts as over. Needs no destroying: may go while it is waited for. */
struct stream_event {
    struct stream_item *recorded;
};

#define STREAM_ARGUMENT_BYTES_MAX 64

struct streams *streams_create(enum streams_mode mode, uint64_t seed);
/* Runs what is queued first. Streams go with their set and not before, and so do the items that have run: to count who
 * still needs one would order threads. */
void streams_destroy(struct streams *streams);
struct stream *stream_create(struct streams *streams);

/* Queues run() with a copy of its argument. */
void stream_run(struct stream *stream, void (*run)(void *argument), const void *argument, size_t bytes);
/* Waits for all that was queued so far. */
void stream_synchronize(struct stream *stream);
/* What is queued from now on waits for what was recorded last until now, on any stream of the set. */
void stream_wait_event(struct stream *stream, const struct stream_event *event);

/* The event is over when all that was queued so far is. */
void stream_event_record(struct stream_event *event, struct stream *stream);
bool stream_event_query(const struct stream_event *event);
void stream_event_synchronize(const struct stream_event *event);

#endif
