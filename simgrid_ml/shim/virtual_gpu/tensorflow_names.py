"""What scripts call a device, and what TensorFlow's own CPU build calls the one that serves it.

TensorFlow can have many CPU devices in one process, all with every kernel. ``CPU:0``, where it puts
whatever nobody has placed, serves as ``GPU:0``; so unplaced operations are on the first GPU as they
are on a host that has one. ``CPU:1`` serves as the host's own ``CPU:0``, ``CPU:2`` as ``GPU:1`` and
so on. Python sees the script's names everywhere: names are changed where they enter and leave C++.
"""

from __future__ import annotations

import re

__all__ = [
    *("SLOTS", "is_seen", "message_to_script", "served", "serving"),
    *("task_of", "to_script", "to_tensorflow"),
]

SLOTS = 40
"""Below this, devices serve as GPUs; the further logical CPUs of a script come behind."""

_DEVICE = re.compile(r"(?i)(^|/)(?:device:)?(cpu|gpu):(\d+|\*)$")
_TASK = re.compile(r"(?i)/job:([^/]+)(?:/replica:\d+)?(?:/task:(\d+))?")
_IN_TEXT = re.compile(r"((?:/job:[^/\s]+)?(?:/replica:\d+)?(?:/task:\d+)?/?)device:CPU:(\d+)")


def task_of(name):
    """``(job, task)`` of a device's full name; None: it is whoever asks.

    >>> task_of("/job:worker/replica:0/task:1/device:CPU:0"), task_of("/gpu:0")
    (('worker', 1), None)
    """
    found = _TASK.match(name)
    if found is None or found.group(1) == "localhost":
        return None
    return found.group(1), int(found.group(2) or 0)


def serving(kind, index, gpus):
    """Which of TensorFlow's CPU devices serves as ``kind:index``; None: no such GPU.

    Args:
        kind: "CPU" or "GPU".
        gpus: how many the process has whose device this is; None: another task's, so unknown.

    >>> [serving("GPU", i, 2) for i in range(3)], [serving("CPU", i, 2) for i in range(2)]
    ([0, 2, None], [1, 41])
    >>> serving("GPU", 0, 0), serving("CPU", 0, 0), serving("GPU", 3, None)
    (None, 0, 4)
    """
    if kind == "CPU":
        if index:
            return SLOTS + index
        return 0 if gpus == 0 else 1
    if gpus is not None and index >= gpus:
        return None
    return index + 1 if index else 0


def served(index, gpus):
    """As what TensorFlow's ``CPU:index`` serves, as ``(kind, index)``.

    >>> [served(i, 2) for i in (0, 1, 2, 41)]
    [('GPU', 0), ('CPU', 0), ('GPU', 1), ('CPU', 1)]
    >>> [served(i, 0) for i in (0, 1, 2, 41)]
    [('CPU', 0), ('CPU', 0), ('GPU', 1), ('CPU', 1)]
    """
    if index > SLOTS:
        return "CPU", index - SLOTS
    if index == 1 or (index == 0 and gpus == 0):
        return "CPU", 0
    return "GPU", index - 1 if index else 0


def is_seen(index, gpus):
    """Whether a list of devices shows TensorFlow's ``CPU:index``.

    >>> [i for i in range(43) if is_seen(i, 2)], [i for i in range(43) if is_seen(i, 0)]
    ([0, 1, 2, 41, 42], [0, 41, 42])
    """
    return index > SLOTS or index <= (SLOTS - 1 if gpus is None else gpus)


def to_tensorflow(name, gpus_of):
    """The name under which TensorFlow has the device that scripts call ``name``.

    A GPU that is not there keeps its name: TensorFlow then does what it does about such.

    Args:
        gpus_of: the number of GPUs of a task, see ``task_of``.

    >>> to_tensorflow("/gpu:1", lambda task: 2), to_tensorflow("/cpu:0", lambda task: 2)
    ('/device:CPU:2', '/device:CPU:1')
    >>> to_tensorflow("/job:ps/task:0", lambda task: 2), to_tensorflow("GPU:2", lambda task: 2)
    ('/job:ps/task:0', 'GPU:2')
    """
    found = _DEVICE.search(name)
    if found is None:
        return name
    index = 0 if found.group(3) == "*" else int(found.group(3))
    host = serving(found.group(2).upper(), index, gpus_of(task_of(name)))
    return name if host is None else f"{name[: found.start()]}/device:CPU:{host}"


def to_script(name, gpus_of):
    """The reverse of ``to_tensorflow``.

    >>> to_script("/job:localhost/replica:0/task:0/device:CPU:0", lambda task: 1)
    '/job:localhost/replica:0/task:0/device:GPU:0'
    """
    found = _DEVICE.search(name)
    if found is None or found.group(2).upper() != "CPU" or found.group(3) == "*":
        return name
    device = served(int(found.group(3)), gpus_of(task_of(name)))
    return "{}/device:{}:{}".format(name[: found.start()], *device)


def message_to_script(text, gpus_of):
    """``text`` of an error, with every device in it as scripts call it."""

    def one(found):
        before, index = found.groups()
        device = served(int(index), gpus_of(task_of(before)))
        return "{}device:{}:{}".format(before, *device)

    return _IN_TEXT.sub(one, text)
