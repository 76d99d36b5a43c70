/* SPDX-License-Identifier: Apache-2.0 */

/* Writes the man page, or what a shell completes, from the tables of options.c: tundish-describe man|bash|zsh|fish.
 * Runs when the command is built, and is not installed. */

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "text.h"
#include "tundish.h"

#define PAGE_DATE "2026-11-21" /* of the page's words */

static bool knows(const struct option_spec *spec, unsigned command)
{
    return spec->commands & 1U << command;
}

/* The next of the words that an argument can be; what is in capitals stands for something, and is none. */
static const char *next_word(const char *at, size_t *ret_bytes)
{
    while (*at != '\0') {
        size_t bytes = strcspn(at, "|"), capitals = 0;

        for (size_t i = 0; i < bytes; i++)
            capitals += isupper((unsigned char)at[i]) != 0;
        if (capitals == 0) {
            *ret_bytes = bytes;
            return at;
        }
        at += bytes + (at[bytes] == '|');
    }
    return NULL;
}

/* The words with blanks between them. Returns how many there were. */
static unsigned put_words(const struct option_spec *spec)
{
    const char *at = spec->argument ? spec->argument : "";
    unsigned count = 0;
    size_t bytes;

    while ((at = next_word(at, &bytes))) {
        printf("%s%.*s", count > 0 ? " " : "", (int)bytes, at);
        at += bytes + (at[bytes] == '|');
        count++;
    }
    return count;
}

static bool has_words(const struct option_spec *spec)
{
    size_t bytes;

    return spec->argument && next_word(spec->argument, &bytes);
}

/* Puts a backslash before each of the characters; a quote, where it must not end a string, is written as given. */
static void put_escaped(const char *text, const char *characters, const char *quote)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            fputs(quote, stdout);
            continue;
        }
        if (strchr(characters, *text))
            putchar('\\');
        putchar(*text);
    }
}

/* ---- The man page ------------------------------------------------------------------------------------------ */

/* A hyphen of roff is none of a shell, and an apostrophe none of a person. */
static void man_text(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    for (size_t length; *at != '\0'; at += length) {
        length = text_utf8(at, strlen((const char *)at));
        if (length == 2)
            printf("\\[u%04X]", (at[0] & 0x1FU) << 6 | (at[1] & 0x3FU));
        else if (length == 3)
            printf("\\[u%04X]", (at[0] & 0x0FU) << 12 | (at[1] & 0x3FU) << 6 | (at[2] & 0x3FU));
        else if (*at == '-')
            fputs("\\-", stdout);
        else if (*at == '\\')
            fputs("\\e", stdout);
        else if (*at == '\'')
            fputs("\\(aq", stdout);
        else
            putchar(*at);
    }
}

