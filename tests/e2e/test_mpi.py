"""Jobs over real Open MPI: who is where, what they compute, and what their scripts find."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from simgrid_ml import wire
from simgrid_ml.record.run import RunRecord
from simgrid_ml.testing.runs import Runs, cause, log, story

COLLECTIVES = """
    import json, os, socket
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    rank, size = world.rank, world.size
    print(json.dumps({
        "rank": rank,
        "size": size,
        "host": socket.gethostname(),
        "sum": world.allreduce(rank + 1),
        "max": world.allreduce(rank, op=MPI.MAX),
        "root": world.bcast({"from": rank, "big": "x" * 300_000} if rank == size - 1 else None,
                            root=size - 1)["from"],
        "all": world.allgather([rank, socket.gethostname()]),
        "ompi": {name: int(os.environ["OMPI_COMM_WORLD_" + name])
                 for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")},
        "node": os.environ["SIMGRID_ML_NODE"],
    }))
"""


@pytest.mark.parametrize(("nodes", "per_node"), [(2, 2), (3, 1)])
def test_collectives_give_the_right_values_on_every_rank(
    workspace: Runs, nodes: int, per_node: int
) -> None:
    record = workspace.completed(COLLECTIVES, mpi=(nodes, per_node))
    size = nodes * per_node
    hosts = [[rank, f"node{rank // per_node}"] for rank in range(size)]
    for rank in range(size):
        assert json.loads(log(record, rank)) == {
            "rank": rank,
            "size": size,
            "host": f"node{rank // per_node}",
            "node": f"node{rank // per_node}",
            "sum": size * (size + 1) // 2,
            "max": size - 1,
            "root": size - 1,
            "all": hosts,
            "ompi": {
                "RANK": rank,
                "SIZE": size,
                "LOCAL_RANK": rank % per_node,
                "LOCAL_SIZE": per_node,
            },
        }
    assert {one["verdict"] for one in record.document(wire.VERDICTS)} == {"pass"}


def test_ranks_of_sixteen_nodes_find_each_other(workspace: Runs) -> None:
    record = workspace.completed(
        "from mpi4py import MPI; print(MPI.COMM_WORLD.allreduce(1))", mpi=(16, 1)
    )
    assert [log(record, rank) for rank in range(16)] == ["16\n"] * 16


def test_a_plain_job_runs_once_on_every_node_and_without_mpi(workspace: Runs) -> None:
    record = workspace.completed(
        """
        import os, socket
        print(socket.gethostname(), os.environ["AZUREML_PROCESS_NAME"],
              any(name.startswith("OMPI_COMM_") for name in os.environ))
        """,
        nodes=3,
    )
    assert [log(record, n) for n in range(3)] == [f"node{n} worker_{n} False\n" for n in range(3)]


def test_a_single_process_has_a_log_without_a_number(workspace: Runs) -> None:
    record = workspace.completed("print('alone')")
    assert "alone\n" in text(record, "azureml-logs/70_driver_log.txt")
    assert names(record, "azureml-logs/70_") == ["azureml-logs/70_driver_log.txt"]


def test_a_command_runs_instead_of_a_script_with_its_arguments_unharmed(workspace: Runs) -> None:
    words = ["a b", "c'd", 'e"f', "g\nh", "$HOME_OF_NOBODY", "*", "", "żółć"]
    record = workspace.completed(
        None,
        command=("python", "-c", "import sys; print(ascii(sys.argv[1:]))", *words),
        mpi=(2, 1),
    )
    assert [log(record, rank) for rank in (0, 1)] == [ascii(words) + "\n"] * 2


def test_variables_in_arguments_are_those_of_each_rank(workspace: Runs) -> None:
    record = workspace.completed(
        "import sys; print(sys.argv[1:])",
        "--rank=$OMPI_COMM_WORLD_RANK",
        "${AZUREML_PROCESS_NAME}.x",
        "$MINE",
        "$UNKNOWN",
        "100$",
        mpi=(1, 2),
        variables={"MINE": "given"},
    )
    for rank in (0, 1):
        assert (
            log(record, rank)
            == f"{[f'--rank={rank}', f'rank_{rank}.x', 'given', '$UNKNOWN', '100$']}\n"
        )


def test_ranks_see_the_service_s_variables_and_none_of_the_host_s(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/the/driver")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    record = workspace.completed(
        """
        import json, os
        with open(os.environ["AZ_BATCHAI_MPI_HOST_FILE"]) as hosts:
            print(json.dumps({**os.environ, "hosts": hosts.read().split()}))
        """,
        mpi=(2, 1),
    )
    zero, one = (json.loads(log(record, rank)) for rank in (0, 1))
    for seen in (zero, one):
        assert "MY_SECRET_TOKEN" not in seen
        assert "s3cret" not in json.dumps(seen)
        assert "/somewhere" not in seen["PYTHONPATH"]
        assert seen["LC_TIME"] == "C.UTF-8"
        assert seen["AZUREML_RUN_ID"] == record.id
        assert seen["AZUREML_ARM_PROJECT_NAME"] == "test"
        assert seen["AZ_BATCHAI_CLUSTER_NAME"] == "test"
        assert seen["AZ_BATCH_MASTER_NODE"].endswith(":6000")
        assert seen["hosts"][::2] == seen["AZ_BATCH_NODE_LIST"].split(";")
        assert seen["hosts"][1::2] == ["slots=1"] * 2
        assert seen["AZUREML_OUTPUT_DIRECTORY"] == record.file("work", "outputs")
    assert (zero["AZ_BATCH_IS_CURRENT_NODE_MASTER"], one["AZ_BATCH_IS_CURRENT_NODE_MASTER"]) == (
        "true",
        "false",
    )
    assert zero["AZ_BATCH_NODE_ID"] != one["AZ_BATCH_NODE_ID"]


def test_nodes_know_each_other_by_name_and_reach_the_master_by_its_address(workspace: Runs) -> None:
    record = workspace.completed(
        """
        import os, socket
        from mpi4py import MPI
        world = MPI.COMM_WORLD
        names = [socket.gethostbyname(f"node{n}") for n in range(world.size)]
        assert names == os.environ["AZ_BATCH_NODE_LIST"].split(";"), names
        address = os.environ["AZ_BATCHAI_MPI_MASTER_NODE"]
        if world.rank == 0:
            server = socket.create_server((address, 0))
            world.bcast(server.getsockname()[1])
            for _ in range(world.size - 1):
                server.accept()[0].sendall(b"hello")
        else:
            client = socket.create_connection((address, world.bcast(None)), timeout=20)
            print(client.recv(5).decode())
        """,
        mpi=(3, 1),
    )
    assert [log(record, rank) for rank in (1, 2)] == ["hello\n", "hello\n"]


def test_a_traceback_begins_in_the_user_s_script(workspace: Runs) -> None:
    record = workspace.failed(
        """
        def broken():
            raise ValueError("on purpose: żółć")
        broken()
        """,
        mpi=(1, 1),
    )
    lines = log(record).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith('  File "train.py", line 4')
    assert lines[-1] == "ValueError: on purpose: żółć"
    assert "on purpose: żółć" in str(record.error())


def test_a_script_is_main_as_it_is_for_python(workspace: Runs) -> None:
    files = {
        "train.py": """
            import atexit, inspect, multiprocessing, pickle, sys
            class Thing:
                def __eq__(self, other): return type(self) is type(other)
            def double(x): return 2 * x
            if __name__ == "__main__":
                atexit.register(print, "exit handler ran")
                assert pickle.loads(pickle.dumps(Thing())) == Thing()
                assert "def double" in inspect.getsource(double)
                for method in ("fork", "spawn", "forkserver"):
                    with multiprocessing.get_context(method).Pool(2) as pool:
                        print(method, pool.map(double, [1, 2, 3]))
                import helper
                print(helper.NAME, sys.argv, __file__, __name__)
            """,
        "helper.py": "NAME = 'from the source folder'\n",
    }
    record = workspace.completed(
        None, "--lr", "0.1", source=workspace.source(files), entry_script="train.py", mpi=(1, 1)
    )
    assert log(record).splitlines() == [
        "fork [2, 4, 6]",
        "spawn [2, 4, 6]",
        "forkserver [2, 4, 6]",
        "from the source folder ['train.py', '--lr', '0.1'] train.py __main__",
        "exit handler ran",
    ]


def test_a_script_in_a_folder_finds_its_neighbours_and_works_at_the_root(workspace: Runs) -> None:
    source = workspace.source(
        {
            "code/train.py": "import os, sibling; print(sibling.X, sorted(os.listdir('.')))",
            "code/sibling.py": "X = 7",
        }
    )
    record = workspace.completed(None, source=source, entry_script="code/train.py", mpi=(1, 1))
    assert log(record) == "7 ['code', 'logs', 'outputs']\n"


def test_outputs_are_shared_and_collected_once_in_era_e2(workspace: Runs) -> None:
    record = workspace.completed(
        """
        from mpi4py import MPI
        world = MPI.COMM_WORLD
        open(f"outputs/rank-{world.rank}.txt", "w").write(str(world.rank))
        open(f"logs/rank-{world.rank}.log", "w").write("log")
        world.Barrier()
        import os
        print(sorted(os.listdir("outputs")))
        """,
        mpi=(2, 1),
    )
    assert log(record, 1) == "['rank-0.txt', 'rank-1.txt']\n"
    assert names(record, "outputs/") == ["outputs/rank-0.txt", "outputs/rank-1.txt"]
    assert names(record, "logs/") == ["logs/rank-0.log", "logs/rank-1.log"]
    assert text(record, "outputs/rank-1.txt") == "1"


PRIVATE = """
    import os
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    name = os.environ.get("NAME", f"rank-{world.rank}.txt")
    open(f"outputs/{name}", "w").write("mine")
    world.Barrier()
    print(os.listdir("outputs"))
"""


def test_era_e3_merges_what_the_nodes_wrote_in_folders_of_their_own(workspace: Runs) -> None:
    record = workspace.completed(PRIVATE, mpi=(2, 1), cluster={"era": "E3"})
    assert names(record, "outputs/") == ["outputs/rank-0.txt", "outputs/rank-1.txt"]
    assert text(record, "user_logs/std_log_process_1.txt") == "['rank-1.txt']\n"
    assert names(record, "azureml-logs/") == []
    assert "user_logs/mpi_log.txt" in names(record)


def test_era_e3_fails_when_two_nodes_wrote_one_name(workspace: Runs) -> None:
    record = workspace.failed(
        PRIVATE, mpi=(2, 1), cluster={"era": "E3"}, variables={"NAME": "model.bin"}
    )
    assert "Resource Conflict" in str(record.error()) and "model.bin" in str(record.error())
    assert names(record, "outputs/") == ["outputs/model.bin"], "the first one is kept"


def test_era_e1_has_its_own_names_of_logs_and_variables(workspace: Runs) -> None:
    record = workspace.completed(
        "import os; print(sorted(n for n in os.environ if n.startswith('AZ_BATCHAI_JOB_MASTER')))",
        mpi=(2, 1),
        cluster={"era": "E1"},
    )
    expected = ["azureml-logs/80_driver_log_rank_0.txt", "azureml-logs/80_driver_log_rank_1.txt"]
    assert names(record, "azureml-logs/80_") == expected
    first = text(record, expected[0])
    assert first.startswith("['AZ_BATCHAI_JOB_MASTER_NODE_IP']\n")
    assert "The experiment completed successfully. Finalizing run..." in first
    assert "azureml-logs/56_batchai_stderr.txt" in names(record)


def test_a_run_of_era_e2_leaves_the_logs_the_service_left(workspace: Runs) -> None:
    record = workspace.completed("print('ok')", mpi=(2, 2))
    logs = names(record, "azureml-logs/")
    assert [name for name in logs if "70_" in name] == [
        *(f"azureml-logs/70_driver_log_{rank}.txt" for rank in range(4)),
        "azureml-logs/70_mpi_log.txt",
    ]
    for stage in ("55_azureml-execution-", "65_job_prep-", "75_job_post-"):
        assert len([name for name in logs if stage + "tvmps_" in name]) == 2
    info = [
        json.loads(line) for line in text(record, "azureml-logs/process_info.json").splitlines()
    ]
    assert [line["process_name"] for line in info] == [f"rank_{rank}" for rank in range(4)]
    status = text(record, "azureml-logs/process_status.json").splitlines()
    assert json.loads(status[-1]) == {"process_name": "*", "status": "Completed"}
    assert "Finalizing run..." in text(record, "azureml-logs/70_driver_log_0.txt")


def test_ranks_that_never_touch_mpi_complete(workspace: Runs) -> None:
    record = workspace.completed(None, command=("true",), mpi=(2, 2))
    assert all(lines[-1]["code"] == 0 for lines in record.task_reports().values()), story(record)


def test_the_index_of_a_sealed_run_has_the_size_and_hash_of_every_artifact(
    workspace: Runs, tmp_path: Path
) -> None:
    import hashlib

    record = workspace.completed("open('outputs/a b\\n.bin', 'wb').write(b'x' * 100_000)")
    index = {entry["name"]: entry for entry in record.document(wire.ARTIFACT_INDEX)}
    assert sorted(index) == names(record)
    entry = index["outputs/a b\n.bin"]
    assert entry["bytes"] == 100_000
    assert entry["sha256"] == hashlib.sha256(b"x" * 100_000).hexdigest()


def text(record: RunRecord, name: str) -> str:
    return Path(record.artifact(name).path).read_text()


def names(record: RunRecord, prefix: str = "") -> list[str]:
    return [one.name for one in record.artifacts() if one.name.startswith(prefix)]


def test_a_host_without_a_compiler_gets_the_same_from_the_programs_in_python(
    workspace: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGRID_ML_NODE_PROGRAMS", "python")
    record = workspace.completed(
        "import sys; from mpi4py import MPI; print(sys.argv[1:], MPI.COMM_WORLD.allreduce(1))",
        "a b\n'\"żółć",
        "${AZUREML_PROCESS_NAME}",
        "",
        mpi=(2, 1),
    )
    words = ["a b\n'\"żółć", "rank_1", ""]
    assert log(record, 1) == f"{words} 2\n"
    failed = workspace.failed("import os; os._exit(7)", mpi=(2, 1))
    assert "exited with code 7" in cause(failed), story(failed)
    command = record.document(wire.LAUNCH)["plan"]["commands"][0]["argv"]
    assert any(word.endswith("rank.py") for word in command)


def test_a_python_path_of_the_users_is_added_to_ours(workspace: Runs) -> None:
    script = """
        import os, helper
        from azureml.core import Run
        print(helper.NAME, Run.get_context().id == os.environ["AZUREML_RUN_ID"])
    """
    files = {"train.py": textwrap.dedent(script), "lib/helper.py": "NAME = 'found'"}
    record = workspace.completed(
        None,
        source=workspace.source(files),
        entry_script="train.py",
        variables={"PYTHONPATH": "lib"},
        mpi=(1, 1),
    )
    assert "found True" in log(record)


def test_two_runs_at_a_time_have_addresses_of_their_own(workspace: Runs) -> None:
    script = "import os; print(os.environ['AZ_BATCH_NODE_LIST'])"
    first, second = (workspace.completed(script, nodes=2) for _ in range(2))
    assert not set(log(first).split()[0].split(";")) & set(log(second).split()[0].split(";"))
