"""Hostile names everywhere: of the workspace, the source, the script, its arguments and files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simgrid_ml.errors import SpecError
from simgrid_ml.spec.job import EnvironmentSpec
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.runs import Runs, log

HOSTILE = {
    "spaces": " two  words ",
    "quotes": 'it\'s "quoted" `x` $(x) \\',
    "newline": "new\nline",
    "other letters": "żółć-日本",
    "shell": "a;b|c&d>e *?[x] #~!$HOME%s",
    "a dash": "-rf",
    "long": "/".join(["l" * 60] * 4),
    "signs": "a,b=c@d%e",
}

SCRIPT = """
    import os, sys, tempfile
    from mpi4py import MPI
    with open("outputs/" + sys.argv[1].replace("/", "_"), "w") as stream:
        stream.write("kept")
    with tempfile.TemporaryFile() as stream:
        stream.write(b"x")
    print(ascii(sys.argv[1:]), MPI.COMM_WORLD.allreduce(1), os.path.exists(__file__))
"""


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_a_run_works_whatever_its_paths_are_called(
    tmp_path: Path, environment: EnvironmentSpec, kind: str
) -> None:
    name = HOSTILE[kind]
    folder = tmp_path / name
    folder.mkdir(parents=True)
    with nothing_left(str(folder)):
        runs = Runs(str(folder), environment)
        source = runs.source({f"{name}/{name}.py": SCRIPT})
        argument = name.replace("$HOME", "$NO_SUCH_VARIABLE")  # variables are for arguments
        record = runs.completed(
            None, argument, source=source, entry_script=f"{name}/{name}.py", mpi=(2, 1)
        )
        for rank in (0, 1):
            assert log(record, rank) == f"{[argument]!a} 2 True\n"
        kept = record.artifact("outputs/" + argument.replace("/", "_"))
        assert Path(kept.path).read_text() == "kept"


def test_a_workspace_that_path_cannot_hold_is_refused(
    tmp_path: Path, environment: EnvironmentSpec
) -> None:
    with pytest.raises(SpecError, match="SIMGRID_ML_HOME"):
        Runs(str(tmp_path / "a:b"), environment).submit("print(1)")


@pytest.mark.parametrize("isolation", ["hostname", "none"])
def test_long_and_hostile_paths_work_with_less_isolation(
    tmp_path: Path,
    environment: EnvironmentSpec,
    monkeypatch: pytest.MonkeyPatch,
    isolation: str,
) -> None:
    monkeypatch.setenv("SIMGRID_ML_ISOLATION", isolation)
    folder = tmp_path / ("l" * 100) / HOSTILE["quotes"]
    folder.mkdir(parents=True)
    with nothing_left(str(folder)):
        record = Runs(str(folder), environment).completed(
            """
            import multiprocessing
            def double(x): return 2 * x
            if __name__ == "__main__":
                from mpi4py import MPI
                with multiprocessing.get_context("forkserver").Pool(1) as pool:
                    print(pool.map(double, [MPI.COMM_WORLD.allreduce(1)]))
            """,
            mpi=(2, 1),
        )
        assert [log(record, rank) for rank in (0, 1)] == ["[4]\n"] * 2


def test_file_names_that_are_no_text_are_kept(tmp_path: Path, environment: EnvironmentSpec) -> None:
    with nothing_left(str(tmp_path)):
        runs = Runs(str(tmp_path), environment)
        record = runs.completed("open(b'outputs/latin-\\xe9', 'w').write('kept')", mpi=(1, 1))
        name = "outputs/" + os.fsdecode(b"latin-\xe9")
        assert Path(record.artifact(name).path).read_text() == "kept"
