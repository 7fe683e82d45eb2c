"""``nvidia-smi`` on nodes whose GPUs are virtual: reads the node's ledger, and says what they are.

Knows what scripts and people ask: the table, ``-L``, ``-q``, ``--query-gpu``,
``--query-compute-apps``, ``-i``, ``-l``. Everything else is refused, with exit code 2, so that
nobody takes silence for an answer. As the real one it shows all GPUs of the node, whatever
``CUDA_VISIBLE_DEVICES`` says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from simgrid_ml import wire
from simgrid_ml.node.gpu_ledger import Ledger
from simgrid_ml.node.nvidia_smi_fields import (
    COMPUTE_APP_FIELDS,
    GPU_FIELDS,
    Field,
    Seen,
    fields_of,
)
from simgrid_ml.node.nvidia_smi_table import details, table, virtual

REFUSED, NO_DEVICES, NO_DRIVER = 2, 6, 9
_INVALID = "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."
_USAGE = """\
NVIDIA System Management Interface -- of virtual GPUs, by simgrid-ml

    -h, --help                Print this and exit.
    --version                 Print versions and exit.
    -L, --list-gpus           Print the GPUs with their UUIDs.
    -q, --query               Print what is known of each GPU.
    -i, --id=ID[,ID]          Only these GPUs: by index, UUID or PCI bus id.
    --query-gpu=FIELD,...     Print these fields of each GPU; see --help-query-gpu.
    --query-compute-apps=FIELD,...
                              Print these fields of each process that uses a GPU.
    --format=csv[,noheader][,nounits]
                              How the fields are printed; must be given with --query-...
    -l, --loop=SECONDS        Again and again until Ctrl-C; -lms, --loop-ms=MILLISECONDS.
    -f, --filename=FILE       Print to a file.
