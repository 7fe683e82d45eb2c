"""``simgrid-ml run``: what flags and run files become, and what is refused before a run exists."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import COMPLETED, CommandLine, cli

from simgrid_ml import wire
from simgrid_ml.cli.run import follow_to_end
from simgrid_ml.engine import prepare
from simgrid_ml.record.journal import write_json
from simgrid_ml.spec.cluster import ClusterSpec, Era, WorkingDirectory
from simgrid_ml.spec.job import JobSpec, Mpi, ParameterServer, Plain, TorchDistributed

__all__ = ["cli"]


class Submitted:
    """Stands where the engine would start the run, and keeps what it was asked for."""

    def __init__(self, cli: CommandLine) -> None:
        self.cli = cli
        self.job: JobSpec
        self.cluster: ClusterSpec
        self.said: dict[str, Any] = {}
        self.count = 0

    def __call__(self, job: JobSpec, cluster: ClusterSpec, **said: Any) -> Any:
        self.job, self.cluster, self.said = job, cluster, said
        self.count += 1
        return self.cli.run(f"digits_{self.count}", *COMPLETED)


@pytest.fixture
def submitted(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Submitted:
    Path("train.py").write_text("print('hello')")
    stand_in = Submitted(cli)
    monkeypatch.setattr(prepare, "submit", stand_in)
    return stand_in


def test_flags_become_a_job(cli: CommandLine, submitted: Submitted, tmp_path: Path) -> None:
    Path("more.txt").write_text("# a comment\nflask==2.0  # why\n\n--index-url x\nnum\\\npy\n")
    words = """run --nodes 2 -p 3 --framework pytorch --framework-version 1.4 --pip a --pip b
        --conda scikit-learn --requirements more.txt --env A=1 --env B=x=y --max-run 2min --detach
        train.py --epochs 3 --nodes 9"""
    said = cli(*words.split())
    assert said.code == 0, said.err
    assert said.out == "digits_1\n"
    job = submitted.job
    assert job.source == str(tmp_path)
    assert job.entry_script == "train.py"
    assert job.arguments == ("--epochs", "3", "--nodes", "9")
    assert job.distribution == Mpi(nodes=2, processes_per_node=3)
    assert job.environment.framework == "pytorch"
    assert job.environment.framework_version == "1.4"
    assert job.environment.pip == ("a", "b", "flask==2.0", "--index-url x", "num py")
    assert job.environment.conda == ("scikit-learn",)
    assert job.variables == {"A": "1", "B": "x=y"}
    assert job.max_run_s == 120
    assert submitted.said["experiment"] == "train"
    assert submitted.cluster.max_nodes == 2


def test_without_counts_the_script_runs_once_without_mpi(
    cli: CommandLine, submitted: Submitted
) -> None:
    assert cli("run", "-d", "train.py").code == 0
    assert submitted.job.distribution == Plain(nodes=1)
    assert cli("run", "-d", "--plain", "--nodes", "3", "train.py").code == 0
    assert submitted.job.distribution == Plain(nodes=3)


@pytest.mark.parametrize(
    ("words", "distribution"),
    [
        ("--ps 1 --workers 2", ParameterServer(nodes=3, workers=2, servers=1)),
        ("-n 2 --ps 2 --workers 3", ParameterServer(nodes=2, workers=3, servers=2)),
        ("--workers 2", ParameterServer(nodes=2, workers=2, servers=0)),
        (
            "--ps 1 --workers 1 --coordinator --server-grace 2min",
            ParameterServer(nodes=3, workers=1, coordinator=True, server_grace_s=120.0),
        ),
        (
            "--ps 1 --workers 1 --first-worker master --server-grace 0",
            ParameterServer(nodes=2, first_worker="master", server_grace_s=0.0),
        ),
        ("--torch gloo", TorchDistributed(backend="gloo")),
        (
            "--torch nccl -n 2 -p 3",
            TorchDistributed(nodes=2, processes_per_node=3, backend="nccl"),
        ),
    ],
)
def test_flags_say_how_tasks_find_each_other(
    cli: CommandLine, submitted: Submitted, words: str, distribution: object
) -> None:
    said = cli("run", "-d", *words.split(), "train.py")
    assert said.code == 0, said.err
    assert submitted.job.distribution == distribution
    assert submitted.cluster.max_nodes == submitted.job.distribution.nodes


@pytest.mark.parametrize(("script", "entry"), [("train.py", "train.py"), ("src/a/t.py", "a/t.py")])
def test_the_script_may_be_said_from_here_or_from_the_source_folder(
    cli: CommandLine, submitted: Submitted, tmp_path: Path, script: str, entry: str
) -> None:
    (tmp_path / "src" / "a").mkdir(parents=True)
    (tmp_path / "src" / "train.py").write_text("")
    (tmp_path / "src" / "a" / "t.py").write_text("")
    assert cli("run", "-d", "--source", "src", script).code == 0
    assert (submitted.job.source, submitted.job.entry_script) == (str(tmp_path / "src"), entry)


def test_flags_override_a_stored_cluster(cli: CommandLine, submitted: Submitted) -> None:
    cli("cluster", "create", "mine", "--max-nodes", "7", "--era", "E1")
    assert cli("run", "-d", "--cluster", "mine", "train.py").code == 0
    assert (submitted.cluster.max_nodes, submitted.cluster.era) == (7, Era.E1)
    words = ["--cluster", "mine", "--era", "E3", "--working-directory", "shared"]
    assert cli("run", "-d", *words, "train.py").code == 0
    assert (submitted.cluster.max_nodes, submitted.cluster.era) == (7, Era.E3)
    assert submitted.cluster.working_directory is WorkingDirectory.SHARED


def test_an_interpreter_is_made_absolute(cli: CommandLine, submitted: Submitted) -> None:
    assert cli("run", "-d", "--interpreter", sys.executable, "train.py").code == 0
    assert submitted.job.environment.interpreter == sys.executable


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--interpreter", "nowhere/python", "train.py"], "no program"),
        (["--interpreter", sys.executable, "--pip", "a", "train.py"], "nothing can be installed"),
        (["--plain", "-p", "2", "train.py"], "means nothing"),
        (["--plain", "--torch", "gloo", "train.py"], "--plain and --torch belong to different"),
        (["--plain", "--workers", "2", "train.py"], "--plain and --workers belong to different"),
        (["-p", "2", "--workers", "2", "train.py"], "--processes-per-node and --workers belong"),
        (["--torch", "gloo", "--ps", "1", "train.py"], "--torch and --ps belong to different"),
        (["--ps", "1", "train.py"], "--ps without --workers"),
        (["--coordinator", "train.py"], "--coordinator without --workers"),
        (["--first-worker", "master", "train.py"], "--first-worker without --workers"),
        (["--coordinator", "--workers", "2", "train.py"], "without parameter servers"),
        (["--server-grace", "1", "--workers", "2", "train.py"], "without parameter servers"),
        (
            ["--server-grace", "soon", "--workers", "2", "--ps", "1", "train.py"],
            "is not a duration",
        ),
        (["--torch", "mpi", "train.py"], "'gloo', 'nccl'"),
        (["--framework-version", "1.4", "train.py"], "without --framework"),
        (["--env", "novalue", "train.py"], "is not VAR=VALUE"),
        (["--max-run", "soon", "train.py"], "is not a duration"),
        (["--max-run", "0", "train.py"], "more than nothing"),
        (["--requirements", "none.txt", "train.py"], "no requirements file"),
        (["--cluster", "none", "train.py"], "there is no cluster"),
        (["--source", "none", "train.py"], "there is no folder"),
        (["--source", "empty", "other.py"], "there is no script"),
        (["none.py"], "there is no script"),
        (["none.yaml"], "there is no file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_run_is_refused(
    cli: CommandLine, submitted: Submitted, words: list[str], said: str
) -> None:
    Path("empty").mkdir()
    answer = cli("run", "-d", *words)
    assert answer.code == 2
    assert said in answer.err
    assert submitted.said == {}


RUN_FILE = """\
job:
  source: src
  entry_script: train.py
  arguments: [--epochs, 3, --lr, 0.1]
  distribution: {kind: mpi, nodes: 2, processes_per_node: 2}
  environment: {framework: pytorch, pip: [pillow]}
  variables: {A: "1"}
