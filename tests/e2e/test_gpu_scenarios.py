"""The classic GPU bugs: each fails with the cloud's message and our remedy, and is cured by it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from simgrid_ml.checks import gpus
from simgrid_ml.spec.job import EnvironmentSpec, JobSpec
from simgrid_ml.spec.value import from_plain
from simgrid_ml.testing.runs import Runs, log, story

SCENARIOS = Path(__file__).parents[2] / "scenarios"
NAMES = sorted(folder.name for folder in SCENARIOS.glob("gpu-*"))
TOGETHER = ("gpu-global-rank", "gpu-no-set-device", "gpu-out-of-memory", "gpu-tensorflow")
"""Those with several ranks."""
ALONE = [name for name in NAMES if name not in TOGETHER]


def test_there_are_ten() -> None:
    assert len(NAMES) == 10


def environment_of(name: str, request: pytest.FixtureRequest) -> EnvironmentSpec:
    """The scenario's, as the other tests have it built."""
    asked = yaml.safe_load((SCENARIOS / name / "run.yaml").read_text())["job"]["environment"]
    given: EnvironmentSpec = request.getfixturevalue(
        "environment" if asked["framework"] == "pytorch" else "tensorflow"
    )
    assert asked["framework"] == given.framework or given.interpreter
    return given


def job(name: str, source: Path, given: EnvironmentSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job and the cluster of a scenario whose files are in ``source``."""
    asked = yaml.safe_load((SCENARIOS / name / "run.yaml").read_text())
    spec = from_plain({**asked["job"], "source": str(source), "environment": {}}, JobSpec, "job")
    fields = {"entry_script": spec.entry_script, "environment": given, "source": str(source)}
    return {**fields, "distribution": spec.distribution}, asked["cluster"]


@pytest.mark.parametrize("name", NAMES)
def test_a_classic_gpu_bug_fails_as_in_the_cloud_and_says_what_to_do(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    fields, cluster = job(name, SCENARIOS / name, environment_of(name, request))
    runs = Runs(str(tmp_path), fields["environment"], deadline_s=240.0)
    record = runs.failed(None, cluster=cluster, **fields)
    expected = yaml.safe_load((SCENARIOS / name / "expected.yaml").read_text())
    error = record.error()
    assert error is not None
    assert expected["cloud"] in " ".join(error["evidence"].split()), story(record)
    assert expected["remedy"] in error["remedy"], story(record)


def cured(name: str, folder: Path) -> Path:
    """A copy of the scenario with the changes that its README shows."""
    shutil.copytree(SCENARIOS / name, folder)
    script = folder / "train.py"
    text = script.read_text()
    diff = (folder / "README.md").read_text().partition("```diff\n")[2].partition("\n```")[0]
    for change in diff.split("\n\n"):
        lines = change.splitlines()
        old = "\n".join(line[1:] for line in lines if line[0] == "-")
        new = "\n".join(line[1:] for line in lines if line[0] == "+")
        assert text.count(old) == 1, f"{old!r} is not once in {script}"
        text = text.replace(old, new)
    script.write_text(text)
    return folder


@pytest.mark.parametrize("name", TOGETHER)
def test_the_remedy_cures_ranks(tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    source = cured(name, tmp_path / "cured")
    fields, cluster = job(name, source, environment_of(name, request))
    runs = Runs(str(tmp_path), fields["environment"], deadline_s=240.0)
    record = runs.completed(None, cluster=cluster, **fields)
    (used,) = [found for found in gpus.check(record) if found.check == "gpus.used"]
    own = "some on one GPU" if name == "gpu-out-of-memory" else "a GPU of its own each"
    assert own in used.message


ONE_AFTER_ANOTHER = """
    import os
    import runpy
    import sys

    for name in sys.argv[1:]:
        print(name, flush=True)
        os.chdir(name)
        runpy.run_path("train.py")
        os.chdir("..")
"""


def test_the_remedies_cure_what_needs_no_second_rank(workspace: Runs, tmp_path: Path) -> None:
    source = workspace.source({"train.py": ONE_AFTER_ANOTHER})
    for name in ALONE:
        cured(name, Path(source, name))
    fields = {"source": source, "entry_script": "train.py"}
    cluster = {"vm_size": "STANDARD_NC6s_v3"}  # one GPU, as all of them have
    record = workspace.completed(None, *ALONE, cluster=cluster, **fields)
    said = log(record, "")
    assert said.count("step 3: loss") == len(ALONE) - 1, said
    assert "loss from" in said  # the other says it at the end
