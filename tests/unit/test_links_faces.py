"""Links as they are asked for: options of ``run``, run files, tags of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import CommandLine, cli
from test_cli_run import Submitted, submitted

from simgrid_ml.azure import AmlCompute, ComputeTarget, Workspace
from simgrid_ml.azure.compute import stored_spec
from simgrid_ml.azure.errors import ComputeTargetException
from simgrid_ml.spec.links import Link, Links

__all__ = ["cli", "submitted"]

GBIT = 125e6
RUN_FILE = """
job: {entry_script: train.py, distribution: {kind: plain, nodes: 2}}
cluster:
  links:
    rate: 1Gbit
    nodes: {node1: {delay: 2ms}}
"""


def test_options_of_run_are_every_nodes_link(cli: CommandLine, submitted: Submitted) -> None:
    words = "run -n 2 -d --rate 1Gbit --delay 2ms --jitter 1ms --loss 1% train.py"
    assert cli(*words.split()).code == 0
    link = Link(rate_bytes_per_s=GBIT, delay_s=0.002, jitter_s=0.001, loss=0.01)
    assert submitted.cluster.links == Links(default=link)


def test_without_them_nothing_is_shaped(cli: CommandLine, submitted: Submitted) -> None:
    assert cli("run", "-d", "train.py").code == 0
    assert submitted.cluster.links is None


def test_a_run_file_has_links_in_words(cli: CommandLine, submitted: Submitted) -> None:
    Path("run.yaml").write_text(RUN_FILE)
    assert cli("run", "-d", "run.yaml").code == 0
    assert submitted.cluster.links == Links(
        default=Link(rate_bytes_per_s=GBIT),
        nodes={"node1": Link(rate_bytes_per_s=GBIT, delay_s=0.002)},
    )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--rate", "fast", "links.rate: 'fast' is not a rate"),
        ("--loss", "100%", "leaves nothing that arrives"),
        ("--delay", "-1ms", "is negative"),
        ("--jitter", "1ms", "a jitter of 1 ms exceeds the delay of 0 s"),
        ("--rate", "900Gbit", "900 Gbit/s"),
        ("--rate", "nic", "none is published for that size"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_exists(
    cli: CommandLine, tmp_path: Path, option: str, value: str, said: str
) -> None:
    Path("train.py").write_text("")
    Path(tmp_path, "src").mkdir()
    Path(tmp_path, "src", "train.py").write_text("print('hello')")
    told = cli("run", "-n", "2", "-d", option, value, str(tmp_path / "src" / "train.py"))
    assert told.code == 2
    assert said in told.err and "Try:" in told.err
    assert not list(cli.store.list())


def test_nodes_without_namespaces_get_no_links(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", "hostname")
    Path(tmp_path, "src").mkdir()
    Path(tmp_path, "src", "train.py").write_text("print('hello')")
    told = cli("run", "-n", "2", "-d", "--delay", "1ms", str(tmp_path / "src" / "train.py"))
    assert told.code == 2
    assert "links are asked for, and nodes are not to have namespaces" in told.err
    assert "unset SIMGRID_ML_ISOLATION" in told.err
    assert not list(cli.store.list())


def test_a_run_files_unknown_node_is_refused_before_a_run_exists(
    cli: CommandLine, tmp_path: Path
) -> None:
    Path(tmp_path, "src").mkdir()
    Path(tmp_path, "src", "train.py").write_text("print('hello')")
    Path(tmp_path, "src", "run.yaml").write_text(RUN_FILE.replace("node1", "node2"))
    told = cli("run", "-d", str(tmp_path / "src" / "run.yaml"))
    assert told.code == 2
    assert "there is no 'node2'; the cluster has node0 to node1" in told.err
    assert not list(cli.store.list())


def test_a_stored_cluster_has_links(cli: CommandLine, submitted: Submitted) -> None:
    assert cli("cluster", "create", "mine", "--rate", "1Gbit").code == 0
    told = cli("cluster", "update", "mine", "--delay", "2ms")
    assert told.out == "Cluster mine: delay = 2ms\n"
    assert cli("cluster", "update", "mine", "--max-nodes", "5").code == 0
    assert "1 Gbit/s, 2 ms" in cli("cluster", "show", "mine").out
    assert cli("run", "-d", "--cluster", "mine", "--loss", "1%", "train.py").code == 0
    link = Link(rate_bytes_per_s=GBIT, delay_s=0.002, loss=0.01)
    assert submitted.cluster.links == Links(default=link)


def test_tags_of_a_cluster_are_every_nodes_link() -> None:
    workspace = Workspace.local()
    tags = {"simgrid-ml.rate": "1Gbit", "simgrid-ml.delay": "2ms", "team": "x"}
    ComputeTarget.create(
        workspace, "shaped", AmlCompute.provisioning_configuration(max_nodes=2, tags=tags)
    )
    link = Link(rate_bytes_per_s=GBIT, delay_s=0.002)
    assert stored_spec(workspace, "shaped").links == Links(default=link)


def test_a_tag_that_is_no_link_is_refused() -> None:
    asked = AmlCompute.provisioning_configuration(max_nodes=2, tags={"simgrid-ml.rate": "fast"})
    with pytest.raises(ComputeTargetException, match="'fast' is not a rate"):
        ComputeTarget.create(Workspace.local(), "shaped", asked)
