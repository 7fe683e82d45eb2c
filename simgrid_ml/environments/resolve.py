"""From requirement lines to a lock: which release of which package, and what was substituted.

uv resolves; what it cannot know is decided here: a pin of a release without a build for this Python
is relaxed to the nearest one that has one, and torch is taken in its CPU build where there is no
GPU. Results are kept by a key over all that went in, so the second time nothing is asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from simgrid_ml.environments.catalog import (
    HOROVOD,
    NUMPY_1_UNTIL,
    ONNX_OF_NEW_TYPES,
    SOURCES,
    TORCH,
    TORCH_FAMILY,
    Substitution,
    horovod_frameworks,
    tensorflow_in,
)
from simgrid_ml.environments.process import Finished
from simgrid_ml.environments.resolution import RECIPE, Resolution
from simgrid_ml.environments.tools import Tools, constraining_builds, failure
from simgrid_ml.errors import RequirementError
from simgrid_ml.spec.job import EnvironmentSpec

if TYPE_CHECKING:
    from simgrid_ml.environments.requirements import Plan, Wish

__all__ = ["Resolver", "locked_packages"]

_MISSING = re.compile(
    r"(?:Because |and )(\S+) was not found in the (?:package registry|provided package locations)"
)


@dataclass
class Resolver:
    """Makes one lock."""

    tools: Tools

    def resolve(self, spec: EnvironmentSpec) -> Resolution:
        """
        Raises:
            SpecError: a requirement cannot be read.
            RequirementError: a package does not exist, or they exclude each other.
            EnvironmentBuildError: no index could be reached, a full disk.
        """
        from simgrid_ml.environments.requirements import plan

        self.tools.report("resolving packages")
        wanted = plan(spec, self.tools.host.python)
        cuda = spec.use_gpu and self.tools.host.has_gpu
        wanted, backend = self._choose_torch(wanted, cuda=cuda)
        lock, wanted = self._lock(_with_cuda(wanted) if cuda else wanted, backend)
        if not cuda:
            lock = self._cpu_tensorflow(lock, wanted)
        packages = locked_packages(lock)
        wanted = _without_horovod_where_it_cannot_be(wanted, packages)
        substitutions = tuple(
            dict.fromkeys(_with_version(one, packages) for one in wanted.substitutions)
        )
        identity = json.dumps(
            [
                RECIPE,
                lock,
                HOROVOD if wanted.horovod else None,
                self.tools.host.abi,
                self.tools.host.platform,
            ]
        )
        return Resolution(
            lock=lock,
            packages=packages,
            horovod=wanted.horovod,
            torch_backend=backend,
            substitutions=substitutions,
            options=wanted.options,
            lock_hash=hashlib.sha256(identity.encode()).hexdigest()[:16],
            hooks=wanted.hooks,
        )

    # -- torch -------------------------------------------------------------------------------
    def _choose_torch(self, wanted: Plan, *, cuda: bool) -> tuple[Plan, str | None]:
        """Prefer the CPU build: it is a tenth of the size, and all there is use for.

        First what the configured places offer under the local version ``+cpu``, then PyTorch's
        own index, else what PyPI has.
        """
        torch = wanted.wish("torch")
        if torch is None or torch.is_url or cuda:
            return wanted, None
        version = _cpu_candidate(torch)
        if version is not None:
            line = f"torch=={version}+cpu"
            if self._try([*wanted.options, line], ["--no-deps"]) is not None:
                return self._family(wanted.with_wish(replace(torch, line=line))), None
        if not self.tools.indexes.no_index and sys.platform == "linux":
            self.tools.report("asking the PyTorch index for a CPU build")
            found = self._try(
                [*wanted.options, torch.line],
                ["--no-deps", "--torch-backend", "cpu"],
                patient=False,
            )
            if found is not None:
                return wanted, "cpu"
        if not torch.by_user:
            line = f"torch=={TORCH}+cpu"  # the estimator's version is a wish, gigabytes are a price
            if self._try([*wanted.options, line], ["--no-deps"]) is not None:
                reason = f"a CPU build of {torch.line} could not be had"
                instead = Substitution(torch.line, "torch", reason)
                return self._family(wanted.with_wish(replace(torch, line=line))).noting(
                    instead
                ), None
        reason = (
            "no CPU build is in the configured places, and download.pytorch.org has none or "
            "cannot be reached; the build of the package index is used, which may be large"
        )
        return wanted.noting(Substitution("CPU build of torch", "torch", reason)), None

    def _family(self, wanted: Plan) -> Plan:
        """torchvision and its kin must come from where torch comes from, or they fail at import."""
        torch = wanted.wish("torch")
        assert torch is not None
        for wish in wanted.wishes:
            if wish.name == "torch" or wish.name not in TORCH_FAMILY or wish.is_url:
                continue
            found = self._try([*wanted.options, torch.line, wish.name], [])
            version = locked_packages(found or "").get(wish.name, "")
            if version.endswith("+cpu"):
                wanted = wanted.with_wish(replace(wish, line=f"{wish.name}=={version}"))
                continue
            wanted = wanted.without(wish.name).noting(
                Substitution(
                    wish.line,
                    "",
                    f"no build of {wish.name} for the CPU build of torch is in the configured "
                    "places; the one of PyPI needs CUDA libraries and fails at import",
                )
            )
        return wanted

    # -- tensorflow --------------------------------------------------------------------------
    def _cpu_tensorflow(self, lock: str, wanted: Plan) -> str:
        """The lock with ``tensorflow-cpu`` in the place of ``tensorflow``: 207 MB for 475.

        Both ship the same modules and ask for the same packages; other packages ask for
        ``tensorflow`` alone. So that is what is resolved, and exchanged afterwards.
        """
        version = locked_packages(lock).get("tensorflow")
        if version is None or not version[0].isdigit():
            return lock
        # With what it needs: without, uv reads no wheel of a folder and gives no hash.
        finished, other = self._compile(
            [*wanted.options, f"tensorflow-cpu=={version}"],
            ["--only-binary", ":all:", "--generate-hashes"],
        )
        if finished.code != 0:
            self._raise_unless_unsolvable(finished)
            return lock  # not for this machine, or not where packages come from
        cpu = "tensorflow-cpu=="
        others = [one for one in _entries(lock) if not one.startswith(("tensorflow==", cpu))]
        return "".join(others + [one for one in _entries(other) if one.startswith(cpu)])

    # -- the lock ----------------------------------------------------------------------------
    def _lock(self, wanted: Plan, backend: str | None) -> tuple[str, Plan]:
        """Wheels only, then with pins relaxed, then with source distributions allowed.

        Old releases often have a source distribution that would be compiled for minutes and fail;
        a newer wheel is nearly always what the user is better off with.
        """
        base = ["--torch-backend", backend] if backend else []
        wheels = _wheels_only(wish.name for wish in wanted.wishes)
        first, lock = self._compile(wanted.lines, [*base, *wheels, "--generate-hashes"])
        if first.code == 0:
            return self._with_what_they_need(lock, wanted, [*base, *wheels])
        self._raise_unless_unsolvable(first)

        if (yielding := wanted.yielding()) != wanted:
            wanted = yielding
            first, lock = self._compile(wanted.lines, [*base, *wheels, "--generate-hashes"])
            if first.code == 0:
                return self._with_what_they_need(lock, wanted, [*base, *wheels])
            self._raise_unless_unsolvable(first)

        self.tools.report("looking for releases that exist for this Python")
        optional = [wish for wish in wanted.wishes if wish.optional]
        for wish in optional:
            wanted = wanted.without(wish.name).noting(
                Substitution(wish.line, "", f"{wish.name} does not go with the other packages")
            )
        relaxed = wanted
        sources: list[str] = []
        for wish in wanted.wishes:
            if wish.is_url:
                sources.append(wish.name)
                continue
            line, from_source = self._nearest(wanted, wish, base)
            if from_source:
                sources.append(wish.name)
            if line != wish.line:
                reason = f"no build of {wish.line} exists for {self.tools.host.python_name}"
                relaxed = relaxed.with_wish(replace(wish, line=line)).noting(
                    Substitution(wish.line, wish.name, reason)
                )
        attempts: list[tuple[Plan, list[str]]] = []
        if not sources:
            attempts.append((relaxed, [*base, *wheels]))
        attempts.append((relaxed, base))
        loose = relaxed
        for wish in relaxed.wishes:
            original = wanted.wish(wish.name)
            if original is not None and original.line != wish.line:
                # Nearest releases may exclude each other; anything newer is the next best.
                loose = loose.with_wish(replace(wish, line=wish.line.replace("==", ">=")))
        if loose != relaxed:
            attempts.append((loose, [*base, *wheels]))
            attempts.append((loose, base))
        last = first
        for attempt, options in attempts:
            last, lock = self._compile(attempt.lines, [*options, "--generate-hashes"])
            if last.code == 0:
                return self._with_what_they_need(lock, attempt, options)
        self._raise_unless_unsolvable(last)
        free = self._free_of_old_pins(loose, [*base, *wheels])
        if free != loose:
            found, lock = self._compile(free.lines, [*base, *wheels, "--generate-hashes"])
            if found.code == 0:
                return self._with_what_they_need(lock, free, [*base, *wheels])
        raise RequirementError(
            "the packages asked for cannot be installed together",
            evidence=last.evidence(),
            remedy="loosen or drop one of the versions that uv names above",
        )

    def _free_of_old_pins(self, wanted: Plan, options: Sequence[str]) -> Plan:
        """Pins that fitted the framework asked for are lower bounds where another stands in."""
        instead = {one.got for one in wanted.substitutions} & {"tensorflow", "torch"}
        frameworks = [wish.line for wish in wanted.wishes if wish.name in instead]
        for wish in wanted.wishes if frameworks else ():
            line = re.sub(r"==\s*([^,;*]+?)(\.\*)?(?=\s*([,;]|$))", r">=\1", wish.line)
            if not wish.by_user or wish.name in instead or line == wish.line:
                continue
            if self._try([*wanted.options, *frameworks, wish.line], options) is None:
                reason = f"that release does not go with {' and '.join(frameworks)}"
                wanted = wanted.with_wish(replace(wish, line=line)).noting(
                    Substitution(wish.line, wish.name, reason)
                )
        return wanted

    def _nearest(self, wanted: Plan, wish: Wish, base: Sequence[str]) -> tuple[str, bool]:
        """The requirement to use for ``wish``, and whether it must be built from source."""
        from packaging.requirements import Requirement

        from simgrid_ml.environments.requirements import lower_bound

        alone = [*base, "--no-deps"]
        wheels = [*alone, *_wheels_only([wish.name])]
        if self._try([*wanted.options, wish.line], wheels) is not None:
            return wish.line, False
        requirement = Requirement(wish.line)
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        name = f"{requirement.name}{extras}"
        bound = lower_bound(requirement.specifier)
        candidates: list[tuple[str, list[str]]] = []
        if bound is not None:
            candidates.append((f"{name}>={bound}", [*wheels, "--resolution", "lowest-direct"]))
            candidates.append((name, wheels))
        for line, options in candidates:
            found = self._try([*wanted.options, line], options)
            if found is not None:
                version = next(iter(locked_packages(found).values()))
                return f"{name}=={version}", False
        if self._try([*wanted.options, wish.line], alone) is not None:
            return wish.line, True
        anything, lock = self._compile([*wanted.options, requirement.name], alone)
        if anything.code == 0:
            version = next(iter(locked_packages(lock).values()))
            return f"{name}=={version}", True
        self._raise_unless_unsolvable(anything)
        missing = _MISSING.search(" ".join(anything.text.split()))
        exists = missing is None
        raise RequirementError(
            f"the package {requirement.name!r} "
            + (f"has no release for {self.tools.host.python_name}" if exists else "does not exist"),
            evidence=anything.evidence(),
            remedy="check its spelling, or configure the index that has it with pip config set "
            f"global.extra-index-url URL; looked in: {self.tools.indexes.described()}",
        )

    def _with_what_they_need(
        self, lock: str, wanted: Plan, options: Sequence[str]
    ) -> tuple[str, Plan]:
        """Take what packages need and do not say: see ``NUMPY_1_UNTIL``, ``ONNX_OF_NEW_TYPES``."""
        from packaging.version import Version

        packages = {
            name: Version(text) for name, text in locked_packages(lock).items() if "://" not in text
        }
        needed: dict[str, Substitution] = {}
        old = [
            name
            for name, first in NUMPY_1_UNTIL.items()
            if name in packages and packages[name].release < first
        ]
        if old and packages.get("numpy", Version("1")).major == 2:
            reason = f"{', '.join(old)} of this age fails at import with NumPy 2"
            needed["numpy<2"] = Substitution("numpy", "numpy", reason)
        types = packages.get("ml-dtypes")
        new_onnx = packages.get("onnx", Version("0")) >= Version(ONNX_OF_NEW_TYPES)
        if new_onnx and types is not None and types < Version("0.5"):
            reason = f"later ones fail at import with ml_dtypes {types}, which other packages need"
            needed[f"onnx<{ONNX_OF_NEW_TYPES}"] = Substitution("onnx", "onnx", reason)
        if not needed:
            return lock, wanted
        lines = [*wanted.lines, *needed]
        finished, older = self._compile(lines, [*options, "--generate-hashes"])
        if finished.code != 0:
            return lock, wanted
        return older, wanted.noting(*needed.values())

    # -- uv ----------------------------------------------------------------------------------
    def _try(
        self, lines: Iterable[str], options: Sequence[str], *, patient: bool = True
    ) -> str | None:
        """The lock, or None where there is no solution."""
        finished, lock = self._compile(lines, options, patient=patient)
        if finished.code == 0:
            return lock
        if patient:
            self._raise_unless_unsolvable(finished)
        return None

    def _compile(
        self, lines: Iterable[str], options: Sequence[str], *, patient: bool = True
    ) -> tuple[Finished, str]:
        """How it ended, and the lock; "" where there is none."""
        environment = self.tools.indexes.uv_environment(os.environ)
        lines = list(lines)
        if not patient:  # asking a host that may well be out of reach
            environment.update(UV_HTTP_RETRIES="0", UV_HTTP_TIMEOUT="10")
        with tempfile.TemporaryDirectory(prefix="simgrid-ml-resolve-") as folder:
            asked = Path(folder, "requirements.txt")
            locked = Path(folder, "lock.txt")
            asked.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            environment.update(constraining_builds(lines, Path(folder)))
            self.tools.commands.log.write("# " + "  ".join(lines))
            finished = self.tools.commands.run(
                [
                    self.tools.uv,
                    "pip",
                    "compile",
                    str(asked),
                    "--output-file",
                    str(locked),
                    "--quiet",
                    "--python",
                    self.tools.host.interpreter,
                    "--no-header",
                    "--no-annotate",
                    *self.tools.indexes.uv_options,
                    *options,
                ],
                environment=environment,
                folder=folder,
            )
            return finished, locked.read_text(encoding="utf-8") if finished.code == 0 else ""

    def _raise_unless_unsolvable(self, finished: Finished) -> None:
        """Anything but "no solution" is not about versions, and trying others would mislead."""
        if finished.code == 0 or "No solution found" in finished.text:
            return
        raise failure("resolving the packages", finished, self.tools.indexes)


def _wheels_only(names: Iterable[str]) -> list[str]:
    """uv's options; packages that have no wheels are excepted."""
    options = ["--only-binary", ":all:"]
    for name in sorted(SOURCES.keys() & set(names)):
        options += ["--no-binary", name]
    return options


