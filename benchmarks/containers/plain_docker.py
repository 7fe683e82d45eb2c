"""The floor: the same containers by the engine's own command, as many at once as nodes."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.backends.host_image import host_image

__all__ = ["LABEL", "Plain"]

LABEL = "simgrid-ml-benchmark"


class Plain:
    """Containers of the host image that sleep, started by ``docker run``."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.image = host_image(self.engine, ())

    def start(self, count: int) -> float:
        """Seconds until all of ``count`` parallel ``docker run --detach`` have returned."""
        mounts = [f"type=bind,source={a},target={b},readonly" for a, b, _ in self.image.binds]
        argv = ["docker", "run", "--detach", "--rm", "--label", LABEL, "--read-only"]
        for mount in mounts:
            argv += ["--mount", mount]
        argv += [self.image.name, "sleep", "600"]
        begun = time.monotonic()
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(lambda _: self._run(argv), range(count)))
        return time.monotonic() - begun

    @staticmethod
    def _run(argv: list[str]) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    def remove(self) -> None:
        """All of them; returns when they are gone."""
        ids = [each["Id"] for each in self.engine.containers(LABEL)]
        with ThreadPoolExecutor(max(1, len(ids))) as threads:
            list(threads.map(self.engine.remove, ids))
        while self.engine.containers(LABEL):
            time.sleep(0.02)
