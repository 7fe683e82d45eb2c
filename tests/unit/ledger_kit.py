"""Ledgers for tests that read them: a node with two GPUs of a model, used by this very process."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from simgrid_ml.node.gpu_ledger import Gpu, Ledger, create
from simgrid_ml.spec.gpus import gpu_model

MIB = 2**20
UUIDS = ("GPU-2a883cf3-86c1-576a-9bc0-f2eec648d233", "GPU-2b883cf3-86c1-576a-9bc0-f2eec648d233")


def two_gpus(path: Path, key: str = "K80") -> Path:
    """The ledger of a node ``node1`` that nobody uses yet."""
    model = gpu_model(key)
    gpus = [
        Gpu(
            name=model.name,
            uuid=uuid,
            bus_id=f"00000002:{number:02X}:00.0",
            memory_bytes=model.memory_bytes,
            sms=model.sms,
            capability=model.capability,
            power_w=model.power_w,
        )
        for number, uuid in enumerate(UUIDS)
    ]
    create(str(path), gpus, driver=model.driver, cuda=model.cuda, node="node1")
    return path


def used(path: Path, taken: tuple[int, int], rank: int = 0) -> closing[Ledger]:
    """This process has so many MiB on the GPUs until the block is left."""
    ledger = Ledger(str(path))
    ledger.claim(rank=rank, local_rank=rank, visible=[0, 1], name="python")
    for gpu, mib in enumerate(taken):
        if mib:
            ledger.put(gpu, mib * MIB)
    return closing(ledger)
