"""Which TensorFlow stands for the one asked for, and what of then it shall restore.

2.15 is the last release with Keras 2, ``tf.estimator`` and a Horovod; nearly every script of the
estimators' years runs with it, and few with a later one. So it stands for all releases that are
gone, and is preferred wherever a requirement leaves the choice.
"""

from __future__ import annotations

from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from simgrid_ml.environments.catalog import (
    HOROVOD_TENSORFLOW_BEFORE,
    TENSORFLOW,
    TENSORFLOW_NEWEST,
    version_numbers,
)

__all__ = ["COMPANIONS", "PREFERENCE", "Choice", "choose", "companion"]

COMPANIONS = frozenset({"keras", "tensorboard", "tensorflow-estimator"})
"""Released with TensorFlow, as far as 2.15, and fit for the release of the same number alone."""

PREFERENCE = (
    "the last release with Keras 2 and Horovod is preferred; ask for tensorflow>=2.16 to have a "
    "newer one"
)

_WITHOUT_KERAS_2 = (
    "it has neither Keras 2 nor tf.layers and tf.estimator: for these install simgrid-ml with "
    "Python 3.10 or 3.11"
)

_OLDEST = {10: (2, 8), 11: (2, 12), 12: (2, 16), 13: (2, 20)}
"""Python 3.x to the first release with a wheel for it; of a newer Python nothing is known."""

_LAST_OF_EACH = (
    *("1.0.1", "1.1.0", "1.2.1", "1.3.0", "1.4.1", "1.5.1", "1.6.0", "1.7.1", "1.8.0", "1.9.0"),
    *("1.10.1", "1.11.0", "1.12.3", "1.13.2", "1.14.0", "1.15.5"),
    *("2.0.4", "2.1.4", "2.2.3", "2.3.4", "2.4.4", "2.5.3", "2.6.5", "2.7.4", "2.8.4", "2.9.3"),
    *("2.10.1", "2.11.1", "2.12.1", "2.13.1", "2.14.1", TENSORFLOW),
    *("2.16.2", "2.17.1", "2.18.1", "2.19.1", "2.20.0", TENSORFLOW_NEWEST),
)
_NUMPY_ALIASES_BEFORE = Version("2.4")  # released with NumPy 1.19; the aliases went with 1.24


class Choice(NamedTuple):
    """What to install.

    Attributes:
        specifier: of TensorFlow.
        reason: why it is not the release asked for; None where it is.
        preferred: it is a preference that yields where other packages need another release.
        hooks: the behaviours of then that scripts for the release asked for rely on.
    """

    specifier: SpecifierSet
    reason: str | None = None
    preferred: bool = False
    hooks: tuple[str, ...] = ()


def choose(asked: SpecifierSet, python: tuple[int, int]) -> Choice:
    """The TensorFlow for a requirement of whatever age.

    >>> choose(SpecifierSet("==1.13.*"), (3, 11)).specifier
    <SpecifierSet('==2.15.1')>
    >>> choose(SpecifierSet("==1.13.*"), (3, 11)).hooks
    ('tensorflow_v1', 'numpy_aliases')
    >>> choose(SpecifierSet("==2.13.*"), (3, 11))
    Choice(specifier=<SpecifierSet('==2.13.*')>, reason=None, preferred=False, hooks=())
    """
    admitted = _admitted(asked)
    if not admitted:
        return Choice(asked)
    ours = SpecifierSet(f"=={TENSORFLOW}")
    if asked.contains(TENSORFLOW) and _exists(TENSORFLOW, python):
        newer = admitted[-1].release[:2] > Version(TENSORFLOW).release[:2]
        return Choice(ours, PREFERENCE if newer else None, preferred=newer)
    if any(_exists(str(one), python) for one in admitted):
        return Choice(asked)
    wanted = admitted[-1]
    if wanted > Version(TENSORFLOW_NEWEST):
        return Choice(asked)
    name = f"{wanted.major}.{wanted.minor}"
    reason = f"TensorFlow {name} has no build for Python {python[0]}.{python[1]}"
    hooks: tuple[str, ...] = ()
    if wanted.major == 1:
        hooks += ("tensorflow_v1",)
        reason += "; the behaviour of TensorFlow 1 (tf.compat.v1) is served under its name"
    if wanted < _NUMPY_ALIASES_BEFORE:
        hooks += ("numpy_aliases",)
        reason += "; NumPy's aliases of then (np.float …) are there"
    if _exists(TENSORFLOW, python):
        return Choice(SpecifierSet(f"=={TENSORFLOW}"), reason, hooks=hooks)
    if _exists(TENSORFLOW_NEWEST, python):
        reason += f"; {_WITHOUT_KERAS_2}"
        return Choice(SpecifierSet(f"=={TENSORFLOW_NEWEST}"), reason, hooks=hooks)
    return Choice(asked)


def companion(name: str, asked: SpecifierSet, tensorflow: SpecifierSet) -> str | None:
    """Why another release of ``name`` than ``asked`` must be taken; None where none must.

    >>> companion("keras", SpecifierSet("<=2.3.1"), SpecifierSet("==2.15.1"))
    'Keras 2.15 belongs to TensorFlow 2.15'
    >>> companion("keras", SpecifierSet(">=2.2"), SpecifierSet("==2.15.1")) is None
    True
    """
    if name not in COMPANIONS or len(tensorflow) != 1 or not str(tensorflow).startswith("=="):
        return None
    numbers = version_numbers(str(tensorflow)[2:])[:2]
    if len(numbers) < 2 or numbers >= HOROVOD_TENSORFLOW_BEFORE:
        return None
    minor = ".".join(map(str, numbers))
    if any(asked.contains(f"{minor}.{patch}") for patch in range(4)):
        return None
    if all(Version(one.version.removesuffix(".*")) > Version(f"{minor}.99") for one in asked):
        return None  # newer ones, as keras>=3, need another TensorFlow
    title = {"keras": "Keras", "tensorboard": "TensorBoard"}.get(name, name)
    return f"{title} {minor} belongs to TensorFlow {minor}"


def _admitted(asked: SpecifierSet) -> list[Version]:
    """The releases that ``asked`` allows, those it names among them; the oldest first."""
    named = {one.version.removesuffix(".*") for one in asked if one.operator != "==="}
    return sorted(map(Version, asked.filter({*_LAST_OF_EACH, *named})))


def _exists(version: str, python: tuple[int, int]) -> bool:
    oldest = _OLDEST.get(python[1])
    return oldest is not None and version_numbers(version)[:2] >= oldest
