"""Whether real GPUs are still there while a run uses them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from simgrid_ml.errors import HostError
from simgrid_ml.gpus.nvml import NvmlUnavailable, is_lost, opened, sentence

__all__ = ["first_lost", "lost_now", "watched"]

_PERIOD_S = 5.0


def first_lost(nvml: Any, devices: Sequence[str]) -> HostError | None:
    """The loss of one of ``devices``, by UUID; None: all answer."""
    for device in devices:
        try:
            nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(device))
        except nvml.NVMLError as error:
            if is_lost(error):
                return HostError(
                    f"GPU {device} of this host was lost during the run",
                    evidence=sentence(error),
                    remedy="`dmesg | grep -i xid` tells why; the driver, or the host, needs a "
                    "restart; gpu_sharing=emulated needs no GPU",
                )
    return None


@contextlib.asynccontextmanager
async def watched(
    devices: Sequence[str], *, period_s: float = _PERIOD_S
) -> AsyncIterator[asyncio.Future[None]]:
    """Yields what fails with a ``HostError`` when one of ``devices`` is lost."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[None] = loop.create_future()
    lost.add_done_callback(lambda done: done.cancelled() or done.exception())
    over = threading.Event()

    def tell(error: HostError) -> None:
        if not lost.done():
            lost.set_exception(error)

    def look() -> None:
        with contextlib.suppress(NvmlUnavailable, RuntimeError), opened() as nvml:
            while not over.is_set():
                if (error := first_lost(nvml, devices)) is not None:
                    loop.call_soon_threadsafe(tell, error)
                    return
                over.wait(period_s)

    if devices:  # a thread that nobody waits for: a driver that is ill may never answer
        threading.Thread(target=look, daemon=True, name="gpus").start()
    try:
        yield lost
    finally:
        over.set()
        lost.cancel()


async def lost_now(devices: Sequence[str]) -> HostError | None:
    """The loss of one of ``devices``; waits as long as the driver takes to answer."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[HostError | None] = loop.create_future()

    def tell(loss: HostError | None) -> None:
        if not answer.done():
            answer.set_result(loss)

    def look() -> None:
        loss = None
        with contextlib.suppress(NvmlUnavailable), opened() as nvml:
            loss = first_lost(nvml, devices)
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(tell, loss)

    threading.Thread(target=look, daemon=True, name="gpus").start()
    return await answer
