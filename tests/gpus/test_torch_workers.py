"""Gloo's threads at the end of a process: Python waits for those that work, not for the idle."""

from __future__ import annotations

import ctypes
import hashlib
import threading

from simgrid_ml.shim.virtual_gpu import torch_workers

_SET_NAME = 15  # of prctl


def test_python_ends_after_what_threads_of_gloo_do() -> None:
    named, ended, done = threading.Event(), threading.Event(), []

    def work() -> None:
        ctypes.CDLL(None).prctl(_SET_NAME, b"pt_gloo_runloop", 0, 0, 0)
        named.set()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # without holding Python
        done.append(True)
        ended.wait()

    worker = threading.Thread(target=work)
    worker.start()
    named.wait()
    torch_workers._wait()
    assert done
    assert worker.is_alive()  # it has nothing to do
    ended.set()
    worker.join()