def _with_cuda(wanted: Plan) -> Plan:
    """TensorFlow finds the libraries of CUDA where its extra has installed them."""
    from packaging.requirements import Requirement

    wish = wanted.wish("tensorflow")
    if wish is None or wish.is_url:
        return wanted
    requirement = Requirement(wish.line)
    requirement.extras.add("and-cuda")
    return wanted.with_wish(replace(wish, line=str(requirement)))


def _without_horovod_where_it_cannot_be(wanted: Plan, packages: dict[str, str]) -> Plan:
    name = tensorflow_in(packages)
    carriers = horovod_frameworks(packages)
    if not wanted.horovod or name is None or name in carriers:
        return wanted
    reason = f"Horovod {HOROVOD} works with TensorFlow up to 2.15, not with {packages[name]}"
    lost = Substitution("horovod.tensorflow" if carriers else "horovod", "", reason)
    return replace(wanted, horovod=bool(carriers)).noting(lost)


def _entries(lock: str) -> list[str]:
    """The lock, one text per requirement: its line and those of its hashes.

    >>> _entries("a==1\\n    --hash=sha256:1\\nb==2\\n")
    ['a==1\\n    --hash=sha256:1\\n', 'b==2\\n']
    """
    return re.findall(r"^\S.*\n(?:[ \t].*\n)*", lock, re.MULTILINE)


