"""The abstract state of a run: registers, stack frames, and what has been written so far.

Beside its value a register or stack cell may carry a *link*: some of its bits are bits of `symbol + delta`,
for an unknown 64-bit symbol. Registers linked to one symbol are copies of each other, up to a constant and
a mask: what a branch teaches about one holds for all. Compilers check one copy and use the other, compare
`w` registers before they use `r` registers, and test a bit or a byte of what they use whole.

A `Snapshot` is a state as it is kept for comparison: what is dead dropped, links renumbered.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from devbc.isa.opcodes import FRAME_POINTER
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.values import Pointer, Value, Values
from devbc.verifier.word import Word


class Link(NamedTuple):
    """Where `mask` is 1, the bits of `value >> shift` are those of `symbol + delta`, modulo 2**64."""

    symbol: int
    delta: int
    mask: int
    shift: int = 0

    @property
    def whole(self) -> int:
        """Lowest bits without a gap: on so many bits the value is a number, to add to and to compare."""
        return ((self.mask + 1) & ~self.mask).bit_length() - 1


class Cell(NamedTuple):
    """Initialised bytes of the stack, naturally aligned: a word of that size, or a whole pointer."""

    value: Value
    size: int
    link: Link | None


_EVERY_BIT: Final = (1 << 64) - 1

#: r6 to r9, that a call keeps for its caller.
SAVED = slice(6, 10)


class Frame:
    """A function's stack frame. `cells` by offset from r10; what has no cell is uninitialised.

    `calls`: the slots of the calls that led here, the frame's own last (-1: the entry); `saved`: its caller's
    r6 to r9.
    """

    __slots__ = ("calls", "cells", "entry", "links", "saved")

    def __init__(
        self,
        entry: int,
        calls: tuple[int, ...],
        saved: list[Value | None],
        links: list[Link | None],
        cells: dict[int, Cell],
    ) -> None:
        self.entry = entry
        self.calls = calls
        self.saved = saved
        self.links = links
        self.cells = cells

    def copy(self) -> Frame:
        return Frame(self.entry, self.calls, self.saved.copy(), self.links.copy(), self.cells.copy())


class State:
    """A point of a run. `fields` is a bit for each exit field that was written; `wrote` the slot of the
    first write to the shared area, or -1."""

    __slots__ = ("fields", "frames", "links", "registers", "slot", "wrote")

    def __init__(
        self,
        slot: int,
        registers: list[Value | None],
        links: list[Link | None],
        frames: list[Frame],
        fields: int = 0,
        wrote: int = -1,
    ) -> None:
        self.slot = slot
        self.registers = registers
        self.links = links
        self.frames = frames
        self.fields = fields
        self.wrote = wrote

    def copy(self) -> State:
        return State(
            self.slot,
            self.registers.copy(),
            self.links.copy(),
            [frame.copy() for frame in self.frames],
            self.fields,
            self.wrote,
        )

    @property
    def calls(self) -> tuple[int, ...]:
        """The slots of the calls that led here."""
        return self.frames[-1].calls

    def learn(self, words: WordAlgebra, register: int, word: Word) -> bool:
        """Narrow a register to `word`, and its copies with it; False if nothing is left of one of them."""
        link = self.links[register]
        self.registers[register] = word
        if link is None:
            return True
        for frame in self.frames:
            for offset, cell in frame.cells.items():
                if cell.link is not None and cell.link.symbol == link.symbol:
                    narrowed = _follow(words, word, link, cell.value, cell.link)
                    if narrowed is None:
                        return False
                    frame.cells[offset] = cell._replace(value=narrowed)
            if not _follow_all(words, word, link, frame.saved, frame.links):
                return False
        return _follow_all(words, word, link, self.registers, self.links)

    def recall(self, words: WordAlgebra, register: int) -> None:
        """Narrow a register by what its copies have learnt while it was shifted out of their sight."""
        link, value = self.links[register], self.registers[register]
        if link is None or value is None:
            return
        for other, its in enumerate(self.links):
            known = self.registers[other]
            if (
                its is not None
                and its.symbol == link.symbol
                and other != register
                and isinstance(known, Word)
            ):
                narrowed = _follow(words, known, its, value, link)
                # A contradiction would mean that no run comes here: then any value stands for none.
                value = narrowed or value
        self.registers[register] = value


def _follow_all(
    words: WordAlgebra, word: Word, link: Link, values: list[Value | None], links: list[Link | None]
) -> bool:
    for index, other in enumerate(links):
        if other is None or other.symbol != link.symbol:
            continue
        value = values[index]
        if isinstance(value, Word) and not (value is word and other is link):
            narrowed = _follow(words, word, link, value, other)
            if narrowed is None:
                return False
            values[index] = narrowed
    return True


def _follow(words: WordAlgebra, word: Word, link: Link, value: Value, other: Link) -> Word | None:
    """What `value` is, given that another holder of its symbol is `word`; None if they contradict."""
    assert isinstance(value, Word)
    if link.shift or other.shift:
        return value
    if link == other and link.mask == _EVERY_BIT:
        return words.meet(value, word)  # a plain copy, or the holder itself
    common = link.mask & other.mask
    if link.delta == other.delta and (known := common & ~word.mask & value.mask):
        with_bits = words.make(
            64, value=value.value | word.value & known, mask=value.mask & ~known, umin=value.umin,
            umax=value.umax, smin=value.smin, smax=value.smax, low=value.low,
        )  # fmt: skip
        if with_bits is None:
            return None
        value = with_bits
    # On the lowest bits without a gap the two differ by a constant.
    bits = min(link.whole, other.whole)
    if bits >= 64:
        return words.meet(value, words.add(word, words.const(other.delta - link.delta, 64), 64))
    if bits < 2:
        return value
    part = words.add(words.trunc(word, 64, bits), words.const(other.delta - link.delta, bits), bits)
    if not value.umax >> bits:
        return words.meet(value, words.zext(part, bits, 64))
    return words.with_low(value, part) if bits == 32 else value


class Snapshot(NamedTuple):
    """What the rest of a run may depend on, at one slot and one chain of calls.

    Equal for equal states: values are interned, links renumbered. `values` and `links`: the registers but
    r10, then each frame's saved registers; `cells`: frame, offset and cell, in order.
    """

    values: tuple[Value | None, ...]
    links: tuple[Link | None, ...]
    cells: tuple[tuple[int, int, Cell], ...]
    fields: int
    wrote: bool

    def outline(self) -> tuple[object, ...]:
        """The snapshot without what is known of its unknown numbers: equal for states that can be joined."""
        return (
            tuple([_outline(value) for value in self.values]),
            tuple([(frame, offset, cell.size, _outline(cell.value)) for frame, offset, cell in self.cells]),
            self.wrote,
        )

    def covers(self, other: Snapshot) -> bool:
        """Whether every run from `other` is also one from here.

        Then what was proven of this state's runs (they keep the contract, and end within so many
        instructions) holds for `other`'s. A state that wrote scratch must keep the stricter contract, so it
        may stand for one that did not; a field of the exit that was written may hold more than one that was
        not.
        """
        values, _, cells, fields, wrote = self
        its_values, _, its_cells, its_fields, its_wrote = other
        if (its_wrote and not wrote) or its_fields & ~fields:
            return False
        for mine, its in zip(values, its_values, strict=True):
            if mine is not its and mine is not None and not _admits(mine, its):
                return False
        if cells != its_cells:
            places = {(frame, offset): cell for frame, offset, cell in its_cells}
            for frame, offset, cell in cells:
                found = places.get((frame, offset))
                if found is None or found.size != cell.size or not _admits(cell.value, found.value):
                    return False
        return self._same_links(other)

    def _same_links(self, other: Snapshot) -> bool:
        """Whether `other` has at least the equalities of this snapshot."""
        if not any(self.links) and not any(cell.link for _, _, cell in self.cells):
            return True
        renamed: dict[int, int] = {}
        its_cells = {(frame, offset): cell.link for frame, offset, cell in other.cells}
        pairs = list(zip(self.links, other.links, strict=True))
        pairs += [(cell.link, its_cells.get((frame, offset))) for frame, offset, cell in self.cells]
        for mine, its in pairs:
            if mine is None:
                continue
            if its is None or mine[1:] != its[1:]:
                return False
            if renamed.setdefault(mine.symbol, its.symbol) != its.symbol:
                return False
        return True


def _admits(mine: Value, its: Value | None) -> bool:
    if mine is its:
        return True
    if isinstance(mine, Word):
        # One number includes no other word: words are interned.
        return mine.mask != 0 and isinstance(its, Word) and mine.includes(its)
    return isinstance(its, Pointer) and mine.same_region(its) and mine.offset.includes(its.offset)


def _outline(value: Value | None) -> object:
    if isinstance(value, Word):
        return value if not value.mask else "number"
    if isinstance(value, Pointer):
        return value if not value.offset.mask else (value.region, value.frame)
    return None


def joined(values: Values, state: State, other: Snapshot, *, forget: bool) -> State:
    """A state that stands for `state` and for `other`, of the same outline: unknown numbers are joined.

    With `forget`, of one that `other` does not already cover only its length in bits is kept: a row of such
    joins has few steps.
    """
    words = values.words

    def word(mine: Word, its: Word) -> Word:
        if its.includes(mine):
            return its
        both = words.join(mine, its)
        return words.range(0, (1 << both.umax.bit_length()) - 1, both.bits) if forget else both

    def value(mine: Value | None, its: Value | None) -> Value | None:
        if isinstance(mine, Word) and isinstance(its, Word):
            return word(mine, its)
        if isinstance(mine, Pointer) and isinstance(its, Pointer):
            return values.pointer(mine.region, word(mine.offset, its.offset), mine.frame)
        return mine

    result = state.copy()
    rest = list(other.values)
    for registers, links in (
        (result.registers, result.links),
        *((frame.saved, frame.links) for frame in result.frames[1:]),
    ):
        count = min(len(registers), FRAME_POINTER)
        registers[:count] = [
            value(mine, its) for mine, its in zip(registers[:count], rest[:count], strict=True)
        ]
        del rest[:count]
        # Equalities of the two may differ: none is kept.
        links[:] = [None] * len(links)
    for number, offset, cell in other.cells:
        cells = result.frames[number].cells
        met = value(cells[offset].value, cell.value)
        assert met is not None
        cells[offset] = Cell(met, cell.size, None)
    result.fields |= other.fields
    return result


_NO_LINKS: Final = (None,) * FRAME_POINTER


def snapshot(state: State) -> Snapshot:
    """The state as it is compared. Links that nothing else shares are dropped from the state itself."""
    frames = state.frames
    if len(frames) == 1 and not frames[0].cells and not any(state.links):
        values = tuple(state.registers[:FRAME_POINTER])
        return Snapshot(values, _NO_LINKS, (), state.fields, state.wrote >= 0)
    linked = _drop_single_links(state)
    numbers: dict[int, tuple[int, int]] = {}

    def renumbered(link: Link) -> Link:
        # Only differences count: each symbol is shifted so that its first holder's delta is 0.
        number, base = numbers.setdefault(link.symbol, (len(numbers), link.delta))
        return Link(number, (link.delta - base) % (1 << 64), link.mask, link.shift)

    registers, links = state.registers[:FRAME_POINTER], state.links[:FRAME_POINTER]
    for frame in frames[1:]:
        registers += frame.saved
        links += frame.links
    cells = [
        (number, offset, frame.cells[offset])
        for number, frame in enumerate(frames)
        if frame.cells
        for offset in sorted(frame.cells)
    ]
    if linked:
        cells = [
            (number, offset, cell._replace(link=renumbered(cell.link)) if cell.link else cell)
            for number, offset, cell in cells
        ]
        links = [link and renumbered(link) for link in links]
    return Snapshot(tuple(registers), tuple(links), tuple(cells), state.fields, state.wrote >= 0)


def _drop_single_links(state: State) -> bool:
    """Whether links are left."""
    held = _links(state)
    if not held:
        return False
    seen: set[int] = set()
    shared: set[int] = set()
    for link in held:
        (shared if link.symbol in seen else seen).add(link.symbol)
    if len(shared) == len(seen):
        return True
    for links in (state.links, *[frame.links for frame in state.frames if frame.links]):
        for index, each in enumerate(links):
            if each is not None and each.symbol not in shared:
                links[index] = None
    for frame in state.frames:
        for offset, cell in frame.cells.items():
            if cell.link is not None and cell.link.symbol not in shared:
                frame.cells[offset] = cell._replace(link=None)
    return bool(shared)


def _links(state: State) -> list[Link]:
    links = list(filter(None, state.links))
    for frame in state.frames:
        if frame.links or frame.cells:
            links += filter(None, frame.links)
            links += [cell.link for cell in frame.cells.values() if cell.link]
    return links
