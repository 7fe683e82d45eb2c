"""``azureml.tensorboard.Tensorboard``: TensorBoard over the event files of runs, live or past."""

from __future__ import annotations

import os
import webbrowser
from typing import Any

from simgrid_ml.azure.errors import to_azure
from simgrid_ml.azure.tensorboard_server import DEFAULT_PORT, Board
from simgrid_ml.errors import SimgridError

__all__ = ["Tensorboard"]


class Tensorboard:
    """TensorBoard over what scripts write below ``./logs``.

    Args:
        runs: one run, or a list of them; none: what is in ``local_root`` is shown.
        local_root: the runs' files are linked there, one folder per run id, and stay; None: in a
            folder that ``stop`` removes.
        port: where to listen. 6006 stands for the first from there on that is free.
        use_display_name: the folders are ``<display name>/<run id>``.
    """

    def __init__(
        self,
        runs: Any,
        local_root: str | None = None,
        port: int = DEFAULT_PORT,
        use_display_name: bool = False,
    ) -> None:
        self._runs = runs if isinstance(runs, list) else [runs]
        self._local_root = local_root
        self._port = port
        self._use_display_name = use_display_name
        self._board: Board | None = None

    def start(self, start_browser: bool = False) -> str | None:
        """Start TensorBoard; its address is printed and returned. None: it runs already.

        Runs whose environment is still being prepared are waited for, unless the Python of the
        driver has a TensorBoard of its own.

        Raises:
            UserErrorException: there is no TensorBoard, or the port is in use.
            AzureMLException: it did not start.
        """
        if self._board is not None:
            return None
        port = None if self._port == DEFAULT_PORT else self._port
        runs = {self._folder(run): run._record for run in self._runs}
        try:
            self._board = Board(runs, root=self._local_root, port=port)
        except SimgridError as error:
            raise to_azure(error) from error
        print(self._board.url, flush=True)
        if start_browser:
            webbrowser.open(self._board.url)
        return self._board.url

    def stop(self) -> None:
        """End TensorBoard, if it runs; the runs go on."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _folder(self, run: Any) -> str:
        if not self._use_display_name:
            return str(run.id)
        return os.path.join(run.display_name.replace("/", "_").strip(".") or "_", run.id)
