"""``gpu-memory.jsonl``: a line for each change, who took what at the end, and never too many."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from ledger_kit import MIB, two_gpus, used

from simgrid_ml.engine import gpu_memory
from simgrid_ml.record.journal import read_journal


def recorded(path: Path, steps: list[int | None], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Write ``path`` while this process has so many MiB, one after the other; None: it waits.

    Returns the seconds between looks.
    """
    ledger_path = two_gpus(path.with_name("node1"))
    periods = []

    async def write() -> None:
        done = asyncio.Event()
        real = asyncio.sleep
        todo = iter(steps)

        with used(ledger_path, (0, 0)) as ledger:

            async def next_step(period_s: float) -> None:
                periods.append(period_s)
                step = next(todo, -1)
                if step == -1:
                    done.set()
                elif step is not None:
                    ledger.put(1, step * MIB)
                await real(0)

            monkeypatch.setattr(gpu_memory.asyncio, "sleep", next_step)
            async with gpu_memory.recorded(str(path), {"node1": str(ledger_path)}):
                await done.wait()
                monkeypatch.undo()

    asyncio.run(write())
    return periods


def test_only_changes_are_written_and_the_end_says_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory"
    recorded(path, [300, None, 200, None, None], monkeypatch)
    *lines, last = read_journal(str(path))
    assert [line["used"]["node1"][1] // MIB for line in lines] == [0, 300, 200]
    assert last["peaks"] == {"node1": [0, 300 * MIB]}
    (process,) = last["processes"]["node1"]
    assert (process["rank"], process["bytes"], process["peaks"]) == (
        0,
        [0, 200 * MIB],
        [0, 300 * MIB],
    )


def test_a_run_that_never_stops_changing_is_looked_at_ever_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "LINES", 10)
    steps: list[int | None] = list(itertools.islice(itertools.cycle((1, 2)), 35))
    periods = recorded(tmp_path / "memory", steps, monkeypatch)
    first = gpu_memory.PERIOD_S
    assert [periods.count(first * 2**k) for k in range(4)] == [9, 10, 10, len(periods) - 29]


def test_processes_that_have_ended_are_in_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = two_gpus(tmp_path / "node0")

    async def write() -> None:
        async with gpu_memory.recorded(str(tmp_path / "memory"), {"node0": str(ledger)}):
            with used(ledger, (50, 0), rank=3):
                pass

    asyncio.run(write())
    last = read_journal(str(tmp_path / "memory"))[-1]
    assert last["used"] == {"node0": [0, 0]}
    assert [(one["rank"], one["peaks"]) for one in last["processes"]["node0"]] == [
        (3, [50 * MIB, 0])
    ]
