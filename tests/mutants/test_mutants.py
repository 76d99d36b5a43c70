#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the tests see what they are there to see.

Method: src/ is copied and built once, and each test below passes there. Then one line after the other is replaced by a
bug that somebody could write; the named test must fail, crash or find no end. A table that no longer fits the sources
fails too, so that it is kept.

    test_mutants.py ROOT [CC [PATTERN]]"""
import concurrent.futures
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

SIM = ("sim/sim_pipeline.c", ["400"], "seed ")
SECONDS_MAX = {"sim/sim_pipeline.c": 60}
SECONDS_MAX_OTHERS = 20
AT_ONCE = 2
SUPPORT = ("gguf_file.c", "known_file.c")


def check(source, name):
    """A check of libcheck, by its name in what it prints."""
    return f"{source}.c", [], f":{name}:"


# Title, file in src/, the text, what it becomes, the test that must see it.
MUTANTS = [
    ("a buffer is free when its read is done", "pipeline/pool.c", "if (to != TND_CHUNK_FREE)",
     "if (to != TND_CHUNK_FREE && to != TND_CHUNK_READY)", SIM),
    ("ready before it is copied", "pipeline/pipeline.c", "        transfer->ready++;\n",
     "        transfer->ready++;\n        tnd_transfer_arrived(transfer, window);\n", SIM),
    ("a read's error is swallowed", "pipeline/pipeline.c",
     "        tnd_transfer_fail_read(transfer, window, &chunk->read);\n", "", SIM),
    ("a cancel loses what is being copied", "pipeline/pipeline.c",
     "if (transfer->reading || transfer->ready || transfer->working || tnd_transfer_goes_on(transfer))",
     "if (transfer->reading || transfer->ready || tnd_transfer_goes_on(transfer))", SIM),
    ("the buffer of a hung read is used again", "pipeline/hang.c",
     "taken_back ? TND_CHUNK_FREE : TND_CHUNK_FAILED", "TND_CHUNK_FREE", SIM),
    ("the pool of a hung read is unmapped", "pipeline/pool.c", "if (pool->counts[TND_CHUNK_FAILED])", "if (false)",
     SIM),
    ("the destination of a hung read is freed", "load.c", "if (load->transfer.stats.reads_given_up) {", "if (false) {",
     SIM),
    ("one load has all the turns", "pipeline/pipeline.c", "        pipeline->turn = &transfer->next;\n", "",
     check("unit/test_load", "takes_turns_with_the_loads")),
    ("a short direct read goes on unaligned", "io/io.c",
     "        done = tnd_round_down(done, read->file->alignment);\n",
     "        done = done + 0;\n", SIM),
    ("a short read is taken for a whole one", "io/io.c", "if (done >= read->bytes_wanted) {", "if (done > 0) {", SIM),
    ("the end of the file is taken for success", "io/io.c", "        finish_cut(io, read);\n        return;\n",
     "        finish(io, read, 0);\n        return;\n", SIM),
    ("the ring's poll for wake-ups is not armed again", "io/uring.c", "            uring->wake_armed = false;\n", "",
     check("conformance/test_io", "wakes_up_while_a_read_hangs")),
    ("a window is cut one too long", "plan/plan.c", "cutter->chunk_bytes - skip);", "cutter->chunk_bytes - skip + 1);",
     check("unit/test_plan", "covers_each_byte_once")),
    ("a window cuts a block", "plan/plan.c", "        bytes -= bytes % unit;\n", "", SIM),
    ("a converted tensor is laid out as it was", "plan/plan.c",
     "return tnd_plan_bytes_out(tnd_plan_kernel(plan, tensor_index), plan->model->tensors[tensor_index].bytes);",
     "return plan->model->tensors[tensor_index].bytes;", SIM),
    ("pieces are hashed as they come", "pipeline/digest.c",
     "digest->next != NO_PIECE && digests->placed[digest->next])",
     "digests->placed[digest->next = piece_index])", SIM),
    ("tensors overlap in the destination", "plan/layout.c",
     "layout->bytes = layout->offsets[tensor] + tnd_plan_bytes(plan, tensor);",
     "layout->bytes = layout->offsets[tensor] + tnd_plan_bytes(plan, tensor) / 2;",
     check("unit/test_plan", "lays_tensors_out")),
    ("a tensor may end one byte behind the file", "model/ranges.c",
     "if (spans[i].end > file_bytes)\n            r = fail_beyond(model, &spans[i], file_bytes, err);\n"
     "        else if (before",
     "if (spans[i].end > file_bytes + 1)\n            r = fail_beyond(model, &spans[i], file_bytes, err);\n"
     "        else if (before", check("unit/test_gguf", "cut_anywhere")),
    ("tensors may overlap in the file", "model/ranges.c", "spans[i].first < before->end", "spans[i].end < before->end",
     check("unit/test_gguf", "overlap")),
    ("holes are accepted in safetensors", "model/ranges.c", "if (spans[i].first != expected)",
     "if (spans[i].first < expected)", check("unit/test_safetensors", "bad_files")),
    ("a name may come twice", "model/model.c", "if (*slot)\n        return tnd_fail(err, -EBADMSG, \"the name",
     "if (!slot)\n        return tnd_fail(err, -EBADMSG, \"the name", check("unit/test_gguf", "names")),
    ("the product of a shape wraps", "model/model.c", "if (tnd_mul_overflows(elements, tensor->shape[i], &elements))",
     "if (elements *= tensor->shape[i], 0)", check("unit/test_gguf", "bad_tensors")),
    ("an offset need not be aligned", "format/gguf.c", "if (r < 0 || tensor->offset % gguf->alignment == 0)",
     "if (true)", check("unit/test_gguf", "bad_tensors")),
    ("a name may be of any bytes", "format/gguf.c", "if (!tnd_utf8_valid(*ret_text, bytes))", "if (false)",
     check("unit/test_gguf", "names")),
    ("a count is believed", "format/gguf.c", "if (*ret_count <= fit)", "if (true)", check("unit/test_gguf", "counts")),
    ("a wrapped offset is believed", "format/format.c", "tnd_add_overflows(offset, bytes, &need) ||",
     "(need = offset + bytes, false) ||", check("unit/test_gguf", "bad_values")),
    ("low surrogates are not looked at", "format/json.c", "if (low < 0xDC00 || low >= 0xE000)", "if (low < 0)",
     check("unit/test_json", "bad_texts")),
    ("a text may end behind a comma", "format/json.c", "json->expects = object ? KEY : VALUE;",
     "json->expects = object ? FIRST_KEY : VALUE;", check("unit/test_json", "bad_texts")),
]


class Missing(Exception):
    pass


def flags(package):
    done = subprocess.run(["pkg-config", "--cflags", "--libs", package], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"pkg-config knows no {package}")
    return done.stdout.split()


def run(command, seconds=120):
    """(exit code or None when it found no end, what it printed)"""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
                              env=dict(os.environ, CK_FORK="no"))
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace")


class Tree:
    """A copy of the sources, built by one command a file."""

    def __init__(self, root, cc, folder):
        self.root, self.cc, self.folder = root, cc, folder
        self.libraries = flags("liburing") + ["-lpthread"]
        self.check = flags("check")
        self.source = os.path.join(folder, "src")
        shutil.copytree(os.path.join(root, "src"), self.source)
        with open(os.path.join(self.source, "meson.build"), encoding="utf-8") as file:
            listed = re.search(r"tundish_sources = files\((.*?)\n\)", file.read(), re.S).group(1)
        self.names = re.findall(r"'([\w/]+\.c)'", listed)
        self.objects = {name: self.object(name) for name in self.names}
        self.support = [self.object(name) for name in SUPPORT]
        self.lock = threading.Lock()
        self.clean = {}

    def object(self, name):
        return os.path.join(self.folder, name.replace("/", "_") + ".o")

    def compile(self, source, target, include):
        code, text = run([*self.cc, "-std=c11", "-O1", "-D_GNU_SOURCE", "-DTND_BUILD", "-DTND_POISON", "-w",
                          f"-I{include}", f"-I{self.root}/include", f"-I{self.root}/tests", *self.libraries,
                          "-c", source, "-o", target])
        if code:
            raise RuntimeError(f"{source} does not build:\n{text}")

    def build(self):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.compile(os.path.join(self.source, name), self.objects[name], self.source),
                          self.names))
        for name in SUPPORT:
            self.compile(os.path.join(self.root, "tests/support", name), self.object(name), self.source)

    def test_object(self, test):
        """Built once: a mutant is another object behind the same headers."""
        with self.lock:
            target = self.object(test)
            if not os.path.exists(target):
                self.compile(os.path.join(self.root, "tests", test), target, self.source)
            return target

    def link(self, test, objects, target):
        code, text = run([*self.cc, self.test_object(test), *self.support, *objects, *self.check, *self.libraries,
                          "-ldl", "-o", target])
        if code:
            raise RuntimeError(f"{test} does not link:\n{text}")

    def passes(self, test, arguments):
        """Whether the test passes without any mutant, and what it said."""
        with self.lock:
            if test in self.clean:
                return self.clean[test]
        target = os.path.join(self.folder, "clean-" + os.path.basename(test)[:-2])
        self.link(test, self.objects.values(), target)
        answer = run([target, *arguments], SECONDS_MAX.get(test, SECONDS_MAX_OTHERS))
        with self.lock:
            self.clean[test] = answer
        return answer


def judge(tree, number, mutant):
    """(what is wrong or None, why it was skipped or None)"""
    _, name, old, new, (test, arguments, words) = mutant
    with open(os.path.join(tree.source, name), encoding="utf-8") as file:
        text = file.read()
    if text.count(old) < 1:
        return f"{name} has no {old.strip()!r} any more: mend the table", None
    code, said = tree.clean[test]
    if code == 77 or (code == 0 and re.search(rf"{words.strip(':')}.*skipped: |skipped: .*{words.strip(':')}", said)):
        return None, said.strip().splitlines()[-1]
    if code != 0:
        return f"{test} fails without it: exit {code}: {said[-500:]}", None
    source = os.path.join(tree.folder, f"mutant-{number}-{os.path.basename(name)}")
    with open(source, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new, 1))
    target = os.path.join(tree.folder, f"mutant-{number}")
    tree.compile(source, target + ".o", tree.source)
    tree.link(test, [one for which, one in tree.objects.items() if which != name] + [target + ".o"], target)
    code, said = run([target, *arguments], SECONDS_MAX.get(test, SECONDS_MAX_OTHERS))
    if code == 0:
        return f"{test} does not see it", None
    if code is not None and code > 0 and words not in said:
        return f"{test} fails, but not at {words}: {said[-500:]}", None
    return None, None


def main():
    root = os.path.abspath(sys.argv[1])
    cc = sys.argv[2].split() if len(sys.argv) > 2 else ["cc"]
    chosen = [mutant for mutant in MUTANTS if fnmatch.fnmatch(mutant[0], sys.argv[3] if len(sys.argv) > 3 else "*")]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory(prefix="tundish-mutants-") as folder:
        try:
            tree = Tree(root, cc, folder)
        except Missing as what:
            print(f"skipped: {what}")
            return 77
        tree.build()
        tests = {test: arguments for _, _, _, _, (test, arguments, _) in chosen}
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda test: tree.passes(test, tests[test]), tests))
            answers = pool.map(lambda pair: judge(tree, *pair), enumerate(chosen))
            for mutant, (problem, skipped) in zip(chosen, answers):
                outcome = "failed" if problem else "skipped" if skipped else "passed"
                counts[outcome] += 1
                print(f"{mutant[0]}: {outcome}: {problem or skipped or 'seen by ' + mutant[4][0]}")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
