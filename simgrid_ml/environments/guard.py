"""Runs a command and kills it, with all it started, as soon as standard input is closed.

A builder may be killed with SIGKILL while a compiler works for it. Nobody would end that compiler,
and it would go on writing where the next builder already clears up. So the builder holds the other
end of a pipe, and the end of the builder, however it comes, is the end of the pipe.

Run as a script, stdlib only: ``python -I -S guard.py COMMAND ARGUMENT …`` as leader of a session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def _end_with_the_builder() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)  # includes this process


def main() -> int:
    if os.getpgrp() != os.getpid():
        print("guard.py must lead a process group of its own", file=sys.stderr)
        return 126
    try:
        # Open descriptors are passed on: one of them is the lock of the builder, so that the
        # next builder waits until the last of our processes is gone.
        child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, close_fds=False)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=_end_with_the_builder, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # os._exit: the thread sits in read() and must not hold up the end.
    status = main()
    sys.stderr.flush()
    os._exit(status)
