/* SPDX-License-Identifier: Apache-2.0 */
#include "server/callback.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/clock.h"
#include "server/log.h"

enum {
    EVENTS_MAX = 256,
    TRIES_MAX = 6,
    PAUSE_FIRST_MS = 250, /* doubled each time: 8 s in all */
    TRY_MS = 5000,
    LAST_MS = 5000,       /* for all that is left at the end */
};

/* What of libcurl is used, by its own names and types. */
struct curl {
    bool tried, opened;
    __typeof__(curl_global_init) *global_init;
    __typeof__(curl_global_cleanup) *global_cleanup;
    __typeof__(curl_easy_init) *init;
    __typeof__(curl_easy_setopt) *set;
    __typeof__(curl_easy_perform) *perform;
    __typeof__(curl_easy_getinfo) *get;
    __typeof__(curl_easy_cleanup) *cleanup;
    __typeof__(curl_easy_strerror) *strerror;
    __typeof__(curl_slist_append) *append;
    __typeof__(curl_slist_free_all) *free_all;
    CURL *handle;
    struct curl_slist *headers;
};

struct event {
    char *json;
    struct event *next;
};

struct callback {
    const char *url, *worker_id;
    struct curl curl; /* the thread's */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more; /* of events, or ending; by CLOCK_MONOTONIC */
    struct event *events, **events_end;
    unsigned event_count;
    bool ending;
    uint64_t last_ns; /* once ending: nothing is tried after that */
};

/* ---- libcurl ------------------------------------------------------------------------------------------------ */

static bool curl_open(struct curl *curl)
{
    const struct {
        void *member;
        const char *name;
    } symbols[] = {
        {&curl->global_init, "curl_global_init"}, {&curl->global_cleanup, "curl_global_cleanup"},
        {&curl->init, "curl_easy_init"},          {&curl->set, "curl_easy_setopt"},
        {&curl->perform, "curl_easy_perform"},    {&curl->get, "curl_easy_getinfo"},
        {&curl->cleanup, "curl_easy_cleanup"},    {&curl->strerror, "curl_easy_strerror"},
        {&curl->append, "curl_slist_append"},     {&curl->free_all, "curl_slist_free_all"},
    };

    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL); /* stays: threads may have destructors of it */

    for (size_t i = 0; library && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol)
            return false;
        memcpy(symbols[i].member, &symbol, sizeof(symbol));
    }
    return library && curl->global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static size_t discard(char *bytes, size_t size, size_t count, void *cookie)
{
    (void)bytes;
    (void)cookie;
    return size * count;
}

/* NULL: no memory. */
static struct curl_slist *make_headers(const struct curl *curl)
{
    struct curl_slist *type = curl->append(NULL, "Content-Type: application/json");
    struct curl_slist *headers = type ? curl->append(type, "Expect:") : NULL;

    if (!headers)
        curl->free_all(type);
    return headers;
}

/* No proxy, whatever the environment says: the URL is of whoever started this worker, mostly of this host, and results
 * are nobody else's. */
static void set_up(struct callback *callback)
{
    const struct curl *curl = &callback->curl;

    curl->set(curl->handle, CURLOPT_URL, callback->url);
    curl->set(curl->handle, CURLOPT_PROXY, "");
    curl->set(curl->handle, CURLOPT_NOSIGNAL, 1L);
    curl->set(curl->handle, CURLOPT_HTTPHEADER, curl->headers);
    curl->set(curl->handle, CURLOPT_WRITEFUNCTION, discard);
}

static bool curl_ready(struct callback *callback)
{
    struct curl *curl = &callback->curl;

    if (curl->handle && curl->headers)
        return true;
    if (!curl->tried) {
        curl->tried = true;
        curl->opened = curl_open(curl);
        if (!curl->opened)
            log_line(callback->worker_id, "callback: no libcurl.so.4 to be had: nothing is told to the URL");
    }
    if (!curl->opened)
        return false;
    if (!curl->handle)
        curl->handle = curl->init();
    if (!curl->headers)
        curl->headers = make_headers(curl);
    if (!curl->handle || !curl->headers) {
        log_line(callback->worker_id, "callback: an event is lost: no memory");
        return false;
    }
    set_up(callback);
    return true;
}

static void curl_finish(struct curl *curl)
{
    if (curl->handle)
        curl->cleanup(curl->handle);
    if (curl->headers)
        curl->free_all(curl->headers);
    if (curl->opened)
        curl->global_cleanup();
}

