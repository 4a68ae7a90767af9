"""The verifier's budget: what a step costs, what is left of a program's, and where an overspent one went.

The verdict must not depend on how fast a machine is, so that time is bounded through steps: an explored
instruction is one, and whatever takes time in proportion to the state is charged for the state's size. Then
no step takes more than some ten microseconds, however the program was made, and memory is bounded with time:
what is remembered (states where paths meet, tables of results) grows by a bounded amount a step.

The budget belongs to a program, not to a handler: a thousand hostile handlers get no more than one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from devbc.isa.opcodes import FRAME_POINTER
from devbc.verifier import errors
from devbc.verifier.errors import Fault
from devbc.verifier.shape import Shape
from devbc.verifier.state import SAVED, Snapshot, State

#: Initialised pieces of the stack that are copied, compared or narrowed in the time of one instruction.
_CELLS_A_STEP: Final = 4

#: Branches, and places where states differ, that a diagnosis names.
_NAMED: Final = 3


class Budget:
    """Steps for the verification of one program; `spent` counts those of finished handlers."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.spent = 0

    @property
    def left(self) -> int:
        return self.total - self.spent


def weight(state: State) -> int:
    """Steps that it takes to copy a state, to compare it, or to look through its stack."""
    frames = state.frames
    if len(frames) == 1:
        return len(frames[0].cells) // _CELLS_A_STEP
    return sum([len(frame.cells) for frame in frames]) // _CELLS_A_STEP


def overspent(
    budget: Budget,
    shape: Shape,
    slot: int,
    arrivals: Counter[int],
    forks: Counter[int],
    met: Sequence[Snapshot],
) -> Fault:
    """The fault of a handler that used the budget up at `slot`.

    `arrivals`: by slot, how many states arrived where paths meet. `forks`: by slot, how often a jump went
    both ways. `met`: states of the busiest meeting.
    """
    label = ""
    if arrivals:
        slot, count = arrivals.most_common(1)[0]
        place = "at this loop" if _in_cycle(shape, slot) else "here, where branches meet"
        label = f"{count:,} different states arrived {place}"
    notes = []
    if differences := _differences(met):
        notes.append(f"the states differ in {differences}")
    if budget.spent:
        notes.append(f"{budget.spent:,} of the steps went into handlers before this one")
    return Fault(
        errors.TOO_COMPLEX,
        f"the verifier gave up after {budget.total:,} steps",
        slot=slot,
        label=label,
        labels=tuple(
            (where, f"this branch went both ways {times:,} times")
            for where, times in forks.most_common(_NAMED)
            if times > 1 and where != slot
        ),
        notes=tuple(notes),
        help=("compute without branches what the branches before this place leave different",),
    )


def _in_cycle(shape: Shape, slot: int) -> bool:
    """Whether control can come back to a slot within its function."""
    seen: set[int] = set()
    pending = list(shape.successors[slot])
    while pending:
        each = pending.pop()
        if each == slot:
            return True
        if each not in seen:
            seen.add(each)
            pending += shape.successors[each]
    return False


def _differences(met: Sequence[Snapshot]) -> str:
    """Registers and stack slots of which the states know most different things, in words."""
    values: dict[str, set[object]] = {}
    for arrived in met:
        for index, value in enumerate(arrived.values):
            values.setdefault(_register(index), set()).add(value)
        for frame, offset, cell in arrived.cells:
            depth = f"`r10 - {-offset}`" if not frame else f"`r10 - {-offset}` of call {frame}"
            values.setdefault(f"the stack at {depth}", set()).add(cell.value)
    different = [(len(seen), name) for name, seen in values.items() if len(seen) > 1]
    different.sort(key=lambda each: -each[0])
    return ", ".join(f"{name} ({count:,} values)" for count, name in different[:_NAMED])


def _register(index: int) -> str:
    """The name of a snapshot's value: registers first, then what each call saved."""
    if index < FRAME_POINTER:
        return f"`r{index}`"
    saved = range(SAVED.start, SAVED.stop)
    return f"a caller's `r{saved[(index - FRAME_POINTER) % len(saved)]}`"
