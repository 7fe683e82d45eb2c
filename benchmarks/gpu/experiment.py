"""What all experiments share: no GPU, no run; a line of JSON a finding; processes that end.

No card setting is changed: no compute mode, no clocks, no MIG, no reset.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

__all__ = ["Ranks", "emit", "multi_process_service", "require_gpu", "why_no_gpu"]

_PROGRAMS = "/usr/local/nvidia/bin"  # where some container engines put the driver's programs


def emit(experiment: str, **found: Any) -> None:
    """One finding, as a line of JSON on stdout."""
    print(json.dumps({"experiment": experiment, **found}), flush=True)


def why_no_gpu() -> str:
    """Why nothing can be tried here; "": it can."""
    from simgrid_ml.node.cuda_driver import Driver

    try:
        return "" if Driver().devices(context=False) else "the CUDA driver shows no device"
    except OSError as error:
        return str(error)


def require_gpu() -> None:
    """
    Raises:
        SystemExit: there is none, with code 2 and one line that says why.
    """
    why = why_no_gpu()
    if why:
        sys.stderr.write(f"benchmarks.gpu needs an NVIDIA GPU: {why}\n")
        raise SystemExit(2)


class Ranks:
    """Processes of one program, a rank each, that are gone when the block is left.

    Args:
        argv: after the interpreter.
        variables: of each rank, besides those that torch reads.
    """

    def __init__(self, argv: list[str], variables: list[dict[str, str]]) -> None:
        self._argv = argv
        self._variables = variables
        self._ranks: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Ranks:
        total = str(len(self._variables))
        for rank, own in enumerate(self._variables):
            self._ranks.append(
                subprocess.Popen(
                    [sys.executable, *self._argv],
                    env={**os.environ, "RANK": str(rank), "WORLD_SIZE": total, **own},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        for rank in self._ranks:
            if rank.poll() is None:
                rank.kill()
            rank.communicate()

    def results(self, timeout_s: float) -> list[dict[str, Any]]:
        """The last line of each rank, as JSON; ``failed`` and the end of its errors if it has none.

        All ranks together have ``timeout_s``.
        """
        import time

        deadline = time.monotonic() + timeout_s
        return [_result(rank, deadline - time.monotonic()) for rank in self._ranks]


def _result(rank: subprocess.Popen[str], left_s: float) -> dict[str, Any]:
    try:
        out, errors = rank.communicate(timeout=max(1.0, left_s))
    except subprocess.TimeoutExpired:
        rank.kill()
        rank.communicate()
        return {"failed": "timeout"}
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if rank.returncode == 0 and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    said = [line for line in errors.splitlines() if line.strip()]
    telling = [line for line in said if "Duplicate GPU" in line or "Multiple Ranks" in line]
    return {"failed": rank.returncode, "said": (telling or said or [""])[-1][:300]}


@contextlib.contextmanager
def multi_process_service() -> Iterator[str | None]:
    """NVIDIA's Multi-Process Service, with a folder of its own; None: it cannot be started."""
    place = f"{os.environ.get('PATH', '')}:{_PROGRAMS}"
    control = shutil.which("nvidia-cuda-mps-control", path=place)
    with tempfile.TemporaryDirectory(prefix="simgrid-ml-mps-") as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = {**os.environ, **own, "PATH": place}
        if control is None or subprocess.run([control, "-d"], env=environment).returncode:
            yield None
            return
        try:
            yield folder
        finally:
            subprocess.run([control], input="quit\n", text=True, env=environment, timeout=30)
