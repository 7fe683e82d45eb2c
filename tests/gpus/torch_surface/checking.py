"""Programs of checks: each says on a line of JSON whether it holds."""

import contextlib
import json
import sys
import traceback

CHECKS = []


def check(function):
    """``function`` returns False, or raises, where it does not hold."""
    CHECKS.append((function.__name__, function))
    return function


def holds(name, function):
    """As ``check``, for one of many of a kind."""
    CHECKS.append((name, function))


@contextlib.contextmanager
def raises(error, *words):
    """The block raises ``error``, whose text has all ``words``."""
    try:
        yield
    except error as raised:
        for word in words:
            assert word in str(raised), f"{word!r} is not in {raised}"
        return
    raise AssertionError(f"no {error}")


def run():
    for name, function in CHECKS:
        try:
            why = "" if function() is not False else "False"
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if "-v" in sys.argv:
                traceback.print_exc()
        print(json.dumps({"check": name, "why": why}), flush=True)
