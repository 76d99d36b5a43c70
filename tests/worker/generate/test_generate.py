#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: tundish-generate writes the same text however the weights come, and says what is wrong with an exit code and a
sentence.

Method: stories260K, whose greedy text is known, and SmolLM2 where it lies: every engine, window and laziness; options
that are right and wrong; files that are missing, malformed and of others; SIGINT; tundish generate, which runs it.

    test_generate.py TUNDISH_GENERATE TUNDISH [--models FOLDER]

FOLDER: where stories260K and SmolLM2-135M-Instruct.Q4_1.gguf lie (else TUNDISH_MODELS, else ../shared/models beside the
project, and the cache of ./demo)."""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from cases import Skipped, case, finish, models_folder, skip  # noqa: E402

STORIES = "stories260K"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
# What llama.cpp (llama-cpp-python 0.3.36) makes of stories260K in F32 from nothing, at temperature 0.
STORY = """Once upon a time, there was a little girl named Lily. She loved to play outside in the park. \
One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. \
She said, "I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so"""
ENGINES = ("auto", "uring", "threads", "mmap")
SECONDS_MAX = 300
KEYS = {"text", "prompt_tokens", "tokens", "finish_reason", "load_ns", "first_token_ns", "tokens_per_s"}

generate = tundish = None


def run(*arguments, program=None, **more):
    return subprocess.run([*(program or [generate]), *arguments], capture_output=True, timeout=SECONDS_MAX,
                          check=False, **more)


def told(model, *arguments):
    """The object that --json prints."""
    done = run(model, "--json", *arguments)
    sentence = done.stderr.decode().strip()
    if done.returncode == 6 and "io_uring" in sentence:
        raise Skipped(sentence)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {sentence}"
    report = json.loads(done.stdout)
    assert set(report) == KEYS, f"keys {sorted(report)}"
    return report


def refused(code, words, *arguments, **more):
    done = run(*arguments, **more)
    sentence = done.stderr.decode()
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, expected {code}: {sentence}"
    assert sentence.count("\n") == 1 and re.match(r"tundish(-generate)?: ", sentence), f"no single sentence: {sentence}"
    assert all(word in sentence for word in words), f"{words} not in: {sentence}"
    assert done.stdout == b"", f"{arguments}: standard output has {done.stdout[:80]}"


# ---- the text ----

def check_start(model):
    done = run(model, "-p", "", "-n", "200")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith(STORY), done.stdout.decode()
    assert re.search(r"load [\d.]+ ms, .* first token [\d.]+ ms, 200 tokens, [\d.]+ tokens/s", done.stderr.decode()), \
        done.stderr.decode()


def check_tells(model):
    assert told(model, "-p", "Once", "-n", "10")["text"], "nothing"


def check_report(model):
    report = told(model, "-p", "Lily", "-n", "12")
    assert report["tokens"] == 12 and report["finish_reason"] == "length" and report["prompt_tokens"] > 1, report
    assert report["load_ns"] > 0 and report["first_token_ns"] > 0 and report["tokens_per_s"] > 0, report


def least_resident(model):
    """What a window needs at least, out of the sentence that refuses less."""
    done = run(model, "-p", "a", "--resident", "1")
    needs = re.search(r"the largest layer needs (\d+), and the bytes of one read, (\d+)", done.stderr.decode())
    assert done.returncode == 6 and needs, f"exit {done.returncode}: {done.stderr.decode()}"
    return int(needs.group(1)) + int(needs.group(2))


def check_way(model, prompt, tokens, expected, *way):
    report = told(model, *prompt, "-n", tokens, *way)
    assert report["text"] == expected["text"], f"{way}: {report['text']!r}, expected {expected['text']!r}"
    assert report["tokens"] == expected["tokens"] and report["load_ns"] > 0, f"{way}: {report}"


def test_ways(name, model, prompt, tokens, percents):
    expected = told(model, *prompt, "-n", tokens)
    least = str(least_resident(model))
    for engine in ENGINES:
        for lazy in (), ("--lazy",):
            for resident in ("100%", *percents, least):
                way = ("--engine", engine, "--resident", resident, *lazy)
                case(f"{name}, {' '.join(way)}", check_way, model, prompt, tokens, expected, *way)
    case(f"{name}, one thread", check_way, model, prompt, tokens, expected, "--threads", "1")


