"""Runs on slices of a real GPU, from the host's inventory to what a rank finds.

NVML and the CUDA driver are those for tests; nothing here has run on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.node.gpu_slices import decode
from simgrid_ml.spec.gpus import GPU_MODELS, GpuSharing
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.nvml import ONE_H200, FakeHost, variables, write_host
from simgrid_ml.testing.runs import Runs, cause, evidence, log

MIB = 2**20
H200 = f"GPU-{uuid.uuid4()}"
SLICED = {"vm_size": "STANDARD_NC12", "gpu_sharing": GpuSharing.TIME_SLICED}

LOOK = """
    import json, os, threading
    from simgrid_ml.node import gpu_slices
    from simgrid_ml.shim.virtual_gpu import collectives

    slices = gpu_slices.of_process()
    collectives.Watch("the first collective", lambda: False, patience_s=0.01)
    for thread in threading.enumerate():
        if thread.name == "simgrid-ml-watch":
            thread.join()
    print(json.dumps({"environment": dict(os.environ), "shifted": slices.is_shifted,
                      "used": [slices.use(1).number, slices.use(1).ordinal]}))
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """A workspace on a host with one H200; its nodes' CUDA driver knows the same."""
    described = str(tmp_path / "host.json")
    write_host(described, FakeHost((replace(ONE_H200.gpus[0], uuid=H200),)))
    for name, value in variables(described).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    source = os.path.join(os.path.dirname(__file__), "libcuda.c")
    library = ["cc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), source]
    subprocess.run(library, check=True)
    drive(folder, H200)
    with nothing_left(str(tmp_path)):
        yield Runs(str(tmp_path), EnvironmentSpec(interpreter=str(folder / "bin" / "python")))


def drive(folder: Path, gpu: str) -> None:
    """Let the driver on the nodes know ``gpu``."""
    looks = folder / "bin" / "python3"
    looks.unlink()
    looks.write_text(
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH='{folder}' FAKE_CUDA='{gpu[4:]} {143771 * MIB} 132'\n"
        f'exec "{folder}/bin/python" "$@"\n'
    )
    looks.chmod(0o755)


def test_ranks_find_which_part_of_the_gpu_is_theirs_and_what_keeps_them_there(host: Runs) -> None:
    record = host.completed(LOOK, nodes=2, cluster=SLICED)
    events = {event["event"]: event for event in record.events()}
    assert events["gpus-checked"]["nodes"] == ["node0", "node1"]
    told = events["no-progress"]
    assert told["task"] in record.task_reports()
    assert told["text"].startswith("the first collective has not ended for 0.01 s; try NCCL_DEBUG")
    (line,) = [one for one in log(record).splitlines() if one.startswith("{")]
    found = json.loads(line)
    assert (found["shifted"], found["used"]) == (True, [1, 0])
    environment = found["environment"]
    assert environment["CUDA_VISIBLE_DEVICES"] == H200
    assert environment[wire.HOOKS_VARIABLE] == "gpu_caps,gpu_collectives"
    assert environment[wire.GPU_BACKING_VARIABLE] == "TIME_SLICED"
    assert environment[wire.GPU_COLLECTIVES_VARIABLE] == "gloo"
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    first, second = decode(environment[wire.GPU_DEVICES_VARIABLE])
    assert first == second
    part = GPU_MODELS["K80"].memory_bytes - 600 * MIB
    assert first == (H200, part, 143771 * MIB)
    assert float(environment["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == pytest.approx(
        part / (143771 * MIB), abs=1e-4
    )


def test_a_device_that_has_not_arrived_on_the_nodes_ends_the_run_before_any_rank(
    host: Runs, tmp_path: Path
) -> None:
    other = f"GPU-{uuid.uuid4()}"
    drive(tmp_path / "environment", other)
    record = host.failed(LOOK, cluster=SLICED)
    assert cause(record) == "node0 does not have the GPUs that were planned for it"
    assert "asked for its GPUs, it says: OSError: cuInit failed: CUDA_ERROR_NO_DEVICE" in evidence(
        record
    )
    assert f"the process had CUDA_VISIBLE_DEVICES={H200}" in evidence(record)
    assert record.task_reports() == {}
