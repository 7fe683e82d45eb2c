"""``simgrid-ml cluster``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_support import CommandLine, cli

from simgrid_ml.cli import summary
from simgrid_ml.engine import pools
from simgrid_ml.record.run import RunLock, RunState
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.testing.processes import wait_until

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


def test_a_size_and_a_scale_are_kept_and_changed(cli: CommandLine) -> None:
    size = ("--vm-size", "STANDARD_NC6", "--scale", "0.25")
    assert cli("cluster", "create", "mine", *size, "--json").json["scale"] == 0.25
    assert cli("cluster", "update", "mine", "--scale", "0.5", "--json").json["scale"] == 0.5
    assert cli("cluster", "update", "mine", "--scale", "2").code == 2
    assert cli("cluster", "show", "mine", "--json").json["vm_size"] == "STANDARD_NC6"


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


def test_warm_nodes_are_shown_and_stopped(cli: CommandLine, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('hello')\n")
    assert cli("cluster", "create", "mine", "--max-nodes", "2", "--idle", "600").code == 0
    run = ("run", "--cluster", "mine", "--plain", "--nodes", "2", "--interpreter", sys.executable)
    said = cli(*run, str(script))
    assert said.code == 0, said.err
    assert "2 nodes of mine stay warm for 10 min; `simgrid-ml cluster stop mine` ends" in said.out
    shown = cli("cluster", "show", "mine", "--json").json
    assert [(node["name"], node["state"]) for node in shown["nodes"]] == [
        ("node0", "idle"),
        ("node1", "idle"),
    ]
    assert "node0  idle" in cli("cluster", "show", "mine").out
    assert cli("cluster", "stop", "mine").out == "2 idle nodes of mine ended.\n"
    assert "No nodes now" in cli("cluster", "show", "mine").out
    assert cli("cluster", "stop", "mine", "--json").json == {"ended": 0, "runs": []}
    assert cli("cluster", "stop", "other").code == 2


@pytest.mark.parametrize(
    ("idle", "busy", "minimum", "seconds", "said"),
    [
        (4, 0, 0, 300, "4 nodes of four stay warm for 5 min;"),
        (4, 0, 2, 300, "4 nodes of four stay warm: 2 as its minimum, 2 for 5 min;"),
        (2, 0, 2, 300, "2 nodes of four stay warm as its minimum;"),
        (3, 1, 2, 90, "3 nodes of four stay warm: 1 as its minimum, 2 for 1 min 30 s;"),
        (4, 0, 2, 0, "2 nodes of four stay warm as its minimum;"),
        (2, 0, 0, 0, ""),
    ],
)
def test_how_long_nodes_stay_warm(
    idle: int, busy: int, minimum: int, seconds: int, said: str
) -> None:
    stored = {"min_nodes": minimum, "idle_seconds_before_scaledown": seconds}
    told = summary.kept_warm("four", idle, busy, stored)
    assert told.startswith(said) and bool(told) == bool(said)


def test_show_leaves_out_what_is_not_said_and_tells_the_last_error(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("cluster", "create", "mine").code == 0
    shown = cli("cluster", "show", "mine").out
    assert "preemptions" not in shown and "links" not in shown
    assert "they come with runs" in shown
    error = {"kind": "node", "cause": "no agent today", "t": 1.0}
    told = {
        **pools.NO_POOL,
        "errors": [error],
        "waiting": [{"position": 1, "run": "digits_a", "nodes": 1}],
    }
    monkeypatch.setattr(pools, "status", lambda *_: told)
    shown = cli("cluster", "show", "mine").out
    assert "Last error: no agent today" in shown
    assert "digits_a, for 1 node\n" in shown
    assert cli("cluster", "show", "mine", "--json").json["errors"] == [error]


def test_a_minimum_comes_with_the_cluster_and_goes_with_it(cli: CommandLine) -> None:
    low = ("--vm-priority", "lowpriority", "--preempt", "node0@1h")
    assert cli("cluster", "create", "mine", "--min-nodes", "1", *low).code == 0
    wait_until(lambda: _states(cli) == ["idle"], "the minimum is up")
    assert "no run used it" in cli("cluster", "preempt", "mine", "node0").out
    assert cli("cluster", "preempt", "mine", "node7").code == 2
    wait_until(lambda: _states(cli) == ["idle"], "it is replaced")
    assert cli("cluster", "delete", "mine").code == 0


def _states(cli: CommandLine) -> list[str]:
    return [node["state"] for node in cli("cluster", "show", "mine", "--json").json["nodes"]]


def test_preemptions_that_cannot_be_are_refused(cli: CommandLine) -> None:
    assert cli("cluster", "create", "mine", "--preempt", "node0@1s").code == 2
    low = ("--vm-priority", "lowpriority")
    assert cli("cluster", "create", "mine", *low, "--preempt", "node0").code == 2
    assert cli("cluster", "create", "mine").code == 0
    said = cli("cluster", "preempt", "mine", "node0")
    assert (said.code, "dedicated" in said.err) == (2, True)