def check_known(model):
    text = told(model, "-p", "The capital of France is", "-n", "2")["text"]
    assert text.startswith(" Paris"), f"it says {text!r}"


def check_sampling(model):
    def text(*arguments):
        return told(model, "-p", "", "-n", "30", "--temp", "1.2", *arguments)["text"]

    assert text("--seed", "7") == text("--seed", "7"), "the same seed gives another text"
    assert text("--seed", "7") != text("--seed", "8"), "another seed gives the same text"
    greedy = told(model, "-p", "", "-n", "30")["text"]
    assert text("--seed", "7", "--top-k", "1") == greedy, "top-k 1 is not greedy"
    assert text("--seed", "7", "--top-p", "0.00001") == greedy, "hardly any share is not greedy"
    assert text("--seed", "7", "--top-p", "1", "--top-k", "0") == text("--seed", "7"), "all is not all"


# ---- what is wrong ----

def test_usage(model):
    for title, words, arguments in (
            ("no model", ("model",), ("-p", "a")), ("no prompt", ("-p",), (model,)),
            ("two models", ("one model",), (model, model, "-p", "a")),
            ("an unknown option", ("--nonsense",), (model, "-p", "a", "--nonsense")),
            ("no value", ("needs a value",), (model, "-p")),
            ("no tokens", ("'0'",), (model, "-p", "a", "-n", "0")),
            ("tokens below none", ("'-1'",), (model, "-p", "a", "-n", "-1")),
            ("too many tokens", ("4294967296",), (model, "-p", "a", "-n", "4294967296")),
            ("a temperature that is none", ("'nan'",), (model, "-p", "a", "--temp", "nan")),
            ("a temperature below 0", ("'-1'",), (model, "-p", "a", "--temp", "-1")),
            ("more than all", ("'1.5'",), (model, "-p", "a", "--top-p", "1.5")),
            ("a share of nothing", ("'0%'",), (model, "-p", "a", "--resident", "0%")),
            ("a share beyond all", ("'101%'",), (model, "-p", "a", "--resident", "101%")),
            ("bytes that wrap", ("99999999T",), (model, "-p", "a", "--resident", "99999999T")),
            ("an engine nobody has", ("'nil'",), (model, "-p", "a", "--engine", "nil")),
            ("a context beyond the model's", ("100000",), (model, "-p", "a", "--context", "100000")),
            ("a prompt that does not fit", ("4",), (model, "-p", "one two three four five", "--context", "4"))):
        case(f"usage, {title}", refused, 2, words, *arguments)


def test_files(model, folder):
    def at(name):
        return os.path.join(folder, name)

    with open(model, "rb") as file:
        data = file.read()
    for name, content in (("cut.gguf", data[:-1000]), ("text.gguf", b"no model\n" * 10),
                          ("other.gguf", data.replace(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00"
                                                      b"\x00\x00\x00gpt-2", 1)),
                          ("renamed.gguf", data.replace(b"blk.3.attn_q.weight", b"blk.3.attn_x.weight", 1)),
                          ("layers.gguf", data.replace(b"llama.block_count\x04\0\0\0\x05",
                                                       b"llama.block_count\x04\0\0\0\x04", 1))):
        assert content != data, f"{name} is as it was"
        with open(at(name), "wb") as file:
            file.write(content)
    case("no such file", refused, 7, (at("none.gguf"),), at("none.gguf"), "-p", "a")
    case("a cut file", refused, 3, ("cut.gguf",), at("cut.gguf"), "-p", "a")
    case("no model", refused, 3, ("text.gguf",), at("text.gguf"), "-p", "a")
    case("another architecture", refused, 5, ("gpt-2",), at("other.gguf"), "-p", "a")
    case("a tensor nobody knows", refused, 5, ("blk.3.attn_x.weight",), at("renamed.gguf"), "-p", "a")
    case("too few layers", refused, 3, ("blk.4.",), at("layers.gguf"), "-p", "a")
    case("a window that is too small", refused, 6, ("too small",), model, "-p", "a", "--resident", "1000")
    case("no chat template", refused, 5, ("template",), model, "-p", "a", "--chat")
    safetensors = os.path.join(os.path.dirname(model), "hf-f32")
    if os.path.isdir(safetensors):
        case("no tokenizer", refused, 7, ("tokenizer.json",), safetensors, "-p", "a")


