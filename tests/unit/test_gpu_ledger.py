"""The ledger of a node's GPUs, and how much of them processes may take."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from simgrid_ml.node.gpu_devices import Devices, OutOfMemory
from simgrid_ml.node.gpu_ledger import MAX_PROCESSES, Gpu, Ledger, create

MIB = 2**20


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Of a node with two GPUs of 100 MiB."""
    path = str(tmp_path / "node0")
    gpus = [
        Gpu("Tesla K80", f"GPU-{n}", f"00000001:0{n}:00.0", 100 * MIB, 13, (3, 7)) for n in (0, 1)
    ]
    create(path, gpus, driver="470.256.02", cuda="11.4", node="node0")
    return path


class Process:
    """Forked: does its work, then waits until it is ended."""

    def __init__(self, work: Callable[[], None]) -> None:
        read, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                work()
                os.write(write, b"+")
                signal.pause()
            finally:
                os._exit(1)
        os.close(write)
        self._said = read

    def is_ready(self) -> bool:
        return os.read(self._said, 1) == b"+"

    def kill(self) -> None:
        os.close(self._said)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def taking(path: str, gpu: int, size: int) -> Callable[[], None]:
    def work() -> None:
        mine = Ledger(path)
        mine.claim(rank=3, local_rank=1, visible=(0, 1), name="python")
        mine.put(gpu, size)

    return work


def test_a_row_counts_as_long_as_its_process_lives(ledger: str) -> None:
    process = Process(taking(ledger, 1, 30 * MIB))
    try:
        assert process.is_ready()
        reader = Ledger(ledger)
        (row,) = reader.rows()
        assert (row.pid, row.rank, row.local_rank, row.name) == (process.pid, 3, 1, "python")
        assert (row.visible, row.used, row.bytes) == ((0, 1), (1,), (0, 30 * MIB))
        assert reader.used() == (0, 30 * MIB)
    finally:
        process.kill()
    assert not list(reader.rows())
    assert reader.used() == (0, 0)
    assert reader.peaks() == (0, 30 * MIB)
    assert [row.pid for row in reader.rows(ended=True)] == [process.pid]


def test_processes_that_begin_together_all_have_a_row(ledger: str) -> None:
    processes = [Process(taking(ledger, 0, MIB)) for _ in range(40)]
    try:
        assert all(process.is_ready() for process in processes)
        reader = Ledger(ledger)
        assert {row.pid for row in reader.rows()} == {process.pid for process in processes}
        assert reader.used() == (40 * MIB, 0)
    finally:
        for process in processes:
            process.kill()


def test_a_node_has_so_many_rows_and_says_so(ledger: str) -> None:
    held = [Ledger(ledger) for _ in range(MAX_PROCESSES)]
    for one in held:
        one.claim()
    with pytest.raises(OSError, match=f"{MAX_PROCESSES} processes"):
        Ledger(ledger).claim()
    held[7].close()
    Ledger(ledger).claim()
    for one in held:
        if one is not held[7]:
            one.close()


def test_memory_is_shared_by_the_processes_of_a_node(
    ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    process = Process(taking(ledger, 1, 60 * MIB))
    try:
        assert process.is_ready()
        devices = Devices(ledger)
        devices.attach()
        taken = devices[1].take(30 * MIB)
        with pytest.raises(OutOfMemory) as full:
            devices[1].take(20 * MIB)
        assert full.value.others == 60 * MIB
        assert devices[0].take(90 * MIB) == 90 * MIB
    finally:
        process.kill()
    devices[1].require(70 * MIB)
    assert devices[1].allocated == taken
    with pytest.raises(OutOfMemory):
        devices[1].require(71 * MIB)
    devices[1].give(taken)
    devices[1].take(100 * MIB)
    assert devices.ledger.used() == (90 * MIB, 100 * MIB)
