"""TensorBoard over a real run: its own interface shows what ranks write, live and afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.azure import Run
from simgrid_ml.azure.errors import UserErrorException
from simgrid_ml.azure.tensorboard import Tensorboard
from simgrid_ml.azure.tensorboard_export import export_to_tensorboard
from simgrid_ml.record.run import RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.testing.processes import wait_until
from simgrid_ml.testing.runs import Runs, story

SCRIPT = """
    import os
    import time
    from azureml.core.run import Run
    from torch.utils.tensorboard import SummaryWriter

    run = Run.get_context()
    writer = SummaryWriter("logs/curves")

    def log(step):
        writer.add_scalar("loss", 3.0 - step, step)
        run.log("loss", 3.0 - step)

    log(0), log(1)
    writer.flush()
    while not os.path.exists("go on"):
        time.sleep(0.02)
    log(2)
    writer.close()
    run.log_row("test", accuracy=0.75, note="text")
"""


def asked(url: str, path: str) -> Any:
    """What TensorBoard answers; None: it knows nothing of that yet."""
    try:
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        return None


def points(url: str, run: str, tag: str) -> list[tuple[int, float]]:
    """(step, value) of every point that TensorBoard shows."""
    query = urllib.parse.urlencode({"run": run, "tag": tag})
    found = asked(url, f"data/plugin/scalars/scalars?{query}")
    return [(step, value) for _, step, value in found or ()]


def awaited(url: str, run: str, tag: str, *wanted: tuple[int, float]) -> None:
    """Returns once exactly these points are shown."""
    seen: list[Any] = []

    def there() -> bool:
        seen[:] = points(url, run, tag)
        return seen == list(wanted)

    try:
        wait_until(there, f"{tag} of {run}", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}; seen {seen}, runs: {asked(url, 'data/runs')}") from None


def test_tensorboard_shows_a_run_while_it_is_live_and_afterwards(
    workspace: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.store = RunStore.of_workspace()
    record = workspace.submit(SCRIPT)
    run, curves = Run._of(record), f"{record.id}/curves"
    board = Tensorboard([run], local_root=str(tmp_path / "board"), port=0)
    url = board.start()
    assert url is not None, story(record)
    try:
        assert capsys.readouterr().out.splitlines()[-1] == url
        assert board.start() is None  # it runs already
        awaited(url, curves, "loss", (0, 3.0), (1, 2.0))
        assert record.state is RunState.RUNNING
        with pytest.raises(UserErrorException, match="in use"):
            Tensorboard([run], port=int(url.rstrip("/").rpartition(":")[2])).start()
        Path(record.file("work", "go on")).touch()
        assert workspace.ended(record).state is RunState.COMPLETED, story(record)
        awaited(url, curves, "loss", (0, 3.0), (1, 2.0), (2, 1.0))
    finally:
        board.stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5)

    # What was exported is a TensorBoard's file like any other; a second export replaces it.
    for _ in range(2):
        export_to_tensorboard([run], str(tmp_path / "export"))
    run.display_name = "the first"
    board = Tensorboard(run, str(tmp_path / "export"), port=0, use_display_name=True)
    url = board.start()
    assert url is not None
    try:
        awaited(url, record.id, "loss", (0, 3.0), (1, 2.0), (2, 1.0))
        awaited(url, record.id, "test/accuracy", (0, 0.75))
        awaited(url, f"the first/{curves}", "loss", (0, 3.0), (1, 2.0), (2, 1.0))
    finally:
        board.stop()

    # The command shows both, and leaves nothing even if it is killed; the fixture looks for that.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "simgrid_ml", "tensorboard", record.id, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("TensorBoard: ").strip()
        awaited(url, curves, "loss", (0, 3.0), (1, 2.0), (2, 1.0))
        awaited(url, f"{record.id}/metrics", "loss", (0, 3.0), (1, 2.0), (2, 1.0))
        assert os.listdir(scratch)
        process.kill()
    wait_until(lambda: not os.listdir(scratch), "its temporary folder is gone")
