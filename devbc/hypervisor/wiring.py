"""Interrupt lines: which output leads where, checked for cycles, laid out for the native loop.

A change of an output line travels each of its wires: to an input of another device, where it becomes an
event, or to one of the guest's lines. Wires form no cycle, so a chain of events ends; the queue holds
several bursts of the most that one handler can cause, and grows for models, which may cause more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devbc.diagnostics import did_you_mean, reject
from devbc.hypervisor import errors
from devbc.hypervisor.device import Device
from devbc.hypervisor.layouts import EVENT, WIRE
from devbc.limits import GUEST_LINES, LINES, QUEUED_EVENTS, WIRES


@dataclass(frozen=True, slots=True)
class WireSpec:
    """An output line's way to an input of a device, or to line `guest` of the guest (0 to 63)."""

    device: str
    line: str
    to_device: str = ""
    to_input: str = ""
    guest: int = -1


@dataclass(frozen=True, slots=True, order=True)
class _Wire:
    """A wire by numbers; `target` is -1 for the guest, `guest` its line's number and 1."""

    source: int
    line: int
    target: int
    port: int
    guest: int


class Wiring:
    """The wires of a machine as native records. Raises Rejected (H003 names, H005 cycles)."""

    def __init__(self, specs: Iterable[WireSpec], devices: Sequence[Device]) -> None:
        specs = list(specs)
        if len(specs) > WIRES:
            message = f"the machine has {len(specs):,} wires, and may have {WIRES:,}"
            raise reject(errors.TOO_LARGE, message)
        by_name = {device.name: device for device in devices}
        wires = sorted(_resolve(spec, by_name) for spec in specs)
        _check_acyclic(wires, devices)
        self._wires = wires
        self.records = (WIRE.struct * max(1, len(wires)))()
        for record, wire in zip(self.records, wires, strict=False):
            record.device, record.port, record.guest = max(wire.target, 0), wire.port, wire.guest
        for device in devices:
            for line in range(LINES + 1):
                before = sum((wire.source, wire.line) < (device.index, line) for wire in wires)
                device.ports.first_wire[line] = before
        #: A handler can raise and lower each line once, and every wire may carry both changes.
        self.burst = 2 * len(wires)
        self.queue = (EVENT.struct * (1 << max(8, (8 * self.burst).bit_length())))()

    def publish(self, slots: Mapping[tuple[int, int], int]) -> None:
        """Name the handler behind each input: its slot's address by (device, input)."""
        for record, wire in zip(self.records, self._wires, strict=False):
            record.slot = slots.get((wire.target, wire.port))

    def grow_queue(self, machine: Any) -> None:
        """Make room for more events than programs cause; native code must not be running.

        Raises RuntimeError, to be blamed on the model that asks, if it would be too large.
        """
        before, size = self.queue, 2 * len(self.queue)
        if size > QUEUED_EVENTS:
            raise RuntimeError(f"{len(before):,} changes of lines wait to be delivered, and no more may")
        self.queue = (EVENT.struct * size)()
        for position in range(machine.queue_head, machine.queue_tail):
            self.queue[position & size - 1] = before[position & len(before) - 1]
        self.install(machine)

    def install(self, machine: Any) -> None:
        """Point a `layouts.MACHINE` at the wires and the queue."""
        machine.wires = ctypes.addressof(self.records)
        machine.queue = ctypes.addressof(self.queue)
        machine.queue_mask = len(self.queue) - 1
        machine.burst = self.burst


def port_number(name: str, numbers: Mapping[str, int], what: str) -> int:
    """The number of a named port; Rejected (H003) saying `what` has no such port."""
    if name not in numbers:
        known = ", ".join(f"`{each}`" for each in numbers) or "none"
        help = did_you_mean(name, numbers) or (f"there are: {known}",)
        raise reject(errors.UNKNOWN_NAME, f"{what} `{name}`", help=help)
    return numbers[name]


def _resolve(spec: WireSpec, by_name: Mapping[str, Device]) -> _Wire:
    source = _device(spec.device, by_name)
    line = port_number(spec.line, source.line_numbers, f"`{source.name}` has no output line")
    if spec.guest >= GUEST_LINES:
        message = f"the guest has lines 0 to {GUEST_LINES - 1}, not {spec.guest}"
        raise reject(errors.UNKNOWN_NAME, message)
    if spec.guest >= 0:
        return _Wire(source.index, line, -1, 0, spec.guest + 1)
    target = _device(spec.to_device, by_name)
    port = port_number(spec.to_input, target.input_numbers, f"`{target.name}` has no input line")
    return _Wire(source.index, line, target.index, port, 0)


def _device(name: str, by_name: Mapping[str, Device]) -> Device:
    if name not in by_name:
        message = f"there is no device `{name}` to wire"
        raise reject(errors.UNKNOWN_NAME, message, help=did_you_mean(name, by_name))
    return by_name[name]


def _check_acyclic(wires: Iterable[_Wire], devices: Sequence[Device]) -> None:
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
