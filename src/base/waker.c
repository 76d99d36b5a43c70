/* SPDX-License-Identifier: Apache-2.0 */
#include "base/waker.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int tnd_waker_init(struct tnd_waker *waker)
{
    atomic_init(&waker->sleeping, false);
    waker->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return waker->fd < 0 ? -errno : 0;
}

void tnd_waker_finish(struct tnd_waker *waker)
{
    if (waker->fd >= 0)
        close(waker->fd);
    waker->fd = -1;
}

void tnd_waker_prepare(struct tnd_waker *waker)
{
    /* Sequentially consistent: whoever puts work in place after the sleeper's last look sees this. */
    atomic_store(&waker->sleeping, true);
}

void tnd_waker_awake(struct tnd_waker *waker, bool fd_readable)
{
    eventfd_t count;

    atomic_store(&waker->sleeping, false);
    if (fd_readable)
        eventfd_read(waker->fd, &count);
}

void tnd_waker_signal(struct tnd_waker *waker)
{
    if (atomic_exchange(&waker->sleeping, false))
        eventfd_write(waker->fd, 1);
}
