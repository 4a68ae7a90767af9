"""Wrong operations on whole states: links, joins, pruning. The evidence is `state_checks.py`'s.

Each is a mistake that one could make in reading or changing `state.py` and `explore.py`, and that no program
of the mutants beside it shows. `test_mutants.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from devbc.isa.insn import Insn
from devbc.isa.opcodes import Operation
from devbc.verifier import explore, state
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.explore import Exploration
from devbc.verifier.state import Link, Snapshot, State
from devbc.verifier.values import Pointer, Value, Values
from devbc.verifier.word import Word
from tests.verifier import state_checks
from tests.verifier.mutant import Evidence, Mutant
from tests.verifier.states import U64


def of(check: Callable[[int, int], int], cases: int) -> Evidence:
    def evidence() -> None:
        check(cases, 1)

    return evidence


followed = of(state_checks.check_follow, 3000)
learnt = of(state_checks.check_learn, 600)
copied = of(state_checks.check_bits_of, 200)
joined = of(state_checks.check_joined, 300)
covered = of(state_checks.check_covers, 600)
stepped = of(state_checks.check_step, 800)


# Links. `_bits_of(link, insn)`: what a result has of its operand; `_follow`: what a copy teaches.


def result_has(mask: Callable[[Link, Insn], int], *operations: Operation) -> Callable[[Any], Any]:
    """Results of these operations have other bits than they really have."""

    def wrong(right: Any) -> Any:
        def bits_of(link: Link, insn: Insn) -> Link | None:
            its: Link | None = right(link, insn)
            return its and its._replace(mask=mask(link, insn)) if insn.spec.operation in operations else its

        return bits_of

    return wrong


def shifted_by_anything(right: Any) -> Any:
    """A shift to the right undoes any shift to the left."""

    def bits_of(link: Link, insn: Insn) -> Link | None:
        if insn.spec.operation in (Operation.RSH, Operation.ARSH) and insn.spec.width == 64:
            return link._replace(shift=0)
        its: Link | None = right(link, insn)
        return its

    return bits_of


def added_always(right: Any) -> Any:
    """What is subtracted counts as added."""

    def bits_of(link: Link, insn: Insn) -> Link | None:
        its: Link | None = right(link, insn)
        subtracted = its is not None and insn.spec.operation is Operation.SUB
        return its._replace(delta=(link.delta + insn.imm) & U64) if its and subtracted else its

    return bits_of


def follows(change: Callable[[Link, Link], tuple[Link, Link]]) -> Callable[[Any], Any]:
    """Links are taken for others."""

    def wrong(right: Any) -> Any:
        def follow(words: WordAlgebra, word: Word, link: Link, value: Value, other: Link) -> Any:
            link, other = change(link, other)
            return right(words, word, link, value, other)

        return follow

    return wrong


def _any_bit(link: Link, other: Link) -> tuple[Link, Link]:
    mask = link.mask | other.mask
    return link._replace(mask=mask), other._replace(mask=mask)


def symbols_alike(right: Any) -> Any:
    """A register's copies are all registers that are copies of anything."""

    def follow_all(words: WordAlgebra, word: Word, link: Link, values: Any, links: list[Link | None]) -> bool:
        alike = [each and each._replace(symbol=link.symbol) for each in links]
        return bool(right(words, word, link, values, alike))

    return follow_all


def one_symbol(right: Any) -> Any:
    """Registers without a link all get the same one."""

    def fresh(exploration: Exploration, at: State, register: int) -> Link | None:
        number = exploration._symbols
        made: Link | None = right(exploration, at, register)
        exploration._symbols = number
        return made

    return fresh


def vague(right: Any) -> Any:
    """Sound, but from here the result of a move may look like its operand without being it."""
    return lambda words, a, bits, to: words.unknown(to)


# Joins: what comes out is put right in one respect by one side alone.


def joins(spoil: Callable[[Values, State, State, Snapshot], None]) -> Callable[[Any], Any]:
    def wrong(right: Any) -> Any:
        def join(values: Values, mine: State, other: Snapshot, *, forget: bool) -> State:
            result: State = right(values, mine, other, forget=forget)
            spoil(values, result, mine, other)
            return result

        return join

    return wrong


def _keep_links(values: Values, result: State, mine: State, other: Snapshot) -> None:
    result.links[:] = mine.links


def _keep_offsets(values: Values, result: State, mine: State, other: Snapshot) -> None:
    for register, value in enumerate(mine.registers):
        if isinstance(value, Pointer):
            result.registers[register] = value


def _keep_fields(values: Values, result: State, mine: State, other: Snapshot) -> None:
    result.fields = mine.fields


def _keep_saved(values: Values, result: State, mine: State, other: Snapshot) -> None:
    for frame, its in zip(result.frames, mine.frames, strict=True):
        frame.saved = its.saved.copy()


def _keep_cells(values: Values, result: State, mine: State, other: Snapshot) -> None:
    for frame, its in zip(result.frames, mine.frames, strict=True):
        frame.cells = {offset: cell._replace(link=None) for offset, cell in its.cells.items()}


def _length_of_one(values: Values, result: State, mine: State, other: Snapshot) -> None:
    for register, value in enumerate(mine.registers):
        if isinstance(value, Word) and value.mask:
            result.registers[register] = values.words.range(0, (1 << value.umax.bit_length()) - 1, 64)


# Pruning. `mine.covers(its)`: every run from `its` is one from `mine`.


def asked_of(change: Callable[[Snapshot, Snapshot], tuple[Snapshot, Snapshot]]) -> Callable[[Any], Any]:
    """Snapshots are compared without something."""
    return lambda right: lambda mine, its: right(*change(mine, its))


