"""``simgrid-ml runs`` on run directories written by hand."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from cli_support import COMPLETED, FAILED, LOGS, RUN_TO_THE_END, SPEC, CommandLine, cli

from simgrid_ml import wire
from simgrid_ml.cli.story import exit_code
from simgrid_ml.record.journal import write_json
from simgrid_ml.record.run import RunLock, RunRecord, RunState

__all__ = ["cli"]

ERROR = {
    "kind": "RunFailed",
    "cause": "rank 1 on node1 exited with code 3",
    "evidence": "last words",
    "remedy": "look at its log",
    "exit_code": 1,
}


def test_list_shows_the_newest_first_and_stops_at_the_limit(cli: CommandLine) -> None:
    for number in range(3):
        record = cli.run(f"digits_{number}", *COMPLETED)
        os.utime(record.file(wire.SPEC), (number, number))
    said = cli("runs", "list", "--limit", "2")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["digits_2", "digits_1"]
    assert lines[3] == "The newest 2; `--all` shows every run."
    assert len(cli("runs", "list", "--all", "--json").json) == 3


def test_list_filters_by_state_and_experiment(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED)
    cli.run("digits_b", *FAILED, error=ERROR)
    found = cli("runs", "list", "--state", "failed", "--json").json
    assert [row["run_id"] for row in found] == ["digits_b"]
    assert cli("runs", "list", "-e", "other", "--json").json == []
    assert cli("runs", "list", "--state", "Lost").code == 2


def test_list_of_an_empty_workspace_says_how_to_begin(cli: CommandLine) -> None:
    assert "simgrid-ml demo" in cli("runs", "list").out
    assert cli("runs", "list", "--json").json == []


def test_output_into_a_pipe_has_no_control_codes(cli: CommandLine) -> None:
    cli.run("digits_a", *FAILED, error=ERROR, files=LOGS, metrics=[("loss", 1.0)])
    for words in (["list"], ["show", "latest"], ["logs", "latest"], ["metrics", "latest"]):
        said = cli("runs", *words)
        assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("word", ["digits_123_abc", "digits_1", "abc", "123", "latest"])
def test_a_run_is_found_by_id_by_a_unique_part_or_as_the_latest(
    cli: CommandLine, word: str
) -> None:
    cli.run("digits_123_abc", *COMPLETED)
    assert cli("runs", "show", word, "--json").json["run_id"] == "digits_123_abc"


def test_a_part_that_two_runs_have_is_refused(cli: CommandLine) -> None:
    cli.run("digits_1x2", *COMPLETED)
    cli.run("digits_3x4", *COMPLETED)
    assert cli("runs", "show", "x").code == 2
    assert cli("runs", "show", "1x").code == 0


def test_show_tells_the_story_of_a_failed_run(cli: CommandLine) -> None:
    finding = {"check": "ranks", "verdict": "fail", "message": "1 of 2", "evidence": ""}
    record = cli.run("digits_a", *FAILED, error=ERROR, verdicts=[finding])
    journal = record.journal(wire.TASKS, "rank-0")
    journal.append({"t": 1, "event": "started", "rank": 0, "node": "node0", "hostname": "node0",
                    "pid": 7})  # fmt: skip
    journal.append({"t": 2, "event": "ended", "code": 3, "signal": None, "duration_s": 1.5})
    journal.close()
    said = cli("runs", "show", "latest")
    assert said.code == 0
    for text in ("Failed", "train.py --epochs 2", "2 x 1", "pytorch 1.4", "Finalizing",
                 "exit 3 after 1.5 s", "fail", "1 of 2", record.path):  # fmt: skip
        assert text in said.out
    assert "rank 1 on node1 exited with code 3" in said.err
    told = cli("runs", "show", "latest", "--json").json
    assert told["error"] == ERROR
    assert told["exit_code"] == 1
    assert [stage["state"] for stage in told["stages"]][-1] == "Failed"


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"framework": "chainer", "framework_version": "5.1.0"}, "chainer 5.1.0: chainer 5.1.0"),
        ({"pip": ["ray"]}, "packages only: ray 2.0"),
        ({"interpreter": "/a/python"}, "/a/python as it is"),
        ({}, "bare Python"),
    ],
)
def test_show_names_the_releases_of_what_was_asked_for(
    cli: CommandLine, asked: dict[str, Any], shown: str
) -> None:
    record = cli.run("digits_a", *COMPLETED, job={**SPEC["job"], "environment": asked})
    name = asked.get("framework") or "ray"
    packages = {name: asked.get("framework_version", "2.0"), "six": "1"}
    write_json(record.file(wire.ENVIRONMENT), {"packages": packages})
    (line,) = [x for x in cli("runs", "show", "latest").out.splitlines() if x[:11] == "environment"]
    assert line.removeprefix("environment").strip() == shown


def test_show_says_that_the_supervisor_is_gone(cli: CommandLine) -> None:
    cli.run("digits_a", RunState.PREPARING)
    said = cli("runs", "show", "latest")
    assert "NotResponding" in said.out
    assert "its supervisor is gone" in said.err
    assert "runs cancel digits_a" in said.err


def test_logs_stand_rank_after_rank_behind_their_prefix(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED, files=LOGS)
    said = cli("runs", "logs", "latest")
    assert said.out == "[0] one\n[0] two\n[1] eins\n[1] zwei\n[mpirun] mpirun says\n"
    assert cli("runs", "logs", "latest", "--rank", "1", "--no-prefix").out == "eins\nzwei\n"
    assert cli("runs", "logs", "latest", "--tail", "1", "-r", "0").out == "[0] two\n"
    name = "azureml-logs/65_job_prep-tvmps_1_d.txt"
    assert cli("runs", "logs", "latest", "--log", name).out == "node things\n"
    lines = cli("runs", "logs", "latest", "--json", "-r", "1").out.splitlines()
    assert json.loads(lines[1]) == {
        "log": "azureml-logs/70_driver_log_1.txt", "task": "rank-1", "role": "rank", "rank": 1,
        "line": "zwei",
    }  # fmt: skip
    assert cli("runs", "logs", "latest", "--task", "rank-1", "-t", "mpirun").out == (
        "[1] eins\n[1] zwei\n[mpirun] mpirun says\n"
    )
    said = cli("runs", "logs", "latest", "--rank", "9")
    assert (said.code, "there are: rank-0, rank-1, mpirun" in said.err) == (2, True)


IN_ROLES = {
    "azureml-logs/70_driver_log-ps-0.txt": b"I serve\n",
    **{f"azureml-logs/70_driver_log-worker-{n}.txt": b"I train\n" for n in (0, 1, 10)},
    "azureml-logs/70_driver_log-chief-0.txt": b"I lead\n",
}


def in_roles(cli: CommandLine, *states: RunState) -> RunRecord:
    job = {
        "entry_script": "train.py",
        "distribution": {
            "kind": "parameter_server", "nodes": 4, "servers": 1, "workers": 11,
            "coordinator": True,
        },
    }  # fmt: skip
    return cli.run("digits_a", *states, files=IN_ROLES, job=job)


def test_the_logs_of_tasks_with_roles_stand_by_role_and_number(cli: CommandLine) -> None:
    in_roles(cli, *COMPLETED)
    said = cli("runs", "logs", "latest")
    assert [line.split()[0] for line in said.out.splitlines()] == [
        "[chief-0]", "[worker-0]", "[worker-1]", "[worker-10]", "[ps-0]",
    ]  # fmt: skip
    assert cli("runs", "logs", "latest", "-t", "worker-1", "-t", "ps-0").out == (
        "[worker-1] I train\n[ps-0] I serve\n"
    )
    followed = cli("runs", "logs", "-f", "latest", "-t", "chief-0", "--json")
    assert followed.json == {
        "log": "azureml-logs/70_driver_log-chief-0.txt", "task": "chief-0", "role": "chief",
        "rank": None, "line": "I lead",
    }  # fmt: skip


def test_a_task_or_rank_that_is_not_there_is_refused_with_what_is(cli: CommandLine) -> None:
    in_roles(cli, *COMPLETED)
    said = cli("runs", "logs", "latest", "--task", "worker-7")
    assert (said.code, "no log of worker-7" in said.err) == (2, True)
    assert "there are: chief-0, worker-0, worker-1, worker-10, ps-0" in said.err
    for words in (["--rank", "1"], ["-f", "--rank", "1"]):
        said = cli("runs", "logs", "latest", *words)
        assert (said.code, "say --task worker-1" in said.err) == (2, True)
    name = "azureml-logs/70_driver_log-ps-0.txt"
    assert cli("runs", "logs", "latest", "-t", "ps-0", "--log", name).code == 2


def test_roles_are_shown_in_lists_and_tables(cli: CommandLine) -> None:
    record = in_roles(cli, *COMPLETED)
    for task in ("ps-0", "worker-10", "worker-2", "chief-0"):
        journal = record.journal(wire.TASKS, task)
        journal.append({"t": 1, "event": "started", "node": "node0", "hostname": "n", "pid": 7})
        journal.append({"t": 2, "event": "ended", "code": None, "signal": 15})
        journal.close()
    placed = [{"name": "ps-0", "serves": True}, {"name": "worker-2", "serves": False}]
    write_json(record.file(wire.PLACEMENT), {"tasks": placed})
    events = record.journal(".", "events")
    events.append({"t": 1, "event": "server-ended", "task": "ps-0", "running": ["worker-2"]})
    events.append({"t": 2, "event": "server-ended", "task": "ps-0", "running": []})
    events.append({"t": 3, "event": "never-listened", "tasks": ["worker-10"]})
    events.close()
    assert "4: 1 ps + 11 workers + chief" in cli("runs", "list").out
    shown = cli("runs", "show", "latest").out
    assert "parameter_server, 4: 1 ps + 11 workers + chief (nodes: tasks)" in shown
    tasks = [line.split() for line in shown.splitlines() if " node0 " in line]
    assert [task for task, *_ in tasks] == ["chief-0", "worker-2", "worker-10", "ps-0"]
    assert [" ".join(rest[3:]) for _, *rest in tasks[-2:]] == [
        "signal 15", "ended with those it served",
    ]  # fmt: skip
    remarks = cli("runs", "show", "latest", "--json").json["remarks"]
    assert remarks == [
        "ps-0 ended while worker-2 still ran",
        "worker-10 did not listen for long; others may have waited for that",
    ]
    assert all(remark in shown for remark in remarks)


@pytest.mark.parametrize(
    ("distribution", "shape"),
    [
        ({"kind": "parameter_server", "nodes": 2}, "2: 1 ps + 1 worker"),
        ({"kind": "parameter_server", "nodes": 2, "servers": 0, "workers": 2}, "2: 2 workers"),
        ({"kind": "ray", "nodes": 3}, "3: head + 2 workers"),
        ({"kind": "ray", "nodes": 1}, "1: head"),
        ({"kind": "torch", "nodes": 2, "processes_per_node": 3}, "2 x 3"),
        ({"kind": "plain", "nodes": 2}, "2 x 1"),
    ],
)
def test_the_shape_of_a_job_is_said_in_a_few_words(
    cli: CommandLine, distribution: dict[str, object], shape: str
) -> None:
    cli.run("digits_a", *COMPLETED, job={"distribution": distribution})
    assert f" {shape} " in cli("runs", "list").out


def test_ten_ranks_stand_in_the_order_of_their_numbers(cli: CommandLine) -> None:
    files = {f"azureml-logs/70_driver_log_{rank}.txt": b"x\n" for rank in range(11)}
    cli.run("digits_a", *COMPLETED, files=files)
    prefixes = [line.split()[0] for line in cli("runs", "logs", "latest").out.splitlines()]
    assert prefixes == [f"[{rank}]" for rank in range(11)]


def test_following_an_ended_run_shows_all_of_it_and_returns(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED, files=LOGS)
    said = cli("runs", "logs", "-f", "latest")
    assert sorted(said.out.splitlines()) == sorted(
        ["[0] one", "[0] two", "[1] eins", "[1] zwei", "[mpirun] mpirun says"]
    )
    objects = [
        json.loads(x) for x in cli("runs", "logs", "-f", "latest", "--json").out.splitlines()
    ]
    assert {(one["rank"], one["line"]) for one in objects} == {
        (0, "one"), (0, "two"), (1, "eins"), (1, "zwei"), (None, "mpirun says"),
    }  # fmt: skip


def test_a_log_that_is_no_utf8_and_moves_the_cursor_is_shown_as_text(cli: CommandLine) -> None:
    raw = b"\xff\xfe caf\xe9\n 10%\r100%\n\x1b[2Jwiped\n"
    cli.run("digits_a", *COMPLETED, files={"azureml-logs/70_driver_log.txt": raw})
    assert cli("runs", "logs", "latest").out == "[0] \ufffd\ufffd caf\ufffd\n[0] 100%\n[0] wiped\n"


def test_metrics_are_summed_up(cli: CommandLine) -> None:
    logged = [("loss", 3.0), ("loss", 1.0), ("loss", 2.0), ("note", "text"), ("many", [1, 5])]
    cli.run("digits_a", *COMPLETED, metrics=logged)
    said = cli("runs", "metrics", "latest")
    loss = next(line for line in said.out.splitlines() if line.startswith("loss"))
    assert loss.split() == ["loss", "scalar", "3", "3", "2", "1", "3", "█▁▅"]
    told = cli("runs", "metrics", "latest", "--json").json
    assert [point["value"] for point in told["loss"]] == [3.0, 1.0, 2.0]
    assert list(cli("runs", "metrics", "latest", "-m", "many", "--json").json) == ["many"]
    assert cli("runs", "metrics", "latest", "-m", "none").code == 2


def test_files_and_download(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED, files=LOGS)
    said = cli("runs", "files", "latest")
    assert any(line.split() == ["outputs/model.pt", "2", "KiB"] for line in said.out.splitlines())
    names = {one["name"] for one in cli("runs", "files", "latest", "--json").json}
    assert names == set(LOGS)
    said = cli("runs", "download", "latest", "outputs/", "-o", "here")
    assert said.code == 0
    assert os.listdir("here") == ["outputs"]
    with open("here/outputs/model.pt", "rb") as stream:
        assert stream.read() == LOGS["outputs/model.pt"]
    assert cli("runs", "download", "latest").code == 0
    assert os.path.exists("digits_a/azureml-logs/70_mpi_log.txt")
    assert cli("runs", "download", "latest", "nothing/").code == 2


def test_cancel_ends_a_run_that_nobody_supervises(cli: CommandLine) -> None:
    record = cli.run("digits_a", RunState.PREPARING)
    assert record.state is RunState.NOT_RESPONDING
    assert "digits_a: Canceled" in cli("runs", "cancel", "latest").out
    assert record.state is RunState.CANCELED


def test_cancel_asks_the_supervisor_of_a_live_run(cli: CommandLine) -> None:
    record = cli.run("digits_a", RunState.PREPARING)
    lock = RunLock.take(record.path)
    assert lock is not None
    said = cli("runs", "cancel", "latest", "--json")
    assert said.json == [{"run_id": "digits_a", "state": "Preparing"}]
    assert record.cancel_requested
    lock.close()


def test_delete_asks_first_and_spares_live_runs(cli: CommandLine) -> None:
    record = cli.run("digits_a", *COMPLETED)
    assert cli("runs", "delete", "latest").code == 2
    assert os.path.exists(record.path)
    assert cli("runs", "delete", "latest", "--yes").code == 0
    assert not os.path.exists(record.path)
    live = cli.run("digits_b", RunState.PREPARING)
    lock = RunLock.take(live.path)
    assert lock is not None
    assert cli("runs", "delete", "latest", "--yes").code == 2
    assert os.path.exists(live.path)
    lock.close()


def test_delete_takes_all_ended_runs_of_an_age_or_state(cli: CommandLine) -> None:
    old = cli.run("digits_old", *COMPLETED)
    path = old.file(wire.STATE)
    with open(path) as stream:
        moves = [json.loads(line) for line in stream]
    with open(path, "w") as stream:
        stream.writelines(json.dumps({**m, "t": m["t"] - 3 * 86400}) + "\n" for m in moves)
    cli.run("digits_new", *COMPLETED)
    cli.run("digits_failed", *FAILED)
    live = cli.run("digits_live", RunState.PREPARING)
    lock = RunLock.take(live.path)
    assert lock is not None
    assert cli("runs", "delete", "--yes").code == 2
    assert cli("runs", "delete", "latest", "--state", "Failed", "--yes").code == 2
    asked = cli("runs", "delete", "--older-than", "2")
    assert (asked.code, "digits_old" in asked.err, "digits_new" in asked.err) == (2, True, False)
    told = cli("runs", "delete", "--older-than", "2", "--yes", "--json").json
    assert told == {"deleted": ["digits_old"]}
    told = cli("runs", "delete", "--state", "failed", "--yes", "--json").json
    assert told == {"deleted": ["digits_failed"]}
    assert cli("runs", "delete", "--older-than", "2").out == "Nothing to delete.\n"
    told = cli("runs", "delete", "--older-than", "0", "--yes", "--json").json
    assert told == {"deleted": ["digits_new"]}
    lock.close()


def interactive(cli: CommandLine) -> RunRecord:
    record = cli.store.create("digits", {"job": None, "cluster": None}, "digits_own")
    record.advance(RunState.RUNNING)
    return record


def test_an_interactive_run_is_shown_without_what_it_has_not(cli: CommandLine) -> None:
    record = interactive(cli)
    lock = RunLock.take(record.path)
    assert lock is not None
    said = cli("runs", "show", "latest")
    assert said.code == 0
    assert "None" not in said.out
    lock.close()


def test_waiting_for_an_interactive_run_to_be_canceled_does_not_hang(cli: CommandLine) -> None:
    record = interactive(cli)
    lock = RunLock.take(record.path)
    assert lock is not None
    said = cli("runs", "cancel", "latest", "--wait")
    assert said.code == 0
    assert "carried by the process that made it" in said.err
    assert record.cancel_requested
    lock.close()


def test_a_property_is_written_once_and_a_tag_as_often_as_one_likes(cli: CommandLine) -> None:
    record = cli.run("digits_a", *COMPLETED)
    journal = record.journal(wire.ATTRIBUTES, "rank-0")
    for number, value in enumerate(("first", "last")):
        journal.append({"t": number, "set": "tag", "key": "a", "value": value})
        journal.append({"t": number, "set": "property", "key": "b", "value": value})
    journal.close()
    told = cli("runs", "show", "latest", "--json").json["attributes"]
    assert told == {"tags": {"a": "last"}, "properties": {"b": "first"}}


def test_following_ends_with_the_runs_outcome(cli: CommandLine) -> None:
    cli.run("digits_a", *FAILED, error=ERROR, files=LOGS)
    assert cli("runs", "logs", "-f", "latest").code == 1
    assert cli("runs", "logs", "latest").code == 0


def test_waiting_ends_with_the_runs_outcome(cli: CommandLine) -> None:
    cli.run("digits_a", *FAILED, error=ERROR)
    said = cli("runs", "wait", "latest")
    assert said.code == 1
    assert "rank 1 on node1" in said.err
    live = cli.run("digits_b", RunState.PREPARING)
    os.utime(live.file(wire.SPEC), (2e9, 2e9))
    lock = RunLock.take(live.path)
    assert lock is not None
    assert cli("runs", "wait", "latest", "--timeout", "0.01").code == 3
    lock.close()


@pytest.mark.parametrize(
    ("states", "words", "error", "code"),
    [
        (COMPLETED, ["pass"], None, 0),
        (COMPLETED, ["pass", "unknown"], None, 3),
        (COMPLETED, ["unknown", "fail"], None, 4),
        (FAILED, ["fail"], ERROR, 1),
        (FAILED, None, {**ERROR, "exit_code": 5}, 5),
        ((RunState.CANCELED,), None, None, 1),
        ((RunState.PREPARING,), None, None, 5),
        (RUN_TO_THE_END, None, None, 5),
    ],
)
def test_exit_code_of_an_outcome(cli: CommandLine, states, words, error, code) -> None:  # type: ignore[no-untyped-def]
    found = None if words is None else [{"check": "c", "verdict": w, "message": ""} for w in words]
    assert exit_code(cli.run("digits_a", *states, error=error, verdicts=found)) == code


def test_another_workspace_has_other_runs(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED)
    cli("cluster", "create", "four", "-w", "other")
    assert cli("runs", "list", "-w", "other", "--json").json == []


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "x", "a b"])
def test_a_workspace_has_a_name_that_azure_allows(cli: CommandLine, name: str) -> None:
    said = cli("runs", "list", "-w", name)
    assert (said.code, "cannot name a workspace" in said.err) == (2, True)


def test_a_workspace_that_does_not_exist_is_said_as_such(cli: CommandLine) -> None:
    cli.run("digits_a", *COMPLETED)
    said = cli("runs", "list", "-w", "other")
    assert (said.code, "there is no workspace 'other'" in said.err) == (2, True)
    assert "there are: local" in said.err
