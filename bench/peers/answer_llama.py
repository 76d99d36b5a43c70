#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp, through llama-cpp-python: from opening a model to the first token of a prompt, the same prompt's time once
all is there, and tokens a second. Its imports are not counted. The last line is JSON.

    answer_llama.py MODEL PROMPT_TOKENS DECODED_TOKENS"""

import json
import os
import sys
import time

import llama_cpp


def first_token(model, text):
    started = time.monotonic_ns()
    for _ in model(text, max_tokens=1, temperature=0, stream=True):
        return time.monotonic_ns() - started


def main():
    path, count, decoded = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    threads = len(os.sched_getaffinity(0))
    started = time.monotonic_ns()
    model = llama_cpp.Llama(path, n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False)
    load_ns = time.monotonic_ns() - started
    first_token(model, " ".join(["one"] * count))
    answer = {"load_ns": load_ns, "first_ns": time.monotonic_ns() - started}
    answer["warm_ns"] = min(first_token(model, " ".join([word] * count)) for word in ("two", "three", "four"))
    times = [time.monotonic_ns() for _ in model(" ".join(["five"] * 8), max_tokens=decoded, temperature=0, stream=True)]
    answer["tokens"] = len(times)
    answer["tokens_per_s"] = (len(times) - 1) / ((times[-1] - times[0]) / 1e9)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
