"""Interrupt lines: which output leads where, checked for cycles, numbered for the native loop.

A change of an output line travels each of its wires: to an input of another device, where it becomes an
event, to one of the guest's lines, or as a rising edge to an eventfd. Wires form no cycle, so a chain of
events ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from devbc.diagnostics import did_you_mean, reject
from devbc.hypervisor import errors
from devbc.hypervisor.device import Device
from devbc.hypervisor.versions import WireRow
from devbc.limits import GUEST_LINES, NOTICES, WIRES


@dataclass(frozen=True, slots=True)
class WireSpec:
    """An output line's way to an input of a device, to line `guest` of the guest (0 to 63), or to a notice.

    `notice` is the number that `VM.add_notice` gave an eventfd.
    """

    device: str
    line: str
    to_device: str = ""
    to_input: str = ""
    guest: int = -1
    notice: int = -1


def number_wires(specs: Iterable[WireSpec], devices: Sequence[Device]) -> list[WireRow]:
    """The wires of a machine by numbers. Raises Rejected (H003 names, H005 cycles, H008 too many)."""
    specs = list(specs)
    if len(specs) > WIRES:
        message = f"the machine has {len(specs):,} wires, and may have {WIRES:,}"
        raise reject(errors.TOO_LARGE, message)
    by_name = {device.name: device for device in devices}
    rows = [_resolve(spec, by_name) for spec in specs]
    _check_acyclic(rows, devices)
    return rows


def port_number(name: str, numbers: Mapping[str, int], what: str) -> int:
    """The number of a named port; Rejected (H003) saying `what` has no such port."""
    if name not in numbers:
        known = ", ".join(f"`{each}`" for each in numbers) or "none"
        help = did_you_mean(name, numbers) or (f"there are: {known}",)
        raise reject(errors.UNKNOWN_NAME, f"{what} `{name}`", help=help)
    return numbers[name]


def _resolve(spec: WireSpec, by_name: Mapping[str, Device]) -> WireRow:
    source = _device(spec.device, by_name)
    line = port_number(spec.line, source.line_numbers, f"`{source.name}` has no output line")
    if spec.guest >= GUEST_LINES:
        message = f"the guest has lines 0 to {GUEST_LINES - 1}, not {spec.guest}"
        raise reject(errors.UNKNOWN_NAME, message)
    if spec.guest >= 0:
        return WireRow(source.index, line, guest=spec.guest + 1)
    if spec.notice >= 0:
        assert spec.notice < NOTICES, "a notice's number comes from the VM"
        return WireRow(source.index, line, notice=spec.notice + 1)
    target = _device(spec.to_device, by_name)
    port = port_number(spec.to_input, target.input_numbers, f"`{target.name}` has no input line")
    return WireRow(source.index, line, target=target.index, port=port)


def _device(name: str, by_name: Mapping[str, Device]) -> Device:
    if name not in by_name:
        message = f"there is no device `{name}` to wire"
        raise reject(errors.UNKNOWN_NAME, message, help=did_you_mean(name, by_name))
    return by_name[name]


def _check_acyclic(wires: Iterable[WireRow], devices: Sequence[Device]) -> None:
    """Refuse wires by which a line's change could come back to its device."""
    from graphlib import CycleError, TopologicalSorter

    graph: dict[int, set[int]] = {}
    for wire in wires:
        if wire.target >= 0:
            graph.setdefault(wire.source, set()).add(wire.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path = " -> ".join(f"`{devices[index].name}`" for index in reversed(error.args[1]))
        raise reject(errors.WIRE_CYCLE, f"interrupt lines lead in a circle: {path}") from None
