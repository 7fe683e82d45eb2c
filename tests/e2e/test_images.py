"""Jobs on nodes made from images; the images are made here, of this host's own programs."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import image_kit
import pytest

from simgrid_ml.__main__ import main
from simgrid_ml.azure.details import address, details
from simgrid_ml.backends import image_map, image_sdk, images
from simgrid_ml.backends.engine_api import Engine
from simgrid_ml.cli.doctor_images import examine_image
from simgrid_ml.cli.story import describe
from simgrid_ml.cli.summary import print_run
from simgrid_ml.environments import dockerfile
from simgrid_ml.environments.indexes import configured
from simgrid_ml.errors import EnvironmentBuildError
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.spec.job import EnvironmentSpec, Registry
from simgrid_ml.testing.leaks import nothing_left
from simgrid_ml.testing.pools import put_cluster
from simgrid_ml.testing.runs import Runs, cause, story

WHERE = f"""
import os, sys
print("python", os.path.realpath(sys.executable))
print("of the image", os.path.exists({image_kit.MARK!r}))
print("tool", os.environ.get("TOOL"))
print("host", os.uname().nodename)
"""


def user_managed(image: str) -> EnvironmentSpec:
    """What user_managed=True with a custom_docker_image comes to."""
    return EnvironmentSpec(interpreter="python3", image=image)


@pytest.fixture
def jobs(tmp_path: Path, docker_engine: Engine) -> Iterator[Runs]:
    with nothing_left(str(tmp_path)):
        yield Runs(str(tmp_path), EnvironmentSpec(), {"backend": "docker"})


@pytest.fixture(scope="module")
def python_image(docker_engine: Engine) -> Iterator[str]:
    with image_kit.image(docker_engine, "python", image_kit.python()) as name:
        yield name


def driver_log(record: RunRecord, node: int = 0) -> str:
    names = [one.path for one in record.artifacts() if "70_driver_log" in one.name]
    with open(sorted(names)[node], encoding="utf-8") as stream:
        return stream.read()


def kept(record: RunRecord) -> str:
    """Everything the run directory holds as text, but its specification."""
    texts = []
    for folder, _, files in os.walk(record.path):
        for name in set(files) - {"spec.json"}:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
                texts.append(stream.read())
    return "\n".join(texts)


def test_a_user_managed_image_runs_the_script_with_its_own_python(
    jobs: Runs, python_image: str
) -> None:
    record = jobs.completed(WHERE, nodes=2, environment=user_managed(python_image))
    for node in (0, 1):
        said = driver_log(record, node)
        assert f"python {image_kit.PREFIX}/bin/python3" in said, story(record)
        assert "of the image True" in said
        assert f"host node{node}" in said
    environment = record.document("environment.json")
    assert environment["image"] == python_image and environment["image_used"]
    assert environment["image_digest"].startswith("sha256:")


def test_the_environment_of_this_host_runs_inside_a_named_image(
    jobs: Runs, python_image: str, environment: EnvironmentSpec
) -> None:
    spec = type(environment)(
        framework=environment.framework,
        framework_version=environment.framework_version,
        conda=environment.conda,
        image=python_image,
    )
    script = """
        import os, sys
        import horovod.torch as hvd
        import torch
        hvd.init()
        print("sum", hvd.allreduce(torch.ones(1), op=hvd.Sum).item(), hvd.size())
        print("of the image", os.path.exists("%s"))
        print("prefix", sys.prefix)
    """
    record = jobs.completed(script % image_kit.MARK, mpi=(2, 1), environment=spec)
    said = driver_log(record)
    assert "sum 2.0 2" in said, story(record)
    assert "of the image True" in said
    assert (
        f"prefix {record.document('environment.json')['python'].removesuffix('/bin/python')}"
        in said
    )


def test_what_an_image_sets_for_its_programs_reaches_the_job(
    jobs: Runs, python_image: str, docker_engine: Engine
) -> None:
    name = image_kit.name_of("tool")
    files = {"Dockerfile": f"FROM {python_image}\nENV TOOL=hammer\n".encode()}
    image_sdk.build(docker_engine, files, name, lambda _: None)
    try:
        record = jobs.completed(WHERE, environment=user_managed(name))
        assert "tool hammer" in driver_log(record)
    finally:
        image_kit.remove(docker_engine, name)


def test_an_image_without_python_is_refused_before_nodes_start(
    jobs: Runs, docker_engine: Engine
) -> None:
    with image_kit.image(docker_engine, "shell", image_kit.shell()) as name:
        record = jobs.failed(WHERE, environment=user_managed(name))
    error = record.error()
    assert error is not None
    assert name in error["cause"] and "python3" in error["cause"]
    assert "executable file not found" in error["evidence"]
    assert [move["state"] for move in record.states()][-2:] == ["Preparing", "Failed"]
    assert "executable file not found" in kept(record)


def test_mpi_jobs_need_open_mpi_in_a_user_managed_image(jobs: Runs, python_image: str) -> None:
    record = jobs.failed(WHERE, mpi=(2, 1), environment=user_managed(python_image))
    assert "no mpirun" in cause(record), story(record)


def test_an_image_that_cannot_be_pulled_names_the_remedy_and_not_the_password(jobs: Runs) -> None:
    spec = EnvironmentSpec(
        interpreter="python3",
        image="lab/torch:1",
        registry=Registry(address="registry.invalid", username="me", password="hunter2-secret"),
    )
    record = jobs.failed(WHERE, environment=spec)
    error = record.error()
    assert error is not None
    assert "registry.invalid/lab/torch:1" in error["cause"]
    assert "simgrid-ml images map registry.invalid/lab/torch:1 LOCAL" in error["remedy"]
    said = kept(record)
    assert "pulling registry.invalid/lab/torch:1" in said
    assert "hunter2-secret" not in said


def test_a_run_can_be_cancelled_while_its_registry_does_not_answer(jobs: Runs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as registry:
        name = f"127.0.0.1:{registry.getsockname()[1]}/lab/torch:1"
        record = jobs.submit(WHERE, environment=user_managed(name))
        registry.settimeout(60)
        with registry.accept()[0] as asked:
            asked.settimeout(60)
            assert asked.recv(1)  # the engine says hello, and is told nothing
            record.request_cancel()
            assert jobs.ended(record).state is RunState.CANCELED, story(record)
            asked.setblocking(False)
            with pytest.raises(BlockingIOError):  # the engine still waits, and the run has ended
                while asked.recv(4096):
                    pass


def test_an_image_that_stands_in_for_another_is_told_in_the_run(
    jobs: Runs, python_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image_map.put("lab/torch:1", python_image)
    record = jobs.completed(WHERE, environment=user_managed("lab/torch:1"))
    environment = record.document("environment.json")
    assert environment["image_substituted_for"] == "lab/torch:1"
    assert any(python_image in note for note in environment["image_notes"])
    told = next(event for event in record.events() if event["event"] == "image")
    assert told["notes"] == environment["image_notes"]
    warnings = [one["message"] for one in details(record, address)["warnings"]]
    assert environment["image_notes"][0] in warnings
    print_run(record, describe(record))
    shown = capsys.readouterr().out
    assert environment["image_digest"].partition(":")[2][:12] in shown
    assert environment["image_notes"][0] in shown


def test_nodes_of_an_image_stay_warm_for_the_next_run_in_it(
    pooled: Runs, python_image: str
) -> None:
    """The environment of the fixture is not used: the image has one."""
    cluster = put_cluster(pooled, backend="docker", max_nodes=1)
    where = WHERE + "print('node', os.stat('/proc/self/ns/pid').st_ino)"
    spec = user_managed(python_image)
    first, second = (
        driver_log(pooled.completed(where, environment=spec, cluster=cluster)) for _ in range(2)
    )
    assert "of the image True" in second
    node = next(line for line in first.splitlines() if line.startswith("node"))
    assert node in second.splitlines()


def test_the_process_backend_says_that_it_used_no_image(tmp_path: Path) -> None:
    spec = EnvironmentSpec(image="lab/torch:1")
    with nothing_left(str(tmp_path)):
        record = Runs(str(tmp_path), spec).completed(WHERE)
    environment = record.document("environment.json")
    assert (environment["image"], environment["image_used"]) == ("lab/torch:1", False)


def test_without_a_compiler_the_images_python_runs_the_programs_of_nodes(
    jobs: Runs, python_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGRID_ML_NODE_PROGRAMS", "python")
    record = jobs.completed(WHERE, environment=user_managed(python_image))
    plan = record.document("launch.json")["plan"]
    assert plan["commands"][0]["argv"][0] == f"{image_kit.PREFIX}/bin/python3"


def test_an_environment_built_as_an_image_has_all_that_mpi_jobs_need(
    jobs: Runs, python_image: str, docker_engine: Engine
) -> None:
    """Packages come from where pip finds them, inside the build as outside."""
    lock = dockerfile.resolve(EnvironmentSpec())
    recipe = dockerfile.recipe(lock, python_image, configured())
    said: list[str] = []
    try:
        image = images.built_image(docker_engine, recipe.files, recipe.tag, said.append)
        assert image.python[0] == f"{dockerfile.PREFIX}/bin/python3"
        assert any(line.startswith("Successfully installed") for line in said)
        said.clear()
        assert images.built_image(docker_engine, recipe.files, recipe.tag, said.append) == image
        assert not said
        script = """
            from mpi4py import MPI
            print("sum", MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank + 1))
        """
        record = jobs.completed(script, mpi=(2, 1), environment=user_managed(recipe.tag))
        assert "sum 3" in driver_log(record), story(record)
    finally:
        image_kit.remove(docker_engine, recipe.tag)


def test_a_build_that_fails_shows_its_last_lines(docker_engine: Engine) -> None:
    name = image_kit.name_of("broken")
    with image_kit.image(docker_engine, "shell", image_kit.shell()) as base:
        files = {"Dockerfile": f"FROM {base}\nRUN echo first words; exit 3\n".encode()}
        with pytest.raises(EnvironmentBuildError) as caught:
            images.built_image(docker_engine, files, name, lambda _: None)
    assert "first words" in caught.value.evidence
    assert "non-zero code: 3" in caught.value.evidence


def test_images_check_says_which_ways_an_image_can_be_used(
    python_image: str, docker_engine: Engine
) -> None:
    said = {one.check: one for one in examine_image(python_image)}
    assert said["image"].answer == said["Python of its own"].answer == "yes"
    assert said["environments of this host"].answer == "yes"
    assert said["Open MPI of its own"].answer == "limited"
    with image_kit.image(docker_engine, "nothing", image_kit.nothing()) as name:
        said = {one.check: one for one in examine_image(name)}
    assert said["image"].answer == "no"
    assert "no such file" in said["environments of this host"].found


def test_images_are_mapped_to_those_the_engine_has(
    python_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["images", "map", "lab/torch:1", "nobody/has-this:1"]) == 2
    assert main(["images", "map", "lab/torch:1", python_image]) == 0
    capsys.readouterr()
    assert main(["images", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"image": "lab/torch:1", "local": python_image, "present": True}
    ]
    assert main(["images", "check", "lab/torch:1"]) == 0
    assert f"{python_image}, which stands in for lab/torch:1" in capsys.readouterr().out
    assert main(["images", "unmap", "lab/torch:1"]) == 0
    assert main(["images", "unmap", "lab/torch:1"]) == 2
