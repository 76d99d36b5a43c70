#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The second half of ./demo: demo.py BUILD MODEL. Measures the disk, loads the model cold, compares."""
import json
import mmap
import os
import re
import subprocess
import sys


def drop(path):
    """Takes a file out of the page cache."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return  # the command will say so better
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def probe(build, path):
    """The disk's own limit in GB/s and how it was reached; None where it cannot be measured."""
    answer = subprocess.run([os.path.join(build, "bench", "bench-probe"), "--json", path], capture_output=True,
                            text=True, check=False)
    if answer.returncode != 0:
        print(f"The disk's own limit could not be measured: {answer.stderr.strip()}")
        return None
    best = json.loads(answer.stdout)["best"]
    print(f"disk     {best['gb_per_s']:.2f} GB/s ({best['gb_per_s_min']:.2f} to {best['gb_per_s_max']:.2f}): bare "
          f"reads of the same file into {best['pool_bytes'] / 1e6:.0f} MB\n         that are used over and over; "
          f"the best shape: {best['block_bytes'] >> 10} KiB, {best['depth']} in flight")
    return best["gb_per_s"]


def wake_memory(count):
    """Touches free memory and gives it back. On a virtual machine memory that lay free for some seconds has gone back
    to the host and comes again slower than a disk reads: a second start would not see that, so the first should not."""
    try:
        with mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            for at in range(0, count, mmap.PAGESIZE):
                memory[at] = 1
    except (OSError, ValueError, MemoryError):
        pass  # too little for that: then the load says what it needs


def load(build, path):
    """Runs the command with its progress on this terminal; returns exit code and GB/s."""
    command = [os.path.join(build, "tools", "tundish"), "load", path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
    print(output, end="", flush=True)
    speed = re.search(r"^loaded .*?([\d.]+) GB/s", output, re.M)
    return process.returncode, float(speed.group(1)) if speed else None


def main():
    build, path = sys.argv[1:3]
    answer = subprocess.run([os.path.join(build, "tools", "tundish"), "info", path], stdout=subprocess.DEVNULL,
                            check=False)
    if answer.returncode != 0:
        return answer.returncode  # the command has said why
    single = os.path.isfile(path)
    limit = probe(build, path) if single else None
    if single:
        drop(path)
        wake_memory(os.path.getsize(path) + (64 << 20))
        print("cold     the file was taken out of the page cache: every byte comes from the disk. Free memory was\n"
              "         touched before, so that a virtual machine has it at hand", flush=True)
    code, speed = load(build, path)
    if code != 0:
        return code
    if limit and speed:
        print(f"result   loaded at {speed:.2f} GB/s, the disk alone gives {limit:.2f} GB/s: "
              f"{100 * speed / limit:.0f} % of the disk's own limit, set-up and memory included")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
