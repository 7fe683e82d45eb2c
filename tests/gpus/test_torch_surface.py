"""Torch on a node's virtual GPUs: every group of checks is a program that runs once."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch_kit import Node

from simgrid_ml.environments.build import ensure
from simgrid_ml.spec.job import EnvironmentSpec


@pytest.fixture
def node(tmp_path: Path, environment: EnvironmentSpec) -> Node:
    return Node(tmp_path, ensure(environment).python)


@pytest.mark.parametrize("group", ["operations", "placement", "gradients", "names", "refused"])
def test_torch_behaves_as_on_gpus(node: Node, group: str) -> None:
    assert {check: why for check, why in node.checks(group).items() if why} == {}
