/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TND_OPTIONS_H
#define TND_OPTIONS_H

/* The callers' option structs, checked and with their defaults filled in. */

#include "base/err.h"
#include "plan/plan.h"

/* Copies as many bytes as both sides know. -EINVAL for an impossible size. */
int tnd_options_copy(void *options, size_t bytes, const void *given, const char *what, struct tnd_err *err);

int tnd_loader_options_init(struct tnd_loader_options *options, const struct tnd_loader_options *given,
                            struct tnd_err *err);
int tnd_load_options_init(struct tnd_load_options *options, const struct tnd_load_options *given, struct tnd_err *err);

struct tnd_plan_options tnd_plan_options_of(const struct tnd_loader_options *loader,
                                            const struct tnd_load_options *load);

/* Buffers the pool starts with, in bytes, for a plan that ends on the host or on a device. */
uint64_t tnd_pool_start_bytes(const struct tnd_loader_options *options, const struct tnd_plan_sizes *sizes,
                              bool on_device);

/* How far the depth may be raised: a depth that was given stays. given: the caller's, before its defaults. */
uint32_t tnd_depth_max(const struct tnd_loader_options *options, uint32_t given);

/* Bytes that a new load may take. */
uint64_t tnd_budget_bytes(const struct tnd_loader_options *options);

#endif
