"""Whole states at random, each made around the state of a run that it admits.

A `Layout` says of each register, saved register and stack cell what kind of thing it holds; states of one
layout have one outline, so that they can be joined. A `Case` is a state of a layout with a run's state in it.
What "admits" means is said by `devbc.engines.containment`, which is written apart from the code under test.

Not here: what is checked of them (`state_checks.py`), and states as programs make them (`campaign.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from devbc.abi import EXIT_FIELDS
from devbc.engines import interpreter
from devbc.engines.containment import admits, frame_top
from devbc.engines.interpreter import BASES
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS
from devbc.limits import STACK_BYTES
from devbc.program.verified import Region
from devbc.verifier.explore import Stretch
from devbc.verifier.explored import Point, Saved
from devbc.verifier.state import SAVED, Cell, Frame, Link, State
from devbc.verifier.values import Value, Values
from devbc.verifier.word import Word
from tests.verifier.oracle import interesting

U64: Final = (1 << 64) - 1
#: Registers of a state that may hold anything: all but the frame pointer.
FREE: Final = range(FRAME_POINTER)
#: Symbols that holders may be linked to.
SYMBOLS: Final = 3


class What(NamedTuple):
    """What a place holds in each state of a layout: a number, a pointer into `region`, or nothing.

    `fixed`: the number or offset, if it is the same and known in all of them.
    """

    region: Region | None = None
    frame: int = 0
    fixed: int | None = None


@dataclass(frozen=True)
class Layout:
    """`saved`: of each inner frame. `cells`: of each frame, by offset, with the size in bytes."""

    registers: tuple[What | None, ...]
    saved: tuple[tuple[What | None, ...], ...]
    cells: tuple[dict[int, tuple[int, What]], ...]


@dataclass
class Case:
    """A state, and the state of a run that it admits; `fields` and `wrote`: what that run has written."""

    state: State
    run: interpreter.State
    fields: int
    wrote: bool


def layout(rng: random.Random) -> Layout:
    depth = rng.randrange(1, 4)
    cells: list[dict[int, tuple[int, What]]] = []
    for _ in range(depth):
        frame: dict[int, tuple[int, What]] = {}
        for number in rng.sample(range(1, 7), rng.randrange(4)):
            size = rng.choice([1, 2, 4, 8, 8, 8])
            what = _what(rng, depth)
            frame[-8 * number] = (size, what if size == 8 or what.region is None else What())
        cells.append(frame)
    return Layout(
        tuple(_what(rng, depth) if rng.random() < 0.8 else None for _ in FREE),
        tuple(
            tuple(_what(rng, depth) if rng.random() < 0.8 else None for _ in range(4))
            for _ in range(1, depth)
        ),
        tuple(cells),
    )


def _what(rng: random.Random, depth: int) -> What:
    fixed = interesting(rng, 6) if rng.random() < 0.2 else None
    if rng.random() < 0.7:
        return What(fixed=fixed)
    region = rng.choice([Region.EXIT, Region.STACK, Region.SCRATCH, Region.RODATA])
    return What(region, rng.randrange(depth) if region is Region.STACK else 0, fixed)


class Maker:
    """Makes the states of one case: symbols have values, and every place gets one, with a word around it."""

    def __init__(self, rng: random.Random, values: Values) -> None:
        self.rng, self.values = rng, values
        self.symbols = [interesting(rng, 64) for _ in range(SYMBOLS)]
        #: Few deltas, so that holders of a symbol have the same ones too.
        self.deltas = [0, *(interesting(rng, 64) for _ in range(2))]

    def case(self, of: Layout) -> Case:
        run = interpreter.State({}, aligned=True)
        frames: list[Frame] = []
        for number, cells in enumerate(of.cells):
            saved: list[Value | None] = []
            links: list[Link | None] = []
            if number:
                made = [self.place(what) for what in of.saved[number - 1]]
                saved, links = [each[0] for each in made], [each[1] for each in made]
                kept: list[int | None] = [None] * REGISTERS
                kept[SAVED] = [each[2] for each in made]
                run.frames.append(interpreter.Frame(number, tuple(kept)))
            run.enter_frame()
            frames.append(Frame(number, tuple(range(-1, number)), saved, links, self.stack(run, cells)))
        made = [self.place(what) for what in of.registers]
        run.registers[:FRAME_POINTER] = [each[2] for each in made]
        top = self.values.pointer(Region.STACK, self.values.words.const(0, 64), len(frames) - 1)
        fields, more = self.rng.getrandbits(len(EXIT_FIELDS)), self.rng.getrandbits(len(EXIT_FIELDS))
        state = State(
            0, [*(each[0] for each in made), top], [*(each[1] for each in made), None], frames, fields | more,
            self.rng.choice([-1, 0]),
        )  # fmt: skip
        return Case(state, run, fields, state.wrote >= 0 and self.rng.random() < 0.5)

    def stack(self, run: interpreter.State, cells: dict[int, tuple[int, What]]) -> dict[int, Cell]:
        memory = next(reversed(run.memory.values()))
        made: dict[int, Cell] = {}
        for offset, (size, what) in cells.items():
            value, link, have = self.place(what, 8 * size)
            assert value is not None
            memory.store(offset + STACK_BYTES, size, have or 0)
            made[offset] = Cell(value, size, link)
        return made

    def place(self, what: What | None, bits: int = 64) -> tuple[Value | None, Link | None, int | None]:
        """The abstract value, its link, and the concrete value."""
        rng, words = self.rng, self.values.words
        if what is None:
            return None, None, rng.choice([None, interesting(rng, 64)])
        link, have = None, interesting(rng, bits) if what.fixed is None else what.fixed
        if what == What() and bits == 64 and rng.random() < 0.6:
            link = random_link(rng, rng.randrange(SYMBOLS), self.deltas)
            have = holder(rng, link, self.symbols[link.symbol])
        word = words.const(have, bits) if what.fixed is not None else around(rng, self.values, have, bits)
        if what.region is None:
            return word, link, have
        base = frame_top(what.frame) if what.region is Region.STACK else BASES[what.region]
        return self.values.pointer(what.region, word, what.frame), None, base + have & U64


def random_link(rng: random.Random, symbol: int, deltas: list[int]) -> Link:
    """Of lowest bits mostly, as compilers make them; also of some from the middle, and shifted up."""
    whole = (1 << rng.choice([1, 2, 7, 8, 16, 31, 32, 33, 63])) - 1
    mask = rng.choice([U64, U64, U64, whole, whole, whole << rng.randrange(9), rng.getrandbits(64), 0xFF00FF])
    shift = rng.randrange(64) if rng.random() < 0.1 else 0
    return Link(symbol, rng.choice(deltas), mask & U64 >> shift or 1, shift)


def holder(rng: random.Random, link: Link, symbol: int) -> int:
    """A number that has the bits of a symbol that its link says; of the others some, or none."""
    bits = (symbol + link.delta & link.mask) << link.shift
    return bits | rng.choice([0, interesting(rng, 64)]) & ~(link.mask << link.shift) & U64


def holds(link: Link, symbol: int, value: int) -> bool:
    """What a link says, said again."""
    return not (value >> link.shift ^ symbol + link.delta) & link.mask


def around(rng: random.Random, values: Values, have: int, bits: int) -> Word:
    """A word of more than one value that admits this one: some bits known, some distance to each bound."""
    words, top, sign = values.words, (1 << bits) - 1, 1 << bits - 1
    signed = have - (have >> bits - 1 << bits)

    def distance() -> int:
        return rng.choice([0, rng.randrange(1, 16), rng.getrandbits(33), top])

    for _ in range(4):
        mask = rng.choice([top, top, rng.getrandbits(bits), 0xFF & top, 0xFFFF_FFFF & top])
        word = words.make(
            bits, value=have & ~mask, mask=mask,
            umin=max(0, have - distance()), umax=min(top, have + distance()),
            smin=max(-sign, signed - distance()), smax=min(sign - 1, signed + distance()),
        )  # fmt: skip
        assert word is not None
        if word.mask:
            return word
    return words.unknown(bits)


def point(state: State) -> Point:
    """As `explore_handler` keeps a state."""
    return Point(
        state.slot,
        state.calls[1:],
        tuple(state.registers),
        tuple(state.links),
        tuple(Saved(tuple(frame.saved), tuple(frame.links)) for frame in state.frames[1:]),
        tuple(dict(frame.cells) for frame in state.frames),
        state.fields,
        state.wrote >= 0,
        Stretch(0, None),
        0,
    )


def admitted(state: State, case: Case) -> bool:
    """Whether the state admits the case's run."""
    return admits(point(state), case.run, case.fields, case.wrote)


def cases(count: int, seed: int, states_each: int = 1) -> Iterator[tuple[random.Random, Values, list[Case]]]:
    """Rows of cases of one layout, each with an algebra in which nothing is remembered."""
    for number in range(count):
        rng, values = random.Random(f"{seed} {number}"), Values()
        of = layout(rng)
        made = [Maker(rng, values).case(of) for _ in range(states_each)]
        assert all(admitted(each.state, each) for each in made), "a state around a run admits it"
        yield rng, values, made
