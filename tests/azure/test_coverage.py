"""The page of what is emulated is current, and true."""

from pathlib import Path

import pytest

from simgrid_ml import azure
from simgrid_ml.azure import coverage
from simgrid_ml.azure.errors import COVERAGE_PAGE
from simgrid_ml.errors import NotEmulated

PAGE = Path(__file__).parents[2] / COVERAGE_PAGE


def test_the_page_is_current():
    assert PAGE.read_text() == coverage.render(), (
        "run: python -m simgrid_ml.azure.coverage > docs/coverage.md"
    )


def test_no_name_is_both_emulated_and_missing():
    for module, names in coverage.MISSING.items():
        assert not set(names) & set(coverage.EMULATED.get(module, {})), module


def instance(kind: str) -> object:
    if kind == "ComputeTarget":
        return azure.ComputeTarget
    ws = azure.Workspace.local()
    if kind == "Workspace":
        return ws
    if kind == "Experiment":
        return azure.Experiment(ws, "e")
    if kind == "AmlCompute":
        config = azure.AmlCompute.provisioning_configuration(max_nodes=1)
        return azure.ComputeTarget.create(ws, "gpu", config)
    if kind == "Model":
        return azure.Model._put(ws, "m", [])
    run = azure.Experiment(ws, "e").start_logging(snapshot_directory=None)
    run.complete()
    return run


@pytest.mark.parametrize(
    ("kind", "member"), [(kind, m) for kind, names in coverage.MEMBERS.items() for m in names]
)
def test_every_member_said_to_be_missing_raises(kind, member):
    thing = instance(kind)
    with pytest.raises(NotEmulated, match=rf"{kind}\.{member}: not emulated"):
        getattr(thing, member)
    assert not hasattr(thing, member)


def test_a_missing_member_is_refused_of_the_class_as_well():
    with pytest.raises(NotEmulated):
        azure.Workspace.DEFAULT_CPU_CLUSTER_CONFIGURATION  # noqa: B018
    assert not hasattr(azure.Workspace, "nonsense")