def _same_fields(mine: Snapshot, its: Snapshot) -> tuple[Snapshot, Snapshot]:
    return mine._replace(fields=its.fields), its


def _registers_only(mine: Snapshot, its: Snapshot) -> tuple[Snapshot, Snapshot]:
    return mine._replace(values=(*mine.values[:10], *[None] * (len(mine.values) - 10))), its


def _common_cells(mine: Snapshot, its: Snapshot) -> tuple[Snapshot, Snapshot]:
    places = {(frame, offset) for frame, offset, _ in its.cells}
    return mine._replace(cells=tuple(each for each in mine.cells if each[:2] in places)), its


def renamed_at_will(right: Any) -> Any:
    """Each place has a link of the same bits; of which symbol is not asked."""

    def same_links(mine: Snapshot, its: Snapshot) -> bool:
        return all(a is None or (b is not None and a[1:] == b[1:]) for a, b in _links(mine, its))

    return same_links


def _links(mine: Snapshot, its: Snapshot) -> list[tuple[Link | None, Link | None]]:
    cells = {(frame, offset): cell.link for frame, offset, cell in its.cells}
    pairs = list(zip(mine.links, its.links, strict=True))
    return pairs + [(cell.link, cells.get((frame, offset))) for frame, offset, cell in mine.cells]


def constants_forgotten(right: Any) -> Any:
    """A snapshot whose links are those of plain copies."""

    def plain(link: Link | None) -> Link | None:
        return link and link._replace(delta=0)

    def snapshot(of: State) -> Snapshot:
        its: Snapshot = right(of)
        cells = tuple((*at, cell._replace(link=plain(cell.link))) for *at, cell in its.cells)
        return its._replace(links=tuple(plain(each) for each in its.links), cells=cells)  # type: ignore[arg-type]

    return snapshot


def any_region(right: Any) -> Any:
    """Offsets are compared, and not what they are offsets in."""

    def admits(mine: Value, its: Value | None) -> bool:
        if isinstance(mine, Pointer) and isinstance(its, Pointer):
            its = replace(its, region=mine.region, frame=mine.frame)
        return bool(right(mine, its))

    return admits


STATE_MUTANTS = {
    "links: a sum has every bit of its operand": Mutant(
        explore, "_bits_of", result_has(lambda link, insn: link.mask, Operation.ADD, Operation.SUB), copied),
    "links: bits that are set or flipped remain": Mutant(
        explore, "_bits_of", result_has(lambda link, insn: link.mask, Operation.OR, Operation.XOR), copied),
    "links: bits that are masked out remain": Mutant(
        explore, "_bits_of", result_has(lambda link, insn: link.mask, Operation.AND), copied),
    "links: a copy's half has the whole": Mutant(
        explore, "_bits_of", result_has(lambda link, insn: link.mask, Operation.MOV), copied),
    "links: any shift to the right undoes one to the left": Mutant(
        explore, "_bits_of", shifted_by_anything, copied),
    "links: what is subtracted counts as added": Mutant(explore, "_bits_of", added_always, copied),
    "links: constants between copies are not asked": Mutant(
        state, "_follow", follows(lambda link, other: (link, other._replace(delta=link.delta))), followed),
    "links: bits that one of two has, both have": Mutant(state, "_follow", follows(_any_bit), followed),
    "links: what is shifted is compared as it is": Mutant(
        state, "_follow", follows(lambda link, other: (link._replace(shift=0), other._replace(shift=0))),
        followed),
    "links: a gap in the bits counts as none": Mutant(
        Link, "whole", lambda right: property(lambda link: link.mask.bit_length()), followed),
    "links: what a jump teaches goes to copies of everything": Mutant(
        state, "_follow_all", symbols_alike, learnt),
    "links: one symbol for all": Mutant(Exploration, "_fresh", one_symbol, stepped),
    "links: a vague result that looks like its operand is it": Mutant(WordAlgebra, "sext", vague, stepped),
    "joined: equalities of one side": Mutant(state, "joined", joins(_keep_links), joined),
    "joined: offsets of one side": Mutant(state, "joined", joins(_keep_offsets), joined),
    "joined: what one side has written of the exit": Mutant(state, "joined", joins(_keep_fields), joined),
    "joined: callers' registers of one side": Mutant(state, "joined", joins(_keep_saved), joined),
    "joined: the stack of one side": Mutant(state, "joined", joins(_keep_cells), joined),
    "joined: the length of one side's numbers": Mutant(state, "joined", joins(_length_of_one), joined),
    "pruning: equalities are not compared": Mutant(
        Snapshot, "_same_links", lambda right: lambda mine, its: True, covered),
    "pruning: links to any symbol are the same": Mutant(Snapshot, "_same_links", renamed_at_will, covered),
    "pruning: constants between copies are not compared": Mutant(
        state, "snapshot", constants_forgotten, covered),
    "pruning: what was written of the exit is not asked": Mutant(
        Snapshot, "covers", asked_of(_same_fields), covered),
    "pruning: callers' registers are not compared": Mutant(
        Snapshot, "covers", asked_of(_registers_only), covered),
    "pruning: bytes that were never written may be anything": Mutant(
        Snapshot, "covers", asked_of(_common_cells), covered),
    "pruning: registers that were never written may be anything": Mutant(
        state, "_admits", lambda right: lambda mine, its: its is None or right(mine, its), covered),
    "pruning: a pointer into any region": Mutant(state, "_admits", any_region, covered),
}  # fmt: skip
