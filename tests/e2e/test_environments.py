"""The environments of the PyTorch and TensorFlow estimators as they come from the real indexes.

Builds them where the cache has none, which takes minutes; uses the user's cache on purpose, as
every end-to-end test needs the same environments.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from simgrid_ml.environments.build import BuiltEnvironment, ensure, hold
from simgrid_ml.environments.cache import Cache
from simgrid_ml.environments.catalog import TENSORFLOW, TORCH
from simgrid_ml.spec.job import EnvironmentSpec

SPEC = EnvironmentSpec(framework="pytorch", framework_version="1.4", conda=("scikit-learn",))


@pytest.fixture(scope="module")
def pytorch() -> BuiltEnvironment:
    return ensure(SPEC, report=print)


def run(built: BuiltEnvironment, *argv: str) -> str:
    environment = {
        "PATH": f"{built.bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": os.environ.get("HOME", "/"),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    with hold(built):
        answer = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_pytorch_environment_says_what_was_substituted(pytorch: BuiltEnvironment) -> None:
    assert pytorch.packages["torch"].startswith(TORCH)
    assert pytorch.packages["horovod"] == "0.28.1"
    assert any(one.wanted == "torch==1.4" for one in pytorch.substitutions)


def test_horovod_has_mpi_and_gloo(pytorch: BuiltEnvironment) -> None:
    shown = run(pytorch, "horovodrun", "--check-build")
    for feature in ("PyTorch", "MPI", "Gloo"):
        assert f"[X] {feature}" in shown


def test_horovod_adds_over_the_ranks_of_the_environments_own_mpirun(
    pytorch: BuiltEnvironment, tmp_path: Path
) -> None:
    script = tmp_path / "add.py"
    script.write_text(
        "import torch\n"
        "import horovod.torch as hvd\n"
        "hvd.init()\n"
        "total = hvd.allreduce(torch.tensor([hvd.rank() + 1.0]), op=hvd.Sum)\n"
        "print(hvd.size(), total.item())\n"
    )
    mpirun = os.path.join(pytorch.bin, "mpirun")
    shown = run(
        pytorch, mpirun, "--oversubscribe", "--bind-to", "none", "-np", "2", pytorch.python,
        str(script),
    )  # fmt: skip
    assert shown.splitlines() == ["2 3.0", "2 3.0"]


def test_no_build_tools_are_left_in_the_environment(pytorch: BuiltEnvironment) -> None:
    assert not {"cmake", "ninja", "wheel", "pip"} & pytorch.packages.keys()


def test_tensorflow_and_keras_have_a_horovod_of_their_own(
    tensorflow: EnvironmentSpec, tmp_path: Path
) -> None:
    built = ensure(tensorflow)
    assert built.packages["tensorflow-cpu"] == TENSORFLOW
    assert built.packages["horovod"] == "0.28.1"
    assert not {"tensorflow", "torch", "pybind11", "cmake"} & built.packages.keys()
    assert any(one.wanted == "tensorflow==2.3" for one in built.substitutions)
    legacy = ensure(structs.replace(tensorflow, framework_version="1.13"))
    assert (legacy.lock_hash, legacy.cached) == (built.lock_hash, True)
    assert {*legacy.hooks} - {*built.hooks} == {"tensorflow_v1"}
    script = tmp_path / "add.py"
    script.write_text(
        "import tensorflow, horovod.keras\n"
        "import horovod.tensorflow as hvd\n"
        "hvd.init()\n"
        "total = hvd.allreduce(tensorflow.constant([hvd.rank() + 1.0]), op=hvd.Sum)\n"
        "print(hvd.size(), total.numpy()[0], hvd.mpi_built(), hvd.gloo_built())\n"
    )
    mpirun = os.path.join(built.bin, "mpirun")
    shown = run(
        built, mpirun, "--oversubscribe", "--bind-to", "none", "-np", "2", built.python,
        str(script),
    )  # fmt: skip
    assert shown.splitlines() == ["2 3.0 True True"] * 2


def test_other_packages_do_not_compile_horovod_again(
    pytorch: BuiltEnvironment, tmp_path: Path
) -> None:
    """Judged by the steps it reports, not by a clock."""
    (tmp_path / "wheels").symlink_to(Cache.default().root / "wheels")
    said: list[str] = []
    other = ensure(
        EnvironmentSpec(framework="pytorch", framework_version="1.5", pip=("tqdm",)),
        report=said.append,
        cache=Cache(tmp_path),
    )
    assert not other.cached
    assert "tqdm" in other.packages
    assert not [step for step in said if step.startswith("building horovod")]


def test_a_finding_costs_no_process_and_no_log(pytorch: BuiltEnvironment, tmp_path: Path) -> None:
    log = tmp_path / "20_image_build_log.txt"
    again = ensure(SPEC, log_path=str(log))
    assert again.cached
    assert again.python == pytorch.python
    assert not log.exists()
