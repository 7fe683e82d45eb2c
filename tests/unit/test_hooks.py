"""``shim/hooks``: how behaviour of old releases gets into a run's programs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import simgrid_ml
from simgrid_ml import wire

PACKAGE = os.path.dirname(simgrid_ml.__file__)

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the path, behind the run's, with a module ``numpy`` that has ``int`` alone."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "numpy.py").write_text(
        "int = 'own'\ninf = 1.0\nexecuted = 'float' not in globals()\n"
    )
    return folder


@pytest.fixture
def python(tmp_path: Path, site: Path) -> Python:
    """Runs Python as a task of a run with hooks does."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "simgrid_ml").symlink_to(PACKAGE)
    (run / "sitecustomize.py").symlink_to(os.path.join(PACKAGE, "shim/hooks/sitecustomize.py"))

    def python(*words: str, hooks: str = "numpy_aliases") -> "subprocess.CompletedProcess[str]":
        environment = {"PYTHONPATH": f"{run}:{site}", wire.HOOKS_VARIABLE: hooks}
        return subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, cwd=tmp_path
        )

    return python


SHOW = "import numpy; print(numpy.executed, numpy.int, getattr(numpy, 'float', None))"


def test_a_hook_changes_its_module_once_that_is_executed(python: Python) -> None:
    done = python("-c", SHOW)
    assert (done.stdout, done.stderr) == ("True own <class 'float'>\n", "")


@pytest.mark.parametrize("words", [["-I"], ["-S"]])
def test_a_python_that_reads_no_site_runs_without_hooks(
    python: Python, words: list[str], site: Path
) -> None:
    done = python(*words, "-c", f"import sys; sys.path.append({str(site)!r})\n{SHOW}")
    assert (done.stdout, done.stderr) == ("True own None\n", "")


def test_without_a_name_in_the_variable_nothing_is_restored(python: Python) -> None:
    assert python("-c", SHOW, hooks="").stdout == "True own None\n"


def test_spawned_processes_and_programs_run_as_modules_have_the_hooks(
    python: Python, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        "import multiprocessing\n"
        "def show(_):\n"
        "    import numpy\n"
        "    return numpy.float\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(show, [0]))\n"
    )
    for words in (["program.py"], ["-m", "program"]):
        done = python(*words)
        assert (done.stdout, done.stderr) == ("[<class 'float'>]\n", "")


def test_a_module_with_a_hook_keeps_its_loader_and_its_source(python: Python) -> None:
    done = python(
        "-c",
        "import importlib.util, inspect, sys\n"
        "assert importlib.util.find_spec('numpy').origin.endswith('numpy.py')\n"
        "assert 'numpy' not in sys.modules\n"
        "import numpy\n"
        "print(type(numpy.__loader__).__name__, vars(numpy.__loader__).keys())\n"
        "print(inspect.getsource(numpy)[:11])",
    )
    assert done.stdout == "SourceFileLoader dict_keys(['name', 'path'])\nint = 'own'\n", done.stderr


def test_a_hook_that_fails_says_so_in_one_line_and_the_script_goes_on(
    python: Python, site: Path
) -> None:
    (site / "tensorflow.py").write_text("name = 'not the real one'\n")
    done = python("-c", "import tensorflow; print(tensorflow.name)", hooks="tensorflow_v1")
    assert done.stdout == "not the real one\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("simgrid-ml: the hook tensorflow_v1 failed, and the script goes on: ")
    assert "Error: " in line


def test_a_tensorflow_that_comes_with_keras_3_is_tensorflow_1_without_its_keras(
    python: Python, site: Path
) -> None:
    (site / "tensorflow" / "python" / "util").mkdir(parents=True)
    (site / "tensorflow" / "python" / "util" / "deprecation.py").write_text(
        "from contextlib import nullcontext as silence\n"
    )
    (site / "tensorflow" / "__init__.py").write_text(
        "from types import ModuleType, SimpleNamespace\n"
        "v1 = ModuleType('v1')\n"
        "vars(v1).update(__path__=[], __version__='2.21.0', placeholder='of then')\n"
        "v1.disable_v2_behavior = lambda: None\n"
        "compat = SimpleNamespace(v1=v1)\n"
        "import keras\n"
    )
    (site / "keras.py").write_text("__version__ = '3.12.0'\n")
    show = (
        "import tensorflow as tf, keras; print(tf.placeholder, tf.__version__, tf.keras is keras)"
    )
    done = python("-c", show, hooks="tensorflow_v1")
    assert (done.stdout, done.stderr) == ("of then 1.15.5 True\n", "")


def test_an_import_that_fails_fails_as_without_a_hook(python: Python, site: Path) -> None:
    (site / "numpy.py").write_text("raise RuntimeError('broken by itself')\n")
    done = python("-c", "import numpy")
    assert done.stderr.endswith("RuntimeError: broken by itself\n")
    assert "simgrid-ml:" not in done.stderr


def test_a_name_that_is_no_hook_is_named(python: Python) -> None:
    done = python("-c", SHOW, hooks="numpy_alias, numpy_aliases")
    assert done.stdout == "True own <class 'float'>\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("simgrid-ml: there is no hook 'numpy_alias'; there are: ")
    assert "numpy_aliases" in line


def test_the_sitecustomize_that_was_there_before_runs_too(python: Python, site: Path) -> None:
    (site / "sitecustomize.py").write_text(
        "import sys\nsys.path.append('/added')\nmark = 'of the site'\n"
    )
    done = python("-c", f"{SHOW}\nimport sitecustomize, sys; print(sitecustomize.mark, sys.path)")
    first, second = done.stdout.splitlines()
    assert first == "True own <class 'float'>"
    run = str(site.parent / "run")
    assert second.startswith(f"of the site ['', '{run}', '{site}', ")
    assert second.endswith("'/added']")
    assert done.stderr == ""


def test_an_error_in_the_other_sitecustomize_is_told_as_python_tells_it(
    python: Python, site: Path
) -> None:
    (site / "sitecustomize.py").write_text("import nothing_of_this_name\n")
    done = python("-c", SHOW)
    assert done.stdout == "True own <class 'float'>\n"
    assert "nothing_of_this_name" in done.stderr
