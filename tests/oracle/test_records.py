"""Our workspaces, runs, models and clusters against the real SDK's."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgrid_ml.azure import coverage
from simgrid_ml.azure.compute import AmlCompute
from simgrid_ml.azure.errors import ComputeTargetException
from simgrid_ml.azure.experiment import Experiment
from simgrid_ml.azure.metrics import MetricLog, merged
from simgrid_ml.azure.model import Model
from simgrid_ml.azure.offline import _OfflineRun
from simgrid_ml.azure.run import Run
from simgrid_ml.azure.workspace import Workspace
from simgrid_ml.engine import snapshot
from simgrid_ml.record.journal import Journal, read_journal

with warnings.catch_warnings():  # the SDK is full of them
    warnings.simplefilter("ignore")
    from azureml._project.ignore_file import get_project_ignore_file
    from azureml._restclient.metrics_client import MetricsClient
    from azureml.core import _metrics as real_metrics
    from azureml.core.compute import AmlCompute as RealAmlCompute
    from azureml.core.experiment import Experiment as RealExperiment
    from azureml.core.model import Model as RealModel
    from azureml.core.run import Run as RealRun
    from azureml.core.run import _OfflineRun as RealOfflineRun
    from azureml.core.workspace import Workspace as RealWorkspace
    from azureml.exceptions import ComputeTargetException as RealComputeTargetException

pytestmark = pytest.mark.filterwarnings("ignore")

PAIRS = [
    (Workspace, RealWorkspace),
    (Experiment, RealExperiment),
    (Run, RealRun),
    (_OfflineRun, RealOfflineRun),
    (Model, RealModel),
    (AmlCompute, RealAmlCompute),
]
INTERNAL = {"identity"}  # of the SDK's logging; and constants that form addresses
MEMBERS = [
    (ours, theirs, name)
    for ours, theirs in PAIRS
    for name in ["__init__", *(n for n in dir(theirs) if not n.startswith("_"))]
    if not name.isupper() and name not in INTERNAL
]


@pytest.mark.parametrize(("ours", "theirs", "name"), MEMBERS)
def test_every_member_is_there_with_its_signature_or_said_to_be_missing(
    ours: type, theirs: type, name: str
) -> None:
    if any(name in coverage.MEMBERS.get(kind.__name__, {}) for kind in ours.__mro__):
        return
    mine, real = getattr(ours, name), getattr(theirs, name)
    assert callable(mine) == callable(real)
    if inspect.isroutine(real):
        assert _parameters(mine) == _parameters(real)


@pytest.mark.parametrize("kind", [ours for ours, _ in PAIRS])
def test_nothing_is_said_to_be_missing_that_the_sdk_has_not(kind: type) -> None:
    theirs = dict(PAIRS)[kind]
    assert [n for n in coverage.MEMBERS.get(kind.__name__, {}) if not hasattr(theirs, n)] == []


def _parameters(thing: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(thing).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


texts = st.none() | st.sampled_from(["", "a", "aB1", "aaaa", "A1!", "UserAssigned"])


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "min_nodes": st.none() | st.integers(-1, 3),
            "max_nodes": st.none() | st.integers(-2, 4),
            # Below 0 the SDK refuses only when it writes the cluster down.
            "idle_seconds_before_scaledown": st.none() | st.integers(0, 2),
            "vm_priority": st.sampled_from(["dedicated", "lowpriority", "x"]),
            "admin_username": texts,
            "admin_user_password": texts,
            "admin_user_ssh_key": texts,
            "vnet_resourcegroup_name": texts,
            "vnet_name": texts,
            "subnet_name": texts,
            "identity_type": st.none() | st.sampled_from(["SystemAssigned", "UserAssigned", "x"]),
            "identity_id": st.none() | st.just(["id"]) | st.just([]),
        },
    )
)
def test_a_cluster_is_described_or_refused_as_by_the_sdk(kwargs: dict[str, Any]) -> None:
    def attempt(make: Any, refusal: type) -> Any:
        try:
            config = make(**kwargs)
        except refusal:
            return "refused"
        return {**vars(config), "scale_settings": config.scale_settings.serialize()}

    ours = attempt(AmlCompute.provisioning_configuration, ComputeTargetException)
    theirs = attempt(RealAmlCompute.provisioning_configuration, RealComputeTargetException)
    if isinstance(theirs, dict):
        theirs.pop("_compute_type")
    assert ours == theirs


value = st.integers(-5, 5).map(float)
calls = st.one_of(
    st.tuples(st.just("scalar"), st.sampled_from(["a", "b"]), value),
    st.tuples(
        st.just("list"), st.sampled_from(["l", "m"]), st.lists(value, min_size=1, max_size=4)
    ),
    st.tuples(
        st.just("row"),
        st.sampled_from(["r", "s"]),
        st.fixed_dictionaries({"x": value, "y": value}),  # columns that differ crash the SDK
    ),
    st.tuples(
        st.just("table"),
        st.just("t"),  # a table after a row of the same name crashes the SDK
        st.lists(value, min_size=2, max_size=2).map(lambda column: {"x": column, "y": column}),
    ),
)
REAL_METRICS = {
    "scalar": real_metrics.ScalarMetric,
    "list": real_metrics.ListMetric,
    "row": real_metrics.RowMetric,
    "table": real_metrics.TableMetric,
}


@settings(max_examples=200, deadline=None)
@given(st.lists(calls, max_size=8))
def test_what_was_logged_comes_back_as_the_sdk_gives_it(
    tmp_path_factory: Any, logged: list[tuple[str, str, Any]]
) -> None:
    path = str(tmp_path_factory.mktemp("m") / "m.jsonl")
    log = MetricLog(Journal(path))
    ours = {"scalar": log.scalar, "list": log.sequence, "row": log.row, "table": log.table}
    for kind, name, what in logged:
        ours[kind](name, what)
    log.close()
    sent = [
        REAL_METRICS[kind](name, what).create_run_metric_dto("run") for kind, name, what in logged
    ]
    assert merged(read_journal(path)) == MetricsClient.dto_to_metrics_dict(sent)


names = st.sampled_from(["a", "b.log", "data", "keep.txt", "x y", "ż"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
patterns = st.sampled_from(
    ["a", "/a", "a/", "*.log", "data/", "data/*", "**/b.log", "!keep.txt", "!data/keep.txt"]
) | st.sampled_from(["# x", "", "x y", "*", "!*.log", "a/**", "ż"])


@settings(max_examples=300, deadline=None)
@given(st.sets(paths, max_size=8), st.lists(patterns, max_size=4), st.booleans())
def test_the_same_files_are_ignored(
    tmp_path_factory: Any, wanted: set[str], lines: list[str], azure: bool
) -> None:
    folder: Path = tmp_path_factory.mktemp("s")
    for path in sorted(wanted):
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("")
        except OSError:  # a file is where a folder would have to be
            continue
    (folder / (".amlignore" if azure else ".gitignore")).write_text("\n".join(lines) + "\n")
    ignore = get_project_ignore_file(str(folder))
    files = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    theirs = sorted(file for file in files if not ignore.is_file_excluded(str(folder / file)))
    assert sorted(name for name, _, _ in snapshot.files_of(str(folder))) == theirs