static void man_option(const struct option_spec *spec)
{
    unsigned known = 0, count = 0;

    printf(".TP\n\\fB");
    man_text(spec->name);
    printf("\\fR");
    if (spec->argument) {
        fputs(spec->kind == OPTION_CHOICE ? " \\fB" : " \\fI", stdout);
        man_text(spec->argument);
        printf("\\fR");
    }
    printf("\n");
    man_text(spec->help);
    printf(".\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        known += knows(spec, i);
    if (known == COMMAND_COUNT)
        return;
    fputs(known > 1 ? "Commands:" : "Command:", stdout);
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if (knows(spec, i))
            printf("%s \\fB%s\\fR", count++ > 0 ? "," : "", command_specs[i].name);
    printf(".\n");
}

/* What no table says. */
static const char man_description[] =
    ".SH DESCRIPTION\n"
    "Reads GGUF and safetensors files, plans the reads in the order in which a model\n"
    "uses its tensors, keeps several reads in flight past the page cache, and hands\n"
    "each tensor over as soon as it has arrived.\n"
    ".PP\n"
    ".I MODEL\n"
    "is a .gguf file (any part of a split one), a .safetensors file, an index of\n"
    "several (.safetensors.index.json), a folder that holds one of these, or\n"
    ".IR org / repo [: file ]\n"
    "as it lies in the Hugging Face cache.\n";

/* A program of its own, with options of its own. */
static const char man_generate[] =
    ".TP\n"
    ".B generate\n"
    "text of a model, computed on the CPU while it arrives: runs\n"
    ".BR tundish\\-generate ,\n"
    "whose\n"
    ".B \\-\\-help\n"
    "lists its options.\n"
    "Its model is a file or a folder.\n";

static const char man_end[] =
    ".PP\n"
    "A failure is one sentence on standard error.\n"
    "Standard output has data only.\n"
    ".SH ENVIRONMENT\n"
    ".TP\n"
    ".BR HF_HUB_CACHE \", \" HF_HOME \", \" XDG_CACHE_HOME\n"
    "Where the Hugging Face cache lies; below the home directory without them.\n"
    ".TP\n"
    ".BR NO_COLOR \", \" TERM\n"
    "When the first is not empty, or the second is\n"
    ".BR dumb ,\n"
    "progress is told in lines of its own and not written over.\n"
    ".SH EXAMPLES\n"
    ".nf\n"
    "tundish load model.gguf\n"
    "tundish load model.safetensors \\-\\-dtype f16 \\-\\-svg load.svg\n"
    "tundish walk model.gguf \\-\\-resident 50% \\-\\-svg walk.svg\n"
    "tundish digest model.gguf \\-\\-manifest\\-out model.manifest\n"
    "tundish verify model.gguf \\-\\-manifest model.manifest\n"
    ".fi\n";

static void man_page(void)
{
    printf(".TH TUNDISH 1 %s \"tundish %s\" \"User Commands\"\n.SH NAME\n"
           "tundish \\- move model weights from storage to where they are computed with\n.SH SYNOPSIS\n", PAGE_DATE,
           tnd_version());
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        printf("%s.B tundish %s\n.RI [ options ] %s\n", i > 0 ? ".br\n" : "", command_specs[i].name,
               i == COMMAND_DOCTOR ? "\" [\" MODEL ]" : "\" \" MODEL");
    fputs(man_description, stdout);
    printf(".SH COMMANDS\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        printf(".TP\n.B %s\n", command_specs[i].name);
        man_text(command_specs[i].help);
        printf(".\n");
    }
    fputs(man_generate, stdout);
    printf(".SH OPTIONS\nA value follows its option, or an equals sign.\n.I BYTES\nmay end in K, M, G or T: times "
           "1024 and its powers.\n");
    for (const struct option_spec *spec = option_specs; spec->name; spec++)
        man_option(spec);
    printf(".SH EXIT STATUS\n");
    for (const struct exit_spec *spec = exit_specs; spec->meaning; spec++) {
        printf(".TP\n.B %d\n", spec->code);
        man_text(spec->meaning);
        printf(".\n");
    }
    fputs(man_end, stdout);
}

/* ---- Shells ------------------------------------------------------------------------------------------------ */

static void bash_arguments(void)
{
    printf("    case $prev in\n");
    for (const struct option_spec *spec = option_specs; spec->name; spec++) {
        if (!spec->argument)
            continue;
        printf("    %s)\n", spec->name);
        if (spec->kind == OPTION_FILE) {
            printf("        compopt -o filenames\n        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n");
        } else if (has_words(spec)) {
            printf("        mapfile -t COMPREPLY < <(compgen -W '");
            put_words(spec);
            printf("' -- \"$cur\")\n");
        }
        printf("        return ;;\n");
    }
    printf("    esac\n");
}

static void bash_options(void)
{
    printf("    case ${COMP_WORDS[1]} in\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        printf("    %s) options='", command_specs[i].name);
        for (const struct option_spec *spec = option_specs; spec->name; spec++)
            if (knows(spec, i))
                printf("%s%s", spec == option_specs ? "" : " ", spec->name);
        printf("' ;;\n");
    }
    printf("    *) return ;;\n    esac\n");
}

