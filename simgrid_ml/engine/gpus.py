"""The GPUs of a run's nodes: from the plan to what ranks find, and how much of them is used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from simgrid_ml import wire
from simgrid_ml.engine.gpu_backing import backing_variables, hooks_of
from simgrid_ml.node.gpu_ledger import Gpu, Ledger, create
from simgrid_ml.record.journal import Journal, write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.gpus import Backing, GpuPlan

__all__ = ["HOOKS", "LiveGpus"]

HOOKS = ("virtual_cuda", "virtual_tensorflow")
"""What gives frameworks GPUs that live in host memory; see ``shim/virtual_gpu``."""

_CONTEXT_BYTES = 0
_PERIOD_S = 1.0


class LiveGpus:
    """The GPUs of one attempt.

    Args:
        plan: what is behind them; None: the nodes have none.
        log: appends to the run's events.
    """

    def __init__(self, record: RunRecord, plan: GpuPlan | None, log: Callable[..., None]) -> None:
        self._record = record
        self._log = log
        self.plan = plan
        if plan is not None:
            self._write(plan)

    def _write(self, plan: GpuPlan) -> None:
        write_json(self._record.file(wire.GPUS), plan.to_json())
        os.makedirs(self._record.file(wire.GPU_LEDGERS), exist_ok=True)
        model = plan.model
        for number, node in enumerate(plan.nodes):
            gpus = [
                Gpu(
                    name=model.name,
                    uuid=uuid,
                    bus_id=f"{number + 1:08X}:{index:02X}:00.0",
                    memory_bytes=share.memory_bytes,
                    sms=share.sms,
                    capability=share.capability,
                    context_bytes=_CONTEXT_BYTES,
                    power_w=model.power_w,
                )
                for index, (uuid, share) in enumerate(zip(node.ids, node.shares, strict=True))
            ]
            create(
                self._ledger(node.node), gpus, driver=model.driver, cuda=model.cuda, node=node.node
            )
        self._log("gpus", plan=plan.describe(), reason=plan.reason, collectives=plan.collectives)

    def _ledger(self, node: str) -> str:
        return self._record.file(wire.GPU_LEDGERS, node)

    @property
    def hooks(self) -> tuple[str, ...]:
        """What the ranks' interpreters need, see ``shim/hooks``."""
        if self.plan is None:
            return ()
        if self.plan.backing is Backing.HOST_MEMORY:
            return HOOKS
        return hooks_of(self.plan)

    def variables(self, node: str) -> dict[str, str]:
        """What every process on ``node`` needs in its environment."""
        if self.plan is None:
            return {}
        behind = backing_variables(self.plan, self.plan.on(node))
        return {**behind, **self.plan.variables, wire.GPU_LEDGER_VARIABLE: self._ledger(node)}

    @contextlib.asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Write down how much of every GPU is taken until the block is left."""
        if self.plan is None:
            yield
            return
        ledgers = {node.node: Ledger(self._ledger(node.node)) for node in self.plan.nodes}
        journal = Journal(self._record.file(wire.GPU_MEMORY))
        looking = asyncio.create_task(self._look(ledgers, journal))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            with contextlib.suppress(OSError):  # a full disk is told by whoever matters more
                journal.append(_seen(ledgers, last=True))
                journal.close()
            for ledger in ledgers.values():
                ledger.close()

    async def _look(self, ledgers: dict[str, Ledger], journal: Journal) -> None:
        before: dict[str, Any] = {}
        while True:
            seen = _seen(ledgers)
            if seen["used"] != before.get("used"):  # what has not changed says nothing
                journal.append(seen)
                before = seen
            await asyncio.sleep(_PERIOD_S)


def _seen(ledgers: dict[str, Ledger], *, last: bool = False) -> dict[str, Any]:
    """Bytes per node and GPU; ``last``: also the most there ever were, and by whom."""
    seen: dict[str, Any] = {
        "t": time.time(),
        "used": {node: list(ledger.used()) for node, ledger in ledgers.items()},
    }
    if last:
        seen["peaks"] = {node: list(ledger.peaks()) for node, ledger in ledgers.items()}
    return seen
