/* SPDX-License-Identifier: Apache-2.0 */
#include "interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

static atomic_bool noted; /* set by the handler, read on any thread */

static void note(int signal_number)
{
    (void)signal_number;
    noted = true; /* tnd_load_cancel() takes a lock, which a handler must not */
}

void interrupt_init(void)
{
    /* No SA_RESTART: a write to a pipe that nobody empties ends too. */
    struct sigaction action = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND}, before;

    sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(SIGINT, &action, NULL);
}

static char cut_sentence[4352];

static void cut(int signal_number)
{
    (void)signal_number;
    if (write(STDERR_FILENO, cut_sentence, strlen(cut_sentence)) < 0)
        _exit(EXIT_FAILED);
    _exit(EXIT_MALFORMED);
}

void interrupt_on_cut(const char *model)
{
    struct sigaction action = {.sa_handler = cut};

    snprintf(cut_sentence, sizeof(cut_sentence), "tundish: %s: cut, or its disk failed, while its mapping was read\n",
             model);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

bool interrupted(void)
{
    return noted;
}

static void mask(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(how, &set, NULL);
}

void interrupt_hold(void)
{
    mask(SIG_BLOCK);
}

void interrupt_release(void)
{
    mask(SIG_UNBLOCK);
}
