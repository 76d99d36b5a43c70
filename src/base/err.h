/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_BASE_ERR_H
#define TND_BASE_ERR_H

#include <stdint.h>

/* A result and its sentence. Functions that can fail with more to say than an errno take one and return its result. */
struct tnd_err {
    int result;     /* -errno out of the header's short list */
    char text[640]; /* one sentence, no line feed */
};

/* Fills err and returns result. A NULL err keeps nothing. Unprintable bytes of the sentence become '?'. */
int tnd_fail(struct tnd_err *err, int result, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The nearest of the header's short list to what a system call answered; both negative. */
int tnd_errno_public(int result);

/* Keeps err's sentence for tnd_last_error() on this thread and returns its result. */
int tnd_err_publish(const struct tnd_err *err);

#endif