def locked_packages(lock: str) -> dict[str, str]:
    """Name to version of every line; a package given by URL has its URL for a version.

    >>> locked_packages("numpy==2.1.0 --hash=sha256:1\\nx @ file:///w/x.whl\\n")
    {'numpy': '2.1.0', 'x': 'file:///w/x.whl'}
    """
    packages = {}
    for line in lock.splitlines():
        match = re.match(
            r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:==|@)\s*([^\s;\\]+)", line
        )
        if match:
            packages[match.group(1).lower()] = match.group(2)
    return packages


def _cpu_candidate(torch: Wish) -> str | None:
    """The release whose ``+cpu`` build would do; None where the specifier leaves it open."""
    exact = [one.version for one in torch.specifier if one.operator == "=="]
    if exact and "*" not in exact[0]:
        return exact[0] if "+" not in exact[0] else None
    return TORCH if TORCH in torch.specifier else None


def _with_version(one: Substitution, packages: dict[str, str]) -> Substitution:
    if one.got == "horovod":
        return one._replace(got=f"horovod=={HOROVOD}")
    if one.got == "tensorflow":
        name = tensorflow_in(packages)
        return one if name is None else one._replace(got=f"{name}=={packages[name]}")
    if one.got in packages:
        return one._replace(got=f"{one.got}=={packages[one.got]}")
    return one