def check_interrupt(model):
    """In the middle of a text: what was told stays, and the end is clean."""
    with subprocess.Popen([generate, model, "-p", "", "-n", "100000", "--temp", "1"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        beginning = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, sentence = process.communicate(timeout=SECONDS_MAX)
    # Without an end of the story it may be over before.
    assert process.returncode in (0, 130), f"exit {process.returncode}: {sentence.decode()}"
    assert beginning and (process.returncode == 0 or b"interrupted" in sentence), (rest, sentence)


def check_full_disk(model):
    if not os.path.exists("/dev/full"):
        raise Skipped("no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([generate, model, "-p", ""], stdout=full, stderr=subprocess.PIPE, timeout=SECONDS_MAX,
                              check=False)
    assert done.returncode == 1 and b"cannot be written" in done.stderr, f"exit {done.returncode}: {done.stderr}"


# ---- tundish generate ----

def check_command(model, folder):
    expected = run(model, "-p", "", "-n", "10").stdout
    beside = os.path.join(folder, "bin")
    os.mkdir(beside)
    for program in tundish, generate:
        shutil.copy(program, beside)
    done = run("generate", model, "-p", "", "-n", "10", program=[os.path.join(beside, os.path.basename(tundish))])
    assert done.returncode == 0 and done.stdout == expected, f"beside it: {done.returncode}: {done.stderr}"
    done = run("generate", model, "-p", "", "-n", "10", program=[tundish])
    assert done.returncode == 0 and done.stdout == expected, f"in the build tree: {done.returncode}: {done.stderr}"
    refused(2, ("-p",), "generate", model, program=[tundish])
    os.remove(os.path.join(beside, os.path.basename(generate)))
    refused(7, ("tundish-generate",), "generate", model, "-p", "a", env={"PATH": folder},
            program=[os.path.join(beside, os.path.basename(tundish))])


def test_stories(folder):
    model = os.path.join(folder, "stories260K-f32.gguf")
    if not os.path.exists(model):
        case(STORIES, skip, f"not in {os.path.dirname(folder)}")
        return
    case("the beginning of a story", check_start, model)
    case("the report", check_report, model)
    case("sampling", check_sampling, model)
    test_ways(STORIES, model, ("-p", "Lily and Tom"), "60", ("50%",))
    for name in ("stories260K-f16.gguf", "stories260K-bf16.gguf", "stories260K-q8_0.gguf", "stories260K-q4_0.gguf",
                 "split/stories260K-f32-00001-of-00003.gguf"):
        path = os.path.join(folder, name)
        case(f"{name} tells something", check_tells, path)
    test_usage(model)
    case("SIGINT", check_interrupt, model)
    case("a full disk", check_full_disk, model)
    with tempfile.TemporaryDirectory(prefix="tundish-generate-") as temporary:
        test_files(model, temporary)
        case("tundish generate", check_command, model, temporary)


def test_smollm2(folder):
    model = os.path.join(folder, SMOLLM2)
    if os.environ.get("TUNDISH_SANITIZE", "none") != "none":
        case(SMOLLM2, skip, "with a sanitizer it takes minutes")
        return
    if not os.path.exists(model):
        case(SMOLLM2, skip, f"not in {folder}; ./demo brings it")
        return
    case("SmolLM2 knows", check_known, model)
    test_ways("SmolLM2", model, ("--chat", "-p", "What is the capital of France?"), "4", ("50%", "25%"))


def main():
    global generate, tundish
    parser = argparse.ArgumentParser()
    parser.add_argument("generate")
    parser.add_argument("tundish")
    parser.add_argument("--models")
    arguments = parser.parse_args()
    generate, tundish = arguments.generate, arguments.tundish
    test_stories(os.path.join(models_folder(arguments.models, STORIES), STORIES))
    test_smollm2(models_folder(arguments.models, SMOLLM2))
    return finish()


if __name__ == "__main__":
    sys.exit(main())
