"""Real GPUs for one attempt of a run: which, when it is the run's turn, and that they stay.

Runs that cannot have a device at the same time queue for it; see ``gpus.leases``. Hosts without
GPUs pay for none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from simgrid_ml.engine.gpu_requests import planned
from simgrid_ml.environments.build import BuiltEnvironment
from simgrid_ml.errors import HostError, SimgridError
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.gpus import Frameworks, GpuPlan
from simgrid_ml.spec.placement import HostInventory, Placement

__all__ = ["gpus_given", "unless_gpu_lost"]

T = TypeVar("T")

_LOOK_S = 0.25
_ANSWER_S = 5.0


@contextlib.asynccontextmanager
async def gpus_given(
    record: RunRecord,
    cluster: ClusterSpec,
    placement: Placement,
    host: HostInventory,
    environment: BuiltEnvironment,
    log: Callable[..., None],
    *,
    contained: bool,
) -> AsyncIterator[GpuPlan | None]:
    """The GPUs of the attempt's nodes, which are its own until the block is left.

    Waits for other runs that have devices which this one needs; an event says for which.

    Args:
        contained: whether nodes reach no other devices than their own.

    Raises:
        SpecError, PlacementError: as ``plan_gpus``.
    """
    frameworks = Frameworks.of(environment.packages)
    if not host.gpus.gpus:
        yield planned(cluster, placement, host, frameworks, contained=contained)
        return
    from simgrid_ml.gpus.leases import Lease, Leases

    leases = Leases()
    told: tuple[Lease, ...] = ()
    place: str | None = None
    with contextlib.ExitStack() as line:
        while True:
            taken = leases.taken()
            plan = planned(cluster, placement, host, frameworks, taken, contained=contained)
            if plan is None or not plan.devices:
                line.close()
                yield plan
                return
            with leases.of(plan, record.id, place) as blocking:
                if not blocking:
                    line.close()
                    yield plan
                    return
            if place is None:
                place = line.enter_context(leases.in_line())
                continue
            if blocking != told:
                log(
                    "waiting-for-gpus",
                    devices=sorted({lease.device for lease in blocking}),
                    runs=sorted({lease.run for lease in blocking if lease.memory_bytes}),
                    behind=sorted({lease.run for lease in blocking if not lease.memory_bytes}),
                )
                told = blocking
            await asyncio.sleep(_LOOK_S)


async def unless_gpu_lost(plan: GpuPlan | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which has ended in any case when this returns or raises.

    Raises:
        HostError: a real GPU of the plan vanished, whatever else that made fail.
    """
    shares = () if plan is None else (share for node in plan.nodes for share in node.shares)
    devices = tuple(dict.fromkeys(share.gpu for share in shares if share.gpu is not None))
    if not devices:
        return await work
    from simgrid_ml.gpus.watch import lost_now, watched

    task = asyncio.ensure_future(work)
    try:
        async with watched(devices) as lost:
            both: set[asyncio.Future[Any]] = {task, lost}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                lost.result()
        if isinstance(failed := task.exception(), SimgridError):
            # Ranks notice sooner than the watch, and cannot say what it was.
            with contextlib.suppress(asyncio.TimeoutError):
                loss = await asyncio.wait_for(lost_now(devices), _ANSWER_S)
                if isinstance(loss, HostError):
                    raise loss from failed
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
