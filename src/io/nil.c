/* SPDX-License-Identifier: Apache-2.0 */

/* Answers every read at once and moves nothing: what a load costs without its disk. */

#include <errno.h>

#include "io/io.h"

struct nil {
    struct tnd_io_engine engine;
    struct tnd_allocator allocator;
    struct tnd_io_read *done;
};

static void nil_submit(struct tnd_io_engine *engine, struct tnd_io_read *read)
{
    struct nil *nil = (struct nil *)engine;

    read->answer = read->bytes_wanted - read->bytes_done;
    read->next = nil->done;
    nil->done = read;
}

static struct tnd_io_read *nil_reap(struct tnd_io_engine *engine)
{
    struct nil *nil = (struct nil *)engine;
    struct tnd_io_read *done = nil->done;

    nil->done = NULL;
    return done;
}

static void nil_destroy(struct tnd_io_engine *engine)
{
    struct nil *nil = (struct nil *)engine;
    struct tnd_allocator allocator = nil->allocator;

    tnd_free(&allocator, nil);
}

static const struct tnd_io_engine_ops nil_ops = {
    .name = "nil",
    .destroy = nil_destroy,
    .submit = nil_submit,
    .reap = nil_reap,
};

int tnd_io_nil_create(struct tnd_io_engine **ret_engine, const struct tnd_io_options *options, struct tnd_err *err)
{
    struct nil *nil = tnd_zalloc(&options->allocator, 1, sizeof(*nil));

    if (!nil)
        return tnd_fail(err, -ENOMEM, "no memory for an engine");
    nil->engine.ops = &nil_ops;
    nil->allocator = options->allocator;
    *ret_engine = &nil->engine;
    return 0;
}
