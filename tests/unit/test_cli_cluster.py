"""``simgrid-ml cluster``."""

from __future__ import annotations

import pytest
from cli_support import CommandLine, cli

from simgrid_ml.record.run import RunLock, RunState
from simgrid_ml.spec.cluster import ClusterSpec

__all__ = ["cli"]


def test_a_cluster_lives_from_create_to_delete(cli: CommandLine) -> None:
    assert cli("cluster", "create", "mine", "--max-nodes", "3", "--era", "E3").code == 0
    assert cli("cluster", "list", "--json").json[0]["name"] == "mine"
    assert "0 to 3" in cli("cluster", "list").out
    assert cli("cluster", "update", "mine", "--max-nodes", "5").code == 0
    shown = cli("cluster", "show", "mine", "--json").json
    assert (shown["max_nodes"], shown["era"], shown["active_runs"]) == (5, "E3", [])
    assert cli("cluster", "delete", "mine").code == 0
    assert cli("cluster", "list", "--json").json == []
    assert cli("cluster", "delete", "mine").code == 2


def test_what_azure_keeps_beside_the_spec_survives_an_update(cli: CommandLine) -> None:
    stored = {"name": "mine", "max_nodes": 2, "azure": {"tags": {"owner": "me"}}}
    cli.store.put_cluster("mine", stored)
    assert cli("cluster", "update", "mine", "--max-nodes", "5").code == 0
    assert cli.store.clusters()["mine"]["azure"] == {"tags": {"owner": "me"}}
    assert "azure" not in cli("cluster", "show", "mine", "--json").json


def test_show_names_the_runs_that_use_it(cli: CommandLine) -> None:
    cli.store.put_cluster("local", {"name": "local", "max_nodes": 2})
    record = cli.run("digits_a", RunState.PREPARING)
    lock = RunLock.take(record.path)
    assert lock is not None
    assert "digits_a" in cli("cluster", "show", "local").out
    lock.close()


@pytest.mark.parametrize("name", ["local", "AmlCompute", "1st", "a", "a_b", "x" * 25, "a-"])
def test_a_name_that_azure_refuses_is_refused(cli: CommandLine, name: str) -> None:
    assert cli("cluster", "create", name).code == 2
    assert cli("cluster", "list", "--json").json == []


def test_a_cluster_is_not_replaced_by_accident(cli: CommandLine) -> None:
    assert cli("cluster", "create", "mine", "--max-nodes", "3").code == 0
    assert cli("cluster", "create", "mine").code == 2
    assert cli("cluster", "show", "mine", "--json").json["max_nodes"] == 3


def test_counts_that_contradict_each_other_are_refused(cli: CommandLine) -> None:
    said = cli("cluster", "create", "mine", "--min-nodes", "3", "--max-nodes", "2")
    assert (said.code, "max_nodes" in said.err) == (2, True)
    cli("cluster", "create", "mine")
    assert cli("cluster", "update", "mine", "--min-nodes", "9").code == 2
    assert cli("cluster", "update", "mine").code == 2


def test_a_count_below_zero_is_refused_wherever_it_is_said() -> None:
    for wrong in ({"min_nodes": -1}, {"idle_seconds_before_scaledown": -1}, {"max_nodes": 0}):
        with pytest.raises(ValueError, match="must"):
            ClusterSpec(name="x", **wrong)


def test_command_line_and_sdk_allow_the_same_names(cli: CommandLine) -> None:
    assert cli("cluster", "create", "a" * 20 + "-1").code == 2  # no letter after the "-"
    assert cli("cluster", "create", "nodes-1").code == 0
