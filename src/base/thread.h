/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_THREAD_H
#define TND_BASE_THREAD_H

#include <pthread.h>

/* pthread_create() of a thread that takes no signals: they are the caller's, whose threads expect them. 0 or -errno. */
int tnd_thread_create(pthread_t *ret_thread, void *(*run)(void *argument), void *argument);

#endif
