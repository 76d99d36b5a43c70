#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the tree keeps its shape. Method: read the files, compare with the tables below, one line per violation.

    tidy.py ROOT [--library libtundish.so]    checks a tree, and what a built library exports
    tidy.py ROOT --self-test                  plants each kind of violation in a copy and sees that it is caught
"""
import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile

# A room of src/ and what its files may include besides their own room and the public header. Top: the files in src/.
ROOMS = {
    "base": set(),
    "kernels": {"base"},
    "model": {"base"},
    "format": {"base", "model"},
    "plan": {"base", "kernels", "model"},
    "io": {"base", "model"},
    "device": {"base", "kernels"},
    "pipeline": {"base", "kernels", "model", "plan", "io", "device"},
    "": {"base", "kernels", "model", "format", "plan", "io", "device", "pipeline"},
}
# What the files of cuda/ may include of src/ besides their own, which they call by name.
CUDA_SEES = {"base", "kernels", "model", "io", "device"}
# Folders whose C sees the public header and its own files only.
OUTSIDE = ("tools", "examples", "bench")
# Their files that see a room of src/ or worker/ as well: kernels have no name in the public header, and are measured
# one by one.
OUTSIDE_SEES = {"bench/kernels.c": {"kernels"}, "bench/worker_kernels.c": {"kernels"}}
# A room of worker/ and which others of worker/ it sees besides the public header. Top: its programs.
WORKER_ROOMS = {
    "kernels": set(),
    "text": set(),
    "decoder": {"kernels"},
    "generate": {"kernels", "text", "decoder"},
    "server": {"text", "generate"},
    "": {"kernels", "text", "decoder", "generate", "server"},
}
# Files of worker/ that see a room of src/ as well: what a block's bytes mean is told once.
WORKER_SEES = {"worker/kernels/decode.c": {"kernels"}}
# Pattern in code (comments and strings are blanked first), files that may have it, files to look at.
ONLY_IN = [
    (r"#\s*include\s*[<\"]liburing(/|\.h)", ["src/io/uring.c", "bench/probe*", "tests/conformance/test_ring.c"]),
    (r"#\s*include\s*[<\"](imm|x86|x|p|e|t|s|n|w|a)\w*intrin\.h", ["src/kernels/*", "worker/kernels/*",
                                                                       "bench/memory.c"]),
    (r"\b_mm\d*_\w+\s*\(", ["src/kernels/*", "worker/kernels/*", "bench/memory.c"]),
    (r"#\s*include\s*[<\"]cuda\w*\.h", ["cuda/*", "tests/cuda/*", "tests/support/fake_cuda.h",
                                                "bench/gpu_limits.c"]),
    (r"#\s*include\s*[<\"]cuda/", ["tests/*"]),
    (r"__(shfl|ballot|any|all|match|reduce|activemask|syncwarp)\w*\s*\(", []),  # of warps: the shim has none
    (r"\b(secure_)?getenv\s*\(", ["tools/*", "bench/*", "tests/*", "examples/*", "worker/*_main.c"]),
    (r"\b(printf|fprintf|vprintf|vfprintf|dprintf|puts|fputs|putchar|perror)\s*\(",
     ["tools/*", "bench/*", "tests/*", "examples/*", "worker/*_main.c", "worker/server/log.c"]),
    (r"\b(exit|_exit|_Exit|quick_exit|abort)\s*\(",
     ["tools/*", "bench/*", "tests/*", "examples/*", "worker/*_main.c"]),
    (r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca|system|popen)\s*\(", []),
]
COLUMNS_MAX = 120
CODE_FOLDERS = ("include", "src", "tools", "examples", "bench", "tests", "cuda", "worker")
CODE_ENDINGS = (".c", ".cc", ".h", ".cu")
SPDX_ENDINGS = CODE_ENDINGS + (".py", ".sh", ".map", "meson.build", "meson_options.txt")
SPDX_SCRIPTS = ("demo", "check", ".ci/run")
TEXT_ENDINGS = SPDX_ENDINGS + (".wrap", ".editorconfig", ".in")
MARKDOWN_ENDING = ".md"  # tables and links do not break
SKIPPED_FOLDERS = {".git", ".cache", "__pycache__"}


def listing(root):
    """The tree's own files: git's view where there is one, else everything but build folders."""
    if os.path.isdir(os.path.join(root, ".git")):
        answer = subprocess.run(["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                capture_output=True, check=False)
        if answer.returncode == 0:
            names = answer.stdout.decode().split("\0")
            return sorted({name for name in names if name and os.path.isfile(os.path.join(root, name))})
    names = []
    for folder, folders, files in os.walk(root):
        below = os.path.relpath(folder, root)
        folders[:] = [name for name in folders
                      if name not in SKIPPED_FOLDERS and not (below == "." and name.startswith("build"))]
        if below.startswith("subprojects") and "packagefiles" not in below:
            folders[:] = [name for name in folders if name == "packagefiles"]
        names += [os.path.normpath(os.path.join(below, name)) for name in files]
    return sorted(names)


def blank(source):
    """Comments and the insides of strings become blanks; lines and include names stay."""
    token = re.compile(r'(?P<include>^[ \t]*#[ \t]*include[^\n]*)|/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
                       r"|'(?:\\.|[^'\\\n])*'", re.S | re.M)
    return token.sub(lambda m: m.group() if m.group("include") else re.sub(r"[^\n]", " ", m.group()), source)


class Tidy:
    def __init__(self, root, library=None):
        self.root = root
        self.library = library
        self.problems = []
        self.files = listing(root)
        self.texts = {}

    def problem(self, rule, path, line, sentence):
        self.problems.append((rule, f"{path}:{line}: {rule}: {sentence}" if line else f"{path}: {rule}: {sentence}"))

    def text(self, path):
        if path not in self.texts:
            try:
                with open(os.path.join(self.root, path), encoding="utf-8") as file:
                    self.texts[path] = file.read()
            except (OSError, UnicodeDecodeError):
                self.texts[path] = ""
        return self.texts[path]

    def code(self):
        return [path for path in self.files
                if path.endswith(CODE_ENDINGS) and path.split("/")[0] in CODE_FOLDERS]

    def check_includes(self):
        for path in self.code():
            parts = path.split("/")
            for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', blank(self.text(path)), re.M):
                name = match.group(1)
                line = self.text(path).count("\n", 0, match.start()) + 1
                if name in ("tundish.h", "tundish_cuda.h"):
                    continue
                if parts[0] == "include":
                    self.problem("include", path, line, f'a public header includes "{name}"')
                elif parts[0] == "src":
                    room = parts[1] if len(parts) > 2 else ""
                    target = name.split("/")[0] if "/" in name else ""
                    if room not in ROOMS:
                        self.problem("room", path, line, f"src/{room}/ is in no rule of tests/tidy.py")
                    elif target not in ROOMS or (target != room and target not in ROOMS[room]):
                        self.problem("include", path, line,
                                     f'"{name}" points up or sideways: {room or "src"} may see '
                                     f'{", ".join(sorted(ROOMS[room])) or "no other room"}')
                elif parts[0] == "cuda":
                    if f"cuda/{name}" not in self.files and name.split("/")[0] not in CUDA_SEES:
                        self.problem("include", path, line,
                                     f'"{name}": cuda may see {", ".join(sorted(CUDA_SEES))} and its own files')
                elif parts[0] == "worker":
                    room = parts[1] if len(parts) > 2 else ""
                    target = name.split("/")[0] if "/" in name else ""
                    sees = {room, ""} | WORKER_ROOMS.get(room, set())
                    if room not in WORKER_ROOMS:
                        self.problem("room", path, line, f"worker/{room}/ is in no rule of tests/tidy.py")
                    elif f"worker/{name}" in self.files and target in sees:
                        continue
                    elif f"src/{name}" not in self.files or target not in WORKER_SEES.get(path, ()):
                        self.problem("include", path, line,
                                     f'"{name}": worker/{room} may see {", ".join(sorted(sees - {""}))}')
                elif parts[0] in OUTSIDE:
                    own = os.path.normpath(os.path.join(os.path.dirname(path), name))
                    seen = name.split("/")[0] in OUTSIDE_SEES.get(path, ()) and \
                        (f"src/{name}" in self.files or f"worker/{name}" in self.files)
                    if not seen and (own not in self.files or own.split("/")[0] != parts[0]):
                        self.problem("outside", path, line, f'"{name}": {parts[0]}/ sees the public header only')

    def check_banned(self):
        for path in self.code():
            code = blank(self.text(path))
            for pattern, rooms in ONLY_IN:
                if any(fnmatch.fnmatch(path, room) for room in rooms):
                    continue
                for match in re.finditer(pattern, code):
                    line = code.count("\n", 0, match.start()) + 1
                    self.problem("banned", path, line,
                                 f"{match.group().strip()} … belongs in {', '.join(rooms) or 'no file'}")

    def check_text(self):
        for path in self.files:
            text = self.text(path)
            if path.endswith(SPDX_ENDINGS) or path in SPDX_SCRIPTS:
                if "SPDX-License-Identifier: " not in "\n".join(text.split("\n")[:3]):
                    self.problem("spdx", path, 1, "no SPDX line at the top")
            if not (path.endswith(TEXT_ENDINGS + (MARKDOWN_ENDING,)) or path in SPDX_SCRIPTS):
                continue
            for number, line in enumerate(text.split("\n"), 1):
                if "\t" in line and not path.startswith("subprojects/packagefiles/"):
                    self.problem("tab", path, number, "a tab")
                if line != line.rstrip():
                    self.problem("blank", path, number, "blanks at the end of the line")
                if len(line) > COLUMNS_MAX and not path.endswith(MARKDOWN_ENDING):
                    self.problem("columns", path, number, f"{len(line)} columns, at most {COLUMNS_MAX}")
                if re.search(r"\b(TODO|FIXME|XXX)\b(?!: \w+ \w+)", line) and path != "tests/tidy.py":
                    self.problem("todo", path, number, "a TODO says what would make it worth doing: 'TODO: reason'")
            if text and not text.endswith("\n"):
                self.problem("newline", path, text.count("\n") + 1, "no line feed at the end")

    def check_guards(self):
        seen = {}
        for path in self.code():
            if path.endswith(".h"):
                match = re.search(r"^#ifndef (\w+)\n#define \1\n", self.text(path), re.M)
                if not match:
                    self.problem("guard", path, 1, "no include guard")
                elif seen.setdefault(match.group(1), path) != path:
                    self.problem("guard", path, 1, f"{match.group(1)} is also the guard of {seen[match.group(1)]}")

    def check_dead(self):
        """Each C file is named by the meson.build beside it or above it; each header is included by somebody."""
        for path in self.code():
            if path.endswith((".c", ".cc", ".cu")):
                folder = os.path.dirname(path)
                while folder and not os.path.isfile(os.path.join(self.root, folder, "meson.build")):
                    folder = os.path.dirname(folder)
                name = os.path.relpath(path, folder) if folder else path
                build = self.text(os.path.join(folder, "meson.build")) if folder else ""
                stem = name[:-2] if name.endswith(".c") else name
                listed = f"'{name}'" in build or (path.startswith("tests/") and f"'{os.path.basename(stem)}'" in build)
                if not listed:
                    self.problem("dead", path, 0, f"listed in no {folder or '.'}/meson.build")
        included = set()
        for path in self.code():
            for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', self.text(path), re.M):
                included.add(os.path.basename(match.group(1)))
        for path in self.code():
            if path.endswith(".h") and os.path.basename(path) not in included:
                self.problem("dead", path, 0, "no file includes it")

    def check_symbols(self):
        header = "".join(blank(self.text(path)) for path in self.files if fnmatch.fnmatch(path, "include/*.h"))
        declared = set(re.findall(r"^TND_API\b[^;(]*?\b(tnd_\w+)\s*\(", header, re.M))
        script = blank(self.text("src/tundish.map"))
        listed = set(re.findall(r"^\s*(tnd_\w+);", script, re.M))
        if not declared or not listed:
            self.problem("symbols", "src/tundish.map", 0, "nothing found in include/ or in the script")
        for name in sorted(declared - listed):
            self.problem("symbols", "src/tundish.map", 0, f"{name} of the header is missing")
        for name in sorted(listed - declared):
            self.problem("symbols", "src/tundish.map", 0, f"{name} is in no header")
        hidden = re.findall(r"^(?!TND_API|typedef|#)\w[\w \*]*?\b(tnd_\w+)\([^;{]*\);", header, re.M)
        for name in sorted(set(hidden)):
            self.problem("symbols", "include", 0, f"{name} is declared without TND_API")
        if self.library:
            answer = subprocess.run(["nm", "-D", "--defined-only", self.library], capture_output=True, text=True,
                                    check=False)
            lines = [line for line in answer.stdout.splitlines() if " A " not in line]
            exported = {re.sub(r"@.*", "", line.split()[-1]) for line in lines}
            if answer.returncode != 0:
                self.problem("exports", self.library, 0, answer.stderr.strip() or "nm failed")
            for name in sorted(declared - exported):
                self.problem("exports", self.library, 0, f"{name} is declared but not exported")
            for name in sorted(exported - declared):
                self.problem("exports", self.library, 0, f"{name} is exported but not declared")

    def check_map(self):
        """The README's map names every top-level folder."""
        readme = self.text("README.md")
        for folder in sorted({path.split("/")[0] for path in self.files if "/" in path}):
            if not folder.startswith(".") and not re.search(rf"`?\b{re.escape(folder)}/", readme):
                self.problem("map", "README.md", 0, f"{folder}/ is not in the map of the folders")

    def run(self):
        for name in sorted(name for name in dir(self) if name.startswith("check_")):
            getattr(self, name)()
        return self.problems


