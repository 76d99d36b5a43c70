# SPDX-License-Identifier: Apache-2.0
"""Cases that are counted one by one, and where the models lie that some of them need."""
import os

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

counts = {"passed": 0, "failed": 0, "skipped": 0}


class Skipped(Exception):
    pass


def skip(reason):
    raise Skipped(reason)


def case(title, function, *arguments):
    """What the function returns is told beside its title."""
    try:
        note = function(*arguments)
    except Skipped as reason:
        counts["skipped"] += 1
        print(f"skipped: {title}: {reason}")
    except AssertionError as problem:
        counts["failed"] += 1
        print(f"FAILED: {title}: {problem}")
    else:
        counts["passed"] += 1
        if note:
            print(f"{title}: {note}")


def finish():
    """Prints the counts. Returns the exit code."""
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] or not counts["passed"] else 0


def models_folder(given, name):
    """Where a model or set of that name lies, or is looked for first."""
    beside = os.path.join(ROOT, "..", "shared", "models")
    cache = os.path.expanduser("~/.cache/tundish/models")
    places = [given or os.environ.get("TUNDISH_MODELS"), beside, cache]
    found = [place for place in places if place and os.path.exists(os.path.join(place, name))]
    return found[0] if found else next(place for place in places if place)