/* An equals sign is a word of its own to bash. */
static void bash_completion(void)
{
    printf("# SPDX-License-Identifier: Apache-2.0\n# bash completion of tundish, made from its table of options\n\n"
           "_tundish()\n{\n    local cur=$2 prev=$3 options\n\n    COMPREPLY=()\n"
           "    if [ \"$cur\" = '=' ]; then\n        cur=\n"
           "    elif [ \"$prev\" = '=' ]; then\n        prev=${COMP_WORDS[COMP_CWORD - 2]}\n    fi\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        mapfile -t COMPREPLY < <(compgen -W '");
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        printf("%s ", command_specs[i].name);
    printf("--help --version' -- \"$cur\")\n        return\n    fi\n");
    bash_arguments();
    bash_options();
    printf("    case $cur in\n    -*)\n        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\") ;;\n"
           "    *)\n        compopt -o filenames\n        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
           "    esac\n}\ncomplete -F _tundish tundish\n");
}

static void zsh_option(const struct option_spec *spec)
{
    printf(" \\\n        '%s%s[", spec->name, spec->argument ? "=" : "");
    put_escaped(spec->help, "[]:\\", "'\\''");
    printf("]");
    if (spec->kind == OPTION_FILE) {
        printf(":file:_files");
    } else if (has_words(spec)) {
        printf(":value:(");
        put_words(spec);
        printf(")");
    } else if (spec->argument) {
        printf(":%s: ", spec->argument);
    }
    printf("'");
}

static void zsh_completion(void)
{
    printf("#compdef tundish\n# SPDX-License-Identifier: Apache-2.0\n# zsh completion of tundish, made from its table "
           "of options\n\n_tundish() {\n    local -a commands=(");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        printf("\n        '%s:", command_specs[i].name);
        put_escaped(command_specs[i].help, "\\", "'\\''");
        printf("'");
    }
    printf("\n    )\n\n    if (( CURRENT == 2 )); then\n        _describe -t commands command commands\n"
           "        return\n    fi\n    shift words\n    (( CURRENT-- ))\n    case $words[1] in\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        printf("    %s)\n        _arguments", command_specs[i].name);
        for (const struct option_spec *spec = option_specs; spec->name; spec++)
            if (knows(spec, i))
                zsh_option(spec);
        printf(" \\\n        ':model:_files' ;;\n");
    }
    printf("    esac\n}\n\n_tundish \"$@\"\n");
}

static void fish_option(const struct option_spec *spec)
{
    printf("complete -c tundish -n '__fish_seen_subcommand_from");
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if (knows(spec, i))
            printf(" %s", command_specs[i].name);
    printf("' %s", spec->name[1] == '-' ? "-l " : "-s ");
    fputs(spec->name + strspn(spec->name, "-"), stdout);
    if (spec->kind == OPTION_FILE) {
        printf(" -r -F");
    } else if (has_words(spec)) {
        printf(" -x -a '");
        put_words(spec);
        printf("'");
    } else if (spec->argument) {
        printf(" -x");
    }
    printf(" -d '");
    put_escaped(spec->help, "\\", "\\'");
    printf("'\n");
}

static void fish_completion(void)
{
    printf("# SPDX-License-Identifier: Apache-2.0\n# fish completion of tundish, made from its table of options\n\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        printf("complete -c tundish -f -n __fish_use_subcommand -a %s -d '", command_specs[i].name);
        put_escaped(command_specs[i].help, "\\", "\\'");
        printf("'\n");
    }
    for (const struct option_spec *spec = option_specs; spec->name; spec++)
        fish_option(spec);
}

int main(int argument_count, char **arguments)
{
    static const struct {
        const char *name;
        void (*write)(void);
    } forms[] = {{"man", man_page}, {"bash", bash_completion}, {"zsh", zsh_completion}, {"fish", fish_completion}};

    for (size_t i = 0; argument_count == 2 && i < sizeof(forms) / sizeof(forms[0]); i++)
        if (strcmp(arguments[1], forms[i].name) == 0) {
            forms[i].write();
            return fclose(stdout) == 0 ? EXIT_DONE : EXIT_FAILED;
        }
    return fail(EXIT_USAGE, "tundish-describe takes one of man, bash, zsh, fish");
}
