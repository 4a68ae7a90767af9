"""A proof with its states: what the verifier explored of a handler, kept to be compared with real runs.

The claim that can be tested is this. At each instruction of any run there is an abstract state, explored at
that slot with that chain of calls, that admits the concrete one; and from it on the run takes no more
instructions than were found to remain. `devbc.engines.checked` tests it, run by run.

Each explored instruction is kept, so that this costs memory as `--trace` costs lines: for tests and for
those who doubt, not for the exit path. Not here: what "admits" means, which takes a concrete state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devbc.program.program import Handler
from devbc.program.verified import VerifiedHandler
from devbc.verifier.context import Context
from devbc.verifier.explore import Stretch
from devbc.verifier.policy import DEFAULT, Policy
from devbc.verifier.prepare import prepare
from devbc.verifier.state import Cell, Link, State
from devbc.verifier.values import Value
from devbc.verifier.verify import prove


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a call keeps of its caller: r6 to r9."""

    values: tuple[Value | None, ...]
    links: tuple[Link | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """The abstract state before one explored instruction; fields as in `devbc.verifier.state.State`.

    `calls`: slots of the calls that led here, the outermost first. `saved`: of each caller. `cells`: of each
    frame. `before`: instructions of its stretch up to here, this one not counted.
    """

    slot: int
    calls: tuple[int, ...]
    registers: tuple[Value | None, ...]
    links: tuple[Link | None, ...]
    saved: tuple[Saved, ...]
    cells: tuple[Mapping[int, Cell], ...]
    fields: int
    wrote: bool
    stretch: Stretch
    before: int

    @property
    def remaining(self) -> int:
        """Instructions of the longest run from here, this one counted. Known when all is explored."""
        return self.stretch.remaining - self.before


@dataclass(frozen=True)
class Explored:
    """A verified handler, and every abstract state that its proof went through, in the order explored.

    `places`: numbers of the points by slot and chain of calls.
    """

    verified: VerifiedHandler
    context: Context
    policy: Policy
    scratch_size: int
    rodata: bytes
    points: tuple[Point, ...]
    places: Mapping[tuple[int, tuple[int, ...]], tuple[int, ...]]


def explore_handler(
    handler: Handler, *, scratch_size: int, rodata: bytes = b"", policy: Policy = DEFAULT
) -> Explored:
    """Verify a handler and keep the states. Raises Rejected as `verify_handler` does."""
    points: list[Point] = []

    def observe(slot: int, state: State) -> None:
        stretch = exploration.stretch
        points.append(
            Point(
                slot,
                state.calls[1:],
                tuple(state.registers),
                tuple(state.links),
                tuple([Saved(tuple(frame.saved), tuple(frame.links)) for frame in state.frames[1:]]),
                tuple([frame.cells.copy() for frame in state.frames]),
                state.fields,
                state.wrote >= 0,
                stretch,
                stretch.cost - 1,
            )
        )

    exploration = prepare(handler, scratch_size, rodata, policy, None, observe)
    verified = prove(exploration, policy)
    places: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for number, point in enumerate(points):
        places.setdefault((point.slot, point.calls), []).append(number)
    return Explored(
        verified,
        exploration.machine.context,
        policy,
        scratch_size,
        rodata,
        tuple(points),
        {place: tuple(numbers) for place, numbers in places.items()},
    )
