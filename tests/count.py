#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up what meson test has logged: count.py BUILD… [-- what could not even be built …]

A libcheck binary counts by its checks, a script by its own last line, anything else by its exit code (77: skipped).
Prints why something was skipped, what failed, and last: N passed, N failed, N skipped."""
import json
import os
import re
import sys

LIBCHECK = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.M)
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
SKIPPED = re.compile(r"^.*\bskipped: .*$", re.M)
FINE = ("OK", "EXPECTEDFAIL")
SHOWN_BYTES = 3000


def count_test(test):
    """(passed, failed, skipped, reasons) of one entry of the log."""
    text = "\n".join(test.get(stream) or "" for stream in ("stdout", "stderr"))
    reasons = [line.strip() for line in SKIPPED.findall(text)]
    passed = failed = skipped = 0
    suites, summaries = LIBCHECK.findall(text), SUMMARY.findall(text)
    if test["result"] == "SKIP":
        return 0, 0, 1, reasons or [text.strip().split("\n")[-1] or "no reason given"]
    if summaries:
        passed, failed, skipped = map(int, summaries[-1])
    elif suites:
        for checks, failures, errors in suites:
            passed += int(checks) - int(failures) - int(errors)
            failed += int(failures) + int(errors)
        skipped = len(reasons)
    elif test["result"] in FINE:
        passed = 1
    if test["result"] not in FINE and failed == 0:
        failed = 1  # a crash, a sanitizer's finding, the time was over: whatever the text says
    if test["result"] in FINE and passed + failed + skipped == 0:
        failed, reasons = 1, ["it says that it is fine, but nothing ran"]
    return passed, failed, skipped, reasons


def count_build(build, totals):
    path = os.path.join(build, "meson-logs", "testlog.json")
    try:
        with open(path, encoding="utf-8") as file:
            tests = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError) as problem:
        print(f"failed: {build}: no log of the tests: {problem}")
        totals[1] += 1
        return
    if not tests:
        print(f"failed: {build}: no test ran")
        totals[1] += 1
    for test in tests:
        passed, failed, skipped, reasons = count_test(test)
        for index, count in enumerate((passed, failed, skipped)):
            totals[index] += count
        for reason in reasons if failed or skipped else []:
            print(f"{build}: {test['name']}: {reason}")
        if failed:
            text = "\n".join(test.get(stream) or "" for stream in ("stdout", "stderr")).strip()
            print(f"failed: {build}: {test['name']} ({test['result']}, exit {test.get('returncode')}):\n"
                  f"{text[-SHOWN_BYTES:]}")


def main():
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    totals = [0, 0, 0]
    for build in arguments[:at]:
        count_build(build, totals)
    for what in filter(None, arguments[at + 1:]):
        print(f"failed: {what}: it does not build")
        totals[1] += 1
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    return 1 if totals[1] or not totals[0] else 0


if __name__ == "__main__":
    sys.exit(main())
