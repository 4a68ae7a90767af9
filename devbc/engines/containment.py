"""Whether an abstract state of the verifier admits a concrete state of the reference interpreter.

This is the meaning of the verifier's states (the concretisation, in the words of abstract interpretation),
said a second time and apart from the code that computes with them: a register may hold a word's values, or an
address in a pointer's region; a stack cell is initialised and holds its value; holders of one symbol have
their bits in common; a field of the exit that may not have been written has not been; nor has scratch.

What a state says nothing about (a dead register, a stack byte without a cell) may be anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from devbc.engines.interpreter import BASES, REGION_BITS, State
from devbc.isa.opcodes import FRAME_POINTER
from devbc.limits import STACK_BYTES
from devbc.program.verified import Region
from devbc.verifier.explored import Point
from devbc.verifier.state import SAVED, Link
from devbc.verifier.values import Value
from devbc.verifier.word import Word

_STACK: Final = BASES[Region.STACK]
_U64: Final = (1 << 64) - 1


def frame_top(frame: int) -> int:
    """r10 of frame `frame`, the outermost being 0."""
    return _STACK + (frame << REGION_BITS) + STACK_BYTES


def admits(point: Point, state: State, fields: int, wrote: bool) -> bool:
    """Whether `point` admits `state`, which is at its slot and came there by its calls.

    `fields`, `wrote`: what the run has written, a bit for each field of the exit, and scratch.
    """
    if fields & ~point.fields or (wrote and not point.wrote):
        return False
    for known, have in zip(point.registers, state.registers, strict=True):
        if known is not None and not admits_value(known, have):
            return False
    for saved, frame in zip(point.saved, state.frames, strict=True):
        for known, have in zip(saved.values, frame.registers[SAVED], strict=True):
            if known is not None and not admits_value(known, have):
                return False
    return _admits_stack(point, state) and _admits_links(point, state)


def admits_value(known: Value, have: int | None) -> bool:
    """Whether a register of which `known` is known may hold `have`; None: it was never written."""
    if have is None:
        return False
    if isinstance(known, Word):
        return known.contains(have) if known.mask else have == known.value
    base = frame_top(known.frame) if known.region is Region.STACK else BASES[known.region]
    return known.offset.contains(have - base & _U64)


def _admits_stack(point: Point, state: State) -> bool:
    for number, cells in enumerate(point.cells):
        if not cells:
            continue
        memory = state.memory[(_STACK >> REGION_BITS) + number]
        assert memory.written is not None, "a frame begins without contents"
        for offset, cell in cells.items():
            start = offset + STACK_BYTES
            if not all(memory.written[start : start + cell.size]):
                return False
            if not admits_value(cell.value, memory.load(start, cell.size)):
                return False
    return True


def _admits_links(point: Point, state: State) -> bool:
    holders: dict[int, list[tuple[Link, int]]] = {}
    for link, value in _holders(point, state):
        others = holders.setdefault(link.symbol, [])
        if not all(_agree(link, value, *other) for other in others):
            return False
        others.append((link, value))
    return True


def _holders(point: Point, state: State) -> Iterator[tuple[Link, int]]:
    """The links of a state, each with the number that its holder has."""
    for link, have in zip(point.links[:FRAME_POINTER], state.registers, strict=False):
        if link is not None and have is not None:
            yield link, have
    for saved, frame in zip(point.saved, state.frames, strict=True):
        for link, have in zip(saved.links, frame.registers[SAVED], strict=True):
            if link is not None and have is not None:
                yield link, have
    for number, cells in enumerate(point.cells):
        for offset, cell in cells.items():
            if cell.link is not None:
                memory = state.memory[(_STACK >> REGION_BITS) + number]
                yield cell.link, memory.load(offset + STACK_BYTES, cell.size)


def _agree(a: Link, x: int, b: Link, y: int) -> bool:
    """Whether some symbol has the bits that the links say `x` and `y` have of it.

    With one constant, the bits that both have are the same. With two, the numbers differ by the constants'
    difference as far as both have the lowest bits without a gap; of bits beyond, nothing is asked.
    """
    x, y = x >> a.shift, y >> b.shift
    if a.delta == b.delta:
        return not (x ^ y) & a.mask & b.mask
    bits = min(a.whole, b.whole)
    return not (x - a.delta - y + b.delta) & ((1 << bits) - 1)
