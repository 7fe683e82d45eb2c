"""How parts of TensorFlow that are not promised to stay are changed.

The other modules change TensorFlow through ``extend`` only. What a version does not have is said
once on stderr, and left out; the rest goes on.
"""

from __future__ import annotations

import functools
import sys

__all__ = ["extend", "note", "say_once"]

_said = set()


def extend(owner, name, make):
    """Put ``make(original)`` in the place of ``owner.name``, if there is such a thing."""
    original = vars(owner).get(name, getattr(owner, name, None))
    if original is None:
        say_once(
            f"this TensorFlow has no {getattr(owner, '__name__', owner)}.{name}: GPUs of the "
            "node may not look as they should where it is used"
        )
        return
    changed = make(original)
    if callable(original) and callable(changed) and not isinstance(changed, type):
        changed = functools.wraps(original)(changed)
    setattr(owner, name, changed)


def say_once(text):
    """``text`` on stderr, however often there is cause to say it."""
    if text not in _said:
        _said.add(text)
        note(text)


def note(text):
    sys.stderr.write(f"[simgrid-ml] {text}\n")
