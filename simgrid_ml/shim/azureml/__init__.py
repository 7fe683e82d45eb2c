"""Stands in for the Azure ML SDK: import names only, every object is simgrid_ml.azure's."""

import os as _os
import sys as _sys

from simgrid_ml import wire as _wire
from simgrid_ml.azure import coverage as _coverage


def _say_which_is_active():
    """The real SDK, if it is installed as well, is not the one in use; say so once per job."""
    here = _os.path.realpath(_os.path.dirname(__file__))
    others = [
        path
        for path in (_os.path.join(entry or ".", "azureml") for entry in _sys.path)
        if _os.path.isfile(_os.path.join(path, "core", "__init__.py"))
        and _os.path.realpath(path) != here
    ]
    if others and _os.environ.get(_wire.TASK_VARIABLE, "rank-0") == "rank-0":
        print(
            f"simgrid-ml: azureml is the stand-in at {here}, not the SDK at {others[0]}",
            file=_sys.stderr,
        )


_say_which_is_active()
_coverage.refuse_other_modules()
__getattr__ = _coverage.getter(__name__)
