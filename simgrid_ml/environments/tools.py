"""What every step of a build works with, uv first of all, and what it means when uv fails."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simgrid_ml.environments.catalog import build_constraints
from simgrid_ml.environments.indexes import Indexes
from simgrid_ml.environments.process import Commands, Finished, no_space_left
from simgrid_ml.environments.resolution import Host, Resolution
from simgrid_ml.errors import EnvironmentBuildError

__all__ = ["Tools", "constraining_builds", "failure", "uv_binary"]

_NETWORK = re.compile(
    r"dns error|failed to lookup|error sending request|connection (?:refused|reset|closed)"
    r"|network is unreachable|timed out|tls handshake|invalid peer certificate|client error",
    re.IGNORECASE,
)


def uv_binary() -> str:
    import uv

    try:
        return os.fspath(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise EnvironmentBuildError(
            "the program uv is missing, although its package is installed",
            remedy="reinstall it: python -m pip install --force-reinstall uv",
        ) from error


@dataclass(frozen=True)
class Tools:
    """One build's own.

    Attributes:
        commands: runs everything; log and cancellation.
        host: this machine.
        indexes: where packages come from.
        report: called with the current step.
        uv: path of its program.
    """

    commands: Commands
    host: Host
    indexes: Indexes
    report: Callable[[str], None]
    uv: str

    def run_uv(
        self,
        doing: str,
        arguments: Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """
        Raises:
            EnvironmentBuildError: uv failed while ``doing``.
        """
        finished = self.commands.run(
            [self.uv, *arguments, *self.indexes.uv_options],
            environment={**self.indexes.uv_environment(os.environ), **(variables or {})},
            on_line=on_line,
        )
        if finished.code != 0:
            raise failure(doing, finished, self.indexes)

    def make_venv(self, doing: str, folder: Path) -> str:
        """A virtual environment of the host's Python; gives its interpreter."""
        self.run_uv(doing, ["venv", "--quiet", "--python", self.host.interpreter, str(folder)])
        return str(folder / "bin" / "python")

    def install_lock(
        self,
        doing: str,
        python: str,
        resolution: Resolution,
        lock: Path,
        *,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Install all of ``resolution``, by the file ``lock`` that is written for it."""
        lock.write_text(resolution.requirements_file, encoding="utf-8")
        backend = ["--torch-backend", resolution.torch_backend] if resolution.torch_backend else []
        with tempfile.TemporaryDirectory(prefix="simgrid-ml-install-") as folder:
            variables = constraining_builds(resolution.packages, Path(folder))
            what = (*backend, "-r", str(lock))
            self.install(doing, python, *what, variables=variables, on_line=on_line)

    def install(
        self,
        doing: str,
        python: str,
        *what: str,
        variables: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Install ``what`` and nothing it asks for: all that is needed is in the lock."""
        arguments = ["pip", "install", "--python", python, "--no-deps", *what]
        self.run_uv(doing, arguments, variables=variables, on_line=on_line)


def constraining_builds(names: Iterable[str], folder: Path) -> dict[str, str]:
    """uv's variable for building those of ``names`` that have no wheel; its file is in ``folder``.

    Args:
        names: packages, or requirements of them.
    """
    lines = build_constraints(names)
    if not lines:
        return {}
    path = folder / "build-constraints.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {"UV_BUILD_CONSTRAINT": str(path)}


def failure(doing: str, finished: Finished, indexes: Indexes) -> EnvironmentBuildError:
    """What went wrong when uv gave up, by what it printed."""
    text = finished.text
    if "No space left on device" in text or "os error 28" in text:
        return no_space_left(doing, finished.evidence())
    if _NETWORK.search(text):
        return EnvironmentBuildError(
            f"no package index could be reached while {doing}",
            evidence=finished.evidence(),
            remedy="check the connection and HTTPS_PROXY, or give a local index with pip config "
            f"set global.index-url URL; looked in: {indexes.described()}",
        )
    return EnvironmentBuildError(
        f"{doing} failed (uv ended with {finished.code})",
        evidence=finished.evidence(),
        remedy="the build log has every line",
    )
