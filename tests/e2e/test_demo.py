"""The demo, the driver it hands out, and the README's driver: as a newcomer runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.record.run import RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left

PROGRAM = [sys.executable, "-m", "simgrid_ml"]
IN_THE_TESTS_ENVIRONMENT = """
import sys
from simgrid_ml.__main__ import main
from simgrid_ml.cli import demo_drivers as drivers

packages = 'conda_packages=["scikit-learn"],'
assert packages in drivers.DRIVER
more = 'pip_packages=["tf2onnx", "onnxruntime"],'
drivers.DRIVER = drivers.DRIVER.replace(packages, f"{packages}\\n    {more}")
sys.exit(main(sys.argv[1:]))
"""
"""The program with a demo whose TensorFlow is that of the other tests, which needs no build."""
README = Path(__file__).parents[2] / "README.md"


def simgrid_ml(
    *words: str, cwd: Path, code: int = 0, program: Sequence[str] = tuple(PROGRAM)
) -> str:
    """What the program prints on stdout; it must end with ``code``."""
    done = subprocess.run(
        [*program, *words], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    ours = [line for line in done.stderr.splitlines() if line.startswith("Traceback")]
    assert not ours, done.stderr
    return done.stdout


def said_as_json(*words: str, cwd: Path) -> Any:
    return json.loads(simgrid_ml(*words, "--json", cwd=cwd))


def test_the_demo_shows_a_newcomer_a_whole_run(
    environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with nothing_left(str(tmp_path)):
        out = simgrid_ml("demo", "--epochs", "4", cwd=tmp_path)
        assert "\x1b" not in out
        for text in (
            "2 virtual nodes x 2 processes",
            "estimator = PyTorch(",
            "rank 3 of 4, local rank 1 of 2 on node1",
            "Loss per epoch",
            "[3] azureml-logs/70_driver_log_3.txt",
            "outputs/model.pt",
            "logs/rank-2.txt",
            "simgrid-ml runs show latest",
        ):
            assert text in out, f"{text!r} is missing in\n{out}"
        for stage in ("Preparing", "Queued", "Running", "Finalizing"):
            assert re.search(rf"^  {stage} +[\d.]+ (?:ms|s|min)", out, re.MULTILINE), stage
        assert re.search(r"^  4 +\d\.\d{4} +\d\.\d{4} +\d+\.\d%$", out, re.MULTILINE)
        assert re.search(r"^  pass +ranks", out, re.MULTILINE)
        told = said_as_json("runs", "show", "latest", cwd=tmp_path)
        assert told["state"] == "Completed"
        assert told["exit_code"] == 0
        wanted = [one["wanted"] for one in told["environment"]["substitutions"]]
        assert any(one.startswith("torch==1.4") for one in wanted)
        losses = [
            point["value"]
            for point in said_as_json("runs", "metrics", "latest", cwd=tmp_path)["loss"]
        ]
        assert len(losses) == 4
        assert losses[-1] < losses[0] / 2


def test_the_demo_in_another_shape_and_era_trains_the_same_model(
    environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with nothing_left(str(tmp_path)):
        words = ["demo", "--nodes", "3", "-p", "1", "--era", "E3", "--epochs", "6"]
        out = simgrid_ml(*words, cwd=tmp_path)
        assert 'tags={"simgrid-ml.era": "E3"}' in out
        assert "[2] user_logs/std_log_process_2.txt" in out
        told = said_as_json("runs", "show", "latest", cwd=tmp_path)
        assert told["cluster"]["era"] == "E3"
        found = said_as_json("runs", "metrics", "latest", "-m", "test_accuracy", cwd=tmp_path)
        assert found["test_accuracy"][0]["value"] > 0.8


def test_the_demo_trains_on_a_parameter_server(tensorflow: EnvironmentSpec, tmp_path: Path) -> None:
    program = [sys.executable, "-c", IN_THE_TESTS_ENVIRONMENT]
    words = ["demo", "--framework", "tensorflow", "--distribution", "ps", "--epochs", "4"]
    with nothing_left(str(tmp_path)):
        out = simgrid_ml(*words, cwd=tmp_path, program=program)
        for text in (
            "2 virtual nodes, 1 parameter server, 2 workers",
            "estimator = TensorFlow(",
            "[worker-0] hidden/weights:0 lives on /job:ps/task:0",
            "[ps-0] ps 0 on node0",
            "[worker-1] worker 1 has seen its share 4 times",
            "Loss per epoch",
            "[worker-1] azureml-logs/70_driver_log-worker-1.txt",
            "outputs/model.npz",
            "simgrid-ml runs logs latest --task worker-1",
        ):
            assert text in out, f"{text!r} is missing in\n{out}"
        assert re.search(r"^  pass +ranks", out, re.MULTILINE)
        told = said_as_json("runs", "show", "latest", cwd=tmp_path)
        assert (told["state"], told["exit_code"], told["remarks"]) == ("Completed", 0, [])
        metrics = said_as_json("runs", "metrics", "latest", cwd=tmp_path)
        losses = [point["value"] for point in metrics["loss"]]
        assert len(losses) == 4
        assert losses[-1] < 1  # it begins at log(10); the other worker may have been faster
        assert metrics["test_accuracy"][0]["value"] > 0.8
        logs = simgrid_ml("runs", "logs", "latest", "-t", "ps-0", "-t", "worker-1", cwd=tmp_path)
        assert {line.split()[0] for line in logs.splitlines()} == {"[ps-0]", "[worker-1]"}


def test_the_readmes_driver_runs_on_the_demos_training_folder(
    environment: EnvironmentSpec, tmp_path: Path
) -> None:
    text = README.read_text(encoding="utf-8")
    (driver,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "my demo"
    with nothing_left(str(tmp_path)):
        assert "simgrid-ml python driver.py" in simgrid_ml(
            "demo", "--copy-to", str(folder), cwd=tmp_path
        )
        given = (folder / "driver.py").read_text()
        assert "wait_for_completion" in given
        simgrid_ml("demo", "--copy-to", str(folder), cwd=tmp_path, code=2)
        (folder / "driver.py").write_text(driver)
        out = simgrid_ml("python", "driver.py", cwd=folder)
        assert "epoch 3/3" in out
        assert 0 < float(out.splitlines()[-1]) <= 1
        assert os.listdir(RunStore.of_workspace("local").folder("models")) == ["digits"]


def test_interrupting_the_demo_leaves_the_run_going(
    environment: EnvironmentSpec, tmp_path: Path
) -> None:
    with nothing_left(str(tmp_path)):
        process = subprocess.Popen(
            [*PROGRAM, "demo", "--epochs", "100000"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process:
            for line in process.stdout:
                if "epoch 1/" in line:
                    break
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "goes on" in out
        record = RunStore.of_workspace("local").latest()
        assert record.state is RunState.RUNNING
        assert f"simgrid-ml runs cancel {record.id}" in out
        assert "Canceled" in simgrid_ml("runs", "cancel", "latest", "--wait", cwd=tmp_path)


@pytest.mark.parametrize("words", [["--backend", "none-such"], ["--nodes", "0"]])
def test_the_demo_refuses_what_it_cannot_do(tmp_path: Path, words: list[str]) -> None:
    simgrid_ml("demo", *words, cwd=tmp_path, code=2)
    assert not os.path.exists(RunStore.of_workspace("local").folder("runs"))
