"""A device twice: with its programs in front of the model, and by the model alone.

Programs run on the reference interpreter. Whatever is done to the pair, both must answer alike and leave the
same shared area, deadlines and interrupts: then a program may answer any access, or decline it, and nobody
can tell.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from devbc.abi import EXIT_FIELDS, AccessBinding, HypercallBinding, LineBinding, Op, TimerBinding, Verdict
from devbc.engines.interpreter import run_handler
from devbc.hypervisor.layouts import EXIT
from devbc.program.verified import VerifiedHandler
from tests.devices.bench import Bench, new_area, program


@cache
def access_handlers(device: str) -> dict[tuple[str, Op, int, int], VerifiedHandler]:
    """Handlers by bank, operation, offset and size."""
    return {
        (handler.handler.binding.bank, handler.handler.binding.op, offset, size): handler
        for handler in program(device).handlers
        if isinstance(handler.handler.binding, AccessBinding)
        for offset, size in handler.handler.binding.accesses()
    }


@cache
def event_handlers(device: str) -> dict[str, VerifiedHandler]:
    """Handlers by the timer or input line that they are for."""
    return {
        handler.handler.binding.name: handler
        for handler in program(device).handlers
        if isinstance(handler.handler.binding, TimerBinding | LineBinding)
    }


@cache
def call_handlers(device: str) -> dict[int, VerifiedHandler]:
    """Handlers by the hypercall's number."""
    return {
        handler.handler.binding.number: handler
        for handler in program(device).handlers
        if isinstance(handler.handler.binding, HypercallBinding)
    }


class _Programs:
    """Stands where the model stands on the bench: asks the programs first, then the model."""

    def __init__(self, device: str, bench: Bench) -> None:
        self.device, self.bench, self.model = device, bench, bench.model
        self.names = program(device).program.names
        self.handled = 0
        self.declined = 0

    def read(self, bank: str, offset: int, size: int) -> int:
        exit_ = self._run(
            access_handlers(self.device).get((bank, Op.READ, offset, size)), offset=offset, size=size
        )
        return int(exit_.value) & (1 << 8 * size) - 1 if exit_ else self.model.read(bank, offset, size)

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        handler = access_handlers(self.device).get((bank, Op.WRITE, offset, size))
        if not self._run(handler, offset=offset, size=size, value=value):
            self.model.write(bank, offset, size, value)

    def call(self, number: int, args: Sequence[int]) -> int:
        exit_ = self._run(call_handlers(self.device).get(number), args, offset=number)
        return int(exit_.value) if exit_ else self.model.call(number, args)

    def timer(self, name: str, deadline: int) -> None:
        if not self._run(event_handlers(self.device).get(name), value=deadline):
            self.model.timer(name, deadline)

    def line(self, name: str, level: int) -> None:
        if not self._run(event_handlers(self.device).get(name), value=level):
            self.model.line(name, level)

    def signal(self, name: str) -> None:
        self.model.signal(name)

    def _run(self, handler: VerifiedHandler | None, args: Sequence[int] = (), **fields: int) -> Any:
        """The exit as the handler left it, its effects applied; None if it declined or there is none."""
        exit_ = EXIT.struct(**fields)
        for index, arg in enumerate(args):
            exit_.arg[index] = arg
        area = self.bench.area
        before = bytes(area) if area is not None else b""
        scratch = bytearray(before)
        verdict = Verdict.DECLINE
        if handler is not None:
            rodata = program(self.device).program.rodata
            verdict = run_handler(handler, memoryview(exit_).cast("B"), scratch, rodata, self.bench.now)
        if verdict is Verdict.DECLINE:
            self.declined += 1
            assert scratch == before, "a declined run has written to the shared area"
            return None
        self.handled += 1
        if area is not None:
            ctypes.memmove(ctypes.addressof(area), bytes(scratch), len(scratch))
        self._apply(exit_)
        return exit_

    def _apply(self, exit_: Any) -> None:
        """Effects as the machine orders them: raise, lower, cancel, arm; userspace hears of signals last."""
        bench, names = self.bench, self.names
        effects: list[tuple[int, dict[int, str], Callable[[str], None]]] = [
            (getattr(exit_, "raise"), dict(names.lines), bench.raise_line),
            (exit_.lower, dict(names.lines), bench.lower_line),
            (exit_.cancel, dict(names.timers), bench.cancel),
        ]
        for mask, ports, effect in effects:
            for port, name in ports.items():
                if mask >> port & 1:
                    effect(name)
        for port, name in names.timers.items():
            if exit_.arm >> port & 1:
                bench.arm(name, exit_.deadline[port])
        for port, name in names.signals.items():
            if exit_.signal >> port & 1:
                self.model.signal(name)


class Twins:
    """The pair. `with_programs.handled` and `.declined` count what the programs did."""

    def __init__(self, device: str, *, start: int = 0) -> None:
        self.alone = Bench(device, new_area(device), start=start)
        self.both = Bench(device, new_area(device), start=start)
        self.with_programs = _Programs(device, self.both)
        self.both.model = self.with_programs

    def advance(self, ns: int) -> None:
        self.alone.advance(ns)
        self.both.advance(ns)
        self.compare(f"{ns} ns")

    def read(self, offset: int, size: int = 1, bank: str = "pio") -> int:
        answer = self.both.read(offset, size, bank)
        assert answer == self.alone.read(offset, size, bank), f"{bank} read of {size} at {offset:#x}"
        self.compare(f"{bank} read of {size} at {offset:#x}")
        return answer

    def write(self, offset: int, value: int, size: int = 1, bank: str = "pio") -> None:
        self.both.write(offset, value, size, bank)
        self.alone.write(offset, value, size, bank)
        self.compare(f"{bank} write of {size} at {offset:#x}: {value:#x}")

    def call(self, number: int, *args: int) -> int:
        """A hypercall; arguments that are not given are 0."""
        registers = (*args, *[0] * (EXIT_FIELDS["arg"].count - len(args)))
        answers = [int(each.model.call(number, registers)) % (1 << 64) for each in (self.both, self.alone)]
        assert answers[0] == answers[1], f"hypercall {number}{args}"
        self.compare(f"hypercall {number}{args}")
        return answers[0]

    def line(self, name: str, level: int) -> None:
        self.both.model.line(name, level)
        self.alone.model.line(name, level)
        self.compare(f"line {name} at {level}")

    def compare(self, after: str) -> None:
        assert self.both.edges == self.alone.edges, f"interrupts after {after}"
        assert self.both.deadlines == self.alone.deadlines, f"timers after {after}"
        high = [{line for line, level in each.levels.items() if level} for each in (self.both, self.alone)]
        assert high[0] == high[1], f"lines after {after}"
        assert self.state(self.both) == self.state(self.alone), f"shared area after {after}"

    def state(self, bench: Bench) -> Any:
        """What both must agree on after each step: the shared area, unless a device says otherwise."""
        return None if bench.area is None else described(bench.area)


def described(value: Any, but: tuple[str, ...] = ("_",)) -> Any:
    """A ctypes value as plain Python, to be compared and shown.

    Fields of the whole whose names begin with one of `but` are left out: gaps, and what may differ.
    """
    if isinstance(value, ctypes.Structure):
        fields = [field[0] for field in value._fields_ if not field[0].startswith(but)]
        return {name: described(getattr(value, name)) for name in fields}
    return [described(each) for each in value] if isinstance(value, ctypes.Array) else value
