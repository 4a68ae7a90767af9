"""A device of a running VM: its shared area, its handlers' slots, its ports, and the model behind it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from devbc.diagnostics import Rejected
from devbc.hypervisor.layouts import AREA_HEADER, DEVICE, NEVER, SLOT, TIMERS_PER_DEVICE
from devbc.hypervisor.model import Model
from devbc.hypervisor.model_fault import model_failed
from devbc.hypervisor.scratch import SharedArea
from devbc.program.program import Program
from devbc.program.verified import VerifiedProgram


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device to be: its program, its model (None: nobody answers what it declines), its addresses."""

    name: str
    verified: VerifiedProgram
    model: Callable[[Any, Any], Model] | None
    at: Mapping[str, int]

    @property
    def program(self) -> Program:
        return self.verified.program


class Board(Protocol):
    """What a device needs of the VM it sits in."""

    rtc_base: int

    def now(self) -> int: ...
    def post(self, device: Device, line: int, level: int) -> None: ...
    def arm(self, device: Device, timer: int, deadline: int) -> None: ...


class Device:
    """A device of a running VM; also the `Host` of its model."""

    def __init__(self, board: Board, index: int, spec: DeviceSpec) -> None:
        program = spec.program
        self.name = spec.name
        self.spec = spec
        self.index = index
        self.area = SharedArea(program.scratch_image, program.scratch_type)
        self.rodata = ctypes.create_string_buffer(program.rodata, max(1, len(program.rodata)))
        self.slots = (SLOT.struct * max(1, len(spec.verified.handlers)))()
        self.ports = DEVICE.struct(index=index, first_timer=index * TIMERS_PER_DEVICE)
        names = program.names
        self.timer_numbers = {name: number for number, name in names.timers.items()}
        self.line_numbers = {name: number for number, name in names.lines.items()}
        self.input_numbers = {name: number for number, name in names.inputs.items()}
        self.signal_names = names.signals
        self._board = board
        self._header = AREA_HEADER.struct.from_address(self.area.header_address)
        self.model: Model | None = None
        if spec.model:
            with self:
                self.model = spec.model(self.area.view, self)

    def __enter__(self) -> Model | None:
        """Take the device's lock for its model: no mutating handler runs meanwhile.

        What the model raises is its writer's fault: Rejected (H007).
        """
        self._header.lock = 1
        return self.model

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._header.lock = 0
        if isinstance(error, Exception) and not isinstance(error, Rejected):
            raise model_failed(self.name, error) from error

    # What follows is `devbc.hypervisor.model.Host`.

    @property
    def rtc_base(self) -> int:
        return self._board.rtc_base

    def now(self) -> int:
        return self._board.now()

    def raise_line(self, line: str) -> None:
        number = _number(line, self.line_numbers, f"`{self.name}` has no output line")
        bit = 1 << number
        if not self.ports.levels & bit:
            self.ports.levels |= bit
            self._board.post(self, number, 1)

    def lower_line(self, line: str) -> None:
        number = _number(line, self.line_numbers, f"`{self.name}` has no output line")
        bit = 1 << number
        if self.ports.levels & bit:
            self.ports.levels &= ~bit
            self._board.post(self, number, 0)

    def arm(self, timer: str, deadline: int) -> None:
        self._board.arm(self, self._timer(timer), deadline)

    def cancel(self, timer: str) -> None:
        self._board.arm(self, self._timer(timer), NEVER)

    def _timer(self, timer: str) -> int:
        return _number(timer, self.timer_numbers, f"`{self.name}` has no timer")


def _number(name: str, numbers: Mapping[str, int], what: str) -> int:
    """The number of a port that a model names; LookupError, which the model's line is blamed for."""
    if name not in numbers:
        known = ", ".join(f"`{each}`" for each in numbers) or "none"
        raise LookupError(f"{what} `{name}`; there are: {known}")
    return numbers[name]
