"""What ``nvidia-smi`` prints for people, as the driver of the GPUs' generation prints it.

Drivers from 530 on have wider columns than those before.
"""

from __future__ import annotations

import time
from typing import List, NamedTuple, Optional, Sequence

from simgrid_ml.node.nvidia_smi_fields import MIB, Seen, has_mig

__all__ = ["details", "table", "virtual"]

_WIDE_SINCE = 530


class _Form(NamedTuple):
    """Widths inside the three columns, and formats of what has a place of its own in them."""

    widths: Sequence[int]
    version: str
    titles: Sequence[str]
    first: str
    power: str
    memory: str
    name: int
    process: int


_NARROW = _Form(
    widths=(31, 22, 22),
    version=" NVIDIA-SMI {0:<13}Driver Version: {0:<13}CUDA Version: {1:<9}",
    titles=(
        "| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |",
        "|                               |                      |               MIG M. |",
    ),
    first=" {0:>3}  {1:<18}  Off  | {2:<16} Off |{3:>21} ",
    power=" N/A   N/A    P0    N/A /{0:>5} ",
    memory=" {0:>6}MiB / {1:>5}MiB ",
    name=18,
    process=30,
)
_WIDE = _Form(
    widths=(41, 24, 22),
    version=" NVIDIA-SMI {0:<23}Driver Version: {0:<15}CUDA Version: {1:<9}",
    titles=(
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A"
        " | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage"
        " | GPU-Util  Compute M. |",
        "|                                         |                       "
        " |               MIG M. |",
    ),
    first=" {0:>3}  {1:<25}      Off |   {2:<16} Off |{3:>21} ",
    power=" N/A   N/A    P0            N/A /{0:>7} ",
    memory=" {0:>7}MiB / {1:>6}MiB ",
    name=25,
    process=42,
)


def virtual(seen: Seen) -> str:
    """So that nobody takes the GPUs for real ones; fits the narrow table."""
    return f"simgrid-ml: GPUs of {seen.ledger.node} are virtual, their memory is the host's"


def table(seen: Seen, gpus: Sequence[int]) -> List[str]:
    """The lines of ``nvidia-smi`` without options."""
    form = _WIDE if seen.major >= _WIDE_SINCE else _NARROW
    inner = sum(form.widths) + 2
    whole = "+" + "-" * inner + "+"
    lines = [
        time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(seen.time)) + " " * 7,
        whole,
        _box(form.version.format(seen.ledger.driver, seen.ledger.cuda), inner),
        _box(" " + virtual(seen), inner),
        _rule(form, "-", "|+"),
        *form.titles,
        _rule(form, "=", "||"),
    ]
    for gpu in gpus:
        lines += [*_gpu(seen, gpu, form), _rule(form, "-", "++")]
    lines += [
        " " * (inner + 2),
        whole,
        _box(" Processes:", inner),
        _box("  GPU   GI   CI        PID   Type   Process name", inner, "GPU Memory"),
        _box("        ID   ID", inner, "Usage     "),
        "|" + "=" * inner + "|",
    ]
    rows = [
        _box(
            f"{one.gpu:>5}   N/A  N/A{one.row.pid:>10}      C   {one.row.name:<{form.process}.30}",
            inner,
            f"{one.row.bytes[one.gpu] // MIB}MiB",
        )
        for one in seen.processes(gpus)
    ]
    lines += rows or [_box("  No running processes found", inner)]
    return [*lines, whole]


def _box(text: str, width: int, right: str = "") -> str:
    room = width - len(right) - bool(right)
    return "|" + text[:room].ljust(room) + right + (" " if right else "") + "|"


def _rule(form: _Form, line: str, ends: str) -> str:
    return ends[0] + "+".join(line * width for width in form.widths) + ends[1]


def _gpu(seen: Seen, number: int, form: _Form) -> List[str]:
    gpu = seen.ledger.gpus[number]
    name = gpu.name if len(gpu.name) <= form.name else gpu.name[: form.name - 3] + "..."
    memory = form.memory.format(seen.used(number) // MIB, gpu.memory_bytes // MIB)
    busy = _or_none(seen.busy[number], "%")
    power = form.power.format(_or_none(gpu.power_w or None, "W"))
    mig = "Disabled" if has_mig(gpu) else "N/A"
    first, second, third = form.widths
    return [
        f"|{form.first.format(number, name, gpu.bus_id, 'N/A')}|",
        f"|{power}|{memory}|{busy:>8}{'Default':>13} |",
        f"|{'':{first}}|{'':{second}}|{mig:>{third - 1}} |",
    ]


def _or_none(value: Optional[int], unit: str) -> str:
    return "N/A" if value is None else f"{value}{unit}"


def details(seen: Seen, gpus: Sequence[int]) -> List[str]:
    """The lines of ``nvidia-smi -q``: those that a virtual GPU has something to say about."""
    ledger = seen.ledger
    lines = [
        "",
        "==============NVSMI LOG==============",
        "",
        _said("Timestamp", time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(seen.time))),
        _said("Driver Version", ledger.driver),
        _said("CUDA Version", ledger.cuda),
        "",
        _said("Attached GPUs", str(len(ledger.gpus))),
    ]
    for number in gpus:
        gpu = ledger.gpus[number]
        mig = "Disabled" if has_mig(gpu) else "N/A"
        power = f"{gpu.power_w:.2f} W" if gpu.power_w else "N/A"
        used = seen.used(number)
        lines += [
            f"GPU {gpu.bus_id}",
            _said("    Product Name", gpu.name),
            _said("    Display Mode", "Disabled"),
            _said("    Display Active", "Disabled"),
            _said("    Persistence Mode", "Disabled"),
            "    MIG Mode",
            _said("        Current", mig),
            _said("        Pending", mig),
            _said("    Serial Number", "N/A"),
            _said("    GPU UUID", gpu.uuid),
            _said("    Minor Number", str(number)),
            "    GPU Virtualization Mode",
            _said("        Virtualization Mode", "VGPU"),
            _said("        Host", virtual(seen)),
            "    PCI",
            _said("        Bus Id", gpu.bus_id),
            _said("    Fan Speed", "N/A"),
            _said("    Performance State", "P0"),
            "    FB Memory Usage",
            _said("        Total", f"{gpu.memory_bytes // MIB} MiB"),
            _said("        Used", f"{used // MIB} MiB"),
            _said("        Free", f"{max(0, gpu.memory_bytes - used) // MIB} MiB"),
            _said("    Compute Mode", "Default"),
            "    Utilization",
            _said("        Gpu", _or_none(seen.busy[number], " %")),
            _said("        Memory", "N/A"),
            "    Temperature",
            _said("        GPU Current Temp", "N/A"),
            "    Power Readings",
            _said("        Power Draw", "N/A"),
            _said("        Power Limit", power),
            "    Processes" if seen.processes([number]) else _said("    Processes", "None"),
        ]
        for one in seen.processes([number]):
            lines += [
                _said("        Process ID", str(one.row.pid)),
                _said("            Type", "C"),
                _said("            Name", one.row.name),
                _said("            Used GPU Memory", f"{one.row.bytes[number] // MIB} MiB"),
            ]
        lines.append("")
    return lines


def _said(name: str, value: str) -> str:
    return f"{name:<50}: {value}"
