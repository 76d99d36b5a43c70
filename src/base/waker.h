/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_WAKER_H
#define TND_BASE_WAKER_H

/* Wakes one thread that sleeps on a descriptor; costs nothing while it is awake.
 *
 *   the sleeper   tnd_waker_prepare(); looks once more for work; if there is none waits until fd is readable;
 *                 tnd_waker_awake()
 *   the others    put the work where the sleeper looks; tnd_waker_signal() */

#include <stdatomic.h>
#include <stdbool.h>

struct tnd_waker {
    int fd; /* an eventfd */
    atomic_bool sleeping;
};

int tnd_waker_init(struct tnd_waker *waker); /* -errno */
void tnd_waker_finish(struct tnd_waker *waker);
void tnd_waker_prepare(struct tnd_waker *waker);
/* fd_readable: it was seen to be; takes that back. */
void tnd_waker_awake(struct tnd_waker *waker, bool fd_readable);
void tnd_waker_signal(struct tnd_waker *waker); /* any thread */

#endif
