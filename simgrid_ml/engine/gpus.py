"""The GPUs of a run's nodes: from the plan to what ranks find, and how much of them is used.

What only runs with GPUs need is imported by them alone: all others pay nothing for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from simgrid_ml import wire
from simgrid_ml.checks.base import Finding
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunRecord
from simgrid_ml.spec.gpus import Backing, GpuPlan

__all__ = ["HOOKS", "LiveGpus"]

HOOKS = ("virtual_cuda", "virtual_tensorflow")
"""What gives frameworks GPUs that live in host memory; see ``shim/virtual_gpu``."""

_LIBRARIES = "LD_LIBRARY_PATH"


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
        from simgrid_ml.node.gpu_ledger import Gpu, create

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
        if self._is_emulated:
            return HOOKS
        from simgrid_ml.engine.gpu_backing import hooks_of

        return hooks_of(self.plan)

    @property
    def libraries(self) -> str:
        """Folder of libraries that everything on the nodes finds first; "" for none."""
        if not self._is_emulated:
            return ""
        from simgrid_ml.engine.gpu_programs import library_folder

        return library_folder(self._record)

    def install(self, python: Sequence[str]) -> None:
        """Give the nodes ``nvidia-smi`` and NVML, where the host's would show other GPUs.

        Args:
            python: the command that runs a Python on the nodes.
        """
        if self._is_emulated:
            from simgrid_ml.engine.gpu_programs import install

            install(self._record, python)

    @property
    def _is_emulated(self) -> bool:
        return self.plan is not None and self.plan.backing is Backing.HOST_MEMORY

    def variables(self, node: str, before: Mapping[str, str]) -> dict[str, str]:
        """What every process on ``node`` needs besides ``before``, what it has."""
        if self.plan is None:
            return {}
        from simgrid_ml.engine.gpu_backing import backing_variables

        made = backing_variables(self.plan, self.plan.on(node))
        made.update(self.plan.variables)
        made[wire.GPU_LEDGER_VARIABLE] = self._ledger(node)
        if self.libraries:
            places = (self.libraries, made.get(_LIBRARIES) or before.get(_LIBRARIES))
            made[_LIBRARIES] = ":".join(filter(None, places))
        return made

    @contextlib.asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Write down how much of every GPU is taken until the block is left."""
        if self.plan is None:
            yield
            return
        from simgrid_ml.engine.gpu_memory import recorded

        ledgers = {node.node: self._ledger(node.node) for node in self.plan.nodes}
        async with recorded(self._record.file(wire.GPU_MEMORY), ledgers):
            yield

    def check(self, run: RunRecord) -> Iterable[Finding]:
        """Whether ranks saw and used the GPUs of their nodes; nothing where those have none."""
        if self.plan is None:
            return ()
        from simgrid_ml.checks.gpus import check

        return check(run)