"""
_WITH_VALUE = {
    "-i": "--id",
    "-l": "--loop",
    "-lms": "--loop-ms",
    "-f": "--filename",
    **{
        name: name
        for name in (
            *("--id", "--loop", "--loop-ms", "--filename", "--format"),
            *("--query-gpu", "--query-compute-apps"),
        )
    },
}
_FLAGS = {
    "-h": "--help",
    "-L": "--list-gpus",
    "-q": "--query",
    **{
        name: name
        for name in (
            *("--help", "--version", "--list-gpus", "--query"),
            *("--help-query-gpu", "--help-query-compute-apps"),
        )
    },
}
_REPORTS = ("--list-gpus", "--query", "--query-gpu", "--query-compute-apps")


class Refused(Exception):
    """What is asked cannot be answered.

    Attributes:
        code: the exit code.
        remedy: ours, where the text is the real tool's.
    """

    def __init__(self, text: str, remedy: str = "", code: int = REFUSED) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy


class _Format(NamedTuple):
    header: bool
    units: bool


def main(argv: List[str]) -> int:
    try:
        return _answer(_parse(argv))
    except Refused as refused:
        print(refused, flush=True)
        if refused.remedy:
            sys.stderr.write(f"[simgrid-ml] {refused.remedy}\n")
        return refused.code
    except BrokenPipeError:  # the reader has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parse(argv: Sequence[str]) -> Dict[str, str]:
    """The options by their long names; flags have the value "".

    Raises:
        Refused: one is not known, or has no value.
    """
    options: Dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in _FLAGS and not equals:
            options[_FLAGS[name]] = ""
        elif name in _WITH_VALUE:
            if not equals:
                if not words:
                    raise Refused(f'Option "{word}" is missing its value.')
                value = words.pop(0)
            options[_WITH_VALUE[name]] = value
        else:
            raise Refused(
                _INVALID,
                f"{word}: the GPUs of this node are virtual, and their nvidia-smi knows the "
                "options of 'nvidia-smi -h' alone",
            )
    return options


def _answer(options: Dict[str, str]) -> int:
    if "--help" in options:
        sys.stdout.write(_USAGE)
        return 0
    reports = [name for name in _REPORTS if name in options]
    if len(reports) > 1:
        raise Refused(_INVALID, f"{reports[0]} and {reports[1]} exclude each other")
    ledger = _ledger()
    driver = Seen(ledger).major
    for name, known in (
        ("--help-query-gpu", fields_of(GPU_FIELDS, driver)),
        ("--help-query-compute-apps", COMPUTE_APP_FIELDS),
    ):
        if name in options:
            print(f'List of valid properties to query for the switch "--{name[7:]}=":\n')
            print("\n".join(f'"{field}"' for field in known))
            return 0
    if "--version" in options:
        print(f"NVIDIA-SMI version  : {ledger.driver}")
        print(f"NVML version        : {ledger.driver}")
        print(f"DRIVER version      : {ledger.driver}")
        print(f"CUDA Version        : {ledger.cuda}")
        print(virtual(Seen(ledger)))
        return 0
    gpus = _chosen(ledger, options.get("--id"))
    every_s = _loop_s(options)
    with contextlib.ExitStack() as stack:
        if "--filename" in options:
            stream = stack.enter_context(open(options["--filename"], "w"))
            stack.enter_context(contextlib.redirect_stdout(stream))
        _print(ledger, gpus, options, every_s)
    return 0


def _print(
    ledger: Ledger, gpus: Sequence[int], options: Dict[str, str], every_s: Optional[float]
) -> None:
    first = True
    while True:
        lines = _report(Seen(ledger), gpus, options, first=first)
        if lines:
            print("\n".join(lines), flush=True)
        if every_s is None:
            return
        first = False
        time.sleep(every_s)


def _ledger() -> Ledger:
    try:
        return Ledger(os.environ[wire.GPU_LEDGER_VARIABLE])
    except (KeyError, OSError, ValueError) as error:
        why = (
            f"{error} is not set: the environment of the job is not passed on"
            if isinstance(error, KeyError)
            else str(error)
        )
        raise Refused(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
            "sure that the latest NVIDIA driver is installed and running.",
            why,
            NO_DRIVER,
        ) from None


def _chosen(ledger: Ledger, ids: Optional[str]) -> List[int]:
    """The GPUs that ``-i`` names; all without it.

    Raises:
        Refused: there is none of that index, UUID or bus id.
    """
    everyone = range(len(ledger.gpus))
    if ids is None:
        return list(everyone)
    chosen = []
    for word in ids.split(","):
        found = [gpu for gpu in everyone if _is_called(ledger, gpu, word.strip())]
        if not found:
            known = ", ".join(f"{gpu} ({ledger.gpus[gpu].uuid})" for gpu in everyone)
            raise Refused("No devices were found", f"-i {word}: this node has {known}", NO_DEVICES)
        chosen += found
    return sorted(set(chosen))


def _is_called(ledger: Ledger, number: int, word: str) -> bool:
    gpu = ledger.gpus[number]
    if word.isdigit():
        return int(word) == number
    buses = (gpu.bus_id.lower(), gpu.bus_id.lower()[4:])  # a domain has eight digits, or four
    return word.lower() == gpu.uuid.lower() or word.lower() in buses


def _loop_s(options: Dict[str, str]) -> Optional[float]:
    for name, per_s in (("--loop", 1), ("--loop-ms", 1000)):
        if name in options:
            try:
                every_s = float(options[name]) / per_s
            except ValueError:
                every_s = 0.0
            if every_s <= 0:
                raise Refused(f'Option "{name}" needs a number above 0: {options[name]!r}')
            return every_s
    return None


def _report(seen: Seen, gpus: Sequence[int], options: Dict[str, str], *, first: bool) -> List[str]:
    if "--list-gpus" in options:
        known = seen.ledger.gpus
        return [f"GPU {gpu}: {known[gpu].name} (UUID: {known[gpu].uuid})" for gpu in gpus]
    if "--query" in options:
        return details(seen, gpus)
    if "--query-gpu" in options:
        known_fields = fields_of(GPU_FIELDS, seen.major)
        return _csv(seen, gpus, options["--query-gpu"], known_fields, options, first)
    if "--query-compute-apps" in options:
        processes = seen.processes(gpus)
        asked = options["--query-compute-apps"]
        return _csv(seen, processes, asked, COMPUTE_APP_FIELDS, options, first)
    if "--format" in options:
        raise Refused('Option "--format" needs --query-gpu= or --query-compute-apps=')
    return table(seen, gpus)


def _csv(
    seen: Seen,
    subjects: "Sequence[Any]",
    asked: str,
    known: Dict[str, Field],
    options: Dict[str, str],
    first: bool,
) -> List[str]:
    """Lines with the fields ``asked`` of each subject, below a header the ``first`` time."""
    fields = []
    for name in asked.split(","):
        if name.strip() not in known:
            raise Refused(f'Field "{name.strip()}" is not a valid field to query.\n')
        fields.append(known[name.strip()])
    form = _format(options.get("--format"))
    lines = []
    if form.header and first:
        lines.append(", ".join(f.name + (f" [{f.unit}]" if f.unit else "") for f in fields))
    for subject in subjects:
        cells = ((field.of(seen, subject), field.unit) for field in fields)
        lines.append(", ".join(_cell(value, unit if form.units else "") for value, unit in cells))
    return lines


def _format(value: Optional[str]) -> _Format:
    """
    Raises:
        Refused: it is missing, or says what is not known.
    """
    if value is None:
        raise Refused(
            'Option "--format=" is missing: it is required with --query-..., as in --format=csv'
        )
    words = [word.strip() for word in value.split(",")]
    unknown = [word for word in words if word not in ("csv", "noheader", "nounits")]
    if unknown or "csv" not in words:
        raise Refused(f'Option "--format={value}" is not valid: csv[,noheader][,nounits]')
    return _Format("noheader" not in words, "nounits" not in words)


def _cell(value: object, unit: str) -> str:
    if value is None:
        return "[N/A]"
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{text} {unit}" if unit else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