def append(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def replace(path, old, new):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if old not in text:
        raise SystemExit(f"tidy: self-test finds no {old!r} in {path}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new, 1))


# What is planted, the rule that must catch it, the file it must be caught in.
PLANTS = [
    ("base sees io", "include", "src/base/mem.c", lambda p: append(p, '#include "io/io.h"\n')),
    ("base sees model", "include", "src/base/mem.c", lambda p: append(p, '#include "model/model.h"\n')),
    ("model sees format", "include", "src/model/model.c", lambda p: append(p, '#include "format/format.h"\n')),
    ("format sees io", "include", "src/format/gguf.c", lambda p: append(p, '#include "io/io.h"\n')),
    ("plan sees pipeline", "include", "src/plan/plan.c", lambda p: append(p, '#include "pipeline/pool.h"\n')),
    ("io sees plan", "include", "src/io/file.c", lambda p: append(p, '  #  include "plan/plan.h"\n')),
    ("pipeline sees loader", "include", "src/pipeline/pool.c", lambda p: append(p, '#include "loader.h"\n')),
    ("pipeline sees format", "include", "src/pipeline/pool.c", lambda p: append(p, '#include "format/format.h"\n')),
    ("a path out of its room", "include", "src/base/mem.c", lambda p: append(p, '#include "../io/io.h"\n')),
    ("a room without rule", "room", "src/attic/new.c", lambda p: append(p, '#include "base/mem.h"\n')),
    ("a public header sees a room", "include", "include/tundish.h", lambda p: append(p, '#include "base/mem.h"\n')),
    ("tools see src", "outside", "tools/main.c", lambda p: append(p, '#include "base/mem.h"\n')),
    ("tools see src by path", "outside", "tools/main.c", lambda p: append(p, '#include "../src/base/mem.h"\n')),
    ("examples see src", "outside", "examples/new.c", lambda p: append(p, '#include "loader.h"\n')),
    ("a tokenizer sees the decoder", "include", "worker/text/new.c",
     lambda p: append(p, '#include "decoder/decoder.h"\n')),
    ("the worker sees src", "include", "worker/generate/new.c", lambda p: append(p, '#include "plan/plan.h"\n')),
    ("a room of the worker without rule", "room", "worker/attic/new.c", lambda p: append(p, '#include "failure.h"\n')),
    ("a bench sees kernels", "outside", "bench/load.c", lambda p: append(p, '#include "kernels/kernel.h"\n')),
    ("the kernels' bench sees io", "outside", "bench/kernels.c", lambda p: append(p, '#include "io/io.h"\n')),
    ("liburing in the pipeline", "banned", "src/pipeline/pool.c", lambda p: append(p, "#include <liburing.h>\n")),
    ("liburing in another engine", "banned", "src/io/threads.c", lambda p: append(p, "#include <liburing.h>\n")),
    ("cuda.h in the pipeline", "banned", "src/pipeline/pool.c", lambda p: append(p, "#include <cuda.h>\n")),
    ("liburing in the command", "banned", "tools/main.c", lambda p: append(p, "#include <liburing.h>\n")),
    ("intrinsics in base", "banned", "src/base/mem.c", lambda p: append(p, "#include <immintrin.h>\n")),
    ("a call of an intrinsic", "banned", "src/plan/plan.c", lambda p: append(p, "int q = _mm_crc32_u8(0, 0);\n")),
    ("environment in the library", "banned", "src/loader.c", lambda p: append(p, 'char *q = getenv("HOME");\n')),
    ("printing in the library", "banned", "src/load.c", lambda p: append(p, 'int q = printf("x");\n')),
    ("printing to stderr", "banned", "src/load.c", lambda p: append(p, 'int q = fprintf(stderr, "x");\n')),
    ("exit in the library", "banned", "src/io/io.c", lambda p: append(p, "void q(void) { exit(1); }\n")),
    ("abort in the library", "banned", "src/format/json.c", lambda p: append(p, "void q(void) { abort (); }\n")),
    ("strcpy", "banned", "tools/main.c", lambda p: append(p, "void q(void) { strcpy(a, b); }\n")),
    ("cuda sees the pipeline", "include", "cuda/device_cuda.c",
     lambda p: append(p, '#include "pipeline/pool.h"\n')),
    ("cuda", "banned", "src/device/host.c", lambda p: append(p, "#include <cuda_runtime_api.h>\n")),
    ("cuda in a test of the library", "banned", "tests/unit/test_load.c", lambda p: append(p, "#include <cuda.h>\n")),
    ("kernels of cuda in the pipeline", "banned", "src/pipeline/pool.c",
     lambda p: append(p, '#include "cuda/kernels.h"\n')),
    ("cuda sees pipeline", "include", "cuda/kernels.cu", lambda p: append(p, '#include "pipeline/pool.h"\n')),
    ("an intrinsic of warps", "banned", "cuda/kernels.cu", lambda p: append(p, "int q = __shfl_sync(0, 0, 0);\n")),
    ("a kernel that nobody builds", "dead", "cuda/attic.cu", lambda p: append(p, "int q;\n")),
    ("C++ that nobody builds", "dead", "tests/cuda/attic.cc", lambda p: append(p, "int q;\n")),
    ("no SPDX line in C", "spdx", "src/base/mem.c", lambda p: replace(p, "SPDX-", "")),
    ("no SPDX line in Python", "spdx", "tests/count.py", lambda p: replace(p, "SPDX-", "")),
    ("no SPDX line in a script", "spdx", "check", lambda p: replace(p, "SPDX-", "")),
    ("a tab", "tab", "src/base/mem.c", lambda p: append(p, "\tint q;\n")),
    ("a long line", "columns", "src/base/mem.c", lambda p: append(p, "/* " + "x" * COLUMNS_MAX + " */\n")),
    ("a blank at the end", "blank", "src/base/mem.c", lambda p: append(p, "int q; \n")),
    ("no line feed at the end", "newline", "src/base/mem.c", lambda p: append(p, "int q;")),
    ("a TODO without reason", "todo", "src/base/mem.c", lambda p: append(p, "/* TODO */\n")),
    ("no include guard", "guard", "src/base/mem.h", lambda p: replace(p, "#ifndef TND", "#ifndef X_TND")),
    ("the guard of another", "guard", "src/base/new.h",
     lambda p: append(p, "#ifndef TND_BASE_MEM_H\n#define TND_BASE_MEM_H\n#endif\n")),
    ("a source that nobody builds", "dead", "src/base/attic.c", lambda p: append(p, "int q;\n")),
    ("a tool that nobody builds", "dead", "tools/attic.c", lambda p: append(p, "int q;\n")),
    ("a test that nobody builds", "dead", "tests/unit/test_attic.c", lambda p: append(p, "int q;\n")),
    ("a header that nobody includes", "dead", "src/base/attic.h", lambda p: append(p, "int q;\n")),
    ("a symbol missing in the script", "symbols", "src/tundish.map", lambda p: replace(p, "    tnd_version;\n", "")),
    ("a symbol of no header", "symbols", "src/tundish.map",
     lambda p: replace(p, "tnd_version;", "tnd_version;\n    tnd_q;")),
    ("a declaration that is not exported", "symbols", "include/tundish.h",
     lambda p: append(p, "int tnd_q(void);\n")),
    ("a folder that is not in the map", "map", "attic/new.txt", lambda p: append(p, "x\n")),
]
# What must not be caught.
HARMLESS = [
    ("names in comments", "src/base/mem.c", lambda p: append(p, "/* printf(getenv()), #include <liburing.h> */\n")),
    ("names in strings", "src/base/mem.c", lambda p: append(p, 'static const char q[] = "exit(1) abort()";\n')),
    ("snprintf", "src/base/mem.c", lambda p: append(p, "int q(void) { return snprintf(0, 0, 0); }\n")),
    ("a TODO with a reason", "src/base/mem.c", lambda p: append(p, "/* TODO: once kernels have it */\n")),
]


def copy_tree(root, names, target):
    for name in names:
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(root, name), path)


def self_test(root):
    passed = failed = 0
    names = [name for name in listing(root) if os.path.getsize(os.path.join(root, name)) < 1 << 20]
    with tempfile.TemporaryDirectory(prefix="tundish-tidy-") as folder:
        copy = os.path.join(folder, "tree")
        copy_tree(root, names, copy)
        before = set(Tidy(copy).run())
        for title, rule, path, plant in PLANTS + [(title, None, path, plant) for title, path, plant in HARMLESS]:
            target = os.path.join(copy, path)
            plant(target)
            found = set(Tidy(copy).run()) - before
            hit = [line for of, line in found if of == rule and line.startswith((path.split("/")[0], "README"))]
            if bool(hit) if rule else not found:
                passed += 1
            else:
                failed += 1
                print(f"tidy self-test: {title}: " + (f"rule {rule} did not catch it" if rule else
                                                      f"caught, but harmless: {sorted(found)[0][1]}"))
            if os.path.isfile(os.path.join(root, path)):
                shutil.copyfile(os.path.join(root, path), target)
            else:
                os.remove(target)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--library")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return 1 if self_test(arguments.root) else 0
    tidy = Tidy(arguments.root, arguments.library)
    problems = tidy.run()
    for _, line in problems:
        print(line)
    checks = [name for name in dir(tidy) if name.startswith("check_")]
    failed = len(problems)
    print(f"{len(checks) if not failed else 0} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
