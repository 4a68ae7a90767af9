"""Each program is refused because of *its* mistake: a verifier in which that mistake is planted accepts it.

A regression program that would be refused anyway, for another reason, guards against nothing. So the
mistakes that can be made in a few lines are made here, one at a time, and the program that exploits one must
pass. What the plants share with the real mistakes is their effect, not their code.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devbc.isa.insn import Insn
from devbc.isa.opcodes import Operation, Source
from devbc.verifier import machine, state, values
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.explore import Exploration
from devbc.verifier.machine import AbstractMachine
from devbc.verifier.state import Snapshot, State
from devbc.verifier.values import Value, is_word
from devbc.verifier.word import Word, Words
from tests.verifier.known_mistakes.mistake import RODATA, SCRATCH_SIZE, asm
from tests.verifier.known_mistakes.test_known_mistakes import MISTAKES
from tests.verifier.oracle import verify

Plant = Callable[[pytest.MonkeyPatch], None]


def upper_halves_extend_the_sign(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WordAlgebra, "zext", WordAlgebra.sext)


def _bound_halves(patch: pytest.MonkeyPatch, bounds: Callable[[int, int], tuple[int, int]]) -> None:
    """Narrow the lower half of each word by bounds that are made of the whole's."""
    narrow = Words._narrow_half

    def careless(
        words: Words, low: Word, value: int, mask: int, umin: int, umax: int, smin: int, smax: int
    ) -> Word | None:
        least, most = bounds(umin, umax)
        if least > most or least > low.umax or most < low.umin:
            return narrow(words, low, value, mask, umin, umax, smin, smax)
        return words.meet(low, words.range(least, most, words.half))

    patch.setattr(Words, "_narrow_half", careless)


def bounds_are_cut_to_the_half(patch: pytest.MonkeyPatch) -> None:
    lower = (1 << 32) - 1
    _bound_halves(patch, lambda umin, umax: (umin & lower, umax & lower))


def least_values_hold_for_the_half(patch: pytest.MonkeyPatch) -> None:
    _bound_halves(patch, lambda umin, umax: (umin if umin >> 32 == 0 else 0, min(umax, (1 << 32) - 1)))


def or_bounds_its_half_by_the_whole(patch: pytest.MonkeyPatch) -> None:
    right = WordAlgebra.or_

    def careless(words: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
        result = right(words, a, b, bits)
        least, most = a.umin & (1 << 32) - 1, a.umax & (1 << 32) - 1
        if bits < 64 or least > most:
            return result
        return words.with_low(result, words.range(least, most, 32)) or result

    patch.setattr(WordAlgebra, "or_", careless)


def halves_stand_for_the_whole(patch: pytest.MonkeyPatch) -> None:
    def careless(words: WordAlgebra, _word: Word, low: Word) -> Word:
        return words.zext(low, words.half, words.full)

    patch.setattr(Words, "with_low", careless)


def quotients_forget_zero(patch: pytest.MonkeyPatch) -> None:
    def careless(words: WordAlgebra, condition: bool | None, a: Word, b: Word, bits: int) -> Word:
        return a if condition else b

    patch.setattr(WordAlgebra, "select", careless)


def spills_survive_partial_stores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AbstractMachine, "_clear", lambda *_: None)


def variable_stores_change_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "_places", lambda *_: [])


def immediates_are_not_extended(patch: pytest.MonkeyPatch) -> None:
    store = AbstractMachine.store

    def careless(self: AbstractMachine, address: Value, value: Value, bits: int) -> None:
        if self.insn.spec.source is Source.IMM and is_word(value):
            value = self.words.const(value.value & (1 << 32) - 1, bits)
        store(self, address, value, bits)

    patch.setattr(AbstractMachine, "store", careless)


def numbers_do_not_count_where_paths_meet(patch: pytest.MonkeyPatch) -> None:
    admits = state._admits

    def careless(mine: Value, its: Value | None) -> bool:
        return (is_word(mine) and is_word(its)) or admits(mine, its)

    patch.setattr(state, "_admits", careless)


def equalities_do_not_count_where_paths_meet(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Snapshot, "_same_links", lambda *_: True)


def writes_do_not_count_where_paths_meet(patch: pytest.MonkeyPatch) -> None:
    covers = Snapshot.covers
    patch.setattr(Snapshot, "covers", lambda mine, its: covers(mine._replace(wrote=True), its))


def pointers_are_never_null(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "_plausible", lambda _: True)


def helpers_keep_registers(patch: pytest.MonkeyPatch) -> None:
    call = Exploration._call

    def careless(self: Exploration, at: State, insn: Insn, slot: int) -> None:
        kept = at.registers[1:6]
        call(self, at, insn, slot)
        if insn.spec.operation is Operation.CALL_HELPER:
            at.registers[1:6] = kept

    patch.setattr(Exploration, "_call", careless)


PLANTED: dict[str, Plant] = {
    "CVE-2017-16995, sign of a 32-bit immediate": upper_halves_extend_the_sign,
    "CVE-2017-17852, arithmetic of 32 bits that wraps": upper_halves_extend_the_sign,
    "movsx that forgets to zero the upper half": upper_halves_extend_the_sign,
    "CVE-2020-8835, 64-bit bounds cut to 32 bits": bounds_are_cut_to_the_half,
    "CVE-2021-31440, a 64-bit least value taken for the lower half's": least_values_hold_for_the_half,
    "CVE-2020-27194, 32-bit bounds of `or`": or_bounds_its_half_by_the_whole,
    "32-bit jump facts applied to a 64-bit value": halves_stand_for_the_whole,
    "32-bit equality applied to a 64-bit value": halves_stand_for_the_whole,
    "a quotient that forgets division by 0": quotients_forget_zero,
    "a stale stack slot after a partial overwrite": spills_survive_partial_stores,
    "CVE-2023-52462, a spilled pointer is partly overwritten": spills_survive_partial_stores,
    "a stale stack slot after a store at a variable place": variable_stores_change_nothing,
    "sign extension of store immediates": immediates_are_not_extended,
    "CVE-2023-2163, pruning without precision": numbers_do_not_count_where_paths_meet,
    "pruning that forgets a spilled number": numbers_do_not_count_where_paths_meet,
    "pruning that forgets which registers are equal": equalities_do_not_count_where_paths_meet,
    "pruning that forgets a write": writes_do_not_count_where_paths_meet,
    "CVE-2022-23222, a moved pointer is taken for one that is not null": pointers_are_never_null,
    "CVE-2022-23222, a pointer that was found to be null is used": pointers_are_never_null,
    "registers that a helper clobbers": helpers_keep_registers,
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_mistake_lets_its_program_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    mistake = MISTAKES[name]
    verify(asm(mistake.program), section=mistake.section, scratch_size=SCRATCH_SIZE, rodata=RODATA)
