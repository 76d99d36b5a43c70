#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what is installed is all there, and can be used by somebody who has nothing else.

Method: install into an empty folder; compile the examples against that, by pkg-config; ask man, the shells and the
command itself whether they agree on the options.

    test_install.py TUNDISH MESON BUILD COMPILER EXAMPLES MODEL"""
import glob
import os
import re
import shutil
import subprocess
import sys

from test_cli import Skipped, TUNDISH, done, equal, run_all

MESON, BUILD, COMPILER, EXAMPLES, MODEL = sys.argv[2:7]
SANITIZE = os.environ.get("TUNDISH_SANITIZE", "none")
COMMANDS = ("info", "plan", "load", "walk", "digest", "verify", "doctor")
WORKER = {"tundish-generate", "tundish-worker"}  # where the libraries that worker/ takes are here


def output(*command, **options):
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert answer.returncode == 0, f"{command}: exit {answer.returncode}: {answer.stdout}{answer.stderr}"
    return answer.stdout


def install(case):
    """Returns the folder that stands for /."""
    root = case.path("root")
    output(MESON, "install", "-C", BUILD, "--no-rebuild", "--skip-subprojects", "--destdir", root)
    return root


def find(root, name):
    (path,) = glob.glob(os.path.join(root, "**", name), recursive=True)
    return path


def options_of(command):
    return sorted(re.findall(r"^  (-\S+)", done(command, "--help").stdout.decode(), re.M))


def all_options():
    return sorted(set().union(*map(options_of, COMMANDS)))


def completions(case):
    return [find(case.folder, name) for name in ("tundish.bash", "_tundish", "tundish.fish")]


# ---- what is there ----

def test_list(case):
    root = install(case)
    names = {os.path.basename(path) for path in glob.glob(os.path.join(root, "**"), recursive=True)
             if not os.path.isdir(path)}
    version = done("--version").stdout.decode().split()[1]
    equal("what is installed", names - WORKER, {
        "tundish", "tundish.h", "tundish_cuda.h", "libtundish.a", "libtundish.so", "libtundish.so.0",
        f"libtundish.so.{version}", "tundish.pc", "tundish.1", "tundish.bash", "_tundish", "tundish.fish"})
    for name, folder in (("tundish.1", "man/man1"), ("tundish.bash", "bash-completion/completions"),
                         ("_tundish", "zsh/site-functions"), ("tundish.fish", "fish/vendor_completions.d"),
                         ("tundish.h", "include"), ("tundish.pc", "pkgconfig"), ("tundish", "bin")):
        assert os.path.dirname(find(root, name)).endswith(folder), find(root, name)
    equal("the command", output(find(root, "tundish"), "--version"), f"tundish {version}\n")


# ---- the library ----

def pkg_config(root, *arguments):
    environment = {**os.environ, "PKG_CONFIG_SYSROOT_DIR": root,
                   "PKG_CONFIG_PATH": os.path.dirname(find(root, "tundish.pc"))}
    if not shutil.which("pkg-config"):
        raise Skipped("no pkg-config here")
    answer = subprocess.run(["pkg-config", *arguments, "tundish"], capture_output=True, text=True, env=environment,
                            check=False)
    if "liburing" in answer.stderr:
        raise Skipped("liburing is not the system's")
    equal("pkg-config", (answer.returncode, answer.stderr), (0, ""))
    # What is not ours was not installed into the folder: CUDA's static runtime lies where it lay.
    return [word[len(root):] if word.startswith(root + "/") and not os.path.exists(word) else word
            for word in answer.stdout.split()]


def compile_all(case, root, flags, expects_shared):
    sanitize = [] if SANITIZE == "none" else ["-fsanitize=" + SANITIZE]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.path.dirname(find(root, "libtundish.so.0"))}
    sources = glob.glob(os.path.join(EXAMPLES, "*.c"))
    assert len(sources) >= 3, sources
    for source in sources:
        program = case.path("program")
        output(*COMPILER.split(), "-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", *sanitize, "-o", program,
               source, *flags)
        equal("linked with the shared library", "libtundish" in output("ldd", program, env=environment),
              expects_shared)
        assert output(program, MODEL, env=environment), f"{source} printed nothing"


def test_shared(case):
    root = install(case)
    flags = pkg_config(root, "--cflags", "--libs")
    assert "-luring" not in flags, "who links with the shared library needs no liburing"
    compile_all(case, root, flags, True)


def test_static(case):
    root = install(case)
    flags = pkg_config(root, "--static", "--cflags", "--libs")
    compile_all(case, root, ["-l:libtundish.a" if flag == "-ltundish" else flag for flag in flags], False)


def test_version(case):
    root = install(case)
    equal("version", pkg_config(root, "--modversion"), [done("--version").stdout.decode().split()[1]])


# ---- the man page ----

def test_man(case):
    page = find(install(case), "tundish.1")
    with open(page, encoding="ascii") as file:
        text = file.read().replace("\\-", "-")
    for name in all_options() + list(COMMANDS):
        assert f"fB{name}\\fR" in text or f"\n.B {name}\n" in text, f"{name} is not in the page"
    checkers = (("mandoc", "-Tlint", "-Wwarning"), ("groff", "-ww", "-man", "-Tascii", "-z"))
    checkers = [checker for checker in checkers if shutil.which(checker[0])]
    if not checkers:
        raise Skipped("neither mandoc nor groff is here")
    for checker in checkers:
        answer = subprocess.run([*checker, page], capture_output=True, text=True, check=False)
        equal(checker[0], (answer.returncode, answer.stdout + answer.stderr), (0, ""))


# ---- completions ----

def bash(script, line):
    """What bash would offer at the end of a line."""
    words = line.split(" ")
    before = words[-2] if len(words) > 1 else ""
    code = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; '
            '_tundish tundish "${COMP_WORDS[-1]}" "$BEFORE"; printf "%s\\n" "${COMPREPLY[@]}"')
    return output("bash", "-c", code, "bash", script, *words, env={**os.environ, "BEFORE": before}).split("\n")[:-1]


def test_bash(case):
    install(case)
    script = completions(case)[0]
    output("bash", "-n", script)
    equal("commands", sorted(bash(script, "tundish ")), sorted(COMMANDS + ("--help", "--version")))
    for command in COMMANDS:
        equal(command, sorted(bash(script, f"tundish {command} -")), options_of(command))
    equal("words", bash(script, "tundish load --engine t"), ["threads"])
    equal("after an equals sign", bash(script, "tundish load --engine = m"), ["mmap"])
    equal("nothing yet", bash(script, "tundish load --direct ="), ["auto", "on", "off"])
    equal("a number", bash(script, "tundish load --depth "), [""])
    with open(case.path("a b.gguf"), "wb"):
        for line in "tundish info ", "tundish load --svg ", "tundish digest --engine nil ":
            equal(line, bash(script, line + case.path("a")), [case.path("a b.gguf")])
    equal("no such command", bash(script, "tundish nonsense -"), [""])


def test_other_shells(case):
    install(case)
    _, zsh, fish = completions(case)
    with open(zsh, encoding="utf-8") as file:
        text = file.read()
    for command in COMMANDS:
        (block,) = re.findall(rf"^    {command}\)\n(.*?);;", text, re.M | re.S)
        equal(f"zsh {command}", sorted(re.findall(r"^        '(-[\w-]+)", block, re.M)), options_of(command))
    with open(fish, encoding="utf-8") as file:
        lines = file.read().split("\n")
    found = {}
    for line in lines:
        match = re.match(r"complete -c tundish -n '__fish_seen_subcommand_from ([\w ]+)' -(l|s) ([\w-]+) ", line)
        for command in match.group(1).split() if match else ():
            found.setdefault(command, []).append(("--" if match.group(2) == "l" else "-") + match.group(3))
    equal("fish", {command: sorted(options) for command, options in found.items()},
          {command: options_of(command) for command in COMMANDS})
    for shell, arguments in (("zsh", ("-n", zsh)), ("fish", ("--no-execute", fish))):
        if shutil.which(shell):
            output(shell, *arguments)


if __name__ == "__main__":
    assert TUNDISH
    sys.exit(run_all(globals(), __doc__))
