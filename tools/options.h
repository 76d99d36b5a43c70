/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

/* The command line. One table in options.c says which options there are, what they take and which commands know them;
 * parsing, usage text, man page and completions read it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tundish.h"

enum command { COMMAND_INFO, COMMAND_PLAN, COMMAND_LOAD, COMMAND_WALK, COMMAND_DIGEST, COMMAND_VERIFY, COMMAND_DOCTOR,
               COMMAND_COUNT };

#define OPTION_AUTO UINT64_MAX /* of a number that may also be found out */

struct options {
    const char *model;
    bool help, json, verbose, lazy;
    bool by_layer; /* a walk's load, set by the command: in the background unless lazy */
    int engine, direct, in_place, order; /* enum tnd_engine, tnd_switch, tnd_switch, tnd_order */
    int dtype;                           /* of dtypes in library.c */
    int digest;                          /* enum tnd_digest */
    int algo;                            /* of hashes[] */
    int device;                          /* enum tnd_device_choice */
    uint32_t cuda_ordinal;
    const char *only;
    const char *manifest, *manifest_out;
    const char *trace, *svg;
    uint32_t layer_first, layer_count;
    uint64_t pool_bytes, chunk_bytes, memory_bytes;
    uint64_t depth, threads, streams, repeat, values, read_timeout_s;
    uint64_t tokens, compute_us, ahead; /* the last two may be OPTION_AUTO */
    uint64_t resident_bytes, resident_percent; /* one of them, or 0: all */
    double disk_bytes_per_s, h2d_bytes_per_s; /* 0 = not given */
};

/* arguments: what follows the command's name. Returns 0, or an exit code when a sentence has been written. */
int options_parse(struct options *options, enum command command, int argument_count, char **arguments);

/* What stands behind -h; of all commands without one (COMMAND_COUNT). */
void options_usage(enum command command);

/* The command of that name, COMMAND_COUNT when there is none. */
enum command options_command(const char *name);

/* ---- The tables -------------------------------------------------------------------------------------------- */

enum option_kind { OPTION_FLAG, OPTION_CHOICE, OPTION_BYTES, OPTION_COUNT, OPTION_TEXT, OPTION_FILE, OPTION_LAYERS,
                   OPTION_DEVICE, OPTION_RATE, OPTION_COUNT_AUTO, OPTION_SHARE };

struct option_spec {
    const char *name;
    const char *argument; /* NULL for a flag; for a choice the words themselves, in the order of their enum */
    const char *help;
    uint32_t commands; /* 1 << enum command, of each that knows it */
    enum option_kind kind;
    size_t member; /* of struct options */
    uint64_t min, max; /* of a number */
};

struct command_spec {
    const char *name, *help;
};

struct exit_spec {
    int code;
    const char *meaning;
};

extern const struct command_spec command_specs[COMMAND_COUNT];
/* Both end with an entry whose text is NULL. */
extern const struct option_spec option_specs[];
extern const struct exit_spec exit_specs[];

#endif
