"""The janitor of containers: it outlasts an engine that is restarting."""

from __future__ import annotations

import io
import sys
from typing import ClassVar

import pytest

from simgrid_ml.backends import engine_api, janitor
from simgrid_ml.backends.engine_api import EngineError


class Restarting:
    """Answers from the tenth time on."""

    asked = 0
    there: ClassVar = ["c"]

    def __init__(self, address: str) -> None:
        assert address == "unix://engine"

    def containers(self, label: str) -> list[dict[str, str]]:
        assert label == "label=1"
        Restarting.asked += 1
        if Restarting.asked < 10:
            raise EngineError("it is restarting", status=0)
        return [{"Id": each} for each in Restarting.there]

    def remove(self, container: str) -> None:
        Restarting.there.remove(container)


def test_containers_are_removed_once_their_engine_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_api, "Engine", Restarting)
    monkeypatch.setattr(janitor, "_QUIET_S", 0.1)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert janitor.main(["unix://engine", "label=1"]) == 0
    assert Restarting.there == []
