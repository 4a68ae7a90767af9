"""Replaying a recording on a VM: every value a read returns is compared with what was recorded.

Who answered what is counted by device and register. What no device claims is answered with the recorded
value and counted as unclaimed; it can neither be handled nor mismatch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from math import gcd
from statistics import median_grouped
from time import perf_counter
from typing import Any, Protocol

from devbc.abi import Op, Space
from devbc.engines.clock import counter_period_ns
from devbc.guests.recording import Recording, Target
from devbc.hypervisor.layouts import MISMATCH, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from devbc.program.program import Program, Register


@dataclass(slots=True)
class Tally:
    """Counts of some accesses. `ticks`: cycles of each handled exit inside the native loop.

    `declined` are full userspace exits of a device: its program said no, has no handler for the access, or
    its lock was taken.
    """

    accesses: int = 0
    handled: int = 0
    declined: int = 0
    unclaimed: int = 0
    mismatches: int = 0
    ticks: list[int] = field(default_factory=list, repr=False)

    def add(self, other: Tally) -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ticks += other.ticks

    @property
    def ns_per_handled_exit(self) -> float | None:
        """The median, in ns; None if nothing was handled, or the host cannot time it.

        Counters advance in steps (26 cycles, 10 ns, on some hosts), so that single exits take a whole
        number of steps; the median is interpolated within its step, as for all grouped data.
        """
        period = counter_period_ns()
        if not self.ticks or period is None:
            return None
        step = gcd(*self.ticks) or 1
        return round(median_grouped(self.ticks, step) * period, 1)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTS} | {
            "ns_per_handled_exit": self.ns_per_handled_exit
        }


_COUNTS = ("accesses", "handled", "declined", "unclaimed", "mismatches")
#: Accesses that a mismatch shows before itself.
_STEPS_BEFORE = 5
_FIELDS = {
    Outcome.HANDLED: "handled",
    Outcome.DECLINED: "declined",
    Outcome.CONTENDED: "declined",
    Outcome.NO_PROGRAM: "declined",
    Outcome.UNCLAIMED: "unclaimed",
}


@dataclass(frozen=True, slots=True)
class RegisterName:
    """A register as people know it; `device` is empty for what no device claims."""

    device: str
    register: str
    op: Op

    def __str__(self) -> str:
        return f"{self.device}{'.' if self.device else ''}{self.register} {self.op}"


class Answerer(StrEnum):
    """Who answered an access."""

    PROGRAM = "program"
    MODEL = "model"
    #: The device has no model: the recording's value was given.
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Step:
    """An access of a replay: `index` counts from 0, `value` is the recording's, `by` whoever answered."""

    index: int
    time: int
    name: RegisterName
    size: int
    value: int
    by: Answerer


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first read of a register that returned another value than the recording's.

    `before`: the last accesses of the same device before it, of which the first to look wrong is often one.
    """

    step: Step
    got: int
    before: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found. `seconds`: wall time of the run after set-up."""

    recording: str
    total: Tally
    registers: dict[RegisterName, Tally]
    mismatches: tuple[Mismatch, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        registers = {
            str(name): {"device": name.device, "register": name.register, "op": str(name.op)}
            | tally.to_json()
            for name, tally in self.registers.items()
        }
        first = [
            {"device": m.step.name.device, "register": m.step.name.register, "op": str(m.step.name.op),
             "access": m.step.index, "time_ns": m.step.time, "got": m.got, "recorded": m.step.value,
             "answered_by": str(m.step.by)}
            for m in self.mismatches
        ]  # fmt: skip
        return (
            {"recording": self.recording}
            | self.total.to_json()
            | {"seconds": round(self.seconds, 4), "registers": registers, "first_mismatches": first}
        )


def merge(replays: Sequence[Replay]) -> Replay:
    """Several replays as one: counts summed, the recordings' names joined."""
    total = Tally()
    registers: dict[RegisterName, Tally] = {}
    for each in replays:
        total.add(each.total)
        for name, tally in each.registers.items():
            registers.setdefault(name, Tally()).add(tally)
    mismatches = {each.step.name: each for replay in reversed(replays) for each in replay.mismatches}
    return Replay(
        ", ".join(each.recording for each in replays),
        total,
        registers,
        tuple(mismatches.values()),
        sum(each.seconds for each in replays),
    )


def replay(recording: Recording, vm: VM, *, timed: bool = True) -> Replay:
    """Run a recording's accesses on a VM, from the VM's clock on; `timed`: as for `Run`."""
    run = Run(recording.accesses, timed=timed)
    start = perf_counter()
    vm.run(run)
    return tally(recording, run, vm, perf_counter() - start)


class Place(Protocol):
    """A device, as far as tables name it."""

    @property
    def name(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def program(self) -> Program: ...
    @property
    def model(self) -> object | None: ...


class Board(Protocol):
    """A machine, as far as tables name its registers: a VM of this process or of a service."""

    @property
    def devices(self) -> Sequence[Place]: ...
    def find(self, space: Space, address: int) -> tuple[Place, str, int] | None: ...


class Results(Protocol):
    """What became of a recording's accesses, an element an access: `hypervisor.run.Run`, or a client's.

    `ticks` is empty if the exits were not timed.
    """

    @property
    def accesses(self) -> Any: ...
    @property
    def outcomes(self) -> Sequence[int]: ...
    @property
    def answers(self) -> Sequence[int]: ...
    @property
    def ticks(self) -> Sequence[int]: ...


def tally(recording: Recording, run: Results, vm: Board, seconds: float) -> Replay:
    """Count who answered what, by device and register."""
    names = [register_name(vm, target) for target in recording.targets]
    places = sorted(range(len(names)), key=lambda target: _place(vm, recording.targets[target]))
    registers = {names[target]: Tally() for target in places}
    counts = Counter(zip(recording.target_of, run.outcomes, strict=True))
    for (target, outcome), count in counts.items():
        tally = registers[names[target]]
        tally.accesses += count
        tally.mismatches += count if outcome & MISMATCH else 0
        kind = _FIELDS[Outcome(outcome & ~MISMATCH)]
        setattr(tally, kind, getattr(tally, kind) + count)
    handled = (Outcome.HANDLED, Outcome.HANDLED | MISMATCH)
    ticks: list[list[int]] = [registers[name].ticks for name in names]
    if run.ticks:
        for target, outcome, tick in zip(recording.target_of, run.outcomes, run.ticks, strict=True):
            if outcome in handled:
                ticks[target].append(tick)
    total = Tally()
    for tally in registers.values():
        total.add(tally)
    modelless = frozenset(device.name for device in vm.devices if device.model is None)
    mismatches = tuple(_Story(recording, run, names, modelless).first_mismatches())
    return Replay(recording.name, total, registers, mismatches, seconds)


def register_name(vm: Board, target: Target) -> RegisterName:
    """The device and register at a target's address, or the recorder's name of the region."""
    found = vm.find(target.space, target.address)
    if found is None:
        return RegisterName("", target.region, target.op)
    device, bank, offset = found
    program = device.program
    for register in program.registers:
        if register.bank == bank and (label := register_label(register, offset)):
            return RegisterName(device.name, label, target.op)
    prefix = "" if bank in (Space.PIO, Space.MMIO) else f"{bank}+"
    return RegisterName(device.name, f"{prefix}{offset:#x}", target.op)


def _place(vm: Board, target: Target) -> tuple[int, Space, int, Op]:
    """Where a target comes in a table: by device as the machine has them, by address, reads first."""
    found = vm.find(target.space, target.address)
    index = found[0].index if found else len(vm.devices)
    return index, target.space, target.address, target.op


def register_label(register: Register, offset: int) -> str:
    """The register's name for an offset in its bank, `counter[2]`, `tmr_val+1`; empty if it is elsewhere."""
    index, within = divmod(offset - register.offset, register.stride or register.size)
    if not 0 <= index < register.count or within >= register.size:
        return ""
    part = f"+{within}" if within else ""
    return f"{register.name}[{index}]{part}" if register.count > 1 else f"{register.name}{part}"


@dataclass(frozen=True, slots=True)
class _Story:
    """What became of each access, for telling it; `modelless` are the devices without a userspace model."""

    recording: Recording
    run: Results
    names: Sequence[RegisterName]
    modelless: frozenset[str]

    def first_mismatches(self) -> Iterator[Mismatch]:
        seen: set[RegisterName] = set()
        for index, outcome in enumerate(self.run.outcomes):
            name = self.names[self.recording.target_of[index]]
            if outcome & MISMATCH and name not in seen:
                seen.add(name)
                before = [*islice(self._before(index), _STEPS_BEFORE)]
                yield Mismatch(self._step(index), self.run.answers[index], tuple(reversed(before)))

    def _before(self, index: int) -> Iterator[Step]:
        """The accesses of the same device before one, the nearest first."""
        device = self.names[self.recording.target_of[index]].device
        for each in range(index - 1, -1, -1):
            if self.names[self.recording.target_of[each]].device == device:
                yield self._step(each)

    def _step(self, index: int) -> Step:
        access, number = self.run.accesses[index], self.recording.target_of[index]
        name, target = self.names[number], self.recording.targets[number]
        if self.run.outcomes[index] & ~MISMATCH == Outcome.HANDLED:
            by = Answerer.PROGRAM
        else:
            by = Answerer.NOBODY if name.device in self.modelless else Answerer.MODEL
        return Step(index, access.time, name, target.size, access.value, by)
