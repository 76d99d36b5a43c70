# SPDX-License-Identifier: Apache-2.0
"""What the oracle tests count and print: a line for each that failed or was skipped, and the sum."""

PROBLEMS_SHOWN = 4

results = {"passed": 0, "failed": 0, "skipped": 0}


def report(title, problems, skipped=None):
    if skipped:
        results["skipped"] += 1
        print(f"skipped: {title}: {skipped}")
    elif problems:
        results["failed"] += 1
        more = f" and {len(problems) - PROBLEMS_SHOWN} more" if problems[PROBLEMS_SHOWN:] else ""
        print(f"FAILED: {title}: {'; '.join(problems[:PROBLEMS_SHOWN])}{more}")
    else:
        results["passed"] += 1


def finish():
    """The exit status: nothing passed is a failure too."""
    print(f"{results['passed']} passed, {results['failed']} failed, {results['skipped']} skipped")
    return 1 if results["failed"] or not results["passed"] else 0
