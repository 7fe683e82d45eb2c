"""``simgrid-ml demo --vm-size``: ranks on virtual GPUs of their own, on a host that has none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from simgrid_ml.checks import gpus
from simgrid_ml.checks.base import Verdict
from simgrid_ml.record.run import RunRecord
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left

PROGRAM = (sys.executable, "-m", "simgrid_ml")
NO_GPUS = (*PROGRAM, "demo", "--nodes", "2", "--epochs", "2")
GPUS = (*NO_GPUS, "--vm-size", "STANDARD_NC12")
MIB = 2**20


def printed(words: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    return done.stdout


def losses(record: RunRecord) -> list[float]:
    return [line["value"] for line in record.metrics() if line.get("name") == "loss"]


def test_every_rank_of_the_demo_trains_on_a_virtual_gpu_of_its_own(
    environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with nothing_left(str(tmp_path)):
        out = printed(GPUS, tmp_path)
        for text in (
            "2 virtual nodes of 2 Tesla K80 x 2 processes",
            'vm_size="STANDARD_NC12",',
            "use_gpu=True,",
            "rank 0 of 4, local rank 0 of 2 on node0, cuda:0",
            "rank 3 of 4, local rank 1 of 2 on node1, cuda:1",
            "Memory of the GPUs\n  2 nodes x 2 Tesla K80 (11.2 GiB), host memory",
            "4 ranks, a GPU of its own each",
        ):
            assert text in out, f"{text!r} is missing in\n{out}"
        table = re.findall(r"^  (node\d) +(\d) +GPU-\S+ +0 B +(\d\S* MiB) +11.2 GiB", out, re.M)
        assert [(node, gpu) for node, gpu, _ in table] == [
            (f"node{n}", f"{g}") for n in range(2) for g in range(2)
        ]
        record = RunStore.of_workspace("local").latest()
        told = json.loads(printed((*PROGRAM, "gpus", "latest", "--json"), tmp_path))
        peaks = [gpu["peak_bytes"] for gpu in told["gpus"]]
        assert all(MIB <= peak < 64 * MIB for peak in peaks), peaks
        (pinned,) = gpus.gpu_pinned(record)
        assert pinned.verdict is Verdict.PASS, pinned
        (peak,) = gpus.gpu_memory_peak(record, at_most_bytes=max(peaks))
        assert peak.verdict is Verdict.PASS, peak
        (peak,) = gpus.gpu_memory_peak(record, at_most_bytes=max(peaks) - 1)
        assert peak.verdict is Verdict.FAIL, peak

        printed(NO_GPUS, tmp_path)
        plain = RunStore.of_workspace("local").latest()
        assert plain.id != record.id
        assert losses(plain) == losses(record) != []
