"""The path that broke the contract, recorded: its instructions and the abstract state before each.

A rejected handler is explored once more, with an observer. The exploration is deterministic and goes depth
first, so that what it shows at depth n, after what it showed at depth n - 1, is the path to the fault.

Not here: what the path means (`slice.py`, `counterexample.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devbc.isa.insn import Insn
from devbc.program.program import Handler
from devbc.verifier import errors
from devbc.verifier.context import Context, exit_context
from devbc.verifier.errors import Fault
from devbc.verifier.explore import Exploration
from devbc.verifier.machine import AbstractMachine
from devbc.verifier.policy import Policy
from devbc.verifier.prepare import prepare
from devbc.verifier.shape import Shape
from devbc.verifier.state import Cell, State
from devbc.verifier.values import Value

#: Instructions that are explored again for a diagnosis, at most: some tenths of a second.
LIMIT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Point:
    """The state before one instruction. `cells`: of each frame, by offset from its r10."""

    slot: int
    registers: tuple[Value | None, ...]
    cells: tuple[Mapping[int, Cell], ...]
    wrote: int

    @property
    def frame(self) -> int:
        """The number of the frame at hand, from 0."""
        return len(self.cells) - 1


def point(slot: int, state: State) -> Point:
    cells = tuple([frame.cells.copy() for frame in state.frames])
    return Point(slot, tuple(state.registers), cells, state.wrote)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a handler is verified in."""

    handler: Handler
    scratch_size: int
    rodata: bytes
    policy: Policy
    context: Context

    @classmethod
    def of(
        cls,
        handler: Handler,
        *,
        scratch_size: int,
        rodata: bytes,
        policy: Policy,
        context: Context | None = None,
    ) -> Setting:
        return cls(handler, scratch_size, rodata, policy, context or exit_context(handler.binding))


@dataclass(frozen=True, slots=True)
class Failure:
    """A fault, and the path to it. The last point is where it happened: `slot`."""

    setting: Setting
    fault: Fault
    shape: Shape
    machine: AbstractMachine
    points: tuple[Point, ...]

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def insn(self) -> Insn:
        """The instruction at fault."""
        return self.shape.insns[self.last.slot]


class _Abandoned(Exception):  # noqa: N818 - not an error
    """The exploration is too long to be recorded."""


class Trail:
    """An observer that holds the path to the instruction at hand."""

    def __init__(self, setting: Setting, limit: int = LIMIT) -> None:
        self.points: list[Point] = []
        self.exploration: Exploration = prepare(
            setting.handler,
            setting.scratch_size,
            setting.rodata,
            setting.policy,
            setting.context,
            self.observe,
        )
        self._limit = limit

    def observe(self, slot: int, state: State) -> None:
        if self.exploration.steps > self._limit:
            raise _Abandoned
        del self.points[self.exploration.depth - 1 :]
        self.points.append(point(slot, state))


def failing_path(setting: Setting) -> Failure | None:
    """The first fault of a handler of proper shape, with its path.

    None if there is none on a path (the sum of the frames is judged at the end) or if it is too far.
    """
    trail = Trail(setting)
    machine = trail.exploration.machine
    try:
        trail.exploration.run()
    except Fault as fault:
        if fault.code in (errors.ENDLESS, errors.TOO_LONG):
            if trail.exploration.worst_case:
                return None  # of the longest run only the length is known
            # It is found on arrival, before the instruction is explored again.
            del trail.points[trail.exploration.depth :]
            trail.points.append(point(machine.state.slot, machine.state))
        return Failure(setting, fault, trail.exploration.shape, machine, tuple(trail.points))
    except _Abandoned:
        pass
    return None
