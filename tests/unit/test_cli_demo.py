"""The demo's driver scripts: valid Python that names what there is, for every kind of job."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from cli_support import CommandLine, cli

from simgrid_ml.cli.demo_drivers import SCRIPTS, SOURCE, workload

__all__ = ["cli"]


@pytest.mark.parametrize(("framework", "distribution"), SCRIPTS)
def test_a_copy_holds_a_driver_and_the_scripts_it_names(
    cli: CommandLine, framework: str, distribution: str
) -> None:
    words = ["--framework", framework, "--distribution", distribution, "--copy-to", "my demo"]
    said = cli("demo", *words, "--nodes", "3", "--era", "E3", "--epochs", "7")
    assert said.code == 0, said.err
    driver = Path("my demo/driver.py").read_text()
    (estimator,) = [
        node.value
        for node in ast.parse(driver).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "estimator"
    ]
    assert isinstance(estimator, ast.Call)
    given = {word.arg: ast.unparse(word.value) for word in estimator.keywords}
    assert given["node_count"] == "3"
    assert given["script_params"] == "{'--epochs': 7}"
    counts = {"mpi": "process_count_per_node=2", "ps": "worker_count=3, parameter_server_count=1"}
    assert counts[distribution] in given["distributed_training"]
    assert "simgrid-ml.era" in driver
    script = ast.literal_eval(given["entry_script"])
    assert sorted(os.listdir("my demo/digits")) == sorted(["digits.py", script])
    assert (Path("my demo/digits") / script).read_text() == (Path(SOURCE) / script).read_text()
    again = cli("demo", *words)
    assert (again.code, "exists" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distribution", "ps"], "pytorch has no parameter servers"),
        (
            ["--framework", "tensorflow", "--distribution", "ps", "-p", "2"],
            "one worker for each node",
        ),
        (["--framework", "chainer"], "Invalid value for '--framework'"),
        (["--vm-size", "STANDARD_NC13"], "Standard_NC12"),
    ],
)
def test_the_demo_refuses_jobs_that_there_are_not(
    cli: CommandLine, words: list[str], said: str
) -> None:
    answer = cli("demo", *words)
    assert (answer.code, said in answer.err) == (2, True), answer.err


@pytest.mark.parametrize(
    ("distribution", "nodes", "size"),
    [
        ("mpi", 1, "1 virtual node x 2 processes"),
        ("ps", 1, "1 virtual node, 1 parameter server, 1 worker"),
        ("ps", 3, "3 virtual nodes, 1 parameter server, 3 workers"),
    ],
)
def test_the_size_of_a_demo_is_said_in_words(distribution: str, nodes: int, size: str) -> None:
    job = workload("tensorflow", distribution, nodes=nodes, processes_per_node=None, epochs=1)
    assert job.describe() == size


@pytest.mark.parametrize(
    ("words", "size", "each", "gpus"),
    [
        ([], "STANDARD_D2_V2", 2, False),
        (["--vm-size", "Standard_NC6"], "Standard_NC6", 1, True),
        (["--vm-size", "STANDARD_NC24"], "STANDARD_NC24", 4, True),
        (["--vm-size", "STANDARD_NC24", "-p", "2"], "STANDARD_NC24", 2, True),
    ],
)
def test_nodes_with_gpus_get_a_process_for_each(
    cli: CommandLine, words: list[str], size: str, each: int, gpus: bool
) -> None:
    assert cli("demo", *words, "--copy-to", "my demo").code == 0
    driver = Path("my demo/driver.py").read_text()
    assert f'vm_size="{size}",' in driver
    assert f"process_count_per_node={each})" in driver
    assert ("    use_gpu=True,\n" in driver) == gpus


def test_the_gpus_of_a_demo_are_said_in_words() -> None:
    job = workload(
        "pytorch", "mpi", nodes=2, processes_per_node=None, epochs=1, vm_size="Standard_NC12"
    )
    assert job.describe() == "2 virtual nodes of 2 Tesla K80 x 2 processes"