cluster: {max_nodes: 3, era: E3}
experiment: from-file
tags: {owner: me}
"""


def test_a_run_file_becomes_the_same(
    cli: CommandLine, submitted: Submitted, tmp_path: Path
) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "run.yaml").write_text(RUN_FILE)
    assert cli("run", "-d", "jobs/run.yaml").code == 0
    job = submitted.job
    assert job.source == str(folder / "src")
    assert job.arguments == ("--epochs", "3", "--lr", "0.1")
    assert job.distribution == Mpi(nodes=2, processes_per_node=2)
    assert job.environment.pip == ("pillow",)
    assert (submitted.cluster.name, submitted.cluster.max_nodes) == ("local", 3)
    assert submitted.said["experiment"] == "from-file"
    assert submitted.said["tags"] == {"owner": "me"}


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("nodes: 2,", "nodes: 0,", "job.distribution"),
        ("kind: mpi", "kind: tcp", "job.distribution"),
        ("{kind: mpi, nodes: 2", "{nodes: 2", "job.distribution"),
        ("entry_script: train.py", "entry_skript: train.py", "entry_skript"),
        ("framework: pytorch", "framwork: pytorch", "job.environment"),
        ("max_nodes: 3", "max_nodes: many", "cluster.max_nodes"),
        ("era: E3", "era: E7", "cluster.era"),
        ("cluster: {", "clutser: {", "'clutser' is unknown"),
        ("cluster: {max_nodes: 3, era: E3}", "cluster: [a]", "cluster: neither"),
        ("cluster: {max_nodes: 3, era: E3}", "cluster: none", "there is no cluster 'none'"),
        ("tags: {owner: me}", "tags: [a]", "tags: not a mapping"),
        ("job:", "job: [", "cannot be read"),
        (RUN_FILE, "- a", "holds no mapping"),
        (RUN_FILE, "experiment: x", "job: missing"),
    ],
)
def test_an_error_in_a_run_file_points_at_the_key(
    cli: CommandLine, submitted: Submitted, old: str, new: str, where: str
) -> None:
    assert old in RUN_FILE
    Path("run.yaml").write_text(RUN_FILE.replace(old, new))
    said = cli("run", "run.yaml")
    assert said.code == 2
    assert where in said.err
    assert "Try: " in said.err


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ("entry_script: train.py", "entry_skript: train.py", "entry_script, arguments"),
        ("framework: pytorch", "framwork: pytorch", "framework, framework_version"),
        ("nodes: 2,", "nods: 2,", "kind, nodes, processes_per_node"),
        ("kind: mpi", "kind: tcp", "kinds are mpi, parameter_server, plain"),
        ("{kind: mpi, nodes: 2", "{nodes: 2", "kinds are mpi, parameter_server, plain"),
        ("kind: mpi", "kind: parameter_server", "kind, nodes, workers, servers, coordinator"),
        ("max_nodes: 3", "maxnodes: 3", "min_nodes, max_nodes"),
        ('A: "1"', "A: [1]", "job.variables.A"),
        ("  variables", "  max_run_s: soon\n  variables", "job.max_run_s"),
    ],
)
def test_an_error_in_a_run_file_names_what_is_known(
    cli: CommandLine, submitted: Submitted, old: str, new: str, known: str
) -> None:
    assert old in RUN_FILE
    Path("run.yaml").write_text(RUN_FILE.replace(old, new))
    said = cli("run", "run.yaml")
    assert (said.code, known in said.err) == (2, True), said.err


def test_a_run_file_may_say_roles_and_their_grace(cli: CommandLine, submitted: Submitted) -> None:
    new = "{kind: parameter_server, nodes: 2, workers: 2, servers: 1, server_grace_s: 2 min}"
    old = "{kind: mpi, nodes: 2, processes_per_node: 2}"
    Path("run.yaml").write_text(RUN_FILE.replace(old, new))
    said = cli("run", "-d", "run.yaml")
    assert said.code == 0, said.err
    assert submitted.job.distribution == ParameterServer(nodes=2, workers=2, server_grace_s=120.0)


def test_a_run_file_may_say_numbers_and_units(cli: CommandLine, submitted: Submitted) -> None:
    more = 'max_run_s: "10 min"\n  shm_size_bytes: 64 MiB\n  variables: {A: 1, B: 0.5, C: true}'
    Path("run.yaml").write_text(RUN_FILE.replace('variables: {A: "1"}', more))
    assert cli("run", "-d", "run.yaml").code == 0
    assert submitted.job.variables == {"A": "1", "B": "0.5", "C": "true"}
    assert (submitted.job.max_run_s, submitted.job.shm_size_bytes) == (600, 64 * 2**20)


def test_a_requirements_file_may_name_others(cli: CommandLine, submitted: Submitted) -> None:
    Path("more").mkdir()
    Path("all.txt").write_text("# all\n-r more/some.txt\nlast  # comment\n")
    Path("more/some.txt").write_text("--requirement=same.txt\n--pre\nfirst==1\n")
    Path("more/same.txt").write_text("zero\n")
    Path("train.py").touch()
    assert cli("run", "-d", "--requirements", "all.txt", "train.py").code == 0
    assert submitted.job.environment.pip == ("zero", "--pre", "first==1", "last")
    Path("more/same.txt").write_text("-r ../all.txt\n")
    assert "includes itself" in cli("run", "-d", "--requirements", "all.txt", "train.py").err


def test_what_was_substituted_is_said_at_the_end(cli: CommandLine, submitted: Submitted) -> None:
    record = cli.run("digits_s", *COMPLETED)
    one = {"wanted": "torch==1.4", "got": "torch==2.4", "reason": "no build"}
    write_json(record.file(wire.ENVIRONMENT), {"substitutions": [one]})
    follow_to_end(record)
    assert "Instead of torch==1.4: torch==2.4 (no build)" in cli.capture.readouterr().out


def test_more_processes_than_gpus_are_warned_of_and_run(
    cli: CommandLine, submitted: Submitted
) -> None:
    words = "run -d --gpu --framework pytorch --vm-size Standard_NC12 --nodes 1 -p"
    assert "Warning" not in cli(*words.split(), "2", "train.py").err
    said = cli(*words.split(), "3", "train.py")
    assert said.code == 0
    assert "Warning: 3 processes per node and 2 GPUs on each node of Standard_NC12" in said.err
    assert len(submitted.said["extra"]["warnings"]) == 1


def test_flags_and_a_run_file_are_not_mixed(cli: CommandLine, submitted: Submitted) -> None:
    Path("run.yaml").write_text(RUN_FILE)
    said = cli("run", "--nodes", "3", "run.yaml")
    assert (said.code, "--nodes cannot be combined" in said.err) == (2, True)
    assert cli("run", "run.yaml", "--epochs").code == 2


def test_following_ends_with_the_outcome_and_json_is_alone_on_stdout(
    cli: CommandLine, submitted: Submitted
) -> None:
    said = cli("run", "--json", "train.py")
    assert said.code == 0
    assert said.json["run_id"] == "digits_1"
    assert "Run digits_1" in said.err
    said = cli("run", "train.py")
    assert "digits_2: Completed after" in said.out
    assert "simgrid-ml runs show digits_2" in said.out