/* Whether the receiver took it: any 2xx. */
static bool try(struct callback *callback, const char *json, uint64_t timeout_ms)
{
    struct curl *curl = &callback->curl;
    CURLcode code;
    long status = 0;

    curl->set(curl->handle, CURLOPT_POSTFIELDSIZE, (long)strlen(json));
    curl->set(curl->handle, CURLOPT_POSTFIELDS, json);
    curl->set(curl->handle, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    code = curl->perform(curl->handle);
    curl->get(curl->handle, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK && status >= 200 && status < 300)
        return true;
    if (code == CURLE_OK)
        log_line(callback->worker_id, "callback: answered with status %ld", status);
    else
        log_line(callback->worker_id, "callback: %s", curl->strerror(code));
    return false;
}

/* ---- Events ------------------------------------------------------------------------------------------------- */

/* Waits so long, or until the end. Returns the milliseconds that are left for a try: TRY_MS, or fewer at the end. */
static uint64_t pause_before(struct callback *callback, uint64_t pause_ms)
{
    uint64_t until_ns = clock_ns() + pause_ms * CLOCK_MS, now_ns, left_ms = TRY_MS;
    struct timespec until = {(time_t)(until_ns / CLOCK_S), (long)(until_ns % CLOCK_S)};

    pthread_mutex_lock(&callback->lock);
    while (!callback->ending && pause_ms > 0)
        if (pthread_cond_timedwait(&callback->more, &callback->lock, &until) == ETIMEDOUT)
            break;
    now_ns = clock_ns();
    if (callback->ending)
        left_ms = callback->last_ns > now_ns ? (callback->last_ns - now_ns) / CLOCK_MS : 0;
    pthread_mutex_unlock(&callback->lock);
    return left_ms;
}

static bool is_ending(struct callback *callback)
{
    bool ending;

    pthread_mutex_lock(&callback->lock);
    ending = callback->ending;
    pthread_mutex_unlock(&callback->lock);
    return ending;
}

static void deliver(struct callback *callback, const char *json)
{
    uint64_t pause_ms = 0;

    if (!curl_ready(callback))
        return;
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        bool last = is_ending(callback);
        uint64_t left_ms = pause_before(callback, pause_ms);

        if (left_ms == 0)
            break;
        if (try(callback, json, left_ms))
            return;
        if (last)
            break;
        pause_ms = pause_ms ? 2 * pause_ms : PAUSE_FIRST_MS;
    }
    log_line(callback->worker_id, "callback: an event was given up");
}

/* The next one, which the caller destroys; NULL: there will be none. */
static struct event *take(struct callback *callback)
{
    struct event *event;

    pthread_mutex_lock(&callback->lock);
    while (!callback->events && !callback->ending)
        pthread_cond_wait(&callback->more, &callback->lock);
    event = callback->events;
    if (event) {
        callback->events = event->next;
        callback->event_count--;
        if (!callback->events)
            callback->events_end = &callback->events;
    }
    pthread_mutex_unlock(&callback->lock);
    return event;
}

static void event_destroy(struct event *event)
{
    free(event->json);
    free(event);
}

static void *run(void *argument)
{
    struct callback *callback = argument;

    for (struct event *event; (event = take(callback)) != NULL;) {
        deliver(callback, event->json);
        event_destroy(event);
    }
    curl_finish(&callback->curl);
    return NULL;
}

int callback_create(const char *url, const char *worker_id, struct callback **ret_callback)
{
    struct callback *callback = calloc(1, sizeof(*callback));
    pthread_condattr_t attributes;
    int r;

    if (!callback)
        return -ENOMEM;
    callback->url = url;
    callback->worker_id = worker_id;
    callback->events_end = &callback->events;
    pthread_mutex_init(&callback->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&callback->more, &attributes);
    pthread_condattr_destroy(&attributes);
    r = -pthread_create(&callback->thread, NULL, run, callback);
    if (r == 0) {
        *ret_callback = callback;
        return 0;
    }
    pthread_cond_destroy(&callback->more);
    pthread_mutex_destroy(&callback->lock);
    free(callback);
    return r;
}

void callback_destroy(struct callback **ref_callback)
{
    struct callback *callback = *ref_callback;

    if (!callback)
        return;
    pthread_mutex_lock(&callback->lock);
    callback->ending = true;
    callback->last_ns = clock_ns() + LAST_MS * CLOCK_MS;
    pthread_cond_signal(&callback->more);
    pthread_mutex_unlock(&callback->lock);
    pthread_join(callback->thread, NULL);
    pthread_cond_destroy(&callback->more);
    pthread_mutex_destroy(&callback->lock);
    free(callback);
    *ref_callback = NULL;
}

void callback_post(struct callback *callback, char *json)
{
    struct event *event = json ? calloc(1, sizeof(*event)) : NULL;
    bool taken = false;

    pthread_mutex_lock(&callback->lock);
    if (event && callback->event_count < EVENTS_MAX) {
        event->json = json;
        *callback->events_end = event;
        callback->events_end = &event->next;
        callback->event_count++;
        taken = true;
        pthread_cond_signal(&callback->more);
    }
    pthread_mutex_unlock(&callback->lock);
    if (taken)
        return;
    log_line(callback->worker_id, "callback: an event is lost: too many wait, or no memory");
    free(event);
    free(json);
}
